package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/internal/size"
	"github.com/buoy-edge/buoy/internal/version"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// nodeInfo is a node at a glance. Sizes are in bytes.
type nodeInfo struct {
	Client     string               `json:"client"` // version of buoy
	Node       buoy.Node            `json:"node"`
	System     buoy.OS              `json:"system"`
	CPUs       int                  `json:"cpus"`
	Memory     buoy.Memory          `json:"memory"`
	Disk       diskInfo             `json:"disk"`
	Containers map[string]int       `json:"containers"` // by state
	Images     imagesInfo           `json:"images"`
	Bridges    []string             `json:"bridges"`
	Logins     []buoy.RegistryLogin `json:"logins"`
}

type diskInfo struct {
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

type imagesInfo struct {
	Count int   `json:"count"`
	Size  int64 `json:"size"`
}

func (c *cli) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "info",
		Short: "Show a node at a glance",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			info, err := glance(ctx, b)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(info)
			}
			return c.showInfo(info)
		}),
	}
}

// glance asks for all of it at once: the node may be far away.
func glance(ctx context.Context, b *buoy.Client) (i nodeInfo, err error) {
	i = nodeInfo{Client: version.Version, Containers: map[string]int{}, Bridges: []string{}}
	if i.Node, err = b.Node(ctx, ""); err != nil { // by the way it finds out which node that is
		return i, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { i.System, err = b.OS(ctx, ""); return err })
	g.Go(func() (err error) { i.Memory, err = b.Memory(ctx, ""); return err })
	g.Go(func() (err error) { i.Logins, err = b.Logins(ctx); return err })
	g.Go(func() error {
		cpus, err := b.CPUs(ctx, "")
		i.CPUs = len(cpus)
		return err
	})
	g.Go(func() error {
		u, err := b.ImageUsage(ctx)
		i.Disk = diskInfo{u.Total, u.Free}
		i.Images = imagesInfo{len(u.Images), u.Layers.Bytes + u.Flists.Bytes + u.Chunks.Bytes + u.Partial.Bytes}
		return err
	})
	g.Go(func() error {
		all, err := b.Containers(ctx)
		for _, one := range all {
			i.Containers[one.State]++
		}
		return err
	})
	g.Go(func() error {
		all, err := b.Bridges(ctx)
		for _, one := range all {
			i.Bridges = append(i.Bridges, one.Name)
		}
		return err
	})
	return i, g.Wait()
}

func gpusAtAGlance(s buoy.OS) string {
	if s.GPUDriver != "" {
		return fmt.Sprintf("%d, NVIDIA driver %s", s.GPUs, s.GPUDriver)
	}
	return fmt.Sprint(s.GPUs)
}

func (c *cli) showInfo(i nodeInfo) error {
	containers, total := []string{}, 0
	for _, state := range slices.Sorted(maps.Keys(i.Containers)) {
		total += i.Containers[state]
		containers = append(containers, fmt.Sprintf("%d %s", i.Containers[state], state))
	}
	logins := []string{}
	for _, l := range i.Logins {
		logins = append(logins, l.Registry+" ("+l.Username+")")
	}
	s := i.System
	controller := i.Node.Controller
	if controller == "self" {
		controller = "this node"
	}
	rows := [][2]string{
		{"node", fmt.Sprintf("%s, %s", i.Node.ID, i.Node.Hostname)},
		{"address", i.Node.IPAddress},
		{"buoyd", i.Node.Version},
		{"controller", controller},
		{"system", strings.TrimSpace(s.Platform + " " + s.PlatformVersion)},
		{"kernel", s.KernelVersion + " " + s.Arch},
		{"machine", strings.TrimSpace(s.VirtualizationSystem + " " + s.VirtualizationRole)},
		{"cgroups", s.Cgroups},
		{"up", ago(time.Duration(s.Uptime) * time.Second)}, //nolint:gosec // a time since boot
		{"cpus", fmt.Sprint(i.CPUs)},
		{"memory", fmt.Sprintf("%s of %s available", size.Text(int64(i.Memory.Available)), size.Text(int64(i.Memory.Total)))}, //nolint:gosec // of a machine
		{"disk", fmt.Sprintf("%s of %s free", size.Text(i.Disk.Free), size.Text(i.Disk.Total))},
		{"gpus", gpusAtAGlance(s)},
		{"containers", strings.TrimSuffix(fmt.Sprintf("%d: %s", total, strings.Join(containers, ", ")), ": ")},
		{"images", fmt.Sprintf("%d, %s", i.Images.Count, size.Text(i.Images.Size))},
		{"bridges", strings.Join(i.Bridges, ", ")},
		{"logins", strings.Join(logins, ", ")},
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		if row[1] == "" {
			row[1] = "-"
		}
		fmt.Fprintf(w, "%s\t%s\n", row[0], shown(row[1]))
	}
	return w.Flush()
}

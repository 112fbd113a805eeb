package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/size"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) hostsCommand() *cobra.Command {
	var f listFlags
	list := c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error { return c.listHosts(ctx, b, f) })
	cmd := &cobra.Command{
		Use:     "hosts",
		Aliases: []string{"host"},
		Short:   "List the hosts that apps run on, and take them out of service",
		Args:    noSuchVerb,
		RunE:    list,
	}
	ls := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List hosts", Args: takes(0, 0, "no arguments"), RunE: list}
	for _, one := range []*cobra.Command{cmd, ls} {
		f.register(one, "ids")
	}
	var why string
	drain := c.onHosts("drain", "Give hosts nothing new, and move what runs there elsewhere", func(ctx context.Context, b *buoy.Client, id string) error {
		return b.DrainHost(ctx, id, why)
	})
	terminate := c.onHosts("terminate", "Drain hosts, and then forget them", func(ctx context.Context, b *buoy.Client, id string) error {
		return b.TerminateHost(ctx, id, why)
	})
	for _, one := range []*cobra.Command{drain, terminate} {
		one.Flags().StringVar(&why, "reason", "", "a `sentence` for others who ask")
	}
	cmd.AddCommand(
		ls, c.hostInspectCommand(), drain, terminate,
		c.onHosts("pause", "Give hosts nothing new; what runs there stays", func(ctx context.Context, b *buoy.Client, id string) error { return b.PauseHost(ctx, id) }),
		c.onHosts("resume", "Put hosts that are paused or drained back into service", func(ctx context.Context, b *buoy.Client, id string) error { return b.ResumeHost(ctx, id) }),
	)
	return cmd
}

func (c *cli) listHosts(ctx context.Context, b *buoy.Client, f listFlags) error {
	hosts, err := b.Hosts(ctx)
	if err != nil {
		return err
	}
	head := []string{"ID", "NAME", "ADDRESS", "STATE", "REPLICAS", "CPUS FREE", "MEMORY FREE"}
	gpus := slices.ContainsFunc(hosts, func(h buoy.Host) bool { return h.NumGPU > 0 })
	if gpus {
		head = append(head, "GPUS FREE")
	}
	l := listing{raw: hosts, of: buoy.Host{}, head: append(head, "SEEN", "LABELS"), wide: []string{"TUNNEL", "ARCH", "OS", "KERNEL", "VERSION"}}
	for _, h := range hosts {
		item, err := json.Marshal(h)
		if err != nil {
			return err
		}
		l.items = append(l.items, item)
		row := []string{
			h.ID, h.Name, h.Address, hostState(h), strconv.Itoa(h.Replicas), fmt.Sprintf("%.1f of %d", float64(h.Free.MilliCPU)/1000, h.CPUs),
			size.Text(h.Free.Memory) + " of " + size.Text(h.Memory),
		}
		if gpus {
			row = append(row, gpusText(h))
		}
		l.add(h.ID, append(row, since(h.LastSeen), labelsText(h.Labels), tunnelText(h.Linked), h.Arch, h.OS, h.Kernel, h.Version)...)
	}
	return c.list(l, f)
}

// hostState is how well a host is in touch, and what it has been told to do.
func hostState(h buoy.Host) string {
	state := orElse(h.Liveness, "alive")
	switch h.Mode {
	case "drain":
		state += ", draining"
	case "pause":
		state += ", paused"
	case "terminate":
		state += ", terminating"
	}
	if h.DrainDetail != "" {
		state += " (" + h.DrainDetail + ")"
	}
	return state
}

// tunnelText says whether a host can be asked for logs and the like.
func tunnelText(linked bool) string {
	if linked {
		return "open"
	}
	return "closed"
}

func gpusText(h buoy.Host) string {
	if h.NumGPU == 0 {
		return ""
	}
	text := fmt.Sprintf("%d of %d", h.Free.GPUs, h.NumGPU)
	if len(h.GPUs) == 0 || slices.ContainsFunc(h.GPUs, func(g buoy.GPU) bool { return g.Model != h.GPUs[0].Model }) {
		return text
	}
	return strings.TrimSpace(text + " " + h.GPUs[0].Model)
}

func labelsText(labels map[string]string) string {
	pairs := []string{}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

func (c *cli) hostInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect HOST",
		Short: "Print all there is to know of a host, as JSON",
		Args:  takes(1, 1, "the id or the name of a host"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			h, err := b.FindHost(ctx, args[0])
			if err != nil {
				return err
			}
			_, raw, err := ask[json.RawMessage](ctx, b, "/host/"+url.PathEscape(h.ID)+"/detail")
			if err != nil {
				return err
			}
			return c.json(raw)
		}),
	}
}

// onHosts is a command that does one thing to each host named.
func (c *cli) onHosts(verb, short string, do func(ctx context.Context, b *buoy.Client, id string) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " HOST…",
		Short: short,
		Args:  takes(1, -1, "ids or names of hosts"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error {
				h, err := b.FindHost(ctx, name)
				if err != nil {
					return err
				}
				return do(ctx, b, h.ID)
			})
		}),
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) gpusCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "gpus",
		Short: "List the node's GPUs, how they are, and which containers use them",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			const path = "/nodes/{node}/gpus"
			var raw json.RawMessage
			if err := b.Do(ctx, http.MethodGet, path, nil, &raw); err != nil {
				return err
			}
			var all buoy.NodeGPUs
			var listed struct{ GPUs []json.RawMessage }
			if err := json.Unmarshal(raw, &all); err != nil {
				return fmt.Errorf("decode the answer to GET %s: %w", path, err)
			}
			if err := json.Unmarshal(raw, &listed); err != nil {
				return fmt.Errorf("decode the answer to GET %s: %w", path, err)
			}
			l := listing{
				raw: raw, items: listed.GPUs, of: buoy.NodeGPU{},
				head: []string{"GPU", "MODEL", "UUID", "MEMORY", "UTIL", "TEMP", "POWER", "CONTAINERS", "STATE"},
				wide: []string{"PCI", "NUMA", "DRIVER", "ECC", "XID", "MESSAGE"},
			}
			for _, g := range all.GPUs {
				l.add(g.UUID, gpuRow(g)...)
			}
			if err := c.list(l, f); err != nil {
				return err
			}
			if all.Trouble != "" {
				c.tell(all.Trouble)
			}
			return nil
		}),
	}
	f.register(cmd, "UUIDs")
	return cmd
}

// gpuRow is a line of the table, what is asked for by -o wide last.
func gpuRow(g buoy.NodeGPU) []string {
	model, ecc, xid := g.Model, "", ""
	if g.Instance != nil {
		model += " MIG " + g.Instance.Profile
	}
	if g.ECC != nil {
		ecc = fmt.Sprintf("%d/%d", g.ECC.Corrected, g.ECC.Uncorrected)
	}
	if g.XID != 0 {
		xid = strconv.FormatInt(g.XID, 10)
	}
	return []string{
		some("%d", g.Index), model, g.UUID, gpuMemory(g), some("%d%%", g.Utilization), some("%d°C", g.Temperature), gpuPower(g), gpuUsers(g), g.State,
		g.PCI, some("%d", g.NUMANode), g.KernelDriver, ecc, xid, g.Message,
	}
}

// some is a figure, if there is one.
func some[T any](format string, v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf(format, *v)
}

func gpuMemory(g buoy.NodeGPU) string {
	switch {
	case g.Memory == 0:
		return ""
	case g.MemoryUsed == nil:
		return bytesOf(uint64(g.Memory))
	}
	return bytesOf(uint64(max(*g.MemoryUsed, 0))) + " / " + bytesOf(uint64(g.Memory))
}

func gpuPower(g buoy.NodeGPU) string {
	if g.Power == nil || g.PowerLimit == nil {
		return some("%.0fW", g.Power)
	}
	return fmt.Sprintf("%.0f / %.0fW", *g.Power, *g.PowerLimit)
}

// gpuUsers are the containers that hold a GPU or have processes on it; other
// processes are a number.
func gpuUsers(g buoy.NodeGPU) string {
	names, others := slices.Clone(g.Containers), 0
	for _, p := range g.Processes {
		switch {
		case p.Container == "":
			others++
		case !slices.Contains(names, p.Container):
			names = append(names, p.Container)
		}
	}
	slices.Sort(names)
	if others > 0 {
		names = append(names, fmt.Sprintf("+%d", others))
	}
	return strings.Join(names, ",")
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/size"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// statsOptions are the flags of stats.
type statsOptions struct {
	once, all bool
	interval  time.Duration
	listFlags
}

func (c *cli) statsCommand() *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats [CONTAINER…]",
		Short: "Show what containers use",
		Long: `Show what containers use, again and again until interrupted.

CPU % is of one processor. Memory is without page cache that is not in use.
A format has what -o json has, and .CPUPerc, .MemUsage, .MemPerc, .NetIO and
.BlockIO as the table has them.`,
		Args: takes(0, -1, "containers, or none for all"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error { return c.stats(ctx, b, names, o) }),
	}
	cmd.Flags().BoolVar(&o.once, "no-stream", false, "once only")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "halted ones too")
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "`time` from one to the next, and that CPU % is of")
	o.registerFormat(cmd)
	return cmd
}

func (c *cli) stats(ctx context.Context, b *buoy.Client, names []string, o statsOptions) error {
	query := buoy.StatsOptions{Interval: o.interval, All: o.all || len(names) > 0}
	for _, name := range names {
		if _, err := b.Container(ctx, name); err != nil {
			return about(errNoContainer, err)
		}
	}
	if o.once {
		list, err := b.ContainersStats(ctx, query)
		if err != nil {
			return err
		}
		return c.showStats(onlyNamed(list.Containers, names), o.listFlags)
	}
	for list, err := range b.FollowContainersStats(ctx, query) {
		if err != nil {
			return err
		}
		shown := onlyNamed(list.Containers, names)
		if len(shown) == 0 && len(names) > 0 {
			return nil
		}
		if err := c.refreshStats(shown, o.listFlags); err != nil {
			return err
		}
	}
	return nil
}

// onlyNamed are those with one of the names, or all if there is none.
func onlyNamed(all []buoy.ContainerStats, names []string) []buoy.ContainerStats {
	if len(names) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(s buoy.ContainerStats) bool { return !slices.Contains(names, s.Name) })
}

// refreshStats shows the next figures: on a terminal in the place of the last
// ones, else after them.
func (c *cli) refreshStats(list []buoy.ContainerStats, f listFlags) error {
	if c.output == "json" && f.format == "" {
		for _, s := range list {
			if err := c.jsonLine(s); err != nil {
				return err
			}
		}
		return nil
	}
	if !isTerminal(c.stdout) || f.format != "" {
		return c.showStats(list, f)
	}
	var table bytes.Buffer
	screen := *c
	screen.stdout = &table
	if err := screen.showStats(list, f); err != nil {
		return err
	}
	out := []byte("\x1b[H") // to the corner; each line clears what was behind it, the last what was below
	out = append(out, bytes.ReplaceAll(table.Bytes(), []byte("\n"), []byte("\x1b[K\n"))...)
	_, err := c.stdout.Write(append(out, "\x1b[J"...))
	return err
}

// statsRow is a container with its figures as a person reads them.
type statsRow struct {
	buoy.ContainerStats
	CPUPerc  string `json:"cpuPerc"`
	MemUsage string `json:"memUsage"`
	MemPerc  string `json:"memPerc"`
	NetIO    string `json:"netIO"`
	BlockIO  string `json:"blockIO"`
}

func rowOf(s buoy.ContainerStats) statsRow {
	r := statsRow{ContainerStats: s, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "-- / --", BlockIO: "-- / --"}
	if s.CPU == nil || s.Memory == nil || s.IO == nil {
		return r
	}
	r.CPUPerc = fmt.Sprintf("%.2f%%", s.CPU.Percent)
	r.MemUsage = bytesOf(s.Memory.WorkingSet) + " / " + bytesOf(s.Memory.Limit)
	if s.Memory.Limit > 0 {
		r.MemPerc = fmt.Sprintf("%.2f%%", float64(s.Memory.WorkingSet)/float64(s.Memory.Limit)*100)
	}
	if len(s.Networks) > 0 {
		var rx, tx uint64
		for _, n := range s.Networks {
			rx, tx = rx+n.RXBytes, tx+n.TXBytes
		}
		r.NetIO = bytesOf(rx) + " / " + bytesOf(tx)
	}
	r.BlockIO = bytesOf(s.IO.ReadBytes) + " / " + bytesOf(s.IO.WriteBytes)
	return r
}

func bytesOf(n uint64) string { return size.Text(int64(min(n, 1<<62))) }

func (c *cli) showStats(list []buoy.ContainerStats, f listFlags) error {
	l := listing{raw: list, of: statsRow{}, head: []string{"NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"}}
	for _, s := range list {
		r, pids := rowOf(s), "--"
		if s.PIDs != nil {
			pids = strconv.FormatUint(s.PIDs.Current, 10)
		}
		item, err := json.Marshal(r)
		if err != nil {
			return err
		}
		l.items = append(l.items, item)
		l.add(s.Name, s.Name, r.CPUPerc, r.MemUsage, r.MemPerc, r.NetIO, r.BlockIO, pids)
	}
	return c.list(l, f)
}

func (c *cli) topCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "top CONTAINER",
		Short: "List the processes of a container",
		Args:  takes(1, 1, "one container"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			list, err := b.Processes(ctx, names[0])
			if err != nil {
				return about(errNoContainer, err)
			}
			if c.output == "json" {
				return c.json(list)
			}
			rows := [][]string{}
			for _, p := range list {
				spent := time.Duration((p.CPU.User + p.CPU.System) * float64(time.Second)).Round(10 * time.Millisecond)
				rows = append(rows, []string{strconv.Itoa(p.PID), bytesOf(p.RSS), spent.String(), p.Cmdline})
			}
			return c.table([]string{"PID", "RSS", "CPU TIME", "COMMAND"}, rows)
		}),
	}
}

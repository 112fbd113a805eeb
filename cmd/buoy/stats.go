package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/size"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// statsOptions are the flags of stats.
type statsOptions struct {
	once, all bool
	interval  time.Duration
	format    *template.Template // nil: a table
}

func (c *cli) statsCommand() *cobra.Command {
	var o statsOptions
	var format string
	cmd := &cobra.Command{
		Use:   "stats [CONTAINER…]",
		Short: "Show what containers use",
		Long: `Show what containers use, again and again until interrupted.

CPU % is of one processor. Memory is without page cache that is not in use.
A format has .Name, .Image, .App, .State, .CPUPerc, .MemUsage, .MemPerc, .NetIO,
.BlockIO, .PIDs, and .Stats with all figures as the API has them.`,
		Args: takes(0, -1, "containers, or none for all"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) (err error) {
			if format != "" {
				if o.format, err = template.New("--format").Option("missingkey=error").Parse(format + "\n"); err != nil {
					return fmt.Errorf("--format: %w", err)
				}
			}
			return c.stats(ctx, b, names, o)
		}),
	}
	cmd.Flags().BoolVar(&o.once, "no-stream", false, "once only")
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "halted ones too")
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "`time` from one to the next, and that CPU % is of")
	cmd.Flags().StringVar(&format, "format", "", "`template` in Go's language for each container, as '{{.Name}} {{.CPUPerc}}'")
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
		if list.Containers = onlyNamed(list.Containers, names); c.output == "json" && o.format == nil {
			return c.json(list.Containers)
		}
		return c.showStats(list.Containers, o.format)
	}
	for list, err := range b.FollowContainersStats(ctx, query) {
		if err != nil {
			return err
		}
		shown := onlyNamed(list.Containers, names)
		if len(shown) == 0 && len(names) > 0 {
			return nil
		}
		if err := c.refreshStats(shown, o.format); err != nil {
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
func (c *cli) refreshStats(list []buoy.ContainerStats, format *template.Template) error {
	if c.output == "json" && format == nil {
		enc := json.NewEncoder(c.stdout)
		for _, s := range list {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	if !isTerminal(c.stdout) || format != nil {
		return c.showStats(list, format)
	}
	var table bytes.Buffer
	screen := *c
	screen.stdout = &table
	if err := screen.showStats(list, nil); err != nil {
		return err
	}
	out := []byte("\x1b[H") // to the corner; each line clears what was behind it, the last what was below
	out = append(out, bytes.ReplaceAll(table.Bytes(), []byte("\n"), []byte("\x1b[K\n"))...)
	_, err := c.stdout.Write(append(out, "\x1b[J"...))
	return err
}

// statsRow is a container as a person reads it.
type statsRow struct {
	Name, Image, App, State                          string
	CPUPerc, MemUsage, MemPerc, NetIO, BlockIO, PIDs string
	Stats                                            buoy.ContainerStats
}

func rowOf(s buoy.ContainerStats) statsRow {
	r := statsRow{
		Name: shown(s.Name), Image: shown(s.Image), App: shown(s.App), State: s.State, Stats: s,
		CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "-- / --", BlockIO: "-- / --", PIDs: "--",
	}
	if s.CPU == nil || s.Memory == nil || s.IO == nil || s.PIDs == nil {
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
	r.PIDs = strconv.FormatUint(s.PIDs.Current, 10)
	return r
}

func bytesOf(n uint64) string { return size.Text(int64(min(n, 1<<62))) }

func (c *cli) showStats(list []buoy.ContainerStats, format *template.Template) error {
	if format != nil {
		for _, s := range list {
			if err := format.Execute(c.stdout, rowOf(s)); err != nil {
				return fmt.Errorf("--format: %w", err)
			}
		}
		return nil
	}
	rows := [][]string{}
	for _, s := range list {
		r := rowOf(s)
		rows = append(rows, []string{r.Name, r.CPUPerc, r.MemUsage, r.MemPerc, r.NetIO, r.BlockIO, r.PIDs})
	}
	return c.table([]string{"NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"}, rows)
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

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) appExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain APP",
		Short: "Say for each host whether it would take the next replica, and why not",
		Args:  takes(1, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			e, raw, err := ask[buoy.AppExplanation](ctx, b, appPath(args[0], "/explain"))
			if err != nil {
				return about(errNoApp, err)
			}
			if c.output == "json" {
				return c.json(raw)
			}
			names := map[string]string{}
			for _, h := range e.Hosts {
				names[h.Host] = h.Name
			}
			names = telling(names)
			rows := [][]string{}
			for _, h := range e.Hosts {
				score := ""
				if h.Fits {
					score = strconv.FormatFloat(h.Score, 'f', 2, 64)
				}
				rows = append(rows, []string{named(names, h.Host), yesNo(h.Fits), score, h.Reason})
			}
			if err := c.table([]string{"HOST", "FITS", "SCORE", "WHY NOT"}, rows); err != nil || e.Missing == 0 {
				return err
			}
			_, err = fmt.Fprintf(c.stdout, "\n%s without a host\n", several(e.Missing, "replica"))
			return err
		}),
	}
}

func (c *cli) appMetricsCommand() *cobra.Command {
	var points int
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "metrics APP",
		Short: "Show what was measured of an app",
		Args:  takes(1, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			m, err := b.AppMetrics(ctx, args[0], points, interval)
			if err != nil {
				return about(errNoApp, err)
			}
			if c.output == "json" {
				return c.json(m)
			}
			m.Current.Timestamp = m.Timestamp
			rows := [][]string{sampleRow("now", m.Current)}
			for _, s := range m.History {
				rows = append(rows, sampleRow(s.Timestamp.Local().Format(time.DateTime), s))
			}
			return c.table([]string{"TIME", "CPU", "MEMORY", "REQUESTS/S", "P95", "CONNECTIONS", "READY"}, rows)
		}),
	}
	cmd.Flags().IntVarP(&points, "history", "n", 10, "so `many` of the past")
	cmd.Flags().DurationVar(&interval, "interval", 5*time.Minute, "so far `apart`")
	return cmd
}

func sampleRow(at string, s buoy.AppSample) []string {
	return []string{
		at, fmt.Sprintf("%.1f %%", s.CPUPercent), fmt.Sprintf("%.1f %%", s.MemPercent), fmt.Sprintf("%.1f", s.RPS), fmt.Sprintf("%.0f ms", s.P95Millis),
		fmt.Sprintf("%.0f", s.Connections), fmt.Sprintf("%d/%d", s.Healthy, s.Total),
	}
}

func (c *cli) appHealthCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "health APP",
		Short: "Show what checks of the replicas of an app have found",
		Args:  takes(1, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			if check {
				if _, err := b.CheckAppHealth(ctx, args[0]); err != nil {
					return about(errNoApp, err)
				}
			}
			h, raw, err := ask[buoy.AppHealth](ctx, b, appPath(args[0], "/health"))
			if err != nil {
				return about(errNoApp, err)
			}
			if c.output == "json" {
				return c.json(raw)
			}
			rows := [][]string{}
			for _, r := range h.Containers {
				rows = append(rows, []string{r.Name, r.Health, strconv.Itoa(r.Failures), fmt.Sprintf("%.0f ms", r.ResponseMillis), since(r.LastCheck), r.LastError})
			}
			fmt.Fprintf(c.stdout, "%s is %s: %d of %s healthy\n\n", args[0], h.Overall, h.Healthy, several(h.Total, "replica"))
			return c.table([]string{"REPLICA", "HEALTH", "FAILURES", "RESPONSE", "CHECKED", "ERROR"}, rows)
		}),
	}
	cmd.Flags().BoolVar(&check, "check", false, "check them now")
	return cmd
}

func (c *cli) appScalingCommand() *cobra.Command {
	f := &scalingFlags{}
	cmd := &cobra.Command{
		Use:     "scaling APP",
		Short:   "Show when an app has how many replicas, or change that",
		Example: "  buoy app scaling web --mode auto --min 2 --max 10 --rps 100",
		Args:    takes(1, 1, "one app"),
	}
	f.add(cmd.Flags())
	cmd.RunE = c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
		if p, changed := f.policy(cmd.Flags()); changed {
			if err := b.SetAppScaling(ctx, args[0], p); err != nil {
				return about(errNoApp, err)
			}
		}
		s, raw, err := ask[buoy.AppScaling](ctx, b, appPath(args[0], "/scaling"))
		if err != nil {
			return about(errNoApp, err)
		}
		if c.output == "json" {
			return c.json(raw)
		}
		s.Policy.Mode = &s.Mode
		return c.showScaling(s)
	})
	return cmd
}

// scalingFlags are a policy on the command line.
type scalingFlags struct {
	mode                                   string
	least, most, outStep, inStep, standby  int
	rps, cpu, memory, connections, out, in float64
	p95, window, cooldown, stabilization   time.Duration
}

func (f *scalingFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.mode, "mode", "", "`who` scales: auto or manual")
	flags.IntVar(&f.least, "min", 0, "least `replicas`")
	flags.IntVar(&f.most, "max", 0, "most `replicas`")
	flags.Float64Var(&f.rps, "rps", 0, "requests a `second` that are wanted of each replica")
	flags.DurationVar(&f.p95, "p95", 0, "wanted `latency`, of all but the slowest twentieth")
	flags.Float64Var(&f.cpu, "cpu", 0, "wanted CPU in `percent`")
	flags.Float64Var(&f.memory, "memory", 0, "wanted memory in `percent`")
	flags.Float64Var(&f.connections, "connections", 0, "connections that are wanted of each `replica`")
	flags.Float64Var(&f.out, "out", 0, "`percent` of a target from where one scales out")
	flags.Float64Var(&f.in, "in", 0, "`percent` of all targets below which one scales in")
	flags.DurationVar(&f.window, "window", 0, "`time` over which measurements are averaged")
	flags.DurationVar(&f.cooldown, "cooldown", 0, "`time` between two changes")
	flags.DurationVar(&f.stabilization, "stabilization", 0, "how `long` it must have been quiet before one scales in")
	flags.IntVar(&f.outStep, "out-step", 0, "at most so `many` more at a time")
	flags.IntVar(&f.inStep, "in-step", 0, "at most so `many` fewer at a time")
	flags.IntVar(&f.standby, "standby", 0, "so `many` more are kept created and not run")
}

// policy is what the flags that were given say.
func (f *scalingFlags) policy(flags *pflag.FlagSet) (p buoy.ScalingPolicy, changed bool) {
	seconds := func(d time.Duration) *float64 { return new(d.Seconds()) }
	for name, set := range map[string]func(){
		"mode": func() { p.Mode = &f.mode }, "min": func() { p.Min = &f.least }, "max": func() { p.Max = &f.most },
		"rps": func() { p.RPS = &f.rps }, "p95": func() { p.P95Millis = new(float64(f.p95) / float64(time.Millisecond)) },
		"cpu": func() { p.CPUPercent = &f.cpu }, "memory": func() { p.MemoryPercent = &f.memory }, "connections": func() { p.Connections = &f.connections },
		"out": func() { p.OutPercent = &f.out }, "in": func() { p.InPercent = &f.in },
		"window": func() { p.Window = seconds(f.window) }, "cooldown": func() { p.Cooldown = seconds(f.cooldown) },
		"stabilization": func() { p.Stabilization = seconds(f.stabilization) },
		"out-step":      func() { p.OutStep = &f.outStep }, "in-step": func() { p.InStep = &f.inStep }, "standby": func() { p.Standby = &f.standby },
	} {
		if flags.Changed(name) {
			set()
			changed = true
		}
	}
	return p, changed
}

func (c *cli) showScaling(s buoy.AppScaling) error {
	p := s.Policy
	whole := func(n *int) string {
		if n == nil {
			return ""
		}
		return strconv.Itoa(*n)
	}
	number := func(f *float64, unit string) string {
		switch {
		case f == nil:
			return ""
		case *f == 0 && unit != "s":
			return "not looked at"
		}
		return strconv.FormatFloat(*f, 'f', -1, 64) + unit
	}
	rows := [][]string{
		{"mode", s.Mode},
		{"replicas", whole(p.Min) + " to " + whole(p.Max) + ", " + orElse(whole(p.Standby), "0") + " standing by"},
		{"requests/s of each replica", number(p.RPS, "")},
		{"p95 latency", number(p.P95Millis, " ms")},
		{"CPU", number(p.CPUPercent, " %")},
		{"memory", number(p.MemoryPercent, " %")},
		{"connections of each replica", number(p.Connections, "")},
		{"scale out from", number(p.OutPercent, " % of a target")},
		{"scale in below", number(p.InPercent, " % of all targets")},
		{"at most at a time", orElse(whole(p.OutStep), "0") + " more, " + orElse(whole(p.InStep), "0") + " fewer"},
		{"window", number(p.Window, "s")},
		{"cooldown", number(p.Cooldown, "s")},
		{"stabilization", number(p.Stabilization, "s")},
	}
	if e := s.Last; e != nil {
		rows = append(rows, []string{"last", fmt.Sprintf("%d → %d, %s ago: %s", e.From, e.To, since(e.Timestamp), e.Reason)})
	}
	return c.table([]string{"SCALING", s.Name}, rows)
}

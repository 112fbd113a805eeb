// Command bench measures what buoy is judged by on this machine: how fast
// containers start, what they cost at rest, and how that compares with other
// runtimes in the same run. scripts/bench starts it; README.md says what each
// figure means. It fails when something cannot be measured, never because a
// figure is bad.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/cleanup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options is the command line.
type options struct {
	samples int
	count   int
	idle    time.Duration
	hosts   int
	watch   time.Duration
	output  string
	only    []string
}

// section is a part of what is measured.
type section struct {
	name  string
	run   func(context.Context, *bench) error
	alone bool // without a buoyd and its peers
}

// sections in the order in which they are measured.
var sections = []section{
	{"network", network, true},
	{"flist", flists, true},
	{"place", place, true},
	{"fleet", fleet, true},
	{"fleet100", fleet100, true},
	{"proxy", balancers, true},
	{"idle", idleEmpty, false},
	{"start", startLatency, false},
	{"standby", standby, false},
	{"many", many, false},
	{"memory", memory, false},
}

// chosen are those of the command line.
func (o options) chosen() []section {
	if len(o.only) == 0 {
		return sections
	}
	var list []section
	for _, s := range sections {
		if slices.Contains(o.only, s.name) {
			list = append(list, s)
		}
	}
	return list
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	var only string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(usage)
	f.IntVar(&o.samples, "n", 40, "samples of each latency")
	f.IntVar(&o.count, "count", 200, "containers at once")
	f.DurationVar(&o.idle, "idle", 20*time.Second, "how long to watch an idle buoyd")
	f.IntVar(&o.hosts, "hosts", 10_000, "simulated hosts of a fleet")
	f.DurationVar(&o.watch, "watch", time.Minute, "how long to watch a fleet")
	f.StringVar(&o.output, "o", "table", "table, markdown or json")
	f.StringVar(&only, "only", "", "measure these sections only, with commas: network flist place fleet fleet100 proxy idle start standby many memory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
			return o, fmt.Errorf("there is no section %q", name)
		}
	}
	if f.NArg() > 0 || o.samples < 1 || o.count < 1 || o.hosts < 1 || !slices.Contains([]string{"table", "markdown", "json"}, o.output) {
		return o, fmt.Errorf("wrong arguments %q; see -h", args)
	}
	return o, nil
}

// run is the program; its value is the exit code: 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == proxyServer {
		if err := serveProxy(ctx, args[1:], stdout); err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		return 0
	}
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	r, err := measure(ctx, o, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	if len(r.Figures) > 0 { // what was measured before a failure is worth showing
		if werr := r.write(stdout, o.output); werr != nil {
			err = errors.Join(err, werr)
		}
	}
	if err != nil {
		return 1
	}
	return 0
}

// bench is what the sections share.
type bench struct {
	options
	say    func(format string, args ...any)
	dir    string
	first  string // the container's program
	rootfs string // a directory with it
	image  string // the same as an archive, which buoy unpacks
	inst   *instance
	peers  []starter
	report *report
	base   int // PSS of shim and reaper without a container, KiB
}

// measure runs the sections and removes all they made, whatever happens.
func measure(ctx context.Context, o options, stderr io.Writer) (r *report, err error) {
	b := &bench{options: o, report: &report{}}
	b.say = func(format string, args ...any) { fmt.Fprintf(stderr, "bench: "+format+"\n", args...) }
	b.first = filepath.Join(os.Getenv("BUOY_BENCH"), "first")
	if _, err := os.Stat(b.first); err != nil {
		return b.report, fmt.Errorf("%w: run scripts/bench, which builds it", err)
	}
	if os.Geteuid() != 0 {
		return b.report, errors.New("containers need root")
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	if b.dir, err = os.MkdirTemp("", "buoy-bench-"); err != nil {
		return b.report, err
	}
	undo.Push(func() error { return os.RemoveAll(b.dir) })
	if err := b.makeRoot(); err != nil {
		return b.report, err
	}
	b.report.Machine = machine()
	for _, s := range o.chosen() {
		if !s.alone && b.inst == nil {
			if err := b.meet(ctx, &undo); err != nil {
				return b.report, err
			}
		}
		b.say("%s (load %s)", s.name, loadavg())
		if err := s.run(ctx, b); err != nil {
			return b.report, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	b.report.Machine.LoadAfter = loadavg()
	return b.report, nil
}

// meet starts a buoyd and looks for its peers.
func (b *bench) meet(ctx context.Context, undo *cleanup.Stack) (err error) {
	if b.inst, err = startInstance(ctx, b.dir); err != nil {
		return err
	}
	undo.Push(func() error { return b.inst.end(context.WithoutCancel(ctx)) })
	return b.findPeers(ctx)
}

// write prints the report.
func (r *report) write(w io.Writer, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case "markdown":
		return r.markdown(w)
	}
	return r.table(w)
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/internal/cleanup"
)

const (
	fleetEvery   = 10 * time.Second // between the reports of a host
	defaultEvery = 30 * time.Second // as buoyd has it unless it is told otherwise
	defaultHosts = 200              // that report so often, besides
	fleetSettle  = 15 * time.Second
	joinsAtOnce  = 64
	spareFiles   = 400 // that buoyd and this program need for anything else
)

// simulation is a controller, a real one, and hosts that are none.
type simulation struct {
	bench *bench
	inst  *instance
	url   string
	join  string // the join token
	hosts []*host
	rare  []*host // those with the default interval

	tunnels int // of so many hosts: one takes a file beside that of the reports

	dialled atomic.Int64 // connections for reports, ever
	linked  atomic.Int64 // tunnels that are open
	running atomic.Int64 // containers

	watching atomic.Bool
	mu       sync.Mutex // guards the fields below
	took     samples
	rarely   int // reports of rare
	failed   int
	first    error
}

// note is told of each report.
func (f *simulation) note(h *host, took time.Duration, err error) {
	if !f.watching.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err != nil:
		f.failed++
		if f.first == nil {
			f.first = err
		}
	case h.every == defaultEvery:
		f.rarely++
		f.took = append(f.took, took)
	default:
		f.took = append(f.took, took)
	}
}

// fleet measures a controller with many hosts: while nothing happens, while
// many apps are started, and while these run.
func fleet(ctx context.Context, b *bench) (err error) {
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	files, restore, err := moreFiles(uint64(2*b.hosts + 4096))
	if err != nil {
		return err
	}
	undo.Push(restore)
	f, err := b.simulate(ctx, &undo)
	if err != nil {
		return err
	}
	all := b.hosts + min(defaultHosts, b.hosts)
	if f.tunnels = min(all, int(files)-all-spareFiles); f.tunnels < 0 {
		return fmt.Errorf("%d hosts need more than the %d files that a process may have open", all, files)
	}
	// The hosts go before the controller does, which then has nothing to complain of.
	run, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	undo.Push(func() error { stop(); wg.Wait(); return nil })
	if err := f.arrive(ctx, run, &wg); err != nil {
		return err
	}
	if err := f.watch(ctx, "idle", b.watch); err != nil {
		return err
	}
	if err := f.deploy(ctx); err != nil {
		return err
	}
	return f.watch(ctx, fmt.Sprintf("%d replicas", f.running.Load()), b.watch/2)
}

// moreFiles lets this program and those that it starts have so many files open,
// or as many as they may; have is how many. It does what an operator does with
// LimitNOFILE: buoyd takes what it is given.
func moreFiles(n uint64) (have uint64, restore func() error, err error) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		return 0, nil, err
	}
	restore = func() error { return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was) }
	for _, most := range []uint64{max(was.Max, n), was.Max} { // even root may not always have more
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: most})
		if err == nil {
			return most, restore, nil
		}
	}
	return 0, nil, fmt.Errorf("have %d files open: %w", was.Max, err)
}

// simulate starts the controller.
func (b *bench) simulate(ctx context.Context, undo *cleanup.Stack) (*simulation, error) {
	dir := filepath.Join(b.dir, "fleet")
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, err
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	f := &simulation{bench: b, url: "http://" + addr}
	if f.inst, err = startInstance(ctx, dir, "--dev", "--listen", addr, "--log-level", "warn"); err != nil {
		return nil, err
	}
	undo.Push(func() error { return f.inst.end(context.WithoutCancel(ctx)) })
	token, err := os.ReadFile(filepath.Join(f.inst.data(), "join-token"))
	f.join = strings.TrimSpace(string(token))
	return f, err
}

// freeAddr is an address at which nobody listens now.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// arrive has all hosts join, report and open their tunnels. They do so until
// run ends, and wg then.
func (f *simulation) arrive(ctx, run context.Context, wg *sync.WaitGroup) error {
	n := f.bench.hosts
	rare := min(defaultHosts, n)
	for i := range n + rare { // those that report rarely first: they have tunnels all
		h := newHost(f, i, fleetEvery)
		if i < rare {
			h.every, f.rare = defaultEvery, append(f.rare, h)
		}
		h.linked = i < f.tunnels
		f.hosts = append(f.hosts, h)
	}
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(joinsAtOnce)
	for _, h := range f.hosts {
		g.Go(func() error { return h.register(gctx) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	took := time.Since(began).Seconds()
	f.add(figure{Name: fmt.Sprintf("%d hosts join, %d at a time", len(f.hosts), joinsAtOnce), Value: took, Unit: "s"})
	for i, h := range f.hosts { // spread evenly
		at := float64(i-rare) / float64(n)
		if i < rare {
			at = float64(i) / float64(rare)
		}
		wg.Go(func() { h.run(run, time.Duration(at*float64(h.every))) })
	}
	began = time.Now()
	links, lctx := errgroup.WithContext(run)
	for i, h := range f.hosts[:f.tunnels] {
		links.Go(func() error {
			if err := wait(lctx, time.Duration(i)*time.Millisecond/2); err != nil { // not 10,000 calls at once
				return err
			}
			return h.link(lctx)
		})
	}
	wg.Go(func() { _ = links.Wait() })
	if err := f.until(ctx, "all tunnels are open", time.Minute, func() bool { return int(f.linked.Load()) == f.tunnels }); err != nil {
		return err
	}
	f.add(figure{Name: fmt.Sprintf("%d of them open a tunnel, too", f.tunnels), Value: time.Since(began).Seconds(), Unit: "s"})
	return nil
}

// until waits for something.
func (f *simulation) until(ctx context.Context, what string, most time.Duration, true func() bool) error {
	for deadline := time.Now().Add(most); !true(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s (%d tunnels, %d containers)", most, what, f.linked.Load(), f.running.Load())
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (f *simulation) add(g figure) {
	g.Group = fmt.Sprintf("fleet of %d hosts, a report every %v", f.bench.hosts, fleetEvery)
	f.bench.report.add(g)
}

// usage is what a process has used so far.
type usage struct {
	at       time.Time
	cpu      time.Duration
	written  int
	wire     uint64 // by the hosts that report often
	rareWire uint64 // and by the others
}

func (f *simulation) usage() (u usage, err error) {
	pid := f.inst.cmd.Process.Pid
	u = usage{at: time.Now(), cpu: spent(pid), written: written(pid)}
	for _, h := range f.hosts {
		n, err := h.wire()
		if err != nil {
			return u, err
		}
		if h.every == defaultEvery {
			u.rareWire += n
		} else {
			u.wire += n
		}
	}
	return u, nil
}

// spent is the CPU time of a process, threads that have ended included.
func spent(pid int) time.Duration {
	_, rest, _ := strings.Cut(read(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	v := strings.Fields(rest)
	if len(v) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(v[11])
	system, _ := strconv.Atoi(v[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on all of Linux
}

// watch measures the controller for a while in which nobody asks it anything.
func (f *simulation) watch(ctx context.Context, when string, long time.Duration) error {
	if err := wait(ctx, fleetSettle); err != nil {
		return err
	}
	dialled := f.dialled.Load()
	f.mu.Lock()
	f.took, f.rarely, f.failed, f.first = nil, 0, 0, nil
	f.mu.Unlock()
	before, err := f.usage()
	if err != nil {
		return err
	}
	mine := spent(os.Getpid())
	f.watching.Store(true)
	if err := wait(ctx, long); err != nil {
		return err
	}
	f.watching.Store(false)
	after, err := f.usage()
	if err != nil {
		return err
	}
	mine = spent(os.Getpid()) - mine
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first != nil {
		f.bench.say("a report failed: %v", f.first)
	}
	if again := f.dialled.Load() - dialled; again > 0 {
		return fmt.Errorf("%d hosts have had to connect again", again)
	}
	f.present(when, before, after, mine)
	return nil
}

// present adds the figures of a while.
func (f *simulation) present(when string, before, after usage, mine time.Duration) {
	long := after.at.Sub(before.at)
	n := len(f.took)
	cores := (after.cpu - before.cpu).Seconds() / long.Seconds()
	pid := f.inst.cmd.Process.Pid
	gib := float64(rss(pid)) / (1 << 20)
	name := func(what string) string { return what + ", " + when }
	f.add(figure{
		Name: name("CPU of buoyd"), Value: cores, Unit: "cores",
		Note: fmt.Sprintf("%.0f reports/s; %.0f µs each; the hosts use %.2f cores", float64(n)/long.Seconds(), cores*1e6*long.Seconds()/float64(n), mine.Seconds()/long.Seconds()),
	}.below(cores, 1, "< 1 core"))
	f.add(figure{
		Name: name("RSS of buoyd"), Value: gib, Unit: "GiB",
		Note: fmt.Sprintf("at most %.3g so far", float64(number(read(fmt.Sprintf("/proc/%d/status", pid)), "VmHWM:"))/(1<<20)),
	}.below(gib, 1, "< 1 GiB"))
	f.add(figure{Name: name("answer to a report, p50"), Value: f.took.ms(0.5), N: n, Unit: "ms"})
	f.add(figure{Name: name("answer to a report, p99"), Value: f.took.ms(0.99), N: n, Unit: "ms"}.below(f.took.ms(0.99), 50, "< 50 ms"))
	f.add(figure{Name: name("answer to a report, longest"), Value: f.took.ms(1), N: n, Unit: "ms"})
	f.add(figure{Name: name("reports that failed"), Value: float64(f.failed), Unit: "of " + fmt.Sprint(n+f.failed)}.below(float64(f.failed), 0, "0"))
	f.add(figure{Name: name("written to disk"), Value: float64(after.written-before.written) / 1024, Unit: "KiB", Note: fmt.Sprintf("in %.0f s", long.Seconds())})
	kib := func(bytes uint64, hosts int) float64 {
		return float64(bytes) / 1024 / float64(hosts) * time.Hour.Seconds() / long.Seconds()
	}
	often := len(f.hosts) - len(f.rare)
	f.add(figure{Name: name("wire, a report and its answer"), Value: float64(after.wire-before.wire) / float64(n-f.rarely), Unit: "bytes"})
	f.add(figure{Name: name("wire, a host and hour"), Value: kib(after.wire-before.wire, often), Unit: "KiB"})
	rare := figure{Name: name(fmt.Sprintf("wire, a host and hour with a report every %v", defaultEvery)), Value: kib(after.rareWire-before.rareWire, len(f.rare)), Unit: "KiB"}
	if f.running.Load() == 0 {
		rare = rare.below(rare.Value, 100, "< 100 KiB")
	}
	f.add(rare)
}

const (
	fleetEach   = 100 // replicas of an app
	fleetFull   = 1   // replicas on a host
	docsAtOnce  = 100 // the most that a request may have
	deployLimit = 2 * time.Minute
)

// deploy starts apps: as many replicas as there are hosts.
func (f *simulation) deploy(ctx context.Context) error {
	apps := max(f.bench.hosts*fleetFull/fleetEach, 1)
	pid := f.inst.cmd.Process.Pid
	cpu, disk, began := spent(pid), written(pid), time.Now()
	var docs []string
	for i := range apps {
		docs = append(docs, fmt.Sprintf(`{"apiVersion": "v1", "kind": "App", "metadata": {"name": "app-%03d"}, "scaling": {"mode": "manual", "maxReplicas": 1000},
			"spec": {"image": "registry.example.org/app:%d", "ports": [{"containerPort": 8080}], "replicas": %d, "resources": {"cpu": "100m", "memory": "64Mi"},
			"placement": {"constraints": ["label.tunnel = true"]}}}`, i, rand.IntN(100), fleetEach))
		if len(docs) < docsAtOnce && i < apps-1 {
			continue
		}
		if _, err := f.inst.client.ApplyApps(ctx, []byte(strings.Join(docs, "\n---\n"))); err != nil {
			return err
		}
		docs = docs[:0]
	}
	applied := time.Since(began)
	if err := f.until(ctx, "hosts have all replicas", deployLimit, func() bool { return int(f.running.Load()) == apps*fleetEach }); err != nil {
		return err
	}
	there := time.Since(began)
	for {
		up, err := f.inst.client.Apps(ctx, "running")
		if err != nil {
			return err
		}
		if len(up) == apps {
			break
		}
		if time.Since(began) > deployLimit {
			return fmt.Errorf("%d of %d apps run", len(up), apps)
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	took := time.Since(began)
	cpu, disk = spent(pid)-cpu, written(pid)-disk
	n := float64(apps * fleetEach)
	f.add(figure{
		Name: fmt.Sprintf("%d apps with %d replicas each: applied until all run", apps, fleetEach), Value: took.Seconds(), Unit: "s",
		Note: fmt.Sprintf("answered after %.2f s; hosts have them after %.2f s; %.0f replicas/s", applied.Seconds(), there.Seconds(), n/took.Seconds()),
	})
	f.add(figure{Name: "CPU of buoyd meanwhile", Value: cpu.Seconds(), Unit: "s", Note: fmt.Sprintf("%.0f µs a replica", cpu.Seconds()*1e6/n)})
	f.add(figure{Name: "written to disk meanwhile", Value: float64(disk) / (1 << 20), Unit: "MiB", Note: fmt.Sprintf("%.1f KiB a replica", float64(disk)/1024/n)})
	return nil
}

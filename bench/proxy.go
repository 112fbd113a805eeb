package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/proxy"
)

// balancers measures the proxy beside nginx and haproxy, each a process on
// CPU 0, one at a time, before the same nginx, which shares the other CPUs
// with wrk.
func balancers(ctx context.Context, b *bench) (err error) {
	if runtime.NumCPU() < 2 {
		b.report.NotRun = append(b.report.NotRun, "the proxy: it needs a CPU and its load another")
		return nil
	}
	wrk, nginx, haproxy := found("wrk"), found("nginx"), found("haproxy")
	if wrk == "" || nginx == "" {
		b.report.NotRun = append(b.report.NotRun, "the proxy: wrk and nginx are neither in PATH nor could scripts/bench fetch them")
		return nil
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	m := &makers{dir: filepath.Join(b.dir, "proxy"), undo: &undo}
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return err
	}
	backend, err := m.nginx(ctx, nginx, "backend", others, func(at netip.AddrPort) string {
		return fmt.Sprintf("server { listen %s; location / { return 200 %q; } }", at, small)
	})
	if err != nil {
		return err
	}
	reference, err := m.nginx(ctx, nginx, "nginx", "0", func(at netip.AddrPort) string { return nginxBefore(at, backend.at) })
	if err != nil {
		return err
	}
	l := &load{wrk: wrk, fronts: []front{reference}}
	if l.ours, err = m.ours(ctx, backend.at); err != nil {
		return err
	}
	l.fronts = append(l.fronts, l.ours.front)
	if haproxy == "" {
		b.report.NotRun = append(b.report.NotRun, "haproxy is neither in PATH nor could scripts/bench fetch it")
	} else if f, err := m.haproxy(ctx, haproxy, backend.at); err != nil {
		return err
	} else {
		l.fronts = append(l.fronts, f)
	}
	for _, kind := range []struct {
		name string
		args []string
		bar  float64
	}{
		{kept, nil, 0.6},
		{fresh, []string{"-H", "Connection: close"}, 0},
	} {
		if err := b.besideOthers(ctx, l, kind.name, kind.args, kind.bar); err != nil {
			return err
		}
	}
	return b.rolling(ctx, l)
}

// load is what a round is measured with.
type load struct {
	wrk    string
	fronts []front
	ours   *ours
}

const (
	kept  = "connections kept"
	fresh = "a connection for each request"
)

// front is a balancer.
type front struct {
	name string
	at   netip.AddrPort
	pid  int
}

// asked is what wrk says of one.
type asked struct {
	rate, p99, cpu float64 // a second, ms, µs for each request
	failed         float64
	requests       float64
}

// besideOthers measures all balancers in turn.
func (b *bench) besideOthers(ctx context.Context, l *load, kind string, args []string, bar float64) error {
	rounds := max(b.samples/8, 1)
	all := make([][]asked, rounds)
	for i := range all {
		if err := b.rest(ctx); err != nil {
			return err
		}
		all[i] = make([]asked, len(l.fronts))
		for _, j := range rand.Perm(len(l.fronts)) {
			r, err := l.measure(ctx, l.fronts[j], 2*time.Second, args)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", l.fronts[j].name, kind, err)
			}
			all[i][j] = r
		}
	}
	for _, m := range []struct {
		what, unit string
		of         func(asked) float64
	}{
		{"requests/s", "1/s", func(r asked) float64 { return r.rate }},
		{"p99", "ms", func(r asked) float64 { return r.p99 }},
		{"CPU for a request", "µs", func(r asked) float64 { return r.cpu }},
	} {
		for j, f := range l.fronts {
			var values, ratios []float64
			for i := range all {
				values, ratios = append(values, m.of(all[i][j])), append(ratios, m.of(all[i][j])/m.of(all[i][0]))
			}
			line := figure{Group: "proxy, " + m.what, Name: f.name + ", " + kind, Value: median(values), Ratio: median(ratios), Of: "nginx", N: rounds, Unit: m.unit}
			switch {
			case f.name == "buoy" && m.what == "requests/s" && bar > 0:
				line = line.above(line.Ratio, bar, fmt.Sprintf("≥ %.2f", bar))
			case f.name == "buoy" && m.what == "CPU for a request" && bar > 0:
				line = line.below(line.Ratio, 1/bar, fmt.Sprintf("≤ %.2f", 1/bar))
			}
			b.report.add(line)
		}
	}
	for j, f := range l.fronts {
		failed, of := 0.0, 0.0
		for i := range all {
			failed, of = failed+all[i][j].failed, of+all[i][j].requests
		}
		line := figure{Group: "proxy, requests that failed", Name: f.name + ", " + kind, Value: failed, Unit: "requests", Note: fmt.Sprintf("of %.0f", of)}
		if f.name == "buoy" {
			line = line.below(failed, 0, "0")
		}
		b.report.add(line)
	}
	return nil
}

// rolling replaces our backends one after the other under load.
func (b *bench) rolling(ctx context.Context, l *load) error {
	for _, kind := range []struct {
		name string
		args []string
	}{{kept, nil}, {fresh, []string{"-H", "Connection: close"}}} {
		live, err := l.ours.begin(ctx)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		var r asked
		go func() {
			var err error
			r, err = l.measure(ctx, l.ours.front, 5*time.Second, kind.args)
			done <- err
		}()
		replaced, err := l.ours.replace(ctx, live, done)
		for _, a := range live {
			err = errors.Join(err, a.Close())
		}
		if err != nil {
			return err
		}
		note := fmt.Sprintf("of %.0f, while each of %d backends was replaced %d times", r.requests, len(live), replaced/len(live))
		f := figure{Group: "proxy, requests that failed", Name: "buoy, backends replaced, " + kind.name, Value: r.failed, Unit: "requests", Note: note}
		b.report.add(f.below(r.failed, 0, "0"))
	}
	return nil
}

// begin has it take three backends of this process.
func (o *ours) begin(ctx context.Context) (live []*answering, err error) {
	for range 3 {
		a, err := newAnswering(ctx)
		if err != nil {
			return nil, err
		}
		live = append(live, a)
	}
	_, err = o.take(live, -1)
	return live, err
}

// take has it take these backends, of which one may be draining.
func (o *ours) take(live []*answering, draining int) (wanted, error) {
	var w wanted
	for i, a := range live {
		w.Backends = append(w.Backends, proxy.Backend{ID: a.at.String(), Ports: map[uint16]netip.AddrPort{80: a.at}, Draining: i == draining})
	}
	return o.set(w)
}

// replace drains, replaces and kills one backend after the other until done
// says how the load has ended.
func (o *ours) replace(ctx context.Context, live []*answering, done <-chan error) (replaced int, err error) {
	for i := 0; ; i = (i + 1) % len(live) {
		select {
		case err := <-done:
			return replaced, err
		case <-time.After(10 * time.Millisecond):
		}
		old := live[i]
		for active := int64(1); active > 0; time.Sleep(time.Millisecond) {
			w, err := o.take(live, i)
			if err != nil {
				return replaced, errors.Join(err, <-done)
			}
			active = w.Active[old.at.String()]
		}
		next, err := newAnswering(ctx)
		if err != nil {
			return replaced, errors.Join(err, <-done)
		}
		live[i] = next
		if _, err := o.take(live, -1); err != nil {
			return replaced, errors.Join(err, <-done)
		}
		if err := old.Close(); err != nil {
			return replaced, errors.Join(err, <-done)
		}
		replaced++
	}
}

// answering is a backend in this process.
type answering struct {
	*http.Server
	at netip.AddrPort
}

func newAnswering(ctx context.Context) (*answering, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, small)
	})}
	go func() { _ = s.Serve(l) }()
	return &answering{s, l.Addr().(*net.TCPAddr).AddrPort()}, nil
}

// small is what backends answer.
const small = "a small answer, of 64 bytes with the end of its line, as here:\n"

// measure has wrk ask a balancer.
func (l *load) measure(ctx context.Context, f front, d time.Duration, args []string) (asked, error) {
	before := cpuTime(f.pid)
	cmd := pinned(ctx, others, append([]string{l.wrk, "-t1", "-c32", "-d" + d.String(), "--latency", "http://" + f.at.String() + "/"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		return asked{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	r, err := readWrk(string(out))
	if err == nil {
		r.cpu = float64((cpuTime(f.pid) - before).Nanoseconds()) / 1000 / r.requests
	}
	return r, err
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in `)
	wrkRate     = regexp.MustCompile(`Requests/sec: +([\d.]+)`)
	wrkP99      = regexp.MustCompile(`99% +(\S+)`)
	wrkErrors   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// readWrk reads what wrk prints.
func readWrk(out string) (r asked, err error) {
	number := func(re *regexp.Regexp) float64 {
		sum := 0.0
		if m := re.FindStringSubmatch(out); m != nil {
			for _, text := range m[1:] {
				v, perr := strconv.ParseFloat(text, 64)
				err = errors.Join(err, perr)
				sum += v
			}
		}
		return sum
	}
	r = asked{rate: number(wrkRate), requests: number(wrkRequests), failed: number(wrkErrors) + number(wrkStatus), p99: math.NaN()}
	if m := wrkP99.FindStringSubmatch(out); m != nil {
		d, perr := time.ParseDuration(m[1])
		err = errors.Join(err, perr)
		r.p99 = d.Seconds() * 1000
	}
	if r.requests == 0 || err != nil {
		return r, fmt.Errorf("wrk says %q: %w", out, err)
	}
	return r, nil
}

// found is a program of PATH, or one that scripts/bench has unpacked.
func found(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"usr/sbin", "usr/bin"} {
		path := filepath.Join(os.Getenv("BUOY_BENCH"), "debs", dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

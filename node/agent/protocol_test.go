package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/seal"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// A report leaves out containers as long as the controller knows them, and has
// them all when it asks.
func TestSameAndFull(t *testing.T) {
	r := newRig(t)
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(nil)
	r.ctl.has(t, "L1", "running")
	next := func(what string) hostapi.HostStatus {
		t.Helper()
		n := 0
		r.ctl.do(func() { n = len(r.ctl.reports) })
		r.Poke()
		var s hostapi.HostStatus
		r.ctl.until(t, what, func() bool {
			if len(r.ctl.reports) > n {
				s = r.ctl.reports[n]
				return true
			}
			return false
		})
		return s
	}
	var base uint64
	r.ctl.do(func() { base = r.ctl.base })
	for range 2 {
		if s := next("a report like the last"); s.Same != base || len(s.ContainerStatus) != 0 {
			t.Errorf("same %d, %d containers, after a full report %d", s.Same, len(s.ContainerStatus), base)
		}
	}
	// A controller that has started anew knows nothing.
	r.ctl.do(func() { r.ctl.base, r.ctl.known = 0, nil })
	if s := next("a report that it cannot read"); s.Same != base {
		t.Errorf("same %d", s.Same)
	}
	r.ctl.has(t, "L1", "running") // without being asked again
	r.ctl.do(func() {
		last := r.ctl.reports[0]
		for _, s := range r.ctl.reports[1:] {
			if s.Boot != last.Boot || s.Sequence != last.Sequence+1 {
				t.Errorf("report %s/%d after %s/%d", s.Boot, s.Sequence, last.Boot, last.Sequence)
			}
			last = s
		}
	})
	// Only what matters is a reason to report at once.
	reports := 0
	r.ctl.do(func() { reports = len(r.ctl.reports) })
	r.node.change(func() {
		r.node.all["web-L1"].Health = &buoy.HealthState{Status: "healthy", LastCheck: time.Now(), ResponseTime: 0.002}
	})
	if s := r.ctl.has(t, "L1", "running"); s.Health == nil {
		r.ctl.until(t, "its health", func() bool { return r.ctl.known[0].Health != nil })
	}
	r.node.change(func() {
		r.node.all["web-L1"].Health = &buoy.HealthState{Status: "healthy", LastCheck: time.Now(), ResponseTime: 0.004}
	})
	r.node.put(buoy.Container{Name: "somebody-else's", State: "running"})
	r.node.change(func() { r.node.all["web-L1"].State, r.node.all["web-L1"].Reason = "halted", "Exited" })
	r.ctl.has(t, "L1", "halted")
	r.ctl.do(func() {
		if got := len(r.ctl.reports) - reports; got > 2 {
			t.Errorf("%d reports", got)
		}
	})
}

// Boot tells the reports of this agent from those of the one before.
func TestBoot(t *testing.T) {
	r := newRig(t)
	boots := map[string]bool{}
	for i := range 2 {
		r.start(nil)
		r.ctl.until(t, "a registration", func() bool { return len(r.ctl.registers) > i })
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r.ctl.do(func() { boots[r.ctl.reports[i].Boot] = true })
	}
	if len(boots) != 2 {
		t.Errorf("boots %v", boots)
	}
}

// counter counts what goes over connections.
type counter struct {
	net.Listener
	in, out, conns atomic.Int64
}

type counted struct {
	net.Conn
	c *counter
}

func (c *counter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.conns.Add(1)
	}
	return &counted{conn, c}, err
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.c.in.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.c.out.Add(int64(n))
	return n, err
}

// An idle host costs little. The bound is on what it sends, headers included;
// what it is answered is up to the controller.
func TestIdleBytes(t *testing.T) {
	r := newRig(t)
	c := &counter{}
	server := httptest.NewUnstartedServer(r.ctl)
	c.Listener = server.Listener
	server.Listener = c
	server.Start()
	t.Cleanup(server.Close)
	r.ctl.do(func() { r.ctl.interval = 0.05 })
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(func(cfg *Config) { cfg.Controller = server.URL })
	r.ctl.has(t, "L1", "running")
	r.ctl.order(hostapi.HostAction{
		LaunchContainer: []hostapi.LaunchContainer{}, TerminateContainer: []hostapi.TerminateContainer{}, PullDockerImages: []hostapi.PullImage{},
		Registries: []hostapi.Registry{}, Mount: []hostapi.HostMount{}, LaunchNodeRedContainer: []struct{}{}, TerminateNodeRed: []struct{}{},
		StartContainer: []hostapi.StartContainer{},
	})
	idle := func() bool { return r.ctl.reports[len(r.ctl.reports)-1].Same != 0 }
	r.ctl.until(t, "an idle report", idle)
	n := 0
	r.ctl.do(func() { n = len(r.ctl.reports) })
	in, out := c.in.Load(), c.out.Load()
	const many = 20
	r.ctl.until(t, "idle reports", func() bool { return len(r.ctl.reports) >= n+many })
	reports := 0
	r.ctl.do(func() {
		for _, s := range r.ctl.reports[n:] {
			if s.Same == 0 {
				t.Errorf("a report with containers: %+v", s)
			}
		}
		reports = len(r.ctl.reports) - n
	})
	sent, got := float64(c.in.Load()-in)/float64(reports), float64(c.out.Load()-out)/float64(reports)
	t.Logf("an idle report is %.0f bytes and its answer %.0f; in an hour, every 30 s, %.0f KiB", sent, got, (sent+got)*120/1024)
	if most := 600.0; sent+got > most {
		t.Errorf("an idle report and its answer have %.0f bytes, more than %.0f", sent+got, most)
	}
	if got := c.conns.Load(); got != 1 {
		t.Errorf("%d connections", got)
	}
}

// roundTrip is a controller without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body any, header ...string) *http.Response {
	text, _ := json.Marshal(body)
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, Body: io.NopCloser(strings.NewReader(string(text)))}
}

// bubble runs an agent on a fake clock against a controller that is a function.
// What both use is used in do.
func bubble(t *testing.T, ctl roundTrip, f func(a *Agent, log *logs, do func(func()))) {
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, node: newFakeNode(), ctl: &fakeController{Server: &httptest.Server{URL: "http://c:1"}}, data: data, keys: seal.New(), log: &logs{}}
		a := r.make(nil)
		var mu sync.Mutex
		a.ctl.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			return ctl(req)
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		f(a, r.log, func(f func()) {
			mu.Lock()
			defer mu.Unlock()
			f()
		})
		cancel()
		wg.Wait()
	})
}

func registered() *http.Response {
	r := hostapi.RegisterResponse{HostID: "h", HostToken: "t", Status: hostapi.HostAction{Mode: hostapi.Continue}}
	r.ConfigProperties.ReportIntervalSeconds = 20
	return answer(201, r)
}

// A controller that is away is asked again after 1 to 30 seconds, and only the
// change is logged.
func TestBackoff(t *testing.T) {
	var times []time.Time
	up := false
	bubble(t, func(*http.Request) (*http.Response, error) {
		times = append(times, time.Now())
		if !up {
			return nil, errors.New("connection refused")
		}
		return registered(), nil
	}, func(a *Agent, log *logs, do func(func())) {
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		do(func() {
			if n := len(times); n < 20 || n > 60 {
				t.Errorf("%d attempts in ten minutes", n)
			}
			for i := range times[1:] {
				if d := times[i+1].Sub(times[i]); d < time.Second || d > 30*time.Second {
					t.Errorf("%s between attempts %d and %d", d, i, i+1)
				}
			}
		})
		if n := log.count("no orders from the controller"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		do(func() { up = true })
		a.Poke()
		synctest.Wait()
		time.Sleep(minGap)
		synctest.Wait()
		if n := log.count("answers again"); n != 1 {
			t.Errorf("that it is well again is logged %d times", n)
		}
	})
}

// The interval is the controller's; reports keep to it, and a controller that
// has too much to do is left alone for as long as it says.
func TestInterval(t *testing.T) {
	var times []time.Time
	retry := ""
	bubble(t, func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/host/register" {
			return registered(), nil
		}
		times = append(times, time.Now())
		if retry != "" {
			return answer(429, nil, "Retry-After", retry), nil
		}
		return answer(200, hostapi.HostAction{Mode: hostapi.Continue}), nil
	}, func(_ *Agent, _ *logs, do func(func())) {
		time.Sleep(time.Hour)
		synctest.Wait()
		do(func() {
			if n := len(times); n < 180 || n > 200 {
				t.Errorf("%d reports in an hour", n)
			}
			retry = "120"
		})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		n := 0
		do(func() { n = len(times) })
		time.Sleep(time.Hour)
		synctest.Wait()
		do(func() {
			if got := len(times) - n; got < 28 || got > 30 {
				t.Errorf("%d reports in an hour to a controller that wants to be left alone for two minutes", got)
			}
		})
	})
}

// A join token that is not taken is tried again slowly, and the token is read anew.
func TestJoinRefused(t *testing.T) {
	var times []time.Time
	var tokens []string
	bubble(t, func(r *http.Request) (*http.Response, error) {
		times = append(times, time.Now())
		tokens = append(tokens, r.Header.Get("Authorization"))
		if r.URL.Path == "/host/register" && len(times) > 10 {
			return registered(), nil
		}
		return answer(401, hostapi.ErrorBody{ErrorDetail: "who is that?"}), nil
	}, func(_ *Agent, log *logs, do func(func())) {
		time.Sleep(time.Minute)
		synctest.Wait()
		do(func() {
			if n := len(times); n < 1 || n > 3 {
				t.Errorf("%d attempts in a minute", n)
			}
		})
		if log.count("give it a join token that is valid") != 1 || log.count("who is that?") != 1 {
			t.Error("it is not said what to do")
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		// It is let in, but its reports are not taken: each is followed by one
		// registration, and by the interval.
		do(func() {
			if n := len(times); n > 400 {
				t.Errorf("%d attempts", n)
			}
		})
	})
	if tokens[0] != "Bearer "+joinToken {
		t.Errorf("asked with %q", tokens[0])
	}
}

// Changes come together in one report, and no more than twenty a second are made.
func TestCoalesce(t *testing.T) {
	var mu sync.Mutex
	reports := 0
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, node: newFakeNode(), ctl: &fakeController{Server: &httptest.Server{URL: "http://c:1"}}, data: data, keys: seal.New(), log: &logs{}}
		for i := range 100 {
			r.node.put(buoy.Container{Name: fmt.Sprint("c", i), State: "running", Labels: map[string]string{labelLaunch: fmt.Sprint("L", i)}, Started: time.Now()})
		}
		a := r.make(nil)
		a.ctl.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			reports++
			if req.URL.Path == "/host/register" {
				return registered(), nil
			}
			return answer(200, hostapi.HostAction{Mode: hostapi.Continue}), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = a.Run(ctx) })
		synctest.Wait()
		count := func() int { mu.Lock(); defer mu.Unlock(); return reports }
		before := count()
		start := time.Now()
		for i := range 100 { // all within 10 ms
			r.node.change(func() { r.node.all[fmt.Sprint("c", i)].State = "halted" })
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if got := count() - before; got != 1 {
			t.Errorf("%d reports of a hundred changes at once", got)
		}
		before = count()
		for i := range 1000 { // for a second
			r.node.change(func() { r.node.all["c1"].Restarts = i; r.node.all["c1"].State = []string{"running", "restarting"}[i%2] })
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if got := count() - before; got < 10 || got > 21 {
			t.Errorf("%d reports in a second", got)
		}
		if time.Since(start) > 5*time.Second {
			t.Errorf("it took %s of its clock", time.Since(start))
		}
		cancel()
		wg.Wait()
	})
}

// What a standby was ordered to do is reported as soon as it is done; but who
// pokes without end gets no more than twenty reports a second.
func TestBurst(t *testing.T) {
	var mu sync.Mutex
	var times []time.Time
	var ran time.Time // when a report said so
	data := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, node: newFakeNode(), ctl: &fakeController{Server: &httptest.Server{URL: "http://c:1"}}, data: data, keys: seal.New(), log: &logs{}}
		r.node.put(buoy.Container{Name: "c", State: "standby", Labels: map[string]string{labelLaunch: "L"}})
		a := r.make(nil)
		a.ctl.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if req.URL.Path == "/host/register" {
				return registered(), nil
			}
			times = append(times, time.Now())
			if text, _ := io.ReadAll(req.Body); strings.Contains(string(text), `"running"`) && ran.IsZero() {
				ran = time.Now()
			}
			return answer(200, hostapi.HostAction{Mode: hostapi.Continue, StartContainer: []hostapi.StartContainer{{LaunchID: "L"}}}), nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = a.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		time.Sleep(time.Second)
		synctest.Wait()
		began := time.Now()
		a.Poke()
		synctest.Wait()
		mu.Lock()
		if !ran.Equal(began) {
			t.Errorf("that it runs was said after %s", ran.Sub(began))
		}
		times = nil
		mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		began = time.Now()
		for range 2000 { // for two seconds
			a.Poke()
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		at := func(i int) time.Duration { return times[i].Sub(began) }
		if n := len(times); n < 35 || n > 40+burst || at(burst-1) > 10*time.Millisecond || at(burst) < minGap-10*time.Millisecond {
			t.Errorf("%d reports in two seconds, the first at %v", n, times[:min(n, burst+1)])
		}
	})
}

// The time of day of this host may be anything.
func TestSkew(t *testing.T) {
	r := newRig(t)
	past := time.Date(1970, 1, 1, 0, 0, 5, 0, time.UTC)
	r.node.put(buoy.Container{Name: "old", State: "running", Created: past, Started: past, Labels: map[string]string{labelLaunch: "L0"}})
	r.node.put(buoy.Container{Name: "new", State: "running", Created: past.AddDate(200, 0, 0), Started: past.AddDate(200, 0, 0), Labels: map[string]string{labelLaunch: "L9"}})
	r.ctl.order(launchOrders(launchOrder("L0"), launchOrder("L1")))
	r.start(nil)
	r.ctl.has(t, "L1", "running")
	r.ctl.order(stopOrders("L0", "L9"))
	r.Poke()
	r.ctl.has(t, "L0", "")
	r.ctl.has(t, "L9", "")
	if n := read(r.node, func() int { return r.node.created["L0"] }); n != 0 {
		t.Error("L0 was launched")
	}
}

// The node is asked little: a list when something has changed, a container when
// its line is another one, nothing when nothing happens.
func TestLooks(t *testing.T) {
	r := newRig(t)
	for i := range 50 {
		r.node.put(buoy.Container{Name: fmt.Sprint("c", i), State: "running", Labels: map[string]string{labelLaunch: fmt.Sprint("L", i)}})
	}
	r.ctl.do(func() { r.ctl.interval = 0.05 })
	r.start(nil)
	r.ctl.until(t, "some reports", func() bool { return len(r.ctl.reports) > 5 })
	r.node.mu.Lock()
	if r.node.lists > 2 || r.node.looks > 100 {
		t.Errorf("%d lists and %d looks for nothing", r.node.lists, r.node.looks)
	}
	r.node.mu.Unlock()
	r.ctl.do(func() { r.ctl.interval = 3600 })
	r.ctl.do(func() { r.ctl.token = "another" }) // it registers again and has the new interval
	r.Poke()
	r.ctl.until(t, "a registration", func() bool { return len(r.ctl.registers) == 2 })
	looks := read(r.node, func() int { return r.node.looks })
	r.node.change(func() { r.node.all["c7"].State = "halted"; r.node.all["c7"].Reason = "Exited" })
	r.ctl.has(t, "L7", "halted")
	if got := read(r.node, func() int { return r.node.looks }) - looks; got != 1 {
		t.Errorf("%d looks for one change", got)
	}
}

// A node that has not looked after its containers yet says nothing.
func TestNotReady(t *testing.T) {
	r := newRig(t)
	r.node.ready = make(chan struct{})
	r.start(nil)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r.ctl.do(func() {
		if len(r.ctl.registers) > 0 {
			t.Error("it has registered")
		}
	})
}

func TestUnixController(t *testing.T) {
	r := newRig(t)
	socket := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: r.ctl}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(func(c *Config) { c.Controller = "unix://" + socket })
	r.ctl.has(t, "L1", "running")
}

// A disk that is full, or gone, stops nothing.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	r.data = filepath.Join(r.data, "gone")
	r.ctl.order(launchOrders(launchOrder("L1")))
	r.start(nil)
	r.ctl.has(t, "L1", "running")
	a := launchOrders(launchOrder("L1"))
	a.TerminateContainer = stopOrders("L1").TerminateContainer
	r.ctl.order(a)
	r.Poke()
	r.ctl.has(t, "L1", "")
	if r.log.count("not written down") < 2 {
		t.Error("nothing is said of it")
	}
}

func TestMeter(t *testing.T) {
	m := meter{last: map[string]Usage{}, rates: map[string]rates{}}
	at := time.Now()
	step := func(u map[string]Usage, want map[string]rates) {
		t.Helper()
		at = at.Add(10 * time.Second)
		m.containers(u, at)
		if diff := cmp.Diff(want, m.rates, cmp.AllowUnexported(rates{})); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	step(map[string]Usage{"a": {CPU: 100 * time.Second, Memory: 5}, "b": {}}, map[string]rates{"a": {memory: 5}, "b": {}})
	step(map[string]Usage{"a": {CPU: 105 * time.Second, Memory: 6, Periods: 100, Throttled: 25}}, map[string]rates{"a": {cpu: 50, memory: 6, throttled: 25}})
	step(map[string]Usage{"a": {CPU: time.Second, Memory: 7, Periods: 1}}, map[string]rates{"a": {memory: 7}}) // it has started anew
	step(map[string]Usage{"a": {CPU: 21 * time.Second, Memory: 7, Periods: 0}}, map[string]rates{"a": {cpu: 200, memory: 7}})

	m.machine(Figures{CPUBusy: 10, CPUTotal: 100})
	if m.busy != 0.1 {
		t.Errorf("busy %v", m.busy)
	}
	m.machine(Figures{CPUBusy: 60, CPUTotal: 200})
	m.machine(Figures{CPUBusy: 60, CPUTotal: 200})
	if m.busy != 0.5 {
		t.Errorf("busy %v", m.busy)
	}
}

func TestSteady(t *testing.T) {
	for _, c := range []struct{ old, now, least, share, want float64 }{
		{10, 11, 2, 0.1, 10}, {10, 13, 2, 0.1, 13}, {100, 109, 2, 0.1, 100}, {100, 111, 2, 0.1, 111}, {0, 1, 2, 0.1, 0}, {0, 3, 2, 0.1, 3}, {5, 0, 2, 0.1, 0},
	} {
		if got := steady(c.old, c.now, c.least, c.share); got != c.want {
			t.Errorf("steady(%v, %v) = %v, want %v", c.old, c.now, got, c.want)
		}
	}
}

// The client in the process behaves like one on a socket.
func TestLocal(t *testing.T) {
	ended := make(chan struct{}, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/nodes/n1/containers/a%2Fb", "/nodes/n1/containers/a/b":
			fmt.Fprintf(w, `{"name":%q}`, r.URL.EscapedPath())
		case "/nodes/n1/containers/abort":
			panic(http.ErrAbortHandler)
		case "/nodes/n1/images":
			fmt.Fprintln(w, `{"phase":"download"}`)
			<-r.Context().Done()
			ended <- struct{}{}
		default:
			sentence(w, http.StatusConflict, "it is %s", r.Method)
		}
	})
	c, err := Local(h, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if one, err := c.Container(t.Context(), "a/b"); err != nil || one.Name != "/nodes/n1/containers/a%2Fb" {
		t.Errorf("%+v, %v", one, err)
	}
	if _, err := c.Container(t.Context(), "abort"); err == nil {
		t.Error("an answer that is cut off is one")
	}
	if err := c.Delete(t.Context(), "x"); !errors.Is(err, buoy.ErrConflict) || err.Error() != "it is DELETE" {
		t.Errorf("Delete = %v", err)
	}
	for p, err := range c.Pull(t.Context(), "x") {
		if err != nil || p.Phase != "download" {
			t.Errorf("%+v, %v", p, err)
		}
		break // before its end
	}
	<-ended
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range c.Pull(ctx, "x") { //nolint:errcheck // it ends
	}
	<-ended
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "7": 7 * time.Second, "99999": maxPatience,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("retryAfter(%q) = %s, want %s", text, got, want)
		}
	}
}

func TestIntervalOf(t *testing.T) {
	for s, want := range map[float64]time.Duration{
		0: defaultInterval, -1: defaultInterval, 10: 10 * time.Second, 1e-9: minInterval, 1e300: maxInterval,
	} {
		if got := intervalOf(s); got != want {
			t.Errorf("intervalOf(%v) = %s, want %s", s, got, want)
		}
	}
}

package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/probe"
	"github.com/buoy-edge/buoy/node/state"
)

// runNode is newNode with somebody who does the work that Run does in the background.
func runNode(t *testing.T) (*Node, *fakeShim) {
	t.Helper()
	n, shim := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case f := <-n.later:
				wg.Go(func() { f(ctx) })
			case <-ctx.Done():
				close(n.closed)
				return
			}
		}
	})
	t.Cleanup(func() { n.stopTimers(); cancel(); wg.Wait() })
	return n, shim
}

// await waits until a container is as it should be, woken by changes alone.
func await(t *testing.T, n *Node, name string, ok func(Container) bool) Container {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		changed := n.Changed()
		c, err := n.Container(name)
		if err == nil && ok(c) {
			return c
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("waited in vain: %+v, %+v, %v", c, c.Health, err)
		}
	}
}

// web is a container's program: what it answers can be changed.
func web(t *testing.T) (port uint16, status *atomic.Int64) {
	t.Helper()
	status = &atomic.Int64{}
	status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(s.Close)
	_, text, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(number), status
}

func TestHealth(t *testing.T) {
	n, shim := runNode(t)
	port, status := web(t)
	s := n.spec("a")
	s.HostNetworking = true
	s.Health = &probe.Check{Type: probe.HTTP, Port: port, Period: 100 * time.Millisecond, FailureThreshold: 2, Restart: true, Drain: 100 * time.Millisecond}
	if err := n.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	await(t, n, "a", func(c Container) bool { return c.Health.Status == probe.Healthy })
	status.Store(503)
	c := await(t, n, "a", func(c Container) bool { return c.Health.Status == probe.Unhealthy })
	if c.Status != Running || c.Health.LastError == "" {
		t.Errorf("unhealthy: %+v", c)
	}
	c = await(t, n, "a", func(c Container) bool { return c.Restarts == 1 })
	status.Store(200)
	c = await(t, n, "a", func(c Container) bool { return c.Status == Running && c.Health.Status == probe.Healthy })
	shim.mu.Lock()
	ran := shim.ran
	shim.mu.Unlock()
	if ran != 1+c.Restarts {
		t.Errorf("started %d times, restarted %d times", ran, c.Restarts)
	}
	if h, err := n.CheckHealth(t.Context(), "a"); err != nil || h.Status != probe.Healthy || h.LastCheck.IsZero() {
		t.Errorf("checked now: %+v, %v", h, err)
	}
	if err := n.Stop(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if c, _ := n.Container("a"); c.Health == nil || c.Health.Status != probe.Unknown {
		t.Errorf("stopped: %+v", c.Health)
	}
	if _, err := n.CheckHealth(t.Context(), "a"); !errors.Is(err, errs.Conflict) {
		t.Errorf("checked while stopped: %v", err)
	}
	if err := n.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.CheckHealth(t.Context(), "a"); !errors.Is(err, errs.NotFound) {
		t.Errorf("checked when deleted: %v", err)
	}
	nothing(t, n, shim, "deleted")
}

func TestNoHealth(t *testing.T) {
	n, _ := runNode(t)
	if err := n.Create(t.Context(), n.spec("a")); err != nil {
		t.Fatal(err)
	}
	if c, _ := n.Container("a"); c.Health != nil {
		t.Errorf("without a check: %+v", c.Health)
	}
	if _, err := n.CheckHealth(t.Context(), "a"); !errors.Is(err, errs.Conflict) {
		t.Errorf("checked without a check: %v", err)
	}
	for _, bad := range []probe.Check{{Type: "x"}, {Type: probe.Exec, Args: []string{"a\x00"}}} {
		s := n.spec("b")
		s.Health = &bad
		if err := n.Create(t.Context(), s); !errors.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A standby is not checked before it is released.
func TestStandbyHealth(t *testing.T) {
	n, _ := runNode(t)
	port, _ := web(t)
	s := n.spec("a")
	s.HostNetworking, s.Standby = true, true
	s.Health = &probe.Check{Type: probe.TCP, Port: port}
	if err := n.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := n.CheckHealth(t.Context(), "a"); !errors.Is(err, errs.Conflict) {
		t.Errorf("checked in standby: %v", err)
	}
	if err := n.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	await(t, n, "a", func(c Container) bool { return c.Health.Status == probe.Healthy })
	if err := n.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
}

// jobs waits until the shim has been asked for so many jobs, and names the last.
func (f *fakeShim) jobs(t *testing.T, count int) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		execs := slices.Clone(f.execs)
		f.mu.Unlock()
		if len(execs) >= count {
			return execs[len(execs)-1]
		}
		if time.Now().After(deadline) {
			t.Fatalf("the shim was asked for %v only", execs)
		}
	}
}

// forgot waits until a job has been forgotten.
func (f *fakeShim) forgot(t *testing.T, job string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		gone := slices.Contains(f.gone, job)
		f.mu.Unlock()
		if gone {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not forgotten", job)
		}
	}
}

func TestExecHealth(t *testing.T) {
	n, shim := runNode(t)
	s := n.spec("a")
	s.Health = &probe.Check{Type: probe.Exec, Args: []string{"check"}, Period: time.Hour, Timeout: 200 * time.Millisecond, FailureThreshold: 1}
	if err := n.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	end := func(job string, exit shimapi.Exit) { n.event(shimapi.Event{ID: "a", Job: job, Exit: &exit}) }
	end(shim.jobs(t, 1), shimapi.Exit{})
	await(t, n, "a", func(c Container) bool { return c.Health.Status == probe.Healthy })
	var wg sync.WaitGroup
	wg.Go(func() {
		if h, err := n.CheckHealth(t.Context(), "a"); err != nil || h.LastError != "exit code 3: why not" {
			t.Errorf("%+v, %v", h, err)
		}
	})
	job := shim.jobs(t, 2)
	if err := os.WriteFile(n.checkLog("a", job), []byte("2026-11-21T01:08:42.18076387Z stderr F why not\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	end(job, shimapi.Exit{Code: 3})
	await(t, n, "a", func(c Container) bool { return c.Health.Status == probe.Unhealthy })
	wg.Wait()
	shim.forgot(t, job)
	if _, err := os.Stat(n.checkLog("a", job)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what it said: %v", err)
	}
	// One that ended while nobody heard.
	wg.Go(func() {
		if h, err := n.CheckHealth(t.Context(), "a"); err != nil || h.Status != probe.Healthy {
			t.Errorf("%+v, %v", h, err)
		}
	})
	job = shim.jobs(t, 3)
	n.settleUnlisted(t.Context(), []shimapi.Container{{ID: "a", Jobs: []shimapi.Job{{Job: job}, {Job: "other"}}}}) // it still runs
	n.settleUnlisted(t.Context(), []shimapi.Container{{ID: "a", Jobs: []shimapi.Job{{Job: job, Exit: &shimapi.Exit{}}}}})
	wg.Wait()
	shim.forgot(t, job)
	// One that takes too long is forgotten when it has ended at last.
	if h, err := n.CheckHealth(t.Context(), "a"); err != nil || h.LastError != "no answer within 200ms" {
		t.Errorf("%+v, %v", h, err)
	}
	job = shim.jobs(t, 4)
	end(job, shimapi.Exit{Code: 137})
	shim.forgot(t, job)
	// One of an earlier daemon.
	end(checkPrefix+"old", shimapi.Exit{})
	shim.forgot(t, checkPrefix+"old")
	// A command that is not there is the container's fault, a shim that is not is not.
	for kind, want := range map[errs.Kind]string{errs.NotFound: "no such thing", errs.Unavailable: ""} {
		shim.ask(func(op shimapi.Op, _ string) error {
			if op == shimapi.OpExec {
				return errs.E(kind, "no such thing")
			}
			return nil
		})
		h, err := n.CheckHealth(t.Context(), "a")
		if (err == nil) != (want != "") || want != "" && h.LastError != want {
			t.Errorf("%s: %+v, %v", kind, h, err)
		}
	}
	shim.ask(nil)
	if err := n.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	nothing(t, n, shim, "deleted")
}

func TestAfterUnhealthy(t *testing.T) {
	now := time.Unix(1e9, 0)
	long := container.History{Started: now.Add(-time.Hour), Retries: 3, Quick: 7}
	for _, tt := range []struct {
		restart container.Restart
		h       container.History
		want    bool
		after   time.Duration
	}{
		{container.Restart{}, long, true, 100 * time.Millisecond},
		{container.Restart{Policy: container.RestartNo}, long, true, 100 * time.Millisecond},
		{container.Restart{Policy: container.RestartAlways}, container.History{Started: now, Quick: 2}, true, 400 * time.Millisecond},
		{container.Restart{Policy: container.RestartOnFailure}, long, true, 100 * time.Millisecond},
		{container.Restart{Policy: container.RestartOnFailure, MaxRetries: 4}, long, true, 100 * time.Millisecond},
		{container.Restart{Policy: container.RestartOnFailure, MaxRetries: 3}, long, false, 0},
	} {
		d := afterUnhealthy(tt.restart, tt.h, now)
		if d.Restart != tt.want || d.After != tt.after || d.Restart && d.History.Retries != tt.h.Retries+1 {
			t.Errorf("%s: %+v", tt.restart, d)
		}
	}
}

// A daemon that dies while it stops an unhealthy container leaves one that ended
// by itself as it seems, and no policy would restart it.
func TestDecideUnhealthy(t *testing.T) {
	n := &Node{}
	for reason, want := range map[string]Status{reasonUnhealthy: Restarting, "": Halted} {
		b := newBox(Spec{Name: "a"}, state.Record{Wanted: state.Run, Reason: reason})
		n.decide(b, shimapi.Exit{At: time.Now()})
		if b.timer != nil {
			b.timer.Stop()
		}
		if b.status != want {
			t.Errorf("%q: it is %s, want %s", reason, b.status, want)
		}
	}
}

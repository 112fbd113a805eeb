package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// patient is a container whose command ends as it is told.
type patient struct {
	mu       sync.Mutex // guards all
	code     int
	err      error
	hang     bool
	asked    []time.Duration // since began
	began    time.Time
	changed  []Health
	restarts []time.Duration
}

func (p *patient) exec(ctx context.Context, _ []string) (int, string, error) {
	p.mu.Lock()
	code, err, hang := p.code, p.err, p.hang
	p.asked = append(p.asked, time.Since(p.began))
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return 0, "", ctx.Err()
	}
	time.Sleep(time.Millisecond)
	return code, "first\nsecond \n", err
}

func (p *patient) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// sleep lets time pass, and all happen that is due by then.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// start has it checked until stop is called, which waits for a check under way.
func (p *patient) start(t *testing.T, c Check) (prober *Prober, stop func()) {
	c.Type, c.Args = Exec, []string{"x"}
	p.began = time.Now()
	prober = New(Config{
		Check: c, Started: p.began, Exec: p.exec,
		Changed: func(_ Health, s State) { p.set(func() { p.changed = append(p.changed, s.Status) }) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		prober.Run(ctx, func(State) { p.set(func() { p.restarts = append(p.restarts, time.Since(p.began)) }) })
	})
	return prober, func() { cancel(); running.Wait() }
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{code: 1}
		prober, stop := p.start(t, Check{})
		sleep(1100 * time.Millisecond)
		p.set(func() { p.code = 0 }) // it has come up
		sleep(time.Second)
		if s := prober.State(); s.Status != Healthy || s.ResponseTime != time.Millisecond {
			t.Errorf("%+v two seconds after the start, asked at %v", s, p.asked)
		}
		p.set(func() { p.code, p.asked = 2, nil })
		sleep(31 * time.Second)
		s := prober.State()
		if s.Status != Unhealthy || s.Failures != 3 || s.LastError != "exit code 2: second" {
			t.Errorf("%+v, asked at %v", s, p.asked)
		}
		for i := range p.asked[1:] {
			if wait := p.asked[i+1] - p.asked[i]; wait != defaultPeriod {
				t.Errorf("asked after %s", wait)
			}
		}
		p.set(func() { p.code = 0 })
		if s, err := prober.Now(t.Context()); err != nil || s.Status != Healthy || s.LastError != "" {
			t.Errorf("asked now: %+v, %v", s, err)
		}
		if want := []Health{Healthy, Unhealthy, Healthy}; !slices.Equal(p.changed, want) {
			t.Errorf("changes = %v, want %v", p.changed, want)
		}
		stop()
		if _, err := prober.Now(t.Context()); !errors.Is(err, errs.Conflict) {
			t.Errorf("after its end: %v", err)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{hang: true}
		prober, stop := p.start(t, Check{Timeout: 2 * time.Second, FailureThreshold: 1})
		sleep(17 * time.Second)
		if s := prober.State(); s.Status != Unhealthy || s.LastError != "no answer within 2s" || s.ResponseTime != 2*time.Second {
			t.Errorf("%+v", s)
		}
		done, giveUp := context.WithCancel(t.Context())
		giveUp()
		if _, err := prober.Now(done); !errors.Is(err, errs.Unavailable) {
			t.Errorf("for somebody who does not wait: %v", err)
		}
		sleep(10 * time.Second) // it hangs again
		stop()
		if n := len(p.changed); n != 1 {
			t.Errorf("changes = %v: an end is no failure", p.changed)
		}
	})
}

// What keeps us from asking says nothing about the container.
func TestUnasked(t *testing.T) {
	for _, why := range []error{
		errs.E(errs.Conflict, "it has ended"), errs.E(errs.Unavailable, "no shim"), fmt.Errorf("socket: %w", unix.EMFILE),
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &patient{err: why}
			prober, stop := p.start(t, Check{FailureThreshold: 1})
			defer stop()
			sleep(time.Minute)
			if s := prober.State(); s.Status != Unknown || !s.LastCheck.IsZero() {
				t.Errorf("%v: %+v", why, s)
			}
			if n := len(p.asked); n < 6 || n > 20 {
				t.Errorf("%v: asked %d times in a minute", why, n)
			}
			if _, err := prober.Now(t.Context()); !errors.Is(err, why) {
				t.Errorf("Now = %v, want %v", err, why)
			}
			p.set(func() { p.err = errs.E(errs.NotFound, "no such command") })
			if s, err := prober.Now(t.Context()); err != nil || s.Status != Unhealthy || s.LastError != "no such command" {
				t.Errorf("Now = %+v, %v", s, err)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{code: 1}
		_, stop := p.start(t, Check{Restart: true, Drain: 15 * time.Second, FailureThreshold: 1})
		defer stop()
		sleep(14 * time.Second)
		p.set(func() { p.code = 0 }) // well again while it is drained
		sleep(30 * time.Second)
		if len(p.restarts) > 0 {
			t.Errorf("restarted after %v", p.restarts)
		}
		p.set(func() { p.code = 1 })
		began := time.Since(p.began)
		sleep(time.Minute)
		stop()
		// The first after the next check and the drain, and again each period, since nothing comes of it.
		if len(p.restarts) < 3 || p.restarts[0]-began > 25*time.Second || p.restarts[0]-began < 15*time.Second {
			t.Errorf("unhealthy at %s, restarted after %v", began, p.restarts)
		}
		for i := range p.restarts[1:] {
			if wait := p.restarts[i+1] - p.restarts[i]; wait < defaultPeriod || wait > 2*defaultPeriod {
				t.Errorf("again after %s", wait)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) { // at once, without a drain
		p := &patient{code: 1}
		_, stop := p.start(t, Check{Restart: true, FailureThreshold: 1})
		defer stop()
		sleep(12 * time.Second)
		if len(p.restarts) != 1 {
			t.Errorf("restarted after %v", p.restarts)
		}
	})
}

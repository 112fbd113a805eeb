package app

import (
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// TestBalancerHearsOfWhatChanges: what one app does the balancer hears of that
// one alone.
func TestBalancerHearsOfWhatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		for i := range 50 {
			r.apply(named(fmt.Sprint("other-", i), webSpec(1)))
		}
		r.apply(webSpec(1))
		r.until("up", ready(1))
		think()
		synctest.Wait()
		r.lb.mu.Lock()
		before, routes := r.lb.told, maps.Clone(r.lb.routes)
		r.lb.mu.Unlock()
		if _, err := r.Scale(t.Context(), "web", 3, "", true); err != nil {
			t.Fatal(err)
		}
		r.until("three", ready(3))
		think()
		synctest.Wait()
		r.lb.mu.Lock()
		defer r.lb.mu.Unlock()
		if n := r.lb.told - before; n == 0 || n > 20 || len(routes) != 51 {
			t.Errorf("the balancer was told of %d routes while one of %d apps changed", n, len(routes))
		}
	})
}

// eventually waits, in the time of the bubble, for what no view shows.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(batch)
	}
	t.Fatalf("it did not come to this: %s", what)
}

// pickyBalancer refuses an app while it is told to.
type pickyBalancer struct {
	idleBalancer
	refuses atomic.Pointer[string]
}

func (b *pickyBalancer) Update(changed []Route) error {
	for _, r := range changed {
		if name := b.refuses.Load(); name != nil && r.App == *name && r.Spec != nil {
			return errs.E(errs.Conflict, "app %q clashes", r.App)
		}
	}
	return b.idleBalancer.Update(changed)
}

// TestRefusedRoutesAreAlone: an app that the balancer does not take, such as one
// that wants a port which the daemon answers at since it was configured anew,
// keeps no other from its routes, and gets its own once they are taken.
func TestRefusedRoutesAreAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{st: map[string]any{}}
		r := newRig(t, store, "h1")
		for _, name := range []string{"a", "web", "z"} {
			r.apply(named(name, webSpec(1)))
		}
		r.until("up", ready(1))
		think()
		r.stop()

		lb, bad := &pickyBalancer{}, "a"
		lb.refuses.Store(&bad)
		r = newRigWith(t, Config{Balancer: lb}, store, "h1")
		defer r.stop()
		to := func(app string) int { n, _ := lb.backends(app); return n }
		eventually(t, "the others have their routes", func() bool { return to("web") == 1 && to("z") == 1 })
		if to("a") != 0 {
			t.Error("what is refused is there")
		}
		lb.refuses.Store(nil)
		r.apply(named("z", webSpec(2)))
		eventually(t, "all have theirs", func() bool { return to("a") == 1 && to("z") == 2 })
	})
}

func TestRerouteSaysAll(t *testing.T) {
	lb, bad := &pickyBalancer{}, "b"
	lb.refuses.Store(&bad)
	e, err := New(Config{Store: &memory{}, Balancer: lb})
	if err != nil {
		t.Fatal(err)
	}
	spec := webSpec(1)
	refused, err := e.reroute([]Route{{App: "a", Spec: &spec}, {App: "b", Spec: &spec}, {App: "c"}})
	if !errors.Is(err, errs.Conflict) || !maps.Equal(refused, map[string]bool{"a": false, "b": true, "c": false}) || len(lb.routes) != 1 {
		t.Errorf("refused %v: %v; there is %v", refused, err, lb.routes)
	}
}

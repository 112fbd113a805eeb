package app

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

// strictBalancer refuses two apps with one rule or port, and its own port 7000.
type strictBalancer struct {
	idleBalancer
	refused atomic.Int32
}

func clash(routes map[string]Route) error {
	seen := map[LostRoute]string{{Proto: "tcp", Listen: 7000}: "the balancer"}
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		r := routes[name]
		for _, one := range r.Spec.routes() {
			if other := seen[one]; other != "" {
				return errs.E(errs.Conflict, "apps %q and %q both want %s", other, r.App, one)
			}
			seen[one] = r.App
		}
	}
	return nil
}

func (b *strictBalancer) Update(changed []Route) error {
	b.mu.Lock()
	err := clash(b.with(changed))
	b.mu.Unlock()
	if err != nil {
		b.refused.Add(1)
		return err
	}
	return b.idleBalancer.Update(changed)
}

func (b *strictBalancer) Check(app string, spec *Spec) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return clash(b.with([]Route{{App: app, Spec: spec}}))
}

// TestRoutesClash: no two apps get the same route, however fast they come, and
// no way back leads to that.
func TestRoutesClash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lb := &strictBalancer{}
		r := newRigWith(t, Config{Balancer: lb}, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		ctx := t.Context()
		at := func(name, host string) Spec {
			s := named(name, webSpec(1))
			s.Expose.Rules = []Rule{{Host: host}}
			return s
		}
		r.apply(at("web", "a"))
		if _, err := r.Apply(ctx, at("other", "a"), nil, "apps"); errs.KindOf(err) != errs.Conflict {
			t.Errorf("at once: %v", err)
		}
		r.apply(at("web", "b"))
		r.apply(at("other", "a"))
		if _, err := r.Rollback(ctx, "web", 1, nil); errs.KindOf(err) != errs.Conflict {
			t.Errorf("back: %v", err)
		}
		time.Sleep(time.Minute)
		if n := lb.refused.Load(); n > 0 {
			t.Errorf("the balancer refused %d times", n)
		}
	})
}

// of are the routes that lead to an app.
func (b *strictBalancer) of(app string) (all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.routes[app].Spec.routes() {
		all = append(all, one.String())
	}
	return all
}

// TestRoutesOfRevert: an app that comes back by itself gets the routes that
// nobody has taken meanwhile, says whose the others are, and has them again when
// they are free.
func TestRoutesOfRevert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lb := &strictBalancer{}
		r := newRigWith(t, Config{Balancer: lb}, &memory{st: map[string]any{}}, "h1")
		defer func() { r.stop() }()
		refuse := func(why string) { h := r.hosts["h1"]; h.set(func() { h.refus = why }) }
		messages := func(typ EventType) (all []string) {
			t.Helper()
			events, _, err := r.Events(t.Context(), EventQuery{App: "web", Type: typ})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				all = append(all, e.Message)
			}
			return all
		}
		routes := func(when, app string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, lb.of(app)); diff != "" {
				t.Errorf("%s, %s: %s", when, app, diff)
			}
		}
		const a, b, own, local, port = `host "a" with path "/"`, `host "b" with path "/"`, `host "web" with path "/"`, `host "web.localhost" with path "/"`, "tcp port 7001"
		s := webSpec(1)
		s.Expose.Rules = []Rule{{Host: "a"}, {Host: "b"}}
		s.Ports = append(s.Ports, Port{Container: 81, Proto: "tcp", Listen: 7001})
		r.apply(s)
		r.until("first", func(v View) bool { return v.App.Rollout.Done })
		refuse("no")
		r.apply(webSpec(1)) // with its own name alone
		think()
		routes("revised", "web", own, local)
		other := named("other", s)
		other.Expose.Rules = []Rule{{Host: "a"}, {Host: "c"}}
		r.apply(other)
		r.until("back", func(v View) bool { return v.App.Rollout.Target == 1 })
		refuse("")
		v := r.until("is well", func(v View) bool { return v.App.Rollout.Done })
		think() // the balancer is told after the decision
		routes("back", "web", b)
		routes("back", "other", a, `host "c" with path "/"`, port)
		status := func(v View) {
			t.Helper()
			if want := `it goes without a route: apps "other" and "web" both want ` + a + "; and 1 more route"; v.Status != Up || v.Reason != "RouteLost" || v.Message != want {
				t.Errorf("%s %s: %s, want %s", v.Status, v.Reason, v.Message, want)
			}
		}
		status(v)
		const goes = `Revision 1 goes without a route: apps "other" and "web" both want `
		lost := []string{goes + port, goes + a}
		if told := messages(Trouble); !cmp.Equal(told[:2], lost) {
			t.Errorf("events are %q, want %q first", told, lost)
		}
		// Another engine keeps to it, and says nothing new.
		before := messages(Trouble)
		r.stop()
		r.run("h1")
		status(r.until("the same", ready(1)))
		think()
		routes("another engine", "web", b)
		if diff := cmp.Diff(before, messages(Trouble)); diff != "" {
			t.Error(diff)
		}
		// What the other gives up, this one has.
		other.Expose.Rules = []Rule{{Host: "c"}}
		r.apply(other)
		think()
		routes("one is free", "web", a, b)
		if _, err := r.Remove(t.Context(), "other", false); err != nil {
			t.Fatal(err)
		}
		v = r.until("all is well", func(v View) bool { return v.Reason == "" })
		think()
		routes("all are free", "web", a, b, port)
		if told, want := messages(Configured), []string{"Route is back: " + port, "Route is back: " + a}; !cmp.Equal(told[:2], want) || len(v.App.Lost) > 0 {
			t.Errorf("events are %q, want %q first; %+v", told, want, v.App.Lost)
		}
		if n := lb.refused.Load(); n > 0 {
			t.Errorf("the balancer refused %d times", n)
		}
	})
}

// TestRoutesOfTwoReverts: of two apps that come back at once to one route, one
// has it.
func TestRoutesOfTwoReverts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lb := &strictBalancer{}
		r := newRigWith(t, Config{Balancer: lb}, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		at := func(name, host string, deadline time.Time) Spec {
			s := named(name, webSpec(1))
			s.Expose.Rules = []Rule{{Host: host}}
			if !deadline.IsZero() {
				s.Rollout.Deadline = time.Until(deadline)
			}
			return s
		}
		sick := func(apps ...string) {
			h := r.hosts["h1"]
			h.set(func() {
				h.made = func(c *Container) {
					if slices.Contains(apps, c.App) {
						c.Health = "unhealthy"
					}
				}
			})
		}
		r.apply(at("web", "a", time.Time{}))
		r.until("web is well", func(v View) bool { return v.App.Rollout.Done })
		deadline := time.Now().Add(5 * time.Minute)
		sick("web")
		r.apply(at("web", "b", deadline))
		r.apply(at("other", "a", time.Time{}))
		time.Sleep(time.Minute)
		sick("web", "other")
		r.apply(at("other", "c", deadline))
		time.Sleep(time.Until(deadline.Add(2 * lookPace)))
		for _, name := range []string{"web", "other"} {
			if v, err := r.App(name); err != nil || v.App.Rollout.Target != 1 || v.App.Rollout.Since.Sub(deadline) > lookPace {
				t.Errorf("%s is not back: %+v, %v", name, v.App.Rollout, err)
			}
		}
		if web, other := lb.of("web"), lb.of("other"); len(web)+len(other) != 1 || lb.refused.Load() != 0 {
			t.Errorf("web has %q, other has %q, %d times the balancer refused", web, other, lb.refused.Load())
		}
	})
}

// TestRoutesOfStore: apps of a store that clash, or with a balancer that is
// configured otherwise by now, have what they can, the oldest first.
func TestRoutesOfStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{st: map[string]any{}}
		r := newRig(t, store, "h1") // its balancer lets all pass
		defer func() { r.stop() }()
		for _, name := range []string{"web", "another", "third"} {
			s := named(name, webSpec(1))
			s.Expose.Rules = []Rule{{Host: "a"}, {Host: name}}
			s.Ports = append(s.Ports, Port{Container: 81, Proto: "tcp", Listen: 7000})
			r.apply(s)
			time.Sleep(time.Second)
		}
		r.stop()
		lb := &strictBalancer{}
		r.cfg.Balancer = lb
		r.run("h1")
		v := r.until("web is well", func(v View) bool { return v.Status == Up })
		think()
		if v.Reason != "RouteLost" || v.Message != `it goes without a route: apps "the balancer" and "web" both want tcp port 7000` {
			t.Errorf("%s: %s", v.Reason, v.Message)
		}
		for app, want := range map[string][]string{
			"web": {`host "a" with path "/"`, `host "web" with path "/"`}, "another": {`host "another" with path "/"`}, "third": {`host "third" with path "/"`},
		} {
			if got := lb.of(app); !slices.Equal(got, want) {
				t.Errorf("%s has %q, want %q", app, got, want)
			}
		}
		if n := lb.refused.Load(); n > 0 {
			t.Errorf("the balancer refused %d times", n)
		}
	})
}

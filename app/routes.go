package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// LostRoute is a way to an app that it cannot have: another took it while this
// one did not want it, and then this one was brought back to where it does. One
// of Rule and Listen is set.
type LostRoute struct {
	Rule   Rule   `json:"rule,omitzero"`
	Proto  string `json:"proto,omitempty"` // of Listen: "tcp" or "udp"
	Listen uint16 `json:"listen,omitempty"`
	Why    string `json:"why,omitempty"` // a sentence of the balancer, which names whose it is
}

// String is `host "shop.example" with path "/"`, as the balancer calls it.
func (l LostRoute) String() string {
	if l.Listen != 0 {
		return fmt.Sprintf("%s port %d", l.Proto, l.Listen)
	}
	return fmt.Sprintf("host %q with path %q", cmp.Or(l.Rule.Host, "*"), cmp.Or(l.Rule.Path, "/"))
}

// same says that two are about one route.
func (l LostRoute) same(other LostRoute) bool {
	l.Why = other.Why
	return l == other
}

func (l LostRoute) event(a *App, now time.Time) Event {
	return Event{
		Time: now.UTC(), Type: Trouble, App: a.Name, Message: fmt.Sprintf("Revision %d goes without a route: %s", a.Rollout.Target, l.Why),
		Details: map[string]any{"revision": a.Rollout.Target, "route": l.String()},
	}
}

// Rules are the host names and paths that lead to the app: its own name unless
// it says others, none if it serves no HTTP.
func (s *Spec) Rules() []Rule {
	switch {
	case !slices.ContainsFunc(s.Ports, isHTTP):
		return nil
	case len(s.Expose.Rules) == 0:
		return []Rule{{Host: s.Name}, {Host: s.Name + ".localhost"}}
	}
	return s.Expose.Rules
}

func isHTTP(p Port) bool { return p.Proto == "http" || p.Proto == "h2c" }

// route is the way by the port of the balancer.
func (p *Port) route() LostRoute {
	if p.Proto == "udp" {
		return LostRoute{Proto: "udp", Listen: p.Listen}
	}
	return LostRoute{Proto: "tcp", Listen: p.Listen}
}

// routes are all ways to an app.
func (s *Spec) routes() (all []LostRoute) {
	for _, r := range s.Rules() {
		all = append(all, LostRoute{Rule: r})
	}
	for _, p := range s.Ports {
		if p.Listen != 0 {
			all = append(all, p.route())
		}
	}
	return all
}

// without is the spec of an app that these routes do not lead to.
func (s *Spec) without(lost []LostRoute) *Spec {
	if len(lost) == 0 {
		return s
	}
	gone := func(l LostRoute) bool { return slices.ContainsFunc(lost, l.same) }
	next := *s
	next.Expose.Rules = slices.DeleteFunc(slices.Clone(s.Rules()), func(r Rule) bool { return gone(LostRoute{Rule: r}) })
	next.Ports = slices.Clone(s.Ports)
	for i := range next.Ports {
		p := &next.Ports[i]
		if isHTTP(*p) && len(next.Expose.Rules) == 0 {
			p.Proto = "tcp" // else its name would lead to it
		}
		if gone(p.route()) {
			p.Listen = 0
		}
	}
	return &next
}

// checkRoutes says what is wrong with the routes of an app beside those that
// all others have by now. The caller holds edit.
func (e *Engine) checkRoutes(spec *Spec) error {
	e.balance()
	return e.cfg.Balancer.Check(spec.Name, spec)
}

// lost are the routes that an app cannot have beside those that the balancer
// knows of others: as few as can be.
func (e *Engine) lost(spec *Spec) []LostRoute {
	clash := func(lost []LostRoute) error {
		if err := e.cfg.Balancer.Check(spec.Name, spec.without(lost)); errors.Is(err, errs.Conflict) {
			return err
		}
		return nil
	}
	if clash(nil) == nil {
		return nil
	}
	lost := spec.routes()
	for i := 0; i < len(lost); {
		less := slices.Delete(slices.Clone(lost), i, i+1)
		err := clash(less)
		if err == nil {
			lost = less
			continue
		}
		lost[i].Why = err.Error()
		i++
	}
	return lost
}

// yield has an app that has come back to an earlier revision do without the
// routes that others have by now, and says so; and gives it those that have
// become free. True: its routes are others. The caller holds edit.
func (e *Engine) yield(s *Situation, steps *Steps) bool {
	a := s.App
	if steps.App != nil {
		a = steps.App
	}
	back := a.Rollout.Target != s.App.Rollout.Target
	if !back && len(a.Lost) == 0 {
		return false
	}
	e.balance()
	lost := e.lost(a.Spec())
	if slices.Equal(lost, a.Lost) {
		return back
	}
	for _, l := range lost {
		if back || !slices.Contains(a.Lost, l) {
			steps.Events = append(steps.Events, l.event(a, s.Now))
		}
	}
	for _, l := range a.Lost {
		if !back && !slices.ContainsFunc(lost, l.same) {
			steps.Events = append(steps.Events, Event{Time: s.Now.UTC(), Type: Configured, App: a.Name, Message: "Route is back: " + l.String()})
		}
	}
	next := *a
	next.Lost = lost
	steps.App = &next
	return true
}

// markLosers has the loop see whether lost routes have become free. The caller
// holds mu.
func (e *Engine) markLosers() {
	for name, rec := range e.apps {
		if len(rec.app.Lost) > 0 {
			e.mark(name)
		}
	}
}

// settleRoutes tells the balancer of all apps of a store. They may clash, with
// one another or with a balancer that is configured otherwise by now; then the
// oldest have their routes.
func (e *Engine) settleRoutes(ctx context.Context) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	e.mu.RLock()
	var all []*App
	for _, rec := range e.apps {
		if len(rec.app.Spec().Ports) > 0 {
			all = append(all, rec.app)
		}
	}
	e.mu.RUnlock()
	slices.SortFunc(all, func(a, b *App) int { // those that had to yield before come last
		return cmp.Or(cmp.Compare(min(len(a.Lost), 1), min(len(b.Lost), 1)), a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	var c Change
	for _, a := range all {
		lost, spec := a.Lost, a.Spec()
		if errors.Is(e.cfg.Balancer.Check(a.Name, spec.without(lost)), errs.Conflict) {
			next := *a
			next.Lost = e.lost(spec)
			lost = next.Lost
			c.Apps = append(c.Apps, next)
			for _, l := range lost {
				c.Events = append(c.Events, l.event(a, e.cfg.Now()))
			}
		}
		if err := e.cfg.Balancer.Update([]Route{{App: a.Name, Spec: spec.without(lost)}}); err != nil {
			e.cfg.Log.Error("routes are not as an app wants them", "app", a.Name, "error", err)
		}
	}
	if len(c.Apps) == 0 {
		return nil
	}
	return e.commit(ctx, c)
}

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Create takes a new app in; it does not start it. Exists: there is one of that
// name. Invalid: Problems.
func (e *Engine) Create(ctx context.Context, spec Spec, source json.RawMessage, origin string) (App, error) {
	if err := spec.Validate(); err != nil {
		return App{}, err
	}
	e.edit.Lock()
	defer e.edit.Unlock()
	if e.app(spec.Name) != nil {
		return App{}, errs.E(errs.Exists, "app %q exists already", spec.Name)
	}
	a, err := e.create(ctx, spec, source, origin)
	if err != nil {
		return App{}, err
	}
	return *a, nil
}

func (e *Engine) create(ctx context.Context, spec Spec, source json.RawMessage, origin string) (*App, error) {
	if err := e.checkRoutes(&spec); err != nil {
		return nil, err
	}
	now := e.cfg.Now().UTC()
	a := App{
		Name: spec.Name, Origin: origin, Created: now, Updated: now, Scaling: spec.Scaling, Replicas: max(spec.Scaling.Min, spec.Replicas),
		Revisions: []Revision{{N: 1, Spec: spec, Source: source, Created: now}},
		Rollout:   Progress{Target: 1, Since: now},
	}
	ev := Event{Time: now, Type: Configured, App: a.Name, Message: "App registered", Details: map[string]any{"revision": 1, "image": spec.Container.Flist, "origin": origin}}
	return &a, e.commit(ctx, Change{Apps: []App{a}, Events: []Event{ev}})
}

// Apply makes an app be what spec says: a new one, which it starts, or a new
// revision, to which replicas are brought. The same again changes nothing.
func (e *Engine) Apply(ctx context.Context, spec Spec, source json.RawMessage, origin string) (View, error) {
	if err := spec.Validate(); err != nil {
		return View{}, err
	}
	return e.change(ctx, spec.Name, func(a *App) (*App, []Event, error) {
		if a == nil {
			made, err := e.create(ctx, spec, source, origin)
			if err != nil {
				return nil, nil, err
			}
			return e.start(made, -1)
		}
		var events []Event
		was := a.Rollout.Target
		if err := e.revise(a, spec, source); err != nil {
			return nil, nil, err
		}
		if a.Rollout.Target != was {
			events = append(events, e.revised(a))
		}
		if !a.Started && spec.Kind != Job {
			next, started, err := e.start(a, -1)
			return next, append(events, started...), err
		}
		return a, events, nil
	})
}

// Update is Apply for an app that exists, and leaves it stopped if it is; NotFound.
func (e *Engine) Update(ctx context.Context, spec Spec, source json.RawMessage) (View, error) {
	if err := spec.Validate(); err != nil {
		return View{}, err
	}
	return e.change(ctx, spec.Name, func(a *App) (*App, []Event, error) {
		if a == nil {
			return nil, nil, noApp(spec.Name)
		}
		if err := e.revise(a, spec, source); err != nil {
			return nil, nil, err
		}
		return a, []Event{e.revised(a)}, nil
	})
}

func noApp(name string) error { return errs.E(errs.NotFound, "there is no app %q", name) }

// revise gives an app a new revision, if spec differs from its newest.
func (e *Engine) revise(a *App, spec Spec, source json.RawMessage) error {
	a.Removing = "" // somebody wants it after all
	newest := &a.Revisions[len(a.Revisions)-1]
	if current(a, &spec) {
		if len(source) > 0 {
			newest.Source = source
		}
		return nil
	}
	if old := a.Spec().Kind; old != spec.Kind {
		return errs.E(errs.Conflict, "app %q is a %s and cannot become a %s; remove it first", a.Name, old, spec.Kind)
	}
	if err := e.checkRoutes(&spec); err != nil {
		return err
	}
	now := e.cfg.Now().UTC()
	n := newest.N + 1
	was := newest.Spec
	previous := a.Rollout.Target
	if !a.Rollout.Done && a.Rollout.Previous > 0 && !good(a, previous) { // it never got there
		previous = a.Rollout.Previous
	}
	a.Revisions = append(a.Revisions, Revision{N: n, Spec: spec, Source: source, Created: now})
	if extra := len(a.Revisions) - maxRevisions; extra > 0 {
		a.Revisions = slices.DeleteFunc(a.Revisions, func(r Revision) bool {
			drop := extra > 0 && r.N != n && r.N != previous && !e.inUse(a.Name, r.N)
			if drop {
				extra--
			}
			return drop
		})
	}
	a.Rollout = Progress{Target: n, Previous: previous, Since: now, Canary: spec.Rollout.Canary > 0 && a.Started}
	a.Lost = nil
	// What was set since by other means stays, unless the spec says something new of it.
	if spec.Scaling != was.Scaling {
		a.Scaling = spec.Scaling
	}
	if spec.Replicas > 0 && spec.Replicas != was.Replicas {
		a.Replicas = spec.Replicas
	}
	a.Replicas = clamp(a.Replicas, a.Scaling)
	a.Updated = now
	return nil
}

// current says that an app is at a spec already, or on its way there.
func current(a *App, spec *Spec) bool {
	newest := &a.Revisions[len(a.Revisions)-1]
	return newest.N == a.Rollout.Target && newest.Failed == "" && equal(newest.Spec, *spec)
}

func good(a *App, n int) bool {
	r := a.Revision(n)
	return r != nil && r.Good
}

// inUse says whether replicas of a revision are left.
func (e *Engine) inUse(app string, revision int) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for id := range e.apps[app].reps {
		if e.replicas[id].Revision == revision {
			return true
		}
	}
	return false
}

func (e *Engine) revised(a *App) Event {
	return Event{
		Type: Configured, App: a.Name, Message: fmt.Sprintf("Revision %d of %s", a.Rollout.Target, a.Spec().Container.Flist),
		Details: map[string]any{"revision": a.Rollout.Target, "previous": a.Rollout.Previous},
	}
}

// equal says that two specs say the same.
func equal(a, b Spec) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// app is the app of that name as it is now, not to be changed, or nil.
func (e *Engine) app(name string) *App {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if rec := e.apps[name]; rec != nil {
		return rec.app
	}
	return nil
}

// change edits a copy of an app, or makes one; f may return nil to leave all as it is.
func (e *Engine) change(ctx context.Context, name string, f func(a *App) (*App, []Event, error)) (View, error) {
	e.edit.Lock()
	defer e.edit.Unlock()
	var a *App
	if old := e.app(name); old != nil {
		c := *old
		c.Revisions = slices.Clone(old.Revisions)
		a = &c
	}
	before := a
	var was []byte
	if a != nil {
		was, _ = json.Marshal(a)
	}
	a, events, err := f(a)
	if err != nil {
		return View{}, err
	}
	if a == nil {
		return e.App(name)
	}
	if before != nil {
		if is, err := json.Marshal(a); err == nil && bytes.Equal(was, is) {
			return e.App(name)
		}
	}
	for i := range events {
		events[i].Time = e.cfg.Now().UTC()
	}
	if err := e.commit(ctx, Change{Apps: []App{*a}, Events: events}); err != nil {
		return View{}, err
	}
	return e.App(name)
}

// edited is change of an app that must exist.
func (e *Engine) edited(ctx context.Context, name string, f func(a *App) ([]Event, error)) (View, error) {
	return e.change(ctx, name, func(a *App) (*App, []Event, error) {
		if a == nil {
			return nil, nil, noApp(name)
		}
		events, err := f(a)
		return a, events, err
	})
}

// Start has an app run, with so many replicas, or as many as before if that is
// negative. A job begins its next run. Conflict: ErrLimits; a job runs already.
func (e *Engine) Start(ctx context.Context, name string, replicas int) (View, error) {
	return e.change(ctx, name, func(a *App) (*App, []Event, error) {
		if a == nil {
			return nil, nil, noApp(name)
		}
		return e.start(a, replicas)
	})
}

func (e *Engine) start(a *App, replicas int) (*App, []Event, error) {
	spec := a.Spec()
	now := e.cfg.Now().UTC()
	a.Removing = "" // somebody wants it after all
	if spec.Kind == Job {
		if a.Started && !a.RunAt.IsZero() {
			if st := e.runOf(a); !st.Over {
				return nil, nil, errs.E(errs.Conflict, "run %d of job %q is not over", a.Run, a.Name)
			}
		}
		a.Run++
		a.RunAt, a.Tally, a.Started, a.Updated = now, Tally{}, true, now
		a.Rollout.Message = ""
		return a, []Event{{Type: Life, App: a.Name, Message: fmt.Sprintf("Run %d begins", a.Run), Details: map[string]any{"run": a.Run}}}, nil
	}
	if replicas >= 0 && spec.Kind == Service {
		if err := within(a, replicas); err != nil {
			return nil, nil, err
		}
		a.Replicas = replicas
	}
	if a.Started {
		return a, nil, nil
	}
	a.Started, a.Updated = true, now
	if !a.RunAt.IsZero() { // cron goes on with the next run
		if a.Tally.Over.IsZero() {
			a.Tally.Why = "the app was stopped"
		}
		a.Tally.Over = now
	}
	if a.Replicas == 0 && replicas < 0 {
		a.Replicas = clamp(1, a.Scaling)
	}
	if !a.Rollout.Done {
		a.Rollout.Since = now
	}
	return a, []Event{{Type: Life, App: a.Name, Message: "App started", Details: map[string]any{"replicas": a.Replicas}}}, nil
}

// Stop has an app's replicas stopped; force kills them at once. One that is
// stopped stays so.
func (e *Engine) Stop(ctx context.Context, name string, force bool) (View, error) {
	v, err := e.edited(ctx, name, func(a *App) ([]Event, error) {
		if !a.Started {
			return nil, nil
		}
		a.Started, a.Updated = false, e.cfg.Now().UTC()
		return []Event{{Type: Life, App: name, Message: "App stopped"}}, nil
	})
	if err != nil || !force {
		return v, err
	}
	return v, e.killAll(ctx, name, "the app is stopped by force")
}

// killAll has all replicas of an app killed.
func (e *Engine) killAll(ctx context.Context, name, why string) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	var put []Replica
	for _, r := range e.replicasOf(name) {
		if r.Kill {
			continue
		}
		if r.Stopped.IsZero() {
			r.Stopped, r.Why = e.cfg.Now().UTC(), why
		}
		r.Kill = true
		put = append(put, r)
	}
	if len(put) == 0 {
		return nil
	}
	return e.commit(ctx, Change{Replicas: put})
}

// replicasOf are copies of all records of an app.
func (e *Engine) replicasOf(name string) []Replica {
	e.mu.RLock()
	defer e.mu.RUnlock()
	rec := e.apps[name]
	if rec == nil {
		return nil
	}
	out := make([]Replica, 0, len(rec.reps))
	for id := range rec.reps {
		out = append(out, *e.replicas[id])
	}
	return out
}

func (e *Engine) runOf(a *App) RunState {
	return runState(a, a.Spec(), e.replicasOf(a.Name), e.cfg.Now())
}

// Await waits until an app is as wanted. Unavailable when ctx ends first, with
// what is missing; the View is of that moment.
func (e *Engine) Await(ctx context.Context, name string, done func(View) bool) (View, error) {
	for {
		e.mu.RLock()
		changed := e.changed
		e.mu.RUnlock()
		v, err := e.App(name)
		if err != nil {
			return v, err
		}
		if done(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v, errs.E(errs.Unavailable, "app %q has %d of %s ready in time: %s: %w", name, v.Ready, several(v.Desired, "replica"), v.Message, context.Cause(ctx))
		}
	}
}

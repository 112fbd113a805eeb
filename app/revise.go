package app

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Rollback brings replicas to an earlier revision; 0 means the last one that
// was good. Conflict: there is none. NotFound: it has been forgotten. may is asked
// whether it may be that spec; nil: any.
func (e *Engine) Rollback(ctx context.Context, name string, revision int, may func(*Spec) error) (View, error) {
	return e.edited(ctx, name, func(a *App) ([]Event, error) {
		if revision == 0 {
			for i := range a.Revisions {
				if r := a.Revisions[i]; r.Good && r.N != a.Rollout.Target {
					revision = r.N
				}
			}
			if revision == 0 {
				return nil, errs.E(errs.Conflict, "app %q has no other revision that was good", name)
			}
		}
		if a.Revision(revision) == nil {
			return nil, errs.E(errs.NotFound, "app %q has no revision %d; \"buoy app revisions %s\" lists those that are kept", name, revision, name)
		}
		if revision == a.Rollout.Target {
			return nil, nil
		}
		if may != nil {
			if err := may(&a.Revision(revision).Spec); err != nil {
				return nil, err
			}
		}
		if err := e.checkRoutes(&a.Revision(revision).Spec); err != nil {
			return nil, err
		}
		now := e.cfg.Now().UTC()
		from := a.Rollout.Target
		a.Rollout = Progress{Target: revision, Previous: from, Since: now}
		a.Lost = nil
		a.Revision(revision).Failed = ""
		a.Updated = now
		return []Event{{Type: Configured, App: name, Message: fmt.Sprintf("Back from revision %d to %d", from, revision), Details: map[string]any{"revision": revision, "previous": from}}}, nil
	})
}

// PauseRollout holds a rollout where it is.
func (e *Engine) PauseRollout(ctx context.Context, name string) (View, error) {
	return e.pauseRollout(ctx, name, true)
}

// ResumeRollout lets a rollout go on.
func (e *Engine) ResumeRollout(ctx context.Context, name string) (View, error) {
	return e.pauseRollout(ctx, name, false)
}

func (e *Engine) pauseRollout(ctx context.Context, name string, paused bool) (View, error) {
	return e.edited(ctx, name, func(a *App) ([]Event, error) {
		if a.Rollout.Done {
			return nil, errs.E(errs.Conflict, "nothing of app %q is being rolled out", name)
		}
		if a.Rollout.Paused == paused {
			return nil, nil
		}
		a.Rollout.Paused, a.Rollout.Since = paused, e.cfg.Now().UTC()
		verb := "resumed"
		if paused {
			verb = "paused"
		}
		return []Event{{Type: Configured, App: name, Message: fmt.Sprintf("Rollout of revision %d %s", a.Rollout.Target, verb)}}, nil
	})
}

// Promote has all replicas follow the canaries.
func (e *Engine) Promote(ctx context.Context, name string) (View, error) {
	return e.edited(ctx, name, func(a *App) ([]Event, error) {
		if !a.Rollout.Canary {
			return nil, errs.E(errs.Conflict, "app %q has no canaries to promote", name)
		}
		a.Rollout.Canary, a.Rollout.Paused, a.Rollout.Since = false, false, e.cfg.Now().UTC()
		return []Event{{Type: Configured, App: name, Message: fmt.Sprintf("Revision %d promoted", a.Rollout.Target)}}, nil
	})
}

// Explain says where the next replica of an app would go, and why not elsewhere.
func (e *Engine) Explain(name string) (Explanation, error) {
	e.edit.Lock()
	defer e.edit.Unlock()
	a := e.app(name)
	if a == nil {
		return Explanation{}, noApp(name)
	}
	e.refreshCluster()
	return Explanation{App: name, Hosts: e.cluster.Explain(a.Spec())}, nil
}

// Preview says what Apply would do.
func (e *Engine) Preview(spec Spec) (Diff, error) {
	if err := spec.Validate(); err != nil {
		return Diff{}, err
	}
	e.edit.Lock()
	defer e.edit.Unlock()
	if err := e.checkRoutes(&spec); err != nil {
		return Diff{}, err
	}
	a := e.app(spec.Name)
	if a == nil {
		d := Diff{Actions: []string{"register app " + spec.Name}}
		e.wouldLaunch(&d, &spec, max(spec.Scaling.Min, spec.Replicas, 1))
		return d, nil
	}
	newest := a.Revisions[len(a.Revisions)-1].Spec
	if newest.Kind != spec.Kind {
		return Diff{}, errs.E(errs.Conflict, "app %q is a %s and cannot become a %s; remove it first", a.Name, newest.Kind, spec.Kind)
	}
	d := Diff{Old: &newest}
	next := a.Revisions[len(a.Revisions)-1].N + 1
	if current(a, &spec) {
		if a.Started || spec.Kind == Job {
			return d, nil
		}
		next--
	}
	if !a.Started && spec.Kind != Job {
		d.Actions = append(d.Actions, fmt.Sprintf("start the app at revision %d", next))
		e.wouldLaunch(&d, &spec, clamp(max(a.Replicas, spec.Replicas, 1), spec.Scaling))
		return d, nil
	}
	n := clamp(max(a.Replicas, spec.Replicas), spec.Scaling)
	d.Actions = append(d.Actions, fmt.Sprintf("replace %s of revision %d by revision %d, at most %d more and %d fewer at a time",
		several(n, "replica"), a.Rollout.Target, next, spec.Rollout.MaxSurge, spec.Rollout.MaxUnavailable))
	e.wouldLaunch(&d, &spec, spec.Rollout.MaxSurge)
	return d, nil
}

// wouldLaunch adds where n replicas would go. The caller holds edit.
func (e *Engine) wouldLaunch(d *Diff, spec *Spec, n int) {
	if spec.Kind == Job || spec.Kind == Cron {
		n = spec.Job.Parallelism
	}
	e.refreshCluster()
	hosts, why := e.cluster.Place(spec, n, nil)
	count := map[string]int{}
	for _, h := range hosts {
		count[h]++
		e.cluster.Give(h, spec)
	}
	for _, h := range slices.Sorted(maps.Keys(count)) {
		d.Actions = append(d.Actions, fmt.Sprintf("launch %d on host %s", count[h], e.cluster.called(h)))
	}
	if missing := n - len(hosts); missing > 0 && spec.Kind != Daemon {
		d.Actions = append(d.Actions, fmt.Sprintf("leave %d unplaced: %s", missing, Reasons(why)))
	}
}

// Rebalance moves replicas to where they had better be, or says which it would
// move. They go one by one, each after the one in its place is well.
func (e *Engine) Rebalance(ctx context.Context, name string, preview bool) ([]Move, error) {
	e.edit.Lock()
	defer e.edit.Unlock()
	if name != "" && e.app(name) == nil {
		return nil, noApp(name)
	}
	e.refreshCluster()
	const most = 20 // moves at a time
	e.mu.RLock()
	specs, reps := map[string]*Spec{}, []Replica{}
	for n, rec := range e.apps {
		if (name == "" || n == name) && rec.app.Started && rec.app.Spec().Kind == Service && rec.app.Rollout.Done {
			specs[n] = rec.app.Spec()
			for id := range rec.reps {
				if r := e.replicas[id]; r.Living() && r.Move == "" {
					reps = append(reps, *r)
				}
			}
		}
	}
	e.mu.RUnlock()
	slices.SortFunc(reps, func(a, b Replica) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	moves := e.cluster.Rebalance(specs, reps, most)
	if preview || len(moves) == 0 {
		return moves, nil
	}
	var c Change
	for _, m := range moves {
		for i := range reps {
			if reps[i].ID == m.Replica {
				reps[i].Move = m.Reason
				c.Replicas = append(c.Replicas, reps[i])
				c.Events = append(c.Events, Event{Time: e.cfg.Now().UTC(), Type: Life, App: m.App, Host: m.From, Replica: m.Replica, Message: fmt.Sprintf("Replica %s is moved: %s", reps[i].Name(), m.Reason)})
			}
		}
	}
	return moves, e.commit(ctx, c)
}

// CheckHealth has the hosts check the replicas of an app now.
func (e *Engine) CheckHealth(ctx context.Context, name string) (View, error) {
	v, err := e.App(name)
	if err != nil {
		return v, err
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, r := range v.Replicas {
		if r.Phase != Running {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := e.cfg.CheckHealth(ctx, r); err != nil {
				e.cfg.Log.Debug("health check", "app", name, "launch", r.ID, "error", err)
			}
		})
	}
	wg.Wait()
	return e.App(name)
}

// Config are the settings in force.
func (e *Engine) Config() Settings {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.config
}

// SetConfig changes the settings.
func (e *Engine) SetConfig(ctx context.Context, s Settings) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	e.edit.Lock()
	defer e.edit.Unlock()
	ev := Event{Time: e.cfg.Now().UTC(), Type: Configured, Message: "Configuration updated"}
	if err := e.commit(ctx, Change{Settings: map[string][]byte{settingsKey: text}, Events: []Event{ev}}); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.loadConfig()
}

const settingsKey = "config"

// loadConfig reads the settings from what the store has. The caller holds mu.
func (e *Engine) loadConfig() error {
	text, ok := e.settings[settingsKey]
	if !ok {
		return nil
	}
	s := DefaultSettings()
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	e.config = s
	return nil
}

// Setting is something else that the store keeps, nil if it does not.
func (e *Engine) Setting(key string) []byte {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.settings[key]
}

// SetSetting keeps something, or drops it if value is nil.
func (e *Engine) SetSetting(ctx context.Context, key string, value []byte) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	return e.commit(ctx, Change{Settings: map[string][]byte{key: value}})
}

// volumesOf are the names of the volumes that an app has on its hosts for
// itself: manifests call them APP.NAME. Those that it shares are not its own.
func volumesOf(a *App) []string {
	names := map[string]struct{}{}
	for i := range a.Revisions {
		for _, m := range a.Revisions[i].Spec.Container.Mounts {
			if m.Type == "volume" && strings.HasPrefix(m.Source, a.Name+".") {
				names[m.Source] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

package app

import (
	"context"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Remove stops an app and forgets it, once nothing of it is left on any host. Its
// volumes go too unless keepData. If ctx ends first, Unavailable, the app goes
// all the same when it can, unless somebody starts or changes it before.
func (e *Engine) Remove(ctx context.Context, name string, keepData bool) (Removed, error) {
	if e.app(name) == nil {
		return Removed{}, noApp(name)
	}
	removed := Removed{Containers: len(e.replicasOf(name))}
	_, err := e.edited(ctx, name, func(a *App) ([]Event, error) {
		a.Started, a.Updated, a.Removing = false, e.cfg.Now().UTC(), WithVolumes
		if keepData {
			a.Removing = WithoutVolumes
		}
		return []Event{{Type: Life, App: name, Message: "App is being removed"}}, nil
	})
	if err != nil {
		return Removed{}, err
	}
	if err := e.killAll(ctx, name, "the app is removed"); err != nil {
		return Removed{}, err
	}
	v, err := e.Await(ctx, name, func(v View) bool { return v.App.Removing == "" || len(v.Replicas) == 0 })
	switch {
	case errs.KindOf(err) == errs.NotFound: // the loop was faster
		return removed, nil
	case err != nil:
		if stuck := e.unreachable(v); stuck != "" {
			return Removed{}, errs.E(errs.Unavailable, "app %q is stopped, and is removed when host %s reports again or is terminated: %w", name, e.called(stuck), err)
		}
		return Removed{}, err
	}
	removed.Volumes, err = e.bury(ctx, name)
	if errs.KindOf(err) == errs.NotFound {
		err = nil
	}
	return removed, err
}

// bury forgets an app that is to be removed and of which nothing is left, with
// its volumes. NotFound: that has been done. Conflict: it is wanted again.
func (e *Engine) bury(ctx context.Context, name string) (volumes int, err error) {
	e.burying.Lock() // else two would count the same volumes
	defer e.burying.Unlock()
	a := e.app(name)
	if a == nil {
		return 0, noApp(name)
	}
	left := ""
	if a.Removing == WithVolumes && len(e.replicasOf(name)) == 0 {
		volumes, left = e.dropVolumes(ctx, a)
	}
	e.edit.Lock()
	defer e.edit.Unlock()
	if a := e.app(name); a == nil || a.Removing == "" || len(e.replicasOf(name)) > 0 {
		return 0, errs.E(errs.Conflict, "app %q has been started again while it was removed", name)
	}
	ev := Event{Time: e.cfg.Now().UTC(), Type: Life, App: name, Message: "App removed" + left, Details: map[string]any{"volumes": volumes}}
	return volumes, e.commit(ctx, Change{DropApps: []string{name}, Events: []Event{ev}})
}

// removable are the apps that are to be removed and of which nothing is left.
func (e *Engine) removable() (names []string) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for name, rec := range e.apps {
		if rec.app.Removing != "" && len(rec.reps) == 0 {
			names = append(names, name)
		}
	}
	return names
}

// buryAll forgets what is to be removed and can be, for whom nobody waits any
// more. Volumes are asked for over the network, so the loop does not wait for it.
func (e *Engine) buryAll(ctx context.Context) {
	for _, name := range e.removable() {
		if _, err := e.bury(ctx, name); err != nil && ctx.Err() == nil && errs.KindOf(err) == errs.Unavailable {
			e.cfg.Log.Warn("app is not removed yet", "app", name, "error", err)
		}
	}
}

// dropVolumes removes the volumes of an app from the hosts that may have some,
// and says where it could not.
func (e *Engine) dropVolumes(ctx context.Context, a *App) (removed int, left string) {
	names := volumesOf(a)
	if len(names) == 0 {
		return 0, ""
	}
	for _, host := range a.VolumeHosts {
		n, err := e.cfg.DropVolumes(ctx, host, names)
		removed += n
		if err != nil {
			e.cfg.Log.Warn("volumes of a removed app stay on a host", "app", a.Name, "host", host, "error", err)
			left += ", and its volumes stay on host " + e.called(host)
		}
	}
	return removed, left
}

// called is how sentences name a host.
func (e *Engine) called(id string) string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if h := e.hosts[id]; h != nil {
		return h.Called()
	}
	return id
}

// unreachable is a host that keeps an app from going.
func (e *Engine) unreachable(v View) string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, r := range v.Replicas {
		if e.liveness[r.Host] != Alive {
			return r.Host
		}
	}
	return ""
}

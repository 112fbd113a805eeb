package app

import (
	"context"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Remove stops an app and forgets it, once nothing of it is left on any host or
// ctx ends. Its volumes go too unless keepData.
func (e *Engine) Remove(ctx context.Context, name string, keepData bool) (Removed, error) {
	a := e.app(name)
	if a == nil {
		return Removed{}, noApp(name)
	}
	removed := Removed{Containers: len(e.replicasOf(name))}
	if _, err := e.Stop(ctx, name, true); err != nil {
		return Removed{}, err
	}
	v, err := e.Await(ctx, name, func(v View) bool { return v.App.Started || len(v.Replicas) == 0 })
	if err != nil {
		if stuck := e.unreachable(v); stuck != "" {
			return Removed{}, errs.E(errs.Unavailable, "app %q is stopped, but cannot be removed before host %s reports again or is forgotten: %w", name, stuck, err)
		}
		return Removed{}, err
	}
	left := ""
	if !keepData && !v.App.Started {
		removed.Volumes, left = e.dropVolumes(ctx, &v.App)
	}
	e.edit.Lock()
	defer e.edit.Unlock()
	if a := e.app(name); a == nil || a.Started || len(e.replicasOf(name)) > 0 {
		return Removed{}, errs.E(errs.Conflict, "app %q has been started again while it was removed", name)
	}
	ev := Event{
		Time: e.cfg.Now().UTC(), Type: Life, App: name, Message: "App removed" + left,
		Details: map[string]any{"containers": removed.Containers, "volumes": removed.Volumes},
	}
	return removed, e.commit(ctx, Change{DropApps: []string{name}, Events: []Event{ev}})
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
			left += ", and its volumes stay on host " + host
		}
	}
	return removed, left
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

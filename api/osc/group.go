package osc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// dialect is the origin of the apps that are made here.
const dialect = "osc"

// undoTime is how long it may take to take back what was done.
const undoTime = 10 * time.Second

// serviceOf is the service that an app is a part of; one that nobody has
// registered here is a service by itself.
func serviceOf(a *app.App) (name string, registered bool) {
	name = a.Spec().Annotations[annotation]
	return cmp.Or(name, a.Name), name != ""
}

// services are the names of all.
func (d *Dialect) services() []string {
	names := []string{}
	for _, v := range d.engine.Apps() {
		name, _ := serviceOf(&v.App)
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// members are the apps of a service; NotFound. An app that happens to have the
// name of a service that was registered is not meant by it.
func (d *Dialect) members(service string) ([]app.View, error) {
	var parts, alone []app.View
	for _, v := range d.engine.Apps() {
		switch name, registered := serviceOf(&v.App); {
		case name != service:
		case registered:
			parts = append(parts, v)
		default:
			alone = append(alone, v)
		}
	}
	if len(parts) == 0 {
		parts = alone
	}
	if len(parts) == 0 {
		return nil, errs.E(errs.NotFound, "there is no service %q", service)
	}
	return parts, nil
}

// take makes a service be what a descriptor says: all of it, or nothing has
// changed. An empty name registers it under that of the descriptor.
func (d *Dialect) take(ctx context.Context, update string, raw []byte) error {
	if update != "" {
		if _, err := d.members(update); err != nil {
			return err
		}
	}
	service, all, err := parts(raw, update)
	if err != nil {
		return err
	}
	surplus, err := d.change(ctx, service, all, update != "")
	if err != nil {
		return err
	}
	return d.retire(ctx, surplus, true)
}

// change is the part of take that is all or nothing. It returns the apps that
// the service has no more.
func (d *Dialect) change(ctx context.Context, service string, all []part, update bool) (surplus []string, err error) {
	d.edit.Lock()
	defer d.edit.Unlock()
	members, err := d.members(service)
	if err != nil && (update || errs.KindOf(err) != errs.NotFound) {
		return nil, err
	}
	have := map[string]*app.App{}
	for i := range members {
		have[members[i].App.Name] = &members[i].App
	}
	if err := d.foresee(service, all, have, update); err != nil {
		return nil, err
	}
	started := slices.ContainsFunc(members, func(v app.View) bool { return v.App.Started })
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	for _, p := range all {
		if have[p.spec.Name] == nil {
			if err := d.add(ctx, p, started, &undo); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range all {
		if old := have[p.spec.Name]; old != nil {
			delete(have, p.spec.Name)
			if err := d.revise(ctx, p, old, &undo); err != nil {
				return nil, err
			}
		}
	}
	undo.Keep()
	for name := range have {
		surplus = append(surplus, name)
	}
	return surplus, nil
}

// foresee finds out what cannot be, before anything is done. Policies that
// somebody has given to apps meanwhile stay.
func (d *Dialect) foresee(service string, all []part, have map[string]*app.App, update bool) error {
	for name, a := range have {
		if _, registered := serviceOf(a); !registered && !update {
			return errs.E(errs.Exists, "app %q exists already and was not registered here; update it, or choose another name", name)
		}
	}
	for i := range all {
		p := &all[i]
		if old := have[p.spec.Name]; old != nil {
			p.spec.Scaling = old.Scaling
		} else if v, err := d.engine.App(p.spec.Name); err == nil {
			other, _ := serviceOf(&v.App)
			return errs.E(errs.Exists, "app %q exists already, of service %q and not of %q", v.App.Name, other, service)
		}
		if _, err := d.engine.Preview(p.spec); err != nil {
			if _, ok := errors.AsType[app.Problems](err); ok {
				return p.problems(err)
			}
			return err
		}
	}
	return nil
}

// add makes an app, and starts it if the service is.
func (d *Dialect) add(ctx context.Context, p part, start bool, undo *cleanup.Stack) error {
	if _, err := d.engine.Create(ctx, p.spec, p.source, dialect); err != nil {
		return err
	}
	undo.Push(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		_, err := d.engine.Remove(ctx, p.spec.Name, false)
		return err
	})
	if !start {
		return nil
	}
	_, err := d.engine.Start(ctx, p.spec.Name, -1)
	return err
}

// revise gives an app a new revision, if it is one.
func (d *Dialect) revise(ctx context.Context, p part, old *app.App, undo *cleanup.Stack) error {
	v, err := d.engine.Update(ctx, p.spec, p.source)
	if err != nil {
		return err
	}
	undo.Push(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return d.restore(ctx, old, v)
	})
	return nil
}

// restore brings an app back to what it was. A replica of the former revision
// that still runs is not replaced by that.
func (d *Dialect) restore(ctx context.Context, old *app.App, now app.View) (err error) {
	rev := old.Revision(old.Rollout.Target)
	switch {
	case rev == nil:
		return nil
	case now.App.Rollout.Target != rev.N:
		_, err = d.engine.Rollback(ctx, old.Name, rev.N, nil)
	default: // the same, with another descriptor
		_, err = d.engine.Update(ctx, rev.Spec, rev.Source)
	}
	switch {
	case err != nil || now.App.Replicas == old.Replicas:
	case old.Started: // it may be under way to the other number already, so Scale would refuse
		_, err = d.engine.Start(ctx, old.Name, old.Replicas)
	default:
		_, err = d.engine.Scale(ctx, old.Name, old.Replicas, "an update of its service was undone", true)
	}
	return err
}

// retire stops apps as they want to be stopped, and forgets them.
func (d *Dialect) retire(ctx context.Context, names []string, keepData bool) error {
	if err := d.end(ctx, names); err != nil {
		d.log.WarnContext(ctx, "apps are killed, since they do not end", "error", err)
	}
	var failed error
	for _, name := range names {
		wait, cancel := context.WithTimeout(ctx, d.patience)
		_, err := d.engine.Remove(wait, name, keepData)
		cancel()
		if err != nil && errs.KindOf(err) != errs.NotFound {
			failed = errors.Join(failed, fmt.Errorf("remove app %s: %w", name, err))
		}
	}
	return failed
}

// unregister removes a service and all that is its own.
func (d *Dialect) unregister(_ http.ResponseWriter, r *http.Request) error {
	names, err := d.names(r)
	if err != nil {
		return err
	}
	return d.retire(r.Context(), names, false)
}

// names are those of the apps of the service that a request is about.
func (d *Dialect) names(r *http.Request) (names []string, err error) {
	service, err := named(r)
	if err != nil {
		return nil, err
	}
	members, err := d.members(service)
	for i := range members {
		names = append(names, members[i].App.Name)
	}
	return names, err
}

// descriptor answers with what a service was registered with.
func (d *Dialect) descriptor(w http.ResponseWriter, r *http.Request) error {
	service, err := named(r)
	if err != nil {
		return err
	}
	members, err := d.members(service)
	if err != nil {
		return err
	}
	for i := range members {
		a := &members[i].App
		rev, from := a.Revision(a.Rollout.Target), origin{}
		if rev != nil && json.Unmarshal(rev.Source, &from) == nil && from.OCL != nil && from.Service == service {
			api.JSON(w, http.StatusOK, from.OCL)
			return nil
		}
	}
	return errs.E(errs.NotFound, "service %q has no descriptor: it was not registered here, or another API has changed it since", service)
}

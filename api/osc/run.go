package osc

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// start has all apps of a service run, or none that did not before, and answers
// when they do.
func (d *Dialect) start(_ http.ResponseWriter, r *http.Request) error {
	names, err := d.names(r)
	if err == nil {
		err = d.begin(r.Context(), names)
	}
	if err != nil {
		return err
	}
	return d.await(r.Context(), names, func(v app.View) bool {
		return v.Status == app.Up || v.Status == app.Completed || !v.App.Started || crowded(&v)
	}, running)
}

func (d *Dialect) begin(ctx context.Context, names []string) (err error) {
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	for _, name := range names {
		before, err := d.engine.App(name)
		if err != nil {
			return err
		}
		if _, err := d.engine.Start(ctx, name, -1); err != nil {
			return err
		}
		if !before.App.Started {
			undo.Push(func() error {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
				defer cancel()
				_, err := d.engine.Stop(ctx, name, false)
				return err
			})
		}
	}
	undo.Keep()
	return nil
}

// stop has nothing of a service run, and answers when nothing does.
func (d *Dialect) stop(_ http.ResponseWriter, r *http.Request) error {
	names, err := d.names(r)
	if err != nil {
		return err
	}
	return d.end(r.Context(), names)
}

func (d *Dialect) end(ctx context.Context, names []string) error {
	for _, name := range names {
		if _, err := d.engine.Stop(ctx, name, false); err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	return d.await(ctx, names, func(v app.View) bool { return v.App.Started || present(&v) == 0 }, ended)
}

// present counts the containers that are not known to be gone.
func present(v *app.View) (n int) {
	for i := range v.Replicas {
		switch r := &v.Replicas[i]; r.Phase {
		case app.Ended, app.Failed, app.Gone:
		case app.Ordered, app.Starting, app.Waiting, app.Running:
			if r.Away.IsZero() {
				n++
			}
		}
	}
	return n
}

// await waits until apps are as they should, for so long in all, and has
// verdict judge what they are then.
func (d *Dialect) await(ctx context.Context, names []string, done func(app.View) bool, verdict func(v *app.View, waited time.Duration) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	var failed error
	for _, name := range names {
		v, err := d.engine.Await(ctx, name, done)
		switch {
		case errs.KindOf(err) == errs.NotFound && err != nil: // it is gone, and nothing is the matter with it
		case err != nil && ctx.Err() == nil:
			return err
		default:
			failed = errors.Join(failed, verdict(&v, d.patience))
		}
	}
	return failed
}

// running judges an app that was started.
func running(v *app.View, waited time.Duration) error {
	switch {
	case !v.App.Started:
		return errs.E(errs.Conflict, "somebody else has stopped %q meanwhile", v.App.Name)
	case v.Missing > 0:
		return errs.E(errs.Unavailable, "%d of %d replicas of %q fit nowhere and wait for room: %s: %w", v.Missing, v.Desired, v.App.Name, app.Reasons(v.Unplaced), app.ErrUnplaced)
	case v.Status == app.Up || v.Status == app.Completed:
		return nil
	}
	return errs.E(errs.Unavailable, "%d of %d replicas of %q are ready after %s; they go on: %s", v.Ready, v.Desired, v.App.Name, waited, v.Message)
}

// ended judges an app that was stopped.
func ended(v *app.View, waited time.Duration) error {
	switch n := present(v); {
	case v.App.Started:
		return errs.E(errs.Conflict, "somebody else has started %q meanwhile", v.App.Name)
	case n > 0:
		return errs.E(errs.Unavailable, "%d replicas of %q are not gone after %s; they are told to stop", n, v.App.Name, waited)
	}
	return nil
}

// crowded says that all replicas are ready but those that fit nowhere.
func crowded(v *app.View) bool { return v.Missing > 0 && v.Ready == v.Desired-v.Missing }

// stateObject is how a service is doing, as one plugin of OSC Runtime says it.
type stateObject struct {
	State     string           `json:"state"` // "inactive", "starting", "active" or "error"
	Resources []resourceObject `json:"resources"`
}

// resourceObject is a container.
type resourceObject struct {
	ID         string             `json:"id"`
	Name       string             `json:"name"`
	Type       string             `json:"type"` // "container"
	State      string             `json:"state"`
	Properties resourceProperties `json:"properties"`
}

// resourceProperties are what else is known of it.
type resourceProperties struct {
	App     string `json:"app"`
	Image   string `json:"image"`
	Host    string `json:"host"`
	Address string `json:"address,omitempty"`
	Message string `json:"message,omitempty"`
}

// states are those of apps, in the words of resources.
var states = map[app.Status]string{
	app.Down: "inactive", app.Completed: "inactive", app.Pending: "starting", app.Up: "active", app.Degraded: "error", app.Failing: "error",
}

// state answers with a list, since the original had a plugin for each cloud.
func (d *Dialect) state(w http.ResponseWriter, r *http.Request) error {
	service, err := named(r)
	if err != nil {
		return err
	}
	members, err := d.members(service)
	if err != nil {
		return err
	}
	s := stateObject{Resources: []resourceObject{}}
	for i := range members {
		v := &members[i]
		s.State = worse(s.State, states[v.Status])
		for j := range v.Replicas {
			rep := &v.Replicas[j]
			if rep.Phase == app.Gone {
				continue
			}
			s.Resources = append(s.Resources, resourceObject{ID: rep.ID, Name: rep.Name(), Type: "container", State: stateOf(rep), Properties: resourceProperties{
				App: rep.App, Image: v.App.Spec().Container.Flist, Host: rep.Host, Address: rep.Address, Message: rep.Message,
			}})
		}
	}
	api.JSON(w, http.StatusOK, []stateObject{s})
	return nil
}

// worse is the one of two states that a service of both has.
func worse(a, b string) string {
	for _, state := range []string{"error", "starting", "active"} {
		if a == state || b == state {
			return state
		}
	}
	return b
}

// stateOf is how a container is doing.
func stateOf(r *app.Replica) string {
	switch {
	case r.Phase == app.Failed:
		return "error"
	case r.Ready():
		return "active"
	case r.Phase == app.Ordered || r.Phase == app.Starting || r.Phase == app.Running && r.Stopped.IsZero():
		return "starting"
	}
	return "inactive"
}

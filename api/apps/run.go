package apps

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	waitDefault = 300 * time.Second // as the document's examples
	waitMost    = time.Hour
	placeTime   = 2 * time.Second
	killTime    = 30 * time.Second // from killing containers to their being gone
)

// startBody is what a start may say.
type startBody struct {
	Replicas *int     `json:"replicas"`
	Wait     bool     `json:"wait"`
	Timeout  *float64 `json:"timeout"` // seconds
}

// started is the answer to a start.
type started struct {
	Message  string `json:"message"`
	AppName  string `json:"app_name"`
	Replicas int    `json:"replicas"`
	Status   string `json:"status"`
}

func (d *Dialect) startApp(w http.ResponseWriter, r *http.Request) error {
	b, err := api.DecodeOptional[startBody](w, r)
	if err != nil {
		return err
	}
	patience, err := patience(b.Timeout, waitDefault)
	if err != nil {
		return err
	}
	replicas := -1
	if b.Replicas != nil {
		if replicas = *b.Replicas; replicas < 1 {
			return invalidf("field \"replicas\" is %d; an application is started with at least 1", replicas)
		}
	}
	name := api.Param(r, "app")
	if _, err := d.engine.Start(r.Context(), name, replicas); err != nil {
		return d.whyNot(name, err)
	}
	v, err := d.placed(r.Context(), name)
	if b.Wait && err == nil {
		v, err = d.await(r.Context(), patience, name, func(v app.View) bool {
			return v.Status == app.Up || v.Status == app.Completed || !v.App.Started
		})
	}
	if err == nil {
		err = crowded(v)
	}
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, started{
		Message: "Application started successfully", AppName: name, Replicas: v.Desired, Status: string(v.Status),
	})
	return nil
}

// patience reads how long a request waits.
func patience(timeout *float64, otherwise time.Duration) (time.Duration, error) {
	if timeout == nil {
		return otherwise, nil
	}
	return timeIn("timeout", *timeout, time.Second, waitMost)
}

// await waits until an app is as wanted, or all is that can be. Its errors say
// what stands in the way.
func (d *Dialect) await(ctx context.Context, patience time.Duration, name string, done func(app.View) bool) (app.View, error) {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := d.engine.Await(wait, name, func(v app.View) bool {
		return done(v) || full(v) && v.Ready >= v.Desired-v.Missing
	})
	switch {
	case err == nil || ctx.Err() != nil || !errors.Is(wait.Err(), context.DeadlineExceeded):
		return v, err
	case full(v):
		return v, crowded(v)
	}
	if why := failures(v); why != "" {
		return v, as(dockerError, errs.E(errs.Unavailable, "%s", why))
	}
	return v, as(timeout, errs.E(errs.Unavailable, "ready after %v: %d of %d replicas; they go on", patience, v.Ready, v.Desired))
}

// placed waits until it has been decided where replicas run, which takes but a
// moment.
func (d *Dialect) placed(ctx context.Context, name string) (app.View, error) {
	wait, cancel := context.WithTimeout(ctx, placeTime)
	defer cancel()
	v, err := d.engine.Await(wait, name, func(v app.View) bool {
		return !v.App.Started || full(v) || living(v) >= v.Desired
	})
	if wait.Err() != nil && ctx.Err() == nil {
		return d.engine.App(name) // a busy controller; what the app is like will say so
	}
	return v, err
}

// living is how many replicas count as ones of the app and do not just stand by.
func living(v app.View) (n int) {
	for i := range v.Replicas {
		if r := &v.Replicas[i]; r.Living() && !r.Standby {
			n++
		}
	}
	return n
}

// full says that no host takes what is missing. What is left from before the
// number of replicas was changed does not count.
func full(v app.View) bool { return v.Missing > 0 && living(v)+v.Missing == v.Desired }

// crowded is the error of replicas that no host takes.
func crowded(v app.View) error {
	if !full(v) {
		return nil
	}
	err := errs.E(errs.Unavailable, "no host has room yet for %d of %d replicas of %q: %s", v.Missing, v.Desired, v.App.Name, app.Reasons(v.Unplaced))
	return &failure{code: noRoom, err: err, hosts: v.Unplaced}
}

// whyNot adds the hosts' reasons to an error that says that there is no room.
func (d *Dialect) whyNot(name string, err error) error {
	if !errors.Is(err, app.ErrUnplaced) {
		return err
	}
	v, unknown := d.engine.App(name)
	if unknown != nil {
		return err
	}
	return &failure{code: noRoom, err: err, hosts: v.Unplaced}
}

// failures says which replicas do not run, and why; between two tries, why the
// last one has failed.
func failures(v app.View) string {
	var why []string
	for i := range v.Replicas {
		r := &v.Replicas[i]
		if r.Ready() || r.Message == "" && r.Seen.CheckErr == "" {
			continue
		}
		why = append(why, fmt.Sprintf("%s: %s", r.Name(), orElse(r.Message, r.Seen.CheckErr)))
	}
	if len(why) == 0 && v.Reason == "Failed" {
		return v.Message
	}
	return strings.Join(why, "; ")
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// stopBody is what a stop may say. After Timeout what still runs is killed.
type stopBody struct {
	Force   bool     `json:"force"`
	Timeout *float64 `json:"timeout"` // seconds; as the app wants it, if absent
}

// stopped is the answer to a stop.
type stopped struct {
	Message string `json:"message"`
	AppName string `json:"app_name"`
	Status  string `json:"status"`
}

func (d *Dialect) stopApp(w http.ResponseWriter, r *http.Request) error {
	b, err := api.DecodeOptional[stopBody](w, r)
	if err != nil {
		return err
	}
	name := api.Param(r, "app")
	v, err := d.engine.App(name)
	if err != nil {
		return err
	}
	grace, err := patience(b.Timeout, ownGrace(v))
	if err != nil {
		return err
	}
	if err := d.stop(r.Context(), name, b.Force, grace); err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, stopped{Message: "Application stopped successfully", AppName: name, Status: string(app.Down)})
	return nil
}

// ownGrace is how long an app's replicas may take to end.
func ownGrace(v app.View) time.Duration {
	s := v.App.Spec()
	stop := time.Duration(s.Container.StopGrace) * time.Second
	if stop == 0 {
		stop = 10 * time.Second // as docs/containers.md
	}
	return min(s.Drain+stop+killTime, waitMost)
}

// stop stops an app, and kills what runs after the grace. It returns when no
// replica is left.
func (d *Dialect) stop(ctx context.Context, name string, force bool, grace time.Duration) error {
	if _, err := d.engine.Stop(ctx, name, force); err != nil {
		return err
	}
	if !force {
		wait, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		_, err := d.engine.Await(wait, name, ended)
		if err == nil || ctx.Err() != nil || wait.Err() == nil {
			return err
		}
		if _, err := d.engine.Stop(ctx, name, true); err != nil {
			return err
		}
	}
	wait, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	v, err := d.engine.Await(wait, name, ended)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return as(timeout, errs.E(errs.Unavailable, "%s", d.still(v)))
	}
	return err
}

// ended says that nothing of a stopped app runs any more; somebody may have
// started it again.
func ended(v app.View) bool { return v.App.Started || len(present(v)) == 0 }

// present are the replicas whose containers are not known to be gone.
func present(v app.View) (list []*app.Replica) {
	for i := range v.Replicas {
		switch r := &v.Replicas[i]; r.Phase {
		case app.Ended, app.Failed, app.Gone:
		case app.Ordered, app.Starting, app.Waiting, app.Running:
			if r.Away.IsZero() {
				list = append(list, r)
			}
		}
	}
	return list
}

func (d *Dialect) still(v app.View) string {
	hosts := map[string]string{}
	for _, h := range d.engine.Hosts() {
		hosts[h.ID] = h.Called()
	}
	var left []string
	for _, r := range present(v) {
		left = append(left, fmt.Sprintf("%s on host %s", r.Name(), orElse(hosts[r.Host], r.Host)))
	}
	return "the app is to stop, but its hosts have not said that these have: " + strings.Join(left, ", ")
}

// scaleBody says how many replicas there are to be.
type scaleBody struct {
	Replicas *int     `json:"replicas"`
	Wait     bool     `json:"wait"`
	Timeout  *float64 `json:"timeout"` // seconds
}

// scaled is the answer to scaling.
type scaled struct {
	Message          string  `json:"message"`
	AppName          string  `json:"app_name"`
	PreviousReplicas int     `json:"previous_replicas"`
	CurrentReplicas  int     `json:"current_replicas"`
	ScalingTime      float64 `json:"scaling_time"` // seconds that were waited

	DesiredReplicas int `json:"desired_replicas"` // ours
}

func (d *Dialect) scaleApp(w http.ResponseWriter, r *http.Request) error {
	begin := time.Now()
	b, err := api.Decode[scaleBody](w, r)
	if err != nil {
		return err
	}
	if b.Replicas == nil || *b.Replicas < 0 {
		return invalidf("field \"replicas\" must be a number of replicas, 0 or more")
	}
	patience, err := patience(b.Timeout, waitDefault)
	if err != nil {
		return err
	}
	name, want := api.Param(r, "app"), *b.Replicas
	from, err := d.engine.Scale(r.Context(), name, want, "requested through the API", true)
	if err != nil {
		return d.whyNot(name, err)
	}
	v, err := d.placed(r.Context(), name)
	if b.Wait && err == nil {
		v, err = d.await(r.Context(), patience, name, func(v app.View) bool {
			// Somebody else may decide otherwise meanwhile.
			return !v.App.Started || v.App.Replicas != want || v.Desired == want && v.Ready == want && v.Current == want
		})
	}
	if err == nil {
		err = crowded(v)
	}
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, scaled{
		Message: "Application scaled successfully", AppName: name, PreviousReplicas: from, CurrentReplicas: v.Current,
		ScalingTime: round(time.Since(begin).Seconds()), DesiredReplicas: v.App.Replicas,
	})
	return nil
}

// removed is the answer to removing.
type removed struct {
	Message           string `json:"message"`
	AppName           string `json:"app_name"`
	ContainersRemoved int    `json:"containers_removed"`
	VolumesRemoved    int    `json:"volumes_removed"`
}

// removeApp stops an app as it wants to be stopped, or kills it, and removes
// it. Nobody is asked whether they are sure, with force or without.
func (d *Dialect) removeApp(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	force, err := flag(q, "force")
	if err != nil {
		return err
	}
	keep, err := flag(q, "keep_data")
	if err != nil {
		return err
	}
	gone, err := d.remove(r.Context(), api.Param(r, "app"), force, keep)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, gone)
	return nil
}

func (d *Dialect) remove(ctx context.Context, name string, force, keep bool) (removed, error) {
	v, err := d.engine.App(name)
	if err != nil {
		return removed{}, err
	}
	if !force {
		if err := d.stop(ctx, name, false, ownGrace(v)); err != nil {
			return removed{}, err
		}
	}
	wait, cancel := context.WithTimeout(ctx, 2*killTime)
	defer cancel()
	gone, err := d.engine.Remove(wait, name, keep)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		err = as(timeout, err)
	}
	return removed{
		Message: "Application removed successfully", AppName: name,
		ContainersRemoved: max(len(present(v)), gone.Containers), VolumesRemoved: gone.Volumes,
	}, err
}

package services

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// scaleBody may have further fields: Genisys knows some that mean nothing here.
type scaleBody struct {
	Number json.RawMessage `json:"number"`
}

// statusObject is the answer to status.
type statusObject struct {
	Running int `json:"running_resources"`
}

// status counts the containers that are the service's own, whatever else runs
// its image.
func (d *Dialect) status(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "name"))
	if err != nil {
		return err
	}
	n, _ := running(&v)
	api.JSON(w, http.StatusOK, statusObject{n})
	return nil
}

// running counts the containers that run, and those of them that are to stay.
// What a lost host had when it was given up does not count.
func running(v *app.View) (all, staying int) {
	for i := range v.Replicas {
		r := &v.Replicas[i]
		if r.Phase != app.Running || r.Standby || !r.Away.IsZero() {
			continue
		}
		all++
		if r.Stopped.IsZero() {
			staying++
		}
	}
	return all, staying
}

// scale has so many containers of a service run, and answers when they do.
func (d *Dialect) scale(w http.ResponseWriter, r *http.Request) error {
	if err := isJSON(r); err != nil {
		return err
	}
	raw, err := api.ReadBody(w, r, api.MaxBody)
	if err != nil {
		return err
	}
	var b scaleBody
	if err := api.Loose(raw, &b); err != nil {
		return err
	}
	n, err := whole(b.Number)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.patience)
	defer cancel()
	return d.scaleTo(ctx, api.Param(r, "name"), max(n, 0))
}

// whole makes a number of containers of what Python's int() takes: a number,
// whose fraction is cut off, or the digits of a whole one.
func whole(raw json.RawMessage) (int, error) {
	const many = 1e9 // more than any service may have
	var digits string
	if json.Unmarshal(raw, &digits) == nil && string(raw) != "null" {
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err == nil || errors.Is(err, strconv.ErrRange) {
			return int(min(max(n, -many), many)), nil
		}
	}
	if f, err := strconv.ParseFloat(string(raw), 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return int(math.Min(math.Max(f, -many), many)), nil
	}
	switch {
	case len(raw) == 0:
		return 0, errs.E(errs.Invalid, "field \"number\" is missing: it says how many containers are to run")
	case len(raw) > 40:
		raw = append(raw[:40:40], "…"...)
	}
	return 0, errs.E(errs.Invalid, "field \"number\" is %s; it must be a number of containers", raw)
}

func (d *Dialect) scaleTo(ctx context.Context, name string, n int) error {
	v, err := d.engine.App(name)
	switch {
	case err != nil:
		return err
	case v.App.Spec().Kind != app.Service:
		return errs.E(errs.Conflict, "%q is a %s, whose number of containers is not chosen", name, v.App.Spec().Kind)
	case n == 0:
		_, err = d.engine.Stop(ctx, name, false)
	default:
		err = d.order(ctx, name, n)
	}
	if err != nil {
		return err
	}
	return d.await(ctx, name, n)
}

// pace is between two attempts to scale what is being scaled: that takes
// seconds, and there is no telling from outside when it will be over.
const pace = 100 * time.Millisecond

// order tells the engine how many containers there are to be. If it is still
// busy with another number, so does the client wait: it knows 200 alone.
func (d *Dialect) order(ctx context.Context, name string, n int) error {
	for {
		v, err := d.engine.App(name)
		switch {
		case err != nil:
		case v.App.Started:
			_, err = d.engine.Scale(ctx, name, n, "requested by Genisys", true)
		default:
			_, err = d.engine.Start(ctx, name, n)
		}
		if !errors.Is(err, app.ErrScaling) {
			return err
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return errs.E(errs.Unavailable, "%w; it still is after %s", err, d.patience)
		}
	}
}

// await waits until n containers run, or all that hosts have room for.
func (d *Dialect) await(ctx context.Context, name string, n int) error {
	v, err := d.engine.Await(ctx, name, func(v app.View) bool { return as(&v, n) || other(&v, n) || crowded(&v) })
	all, staying := running(&v)
	switch {
	case err != nil && ctx.Err() == nil:
		return err
	case err == nil && as(&v, n):
		return nil
	case err == nil && other(&v, n):
		return errs.E(errs.Conflict, "somebody else has stopped, started or scaled %q meanwhile", name)
	case v.Missing > 0:
		return errs.E(errs.Unavailable, "%d of %d containers of %q run, the others fit nowhere and wait for room: %s: %w",
			staying, n, name, app.Reasons(v.Unplaced), app.ErrUnplaced)
	case n == 0:
		return errs.E(errs.Unavailable, "%d containers of %q still run after %s; they are told to stop", all, name, d.patience)
	}
	return errs.E(errs.Unavailable, "%d of %d containers of %q run after %s: %s", staying, n, name, d.patience, cmp.Or(v.Message, "some are leaving"))
}

// as says that n containers run, and none that is to go.
func as(v *app.View, n int) bool {
	all, staying := running(v)
	return all == n && staying == n && v.App.Started == (n > 0)
}

// other says that n is not what is wanted any more.
func other(v *app.View, n int) bool {
	return v.App.Started != (n > 0) || v.App.Started && v.App.Replicas != n
}

// crowded says that all containers run but those that no host has room for.
func crowded(v *app.View) bool {
	_, staying := running(v)
	return v.Missing > 0 && staying == v.Desired-v.Missing
}

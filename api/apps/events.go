package apps

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	eventsDefault = 100
	eventsMost    = 1000
)

// eventObject is something that happened.
type eventObject struct {
	ID        int64          `json:"id"`
	Type      string         `json:"type"`
	Message   string         `json:"message"`
	Timestamp string         `json:"timestamp"`
	Details   map[string]any `json:"details"`

	AppName string `json:"app_name"`          // in the document only where events of all are streamed
	Host    string `json:"host,omitempty"`    // ours
	Replica string `json:"replica,omitempty"` // ours
}

func eventOf(e app.Event) eventObject {
	details := e.Details
	if details == nil {
		details = map[string]any{}
	}
	return eventObject{
		ID: e.ID, Type: string(e.Type), Message: e.Message, Timestamp: fine(e.Time), Details: details,
		AppName: e.App, Host: e.Host, Replica: e.Replica,
	}
}

// eventList is what happened to an app.
type eventList struct {
	AppName string        `json:"app_name"`
	Events  []eventObject `json:"events"`
	Total   int           `json:"total"`
	HasMore bool          `json:"has_more"`
}

// typeIn reads a filter.
func typeIn(q url.Values) (app.EventType, error) {
	switch t := app.EventType(q.Get("type")); t {
	case "", app.Rescale, app.HealthOf, app.Configured, app.Trouble, app.Life, app.OfHost:
		return t, nil
	default:
		return "", invalidf("parameter type is %q; it must be scaling, health, config, error, lifecycle or host", string(t))
	}
}

// listEvents answers with the newest events of an app, newest first.
func (d *Dialect) listEvents(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	query := app.EventQuery{App: api.Param(r, "app")}
	var err error
	if query.Type, err = typeIn(q); err != nil {
		return err
	}
	if query.Since, err = since(q, time.Now()); err != nil {
		return err
	}
	if query.Limit, err = count(q, "limit", eventsDefault, eventsMost); err != nil {
		return err
	}
	if query.Limit == 0 {
		return invalidf("parameter limit is 0; it must be a number from 1 to %d", eventsMost)
	}
	if _, err := d.engine.App(query.App); err != nil {
		return err
	}
	events, total, err := d.engine.Events(r.Context(), query)
	if err != nil {
		return as(databaseError, err)
	}
	api.JSON(w, http.StatusOK, eventList{query.App, each(events, eventOf), total, total > len(events)})
	return nil
}

// streamEvents sends what happens to all apps and hosts; app and type (ours) filter.
func (d *Dialect) streamEvents(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	kind, err := typeIn(q)
	if err != nil {
		return err
	}
	name := q.Get("app")
	events, stop := d.engine.Subscribe() // before the client learns that it listens
	defer stop()
	return d.stream(w, r, func(ctx context.Context, send func(any) error) error {
		for {
			select {
			case e, open := <-events:
				if !open {
					return errs.E(errs.Conflict, "events have been lost because they were read too slowly; connect again")
				}
				if kind != "" && e.Type != kind || name != "" && e.App != name {
					continue
				}
				if err := send(eventOf(*e)); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

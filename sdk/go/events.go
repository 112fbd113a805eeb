package buoy

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Event is something that happened to an app or a host.
type Event struct {
	ID        int64          `json:"id"` // counts up, over all apps and hosts
	Type      string         `json:"type"`
	Message   string         `json:"message"`
	Timestamp time.Time      `json:"timestamp"`
	App       string         `json:"app_name"`
	Host      string         `json:"host"`
	Replica   string         `json:"replica"` // launch id
	Details   map[string]any `json:"details"`
}

// EventQuery selects events; zero fields select all.
type EventQuery struct {
	Type  string // "scaling", "health", "config", "error", "lifecycle" or "host"
	Since time.Time
	Limit int // the newest so many; 0: 100
}

// AppEvents are those of an app that q selects, the newest first.
func (c *Client) AppEvents(ctx context.Context, name string, q EventQuery) ([]Event, error) {
	v := url.Values{}
	if q.Type != "" {
		v.Set("type", q.Type)
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	var answer struct {
		Events []Event `json:"events"`
	}
	return answer.Events, c.Do(ctx, http.MethodGet, appPath(name, "events")+asQuery(v), nil, &answer)
}

// FollowEvents yields what happens from now on to all apps and hosts, or to one
// app, of one type if q has one. It ends with ctx, or with an error.
func (c *Client) FollowEvents(ctx context.Context, app string, q EventQuery) iter.Seq2[Event, error] {
	v := url.Values{}
	for name, value := range map[string]string{"app": app, "type": q.Type} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return stream[Event](ctx, c, "/api/v1/events/stream"+asQuery(v))
}

// FollowAppEvents yields the events of an app that q selects, the oldest first,
// and then what happens to it. It ends with ctx, or with an error.
func (c *Client) FollowAppEvents(ctx context.Context, name string, q EventQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		v := url.Values{"app": {name}}
		if q.Type != "" {
			v.Set("type", q.Type)
		}
		s, err := c.dial(ctx, request{path: "/api/v1/events/stream" + asQuery(v)}, "") // before one looks, so that none is missed
		if err != nil {
			yield(Event{}, err)
			return
		}
		past, err := c.AppEvents(ctx, name, q)
		if err != nil {
			_ = s.Close()
			yield(Event{}, err)
			return
		}
		seen := int64(0)
		for _, e := range slices.Backward(past) {
			if seen = max(seen, e.ID); !yield(e, nil) {
				_ = s.Close()
				return
			}
		}
		for e, err := range messages[Event](ctx, s) {
			if err == nil && e.ID <= seen {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

package buoy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// NodeEvent is something that happened on a node, a CloudEvent. Of a controller
// there is what happened to its apps and hosts as well.
type NodeEvent struct {
	ID          string        `json:"id"` // to go on from
	SpecVersion string        `json:"specversion"`
	Source      string        `json:"source"`
	Type        string        `json:"type"`              // "container.started"; "gap": events are missing here
	Subject     string        `json:"subject,omitempty"` // path below Source: "containers/web"
	Time        time.Time     `json:"time"`
	Data        NodeEventData `json:"data"`
}

// NodeEventData is what an event says besides.
type NodeEventData struct {
	Actor      Actor             `json:"actor"`
	Container  string            `json:"container,omitempty"`
	Image      string            `json:"image,omitempty"`
	Reason     string            `json:"reason,omitempty"`  // a word
	Message    string            `json:"message,omitempty"` // a sentence
	ExitCode   *int              `json:"exitCode,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Actor is who did something.
type Actor struct {
	Kind    string `json:"kind"` // "api", "controller" or "node"
	Name    string `json:"name,omitempty"`
	Request string `json:"request,omitempty"` // id of the API request
	Peer    string `json:"peer,omitempty"`    // where that came from
}

// NodeEventQuery selects events; zero fields select all.
type NodeEventQuery struct {
	Types      []string // types, or kinds: "container"
	Containers []string
	Images     []string
	Since      time.Time
	Until      time.Time
	After      string // id of an event
	Limit      int    // of the past, the newest so many; with After the oldest
	Follow     bool   // go on with what happens; of the past only what Since, After or Limit ask for
}

func (q NodeEventQuery) values() url.Values {
	v := url.Values{}
	for key, list := range map[string][]string{"type": q.Types, "container": q.Containers, "image": q.Images} {
		for _, one := range list {
			v.Add(key, one)
		}
	}
	for key, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(key, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.After != "" {
		v.Set("after", q.After)
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	return v
}

// NodeEvents yields what q selects, the oldest first. Those are events of the
// client's node if it names one, else all that the daemon has. A stream that is
// followed ends with ctx, at Until, or with an error; ErrUnexpectedEOF is that
// the daemon has gone: go on After the last event.
func (c *Client) NodeEvents(ctx context.Context, q NodeEventQuery) iter.Seq2[NodeEvent, error] {
	return func(yield func(NodeEvent, error) bool) {
		path := "/events"
		if c.node != "" && c.node != "self" {
			path = "/nodes/{node}/events"
		}
		resp, err := c.send(ctx, request{method: http.MethodGet, path: path, query: q.values(), header: http.Header{"Accept": {"application/x-ndjson"}}})
		if err != nil {
			yield(NodeEvent{}, err)
			return
		}
		defer resp.Body.Close()
		for lines := json.NewDecoder(resp.Body); ; {
			var e NodeEvent
			err := lines.Decode(&e)
			over := !q.Follow || !q.Until.IsZero() && !time.Now().Before(q.Until)
			switch {
			case errors.Is(err, io.EOF) && over:
				return
			case errors.Is(err, io.EOF) && ctx.Err() == nil:
				err = io.ErrUnexpectedEOF
			case ctx.Err() != nil:
				err = ctx.Err()
			case err != nil:
				err = c.transportError(err)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

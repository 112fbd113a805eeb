package events

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/node/events"
)

const (
	// patience is how long a client may leave events unread that are on their way.
	// It is cut off then, and can go on from the last one that it has.
	patience = 30 * time.Second
	// aliveEvery is how often a browser's stream says that it is alive, so that
	// those in between do not close it.
	aliveEvery = time.Minute
)

// followers counts who follows.
type followers struct{ now, cut atomic.Int64 }

// stream answers with events: lines of JSON, or server-sent events.
func (d *Dialect) stream(node bool) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		q, err := queryIn(r, time.Now())
		if err != nil {
			return err
		}
		q.filter.Node = node
		s := &stream{w: w, rc: http.NewResponseController(w), patience: d.patience, sse: strings.Contains(r.Header.Get("Accept"), "text/event-stream")}
		s.begin()
		if r.Method == http.MethodHead {
			return nil
		}
		ctx, cancel := api.StreamContext(r)
		defer cancel()
		reader, err := d.past(ctx, s, &q)
		if err == nil && q.follow {
			d.readers.now.Add(1)
			defer d.readers.now.Add(-1)
			err = d.follow(ctx, s, &q, reader)
		}
		if err == nil {
			err = s.end()
		}
		if err != nil { // it has begun, so it can only be cut
			if errors.Is(err, os.ErrDeadlineExceeded) {
				d.readers.cut.Add(1)
			}
			panic(http.ErrAbortHandler)
		}
		return nil
	}
}

// past sends what is there, as far as it is asked for; the reader goes on behind it.
func (d *Dialect) past(ctx context.Context, s *stream, q *query) (*events.Reader, error) {
	log := d.cfg.Log
	log.Flush() // what was done before the request is there
	begin := func() *events.Reader { return log.After(events.ID{}) }
	switch {
	case q.after != nil:
		begin = func() *events.Reader { return log.After(*q.after) }
	case !q.filter.Since.IsZero():
		begin = func() *events.Reader { return log.Since(q.filter.Since) }
	case q.follow && q.limit == 0:
		return log.After(log.End()), nil
	}
	skip, most := 0, q.limit
	if q.limit > 0 && q.after == nil { // the newest: count them first
		n, err := each(ctx, begin(), &q.filter, func([]events.Record) error { return nil })
		if err != nil {
			return nil, err
		}
		skip, most = max(n-q.limit, 0), 0
	}
	r := begin()
	_, err := each(ctx, r, &q.filter, func(records []events.Record) error {
		drop := min(skip, len(records))
		records, skip = records[drop:], skip-drop
		if most > 0 && len(records) >= most {
			return errors.Join(s.send(records[:most]), errEnough)
		}
		if most > 0 {
			most -= len(records)
		}
		return s.send(records)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return r, err
}

// errEnough says that no more is asked for.
var errEnough = errors.New("the limit is reached")

// each gives f what the reader has and the filter selects, and counts it.
func each(ctx context.Context, r *events.Reader, filter *events.Filter, f func([]events.Record) error) (n int, err error) {
	for ctx.Err() == nil {
		records, err := r.Read()
		if err != nil || len(records) == 0 {
			return n, err
		}
		records = filter.Select(records)
		n += len(records)
		if err := f(records); err != nil {
			return n, err
		}
	}
	return n, nil
}

// follow sends what comes until the client has gone, the server stops, or what
// is asked for is over. What has happened by then is sent, too.
func (d *Dialect) follow(ctx context.Context, s *stream, q *query, r *events.Reader) error {
	if err := s.flush(); err != nil { // the client learns at once that it works
		return err
	}
	var over, alive <-chan time.Time
	if !q.filter.Until.IsZero() {
		timer := time.NewTimer(time.Until(q.filter.Until))
		defer timer.Stop()
		over = timer.C
	}
	if s.sse {
		tick := time.NewTicker(aliveEvery)
		defer tick.Stop()
		alive = tick.C
	}
	for last := false; !last; {
		changed := d.cfg.Log.Changed()
		if err := d.catchUp(s, q, r); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-alive:
			if err := s.alive(); err != nil {
				return err
			}
		case <-over:
			last = true
		case <-ctx.Done():
			last = true
		}
	}
	return d.catchUp(s, q, r)
}

// catchUp sends all that there is.
func (d *Dialect) catchUp(s *stream, q *query, r *events.Reader) error {
	for {
		records, err := r.Read()
		if err != nil || len(records) == 0 {
			return err
		}
		if records = q.filter.Select(records); len(records) == 0 {
			continue
		}
		if err := errors.Join(s.send(records), s.flush()); err != nil {
			return err
		}
	}
}

// stream is an answer of events. It keeps nothing back but what net/http does.
type stream struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
	sse      bool
}

func (s *stream) begin() {
	h := s.w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	if s.sse {
		h.Set("Content-Type", "text/event-stream")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	s.w.WriteHeader(http.StatusOK)
}

// send writes events, and waits for a slow client, but not for ever.
func (s *stream) send(records []events.Record) error {
	s.hurry()
	for _, r := range records {
		text := r.Line
		if s.sse {
			text = fmt.Appendf(nil, "id: %s\ndata: %s\n", r.ID(), r.Line) // which ends with a newline
		}
		if _, err := s.w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// alive writes what clients pass over.
func (s *stream) alive() error {
	s.hurry()
	if _, err := s.w.Write([]byte(":\n\n")); err != nil {
		return err
	}
	return s.flush()
}

func (s *stream) flush() error {
	s.hurry()
	return s.rc.Flush()
}

// hurry begins the time for the next write. Not all writers have one: those of
// tests, and of requests inside this process.
func (s *stream) hurry() { _ = s.rc.SetWriteDeadline(time.Now().Add(s.patience)) }

// end sends the rest. The connection may go on with another request.
func (s *stream) end() error {
	err := s.flush()
	_ = s.rc.SetWriteDeadline(time.Time{})
	return err
}

package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node"
)

const (
	// statsPatience is how long a client may leave figures unread that are on
	// their way.
	statsPatience = 30 * time.Second
	leastInterval = 100 * time.Millisecond
	mostInterval  = time.Hour
)

// Samples are what containers use.
type Samples interface {
	// Sample may be up to fresh old.
	Sample(fresh time.Duration) (*node.Sample, error)
}

// statsQuery is what is asked of figures.
type statsQuery struct {
	stream   bool
	all      bool // halted containers, too
	interval time.Duration
}

func statsQueryIn(q url.Values) (s statsQuery, err error) {
	if s.stream, err = api.Flag(q, "stream"); err != nil {
		return s, err
	}
	if s.all, err = api.Flag(q, "all"); err != nil {
		return s, err
	}
	s.interval = time.Second
	if text := q.Get("interval"); text != "" {
		s.interval, err = time.ParseDuration(text)
		if at0 := s.interval == 0 && !s.stream; err != nil || !at0 && (s.interval < leastInterval || s.interval > mostInterval) {
			return s, errs.E(errs.Invalid, "parameter interval is %q; it must be a duration from %v to %v like 1s, or 0 for figures without a rate", text, leastInterval, mostInterval)
		}
	}
	return s, nil
}

// containersStats answers what all containers use.
func (d *Dialect) containersStats(w http.ResponseWriter, r *http.Request) error {
	q, err := statsQueryIn(r.URL.Query())
	if err != nil {
		return err
	}
	return d.measured(w, r, q, func(before, now *node.Sample) (any, bool) {
		list := statsList{Time: now.At.UTC(), Containers: []containerStats{}}
		for _, u := range now.Containers {
			list.Containers = append(list.Containers, statsOf(u, before, now))
		}
		if q.all {
			for _, c := range d.node.Containers() {
				if _, runs := now.Of(c.Spec.Name); !runs {
					list.Containers = append(list.Containers, statsOfIdle(c, now.At))
				}
			}
			slices.SortFunc(list.Containers, func(a, b containerStats) int { return strings.Compare(a.Name, b.Name) })
		}
		return list, true
	})
}

// containerStats answers what one container uses, until it is deleted.
func (d *Dialect) containerStats(w http.ResponseWriter, r *http.Request) error {
	q, err := statsQueryIn(r.URL.Query())
	if err != nil {
		return err
	}
	c, err := d.container(r)
	if err != nil {
		return err
	}
	return d.measured(w, r, q, func(before, now *node.Sample) (any, bool) {
		if u, runs := now.Of(c.Spec.Name); runs {
			return statsOf(u, before, now), true
		}
		idle, err := d.node.Container(c.Spec.Name)
		if err != nil || !idle.Created.Equal(c.Created) {
			return nil, false
		}
		return statsOfIdle(idle, now.At), true
	})
}

// measured takes samples and answers with what of gives of each and the one
// before it, once or as a stream. For who does not read nothing is measured.
func (d *Dialect) measured(w http.ResponseWriter, r *http.Request, q statsQuery, of func(before, now *node.Sample) (any, bool)) error {
	ctx, cancel := api.StreamContext(r)
	defer cancel()
	fresh := min(q.interval/4, 250*time.Millisecond)
	last, err := d.node.Sample(fresh)
	if err != nil {
		return err
	}
	now := last
	s := newStatsStream(w, r)
	for pause := min(q.interval, time.Second); ; {
		if q.interval > 0 {
			if !wait(ctx, pause) {
				return s.end()
			}
			switch now, err = d.node.Sample(fresh); {
			case err != nil && s.begun:
				d.cut(r, err)
			case err != nil:
				return err
			}
		}
		v, there := of(last, now)
		switch {
		case !there && s.begun:
			return s.end()
		case !there:
			return errs.E(errs.NotFound, "the container has just been deleted")
		case !q.stream:
			api.JSON(w, http.StatusOK, v)
			return nil
		}
		if err := s.send(v); err != nil {
			d.cut(r, err)
		}
		last = now
		// All who watch at the same pace look at the same moment, and share what is seen.
		if pause = time.Until(now.At.Truncate(q.interval).Add(q.interval)); pause < q.interval/2 {
			pause += q.interval
		}
	}
}

// wait is false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// statsStream sends figures as lines of JSON, or as server-sent events.
type statsStream struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	sse   bool
	begun bool
}

func newStatsStream(w http.ResponseWriter, r *http.Request) *statsStream {
	return &statsStream{w: w, rc: http.NewResponseController(w), sse: strings.Contains(r.Header.Get("Accept"), "text/event-stream")}
}

func (s *statsStream) send(v any) error {
	if !s.begun {
		s.begun = true
		h := s.w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		if s.sse {
			h.Set("Content-Type", "text/event-stream")
		}
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // nginx would hold them back
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if s.sse {
		text = append(append([]byte("data: "), text...), '\n')
	}
	// Not all writers have a deadline: those of tests do not.
	if err := s.rc.SetWriteDeadline(time.Now().Add(statsPatience)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if _, err := s.w.Write(append(text, '\n')); err != nil {
		return err
	}
	return s.rc.Flush()
}

// end leaves the connection to another request.
func (s *statsStream) end() error {
	if !s.begun {
		return errs.E(errs.Unavailable, "buoyd is stopping")
	}
	_ = s.rc.SetWriteDeadline(time.Time{}) // as above
	return nil
}

package apps

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// followEvery is how often one looks for new replicas, and again for those
// whose log has ended.
const followEvery = time.Second

// followLogs sends lines that are there and then those that come, of all
// replicas, also of those that are not there yet.
func (d *Dialect) followLogs(w http.ResponseWriter, r *http.Request, p logParams) error {
	name := api.Param(r, "app")
	v, err := d.engine.App(name)
	if err != nil {
		return err
	}
	if err := p.check(v); err != nil {
		return err
	}
	return d.stream(w, r, func(ctx context.Context, send func(any) error) error {
		ctx, cancel := context.WithCancel(ctx)
		f := follower{
			d: d, params: p, send: send, ended: make(chan read), marks: map[string]mark{}, open: map[string]bool{}, silent: map[string]bool{},
		}
		defer f.wg.Wait()
		defer cancel()
		if err := f.past(ctx, v); err != nil {
			return err
		}
		return f.run(ctx, name)
	})
}

// check says that a container that is asked for is none.
func (p logParams) check(v app.View) error {
	if p.container == "" {
		return nil
	}
	var names []string
	for i := range v.Replicas {
		if p.picks(&v.Replicas[i]) {
			return nil
		}
		names = append(names, v.Replicas[i].Name())
	}
	return errs.E(errs.NotFound, "application %q has no container %q, but: %s", v.App.Name, p.container, orElse(strings.Join(names, ", "), "none"))
}

// mark is how far a replica's log has been sent. The zero mark is its begin.
type mark struct {
	last  time.Time // of the last line, by the replica's host
	fresh bool      // no line has been sent, and those that are there are not to be
}

// logsMissing is the message that replicas cannot be asked now.
type logsMissing struct {
	Silent []logFailure `json:"unavailable"`
}

// read is a reader that has come to its end.
type read struct {
	replica app.Replica
	mark    mark
	heard   bool  // there was a line
	err     error // of sending
	failed  error // of reading
}

// follower reads the logs of an app's replicas.
type follower struct {
	d      *Dialect
	params logParams
	send   func(any) error
	wg     sync.WaitGroup // of the readers
	ended  chan read

	marks  map[string]mark // by id of a replica
	open   map[string]bool // by id: a reader is at it
	silent map[string]bool // by id: it cannot be asked, and the client has been told
}

// past sends the newest lines that are there, oldest first.
func (f *follower) past(ctx context.Context, v app.View) error {
	if f.params.tail == 0 {
		for i := range v.Replicas {
			f.marks[v.Replicas[i].ID] = mark{fresh: true}
		}
		return nil
	}
	l, err := f.d.collect(ctx, v, f.params)
	if err != nil {
		return err
	}
	for id, last := range l.last { // of lines that were too old for the tail, too
		f.marks[id] = mark{last: last}
	}
	for _, one := range l.lines {
		if err := f.send(entryOf(one)); err != nil {
			return err
		}
	}
	if len(l.failed) == 0 {
		return nil
	}
	for _, one := range l.failed {
		f.silent[one.replica] = true
	}
	return f.send(logsMissing{l.failed})
}

// run follows until ctx is done, the app is gone or a line cannot be sent.
func (f *follower) run(ctx context.Context, name string) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	look := true
	for {
		if look {
			v, err := f.d.engine.App(name)
			if err != nil {
				return err
			}
			f.look(ctx, v)
		}
		select {
		case end := <-f.ended:
			look = false // at the next tick: its host may be away
			if err := f.end(end); err != nil {
				return err
			}
		case <-tick.C:
			look = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end notes where a reader has come to; if its replica cannot be asked, it tells
// the client once.
func (f *follower) end(end read) error {
	id := end.replica.ID
	delete(f.open, id)
	f.marks[id] = end.mark
	switch {
	case end.err != nil:
		return end.err
	case end.heard || end.failed == nil:
		delete(f.silent, id)
	}
	if end.failed == nil || f.silent[id] {
		return nil
	}
	f.silent[id] = true
	return f.send(logsMissing{[]logFailure{failureOf(&end.replica, end.failed)}})
}

// look begins to read replicas that are new, or run and are not read.
func (f *follower) look(ctx context.Context, v app.View) {
	for i := range v.Replicas {
		r := v.Replicas[i]
		m, known := f.marks[r.ID]
		runs := r.Phase == app.Running || r.Phase == app.Starting
		if f.open[r.ID] || !f.params.picks(&r) || known && !runs || r.Phase == app.Ordered || r.Phase == app.Waiting {
			continue
		}
		f.open[r.ID] = true
		f.wg.Go(func() {
			end := f.read(ctx, r, m)
			select {
			case f.ended <- end:
			case <-ctx.Done():
			}
		})
	}
}

// read sends what a replica has written since a mark, and what it writes. A
// host that cannot be asked now is asked again later.
func (f *follower) read(ctx context.Context, r app.Replica, from mark) read {
	q := LogQuery{Follow: true}
	switch {
	case !from.last.IsZero():
		q.Since = from.last.Add(1)
	case from.fresh:
		q.Tail = -1
	default:
		q.Since = f.params.since
	}
	end := read{replica: r, mark: from}
	err := f.d.cfg.Logs(ctx, r, q, func(l LogLine) error {
		if end.err = f.send(entryOf(line{l, &r})); end.err == nil {
			end.mark, end.heard = mark{last: l.Time}, true
		}
		return end.err
	})
	if errs.KindOf(err) != errs.NotFound { // else it has written nothing, or is gone
		end.failed = err
	}
	return end
}

package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// Record is an event as the log keeps it: a line of JSON.
type Record struct {
	Line []byte // not to be changed
}

// idMark begins each line.
const idMark = `{"id":"`

// ID is that of the event; zero if the line is none.
func (r Record) ID() ID {
	rest, ok := bytes.CutPrefix(r.Line, []byte(idMark))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 {
		return ID{}
	}
	id, err := ParseID(string(rest[:end]))
	if err != nil {
		return ID{}
	}
	return id
}

// Event is what the line says.
func (r Record) Event() (e Event, err error) {
	if err := json.Unmarshal(r.Line, &e); err != nil {
		return e, fmt.Errorf("read an event: %w", err)
	}
	return e, nil
}

// Reader reads the log in order. It has no queue: who is slow finds a gap where
// events have been dropped meanwhile. One goroutine may use it at a time.
type Reader struct {
	log *Log
	pos ID       // of the event that was read last; the zero ID: before all
	seg *segment // where the next one is, nil: to be found
	off int64
}

// After reads what follows an event.
func (l *Log) After(id ID) *Reader { return &Reader{log: l, pos: id} }

// Since reads from about a time on: not all that comes is as new.
func (l *Log) Since(t time.Time) *Reader {
	for _, s := range l.segments() {
		if s.last.Load() >= t.UnixNano() {
			return l.After(ID{s.epoch, s.first - 1})
		}
	}
	return l.After(l.End())
}

func (l *Log) segments() []*segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segs
}

// state is all of this moment: the segments, the newest event, and where it ends
// in the newest segment.
func (l *Log) state() (segs []*segment, end ID, size int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.segs); n > 0 {
		size = l.segs[n-1].size.Load()
	}
	return l.segs, ID{l.epoch, l.next - 1}, size
}

// Pos is where the reader is: After(Pos) goes on there.
func (r *Reader) Pos() ID { return r.pos }

// Read gives the events that follow, some of them if there are many, and none if
// there are none yet: then wait for Changed. A record that no event of the log
// stands behind says that events are missing at its place.
func (r *Reader) Read() ([]Record, error) {
	for {
		if r.seg == nil {
			gap, ok := r.find()
			if !ok {
				return nil, nil
			}
			if gap.Line != nil {
				return []Record{gap}, nil
			}
		}
		lines, n, err := r.seg.read(r.off)
		switch {
		case errors.Is(err, os.ErrClosed): // it was dropped, or the log is closed
			if r.seg = nil; len(r.log.segments()) == 0 {
				return nil, nil
			}
			continue
		case err != nil:
			return nil, fmt.Errorf("read events: %w", err)
		case n == 0:
			if !r.turn() {
				return nil, nil
			}
			continue
		}
		r.off += n
		if all := r.take(lines); len(all) > 0 {
			return all, nil
		}
	}
}

// take makes records of lines and leaves out those that the reader has had, or
// that a disk has spoilt. In place of what is missing stands a gap.
func (r *Reader) take(lines []byte) (all []Record) {
	for line := range bytes.Lines(lines) {
		next := Record{line}
		id := next.ID()
		if !r.seg.has(id) || id.Epoch == r.pos.Epoch && id.Seq <= r.pos.Seq || !json.Valid(line) {
			continue
		}
		if missing := id.Seq - r.pos.Seq - 1; id.Epoch == r.pos.Epoch && missing > 0 {
			r.pos = ID{id.Epoch, id.Seq - 1}
			all = append(all, r.gap(Dropped, "events were dropped from the log before they were read", int(missing)))
		}
		r.pos = id
		all = append(all, next)
	}
	return all
}

// turn goes on to the next segment, if there is one.
func (r *Reader) turn() bool {
	segs := r.log.segments()
	i := slices.Index(segs, r.seg)
	if i < 0 && len(segs) > 0 {
		r.seg = nil // dropped meanwhile
		return true
	}
	if i < 0 || i+1 == len(segs) {
		return false
	}
	if r.seg.size.Load() > r.off { // written between our look and its successor
		return true
	}
	r.enter(segs[i+1])
	return true
}

func (r *Reader) enter(s *segment) {
	r.seg, r.off = s, 0
	if s.epoch != r.pos.Epoch {
		r.pos = ID{s.epoch, s.first - 1}
	}
}

// find looks for the segment of what follows r.pos; false: there is nothing yet.
// An ID that the log does not know is told by a gap.
func (r *Reader) find() (gap Record, ok bool) {
	segs, end, size := r.log.state()
	newest := len(segs) - 1
	switch {
	case r.pos == (ID{}) && newest >= 0:
		r.enter(segs[0])
		return gap, true
	case r.pos == end && newest >= 0 && segs[newest].epoch == end.Epoch:
		r.seg, r.off = segs[newest], size
		return gap, true
	case r.pos == (ID{}) || r.pos == end:
		return gap, false
	}
	for i, s := range segs {
		ends := i+1 < len(segs) && segs[i+1].epoch != s.epoch // what was after it in its epoch is lost, and told there
		if s.epoch == r.pos.Epoch && (r.pos.Seq+1 < s.next() || ends) {
			r.enter(s)
			return gap, true
		}
	}
	was, why := r.pos, "yet"
	switch {
	case was.Epoch == end.Epoch:
		r.pos = end
	case len(segs) > 0:
		r.pos, why = ID{segs[0].epoch, segs[0].first - 1}, "any more: the log was begun anew since"
	default:
		r.pos, why = end, "any more: the log was begun anew since"
	}
	return r.gap("Unknown", "there is no event "+was.String()+" "+why, 0), true
}

// gap is a record that says that events are missing up to r.pos.
func (r *Reader) gap(reason, message string, missing int) Record {
	e := r.log.gap(reason, message, missing)
	e.ID = r.pos.String()
	if missing > 0 {
		e.Data.Attributes = map[string]string{"missing": strconv.Itoa(missing)}
	}
	return Record{e.line()}
}

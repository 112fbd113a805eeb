// Package events is what a node remembers of what happened on it: a bounded log
// of numbered events in files, which any number of readers follow at their own
// pace.
//
// An event that a reader has seen survives the daemon however it ends. When the
// machine goes down without notice, the last moments are lost; the log then
// begins a new epoch with an event of type Gap, and who goes on from an ID that
// is not there any more is told by one.
package events

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is what a Log is made of.
type Config struct {
	Dir    string       // required
	Source string       // required: of events that name none, "/nodes/525400123456"
	Boot   string       // which boot of the machine this is; default: as the kernel says
	Log    *slog.Logger // default: none

	// The bounds of the log; defaults: 512 KiB and 4096 events a segment, 16
	// segments. An event takes some 300 bytes.
	SegmentBytes  int64
	SegmentEvents int
	Segments      int
}

// Log is the events of a node. A nil Log takes events and keeps none.
type Log struct {
	cfg  Config
	wake chan struct{} // a token: there is something to write

	mu      sync.Mutex // guards all below
	pending []Event
	lost    int             // events that found no room since the last one that was written
	counts  map[Type]uint64 // emitted, since the daemon's start
	reasons map[Why]uint64  // likewise, but those of a fleet
	segs    []*segment      // oldest first; replaced, never changed
	epoch   string
	next    uint64
	changed chan struct{}

	writing sync.Mutex // held while files are changed; guards all below
	marked  bool       // openFile is there, of this boot
	anew    bool       // the epoch is new: it begins with a gap, in a segment of its own
	missed  int        // events that could not be written since the last one that was
	unsaved bool       // something is not synced
}

const (
	// pendingMost bounds what waits to be written: a disk that stands still must
	// not take the daemon's memory.
	pendingMost = 4096
	// syncAfter is how long an event may be lost to a power cut. An fsync for each
	// would cost a busy node dear.
	syncAfter = 2 * time.Second
)

// Emit adds an event, with the time, an ID, the log's source and the actor of
// ctx where it has none. It does not wait for a disk. The attributes must not
// change any more.
func (l *Log) Emit(ctx context.Context, e Event) {
	if l == nil {
		return
	}
	e.SpecVersion = "1.0"
	if e.Source == "" {
		e.Source = l.cfg.Source
	}
	if e.Data.Actor.Kind == "" {
		e.Data.Actor = ActorOf(ctx)
	}
	l.mu.Lock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	l.counts[e.Type]++
	if !e.Type.Fleet() { // whose reasons are anybody's
		l.reasons[Why{e.Type, e.Data.Reason}]++
	}
	if len(l.pending) < pendingMost {
		l.pending = append(l.pending, e)
	} else {
		l.lost++
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run writes what is emitted, until ctx ends; then all of it is durable.
func (l *Log) Run(ctx context.Context) error {
	var due <-chan time.Time
	for {
		select {
		case <-l.wake:
			if l.Flush(); due == nil {
				due = time.After(syncAfter)
			}
		case <-due:
			due = nil
			l.save()
		case <-ctx.Done():
			l.Flush()
			return l.close()
		}
	}
}

// Changed is closed when there is more to read. Ask for it first and then read.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Counts are how many events of each type there were since the daemon's start.
func (l *Log) Counts() map[Type]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}

// Why is a type and the reason of an event.
type Why struct {
	Type   Type
	Reason string
}

// Reasons is Counts by the reason, too, without what is of a fleet.
func (l *Log) Reasons() map[Why]uint64 {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.reasons)
}

// End is the ID of the newest event: who reads after it gets what comes.
func (l *Log) End() ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ID{l.epoch, l.next - 1}
}

// Newest is when the newest event was; zero: there is none.
func (l *Log) Newest() time.Time {
	if l == nil {
		return time.Time{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.segs); n > 0 {
		return time.Unix(0, l.segs[n-1].last.Load())
	}
	return time.Time{}
}

// Open reads what is in cfg.Dir. Nothing is written before Run or Flush.
func Open(cfg Config) (*Log, error) {
	if cfg.Dir == "" || cfg.Source == "" {
		return nil, errors.New("open events: Dir and Source are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = 512 << 10
	}
	if cfg.SegmentEvents == 0 {
		cfg.SegmentEvents = 4096
	}
	if cfg.Segments == 0 {
		cfg.Segments = 16
	}
	if cfg.Segments < 2 {
		return nil, errs.E(errs.Invalid, "open events: %d segments cannot be; the oldest goes when a new one begins", cfg.Segments)
	}
	l := &Log{cfg: cfg, wake: make(chan struct{}, 1), counts: map[Type]uint64{}, reasons: map[Why]uint64{}, changed: make(chan struct{}), next: 1}
	return l, l.load()
}

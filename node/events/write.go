package events

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// openFile is there while a daemon may write, with the boot that it does so in.
// Found in another boot it says that the machine went down under one.
func (l *Log) openFile() string { return filepath.Join(l.cfg.Dir, "open") }

func (l *Log) load() (err error) {
	if l.cfg.Boot == "" {
		raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return err
		}
		l.cfg.Boot = strings.TrimSpace(string(raw))
	}
	if l.segs, err = openSegments(l.cfg.Dir); err != nil {
		return fmt.Errorf("open events: %w", err)
	}
	l.epoch = newEpoch()
	n := len(l.segs)
	if n > 0 {
		l.epoch, l.next = l.segs[n-1].epoch, l.segs[n-1].next()
	}
	boot, err := os.ReadFile(l.openFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open events: %w", err)
	}
	if l.marked = string(boot) == l.cfg.Boot; l.marked || n == 0 {
		return nil
	}
	l.epoch, l.anew = newEpoch(), true
	if last := l.segs[n-1]; last.count.Load() == 0 { // it would stand beside the one that is begun now
		l.segs = l.segs[:n-1]
		return last.drop()
	}
	return nil
}

func newEpoch() string { return strings.ToLower(rand.Text()[:8]) }

// Flush writes what has been emitted. What cannot be written is lost, and the
// next event says so.
func (l *Log) Flush() {
	if l == nil {
		return
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	batch, lost := l.pending, l.lost
	l.pending, l.lost = nil, 0
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	var all []Event
	if l.anew {
		all = append(all, l.gap("Reboot", fmt.Sprintf("the machine went down: events of the last %v before that may be missing", syncAfter), 0))
	}
	if l.missed > 0 {
		all = append(all, l.gap("Unwritten", "events could not be written", l.missed))
	}
	own := len(all)
	all = append(all, batch...)
	if lost > 0 {
		all = append(all, l.gap("Overflow", "events came faster than they could be written", lost))
	}
	n, err := l.write(all)
	switch {
	case err == nil:
		l.missed = 0
	default:
		if l.missed == 0 {
			l.cfg.Log.Error("events not written, and lost", "error", err)
		}
		if n > own {
			l.missed = 0
		}
		l.missed += len(batch) + lost - max(n-own, 0)
	}
}

// gap is an event that says that others are missing before it.
func (l *Log) gap(reason, message string, missing int) Event {
	e := Event{SpecVersion: "1.0", Source: l.cfg.Source, Type: Gap, Time: time.Now().UTC(), Data: Data{
		Actor: Actor{Kind: ByNode}, Reason: reason, Message: message,
	}}
	if missing > 0 {
		e.Data.Attributes = map[string]string{"missing": strconv.Itoa(missing)}
	}
	return e
}

// write writes events and says how many it has written. The caller holds
// l.writing.
func (l *Log) write(all []Event) (written int, err error) {
	for written < len(all) {
		seg, err := l.room()
		if err != nil {
			return written, err
		}
		var lines []byte
		n := 0
		for ; written+n < len(all) && seg.count.Load()+int64(n) < int64(l.cfg.SegmentEvents); n++ {
			e := &all[written+n]
			e.ID = ID{l.epoch, l.next + uint64(n)}.String()
			line := e.line()
			if n > 0 && seg.size.Load()+int64(len(lines)+len(line)) > l.cfg.SegmentBytes {
				break
			}
			lines = append(lines, line...)
		}
		if err := seg.append(lines); err != nil {
			return written, err
		}
		l.unsaved, l.anew = true, false
		written += n
		l.mu.Lock()
		l.next += uint64(n)
		seg.last.Store(all[written-1].Time.UnixNano())
		seg.count.Add(int64(n))
		seg.size.Add(int64(len(lines)))
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
	return written, nil
}

// room is a segment that takes another event.
func (l *Log) room() (*segment, error) {
	if !l.marked {
		if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
			return nil, err
		}
		if err := atomicfile.Write(l.openFile(), []byte(l.cfg.Boot), 0o600); err != nil {
			return nil, err
		}
		l.marked = true
	}
	segs := l.segs
	if n := len(segs); n > 0 && !l.anew {
		s := segs[n-1]
		if s.size.Load() < l.cfg.SegmentBytes && s.count.Load() < int64(l.cfg.SegmentEvents) {
			return s, nil
		}
		if err := s.file.Sync(); err != nil {
			return nil, err
		}
	}
	s := &segment{epoch: l.epoch, first: l.next, path: filepath.Join(l.cfg.Dir, segmentName(l.next, l.epoch))}
	var err error
	if s.file, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return nil, err
	}
	if err := atomicfile.SyncDir(l.cfg.Dir); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	segs = append(slices.Clone(segs), s)
	drop := max(len(segs)-l.cfg.Segments, 0)
	l.mu.Lock()
	l.segs = segs[drop:]
	l.mu.Unlock()
	for _, old := range segs[:drop] {
		if err := old.drop(); err != nil {
			l.cfg.Log.Error("old events not removed", "error", err)
		}
	}
	return s, nil
}

// save makes durable what has been written.
func (l *Log) save() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if !l.unsaved {
		return
	}
	if err := l.segs[len(l.segs)-1].file.Sync(); err != nil {
		l.cfg.Log.Error("events may not survive a power cut", "error", err)
		return
	}
	l.unsaved = false
}

// close makes all durable. Nothing can be read or written any more.
func (l *Log) close() error {
	l.save()
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	segs := l.segs
	l.segs = nil
	l.mu.Unlock()
	var err error
	for _, s := range segs {
		err = errors.Join(err, s.file.Close())
	}
	if l.marked && !l.unsaved {
		err = errors.Join(err, os.Remove(l.openFile()))
	}
	return err
}

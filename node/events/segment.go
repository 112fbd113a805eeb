package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// segment is a file of events that follow one another, one a line. Its name has
// the number of the first one and the epoch.
type segment struct {
	epoch string
	first uint64
	path  string
	file  *os.File // closed when the segment is dropped

	size  atomic.Int64 // of whole lines; only grows
	count atomic.Int64
	last  atomic.Int64 // time of the last one, in nanoseconds since 1970
}

const suffix = ".ndjson"

func segmentName(first uint64, epoch string) string {
	return fmt.Sprintf("%016d-%s%s", first, epoch, suffix)
}

// parseSegment reads a name.
func parseSegment(name string) (id ID, ok bool) {
	number, epoch, ok := strings.Cut(strings.TrimSuffix(name, suffix), "-")
	if !ok || !strings.HasSuffix(name, suffix) {
		return id, false
	}
	id, err := ParseID(epoch + "-" + number)
	return id, err == nil && segmentName(id.Seq, id.Epoch) == name
}

// next is the number of the event after the last one.
func (s *segment) next() uint64 { return s.first + uint64(s.count.Load()) }

func (s *segment) has(id ID) bool {
	return id.Epoch == s.epoch && s.first <= id.Seq && id.Seq < s.next()
}

// openSegments opens what is in dir, oldest first. The newest is cut behind its
// last whole event; how many the others have, their names say.
func openSegments(dir string) (segs []*segment, err error) {
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, s := range segs {
				err = errors.Join(err, s.file.Close())
			}
		}
	}()
	for _, e := range entries {
		id, ok := parseSegment(e.Name())
		if !ok {
			continue
		}
		s := &segment{epoch: id.Epoch, first: id.Seq, path: filepath.Join(dir, e.Name())}
		if s.file, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
			return segs, err
		}
		segs = append(segs, s)
	}
	for i, s := range segs {
		if i+1 < len(segs) {
			err = s.seal(segs[i+1].first)
		} else {
			err = s.scan()
		}
		if err != nil {
			return segs, err
		}
	}
	return segs, nil
}

// seal takes a segment for whole that another one follows.
func (s *segment) seal(next uint64) error {
	st, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.size.Store(st.Size())
	s.count.Store(int64(next - s.first))
	s.last.Store(st.ModTime().UnixNano())
	return nil
}

// scan finds out how much of the file is events, and cuts off the rest.
func (s *segment) scan() error {
	raw, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(raw) {
		r := Record{Line: line}
		e, err := r.Event()
		if err != nil || r.ID() != (ID{s.epoch, s.next()}) {
			break
		}
		s.size.Add(int64(len(line)))
		s.count.Add(1)
		s.last.Store(e.Time.UnixNano())
	}
	if s.size.Load() == int64(len(raw)) {
		return nil
	}
	return s.file.Truncate(s.size.Load())
}

// append writes lines, all of them or none. They are not there for readers
// before the log says so.
func (s *segment) append(lines []byte) error {
	at := s.size.Load()
	if _, err := s.file.WriteAt(lines, at); err != nil {
		return errors.Join(err, s.file.Truncate(at))
	}
	return nil
}

// chunk is how much is read at a time.
const chunk = 64 << 10

// read gives whole lines from an offset on, and how far they go. What is no
// line, in a file that somebody else has cut, is passed over.
func (s *segment) read(off int64) (lines []byte, n int64, err error) {
	left := s.size.Load() - off
	for most := int64(chunk); left > 0; most *= 2 {
		buf := make([]byte, min(left, most))
		got, err := s.file.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		if end := bytes.LastIndexByte(buf[:got], '\n'); end >= 0 {
			return buf[:end+1], int64(end + 1), nil
		}
		if most >= left {
			return nil, left, nil
		}
	}
	return nil, 0, nil
}

// drop removes the segment; readers that are at it learn it by the closed file.
func (s *segment) drop() error {
	return errors.Join(os.Remove(s.path), s.file.Close())
}

//go:build linux && cgo

package shim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// journal is the reaper's list of exits, read as far as it goes.
type journal struct {
	file *os.File

	mu         sync.Mutex // guards the rest
	off        int64
	ends       map[shimapi.Process]unix.WaitStatus
	truncating bool          // the offset means nothing until the reaper answers
	news       chan struct{} // closed and replaced when something was added
}

func openJournal(path string) (*journal, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the exit journal: %w", err)
	}
	return &journal{file: f, ends: map[shimapi.Process]unix.WaitStatus{}, news: make(chan struct{})}, nil
}

// read takes in what was added. A last line without its end is left for later.
func (j *journal) read() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.truncating {
		return nil
	}
	raw, err := io.ReadAll(io.NewSectionReader(j.file, j.off, 1<<30))
	if err != nil {
		return err
	}
	for {
		line, rest, ok := bytes.Cut(raw, []byte{'\n'})
		if !ok {
			break
		}
		var p shimapi.Process
		var st uint32
		if _, err := fmt.Sscan(string(line), &p.PID, &p.StartTime, &st); err == nil {
			j.ends[p] = unix.WaitStatus(st)
		}
		j.off += int64(len(line)) + 1
		raw = rest
	}
	close(j.news)
	j.news = make(chan struct{})
	return nil
}

func (j *journal) truncated() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.truncating, j.off = false, 0
	clear(j.ends)
}

func (j *journal) kept() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.truncating = false
}

// find waits up to limit for the end of p.
func (j *journal) find(ctx context.Context, p shimapi.Process, limit time.Duration) (unix.WaitStatus, bool) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		j.mu.Lock()
		st, ok := j.ends[p]
		news := j.news
		j.mu.Unlock()
		if ok {
			return st, true
		}
		select {
		case <-news:
		case <-timeout.C:
			return 0, false
		case <-ctx.Done():
			return 0, false
		}
	}
}

// journalRoom is how long the journal may grow before it is emptied.
const journalRoom = 64 << 10

// shortenJournal empties the journal when it is long and nobody waits for what
// it says.
func (s *Server) shortenJournal() {
	j := s.ends
	j.mu.Lock()
	size := j.off
	ask := size > journalRoom && !j.truncating && s.exits.idle()
	if ask {
		j.truncating = true
	}
	j.mu.Unlock()
	if !ask {
		return
	}
	if err := s.keeper.truncate(size); err != nil {
		s.log.Error("empty the exit journal", "error", err)
		j.kept()
	}
}

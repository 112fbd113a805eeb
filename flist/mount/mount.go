// Package mount serves an flist as a FUSE file system: metadata from memory, contents chunk by chunk from a cache that
// fetches what it lacks.
//
// The server keeps nothing that a dead one would take along. Node ids are indices of the list, handles are slots of a file
// in StateDir, and the connection belongs to whoever holds its descriptor (buoy-reaper): a server that is killed with readers
// waiting is followed by another one, which goes on where it was (device.go), and nobody but the clock notices.
//
// Files that are complete on the disk are handed to the kernel (FUSE_PASSTHROUGH, pass.go), which reads them without asking.
package mount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/cache"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// ErrGone says that the kernel has ended the connection: it was unmounted everywhere, or aborted.
var ErrGone = errors.New("the FUSE connection has ended")

// Prefetch is how much is fetched before anybody asks for it.
type Prefetch int

// The ways of Prefetch.
const (
	PrefetchNone     Prefetch = iota
	PrefetchRecorded          // what OrderFile names, in that order
	PrefetchAll               // and then everything else
)

// Config is what a Mount needs.
type Config struct {
	List *flist.List // required
	View *cache.View // required
	// StateDir is required: a directory of this mount alone that lasts as long as the connection; see Run.
	StateDir  string
	OrderFile string // where the order of first reads is kept; empty: nowhere
	Layer     string // a directory that has all files; empty: see Complete
	DropSuid  bool   // set-uid and set-gid bits are not shown
	Prefetch  Prefetch
	Conn      uint32        // number of the FUSE connection; 0: not known, it then cannot be tuned or watched
	Deadline  time.Duration // required: for a read
	Log       *slog.Logger  // required
	// Failed hears of reads that failed, Completed once that everything is on the disk, and Lost that the mount became stuck
	// or gone, as Status has it. All may be nil; they must not block.
	Failed          func(path, message string)
	Completed, Lost func()
	// NoResend and NoPassthrough make a kernel look older; for tests.
	NoResend, NoPassthrough bool
}

// Mount is one flist being served.
type Mount struct {
	cfg   Config
	ready chan struct{} // closed when the kernel and we have agreed
	layer atomic.Pointer[layer]
	dev   *device
	open  *opens
	ahead *ahead
	order *order
	calls *calls
	wants []cache.Want // all chunks, each once, in the order of the tree
	total int64

	busy                         atomic.Int64 // requests being answered
	reads, bytes, passed, failed atomic.Int64
	stuck, gone, complete        atomic.Bool

	refused sync.Once // a passthrough, for the log

	mu        sync.Mutex // guards lastError, told
	lastError *ReadError
	told      time.Time
}

// ReadError is why a file could not be read.
type ReadError struct {
	Path, Message string
	Time          time.Time
}

// Status is how a Mount is.
type Status struct {
	Fetched, Total               int64 // plain bytes of its chunks
	Complete                     bool
	Reads, Bytes, Passed, Failed int64
	LastError                    *ReadError // nil: none
	InFlight                     int
	Stuck, Gone                  bool
}

// New checks cfg; Run does everything.
func New(cfg Config) (*Mount, error) {
	if cfg.List == nil || cfg.View == nil || cfg.Log == nil || cfg.Deadline <= 0 || !filepath.IsAbs(cfg.StateDir) {
		return nil, errs.E(errs.Invalid, "a mount needs a list, a cache, a log, a deadline and an absolute state directory")
	}
	m := &Mount{cfg: cfg, ready: make(chan struct{}), calls: newCalls(), ahead: newAhead()}
	seen := map[chunk.ID]bool{}
	for i := range cfg.List.Nodes {
		n := &cfg.List.Nodes[i]
		for c, ref := range n.Chunks {
			if !seen[ref.ID] {
				seen[ref.ID] = true
				m.wants = append(m.wants, cache.Want{Ref: ref, Size: n.ChunkLen(c)})
				m.total += int64(n.ChunkLen(c))
			}
		}
	}
	m.order = newOrder(cfg.OrderFile, m.wants)
	if cfg.Layer != "" {
		if err := m.Complete(cfg.Layer); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Run serves the FUSE connection fd, which it closes at the end, until ctx ends: then requests that are not answered are left
// to the next server, and it returns nil. ErrGone: the kernel has ended the connection. A connection that another Run has
// served is taken over with what that one left in StateDir.
func (m *Mount) Run(ctx context.Context, fd int) (err error) {
	if err := os.MkdirAll(m.cfg.StateDir, 0o700); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	if m.open, err = loadOpens(filepath.Join(m.cfg.StateDir, "opens")); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	defer m.open.close()
	if m.dev, err = newDevice(m, fd); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	defer m.dev.close()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-m.ready:
			m.tune()
			m.prefetch(ctx)
		}
	})
	wg.Go(func() { m.watch(ctx) })
	err = m.dev.serve(ctx)
	if errors.Is(err, ErrGone) {
		m.lost(&m.gone)
	}
	return err
}

// Ready is closed when the first request of the kernel is answered, or was by the server before this one.
func (m *Mount) Ready() <-chan struct{} { return m.ready }

// Complete says that dir has all files: they are read there from now on.
func (m *Mount) Complete(dir string) error {
	l, err := openLayer(dir)
	if err != nil {
		return err
	}
	m.layer.Store(l)
	m.completed()
	return nil
}

func (m *Mount) completed() {
	if m.complete.CompareAndSwap(false, true) && m.cfg.Completed != nil {
		m.cfg.Completed()
	}
}

// lost says that the mount cannot go on, and how.
func (m *Mount) lost(how *atomic.Bool) {
	if how.CompareAndSwap(false, true) && m.cfg.Lost != nil {
		m.cfg.Lost()
	}
}

// Status is how it is now.
func (m *Mount) Status() Status {
	s := Status{
		Fetched: m.fetched(), Total: m.total, Complete: m.complete.Load(),
		Reads: m.reads.Load(), Bytes: m.bytes.Load(), Passed: m.passed.Load(), Failed: m.failed.Load(),
		Stuck: m.stuck.Load(), Gone: m.gone.Load(), InFlight: int(m.busy.Load()),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.LastError = m.lastError
	return s
}

func (m *Mount) fetched() (n int64) {
	for _, w := range m.wants {
		if m.cfg.View.Have(w.Ref) {
			n += int64(w.Size)
		}
	}
	return n
}

// fail records why a file could not be read, and tells it, once a second at most.
func (m *Mount) fail(node uint32, err error) {
	e := &ReadError{Path: "/" + m.cfg.List.Path(int(node)), Message: err.Error(), Time: time.Now()}
	m.failed.Add(1)
	m.mu.Lock()
	m.lastError = e
	quiet := e.Time.Sub(m.told) < time.Second
	if !quiet {
		m.told = e.Time
	}
	m.mu.Unlock()
	if quiet {
		return
	}
	m.cfg.Log.Warn("a file cannot be read", "path", e.Path, "error", e.Message)
	if m.cfg.Failed != nil {
		m.cfg.Failed(e.Path, e.Message)
	}
}

// readAhead is how far the kernel reads ahead of a reader, in KiB.
const readAhead = "1024"

// tune raises what FUSE itself cannot: its readahead is 128 KiB unless somebody writes here. Best effort.
func (m *Mount) tune() {
	if m.cfg.Conn == 0 {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", m.cfg.Conn)
	if err := os.WriteFile(path, []byte(readAhead), 0); err != nil {
		m.cfg.Log.Debug("set the readahead", "path", path, "error", err)
	}
}

// watch looks after the order of reads, completeness, and requests that nobody answers.
func (m *Mount) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var lost lostRequests
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			m.saveOrder()
			return
		case <-tick.C:
		}
		if lost.look(m.cfg.Conn, int(m.busy.Load()), m.dev.taken.Load()) {
			m.lost(&m.stuck)
		} else {
			m.stuck.Store(false)
		}
		if n%5 != 0 {
			continue
		}
		m.saveOrder()
		if !m.complete.Load() && m.reads.Load()+m.passed.Load() > 0 && m.fetched() == m.total {
			m.completed()
		}
	}
}

func (m *Mount) saveOrder() {
	if err := m.order.save(); err != nil {
		m.cfg.Log.Warn("keep the order of reads", "error", err)
	}
}

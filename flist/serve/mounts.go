package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/flistapi"
	"github.com/buoy-edge/buoy/flist/mount"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
)

// mounted is a mount being served.
type mounted struct {
	req    flistapi.MountRequest // stores, mirrors and layer are guarded by Server.mu
	up     chan struct{}         // closed when it is started, or is not to be; what is below is set then
	source *source
	meta   flist.Meta
	mount  *mount.Mount // nil: it did not start
	cancel context.CancelFunc
	done   chan struct{} // closed when it is not served any more
	err    error         // why; read after done, or after up if it did not start
}

// source is a router that can be exchanged for another while it is asked.
type source struct{ now atomic.Pointer[store.Router] }

func (s *source) Fetch(ctx context.Context, ref chunk.Ref, size int) ([]byte, error) {
	for {
		r := s.now.Load()
		b, err := r.Fetch(ctx, ref, size)
		if err == nil || s.now.Load() == r {
			return b, err
		}
	}
}

// Trouble is why chunks are late.
func (s *source) Trouble() error { return s.now.Load().Trouble() }

// set routes to other stores.
func (s *source) set(l flist.Meta, stores, mirrors []string, opt store.Options) error {
	r, err := store.Route(l, stores, mirrors, opt)
	if err != nil {
		return err
	}
	if old := s.now.Swap(r); old != nil {
		return old.Close()
	}
	return nil
}

func (s *source) close() {
	if r := s.now.Load(); r != nil {
		_ = r.Close()
	}
}

// startLimit bounds what Mount waits for: owners that have to be read from the image, and the kernel.
const startLimit = 30 * time.Second

func (s *Server) mount(ctx context.Context, r flistapi.MountRequest) error {
	if r.ID == "" || !filepath.IsAbs(r.File) || !filepath.IsAbs(r.StateDir) {
		return errs.E(errs.Invalid, "a mount needs an id, an absolute file and an absolute state directory")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errs.E(errs.Unavailable, "mount %q is not ready after %s", r.ID, startLimit))
	defer cancel()
	m, mine := s.reserve(r)
	if mine {
		if err := s.start(ctx, m); err != nil {
			m.err = err
			s.forget(r.ID, m)
		}
		close(m.up)
	}
	select {
	case <-m.up:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if m.mount == nil {
		return m.err
	}
	if !mine {
		if err := s.update(m, r); err != nil {
			return err
		}
	}
	select {
	case <-m.mount.Ready():
		return nil
	case <-m.done:
		s.forget(r.ID, m)
		return fmt.Errorf("mount %q: %w", r.ID, cmp.Or(m.err, errors.New("it ended")))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reserve is the mount of that id; mine: it is new, and the caller's to start.
func (s *Server) reserve(r flistapi.MountRequest) (m *mounted, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m = s.mounts[r.ID]; m != nil {
		select {
		case <-m.done: // ended by the kernel; this is another connection
		default:
			return m, false
		}
	}
	m = &mounted{req: r, up: make(chan struct{}), done: make(chan struct{})}
	s.mounts[r.ID] = m
	return m, true
}

// update gives a mount other stores or a layer.
func (s *Server) update(m *mounted, r flistapi.MountRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.req.File != r.File {
		return errs.E(errs.Conflict, "mount %q is %s", r.ID, m.req.File)
	}
	if !slices.Equal(m.req.Stores, r.Stores) || !slices.Equal(m.req.Mirrors, r.Mirrors) {
		if err := m.source.set(m.meta, r.Stores, r.Mirrors, s.storeOptions()); err != nil {
			return err
		}
		m.req.Stores, m.req.Mirrors = r.Stores, r.Mirrors
	}
	if r.Layer != "" && m.req.Layer != r.Layer {
		m.req.Layer = r.Layer
		return m.mount.Complete(r.Layer)
	}
	return nil
}

// start reads the flist and serves it.
func (s *Server) start(ctx context.Context, m *mounted) (err error) {
	r := m.req
	l, src, err := s.open(ctx, r.File, r.Stores, r.Mirrors)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			src.close()
		}
	}()
	if err := l.ResolveOwners(ctx, s.fetcher(src)); err != nil {
		return fmt.Errorf("read owners in %s: %w", r.File, err)
	}
	log := s.cfg.Log.With("mount", r.ID)
	served, err := mount.New(mount.Config{
		List: l, View: s.cache.View(src), StateDir: r.StateDir, OrderFile: r.OrderFile, Layer: r.Layer, DropSuid: r.DropSuid,
		Prefetch: prefetch(r.Prefetch), Conn: r.Conn, Deadline: s.cfg.Deadline, Log: log,
		Failed: func(path, message string) {
			s.events.tell(flistapi.Event{Mount: r.ID, Kind: flistapi.EventError, Path: path, Message: message})
		},
		Completed: func() { s.events.tell(flistapi.Event{Mount: r.ID, Kind: flistapi.EventComplete}) },
		Lost:      func() { s.events.tell(flistapi.Event{Mount: r.ID, Kind: flistapi.EventLost}) },
	})
	if err != nil {
		return err
	}
	fd, err := takeDescriptor(r.PID, r.FD)
	if err != nil {
		return err
	}
	// The mount lives as long as the server, not as the call.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.source, m.meta, m.mount, m.cancel = src, l.Meta, served, cancel
	s.wg.Go(func() {
		defer close(m.done)
		defer src.close()
		defer cancel()
		m.err = served.Run(run, fd)
		log.Info("not served any more", "reason", m.err)
	})
	return nil
}

func prefetch(p flistapi.Prefetch) mount.Prefetch {
	switch p {
	case flistapi.PrefetchRecorded:
		return mount.PrefetchRecorded
	case flistapi.PrefetchAll:
		return mount.PrefetchAll
	case flistapi.PrefetchNone:
	}
	return mount.PrefetchNone
}

// open reads an flist and routes to its stores.
func (s *Server) open(ctx context.Context, file string, stores, mirrors []string) (*flist.List, *source, error) {
	l, err := flist.Open(ctx, file)
	if err != nil {
		return nil, nil, err
	}
	src := &source{}
	if err := src.set(l.Meta, stores, mirrors, s.storeOptions()); err != nil {
		return nil, nil, err
	}
	return l, src, nil
}

// storeOptions: the patience of the stores ends before that of the reader, so that what is told is their reason; and all
// mounts together keep to the limits of a store, and know of its failures.
func (s *Server) storeOptions() store.Options {
	return store.Options{Patience: s.cfg.Deadline * 9 / 10, Share: &s.share}
}

// takeDescriptor copies a descriptor of another process.
func takeDescriptor(pid, fd int) (int, error) {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, errs.E(errs.Unavailable, "process %d, which has the FUSE connection: %w", pid, err)
	}
	defer unix.Close(p)
	got, err := unix.PidfdGetfd(p, fd, 0)
	if err != nil {
		return -1, errs.E(errs.Unavailable, "take descriptor %d of process %d: %w", fd, pid, err)
	}
	return got, nil
}

// forget drops m if it still is the mount of that id.
func (s *Server) forget(id string, m *mounted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mounts[id] == m {
		delete(s.mounts, id)
	}
}

func (s *Server) unmount(_ context.Context, r flistapi.Ref) error {
	s.mu.Lock()
	m := s.mounts[r.ID]
	delete(s.mounts, r.ID)
	s.mu.Unlock()
	if m == nil {
		return nil
	}
	<-m.up
	if m.mount != nil {
		m.cancel()
		<-m.done
	}
	return os.RemoveAll(m.req.StateDir)
}

func (s *Server) complete(_ context.Context, r flistapi.CompleteRequest) error {
	for _, m := range s.started() {
		if m.req.ID == r.ID {
			s.mu.Lock()
			m.req.Layer = r.Layer
			s.mu.Unlock()
			return m.mount.Complete(r.Layer)
		}
	}
	return errs.E(errs.NotFound, "no mount %q", r.ID)
}

func (s *Server) list(context.Context, struct{}) ([]flistapi.MountStatus, error) {
	all := s.started()
	slices.SortFunc(all, func(a, b *mounted) int { return cmp.Compare(a.req.ID, b.req.ID) })
	list := make([]flistapi.MountStatus, len(all))
	for i, m := range all {
		st := m.mount.Status()
		list[i] = flistapi.MountStatus{
			ID: m.req.ID, Fetched: st.Fetched, Total: st.Total, Complete: st.Complete, Reads: st.Reads, Bytes: st.Bytes,
			Passed: st.Passed, Failed: st.Failed, InFlight: st.InFlight, Stuck: st.Stuck, Gone: st.Gone,
		}
		if e := st.LastError; e != nil {
			list[i].LastError = &flistapi.ReadError{Path: e.Path, Message: e.Message, Time: e.Time}
		}
	}
	return list, nil
}

// endMounts leaves all mounts to the next server.
func (s *Server) endMounts() {
	for _, m := range s.started() {
		m.cancel()
	}
	s.wg.Wait()
}

// started are the mounts that are not still being made.
func (s *Server) started() (all []*mounted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mounts {
		select {
		case <-m.up:
			if m.mount != nil {
				all = append(all, m)
			}
		default:
		}
	}
	return all
}

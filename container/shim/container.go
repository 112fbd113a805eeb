//go:build linux && cgo

package shim

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// container is one that runs, is held, or has ended and waits for Delete.
type container struct {
	id  string
	dir string // RUN_DIR/shim/ID

	// life is held for writing by what makes, releases or removes the
	// container, for reading by what needs it to stay.
	life sync.RWMutex

	mu       sync.Mutex // guards the rest
	made     bool       // false while Run is at it: the container is not listed yet
	deleting bool
	gone     bool // removed; who waited for life finds nothing
	rec      record
	exit     *shimapi.Exit
	first    *task
	gate     *gate // of a held container
	input    int   // what Attach hands out: the master of its terminal, or the writing end of its open stdin; -1: neither
	tty      bool  // it is the former
	jobs     map[string]*task
}

// task is one process we watch: a container's first, or a job.
type task struct {
	c     *container
	job   string // empty: the first
	rec   jobRecord
	pidfd int
	own   bool          // our child; else one adopted, which the reaper buries
	stray bool          // adopted, and not the reaper's either: both its parents died
	out   []*stream     // stdout and stderr
	oom   uint64        // kills in the container when it started
	done  chan struct{} // closed when exit is recorded
	exit  *shimapi.Exit // guarded by c.mu
}

func (s *Server) newContainer(id string) *container {
	return &container{id: id, dir: s.containerDir(id), jobs: map[string]*task{}, input: -1}
}

// reserve takes id for a container in the making, locked for life.
func (s *Server) reserve(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.quitting:
		return nil, errs.E(errs.Unavailable, "buoy-shim is about to end")
	case s.containers[id] != nil:
		return nil, errs.E(errs.Exists, "container %q exists", id)
	}
	c := s.newContainer(id)
	c.life.Lock()
	s.containers[id] = c
	return c, nil
}

// release forgets a container that is removed, or was never made.
func (s *Server) unreserve(c *container) {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	s.mu.Lock()
	if s.containers[c.id] == c {
		delete(s.containers, c.id)
	}
	s.mu.Unlock()
}

// find is the container of that id, in the making or not, or nil.
func (s *Server) find(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[id]
}

// alive is a made container with its life lock held for reading.
func (s *Server) alive(id string) (*container, error) {
	c := s.find(id)
	if c == nil {
		return nil, errs.E(errs.NotFound, "no container %q", id)
	}
	c.life.RLock()
	c.mu.Lock()
	ok := c.made && !c.gone && !c.deleting
	c.mu.Unlock()
	if !ok {
		c.life.RUnlock()
		return nil, errs.E(errs.NotFound, "no container %q", id)
	}
	return c, nil
}

// status is worked out from what is set; c.mu is held.
func (c *container) status() shimapi.Status {
	switch {
	case c.exit != nil:
		return shimapi.Stopped
	case c.rec.Phase == phaseHeld:
		return shimapi.Held
	}
	return shimapi.Running
}

func (c *container) view() (shimapi.Container, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made || c.gone {
		return shimapi.Container{}, false
	}
	v := shimapi.Container{
		ID: c.id, Launch: c.rec.Launch, Status: c.status(), Process: c.rec.Process,
		Started: c.rec.Started, Exit: c.exit, Cgroups: c.rec.Cgroups,
	}
	for _, name := range slices.Sorted(maps.Keys(c.jobs)) {
		t := c.jobs[name]
		if t.rec.Phase == phaseMaking {
			continue
		}
		v.Jobs = append(v.Jobs, shimapi.Job{
			Job: name, Args: t.rec.Args, Process: t.rec.Process, Started: t.rec.Started, Exit: t.exit,
		})
	}
	return v, true
}

func (s *Server) all() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.containers))
}

func (s *Server) list() []shimapi.Container {
	var l []shimapi.Container
	for _, c := range s.all() {
		if v, ok := c.view(); ok {
			l = append(l, v)
		}
	}
	slices.SortFunc(l, func(a, b shimapi.Container) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return l
}

// forget drops an ended job.
func (s *Server) forget(r shimapi.JobRef) error {
	c, err := s.alive(r.ID)
	if err != nil {
		return err
	}
	defer c.life.RUnlock()
	c.mu.Lock()
	t := c.jobs[r.Job]
	running := t != nil && t.exit == nil
	if t != nil && !running {
		delete(c.jobs, r.Job)
	}
	c.mu.Unlock()
	switch {
	case t == nil:
		return errs.E(errs.NotFound, "no job %q in container %q", r.Job, r.ID)
	case running:
		return errs.E(errs.Conflict, "job %q of container %q still runs", r.Job, r.ID)
	}
	s.dropOutput(t)
	return removeAll(c.jobDir(r.Job))
}

// started is the moment a process was let go.
func started() time.Time { return time.Now().UTC() }

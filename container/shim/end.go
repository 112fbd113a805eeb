//go:build linux && cgo

package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// pidfdSignalGroup is PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9.
const pidfdSignalGroup = 4

// signal signals the first process or a job's group. The descriptor makes sure
// that it is the process we mean.
func (s *Server) signal(r shimapi.SignalRequest) error {
	c, err := s.alive(r.ID)
	if err != nil {
		return err
	}
	defer c.life.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.first
	if r.Job != "" {
		t = c.jobs[r.Job]
	}
	if t == nil || t.exit != nil || t.pidfd < 0 || t.rec.Phase == phaseMaking {
		return errs.E(errs.NotFound, "container %q has no running job %q", r.ID, r.Job)
	}
	sig := unix.Signal(r.Signal)
	if r.Job == "" {
		err = unix.PidfdSendSignal(t.pidfd, sig, nil, 0)
	} else {
		err = signalGroup(t, sig)
	}
	switch {
	case errors.Is(err, unix.ESRCH):
		return errs.E(errs.NotFound, "process %d of container %q has ended", t.rec.PID, r.ID)
	case errors.Is(err, unix.EINVAL):
		return errs.E(errs.Invalid, "there is no signal %d", r.Signal)
	case err != nil:
		return fmt.Errorf("signal process %d of container %q: %w", t.rec.PID, r.ID, err)
	}
	return nil
}

// signalGroup signals the group that the job leads. On kernels without the
// flag the pid is safe to use while the leader is not buried, which only
// finish does, and after the descriptor said that it lives.
func signalGroup(t *task, sig unix.Signal) error {
	err := unix.PidfdSendSignal(t.pidfd, sig, nil, pidfdSignalGroup)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.PidfdSendSignal(t.pidfd, 0, nil, 0); err != nil {
		return err
	}
	return unix.Kill(-t.rec.PID, sig)
}

// kill ends every process now.
func (s *Server) kill(ctx context.Context, id string) error {
	c, err := s.alive(id)
	if err != nil {
		return err
	}
	defer c.life.RUnlock()
	return s.killAll(ctx, c)
}

// endLimit is how long the records of killed processes may take.
const endLimit = drainLimit + lostLimit + 3*time.Second

// killAll returns when nothing is left and all ends are recorded.
func (s *Server) killAll(ctx context.Context, c *container) error {
	c.mu.Lock()
	tasks := make([]*task, 0, len(c.jobs)+1)
	if c.first != nil {
		tasks = append(tasks, c.first)
	}
	for _, t := range c.jobs {
		if t.pidfd >= 0 {
			tasks = append(tasks, t)
		}
	}
	paths := c.rec.Cgroups
	c.mu.Unlock()
	if err := killCgroup(paths); err != nil {
		return fmt.Errorf("kill container %q: %w", c.id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	for _, t := range tasks {
		select {
		case <-t.done:
		case <-ctx.Done():
			return errs.E(errs.Unavailable, "container %q is killed, but the end of process %d was not seen", c.id, t.rec.PID)
		}
	}
	return nil
}

// delete removes a container whatever its state. A call that fails can be
// made again; a shim that dies in between finishes it when it is back.
func (s *Server) delete(ctx context.Context, id string) error {
	defer s.work.Add(1)
	c := s.find(id)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	c.deleting = true // no new job from here on
	c.mu.Unlock()
	if err := s.lockLife(ctx, c); err != nil {
		return err
	}
	defer c.life.Unlock()
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return nil
	}
	if err := s.remove(ctx, c); err != nil {
		return fmt.Errorf("delete container %q: %w", id, err)
	}
	s.unreserve(c)
	return nil
}

// clearStuck tries again to remove what undoLeft could not. It is in no list,
// so nobody else will.
func (s *Server) clearStuck(ctx context.Context, c *container) error {
	c.mu.Lock()
	stuck := c.deleting && !c.made && !c.gone
	c.mu.Unlock()
	if !stuck {
		return nil
	}
	return s.delete(ctx, c.id)
}

// lockLife gets hold of a container that others start or use. What they wait
// for is killed, so that this ends.
func (s *Server) lockLife(ctx context.Context, c *container) error {
	for wait := time.Millisecond; !c.life.TryLock(); wait = min(2*wait, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		c.mu.Lock()
		paths := c.rec.Cgroups
		c.mu.Unlock()
		if _, err := killOnce(paths); err != nil {
			return err
		}
	}
	return nil
}

// remove does the work of delete; c.life is held.
func (s *Server) remove(ctx context.Context, c *container) error {
	c.mu.Lock()
	c.rec.Phase = phaseDeleting
	rec := c.rec
	g := c.gate
	c.gate = nil
	c.mu.Unlock()
	if err := c.markDeleting(rec); err != nil {
		return err
	}
	s.cfg.Fail("delete:marked")
	if g != nil {
		g.close()
	}
	if err := s.killAll(ctx, c); err != nil {
		return err
	}
	s.cfg.Fail("delete:killed")
	c.mu.Lock()
	tasks := []*task{c.first}
	for _, t := range c.jobs {
		tasks = append(tasks, t)
	}
	c.mu.Unlock()
	for _, t := range tasks {
		if t != nil {
			s.dropOutput(t)
		}
	}
	s.cfg.Fail("delete:dropped")
	return s.sweep(c)
}

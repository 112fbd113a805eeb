//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// exec starts a job. Its program runs only after its identity is on disk: a
// shim that dies before leaves a closed gate, at which buoy-init gives up.
// With files, which are the caller's, it gets those instead of a log.
func (s *Server) exec(r shimapi.ExecRequest, files fileList) (p shimapi.Process, err error) {
	s.warmer.warm()
	defer s.work.Add(1)
	if !validName(r.Job) || r.Process == nil || len(r.Process.Args) == 0 {
		return p, errs.E(errs.Invalid, "job %q: needs a name of letters, digits and _+-., and a command", r.Job)
	}
	ends, err := endsOf(files, r.Process.Terminal)
	if err != nil {
		return p, err
	}
	c, err := s.alive(r.ID)
	if err != nil {
		return p, err
	}
	defer c.life.RUnlock()
	t, err := c.newJob(&r)
	if err != nil {
		return p, err
	}
	err = s.startJob(t, &r, ends)
	if err != nil {
		c.mu.Lock()
		delete(c.jobs, r.Job)
		stopped := c.exit != nil || c.deleting
		c.mu.Unlock()
		s.dropOutput(t)
		err = errors.Join(err, removeAll(c.jobDir(r.Job)))
		if stopped {
			return p, errs.E(errs.Conflict, "container %q ended while job %q was starting: %w", r.ID, r.Job, err)
		}
		return p, fmt.Errorf("start job %q in container %q: %w", r.Job, r.ID, err)
	}
	return t.rec.Process, nil
}

// newJob takes the job's name.
func (c *container) newJob(r *shimapi.ExecRequest) (*task, error) {
	t := &task{c: c, job: r.Job, pidfd: -1, own: true, done: make(chan struct{})}
	t.rec = jobRecord{Phase: phaseMaking, Args: r.Process.Args, Log: r.Log}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.status() != shimapi.Running:
		return nil, errs.E(errs.Conflict, "container %q does not run, it is %s", c.id, c.status())
	case c.jobs[r.Job] != nil:
		return nil, errs.E(errs.Exists, "container %q has a job %q", c.id, r.Job)
	case c.rec.Classic && r.Seccomp == "" || !c.rec.Classic && r.Seccomp != "" && !r.Process.NoNewPrivileges:
		return nil, errs.E(errs.Invalid, "job %q: with seccomp, no_new_privileges must be as in its container", r.Job)
	}
	t.oom = oomKills(c.rec.Cgroups)
	t.rec.OOM = t.oom
	c.jobs[r.Job] = t
	return t, nil
}

func (s *Server) startJob(t *task, r *shimapi.ExecRequest, ends processEnds) error {
	if err := os.MkdirAll(t.c.jobDir(t.job), 0o700); err != nil {
		return err
	}
	if err := write(t.c.jobDir(t.job), t.rec.Phase, t.rec); err != nil {
		return err
	}
	if err := lookUpInside(t.c.rec.Process, r); err != nil {
		return err
	}
	g, err := newGate()
	if err != nil {
		return err
	}
	defer g.close()
	if err := s.enter(t, r, ends, g); err != nil {
		return err
	}
	err = s.letJobGo(t, g)
	if err != nil {
		_ = unix.PidfdSendSignal(t.pidfd, unix.SIGKILL, nil, 0)
		_, werr := waitPIDFD(t.pidfd, 0)
		unix.Close(t.pidfd)
		return errors.Join(err, werr)
	}
	return s.exits.add(t, s.recordEnd)
}

// enter has libcontainer start buoy-init in the container.
func (s *Server) enter(t *task, r *shimapi.ExecRequest, ends processEnds, g *gate) error {
	lc, err := libcontainer.Load(s.lcDir(), t.c.id)
	if err != nil {
		return fmt.Errorf("load the container: %w", err)
	}
	if ends == (processEnds{}) {
		ends, err = s.openOutput(t)
		if err == nil {
			ends.stdin, err = openStdin(r.Stdin)
		}
	}
	defer ends.close()
	if err == nil {
		config := lc.Config()
		err = ends.giveTo(&config)
	}
	if err != nil {
		return err
	}
	p, files, err := s.stub(r.Process, stubOptions{seccomp: r.Seccomp, classic: t.c.rec.Classic, gate: g, ends: ends})
	if err != nil {
		return err
	}
	defer files.close()
	late := time.AfterFunc(startLimit, func() { s.endStages(t.c) })
	err = lc.Start(p)
	inTime := late.Stop()
	if err != nil {
		s.buryStages()
		if !inTime {
			return errHeldUp
		}
		return explain(err)
	}
	g.closeChild()
	pid, err := p.Pid()
	if err != nil {
		return err
	}
	return t.identify(pid)
}

func (s *Server) letJobGo(t *task, g *gate) error {
	s.cfg.Fail("exec:started")
	if err := g.file.SetReadDeadline(time.Now().Add(startLimit)); err != nil {
		return err
	}
	if err := g.awaitReady(); err != nil {
		return err
	}
	rec := t.rec
	rec.Phase, rec.Started = phaseRunning, started()
	if err := write(t.c.jobDir(t.job), rec.Phase, rec); err != nil {
		return err
	}
	s.cfg.Fail("exec:recorded")
	if err := g.letGo(); err != nil {
		return err
	}
	if err := g.awaitExec(nameOf(rec.Args)); err != nil {
		return err
	}
	t.c.mu.Lock()
	t.rec = rec
	t.c.mu.Unlock()
	return nil
}

// lookUpInside looks r's user up in the running container's own root.
func lookUpInside(first shimapi.Process, r *shimapi.ExecRequest) error {
	if r.User == "" {
		return nil
	}
	root, err := unix.Open("/proc/"+strconv.Itoa(first.PID)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	// The pid was the container's only if it is so still.
	if start, err := startTime(first.PID); err != nil || start != first.StartTime {
		return errs.E(errs.Conflict, "container %q has ended", r.ID)
	}
	return lookUp(root, r.User, r.Process)
}

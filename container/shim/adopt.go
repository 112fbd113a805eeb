//go:build linux && cgo

package shim

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// adopt takes over what earlier shims left: finished and running containers
// become ours, half-made and half-removed ones are removed. kept is what the
// reaper had in store; what nobody needs is dropped.
func (s *Server) adopt(ctx context.Context, kept map[string]int) error {
	entries, err := os.ReadDir(s.stateDir())
	if err != nil {
		return err
	}
	if err := s.ends.read(); err != nil {
		return err
	}
	for _, e := range entries {
		c := s.newContainer(e.Name())
		if err := unmountRoot(c.rootfs()); err != nil {
			s.log.Error("unmount a root left behind", "container", c.id, "error", err)
		}
		s.adoptOne(ctx, c, kept)
	}
	s.adoptFuse(kept)
	s.dropUnknown(kept)
	s.removeUnknown()
	return nil
}

// adoptOne makes one container of the state directory ours, or removes it.
func (s *Server) adoptOne(ctx context.Context, c *container, kept map[string]int) {
	phase, err := furthest(c.dir, &c.rec)
	c.rec.Phase = phase
	switch {
	case err != nil || c.rec.Phase == phaseMaking || c.rec.Phase == phaseDeleting:
		s.undoLeft(c, err)
		return
	}
	c.made = true
	s.adoptInput(c, kept)
	c.first = s.adoptTask(ctx, c, "", jobRecord{
		Phase: c.rec.Phase, Args: c.rec.Args, Started: c.rec.Started, Log: c.rec.Log, Process: c.rec.Process,
	}, kept)
	c.exit = c.first.exit
	if c.rec.Phase == phaseHeld && c.exit == nil {
		s.adoptGate(c, kept)
	}
	jobs, err := os.ReadDir(c.jobsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("list jobs", "container", c.id, "error", err)
	}
	for _, e := range jobs {
		var rec jobRecord
		if _, err := furthest(c.jobDir(e.Name()), &rec); err != nil || rec.Phase == phaseMaking {
			// Its gate closed with the shim that was starting it.
			_ = removeAll(c.jobDir(e.Name()))
			continue
		}
		c.jobs[e.Name()] = s.adoptTask(ctx, c, e.Name(), rec, kept)
	}
	s.mu.Lock()
	s.containers[c.id] = c
	s.mu.Unlock()
}

// undoLeft removes a container that was never finished, or never finished
// being removed. What cannot be removed yet stays as one that is being
// deleted: Delete tries again.
func (s *Server) undoLeft(c *container, err error) {
	if err != nil {
		s.log.Warn("a container's record cannot be read, what is left of it is removed", "container", c.id, "error", err)
	}
	err = killCgroup(c.rec.Cgroups)
	if err == nil {
		err = s.sweep(c)
	}
	if err == nil {
		s.log.Info("removed a half-made or half-removed container", "container", c.id)
		return
	}
	s.log.Error("remove a half-made container", "container", c.id, "error", err)
	c.deleting = true
	s.mu.Lock()
	s.containers[c.id] = c
	s.mu.Unlock()
}

// adoptTask finds out what became of a process and watches it on.
func (s *Server) adoptTask(ctx context.Context, c *container, job string, rec jobRecord, kept map[string]int) *task {
	t := &task{c: c, job: job, rec: rec, pidfd: -1, oom: rec.OOM, done: make(chan struct{})}
	s.adoptOutput(t, kept)
	if e := loadExit(t.exitFile()); e != nil {
		s.logs.drain(drainLimit, t.out...)
		t.ended(e)
		return t
	}
	if c.rec.Boot != s.boot {
		s.lost(t)
		return t
	}
	fd, err := adoptable(rec.Process)
	if err == nil {
		t.pidfd = fd
		if ppid, err := parentOf(rec.PID); err == nil {
			t.stray = ppid != os.Getppid()
		}
		if err = s.exits.add(t, s.recordEnd); err == nil {
			return t
		}
	}
	// It ended while no shim ran. The reaper may be about to write it down.
	if err := s.ends.read(); err != nil {
		s.log.Error("read the exit journal", "error", err)
	}
	st, ok := s.ends.find(ctx, rec.Process, 0)
	if !ok {
		s.lost(t)
		return t
	}
	e := exitOf(st)
	e.OOM = oomKills(c.rec.Cgroups) > t.oom
	s.settled(t, e)
	return t
}

// ended is for an exit that is on disk.
func (t *task) ended(e *shimapi.Exit) {
	t.exit = e
	close(t.done)
}

func (s *Server) lost(t *task) {
	s.settled(t, shimapi.Exit{Code: 255, Lost: true, At: time.Now().UTC()})
}

// settled records an end that fell into the gap. No watcher is there yet: the
// snapshot tells it.
func (s *Server) settled(t *task, e shimapi.Exit) {
	s.logs.drain(drainLimit, t.out...)
	if err := t.saveExit(e); err != nil {
		s.log.Error("record an exit", "container", t.c.id, "job", t.job, "error", err)
	}
	t.ended(&e)
}

// adoptOutput takes t's pipes back and finishes what the last shim was writing.
func (s *Server) adoptOutput(t *task, kept map[string]int) {
	file, err := openLog(t.rec.Log, 2)
	if err != nil {
		s.log.Error("open a log again", "container", t.c.id, "job", t.job, "error", err)
	}
	for _, name := range []string{"stdout", "stderr"} {
		key := "log:" + t.key() + "/" + name
		fd, ok := kept[key]
		if !ok {
			file.release()
			continue
		}
		delete(kept, key)
		st := &stream{key: t.key() + "/" + name, name: name, fd: fd, file: file, tty: -1, sink: -1}
		if t.job == "" && t.c.tty {
			if err := st.readFrom(t.c.input); err != nil {
				s.log.Error("read a terminal again", "container", t.c.id, "error", err)
			}
		}
		s.logs.repair(st)
		if err := s.logs.add(st); err != nil {
			s.log.Error("read a log pipe again", "container", t.c.id, "error", err)
			continue
		}
		t.out = append(t.out, st)
	}
}

// adoptGate takes a held container's gate back. The shim that died may have
// released it without writing that down.
func (s *Server) adoptGate(c *container, kept map[string]int) {
	fd, ok := kept["gate:"+c.id]
	if !ok {
		return // buoy-init sees the closed gate and ends
	}
	delete(kept, "gate:"+c.id)
	g, err := adoptedGate(fd)
	if err != nil {
		s.log.Error("take a gate back", "container", c.id, "error", err)
		return
	}
	released, failed := g.state()
	if !released && !failed {
		c.gate = g
		return
	}
	g.close()
	c.rec.Phase, c.rec.Started = phaseRunning, started()
	if err := c.save(c.rec); err != nil {
		s.log.Error("record a release", "container", c.id, "error", err)
	}
	_ = s.keeper.drop("gate:" + c.id)
}

// dropUnknown closes descriptors of containers that are no more.
func (s *Server) dropUnknown(kept map[string]int) {
	for name, fd := range kept {
		unix.Close(fd)
		if err := s.keeper.drop(name); err != nil {
			s.log.Error("drop a descriptor", "error", err)
		}
		s.log.Info("dropped a descriptor nobody needs", "name", strings.TrimPrefix(name, "log:"))
	}
}

// removeUnknown removes libcontainer state without a container of ours.
func (s *Server) removeUnknown() {
	entries, _ := os.ReadDir(s.lcDir())
	for _, e := range entries {
		if s.find(e.Name()) == nil {
			_ = removeAll(s.lcDir() + "/" + e.Name())
		}
	}
}

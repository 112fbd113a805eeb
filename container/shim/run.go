//go:build linux && cgo

package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/configs/validate"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// run starts a container or prepares it. The order is what makes it safe to
// die anywhere: a record "making" first, which the next shim removes with all
// it names; then the parts; "running" only when the program has been exec'ed.
func (s *Server) run(ctx context.Context, r shimapi.RunRequest) (p shimapi.Process, err error) {
	s.warmer.warm()
	defer s.work.Add(1)
	if err := checkRun(&r); err != nil {
		return p, err
	}
	if left := s.find(r.ID); left != nil {
		if err := s.clearStuck(ctx, left); err != nil {
			return p, err
		}
	}
	c, err := s.reserve(r.ID)
	if err != nil {
		return p, err
	}
	defer c.life.Unlock()
	m := &making{s: s, c: c, r: r}
	if err := m.make(); err != nil {
		err = fmt.Errorf("start container %q: %w", r.ID, errors.Join(err, m.undo()))
		s.unreserve(c)
		return p, err
	}
	return c.rec.Process, nil
}

func checkRun(r *shimapi.RunRequest) error {
	switch {
	case !validName(r.ID):
		return errs.E(errs.Invalid, "container id %q: use letters, digits and _+-. (128 at most)", r.ID)
	case r.Spec == nil || r.Spec.Process == nil || r.Spec.Linux == nil:
		return errs.E(errs.Invalid, "container %q: the spec lacks process or linux", r.ID)
	case len(r.Spec.Process.Args) == 0 && !r.Init:
		return errs.E(errs.Invalid, "container %q: no command and no init asked for", r.ID)
	case r.Spec.Linux.CgroupsPath == "":
		return errs.E(errs.Invalid, "container %q: the spec has no cgroups path", r.ID)
	case r.Spec.Process.Terminal && r.Stdin:
		return errs.E(errs.Invalid, "container %q: its stdin is a terminal or a pipe", r.ID)
	case len(r.Rootfs.Lower) == 0:
		return errs.E(errs.Invalid, "container %q: the root has no layer", r.ID)
	}
	return nil
}

// making is a container on its way.
type making struct {
	s      *Server
	c      *container
	r      shimapi.RunRequest
	config *configs.Config
	lc     *libcontainer.Container
	gate   *gate
	task   *task
	mount  *rootMount
	ends   processEnds
	master *os.File // where a master arrives
}

func (m *making) make() error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"record", m.record},
		{"root", m.root},
		{"user", m.user},
		{"output", m.output},
		{"start", m.start},
		{"exec", m.exec},
		{"keep", m.keep},
	} {
		if err := step.do(); err != nil {
			return err
		}
		m.s.cfg.Fail("run:" + step.name)
	}
	return nil
}

// record writes down all that must be removed if this comes to nothing.
func (m *making) record() error {
	m.mountSecrets()
	var err error
	if m.config, err = m.s.newConfig(m.c, &m.r); err != nil {
		return err
	}
	paths, err := cgroupPaths(m.config)
	if err != nil {
		return err
	}
	// An undo that failed, of an earlier try, may have left something.
	if err := errors.Join(unmountRoot(m.c.rootfs()), m.c.hideSecrets(), removeAll(m.c.dir)); err != nil {
		return err
	}
	if err := os.MkdirAll(m.c.rootfs(), 0o711); err != nil {
		return err
	}
	if err := errors.Join(writeBundle(m.c.dir, m.r.Spec), m.writeSecrets()); err != nil {
		return err
	}
	m.c.mu.Lock() // Delete may want to know what to kill
	m.c.rec = record{
		Phase: phaseMaking, Boot: m.s.boot, Launch: m.r.Launch, Cgroups: paths, Log: m.r.Log,
		Args: m.r.Spec.Process.Args, Classic: m.config.Seccomp != nil,
	}
	m.c.mu.Unlock()
	return m.c.save(m.c.rec)
}

// root mounts the root, completes it and fills volumes.
func (m *making) root() (err error) {
	if m.mount, err = mountRoot(m.c, m.r.Rootfs, m.r.Spec); err != nil {
		return err
	}
	if err := m.mount.complete(); err != nil {
		return err
	}
	if err := m.mount.addLibraries(m.r.Libraries); err != nil {
		return err
	}
	for _, v := range m.r.Volumes {
		if err := m.mount.fill(v); err != nil {
			return err
		}
	}
	return nil
}

func (m *making) user() error {
	if err := m.mount.lookUp(m.r.User, m.r.Spec.Process); err != nil {
		return err
	}
	return m.giveSecrets()
}

// output opens the log and the pipes; the reaper has their other ends before
// anything can be written.
func (m *making) output() (err error) {
	m.task = &task{c: m.c, pidfd: -1, own: true, done: make(chan struct{})}
	m.task.rec = jobRecord{Args: m.r.Spec.Process.Args, Log: m.r.Log}
	if m.r.Spec.Process.Terminal {
		m.master, m.ends.console, err = masterSocket()
		return err
	}
	if m.ends, err = m.s.openOutput(m.task); err != nil {
		return err
	}
	if m.r.Stdin {
		m.ends.stdin, err = m.s.keepStdin(m.c)
	} else {
		m.ends.stdin, err = openStdin(nil)
	}
	if err != nil {
		return err
	}
	return m.ends.giveTo(m.config)
}

// start runs libcontainer up to the point where its init stage would exec.
func (m *making) start() (err error) {
	defer m.ends.close()
	if m.master != nil {
		defer m.master.Close()
	}
	if m.gate, err = newGate(); err != nil {
		return err
	}
	defer m.gate.closeChild()
	if m.r.Hold {
		err = m.s.keeper.store("gate:"+m.c.id, m.gate.fd)
	} else {
		err = m.gate.letGo()
	}
	if err != nil {
		return err
	}
	// Create does it too, but its answer does not tell this from trouble of the machine.
	if err := validate.Validate(m.config); err != nil {
		return errs.E(errs.Invalid, "read the spec: %w", err)
	}
	if m.lc, err = libcontainer.Create(m.s.lcDir(), m.c.id, m.config); err != nil {
		return trim(err)
	}
	p, files, err := m.s.stub(m.r.Spec.Process, stubOptions{
		init: m.r.Init, seccomp: m.r.Seccomp, classic: m.c.rec.Classic, gate: m.gate, ends: m.ends,
	})
	if err != nil {
		return err
	}
	defer files.close()
	p.Init = true
	if err := m.lc.Start(p); err != nil {
		return explain(err)
	}
	pid, err := p.Pid()
	if err != nil {
		return err
	}
	if err := m.task.identify(pid); err != nil || m.master == nil {
		return err
	}
	return m.s.keepTerminal(m.task, m.master)
}

// exec waits for the program to be exec'ed, or for buoy-init to hold at the
// gate. libcontainer's init stage waits until somebody reads its fifo; that we
// have it open is enough, the gate tells the rest.
func (m *making) exec() error {
	fifo := filepath.Join(m.s.lcDir(), m.c.id, "exec.fifo")
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: fifo, Err: err}
	}
	defer unix.Close(fd)
	if err := m.gate.awaitReady(); err != nil {
		return err
	}
	_ = os.Remove(fifo) // else libcontainer thinks it is not started yet
	m.c.rec.Phase = phaseHeld
	if !m.r.Hold {
		if err := m.gate.awaitExec(nameOf(m.r.Spec.Process.Args)); err != nil {
			return err
		}
		m.c.rec.Phase = phaseRunning
	}
	m.c.rec.Process = m.task.rec.Process
	m.c.rec.Started = started()
	return m.c.save(m.c.rec)
}

// keep makes the container visible. The mounts leave our namespace: the
// container has its own copies, and the next container's need not carry them.
func (m *making) keep() error {
	c, t := m.c, m.task
	t.rec.Started = c.rec.Started
	c.mu.Lock()
	c.first = t
	c.made = true
	if m.r.Hold {
		c.gate = m.gate
	} else {
		m.gate.close()
	}
	c.mu.Unlock()
	if err := errors.Join(m.mount.leave(), c.hideSecrets()); err != nil {
		m.s.log.Error("unmount a root from the shim's namespace", "container", c.id, "error", err)
	}
	return m.s.exits.add(t, m.s.recordEnd)
}

// undo removes what make has made so far.
func (m *making) undo() error {
	if m.gate != nil {
		m.gate.close()
	}
	err := killCgroup(m.c.rec.Cgroups)
	if m.task != nil {
		if m.task.pidfd >= 0 {
			_, werr := waitPIDFD(m.task.pidfd, 0)
			err = errors.Join(err, werr)
			unix.Close(m.task.pidfd)
		}
		m.s.dropOutput(m.task)
	}
	if m.mount != nil {
		err = errors.Join(err, m.mount.leave())
	}
	return errors.Join(err, m.s.sweep(m.c))
}

// release lets a held container exec. It answers at once and writes it down
// after: a shim that dies in between learns from the gate, which the reaper has.
func (s *Server) release(id string) (err error) {
	c := s.find(id)
	if c == nil {
		return errs.E(errs.NotFound, "no container %q", id)
	}
	c.life.Lock()
	defer func() {
		if err != nil {
			c.life.Unlock()
		}
	}()
	c.mu.Lock()
	ok, g, stopped, rec := c.made && !c.gone && !c.deleting, c.gate, c.exit != nil, c.rec
	c.mu.Unlock()
	switch {
	case !ok:
		return errs.E(errs.NotFound, "no container %q", id)
	case g == nil || stopped:
		return errs.E(errs.Conflict, "container %q is not held", id)
	}
	if err := g.letGo(); err != nil {
		return errs.E(errs.Conflict, "release container %q: %w", id, err)
	}
	s.cfg.Fail("release:go")
	if err := g.awaitExec(nameOf(rec.Args)); err != nil {
		return fmt.Errorf("release container %q: %w", id, err)
	}
	rec.Phase, rec.Started = phaseRunning, started()
	c.mu.Lock()
	c.rec, c.gate = rec, nil
	c.mu.Unlock()
	s.exits.workers.Go(func() { // waited for by exits.run
		defer c.life.Unlock()
		g.close()
		if err := errors.Join(c.save(rec), s.keeper.drop("gate:"+id)); err != nil {
			s.log.Error("record a release", "container", id, "error", err)
		}
	})
	return nil
}

func nameOf(args []string) string {
	if len(args) == 0 {
		return "buoy-init"
	}
	return args[0]
}

// sweep removes all that a container leaves in the system, whoever made it and
// however far. Doing it twice is fine.
func (s *Server) sweep(c *container) error {
	err := errors.Join(
		unmountRoot(c.rootfs()), c.hideSecrets(),
		removeCgroup(c.rec.Cgroups),
		removeAll(filepath.Join(s.lcDir(), c.id)),
		s.keeper.drop("gate:"+c.id),
		s.dropInput(c),
	)
	if err != nil {
		return err // the record stays, so that it can be tried again
	}
	return removeAll(c.dir)
}

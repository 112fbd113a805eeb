//go:build linux && cgo

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// exits waits for the end of every task with one epoll: a goroutine that waits
// for one process costs an OS thread each.
type exits struct {
	epfd, wake int

	mu      sync.Mutex // guards tasks, busy
	tasks   map[int32]*pending
	busy    int // ends that are being recorded
	workers sync.WaitGroup
}

type pending struct {
	t      *task
	record func(context.Context, *task)
}

func newExits() (*exits, error) {
	epfd, wake, err := newEpoll()
	return &exits{epfd: epfd, wake: wake, tasks: map[int32]*pending{}}, err
}

// newEpoll has one eventfd in it, by which its loop is woken.
func newEpoll() (epfd, wake int, err error) {
	if epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return -1, -1, fmt.Errorf("epoll_create: %w", err)
	}
	if wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return -1, -1, fmt.Errorf("eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	return epfd, wake, unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, wake, &ev)
}

func ring(wake int) {
	one := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	_, _ = unix.Write(wake, one) // full means rung already
}

func quiet(wake int) {
	var b [8]byte
	_, _ = unix.Read(wake, b[:])
}

// add calls record, in a goroutine, when t's process has ended.
func (e *exits) add(t *task, record func(context.Context, *task)) error {
	e.mu.Lock()
	e.tasks[int32(t.pidfd)] = &pending{t, record}
	e.mu.Unlock()
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(t.pidfd)}
	if err := unix.EpollCtl(e.epfd, unix.EPOLL_CTL_ADD, t.pidfd, &ev); err != nil {
		return fmt.Errorf("watch process %d: %w", t.rec.PID, err)
	}
	return nil
}

// idle is true when no end is being recorded.
func (e *exits) idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.busy == 0
}

func (e *exits) run(ctx context.Context, log *slog.Logger) {
	defer e.workers.Wait()
	defer context.AfterFunc(ctx, func() { ring(e.wake) })()
	evs := make([]unix.EpollEvent, 64)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(e.epfd, evs, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			log.Error("wait for exits", "error", err)
			time.Sleep(time.Second)
		}
		for _, ev := range evs[:max(n, 0)] {
			e.ended(ctx, ev.Fd)
		}
	}
}

func (e *exits) ended(ctx context.Context, fd int32) {
	e.mu.Lock()
	p := e.tasks[fd]
	delete(e.tasks, fd)
	if p != nil {
		e.busy++
	}
	e.mu.Unlock()
	if p == nil {
		return
	}
	e.workers.Go(func() {
		p.record(ctx, p.t)
		e.mu.Lock()
		e.busy--
		e.mu.Unlock()
	})
}

// siginfo is the part of siginfo_t that waitid fills in.
type siginfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

// pPIDFD is P_PIDFD of waitid.
const pPIDFD = 3

// waitPIDFD is the end of a child; it stays a zombie with unix.WNOWAIT.
func waitPIDFD(pidfd, options int) (unix.WaitStatus, error) {
	var si siginfo
	for {
		_, _, e := unix.Syscall6(unix.SYS_WAITID, pPIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&si)),
			uintptr(unix.WEXITED|options), 0, 0)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return 0, e
		}
		const exited, dumped = 1, 3 // CLD_EXITED, CLD_DUMPED
		switch si.code {
		case exited:
			return unix.WaitStatus(uint32(si.status&0xff) << 8), nil
		case dumped:
			return unix.WaitStatus(uint32(si.status&0x7f) | 0x80), nil
		}
		return unix.WaitStatus(uint32(si.status & 0x7f)), nil
	}
}

// exitOf translates a wait status.
func exitOf(st unix.WaitStatus) shimapi.Exit {
	e := shimapi.Exit{At: time.Now().UTC()}
	if st.Signaled() {
		e.Signal = int(st.Signal())
		e.Code = 128 + e.Signal
	} else {
		e.Code = st.ExitStatus()
	}
	return e
}

// drainLimit bounds the wait for output that is still in the pipe. A process
// that outlives its parent may hold the pipe for ever; what it writes later is
// still logged.
const drainLimit = 2 * time.Second

// lostLimit is how long the reaper may take to journal an end that we saw.
const lostLimit = 5 * time.Second

// recordEnd makes t's end known: output complete, exit durable, then buried,
// then told. A shim that dies in between leaves the rest to the next one.
func (s *Server) recordEnd(ctx context.Context, t *task) {
	var e shimapi.Exit
	st, err := s.endOf(ctx, t)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		e = shimapi.Exit{Code: 255, Lost: true, At: time.Now().UTC()}
		s.log.Error("the end of a process was not seen", "container", t.c.id, "job", t.job, "error", err)
	default:
		e = exitOf(st)
	}
	s.finish(t, e)
}

func (s *Server) endOf(ctx context.Context, t *task) (unix.WaitStatus, error) {
	if t.own {
		return waitPIDFD(t.pidfd, unix.WNOWAIT)
	}
	limit := lostLimit
	if t.stray {
		limit = 0
	}
	if st, ok := s.ends.find(ctx, t.rec.Process, limit); ok {
		return st, nil
	}
	return 0, fmt.Errorf("buoy-reaper has no record of process %d", t.rec.PID)
}

// finish records e as the end of t, once.
func (s *Server) finish(t *task, e shimapi.Exit) {
	s.logs.drain(drainLimit, t.out...)
	t.c.mu.Lock()
	e.OOM = oomKills(t.c.rec.Cgroups) > t.oom
	t.c.mu.Unlock()
	s.cfg.Fail("exit:seen")
	if err := t.saveExit(e); err != nil {
		// The event and the memory still have it; a reaper's journal entry
		// would too if we died now, because the zombie is unburied.
		s.log.Error("record an exit", "container", t.c.id, "job", t.job, "error", err)
	}
	s.cfg.Fail("exit:saved")
	if t.own {
		if _, err := waitPIDFD(t.pidfd, 0); err != nil {
			s.log.Error("bury a process", "pid", t.rec.PID, "error", err)
		}
	}
	t.c.mu.Lock()
	if t.pidfd >= 0 {
		unix.Close(t.pidfd)
		t.pidfd = -1
	}
	t.exit = &e
	if t.job == "" {
		t.c.exit = &e
	}
	launch := t.c.rec.Launch
	t.c.mu.Unlock()
	close(t.done)
	s.events.publish(shimapi.Event{ID: t.c.id, Launch: launch, Job: t.job, Exit: &e})
}

package node

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Session is a client's side of a command that was started for it, or of a
// container that it is attached to. Its user closes it.
type Session struct {
	*container.Session

	n    *Node
	b    *box
	job  string // empty: it is the container's own process
	once bool   // the container's stdin ends with the client's

	end  func(shimapi.Exit, error) // the first call counts
	done chan struct{}             // closed when how it has ended is known
	exit shimapi.Exit
	err  error // why it is not
}

func newSession(n *Node, b *box, job string) *Session {
	s := &Session{n: n, b: b, job: job, done: make(chan struct{})}
	var once sync.Once
	s.end = func(exit shimapi.Exit, err error) {
		once.Do(func() {
			s.exit, s.err = exit, err
			close(s.done)
		})
	}
	return s
}

// Wait is how the process has ended. Conflict: the client did not read fast
// enough. Unavailable: the shim has gone, and what the container says with it.
func (s *Session) Wait(ctx context.Context) (container.Exit, error) {
	select {
	case <-s.done:
		return s.exit, s.err
	case <-ctx.Done():
		return shimapi.Exit{}, context.Cause(ctx)
	}
}

// Signal signals the process; of a command, its whole group.
func (s *Session) Signal(ctx context.Context, sig syscall.Signal) error {
	return s.n.cfg.Runtime.Shim().Signal(ctx, shimapi.SignalRequest{ID: s.b.name, Job: s.job, Signal: int(sig)})
}

// ExecSession starts a command in a running container for a client. It is hung
// up on when the session is closed, and killed if it does not end then.
func (n *Node) ExecSession(ctx context.Context, name string, cmd container.Command) (*Session, error) {
	b, err := n.commanded(name, cmd)
	if err != nil {
		return nil, err
	}
	s := newSession(n, b, sessionPrefix+newJobID())
	r, err := n.jobRequest(b, cmd, s.job)
	if err != nil {
		return nil, err
	}
	ended := n.await(name, s.job)
	// Not given up with ctx: what the shim has started has to be ended.
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	if s.Session, err = n.cfg.Runtime.Exec(sctx, r, cmd); err != nil {
		n.awaitNoMore(s.job)
		return nil, err
	}
	n.awaitStarted(s.job)
	n.tellJob(ctx, name, s.job, nil)
	n.background(func(ctx context.Context) {
		select {
		case exit := <-ended:
			s.Ended()
			s.end(exit, nil)
			n.tellJob(ctx, name, s.job, &exit)
			n.forgetUnlisted(ctx, name, s.job)
		case <-ctx.Done():
		}
	})
	return s, nil
}

// Attach makes a client one of those who hear what a container says from now on
// and, if open is asked for, write to its stdin or terminal. A standby can be
// attached to before it runs. lossless makes the container wait for this client;
// any other who lags far behind is cut off.
func (n *Node) Attach(ctx context.Context, name string, open, lossless bool) (*Session, error) {
	b, err := n.find(name)
	if err != nil {
		return nil, err
	}
	s := newSession(n, b, "")
	var status Status
	var run container.Spec
	b.set(func() {
		if status, run = b.status, b.run; status == Running || status == Standby {
			b.sessions[s] = true
		}
	})
	var near *container.Session
	switch {
	case status != Running && status != Standby:
		return nil, errs.E(errs.Conflict, "container %q is %s, not running", name, status)
	case open && !run.Stdin:
		err = errs.E(errs.Conflict, "container %q was created without an open stdin", name)
	default:
		near, err = n.cfg.Runtime.Attach(ctx, name, open, lossless)
	}
	still := false
	b.set(func() {
		if still = b.sessions[s] && err == nil; still {
			s.Session, s.once = near, open && run.StdinOnce
			return
		}
		delete(b.sessions, s)
	})
	switch {
	case err != nil:
		return nil, err
	case !still:
		near.Close()
		return nil, errs.E(errs.Conflict, "container %q has just ended", name)
	}
	n.background(func(ctx context.Context) {
		err := near.Wait(ctx)
		if errors.Is(err, errs.Unavailable) {
			err = errs.E(errs.Unavailable, "buoy-shim has ended; the container runs on, attach to it again")
		}
		if err != nil {
			s.end(shimapi.Exit{}, err)
		}
	})
	return s, nil
}

// CloseStdin ends what the client has to say to the process.
func (s *Session) CloseStdin() {
	s.Session.CloseStdin()
	if !s.once || s.TTY {
		return
	}
	mine := false
	s.b.set(func() {
		if mine = s.b.sessions[s]; !mine {
			return
		}
		for other := range s.b.sessions {
			if other.Session != nil {
				other.Session.CloseStdin()
			}
		}
	})
	if !mine {
		return // that run has ended
	}
	s.n.background(func(ctx context.Context) {
		err := s.n.cfg.Runtime.Shim().CloseStdin(ctx, s.b.name)
		if err != nil && !errors.Is(err, errs.NotFound) && ctx.Err() == nil {
			s.n.cfg.Log.Warn("stdin not closed", "container", s.b.name, "error", err)
		}
	})
}

// Close ends the session, whatever the process does.
func (s *Session) Close() {
	s.CloseStdin()
	s.Session.Close()
	s.b.set(func() { delete(s.b.sessions, s) })
	select {
	case <-s.done:
		return
	default:
	}
	if s.job != "" {
		s.n.background(func(ctx context.Context) { s.n.endUnlisted(ctx, s.b.name, s.job) })
	}
}

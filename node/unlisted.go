package node

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Commands that check health, and those with a client, are jobs of the shim
// which no list of jobs shows, and of which nothing stays: neither a record nor
// a file.
const (
	checkPrefix   = "health-"
	sessionPrefix = "exec-"
)

func isCheck(job string) bool   { return strings.HasPrefix(job, checkPrefix) }
func isSession(job string) bool { return strings.HasPrefix(job, sessionPrefix) }
func unlisted(job string) bool  { return isCheck(job) || isSession(job) }

// waiting is somebody who waits for the end of such a job.
type waiting struct {
	container string
	started   bool // the shim has it
	ended     chan shimapi.Exit
}

// await says that somebody does. The job is not started yet.
func (n *Node) await(name, job string) <-chan shimapi.Exit {
	w := &waiting{container: name, ended: make(chan shimapi.Exit, 1)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.awaited[job] = w
	return w.ended
}

func (n *Node) awaitStarted(job string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.awaited[job]; w != nil { // it may have ended
		w.started = true
	}
}

func (n *Node) awaitNoMore(job string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.awaited, job)
}

func (n *Node) isAwaited(job string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.awaited[job] != nil
}

// unlistedEnded tells who waits for it. Where nobody does, it took too long, or
// another daemon began it.
func (n *Node) unlistedEnded(name, job string, exit shimapi.Exit) {
	n.mu.Lock()
	w := n.awaited[job]
	delete(n.awaited, job)
	n.mu.Unlock()
	if w != nil {
		w.ended <- exit
		return
	}
	n.background(func(ctx context.Context) { n.forgetUnlisted(ctx, name, job) })
}

// settleUnlisted makes good what was missed of such jobs while nobody listened to
// the shim, and ends those of an earlier daemon.
func (n *Node) settleUnlisted(ctx context.Context, sync []shimapi.Container) {
	for _, c := range sync {
		for _, j := range c.Jobs {
			switch {
			case !unlisted(j.Job):
			case j.Exit != nil:
				n.unlistedEnded(c.ID, j.Job, *j.Exit)
			case !n.isAwaited(j.Job):
				n.background(func(ctx context.Context) { n.endUnlisted(ctx, c.ID, j.Job) })
			}
		}
	}
	// Some may have gone with their containers, and some may have come since.
	lost := n.awaitedBut(sync)
	if len(lost) == 0 {
		return
	}
	sync, err := n.cfg.Runtime.Shim().List(ctx)
	if err != nil {
		return // the next watch begins with a new answer
	}
	now := n.awaitedBut(sync)
	for job, name := range lost {
		if _, still := now[job]; still {
			n.unlistedEnded(name, job, shimapi.Exit{Code: 255, Lost: true, At: time.Now()})
		}
	}
}

// awaitedBut has the jobs that are waited for and are not there, and their containers.
func (n *Node) awaitedBut(there []shimapi.Container) map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	absent := map[string]string{}
	for job, w := range n.awaited {
		if w.started && !slices.ContainsFunc(there, func(c shimapi.Container) bool {
			return c.ID == w.container && slices.ContainsFunc(c.Jobs, func(j shimapi.Job) bool { return j.Job == job })
		}) {
			absent[job] = w.container
		}
	}
	return absent
}

// hangUpGrace is how long a command may take to end whose client has gone.
const hangUpGrace = 3 * time.Second

// endUnlisted ends a job that nobody is there for. One that had a client is told
// so first, if it does not know by its terminal or its pipes.
func (n *Node) endUnlisted(ctx context.Context, name, job string) {
	signal := func(sig syscall.Signal) error {
		err := n.cfg.Runtime.Shim().Signal(ctx, shimapi.SignalRequest{ID: name, Job: job, Signal: int(sig)})
		if err != nil && !errors.Is(err, errs.NotFound) && ctx.Err() == nil {
			n.cfg.Log.Warn("command without a client not ended", "container", name, "job", job, "error", err)
		}
		return err
	}
	if isSession(job) {
		if signal(syscall.SIGHUP) != nil {
			return
		}
		select {
		case <-time.After(hangUpGrace):
		case <-ctx.Done():
			return // the next daemon finds it
		}
	}
	_ = signal(syscall.SIGKILL)
}

// forgetUnlisted removes what there is of an ended job. With its container it
// goes by itself.
func (n *Node) forgetUnlisted(ctx context.Context, name, job string) {
	ctx, cancel := aside(ctx)
	defer cancel()
	err := n.cfg.Runtime.Shim().Forget(ctx, name, job)
	switch errs.KindOf(err) {
	case errs.NotFound, errs.Conflict, errs.Unavailable: // the container ends, or the next sight of the shim finds it
		err = nil
	case errs.Exists, errs.Invalid, errs.Forbidden, errs.Internal:
	}
	if err := errors.Join(err, removed(n.checkLog(name, job))); err != nil {
		n.cfg.Log.Warn("ended command not forgotten", "container", name, "job", job, "error", err)
	}
}

// removed removes a file that may not be there.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

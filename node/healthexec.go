package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Commands that check health are jobs of the shim which no list of jobs shows,
// and of which nothing stays: neither a record nor a file.
const checkPrefix = "health-"

// checkOutput bounds what is kept of what such a command says, for the error.
const checkOutput = 4 << 10

func isCheck(job string) bool { return strings.HasPrefix(job, checkPrefix) }

// checkLog is below RUN: it is there for moments, and must not wear a disk.
func (n *Node) checkLog(name, job string) string { return filepath.Join(n.runDir(name), job+".log") }

// execCheck runs a command in a container to its end, or to that of ctx, which
// kills it. Conflict or Unavailable: that says nothing about the container.
func (n *Node) execCheck(ctx context.Context, b *box, args []string) (code int, output string, err error) {
	job := checkPrefix + newJobID()
	ended := make(chan shimapi.Exit, 1)
	n.awaitCheck(job, ended)
	defer n.awaitCheck(job, nil)
	if err := n.startCheck(ctx, b, job, args); err != nil {
		return 0, "", errors.Join(err, removed(n.checkLog(b.name, job)))
	}
	select {
	case exit := <-ended:
		output = n.checkOutput(ctx, b.name, job)
		n.forgetCheck(ctx, b.name, job)
		return exit.Code, output, nil
	case <-ctx.Done():
	}
	n.awaitCheck(job, nil) // its end finds nobody, and has it forgotten
	aside, cancel := aside(ctx)
	defer cancel()
	err = n.cfg.Runtime.Shim().Signal(aside, shimapi.SignalRequest{ID: b.name, Job: job, Signal: int(syscall.SIGKILL)})
	if errors.Is(err, errs.NotFound) { // it has ended just before
		n.forgetCheck(ctx, b.name, job)
	}
	return 0, "", ctx.Err()
}

// startCheck starts the command. Only so many are started at a time: it takes
// more of the machine than most of the commands do.
func (n *Node) startCheck(ctx context.Context, b *box, job string, args []string) error {
	select {
	case n.checking <- struct{}{}:
		defer func() { <-n.checking }()
	case <-ctx.Done():
		return errs.E(errs.Unavailable, "wait for other checks: %w", ctx.Err())
	}
	// Not given up with ctx: what the shim has started has to be ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	return n.startJob(ctx, b, container.Command{Args: args}, job, shimapi.Log{Path: n.checkLog(b.name, job), MaxBytes: checkOutput, Files: 1})
}

// awaitCheck says who is told how a job ends; nil: nobody any more.
func (n *Node) awaitCheck(job string, ended chan<- shimapi.Exit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ended == nil {
		delete(n.checks, job)
		return
	}
	n.checks[job] = ended
}

// checkEnded tells who waits for it. Where nobody does, it took too long, or
// another daemon began it.
func (n *Node) checkEnded(name, job string, exit shimapi.Exit) {
	n.mu.Lock()
	ended, waits := n.checks[job]
	delete(n.checks, job)
	n.mu.Unlock()
	if waits {
		ended <- exit
		return
	}
	n.background(func(ctx context.Context) { n.forgetCheck(ctx, name, job) })
}

// settleChecks makes good what was missed of such jobs while nobody listened to
// the shim, and ends those of an earlier daemon.
func (n *Node) settleChecks(ctx context.Context, sync []shimapi.Container) {
	for _, c := range sync {
		for _, j := range c.Jobs {
			if !isCheck(j.Job) {
				continue
			}
			n.mu.Lock()
			_, waits := n.checks[j.Job]
			n.mu.Unlock()
			switch {
			case j.Exit != nil:
				n.checkEnded(c.ID, j.Job, *j.Exit)
			case !waits:
				err := n.cfg.Runtime.Shim().Signal(ctx, shimapi.SignalRequest{ID: c.ID, Job: j.Job, Signal: int(syscall.SIGKILL)})
				if err != nil && !errors.Is(err, errs.NotFound) && ctx.Err() == nil {
					n.cfg.Log.Warn("health check of an earlier daemon not ended", "container", c.ID, "job", j.Job, "error", err)
				}
			}
		}
	}
}

// checkOutput is what a command said.
func (n *Node) checkOutput(ctx context.Context, name, job string) string {
	var out strings.Builder
	// What cannot be read is not told: the exit code counts.
	_ = container.ReadLogs(ctx, n.checkLog(name, job), container.LogQuery{}, func(l container.LogLine) error {
		out.WriteString(l.Text + "\n")
		return nil
	})
	return out.String()
}

// forgetCheck removes what there is of an ended job. With its container it goes
// by itself.
func (n *Node) forgetCheck(ctx context.Context, name, job string) {
	ctx, cancel := aside(ctx)
	defer cancel()
	err := n.cfg.Runtime.Shim().Forget(ctx, name, job)
	switch errs.KindOf(err) {
	case errs.NotFound, errs.Conflict, errs.Unavailable: // the container ends, or the next sight of the shim finds it
		err = nil
	case errs.Exists, errs.Invalid, errs.Internal:
	}
	if err := errors.Join(err, removed(n.checkLog(name, job))); err != nil {
		n.cfg.Log.Warn("health check not forgotten", "container", name, "job", job, "error", err)
	}
}

// removed removes a file that may not be there.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

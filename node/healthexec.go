package node

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// checkOutput bounds what is kept of what such a command says, for the error.
const checkOutput = 4 << 10

// checkLog is below RUN: it is there for moments, and must not wear a disk.
func (n *Node) checkLog(name, job string) string { return filepath.Join(n.runDir(name), job+".log") }

// execCheck runs a command in a container to its end, or to that of ctx, which
// kills it. Conflict or Unavailable: that says nothing about the container.
func (n *Node) execCheck(ctx context.Context, b *box, args []string) (code int, output string, err error) {
	job := checkPrefix + newJobID()
	ended := n.await(b.name, job)
	defer n.awaitNoMore(job)
	if err := n.startCheck(ctx, b, job, args); err != nil {
		return 0, "", errors.Join(err, removed(n.checkLog(b.name, job)))
	}
	n.awaitStarted(job)
	select {
	case exit := <-ended:
		output = n.checkOutput(ctx, b.name, job)
		n.forgetUnlisted(ctx, b.name, job)
		return exit.Code, output, nil
	case <-ctx.Done():
	}
	n.awaitNoMore(job) // its end finds nobody, and has it forgotten
	aside, cancel := aside(ctx)
	defer cancel()
	err = n.cfg.Runtime.Shim().Signal(aside, shimapi.SignalRequest{ID: b.name, Job: job, Signal: int(syscall.SIGKILL)})
	if errors.Is(err, errs.NotFound) { // it has ended just before
		n.forgetUnlisted(ctx, b.name, job)
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

package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	// jobOutput bounds what is kept of a job's output, the newest of it.
	jobOutput = 1 << 20
	// jobsKept bounds the ended jobs of a container that can still be asked for.
	jobsKept = 100
	// droppedMark behind a log's name is a file that is there when not all of the output is.
	droppedMark = ".dropped"
)

// running is the box of a container that runs.
func (n *Node) running(name string) (*box, error) {
	b, err := n.find(name)
	if err != nil {
		return nil, err
	}
	if s := get(b, func() Status { return b.status }); s != Running {
		return nil, errs.E(errs.Conflict, "container %q is %s, not running", name, s)
	}
	return b, nil
}

// Exec starts a command in a running container and returns at once: the id is
// that of the job.
func (n *Node) Exec(ctx context.Context, name string, cmd container.Command) (string, error) {
	b, err := n.commanded(name, cmd)
	if err != nil {
		return "", err
	}
	return n.exec(ctx, b, cmd)
}

// commanded is the box of a running container that a command is for, which is checked.
func (n *Node) commanded(name string, cmd container.Command) (*box, error) {
	b, err := n.running(name)
	switch {
	case err != nil:
		return nil, err
	case len(cmd.Args) == 0:
		return nil, errs.E(errs.Invalid, "the command is missing")
	}
	return b, container.Spec{Args: cmd.Args, Env: cmd.Env, Cwd: cmd.Cwd, User: cmd.User}.Validate()
}

func (n *Node) exec(ctx context.Context, b *box, cmd container.Command) (string, error) {
	id := newJobID()
	log := n.jobLog(b.spec.Name, id)
	err := n.startJob(ctx, b, cmd, id, shimapi.Log{Path: log, MaxBytes: jobOutput, Files: 2, Dropped: log + droppedMark})
	if err == nil {
		n.tellJob(ctx, b.name, id, nil)
	}
	return id, err
}

// startJob has the shim start a command that is logged.
func (n *Node) startJob(ctx context.Context, b *box, cmd container.Command, id string, log shimapi.Log) error {
	r, err := n.jobRequest(b, cmd, id)
	if err != nil {
		return err
	}
	r.Stdin, r.Log = cmd.Stdin, log
	_, err = n.cfg.Runtime.Shim().Exec(ctx, r)
	return err
}

// jobRequest is a command as the shim understands it.
func (n *Node) jobRequest(b *box, cmd container.Command, id string) (shimapi.ExecRequest, error) {
	run := get(b, func() container.Spec { return b.run })
	run.Args, run.TTY = cmd.Args, cmd.TTY
	run.Env = mergeEnv(b.withSecrets(b.addressed(run.Env)), b.addressed(cmd.Env))
	if cmd.Cwd != "" {
		run.Cwd = cmd.Cwd
	}
	if cmd.User != "" {
		run.User = cmd.User
	}
	run.Mounts, run.Devices = nil, nil
	spec, err := container.Bundle(run, container.Host{})
	if err != nil {
		return shimapi.ExecRequest{}, err
	}
	profile, err := n.cfg.Runtime.Seccomp(run)
	return shimapi.ExecRequest{ID: b.name, Job: id, Process: spec.Process, User: run.User, Seccomp: profile}, err
}

// newJobID is a random UUID, as Zero-OS has them.
func newJobID() string {
	var u [16]byte
	rand.Read(u[:]) // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// Jobs are the jobs of a container, or of all when name is empty, oldest first.
func (n *Node) Jobs(ctx context.Context, name string) ([]container.Job, error) {
	if name != "" {
		if _, err := n.find(name); err != nil {
			return nil, err
		}
	}
	all, err := n.cfg.Runtime.Shim().List(ctx)
	if err != nil {
		return nil, err
	}
	var jobs []container.Job
	for _, c := range all {
		if name != "" && c.ID != name {
			continue
		}
		for _, j := range c.Jobs {
			if unlisted(j.Job) {
				continue
			}
			jobs = append(jobs, container.JobOf(c.ID, j))
		}
	}
	slices.SortFunc(jobs, func(a, b container.Job) int { return a.Started.Compare(b.Started) })
	return jobs, nil
}

// job is one of them, in the container name or, when that is empty, anywhere.
func (n *Node) job(ctx context.Context, name, id string) (container.Job, error) {
	jobs, err := n.Jobs(ctx, name)
	if err != nil {
		return container.Job{}, err
	}
	for _, j := range jobs {
		if j.ID == id {
			return j, nil
		}
	}
	return container.Job{}, errs.E(errs.NotFound, "no job %q", id)
}

// Job is a job and what it has written so far.
func (n *Node) Job(ctx context.Context, name, id string) (container.Job, container.Output, error) {
	j, err := n.job(ctx, name, id)
	if err != nil {
		return j, container.Output{}, err
	}
	out, err := n.output(ctx, j)
	return j, out, err
}

func (n *Node) output(ctx context.Context, j container.Job) (container.Output, error) {
	var stdout, stderr strings.Builder
	path := n.jobLog(j.Container, j.ID)
	err := container.ReadLogs(ctx, path, container.LogQuery{}, func(l container.LogLine) error {
		to := &stdout
		if l.Stream == "stderr" {
			to = &stderr
		}
		to.WriteString(l.Text)
		if !l.Partial {
			to.WriteByte('\n')
		}
		return nil
	})
	if errors.Is(err, errs.NotFound) {
		err = nil // it has written nothing
	}
	_, dropped := os.Stat(path + droppedMark)
	return container.Output{Stdout: stdout.String(), Stderr: stderr.String(), Truncated: dropped == nil}, err
}

// WaitJob is the job when it has ended, or as it is when ctx ends.
func (n *Node) WaitJob(ctx context.Context, name, id string) (container.Job, error) {
	for {
		changed := n.Changed()
		j, err := n.job(context.WithoutCancel(ctx), name, id)
		if err != nil || j.Exit != nil {
			return j, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return j, nil
		}
	}
}

// SignalJob signals the job's process group. NotFound: there is no such job, or it has ended.
func (n *Node) SignalJob(ctx context.Context, name, id string, sig syscall.Signal) error {
	j, err := n.job(ctx, name, id)
	if err != nil {
		return err
	}
	if j.Exit != nil {
		return errs.E(errs.NotFound, "job %q has ended", id)
	}
	return n.cfg.Runtime.Shim().Signal(ctx, shimapi.SignalRequest{ID: j.Container, Job: id, Signal: int(sig)})
}

// KillJobs kills all jobs of a container, or of the node when name is empty.
func (n *Node) KillJobs(ctx context.Context, name string) error {
	jobs, err := n.Jobs(ctx, name)
	if err != nil {
		return err
	}
	var all error
	for _, j := range jobs {
		if j.Exit != nil {
			continue
		}
		err := n.cfg.Runtime.Shim().Signal(ctx, shimapi.SignalRequest{ID: j.Container, Job: j.ID, Signal: int(syscall.SIGKILL)})
		if !errors.Is(err, errs.NotFound) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// trimJobs forgets the oldest ended jobs of a container above jobsKept.
func (n *Node) trimJobs(ctx context.Context, name string) {
	jobs, err := n.Jobs(ctx, name)
	if err != nil {
		return // the container has gone, its jobs with it
	}
	jobs = slices.DeleteFunc(jobs, func(j container.Job) bool { return j.Exit == nil })
	for len(jobs) > jobsKept {
		j := jobs[0]
		jobs = jobs[1:]
		err := n.cfg.Runtime.Shim().Forget(ctx, name, j.ID)
		for _, suffix := range []string{"", ".1", droppedMark} {
			if rm := os.Remove(n.jobLog(name, j.ID) + suffix); !errors.Is(rm, os.ErrNotExist) {
				err = errors.Join(err, rm)
			}
		}
		if err != nil {
			n.cfg.Log.Warn("ended job not forgotten", "container", name, "job", j.ID, "error", err)
		}
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// begin looks after what Load has found, given what the shim has: it adopts
// what runs, sweeps, and has everything else done in the background, for one
// container that waits for a registry must not keep the others waiting.
func (n *Node) begin(ctx context.Context, sync []shimapi.Container) {
	have := n.dropStrays(ctx, sync)
	n.settleUnlisted(ctx, sync)
	if err := n.cfg.Flists.Begin(ctx); err != nil && ctx.Err() == nil {
		n.cfg.Log.Error("what was kept of mounts of flists not removed", "error", err)
	}
	// Before the containers, which need the bridges and their DHCP. It is done
	// once more after the sweep, for what containers unknown to us kept from it.
	if err := n.assertHost(ctx); err != nil && ctx.Err() == nil {
		n.cfg.Log.Warn("bridges not made yet", "error", err)
	}
	var g errgroup.Group
	g.SetLimit(startsAtOnce)
	for _, b := range n.loaded {
		c, there := have[b.spec.Name]
		switch {
		case there && c.Status != shimapi.Stopped:
			g.Go(func() error {
				n.takeOver(ctx, b, c)
				return nil
			})
		case there:
			n.soon(b, func(ctx context.Context) {
				b.set(func() { b.launch, b.exit = c.Launch, c.Exit })
				n.ended(ctx, b)
			})
		default:
			n.soon(b, func(ctx context.Context) { n.boot(ctx, b) })
		}
	}
	_ = g.Wait() // none fails
	n.loaded = nil
	if err := n.sweep(ctx); err != nil && ctx.Err() == nil {
		n.cfg.Log.Error("leftovers not removed", "error", err)
	}
}

// soon does something in the background with a box that is locked, and unlocks it.
func (n *Node) soon(b *box, f func(context.Context)) {
	n.background(func(ctx context.Context) {
		defer b.unlock()
		select {
		case n.slots <- struct{}{}:
			defer func() { <-n.slots }()
			f(ctx)
		case <-ctx.Done():
		}
	})
}

// converge makes good what was missed while the shim was away.
func (n *Node) converge(ctx context.Context, sync []shimapi.Container) {
	have := n.dropStrays(ctx, sync)
	n.settleUnlisted(ctx, sync)
	for _, c := range sync {
		if b, err := n.find(c.ID); err == nil && c.Status == shimapi.Stopped {
			b.set(func() {
				if b.launch == c.Launch {
					b.markEnded(c.Exit)
				}
			})
		}
	}
	for _, b := range n.all() {
		c, there := have[b.name]
		n.background(func(ctx context.Context) {
			if !n.hold(ctx, b) {
				return
			}
			defer b.unlock()
			n.settle(ctx, b, c, there)
		})
	}
}

// dropStrays removes what the shim has of containers that are not known, and
// gives the rest by id.
func (n *Node) dropStrays(ctx context.Context, sync []shimapi.Container) map[string]shimapi.Container {
	have := map[string]shimapi.Container{}
	for _, c := range sync {
		have[c.ID] = c
		if _, err := n.find(c.ID); err == nil {
			continue
		}
		if err := n.shimDelete(ctx, c.ID); err != nil {
			n.cfg.Log.Error("stray container not removed", "container", c.ID, "error", err)
		}
	}
	return have
}

// startsAtOnce bounds how many containers are looked after side by side.
const startsAtOnce = 8

// settle takes in that a container has ended while the shim was away. The
// caller holds the box.
func (n *Node) settle(ctx context.Context, b *box, c shimapi.Container, there bool) {
	var status Status
	var run string
	b.set(func() { status, run = b.status, b.launch })
	if status != Running && status != Standby {
		return
	}
	if there && c.Launch == run {
		if c.Status == shimapi.Stopped {
			n.ended(ctx, b)
		}
		return
	}
	// It may have been started since the shim answered.
	all, err := n.cfg.Runtime.Shim().List(ctx)
	if err != nil {
		return // the next watch begins with a new answer
	}
	if !slices.ContainsFunc(all, func(c shimapi.Container) bool { return c.ID == b.spec.Name && c.Launch == run }) {
		n.ended(ctx, b)
	}
}

// takeOver adopts a container that runs and unlocks it, unless it should not
// run, or cannot be made whole again, which is seen to in the background.
func (n *Node) takeOver(ctx context.Context, b *box, c shimapi.Container) {
	err := n.adopt(ctx, b, c)
	switch {
	case ctx.Err() != nil: // the next daemon adopts it
		b.unlock()
	case err != nil:
		b.set(func() {
			b.launch, b.status, b.process = c.Launch, Running, c.Process
			if b.ended == nil { // its end is waited for, not its grace
				b.ended = make(chan struct{})
			}
		})
		n.soon(b, func(ctx context.Context) {
			n.again(ctx, b, reasonStartFailed, fmt.Errorf("it could not be adopted: %w", err))
		})
	case get(b, func() state.Wanted { return b.rec.Wanted }) == state.Halt:
		n.soon(b, func(ctx context.Context) {
			if err := n.halt(ctx, b, reasonStopped, "stopped through the API"); err != nil {
				n.cfg.Log.Error("container not stopped", "container", b.spec.Name, "error", err)
			}
		})
	default:
		if get(b, func() Status { return b.status }) == Running {
			n.startChecks(ctx, b, get(b, func() time.Time { return b.rec.Started }))
		}
		b.unlock()
	}
	n.announce()
}

// again ends a run that went wrong and starts another.
func (n *Node) again(ctx context.Context, b *box, reason string, why error) {
	n.cfg.Log.Warn("container is restarted", "container", b.spec.Name, "reason", reason, "error", why)
	if err := n.halt(ctx, b, reason, why.Error()); err != nil {
		n.cfg.Log.Error("container not stopped", "container", b.spec.Name, "error", err)
		return
	}
	n.tryStart(ctx, b)
}

// boot starts a container that should run and does not: the machine was off, or
// its last end was not seen to the end.
func (n *Node) boot(ctx context.Context, b *box) {
	ctx = events.ByItself(ctx, "start of the node")
	if err := errors.Join(n.cfg.Runtime.Clean(ctx, b.spec.Name), n.cleanRun(b), n.detachCNI(ctx, b)); err != nil {
		n.cfg.Log.Error("leftovers not removed", "container", b.spec.Name, "error", err)
	}
	rec := b.set(func() {
		if b.rec.Wanted == state.Halt { // what it held may be others' by now
			b.setGPUs(nil)
		}
	})
	switch {
	case n.atBoot(b.spec.Restart, rec):
		b.set(func() {
			if b.rec.Wanted == state.Halt { // "always" has the last word at boot
				b.rec.Wanted, b.rec.Person = state.Run, false
			}
		})
		n.tryStart(ctx, b)
	case rec.Wanted == state.Run:
		const why = `the machine or its runtime went down; by its restart policy, "no", it is not started again`
		n.record(ctx, b, func() {
			b.rec.Wanted, b.rec.Person = state.Halt, false
			b.rec.Finished, b.rec.Reason, b.rec.Message = time.Now(), reasonRebooted, why
		})
		n.tell(ctx, b, events.ContainerStopped, events.Data{Reason: reasonRebooted, Message: why})
	}
}

// atBoot says whether a container that does not run when the daemon starts is
// started. What a person did not stop and what had not ended for good ran until
// the machine went down, or waited for its restart, and runs again, unless its
// policy is an explicit "no".
func (n *Node) atBoot(r container.Restart, rec state.Record) bool {
	switch {
	case rec.Wanted == state.Halt:
		return n.rebooted && r.AtBoot(history(rec))
	case rec.Finished.IsZero():
		return r.Policy != container.RestartNo
	}
	return true
}

func (n *Node) cleanRun(b *box) error {
	err := n.dropRun(b.spec.Name)
	if !b.spec.Keep {
		err = errors.Join(err, n.dropLayer(b.spec.Name))
	}
	return err
}

// tryStart starts a container by policy. When that fails it is tried again
// later: the image, the network or the disk may come back.
func (n *Node) tryStart(ctx context.Context, b *box) {
	before := get(b, func() state.Record { return b.rec })
	rec, err := n.want(ctx, b, func() {
		b.rec.Started, b.rec.Finished = time.Now(), time.Time{}
		b.rec.Reason, b.rec.Message = "", ""
	})
	if err == nil {
		stored := make(chan error, 1)
		go func() { stored <- n.cfg.DB.Put(ctx, rec) }()
		err = n.start(ctx, b, b.spec.Standby, stored)
	}
	if err == nil {
		n.tell(ctx, b, events.ContainerRestarted, events.Data{Reason: before.Reason, Message: before.Message})
	}
	if err == nil || ctx.Err() != nil {
		return // or the next daemon starts it
	}
	n.cfg.Log.Warn("container not started", "container", b.spec.Name, "error", err)
	ctx, cancel := aside(ctx)
	defer cancel()
	now := time.Now()
	n.record(ctx, b, func() {
		b.rec.Finished, b.rec.Reason, b.rec.Message = now, reasonStartFailed, err.Error()
		d := container.Restart{Policy: container.RestartAlways}.Next(history(b.rec), shimapi.Exit{Code: 1, At: now}, now)
		b.rec.Restarts, b.rec.Quick = d.History.Retries, d.History.Quick
		n.startLater(b, d.After)
	})
	n.tell(ctx, b, events.ContainerFailed, events.Data{Reason: reasonStartFailed, Message: err.Error()})
	n.announce()
}

// startLater starts the container after a while. The caller holds b.mu.
func (n *Node) startLater(b *box, after time.Duration) {
	b.status = Restarting
	b.timer = time.AfterFunc(after, func() {
		n.background(func(ctx context.Context) {
			if !n.hold(ctx, b) {
				return
			}
			defer b.unlock()
			if get(b, func() Status { return b.status }) == Restarting {
				n.tryStart(events.ByItself(ctx, "restart policy"), b)
			}
		})
	})
}

// event takes in what the shim says while it is watched.
func (n *Node) event(e shimapi.Event) {
	if unlisted(e.Job) {
		n.unlistedEnded(e.ID, e.Job, *e.Exit)
		return
	}
	defer n.announce()
	if e.Job != "" {
		n.background(func(ctx context.Context) {
			n.tellJob(ctx, e.ID, e.Job, e.Exit)
			n.trimJobs(ctx, e.ID)
		})
		return
	}
	b, err := n.find(e.ID)
	if err != nil {
		return // deleted meanwhile
	}
	mine := false
	b.set(func() {
		if mine = b.launch == e.Launch; mine {
			b.markEnded(e.Exit)
		}
	})
	if !mine {
		return
	}
	n.background(func(ctx context.Context) {
		if !n.hold(ctx, b) {
			return
		}
		defer b.unlock()
		status := Halted
		b.set(func() {
			if b.launch == e.Launch {
				status = b.status
			}
		})
		if status == Running || status == Standby {
			n.ended(ctx, b)
		}
	})
}

// ended does what the restart policy says about a run that has ended by itself,
// and takes it down. The caller holds the box.
func (n *Node) ended(ctx context.Context, b *box) {
	exit := get(b, func() *shimapi.Exit { return b.exit })
	if exit == nil {
		exit = &shimapi.Exit{Code: 255, At: time.Now(), Lost: true}
	}
	decided, after := false, ""
	b.set(func() {
		b.process = shimapi.Process{}
		decided = n.decide(b, *exit)
		after = b.rec.Message
	})
	if !decided { // before it is recorded: a daemon after us tells it again rather than not at all
		n.tellExit(ctx, b, *exit, after)
	}
	n.record(ctx, b, func() {})
	if err := n.takeDown(ctx, b); err != nil && ctx.Err() == nil {
		n.cfg.Log.Error("ended container not taken down", "container", b.spec.Name, "error", err)
	}
	n.announce()
}

// decide writes down how a run ended and what follows. Wanted says whether a
// restart is due. decided: a daemon had done that and did not live to take the
// run down. The caller holds b.mu.
func (n *Node) decide(b *box, exit shimapi.Exit) (decided bool) {
	decided = b.rec.Finished.Equal(exit.At)
	unhealthy := b.rec.Reason == reasonUnhealthy // a daemon did not live to restart it
	b.rec.Finished, b.rec.ExitCode, b.rec.OOM, b.rec.Reason = exit.At, exit.Code, exit.OOM, reasonOf(exit)
	b.status = Halted
	if exit.At.Before(b.parting) {
		b.rec.Wanted, b.rec.Person, b.rec.Reason = state.Halt, true, reasonStopped
	}
	switch {
	case decided && b.rec.Wanted == state.Run:
		n.startLater(b, 0)
	case decided:
	default:
		d := b.spec.Restart.Next(history(b.rec), exit, time.Now())
		if unhealthy {
			d = afterUnhealthy(b.spec.Restart, history(b.rec), time.Now())
		}
		b.rec.Message = d.Reason
		switch {
		case d.Restart:
			b.rec.Restarts, b.rec.Quick = d.History.Retries, d.History.Quick
			n.startLater(b, d.After)
		case b.rec.Wanted == state.Run:
			b.rec.Wanted, b.rec.Person = state.Halt, false
		}
	}
	return decided
}

// history is what the restart policy has to know of a container.
func history(r state.Record) container.History {
	return container.History{Started: r.Started, Retries: r.Restarts, Quick: r.Quick, Stopped: r.Wanted == state.Halt && r.Person}
}

func reasonOf(e shimapi.Exit) string {
	switch {
	case e.Lost:
		return reasonLost
	case e.OOM:
		return reasonOOM
	}
	return reasonExited
}

// sweep removes what containers that are not known have left: directories,
// links and port rules.
func (n *Node) sweep(ctx context.Context) error {
	var all error
	for _, dir := range []string{filepath.Join(n.cfg.Data, "containers"), filepath.Join(n.cfg.Run, "containers")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			all = errors.Join(all, err)
		}
		for _, e := range entries {
			if _, err := n.find(e.Name()); err != nil {
				all = errors.Join(all, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
		}
	}
	live := func(name string) bool {
		_, err := n.find(name)
		return err == nil
	}
	all = errors.Join(all, n.cfg.Runtime.Sweep(ctx, live), n.cfg.Net.Sweep(ctx, live), n.sweepCNI(ctx, live), n.cfg.Flists.Sweep(ctx))
	all = errors.Join(all, n.assertHost(ctx), n.setPorts(ctx))
	n.tidy()
	return all
}

// stopTimers ends those of restarts, and the one of the sampler.
func (n *Node) stopTimers() {
	n.sampler.end()
	for _, b := range n.all() {
		b.set(func() {
			if b.timer != nil {
				b.timer.Stop()
			}
		})
	}
}

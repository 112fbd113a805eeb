package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/node/state"
)

// startsAtOnce bounds how many containers are looked after side by side.
const startsAtOnce = 8

// converge makes what runs what is wanted, given what the shim has: after a
// start of the daemon, a reboot, a crash of either. It adopts what runs as it
// should, starts what should run, ends what should not, and removes what is
// left of containers that are not known.
func (n *Node) converge(ctx context.Context, sync []shimapi.Container, first bool) {
	have := map[string]shimapi.Container{}
	for _, c := range sync {
		have[c.ID] = c
		b, err := n.find(c.ID)
		if err != nil {
			if err := n.shimDelete(ctx, c.ID); err != nil {
				n.cfg.Log.Error("stray container not removed", "container", c.ID, "error", err)
			}
			continue
		}
		if c.Status == shimapi.Stopped {
			b.set(func() {
				if b.launch == c.Launch {
					b.markEnded(c.Exit)
				}
			})
		}
	}
	n.each(func(b *box) {
		if !first && !n.hold(ctx, b) {
			return
		}
		defer b.unlock()
		c, ok := have[b.spec.Name]
		n.settle(ctx, b, c, ok, first)
	})
	if err := n.sweep(ctx); err != nil {
		n.cfg.Log.Error("leftovers not removed", "error", err)
	}
}

// each calls f for every box, several at once.
func (n *Node) each(f func(*box)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, startsAtOnce)
	for _, b := range n.all() {
		slots <- struct{}{}
		wg.Go(func() {
			f(b)
			<-slots
		})
	}
}

// settle makes one container what is wanted of it. The caller holds the box.
func (n *Node) settle(ctx context.Context, b *box, c shimapi.Container, there, first bool) {
	status := get(b, func() Status { return b.status })
	known := there && get(b, func() bool { return b.launch == c.Launch })
	switch {
	case there && !known && !first:
		return // it was started again since the shim answered
	case known && c.Status != shimapi.Stopped:
		return
	case there && c.Status == shimapi.Stopped:
		b.set(func() { b.launch, b.exit = c.Launch, c.Exit })
		n.ended(ctx, b)
	case there:
		n.takeOver(ctx, b, c)
	case first:
		n.boot(ctx, b)
	case status == Running || status == Standby:
		n.ended(ctx, b)
	}
}

// takeOver adopts a container that runs, unless it should not, or cannot be
// made whole again.
func (n *Node) takeOver(ctx context.Context, b *box, c shimapi.Container) {
	err := n.adopt(ctx, b, c)
	if err != nil {
		n.cfg.Log.Warn("container is restarted: it cannot be adopted", "container", b.spec.Name, "error", err)
		b.set(func() { b.launch, b.status = c.Launch, Running })
		n.again(ctx, b, fmt.Errorf("it could not be adopted: %w", err))
		return
	}
	if get(b, func() state.Wanted { return b.rec.Wanted }) == state.Halt {
		if err := n.halt(ctx, b, reasonStopped, "stopped through the API"); err != nil {
			n.cfg.Log.Error("container not stopped", "container", b.spec.Name, "error", err)
		}
	}
}

// again ends a run that went wrong and starts another.
func (n *Node) again(ctx context.Context, b *box, why error) {
	if err := n.halt(ctx, b, reasonStartFailed, why.Error()); err != nil {
		n.cfg.Log.Error("container not stopped", "container", b.spec.Name, "error", err)
		return
	}
	n.tryStart(ctx, b)
}

// boot starts a container that should run and does not: the machine was off, or
// its last end was not seen to the end.
func (n *Node) boot(ctx context.Context, b *box) {
	if err := n.cleanRun(b); err != nil {
		n.cfg.Log.Error("leftovers not removed", "container", b.spec.Name, "error", err)
	}
	rec := get(b, func() state.Record { return b.rec })
	switch n.atBoot(b.spec.Restart, rec) {
	case startNow:
		b.set(func() {
			if b.rec.Wanted == state.Halt { // "always" has the last word at boot
				b.rec.Wanted, b.rec.Person = state.Run, false
			}
		})
		n.tryStart(ctx, b)
	case decide:
		n.decide(ctx, b, shimapi.Exit{Code: rec.ExitCode, OOM: rec.OOM, At: rec.Finished})
	case leave:
		if rec.Wanted == state.Run {
			n.record(ctx, b, func() {
				b.rec.Finished, b.rec.Reason = time.Now(), reasonRebooted
				b.rec.Message = "the machine or its runtime went down; restart policy is no"
			})
		}
	}
}

// bootAction is what to do about a container that does not run when the daemon starts.
type bootAction int

const (
	leave    bootAction = iota
	startNow            // it should run
	decide              // it had ended: its restart policy has the word
)

// atBoot says which. What a person did not stop and what had not ended by
// itself ran until the machine went down, and runs again, unless its policy is
// an explicit "no".
func (n *Node) atBoot(r container.Restart, rec state.Record) bootAction {
	h := history(rec)
	switch {
	case rec.Wanted == state.Halt:
		if n.rebooted && r.AtBoot(h) {
			return startNow
		}
		return leave
	case rec.Finished.IsZero():
		if r.Policy == container.RestartNo {
			return leave
		}
		return startNow
	case rec.Reason == reasonStartFailed || r.AtBoot(h):
		return startNow
	}
	return decide
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
	rec := b.set(func() {
		b.rec.Started, b.rec.Finished = time.Now(), time.Time{}
		b.rec.Reason, b.rec.Message = "", ""
	})
	stored := make(chan error, 1)
	go func() { stored <- n.cfg.DB.Put(ctx, rec) }()
	err := n.start(ctx, b, b.spec.Standby, stored)
	if err == nil {
		return
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
				n.tryStart(ctx, b)
			}
		})
	})
}

// event takes in what the shim says while it is watched.
func (n *Node) event(e shimapi.Event) {
	defer n.announce()
	if e.Job != "" {
		n.background(func(ctx context.Context) { n.trimJobs(ctx, e.ID) })
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

// ended takes down a run that has ended by itself and does what the restart
// policy says. The caller holds the box.
func (n *Node) ended(ctx context.Context, b *box) {
	exit := get(b, func() *shimapi.Exit { return b.exit })
	if exit == nil {
		exit = &shimapi.Exit{Code: 255, At: time.Now(), Lost: true}
	}
	if err := n.takeDown(ctx, b); err != nil {
		n.cfg.Log.Error("ended container not taken down", "container", b.spec.Name, "error", err)
	}
	b.set(func() {
		b.rec.Finished, b.rec.ExitCode, b.rec.OOM = exit.At, exit.Code, exit.OOM
		b.rec.Reason = reasonOf(*exit)
	})
	n.decide(ctx, b, *exit)
	n.announce()
}

// decide does what the restart policy says about a run that ended.
func (n *Node) decide(ctx context.Context, b *box, exit shimapi.Exit) {
	n.record(ctx, b, func() {
		b.status = Halted
		d := b.spec.Restart.Next(history(b.rec), exit, time.Now())
		b.rec.Message = d.Reason
		if d.Restart {
			b.rec.Restarts, b.rec.Quick = d.History.Retries, d.History.Quick
			n.startLater(b, d.After)
		}
	})
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
	live, networked := map[string]bool{}, false
	for _, b := range n.all() {
		live[b.spec.Name] = true
		_, nic := b.spec.defaultNIC()
		networked = networked || nic
	}
	all = errors.Join(all, n.cfg.Runtime.Sweep(ctx, live), n.cfg.Net.Sweep(ctx, live))
	if networked {
		all = errors.Join(all, n.setUpNet(ctx), n.setPorts(ctx))
	}
	return all
}

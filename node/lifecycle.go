package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// Reasons of a status, one word each.
const (
	reasonStopped     = "Stopped"     // by a person
	reasonExited      = "Exited"      // by itself
	reasonOOM         = "OOMKilled"   // by the kernel, for memory
	reasonLost        = "Lost"        // nobody saw it end
	reasonStartFailed = "StartFailed" // it could not be started
	reasonRebooted    = "Rebooted"    // the machine went down under it
	reasonImageLost   = "ImageLost"   // its flist could not be read any more
	reasonUnhealthy   = "Unhealthy"   // its check failed, and says that it is restarted then
	reasonGPULost     = "GPULost"     // a GPU that it had fell off the bus
)

// undoTime bounds the way back from a failed step, which goes on when the
// caller has gone.
const undoTime = 30 * time.Second

// aside is a context for clean-up: it does not end with the caller's.
func aside(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoTime)
}

// Warm prepares the shim for a start that is likely to be asked for now. It
// returns at once.
func (n *Node) Warm(context.Context) {
	n.background(func(ctx context.Context) {
		if err := n.cfg.Runtime.Shim().Warm(ctx); err != nil {
			n.cfg.Log.Debug("warm up", "error", err) // the start itself will say what is wrong
		}
	})
}

// Create makes a container and starts it, or prepares it for Start if the spec
// says Standby. When Create fails, nothing of the container remains.
func (n *Node) Create(ctx context.Context, spec Spec) (err error) {
	if err := spec.Validate(); err != nil {
		return err
	}
	if spec, err = spec.sealed(n.cfg.Keys); err != nil {
		return err
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	b, err := n.reserve(ctx, spec, raw)
	if err != nil {
		return err
	}
	defer b.unlock()
	defer n.announce()
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	undo.Push(func() error {
		ctx, cancel := aside(ctx)
		defer cancel()
		b.set(func() { b.gone = true })
		n.tidy()
		return errors.Join(n.cfg.DB.Delete(ctx, spec.Name), n.forget(b))
	})
	rec := b.set(func() { b.rec.Started = time.Now() })
	stored := make(chan error, 1)
	go func() { stored <- n.cfg.DB.Put(ctx, rec) }()
	err = n.start(ctx, b, spec.Standby, stored)
	if err != nil {
		n.tell(ctx, b, events.ContainerFailed, events.Data{Reason: reasonStartFailed, Message: err.Error()})
		if get(b, func() Status { return b.status }) != Creating { // it had been told to be there
			n.tell(ctx, b, events.ContainerDeleted, events.Data{})
		}
		return fmt.Errorf("create container %s: %w", spec.Name, err)
	}
	undo.Keep()
	return nil
}

// reserve gives the container its name, its addresses, its ports and its GPUs,
// and its caller the box, locked.
func (n *Node) reserve(ctx context.Context, spec Spec, raw []byte) (*box, error) {
	if spec.Run.UserNS {
		if err := passable(n.cfg.Run); err != nil {
			return nil, err
		}
	}
	m, err := n.machineFor(ctx, spec)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, taken := n.boxes[spec.Name]; taken {
		return nil, errs.E(errs.Exists, "container %q exists already on this node", spec.Name)
	}
	if err := n.checkClash(spec); err != nil {
		return nil, err
	}
	gpus, err := n.allot(m, spec, nil, nil)
	if err != nil {
		return nil, err
	}
	had, err := n.give(ctx, spec, nil)
	if err != nil {
		return nil, err
	}
	b := newBox(spec, state.Record{Name: spec.Name, Spec: raw, Wanted: state.Run, Person: true, Created: time.Now()})
	b.setGiven(had)
	b.set(func() { b.setGPUs(gpus) })
	b.status = Creating
	if err := b.lock(ctx); err != nil {
		return nil, err
	}
	n.boxes[spec.Name] = b
	return b, nil
}

// forget removes what is left of a container that does not run and that the
// database has forgotten. Its name is free when nothing is left.
func (n *Node) forget(b *box) error {
	name := b.spec.Name
	err := errors.Join(n.dropRun(name), os.RemoveAll(n.dataDir(name)))
	n.dropKept(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.boxes, name)
	return err
}

// Start starts a container that is halted, or lets a standby run. A container
// that runs is left as it is.
func (n *Node) Start(ctx context.Context, name string) error {
	b, err := n.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer b.unlock()
	switch status := get(b, func() Status { return b.status }); status {
	case Running:
		return nil
	case Standby:
		return n.releaseStandby(ctx, b)
	case Halted, Restarting:
	case Creating, Stopping, Deleting: // only while somebody else holds the lock
		return errs.E(errs.Conflict, "container %q is %s", name, status)
	}
	n.cancelTimer(b)
	stored := make(chan error, 1)
	rec, err := n.want(ctx, b, func() {
		b.rec.Wanted, b.rec.Person, b.rec.Restarts, b.rec.Quick = state.Run, true, 0, 0
		b.rec.Started, b.rec.Finished = time.Now(), time.Time{}
		b.rec.Reason, b.rec.Message, b.rec.ExitCode, b.rec.OOM = "", "", 0, false
	})
	if err == nil {
		go func() { stored <- n.cfg.DB.Put(ctx, rec) }()
		err = n.start(ctx, b, false, stored)
	}
	if err != nil {
		ctx, cancel := aside(ctx)
		defer cancel()
		n.record(ctx, b, func() {
			b.status = Halted
			if !errors.Is(err, errs.Unavailable) { // what is away now may be there at the next boot
				b.rec.Wanted = state.Halt
			}
			b.setGPUs(nil) // for others, until then
			b.rec.Finished, b.rec.Reason, b.rec.Message = time.Now(), reasonStartFailed, err.Error()
		})
		n.tell(ctx, b, events.ContainerFailed, events.Data{Reason: reasonStartFailed, Message: err.Error()})
		n.announce()
		return fmt.Errorf("start container %s: %w", name, err)
	}
	return nil
}

func (n *Node) releaseStandby(ctx context.Context, b *box) error {
	hold := func(yes bool) func() {
		return func() { b.spec.Standby = yes; b.rec.Started = time.Now(); b.respec() }
	}
	// First, so that a daemon after us does not hold it again.
	if err := n.cfg.DB.Put(ctx, b.set(hold(false))); err != nil {
		b.set(hold(true))
		return err
	}
	if err := n.cfg.Runtime.Shim().Release(ctx, b.spec.Name); err != nil {
		ctx, cancel := aside(ctx)
		defer cancel()
		n.record(ctx, b, hold(true))
		return fmt.Errorf("start container %s: %w", b.spec.Name, err)
	}
	b.set(func() { b.status = Running })
	n.tellStart(ctx, b, false)
	n.startChecks(ctx, b, time.Now())
	n.announce()
	return n.startInitProcesses(ctx, b)
}

// respec writes the spec into the record. The caller holds b.mu.
func (b *box) respec() {
	raw, err := json.Marshal(b.spec)
	if err != nil {
		panic("BUG: a spec that was read cannot be written: " + err.Error())
	}
	b.rec.Spec = raw
}

// Stop ends a container for good: it stays halted, over reboots too, until it
// is started again. Its writable layer goes unless the spec keeps it.
func (n *Node) Stop(ctx context.Context, name string) error { return n.stop(ctx, name, false) }

// stop is Stop, or ends the container without a question.
func (n *Node) stop(ctx context.Context, name string, kill bool) error {
	b, err := n.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer b.unlock()
	n.cancelTimer(b)
	before := get(b, func() state.Record { return b.rec })
	rec := b.set(func() { b.rec.Wanted, b.rec.Person = state.Halt, true })
	if err := n.cfg.DB.Put(ctx, rec); err != nil {
		b.set(func() { b.rec = before })
		return err
	}
	message := "stopped through the API"
	if kill {
		message = "killed through the API"
		if err := n.cut(ctx, b); err != nil {
			return fmt.Errorf("kill container %s: %w", name, err)
		}
	}
	return n.halt(ctx, b, reasonStopped, message)
}

// Restart stops and starts a container. One that does not run is started.
func (n *Node) Restart(ctx context.Context, name string) error {
	if err := n.Stop(ctx, name); err != nil {
		return err
	}
	if err := n.Start(ctx, name); err != nil {
		return err
	}
	if b, err := n.find(name); err == nil { // else it has been deleted since
		n.tell(ctx, b, events.ContainerRestarted, events.Data{Reason: reasonStopped})
	}
	return nil
}

// Delete stops a container and removes every trace of it.
func (n *Node) Delete(ctx context.Context, name string) error {
	b, err := n.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer b.unlock()
	n.cancelTimer(b)
	if err := n.cfg.DB.Delete(ctx, name); err != nil {
		return err
	}
	// From here on it is a leftover, which a daemon after us would sweep.
	b.set(func() { b.gone = true })
	was := get(b, func() Status { return b.status })
	if was == Halted || was == Restarting {
		err = errors.Join(n.shimDelete(ctx, name), n.unplug(ctx, b)) // its end may not have been taken down whole
	} else {
		err = n.halt(ctx, b, reasonStopped, "being deleted")
	}
	if err != nil {
		ctx, cancel := aside(ctx)
		defer cancel()
		n.record(ctx, b, func() { b.gone = false })
		return fmt.Errorf("delete container %s: %w", name, err)
	}
	b.set(func() { b.status = Deleting })
	err = n.forget(b)
	n.tell(ctx, b, events.ContainerDeleted, events.Data{})
	n.announce()
	n.tidy()
	return err
}

// halt ends what runs of a container, gracefully as long as the grace lasts and
// the caller waits, and takes down what was made for it.
func (n *Node) halt(ctx context.Context, b *box, reason, message string) error {
	name := b.spec.Name
	was := get(b, func() Status { return b.status })
	if was == Halted {
		return nil
	}
	if was == Running {
		b.set(func() { b.status = Stopping })
		n.announce()
		n.ask(ctx, b)
	}
	ctx, cancel := aside(ctx)
	defer cancel()
	err := n.cut(ctx, b)
	if err == nil {
		err = n.takeDown(ctx, b)
	}
	if err != nil {
		b.set(func() { b.status = was })
		if was == Running {
			n.startChecks(ctx, b, get(b, func() time.Time { return b.rec.Started }))
		}
		n.announce()
		return fmt.Errorf("stop container %s: %w", name, err)
	}
	var code *int
	n.record(ctx, b, func() {
		b.status, b.rec.Reason, b.rec.Message = Halted, reason, message
		b.rec.Finished = time.Now()
		if b.exit != nil {
			b.rec.ExitCode, b.rec.OOM = b.exit.Code, b.exit.OOM
			code = &b.exit.Code
		}
	})
	n.tell(ctx, b, events.ContainerStopped, events.Data{Reason: reason, Message: message, ExitCode: code})
	n.announce()
	if !b.spec.Keep {
		return n.dropLayer(name)
	}
	return nil
}

// ask sends the stop signal and waits for the end, but no longer than the grace.
func (n *Node) ask(ctx context.Context, b *box) {
	sig, grace := get(b, func() container.Spec { return b.run }).Stopping()
	ended := get(b, func() chan struct{} { return b.ended })
	if !container.Heeds(get(b, func() int { return b.process.PID }), sig) {
		return
	}
	err := n.cfg.Runtime.Shim().Signal(ctx, shimapi.SignalRequest{ID: b.spec.Name, Signal: int(sig)})
	if err != nil {
		return // it has ended, or will be killed
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// exitWait bounds the wait for the word of a killed process's end, which comes a
// moment after the end.
const exitWait = 2 * time.Second

// cut kills what is left of a run and waits to hear how it ended.
func (n *Node) cut(ctx context.Context, b *box) error {
	ended := get(b, func() chan struct{} { return b.ended })
	err := n.cfg.Runtime.Shim().Kill(ctx, b.spec.Name)
	if errors.Is(err, errs.NotFound) || errors.Is(err, errs.Unavailable) {
		return nil // nothing is left, or takeDown waits for the shim
	}
	if err != nil || ended == nil {
		return err
	}
	timer := time.NewTimer(n.exitWait)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	return nil
}

// takeDown removes everything that was made for a run of the container.
func (n *Node) takeDown(ctx context.Context, b *box) error {
	name := b.spec.Name
	n.endChecks(b)
	if err := n.shimDelete(ctx, name); err != nil {
		return err
	}
	release := get(b, func() func() { return b.release })
	had := get(b, func() []netcfg.Forward { return b.forward })
	b.set(func() {
		b.release, b.forward, b.process, b.launch, b.from = nil, nil, shimapi.Process{}, "", nil
		b.parting = time.Time{}
		b.markEnded(nil)
	})
	if release != nil {
		release()
	}
	err := n.unplug(ctx, b)
	if len(had) > 0 {
		if perr := n.setPorts(ctx); perr != nil {
			b.set(func() { b.forward = had }) // for the next attempt
			err = errors.Join(err, perr)
		}
	}
	n.tellNet(ctx, b)
	return errors.Join(err, n.dropRun(name))
}

// dropRun removes the files of a run.
func (n *Node) dropRun(name string) error {
	return errors.Join(os.RemoveAll(n.runDir(name)), os.RemoveAll(filepath.Dir(n.jobLog(name, ""))))
}

// shimDelete removes a container from the shim, and what the shim has lost sight
// of. One that its reaper is just starting again is waited for: to delete twice
// is fine.
func (n *Node) shimDelete(ctx context.Context, name string) error {
	for {
		err := n.cfg.Runtime.Shim().Delete(ctx, name)
		if err == nil {
			return n.cfg.Runtime.Clean(ctx, name)
		}
		if !errors.Is(err, errs.Unavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(shimRetry):
		}
	}
}

// markEnded tells those who wait for the run's end. The caller holds b.mu.
func (b *box) markEnded(exit *shimapi.Exit) {
	if exit != nil {
		b.exit = exit
	}
	if b.ended != nil {
		close(b.ended)
		b.ended = nil
	}
	last := shimapi.Exit{Code: 255, Lost: true}
	if b.exit != nil {
		last = *b.exit
	}
	for s := range b.sessions {
		s.end(last, nil)
	}
	clear(b.sessions)
}

func (n *Node) dropLayer(name string) error {
	dir := n.dataDir(name)
	return errors.Join(os.RemoveAll(dir+"/upper"), os.RemoveAll(dir+"/work"))
}

// record changes the box and writes the record. That it could not be written is
// logged: what runs is the truth, and the next daemon sees it again.
func (n *Node) record(ctx context.Context, b *box, f func()) {
	rec := b.set(f)
	if get(b, func() bool { return b.gone }) {
		return
	}
	if err := n.cfg.DB.Put(ctx, rec); err != nil {
		n.cfg.Log.Error("state not written", "container", b.spec.Name, "error", err)
	}
}

func (n *Node) cancelTimer(b *box) {
	b.set(func() {
		if b.timer != nil {
			b.timer.Stop()
			b.timer = nil
		}
	})
}

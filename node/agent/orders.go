package agent

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// jobKind is what a job does.
type jobKind int

// The kinds of jobs.
const (
	launching jobKind = iota
	starting
	deleting
)

// job is an order that is being carried out. There is one for a launch id at a time.
type job struct {
	kind   jobKind
	id     string // of the launch
	name   string // of the container; of a launch the one that it asks for
	app    string // of a launch
	cancel context.CancelFunc
	kill   chan struct{} // closed when a delete is not to wait for the container
	killed bool          // it is
}

// outcome is how a job ended.
type outcome struct {
	job  *job
	name string // of the container that was made
	err  error
}

const (
	deletePause = 5 * time.Second        // before a delete that failed is tried again
	killPause   = 200 * time.Millisecond // between two attempts to kill what is being deleted
	pullPause   = time.Minute            // before a pull that failed is tried again
	pullFresh   = 10 * time.Minute       // before one that did not is
	maxPulls    = 256                    // under way or fresh
	maxLaunches = 4096                   // under way or waiting
)

// obey carries out the orders of an answer. Those that were given before change
// nothing.
func (a *Agent) obey(ctx context.Context, o hostapi.HostAction) {
	if a.leaving || o.Mode == hostapi.Terminate {
		a.leave(ctx)
		return
	}
	a.terminate(ctx, o.TerminateContainer)
	if o.Mode != hostapi.Continue {
		return // nothing new
	}
	for _, l := range o.LaunchContainer {
		a.launch(ctx, l)
	}
	for _, s := range o.StartContainer {
		a.start(ctx, s.LaunchID)
	}
	for _, p := range o.PullDockerImages {
		a.bring(ctx, p.DockerImage)
	}
}

// launch makes a container unless that was done, is under way, came to nothing
// or is over.
func (a *Agent) launch(ctx context.Context, l hostapi.LaunchContainer) {
	if !validLaunch(l.LaunchID) {
		if !a.odd {
			a.odd = true
			a.log.Error("the controller orders launches without a usable launch id; they are left out", "launch", cut(l.LaunchID))
		}
		return
	}
	_, failed := a.absent[l.LaunchID]
	_, there := a.lookout.ours[l.LaunchID]
	if failed || there || a.jobs[l.LaunchID] != nil || a.gone.has(l.LaunchID) || len(a.jobs) >= maxLaunches {
		return
	}
	hostID := a.kept.HostID
	a.run(ctx, &job{kind: launching, id: l.LaunchID, name: containerName(l), app: l.EngineID}, a.launches,
		func(ctx context.Context, _ *job) (string, error) { return a.create(ctx, l, hostID) })
}

// start lets a standby container run.
func (a *Agent) start(ctx context.Context, id string) {
	name, there := a.lookout.ours[id]
	if !there || a.jobs[id] != nil || a.gone.has(id) || a.lookout.all[name].item.State != "standby" {
		return
	}
	// It waits for nobody: a standby is there to run at once.
	a.run(ctx, &job{kind: starting, id: id, name: name}, nil,
		func(ctx context.Context, j *job) (string, error) { return j.name, a.cfg.Local.Start(ctx, j.name) })
}

// terminate ends containers. That they are never launched again is written
// down first.
func (a *Agent) terminate(ctx context.Context, orders []hostapi.TerminateContainer) {
	var ids []string
	force := map[string]bool{}
	for _, t := range orders {
		id := t.LaunchID
		if s, ok := a.lookout.all[t.DockerContainerID]; ok && id == "" {
			id = s.launch()
		}
		if !validLaunch(id) {
			continue // of nothing that is ours
		}
		ids = append(ids, id)
		force[id] = force[id] || t.Force
	}
	a.bury(ids)
	for _, id := range ids {
		delete(a.absent, id)
		a.end(ctx, id, force[id])
	}
}

// bury remembers that launches are over. What cannot be written down is over
// all the same: a full disk must not keep containers running.
func (a *Agent) bury(ids []string) {
	if err := a.gone.add(ids...); err != nil {
		a.log.Error("that launches are over is not written down", "launches", len(ids), "error", err)
	}
}

// end has what is left of a launch that is over deleted.
func (a *Agent) end(ctx context.Context, id string, force bool) {
	if j := a.jobs[id]; j != nil {
		if j.kind != deleting {
			j.cancel() // settle goes on here
			j.killed = j.killed || force
			return
		}
		if force && !j.killed {
			j.killed = true
			close(j.kill)
		}
		return
	}
	name, there := a.lookout.ours[id]
	if !there || time.Now().Before(a.retry[id]) {
		return
	}
	j := &job{kind: deleting, id: id, name: name, kill: make(chan struct{}), killed: force}
	if force {
		close(j.kill)
	}
	a.run(ctx, j, a.deletes, func(ctx context.Context, j *job) (string, error) { return j.name, a.remove(ctx, j) })
}

// tidy goes on with what should be over and is still there: what was being
// deleted when the agent ended, or could not be.
func (a *Agent) tidy(ctx context.Context) {
	for id := range a.retry {
		if _, there := a.lookout.ours[id]; !there {
			delete(a.retry, id)
		}
	}
	for id := range a.lookout.ours {
		if a.leaving {
			a.bury([]string{id})
		}
		if a.gone.has(id) {
			a.end(ctx, id, false)
		}
	}
}

// leave ends all that was launched here.
func (a *Agent) leave(ctx context.Context) {
	if a.leaving {
		return
	}
	a.leaving = true
	a.log.Warn("the controller tells this host to terminate: what it has launched here is deleted")
	var ids []string
	for id := range a.lookout.ours {
		ids = append(ids, id)
	}
	for id := range a.jobs {
		ids = append(ids, id)
	}
	a.bury(ids)
	clear(a.absent)
	for _, id := range ids {
		a.end(ctx, id, false)
	}
}

// remove deletes a container, provided that it is the one.
func (a *Agent) remove(ctx context.Context, j *job) error {
	there, err := a.cfg.Local.Container(ctx, j.name)
	switch {
	case errors.Is(err, buoy.ErrNotFound):
		return nil
	case err != nil:
		return err
	case there.Labels[labelLaunch] != j.id:
		return nil // another one has its name
	}
	ended := make(chan error, 1)
	go func() { ended <- a.cfg.Local.Delete(ctx, j.name) }()
	select {
	case err = <-ended:
		return err
	case <-j.kill:
	}
	// The node deletes with the grace of the container, which a kill cuts short.
	tick := time.NewTicker(killPause)
	defer tick.Stop()
	for {
		// An error is that there is nothing to kill yet, or any more.
		_ = a.cfg.Local.SignalProcess(ctx, j.name, 1, int(syscall.SIGKILL))
		select {
		case err = <-ended:
			return err
		case <-tick.C:
		}
	}
}

// bring has an image pulled in the background, once.
func (a *Agent) bring(ctx context.Context, image string) {
	now := time.Now()
	for ref, until := range a.pulled {
		if now.After(until) {
			delete(a.pulled, ref)
		}
	}
	if _, done := a.pulled[image]; done || image == "" || len(a.pulled) >= maxPulls {
		return
	}
	a.pulled[image] = now.Add(24 * time.Hour) // while it is under way
	a.wg.Go(func() {
		var err error
		select {
		case a.pullings <- struct{}{}:
			err = a.pull(ctx, image)
			<-a.pullings
		case <-ctx.Done():
			return
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("image is not pulled", "error", err)
		}
		a.tell(ctx, outcome{name: image, err: err})
	})
}

// run carries out a job when it has a slot. Its outcome comes to settle.
func (a *Agent) run(ctx context.Context, j *job, slots chan struct{}, f func(context.Context, *job) (string, error)) {
	a.jobs[j.id] = j
	inner, cancel := context.WithCancel(ctx)
	j.cancel = cancel
	a.wg.Go(func() {
		defer cancel()
		o := outcome{job: j, err: errs.E(errs.Unavailable, "it was called off")}
		if slots != nil {
			select {
			case slots <- struct{}{}:
			case <-inner.Done():
				a.tell(ctx, o)
				return
			}
		}
		if inner.Err() == nil {
			o.name, o.err = f(inner, j)
		}
		if slots != nil {
			<-slots
		}
		a.tell(ctx, o)
	})
}

// tell hands an outcome to the loop.
func (a *Agent) tell(ctx context.Context, o outcome) {
	select {
	case a.outcomes <- o:
	case <-ctx.Done():
	}
}

// settle takes in how a job ended.
func (a *Agent) settle(ctx context.Context, o outcome) {
	j := o.job
	if j == nil {
		a.pulled[o.name] = time.Now().Add(pullFresh)
		if o.err != nil {
			a.pulled[o.name] = time.Now().Add(pullPause)
		}
		return
	}
	delete(a.jobs, j.id)
	a.lookout.stale = true
	switch {
	case j.kind == launching && o.err == nil:
		a.lookout.made(j.id, o.name)
		a.log.Info("launched", "launch", j.id, "container", o.name)
	case j.kind == launching && !a.gone.has(j.id):
		a.log.Warn("not launched", "launch", j.id, "container", j.name, "error", o.err)
		a.absent[j.id] = notMade(j, o.err)
	case j.kind == starting && o.err != nil && !a.gone.has(j.id):
		a.log.Warn("standby container does not start", "container", j.name, "error", o.err)
	case j.kind == deleting && o.err != nil:
		a.log.Warn("container is not deleted", "container", j.name, "error", o.err)
		a.retry[j.id] = time.Now().Add(deletePause)
	case j.kind == deleting:
		delete(a.retry, j.id)
		a.lookout.drop(j.id, j.name)
		a.log.Info("terminated", "launch", j.id, "container", j.name)
	}
	if a.gone.has(j.id) {
		a.end(ctx, j.id, j.killed)
	}
}

// missed notes containers that somebody else has deleted: the controller
// decides what becomes of them.
func (a *Agent) missed(before lookout) {
	for id, name := range before.ours {
		_, there := a.lookout.ours[id]
		_, known := a.absent[id] // it was there for as long as its start was tried, and why that failed is known
		if there || known || a.gone.has(id) || a.jobs[id] != nil {
			continue
		}
		a.absent[id] = absent(id, before.all[name].one.Labels[labelApp], name, "Deleted",
			"its container was deleted on the host, and not by the controller")
	}
}

package app

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Report takes in what a host says, and answers with its orders. A report that
// is older than one that was taken in already changes nothing. Conflict: it is
// of an earlier boot.
func (e *Engine) Report(_ context.Context, id string, r Report) (Orders, error) {
	now := e.cfg.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.hosts[id]
	if old == nil {
		return Orders{}, noHost(id)
	}
	last := old.Report
	if !old.Terminated.IsZero() || r.Boot == last.Boot && r.Seq != 0 && r.Seq <= last.Seq {
		return e.orders(old), nil
	}
	if r.Boot != last.Boot {
		if err := e.past(id, r.Boot); err != nil {
			return Orders{}, err
		}
		e.rebooted(id, last.Boot)
	}
	full := false
	if r.Same != 0 {
		if r.Boot == last.Boot && r.Same == cmp.Or(last.Same, last.Seq) {
			r.Containers = last.Containers
		} else {
			full, r.Same, r.Containers = true, 0, last.Containers
			r.Seq = 0 // the next one may be the same as none
			if r.Boot == last.Boot {
				r.Seq = last.Seq
			}
		}
	}
	h := *old
	r.At = now
	h.Report, h.Seen = r, now
	e.hosts[id] = &h
	if e.liveness[id] != Alive {
		e.arrived(&h)
	}
	if last.Others != r.Others {
		e.resized(id)
	}
	if !full {
		e.takeIn(&h, now)
	}
	o := e.orders(&h)
	e.told(&h, &o)
	o.Full = full
	return o, nil
}

// maxFormer is how many boots of a host are remembered.
const maxFormer = 32

// past says that a boot of a host is over. It does not come back: Conflict, since
// obeying both of two agents would start everything twice. The caller holds mu.
func (e *Engine) past(host, boot string) error {
	if reports := e.reported[host]; boot != "" && reports != nil && slices.Contains(reports.former, boot) {
		return errs.E(errs.Conflict, "host %q has reported from a later start than this one: the report is old, or two agents call themselves by one id", host)
	}
	return nil
}

// rebooted notes that a host reports under another boot.
func (e *Engine) rebooted(host, from string) {
	reports := e.reportsOf(host)
	if from != "" {
		reports.former = append(reports.former, from)
		reports.former = reports.former[max(0, len(reports.former)-maxFormer):]
	}
	clear(reports.stopped) // their reports are of another count
}

func (e *Engine) reportsOf(host string) *hostReports {
	if e.reported[host] == nil {
		e.reported[host] = &hostReports{stopped: map[string]uint64{}}
	}
	return e.reported[host]
}

// arrived notes that a host is in touch again.
func (e *Engine) arrived(h *Host) {
	e.liveness[h.ID] = Alive
	e.stale[h.ID] = struct{}{}
	e.markAll(h.ID)
}

// resized has placement look at a host anew.
func (e *Engine) resized(id string) {
	e.stale[id] = struct{}{}
	e.kick()
}

// takeIn compares the containers of a report with the replicas. The caller holds mu.
func (e *Engine) takeIn(h *Host, now time.Time) {
	listed := make(map[string]struct{}, len(h.Report.Containers))
	same, changed := h.Report.Same != 0, false
	for i := range h.Report.Containers {
		c := &h.Report.Containers[i]
		listed[c.Launch] = struct{}{}
		r := e.replicas[c.Launch]
		if r == nil || r.Host != h.ID || same {
			continue // if it is not ours, see orders
		}
		next := *r
		e.observe(&next, c, now)
		if differs(r, &next) {
			e.unsaved[r.ID] = struct{}{}
			e.mark(r.App)
			changed = true
		}
		e.replicas[r.ID] = &next
	}
	for id := range e.onHost[h.ID] {
		r := e.replicas[id]
		if _, ok := listed[id]; ok || r.Phase == Gone || !e.wentFrom(h, r) {
			continue
		}
		next := *r
		next.Phase, next.Well = Gone, time.Time{}
		e.replicas[id] = &next
		e.unsaved[id] = struct{}{}
		e.mark(r.App)
		changed = true
	}
	if changed {
		e.announce()
	}
}

// wentFrom says that a replica that its host does not list is not there any
// more. One that was ordered may come yet, unless the host was told to stop it;
// and how one ended stays true without its container. The caller holds mu.
func (e *Engine) wentFrom(h *Host, r *Replica) bool {
	switch {
	case r.Phase == Ordered:
		at, told := e.reportsOf(h.ID).stopped[r.ID]
		return told && (h.Report.Seq == 0 || h.Report.Seq > at)
	case r.Phase == Ended, r.Phase == Failed:
		return !r.Stopped.IsZero()
	}
	return true
}

// observe brings a replica up to what its host says of it.
func (e *Engine) observe(r *Replica, c *Container, now time.Time) {
	if r.Phase == Ended && c.State == "absent" {
		return // somebody has tidied up
	}
	r.Started = r.moment(c.Started, r.Seen.Started, r.Started, now)
	r.Finished = r.moment(c.Finished, r.Seen.Finished, r.Finished, now)
	r.Seen = *c
	r.Ports, r.Address, r.Digest = c.Ports, c.Address, cmp.Or(c.Digest, r.Digest)
	r.ExitCode, r.Restarts = c.ExitCode, c.Restarts
	r.Reason, r.Message = c.Reason, c.Message
	switch c.State {
	case "running":
		r.Phase = Running
	case "standby":
		r.Phase = Waiting
	case "halted":
		r.Phase = Failed
		if c.ExitCode == 0 && !c.OOM && !c.Finished.IsZero() {
			r.Phase = Ended
		}
	case "absent":
		r.Phase = Failed
	case "creating", "restarting":
		r.Phase = Starting
	default: // "stopping", "deleting" and what later nodes may say
	}
	well := r.Phase == Running && (c.Health == "" || c.Health == "healthy") && c.State == "running"
	switch {
	case !well:
		r.Well = time.Time{}
	case r.Well.IsZero():
		r.Well = now
	}
}

// moment is when something happened to the replica, by the clock of its host.
// If that clock cannot be right, it is when we heard of it: said is new, was
// what the host said last, and known what became of that.
func (r *Replica) moment(said, was, known, now time.Time) time.Time {
	switch {
	case said.IsZero() || !said.Before(r.Created.Add(-clockSkew)) && !said.After(now.Add(clockSkew)):
		return said
	case said.Equal(was) && !known.IsZero():
		return known
	}
	return now.UTC()
}

// clockSkew is by how much clocks may differ that are kept by NTP, or by hand.
const clockSkew = time.Minute

// differs says that there is something to decide or to keep.
func differs(a, b *Replica) bool {
	return a.Phase != b.Phase || a.Well.IsZero() != b.Well.IsZero() || a.Digest != b.Digest || a.Restarts != b.Restarts ||
		a.Address != b.Address || a.Reason != b.Reason || !a.Started.Equal(b.Started) || !maps.Equal(a.Ports, b.Ports)
}

// orders are what a host has to do yet. The caller holds mu.
func (e *Engine) orders(h *Host) Orders {
	o := Orders{Mode: h.Mode}
	if h.Mode == Terminate {
		return o
	}
	ids := slices.Sorted(maps.Keys(e.onHost[h.ID]))
	for _, id := range ids {
		r := e.replicas[id]
		rec := e.apps[r.App]
		switch {
		case r.Phase == Gone || rec == nil:
		case !r.Stopped.IsZero():
			if e.drained(r, rec) {
				o.Stop = append(o.Stop, StopOrder{Launch: id, Container: r.Seen.Name, Force: r.Kill})
			}
		case r.Phase == Ordered && r.Away.IsZero():
			e.orderLaunch(r, rec, &o)
		case r.Phase == Waiting && !r.Standby:
			o.Start = append(o.Start, id)
		}
	}
	for i := range h.Report.Containers { // of apps of ours, but not ours: a record that was dropped
		c := &h.Report.Containers[i]
		if r := e.replicas[c.Launch]; (r == nil || r.Host != h.ID) && e.apps[c.App] != nil {
			o.Stop = append(o.Stop, StopOrder{Launch: c.Launch, Container: c.Name})
		}
	}
	return o
}

func (e *Engine) orderLaunch(r *Replica, rec *record, o *Orders) {
	rev := rec.app.Revision(r.Revision)
	if rev == nil {
		return
	}
	env, secrets, err := e.env(r, rec.app, &rev.Spec)
	if err != nil {
		e.held(r, err)
		return
	}
	o.Launch = append(o.Launch, Launch{Replica: *r, Spec: rev.Spec, Digest: rev.Digest, Env: env, Secrets: secrets})
}

// held notes why a replica is not launched, and what people read then.
func (e *Engine) held(r *Replica, err error) {
	if r.Message == err.Error() {
		return
	}
	e.cfg.Log.Warn("replica is not launched", "app", r.App, "launch", r.ID, "error", err)
	next := *r
	next.Reason, next.Message = notLaunched, err.Error()
	e.replicas[r.ID] = &next
	e.mark(r.App)
	e.announce()
}

// told notes which replicas a host is told to stop that it may not have yet:
// they are gone once a later report does not list them. The caller holds mu.
func (e *Engine) told(h *Host, o *Orders) {
	reports := e.reportsOf(h.ID)
	for i := range o.Stop {
		r := e.replicas[o.Stop[i].Launch]
		if r == nil || r.Host != h.ID || r.Phase != Ordered {
			continue
		}
		if _, told := reports.stopped[r.ID]; !told {
			reports.stopped[r.ID] = h.Report.Seq
		}
	}
}

// drained says that a replica that is to go may be stopped: nothing is under
// way to it any more, or it has had its time.
func (e *Engine) drained(r *Replica, rec *record) bool {
	if r.Kill || r.Phase != Running {
		return true
	}
	spec := rec.app.Spec()
	if rev := rec.app.Revision(r.Revision); rev != nil {
		spec = &rev.Spec
	}
	if len(spec.Ports) == 0 || !e.cfg.Now().Before(r.Stopped.Add(spec.Drain)) {
		return true
	}
	if e.counted.Sub(r.Stopped) < settle {
		return false // it may have been given a request since
	}
	b, ok := e.traffic[r.App].Replicas[r.ID]
	return !ok || b.Active == 0
}

// settle is how long a replica that has left the balancer is left alone at
// least: a request may be on its way.
const settle = 100 * time.Millisecond

// ReplicaByLaunch is a replica and the spec that it runs; NotFound.
func (e *Engine) ReplicaByLaunch(id string) (Replica, Spec, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	r := e.replicas[id]
	if r == nil || e.apps[r.App] == nil || e.apps[r.App].app.Revision(r.Revision) == nil {
		return Replica{}, Spec{}, errs.E(errs.NotFound, "there is no launch %q", id)
	}
	return *r, e.apps[r.App].app.Revision(r.Revision).Spec, nil
}

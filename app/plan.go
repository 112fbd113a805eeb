package app

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Situation is all that Plan looks at.
type Situation struct {
	App      *App
	Replicas []Replica        // all records of the app
	Hosts    map[string]Place // of the hosts that the replicas are on; absent: it is not known any more
	Targets  []string         // of a daemon: hosts that take one or have one
	Fails    Fails
	Held     string // what Steps.Held was the last time
	Now      time.Time
}

// Place is how a host is doing that replicas are on.
type Place struct {
	Name     string
	Gone     bool // it is terminated: nothing is there any more, and all below is empty
	Mode     HostMode
	Liveness Liveness
	Seen     time.Time
}

// Fails is what is remembered of replicas that failed.
type Fails struct {
	Of     int                  // the target of the rollout: with another one, all begins anew
	InRow  int                  // since one was well for failsForget
	Target int                  // of the revision that is being rolled out
	Until  time.Time            // nothing is launched before
	Last   string               // why the last one did
	Hosts  map[string]time.Time // where, and when last: better tried elsewhere
}

// Failures are forgotten after failsForget; launches wait for failsWait,
// doubled with each failure, at most failsMost.
const (
	failsForget = 10 * time.Minute
	failsWait   = time.Second
	failsMost   = 5 * time.Minute
	// failsRevision is how many replicas fail before their revision has.
	failsRevision = 3
)

// after is Fails with one more.
func (f Fails) after(r *Replica, why string, target bool, now time.Time) Fails {
	hosts := map[string]time.Time{r.Host: now}
	for h, at := range f.Hosts {
		if now.Sub(at) < failsForget && h != r.Host {
			hosts[h] = at
		}
	}
	f.Hosts, f.Last = hosts, why
	f.Until = now.Add(min(failsWait<<min(f.InRow, 16), failsMost))
	f.InRow++
	if target {
		f.Target++
	}
	return f
}

// Steps are what brings an app nearer to what is wanted of it. Carried out, the
// next Plan goes on from there; none are left when all is as it should be.
type Steps struct {
	App    *App      // changed, or nil
	Put    []Replica // changed
	Drop   []string  // replicas that are no more
	Launch []Wish
	Fails  Fails
	Held   string // why replicas are not launched
	Events []Event
	Next   time.Time // when to plan again even if nothing happens; zero: never
}

// Wish is for replicas that no host has been chosen for.
type Wish struct {
	N        int
	Revision int
	Standby  bool
	Run      int
}

// Empty says that nothing is to be done.
func (s *Steps) Empty() bool {
	return s.App == nil && len(s.Put) == 0 && len(s.Drop) == 0 && len(s.Launch) == 0 && len(s.Events) == 0
}

// Plan decides what to do about an app.
func Plan(s Situation) Steps {
	p := planner{Situation: s, app: *s.App, spec: s.App.Spec(), steps: Steps{Fails: s.Fails}, changed: map[string]bool{}}
	p.app.Revisions = slices.Clone(s.App.Revisions)
	p.reps = slices.Clone(s.Replicas)
	slices.SortFunc(p.reps, func(a, b Replica) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Index, b.Index), cmp.Compare(a.ID, b.ID))
	})
	p.forget()
	p.watchHosts()
	p.tellRestarts()
	p.tellHeld()
	p.pin()
	if p.steps.Fails.Of != p.app.Rollout.Target {
		p.steps.Fails = Fails{Of: p.app.Rollout.Target}
	}
	switch p.spec.Kind {
	case Job, Cron:
		p.job()
	case Daemon:
		p.replaceFailed()
		p.daemon()
	case Service:
		p.replaceFailed()
		p.service()
	}
	return p.done()
}

// planner is a Plan under way.
type planner struct {
	Situation
	app     App // changed in place
	edited  bool
	spec    *Spec
	reps    []Replica // oldest first; changed in place
	changed map[string]bool
	steps   Steps
}

func (p *planner) done() Steps {
	for _, r := range p.reps {
		if p.changed[r.ID] {
			p.steps.Put = append(p.steps.Put, r)
		}
	}
	if p.edited {
		p.steps.App = &p.app
	}
	return p.steps
}

// at asks for another look at a time.
func (p *planner) at(t time.Time) {
	if p.steps.Next.IsZero() || t.Before(p.steps.Next) {
		p.steps.Next = t
	}
}

func (p *planner) event(typ EventType, r *Replica, details map[string]any, format string, args ...any) {
	e := Event{Time: p.Now, Type: typ, App: p.app.Name, Message: fmt.Sprintf(format, args...), Details: details}
	if r != nil {
		e.Replica, e.Host = r.ID, r.Host
	}
	p.steps.Events = append(p.steps.Events, e)
}

// host is how sentences name the host of a replica.
func (p *planner) host(r *Replica) string { return hostName(p.Hosts[r.Host].Name, r.Host) }

// stop wants a replica gone.
func (p *planner) stop(r *Replica, why string) {
	r.Stopped, r.Why = p.Now, why
	p.changed[r.ID] = true
}

// forget drops the records of what is gone, and of what was on hosts that are.
func (p *planner) forget() {
	kept := p.reps[:0]
	for _, r := range p.reps {
		h, known := p.Hosts[r.Host]
		if r.Phase != Gone && known && !h.Gone {
			kept = append(kept, r)
			continue
		}
		p.steps.Drop = append(p.steps.Drop, r.ID)
		p.tally(&r)
		if r.Living() || r.Phase == Gone && r.Stopped.IsZero() && r.Away.IsZero() {
			p.event(Life, &r, nil, "Replica %s is gone from host %s", r.Name(), p.host(&r))
		}
	}
	p.reps = kept
}

// tally keeps how a replica of a job ended whose record goes.
func (p *planner) tally(r *Replica) {
	if r.Run == 0 || r.Run != p.app.Run || !p.app.Tally.Over.IsZero() {
		return
	}
	switch r.Phase {
	case Ended:
		p.app.Tally.Succeeded++
		p.edited = true
	case Failed:
		p.app.Tally.Failed++
		p.edited = true
	default: // nobody knows
	}
}

// watchHosts gives up what is on hosts that have been lost for too long, and
// takes back what returns.
func (p *planner) watchHosts() {
	patience := p.spec.Placement.Patience
	for i := range p.reps {
		r := &p.reps[i]
		h := p.Hosts[r.Host]
		if h.Liveness != Lost {
			if !r.Away.IsZero() {
				r.Away = time.Time{}
				p.changed[r.ID] = true
				p.event(Life, r, nil, "Replica %s is back: its host %s reports again", r.Name(), p.host(r))
			}
			continue
		}
		if patience < 0 || !r.Living() {
			continue
		}
		if due := h.Seen.Add(patience); p.Now.Before(due) {
			p.at(due)
			continue
		}
		r.Away = p.Now
		p.changed[r.ID] = true
		p.event(Trouble, r, nil, "Replica %s is given up: nothing has been heard of its host %s for %s",
			r.Name(), p.host(r), p.Now.Sub(h.Seen).Round(time.Second))
	}
}

// tellPace is how far apart events of a replica's restarts are: one that
// crash-loops must not push all others out of the store.
const tellPace = time.Minute

// tellRestarts makes events of what hosts have started again by themselves.
func (p *planner) tellRestarts() {
	for i := range p.reps {
		r := &p.reps[i]
		n := r.Restarts - r.Told
		if n == 0 || !r.Stopped.IsZero() || r.Phase == Failed || r.Phase == Ended { // that is an event of its own
			continue
		}
		if due := r.ToldAt.Add(tellPace); n > 0 && p.Now.Before(due) {
			p.at(due)
			continue
		}
		r.Told = r.Restarts
		p.changed[r.ID] = true
		if n < 0 { // its host counts anew: a person has started it there
			continue
		}
		r.ToldAt = p.Now
		why := r.Message
		switch {
		case why != "":
		case r.Seen.OOM:
			why = "it ran out of memory"
		default:
			why = fmt.Sprintf("it exited with code %d", r.ExitCode)
		}
		p.event(Trouble, r, map[string]any{"count": n, "restarts": r.Restarts, "exit_code": r.ExitCode, "reason": r.Reason},
			"Replica %s on host %s was restarted %s: %s", r.Name(), p.host(r), several(n, "time"), why)
	}
}

// tellHeld makes an event of why replicas are not launched, when that is new.
func (p *planner) tellHeld() {
	for i := range p.reps {
		r := &p.reps[i]
		if !r.Living() || r.Phase != Ordered || r.Reason != notLaunched {
			continue
		}
		p.steps.Held = r.Message
		if r.Message != p.Held {
			p.event(Trouble, r, map[string]any{"reason": notLaunched}, "Replicas are not launched: %s", r.Message)
		}
		return
	}
}

// pin takes the image of the first replica for all of its revision.
func (p *planner) pin() {
	for i := range p.reps {
		r := &p.reps[i]
		rev := p.app.Revision(r.Revision)
		if r.Digest != "" && rev != nil && rev.Digest == "" {
			rev.Digest, rev.Pinned = r.Digest, p.Now
			p.edited = true
		}
	}
}

// replaceFailed wants those gone that will not run again.
func (p *planner) replaceFailed() {
	for i := range p.reps {
		r := &p.reps[i]
		if !r.Stopped.IsZero() || !r.Away.IsZero() || r.Phase != Failed && r.Phase != Ended {
			continue
		}
		why := cmp.Or(r.Message, r.Reason, "it has ended")
		p.steps.Fails = p.steps.Fails.after(r, why, r.Revision == p.app.Rollout.Target && !p.app.Rollout.Done, p.Now)
		p.stop(r, why)
		p.event(Trouble, r, map[string]any{"exit_code": r.ExitCode, "reason": r.Reason, "restarts": r.Restarts},
			"Replica %s on host %s failed: %s", r.Name(), p.host(r), why)
	}
	if f := p.steps.Fails; f.InRow > 0 && p.Now.Sub(f.Until) > failsForget {
		p.steps.Fails = Fails{Of: f.Of}
	}
}

// launch wishes for n replicas, as soon as failures let it.
func (p *planner) launch(n, revision int, standby bool) {
	if n <= 0 {
		return
	}
	if until := p.steps.Fails.Until; p.Now.Before(until) {
		p.at(until)
		return
	}
	p.steps.Launch = append(p.steps.Launch, Wish{N: n, Revision: revision, Standby: standby, Run: p.app.Run})
}

// fresh says that a replica may stay as it is. One that has another image
// although it was told which is left alone: its host would not obey the next time.
func (p *planner) fresh(r *Replica) bool {
	rev := p.app.Revision(p.app.Rollout.Target)
	return r.Revision == p.app.Rollout.Target && !p.moving(r) &&
		(rev == nil || rev.Digest == "" || r.Digest == "" || r.Digest == rev.Digest || r.Created.After(rev.Pinned))
}

// moving says that a replica cannot stay where it is.
func (p *planner) moving(r *Replica) bool { return r.Move != "" || p.leaving(r) }

// leaving says that a replica's host wants to be rid of it.
func (p *planner) leaving(r *Replica) bool {
	switch p.Hosts[r.Host].Mode {
	case Drain, Terminate:
		return true
	case Pause: // it does not start what has not been started
		return r.Phase == Ordered || r.Phase == Waiting && !r.Standby
	case Continue:
	}
	return false
}

// serves says that requests go to a replica.
func (p *planner) serves(r *Replica) bool { return r.Ready() && p.Hosts[r.Host].Liveness != Lost }

// well says that a replica has served for as long as a new one has to.
func (p *planner) well(r *Replica) bool {
	if !p.serves(r) {
		return false
	}
	if due := r.Well.Add(p.spec.Rollout.Healthy); p.Now.Before(due) {
		p.at(due)
		return false
	}
	return true
}

// living are the replicas that count, those that run and those that stand by.
func (p *planner) living() (runners, standbys []*Replica) {
	for i := range p.reps {
		r := &p.reps[i]
		switch {
		case !r.Living():
		case r.Standby:
			standbys = append(standbys, r)
		default:
			runners = append(runners, r)
		}
	}
	return runners, standbys
}

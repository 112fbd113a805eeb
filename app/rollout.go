package app

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// service brings a service to its number of replicas, all of one revision. Old
// ones go as new ones are well: never are there more than MaxSurge too many, nor
// do fewer than all but MaxUnavailable serve because of us.
func (p *planner) service() {
	runners, standbys := p.living()
	if !p.app.Started {
		for _, r := range slices.Concat(runners, standbys) {
			p.stop(r, "the app is stopped")
		}
		return
	}
	want := p.app.Replicas
	var cur, old []*Replica
	for _, r := range runners {
		if p.fresh(r) {
			cur = append(cur, r)
		} else {
			old = append(old, r)
		}
	}
	limit := want // of replicas at the target
	if p.app.Rollout.Canary {
		limit = min(want, p.spec.Rollout.Canary)
	}
	if p.giveUpRevision(limit) {
		return // the next Plan goes on
	}
	if surplus := len(cur) - want; surplus > 0 {
		for _, r := range p.worst(cur, surplus) {
			p.stop(r, "the app is to have "+several(want, "replica"))
		}
		cur = slices.DeleteFunc(cur, func(r *Replica) bool { return !r.Living() })
	}
	p.roll(cur, old, standbys, limit, want)
	p.refill(standbys)
	p.progress(cur, len(old), limit)
}

// start has n more run: those that stand by first.
func (p *planner) start(n int, standbys []*Replica, revision int) {
	for _, r := range standbys {
		h := p.Hosts[r.Host]
		if n > 0 && r.Phase == Waiting && r.Revision == revision && p.fresh(r) && h.Mode == Continue && h.Liveness != Lost {
			r.Standby = false
			p.changed[r.ID] = true
			n--
		}
	}
	p.launch(n, revision, false)
}

// roll launches what is missing, and replaces old replicas by new ones. As long
// as it is held up, by a person or by canaries, so many of the former revision
// are kept up as make the number full.
func (p *planner) roll(cur, old, standbys []*Replica, limit, want int) {
	g := &p.app.Rollout
	total, most := len(cur)+len(old), want
	if len(old) > 0 || len(cur) > limit {
		most += p.spec.Rollout.MaxSurge
	}
	n, keep := limit-len(cur), want-limit
	if g.Paused && g.Previous > 0 {
		n, keep = 0, want-len(cur)
	}
	n = max(0, min(n, most-total))
	p.start(n, standbys, g.Target)
	total += n
	if keep > 0 && g.Previous > 0 {
		n = keep
		for _, r := range old {
			if !p.moving(r) {
				n--
			}
		}
		n = max(0, min(n, most-total))
		p.start(n, nil, g.Previous)
		total += n
	}
	p.retire(cur, old, total, max(keep, 0), want)
}

// retire stops old replicas of total as far as there are others: those that
// cannot stay where they are, and of the rest all but keep; also canaries that
// have come back and are too many.
func (p *planner) retire(cur, old []*Replica, total, keep, want int) {
	least := max(want-p.spec.Rollout.MaxUnavailable, 0)
	serving, spare := 0, -keep
	for _, r := range cur {
		if p.well(r) {
			serving++
		}
	}
	for _, r := range old {
		if p.serves(r) {
			serving++
		}
		if !p.moving(r) {
			spare++
		}
	}
	release := func(of []*Replica, spare int) {
		for _, r := range p.worst(of, len(of)) {
			serves := p.serves(r)
			switch {
			case !p.moving(r) && spare <= 0:
				continue
			case serves && serving <= least, !serves && total <= least: // the latter makes room for one that may
				continue
			case serves:
				serving--
			}
			if !p.moving(r) {
				spare--
			}
			total--
			p.stop(r, p.why(r))
		}
	}
	release(old, spare)
	if p.app.Rollout.Previous > 0 {
		release(cur, len(cur)-(want-keep))
	}
}

// why an old replica goes.
func (p *planner) why(r *Replica) string {
	switch {
	case r.Move != "":
		return r.Move
	case p.leaving(r):
		return "its host is being emptied"
	case p.app.Rollout.Canary && r.Revision == p.app.Rollout.Target:
		return fmt.Sprintf("revision %d is to be tried by %s", r.Revision, several(p.spec.Rollout.Canary, "replica"))
	case r.Revision == p.app.Rollout.Target:
		return "its image is not the one that the revision is pinned to"
	}
	return fmt.Sprintf("revision %d replaces revision %d", p.app.Rollout.Target, r.Revision)
}

// worst are n of the replicas: those that do not serve first, then those that
// have not done so for long, then those that cannot stay where they are, then
// the newest.
func (p *planner) worst(of []*Replica, n int) []*Replica {
	worth := func(r *Replica) (n int) {
		for _, good := range []bool{p.serves(r), p.well(r), !p.moving(r)} {
			n *= 2
			if good {
				n++
			}
		}
		return n
	}
	of = slices.Clone(of)
	slices.SortStableFunc(of, func(a, b *Replica) int {
		return cmp.Or(cmp.Compare(worth(a), worth(b)), b.Created.Compare(a.Created))
	})
	return of[:min(max(n, 0), len(of))]
}

// refill keeps as many standing by as are wanted.
func (p *planner) refill(standbys []*Replica) {
	have := 0
	for i, r := range standbys {
		switch {
		case !r.Standby: // it runs now
		case !p.fresh(r):
			p.stop(r, p.why(r))
		case have >= p.app.Scaling.Standby:
			p.stop(standbys[i], "the app is to have "+several(p.app.Scaling.Standby, "replica")+" standing by")
		default:
			have++
		}
	}
	p.launch(p.app.Scaling.Standby-have, p.app.Rollout.Target, true)
}

// giveUpRevision goes back to the former revision if the new one fails.
// limit is how many replicas should be at it.
func (p *planner) giveUpRevision(limit int) bool {
	g := &p.app.Rollout
	rev := p.app.Revision(g.Target)
	if g.Done || g.Previous == 0 || rev == nil || rev.Failed != "" || g.Paused {
		return false
	}
	why := ""
	if p.steps.Fails.Target >= failsRevision {
		why = fmt.Sprintf("%s failed, the last one: %s", several(p.steps.Fails.Target, "replica"), p.steps.Fails.Last)
	}
	if why == "" {
		why = p.crashLoop(g.Target)
	}
	if d := p.spec.Rollout.Deadline; why == "" && d > 0 && limit > 0 && !(g.Canary && g.Ready >= limit) {
		if due := g.Since.Add(d); !p.Now.Before(due) {
			why = fmt.Sprintf("no replica of it became well within %s", d) + p.complaint(g.Target)
		} else {
			p.at(due)
		}
	}
	if why == "" {
		return false
	}
	rev.Failed = why
	p.edited = true
	prev := p.app.Revision(g.Previous)
	if !p.spec.Rollout.Revert || prev == nil || !prev.Good {
		g.Message = fmt.Sprintf("Revision %d failed: %s", g.Target, why)
		p.event(Trouble, nil, map[string]any{"revision": g.Target}, "%s", g.Message)
		return false
	}
	message := fmt.Sprintf("Revision %d failed and revision %d is back: %s", g.Target, g.Previous, why)
	p.event(Trouble, nil, map[string]any{"revision": g.Target, "reverted_to": g.Previous}, "%s", message)
	*g = Progress{Target: g.Previous, Previous: g.Target, Since: p.Now, Message: message}
	return true
}

// crashLoop is how often a host starts a replica again during a rollout before
// that is no accident: by the hosts' back-off (100 ms, doubled each time) half a
// minute has passed by then.
const crashLoop = 8

// crashLoop says which replica of a revision is started again and again.
func (p *planner) crashLoop(revision int) string {
	for i := range p.reps {
		if r := &p.reps[i]; r.Revision == revision && r.Living() && r.Well.IsZero() && r.Restarts >= crashLoop {
			return fmt.Sprintf("replica %s was restarted %s: %s", r.Name(), several(r.Restarts, "time"), cmp.Or(r.Message, r.Reason, "it ends"))
		}
	}
	return ""
}

// complaint is what the first replica of a revision that says something has to
// say, after a colon.
func (p *planner) complaint(revision int) string {
	for i := range p.reps {
		if r := &p.reps[i]; r.Revision == revision && r.Living() && !p.well(r) {
			if text := cmp.Or(r.Message, r.Seen.CheckErr); text != "" {
				return fmt.Sprintf(": replica %s: %s", r.Name(), text)
			}
		}
	}
	return ""
}

// progress notes how far the target has come.
func (p *planner) progress(cur []*Replica, old, limit int) {
	g := &p.app.Rollout
	if g.Done {
		return
	}
	ready := 0
	for _, r := range cur {
		if r.Revision == g.Target && p.well(r) {
			ready++
		}
	}
	if ready != g.Ready {
		if ready > g.Ready || g.Canary && g.Ready >= limit { // canaries were as they should be until now
			g.Since = p.Now
		}
		g.Ready = ready
		p.edited = true
	}
	if g.Canary || old > 0 || ready < limit || limit == 0 {
		return
	}
	g.Done, g.Since = true, p.Now
	p.edited = true
	p.steps.Fails.Target = 0
	if rev := p.app.Revision(g.Target); rev != nil {
		rev.Good, rev.Failed = true, ""
	}
	if g.Previous > 0 {
		if g.Message == "" { // else it says why the one before was given up
			g.Message = fmt.Sprintf("Revision %d runs", g.Target)
		}
		p.event(Configured, nil, map[string]any{"revision": g.Target}, "Revision %d is rolled out to %s", g.Target, several(ready, "replica"))
	}
}

// deadline is when a run must be over.
func deadline(a *App, s *Spec) time.Time {
	if s.Job.Timeout <= 0 {
		return time.Time{}
	}
	return a.RunAt.Add(s.Job.Timeout)
}

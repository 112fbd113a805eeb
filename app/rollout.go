package app

import (
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
	if p.giveUpRevision(len(old)) {
		p.at(p.Now)
		return
	}
	limit := want // of replicas at the target
	if p.app.Rollout.Canary {
		limit = min(want, p.spec.Rollout.Canary)
	}
	if len(old) == 0 {
		p.settle(cur, standbys, limit, want)
	} else {
		p.roll(cur, old, standbys, limit, want)
	}
	p.refill(standbys)
	p.progress(cur, len(old), limit)
}

// settle has the right number where all are of one revision.
func (p *planner) settle(cur, standbys []*Replica, limit, want int) {
	if limit < want && p.app.Rollout.Previous > 0 { // canaries alone: the others are launched as they were
		p.start(want-max(len(cur), limit), nil, p.app.Rollout.Previous)
	}
	if surplus := len(cur) - want; surplus > 0 {
		for _, r := range p.worst(cur, surplus) {
			p.stop(r, fmt.Sprintf("%d replicas are wanted", want))
		}
		return
	}
	p.start(limit-len(cur), standbys, p.app.Rollout.Target)
}

// start has n more run: those that stand by first.
func (p *planner) start(n int, standbys []*Replica, revision int) {
	for _, r := range standbys {
		if n > 0 && r.Phase == Waiting && r.Revision == revision && p.fresh(r) {
			r.Standby = false
			p.changed[r.ID] = true
			n--
		}
	}
	p.launch(n, revision, false)
}

// roll replaces old replicas by new ones.
func (p *planner) roll(cur, old, standbys []*Replica, limit, want int) {
	roll := p.spec.Rollout
	total := len(cur) + len(old)
	n := max(0, min(want+roll.MaxSurge-total, limit-len(cur)))
	if p.app.Rollout.Paused {
		n = 0
		if p.app.Rollout.Previous > 0 {
			p.start(want-total, nil, p.app.Rollout.Previous)
		}
	}
	p.start(n, standbys, p.app.Rollout.Target)

	var ready []*Replica // old ones
	serving := 0
	for _, r := range cur {
		if p.well(r) {
			serving++
		}
	}
	surplus := total + n - want
	keep := want - limit // old ones that canaries leave
	for _, r := range old {
		if p.well(r) {
			ready = append(ready, r)
			continue
		}
		if surplus > 0 && len(old) > keep && !p.app.Rollout.Paused {
			p.stop(r, p.why(r))
			surplus--
			keep++
		}
	}
	if p.app.Rollout.Paused {
		return
	}
	may := serving + len(ready) - max(want-roll.MaxUnavailable, 0)
	may = min(may, len(ready)-(want-limit))
	for _, r := range p.worst(ready, max(may, 0)) {
		p.stop(r, p.why(r))
	}
}

// why an old replica goes.
func (p *planner) why(r *Replica) string {
	switch {
	case r.Move != "":
		return r.Move
	case p.leaving(r):
		return "its host is to be empty"
	case r.Revision == p.app.Rollout.Target:
		return "its image is not the one that the revision is pinned to"
	}
	return fmt.Sprintf("revision %d replaces revision %d", p.app.Rollout.Target, r.Revision)
}

// worst are n of the replicas: those that are not well first, then the newest.
func (p *planner) worst(of []*Replica, n int) []*Replica {
	of = slices.Clone(of)
	slices.SortStableFunc(of, func(a, b *Replica) int {
		if wa, wb := p.well(a), p.well(b); wa != wb {
			if wb {
				return -1
			}
			return 1
		}
		return b.Created.Compare(a.Created)
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
			p.stop(standbys[i], fmt.Sprintf("%d replicas are to stand by", p.app.Scaling.Standby))
		default:
			have++
		}
	}
	p.launch(p.app.Scaling.Standby-have, p.app.Rollout.Target, true)
}

// giveUpRevision goes back to the former revision if the new one fails.
func (p *planner) giveUpRevision(old int) bool {
	g := &p.app.Rollout
	rev := p.app.Revision(g.Target)
	if g.Done || g.Previous == 0 || rev == nil || rev.Failed != "" || g.Paused {
		return false
	}
	why := ""
	if p.steps.Fails.Target >= failsRevision {
		why = fmt.Sprintf("%d replicas failed, the last one: %s", p.steps.Fails.Target, p.steps.Fails.Last)
	}
	if d := p.spec.Rollout.Deadline; d > 0 && !(g.Canary && old > 0 && g.Ready >= p.spec.Rollout.Canary) {
		if due := g.Since.Add(d); !p.Now.Before(due) {
			why = fmt.Sprintf("no replica of it became well within %s", d)
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
	p.steps.Fails = Fails{}
	return true
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
		if ready > g.Ready {
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
	if rev := p.app.Revision(g.Target); rev != nil && !rev.Good {
		rev.Good = true
	}
	if g.Previous > 0 {
		g.Message = fmt.Sprintf("Revision %d runs", g.Target)
		p.event(Configured, nil, map[string]any{"revision": g.Target}, "All %d replicas are at revision %d", ready, g.Target)
	}
}

// deadline is when a run must be over.
func deadline(a *App, s *Spec) time.Time {
	if s.Job.Timeout <= 0 {
		return time.Time{}
	}
	return a.RunAt.Add(s.Job.Timeout)
}

package app

import "fmt"

// daemon keeps one replica on each host that takes one. A new one takes the
// place of an old one after that is gone: they would be in each other's way.
func (p *planner) daemon() {
	runners, _ := p.living()
	if !p.app.Started {
		for _, r := range runners {
			p.stop(r, "the app is stopped")
		}
		return
	}
	// Of each target: whether anything is there, be it on its way out or away
	// with its host.
	targets := make(map[string]bool, len(p.Targets))
	for _, h := range p.Targets {
		targets[h] = false
	}
	away := 0
	for i := range p.Replicas {
		r := &p.Replicas[i]
		if there, ok := targets[r.Host]; ok && !there {
			targets[r.Host] = true
			if p.Hosts[r.Host].Liveness == Lost && !r.Living() {
				away++
			}
		}
	}
	missing := 0
	for _, there := range targets {
		if !there {
			missing++
		}
	}
	p.launch(missing, p.app.Rollout.Target, false)
	var kept []*Replica
	for _, r := range runners {
		_, ok := targets[r.Host]
		switch {
		case p.leaving(r):
			p.stop(r, "its host is being emptied")
		case !ok:
			p.stop(r, "the app is not placed on its host any more")
		default:
			kept = append(kept, r)
		}
	}
	limit := len(targets) - away
	if p.giveUpRevision(limit) {
		return // the next Plan goes on
	}
	old := p.renew(kept, limit)
	p.progress(kept, old, limit)
}

// renew has old replicas stopped, so that new ones take their places, and says
// how many there are. Those that serve go as far as others do.
func (p *planner) renew(kept []*Replica, limit int) (old int) {
	may := max(1, p.spec.Rollout.MaxUnavailable) - (limit - len(kept))
	for _, r := range kept {
		if !p.well(r) {
			may--
		}
	}
	for _, r := range kept {
		if p.fresh(r) {
			continue
		}
		old++
		if p.app.Rollout.Paused {
			continue
		}
		if p.serves(r) {
			if may <= 0 {
				continue
			}
			may--
		}
		p.stop(r, fmt.Sprintf("revision %d replaces revision %d", p.app.Rollout.Target, r.Revision))
	}
	return old
}

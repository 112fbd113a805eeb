package app

import (
	"cmp"
	"fmt"
	"slices"
)

// Rebalance says which replicas had better be elsewhere, at most limit of them if
// that is above zero. It takes what Place takes for the best, in that order: a
// replica is moved if it must not be where it is or its host is overfull; if that
// makes the shares more equal that its app is spread over; if more weight of
// affinities, that of other apps to this one included, holds there, less its
// share of the app; and if its host is fuller than another by uneven and stays
// so. Each such move makes something better without making worse what comes
// before it, so they come to an end: once they are carried out, there are none,
// unless replicas had to change places at one time, which takes another call.
//
// Replicas are those that Take was told of, with the specs of their apps by name;
// apps without a spec stay where they are, and so do daemons, jobs, and what is
// on hosts that are not open. Moves are possible in their order, one after the
// other, and nothing is changed by asking.
func (c *Cluster) Rebalance(specs map[string]*Spec, replicas []Replica, limit int) []Move {
	b := &balancing{c: c, limit: limit, apps: map[string]*mover{}, at: map[*site][]*piece{}}
	b.collect(specs, replicas)
	for again := true; again; {
		again = b.mend()
		for _, m := range b.order {
			for b.improve(m) {
				again = true
			}
		}
		for b.level() {
			again = true
		}
	}
	return b.moves()
}

// uneven is how much fuller than another a host has to be, in parts of all it
// has, for replicas to be moved for that reason alone.
const uneven = 0.1

// balancing is a Rebalance under way. The cluster is as if the moves so far had
// been carried out.
type balancing struct {
	c     *Cluster
	limit int
	moved int
	turns int
	apps  map[string]*mover
	order []*mover // by name
	at    map[*site][]*piece
}

// mover is an app whose replicas may be moved.
type mover struct {
	*demand
	pieces []*piece // those that are moved first are first
	fans   []fan
}

// fan is an app with an affinity to this one.
type fan struct {
	*presence
	weight   int
	required bool
}

// piece is a replica.
type piece struct {
	replica  *Replica
	app      *mover
	from, on *site
	turn     int    // in which it left from
	reason   string // why
}

func (b *balancing) collect(specs map[string]*Spec, replicas []Replica) {
	for i := range replicas {
		r := &replicas[i]
		spec, s := specs[r.App], b.c.byID[r.Host]
		if spec == nil || spec.Kind != Service || s == nil || !s.Open || s.apps[r.App] == 0 || !r.Living() {
			continue
		}
		m := b.apps[r.App]
		if m == nil {
			m = &mover{demand: b.c.demand(spec, 0), fans: b.c.fans(r.App)}
			b.apps[r.App] = m
			b.order = append(b.order, m)
		}
		p := &piece{replica: r, app: m, from: s, on: s}
		m.pieces = append(m.pieces, p)
		b.at[s] = append(b.at[s], p)
	}
	slices.SortFunc(b.order, func(x, y *mover) int { return cmp.Compare(x.spec.Name, y.spec.Name) })
	for _, m := range b.order {
		slices.SortFunc(m.pieces, byWorth)
	}
	for _, pieces := range b.at {
		slices.SortFunc(pieces, byWorth)
	}
}

// byWorth has the replicas first that lose the least by a move: those that stand
// by, and then the newest.
func byWorth(x, y *piece) int {
	if x.replica.Standby != y.replica.Standby {
		if x.replica.Standby {
			return -1
		}
		return 1
	}
	return cmp.Or(y.replica.Created.Compare(x.replica.Created), cmp.Compare(x.replica.App, y.replica.App), cmp.Compare(x.replica.ID, y.replica.ID))
}

func (c *Cluster) fans(name string) (fans []fan) {
	for _, p := range c.apps {
		for _, l := range p.links {
			if l.App == name {
				fans = append(fans, fan{p, l.Weight, l.Required})
			}
		}
	}
	return fans
}

// full says that no other replica may be moved.
func (b *balancing) full(p *piece) bool { return b.limit > 0 && b.moved >= b.limit && p.on == p.from }

// carry moves a replica.
func (b *balancing) carry(p *piece, to *site, reason string) {
	b.c.lift(p.on, p.app.spec.Name, p.app.need)
	b.c.put(to, p.app.spec.Name, p.app.need)
	if p.on == p.from {
		b.moved++
		b.turns++
		p.turn, p.reason = b.turns, reason
	}
	if to == p.from {
		b.moved--
	}
	i := slices.Index(b.at[p.on], p)
	b.at[p.on] = slices.Delete(b.at[p.on], i, i+1)
	b.at[to] = append(b.at[to], p)
	slices.SortFunc(b.at[to], byWorth)
	p.on = to
}

// mend moves what must not be where it is.
func (b *balancing) mend() (moved bool) {
	for _, m := range b.order {
		for _, p := range m.pieces {
			reason := m.misplaced(p.on)
			if reason == "" {
				reason = overfull(p.on, m.need)
			}
			if reason == "" || b.full(p) || !m.free(p.on) {
				continue
			}
			b.c.lift(p.on, m.spec.Name, m.need)
			m.settled = m.elsewhere(nil)
			best := m.queue(b.c.sites).next()
			b.c.put(p.on, m.spec.Name, m.need)
			m.settled = true
			if best != nil && best != p.on {
				b.carry(p, best, reason)
				moved = true
			}
		}
	}
	return moved
}

// overfull says that a host has less than was taken, of what n takes.
func overfull(s *site, n need) string {
	switch {
	case n.MilliCPU > 0 && s.free.MilliCPU < 0:
		return "CPU: more is given than there is, by " + cpus(-s.free.MilliCPU)
	case n.Memory > 0 && s.free.Memory < 0:
		return "memory: more is given than there is, by " + bytesText(-s.free.Memory)
	case n.GPUs > 0 && s.free.GPUs < 0:
		return fmt.Sprintf("GPUs: more are given than there are, by %d", -s.free.GPUs)
	}
	return ""
}

// free says that no other app needs the replica where it is.
func (m *mover) free(s *site) bool {
	if m.home.on[s] > 1 {
		return true
	}
	for _, f := range m.fans {
		if f.required && f.weight >= 0 && f.on[s] > 0 {
			return false
		}
	}
	return true
}

// rating is how good a host is for a replica, but for how full it is.
type rating struct {
	share int // replicas there are already in its share
	level int // and on the host itself, if placement spreads over hosts
	value float64
}

// over says that the rating is better than o.
func (r rating) over(o rating) bool {
	switch {
	case r.share != o.share:
		return r.share < o.share
	case r.level != o.level:
		return r.level < o.level
	default:
		return r.value > o.value+1e-6
	}
}

// lastShare is that of hosts without the attribute that is spread over.
const lastShare = 1 << 30

// rate is how good it is to have a replica on s with own others of the app.
func (m *mover) rate(s *site, own int, shares map[string]int) rating {
	f := m.candidate(s, own)
	r := rating{value: m.points(&f)}
	if own == 0 {
		for _, a := range m.fans {
			if !a.required {
				r.value += float64(a.weight * a.on[s])
			}
		}
	}
	if m.byHost {
		r.level = own
	}
	if m.shares {
		value, known := s.Attr[m.spec.Placement.Spread]
		r.share = shares[value]
		if !known {
			r.share = lastShare
		}
	}
	return r
}

// target is a host that takes a replica, and how good it is.
type target struct {
	*site
	rating
}

// targets are the best hosts of each share for one more replica.
func (m *mover) targets(sites []*site, shares map[string]int) map[string]target {
	best := map[string]target{}
	for _, s := range sites {
		own := m.home.on[s]
		if m.obstacle(s, own).kind != fits {
			continue
		}
		one := target{s, m.rate(s, own, shares)}
		of, _ := m.shareOf(s)
		old, ok := best[of]
		if !ok || one.over(old.rating) || !old.over(one.rating) && m.fullness(s) < m.fullness(old.site) {
			best[of] = one
		}
	}
	return best
}

// improve makes the move, if there is one, that makes shares more equal or more
// weights hold: that of the replica that is worst off.
func (b *balancing) improve(m *mover) bool {
	shares := m.spreadNow()
	best := m.targets(b.c.sites, shares)
	tried := map[*site]bool{}
	var worst *piece
	var is rating
	var to target
	for _, p := range m.pieces {
		if tried[p.on] || b.full(p) || !m.free(p.on) {
			continue
		}
		tried[p.on] = true
		here, of := m.without(p.on, shares)
		if worst != nil && !is.over(here) {
			continue
		}
		if t := m.better(p.on, here, of, best); t.site != nil {
			worst, is, to = p, here, t
		}
	}
	if worst == nil {
		return false
	}
	b.carry(worst, to.site, m.why(is, worst.on, to, shares))
	return true
}

// better is the best host that is better than here, where a replica is now.
func (m *mover) better(on *site, here rating, of string, best map[string]target) (to target) {
	for other, t := range best {
		if t.site == on {
			continue // it is rated with this replica there, and no other of its share is better
		}
		if of != "" && other == of {
			t.share-- // which is taken off there
		}
		if t.over(here) && (to.site == nil || t.over(to.rating) || !to.over(t.rating) && bySite(t.site, to.site) < 0) {
			to = t
		}
	}
	return to
}

// shareOf is which share a host is in, and whether that is one of those that are
// to be equal.
func (m *mover) shareOf(s *site) (of string, known bool) {
	if !m.shares {
		return "", false
	}
	value, known := s.Attr[m.spec.Placement.Spread]
	if !known {
		return "", false
	}
	return "=" + value, true
}

// without is how good a host is for a replica that is there, and its share.
func (m *mover) without(s *site, shares map[string]int) (here rating, of string) {
	here = m.rate(s, m.home.on[s]-1, shares)
	of, known := m.shareOf(s)
	if known {
		here.share--
	}
	return here, of
}

// why says to people why to is better than here.
func (m *mover) why(here rating, on *site, to target, shares map[string]int) string {
	switch {
	case here.share != to.share:
		name := attributeName(m.spec.Placement.Spread)
		value, known := on.Attr[m.spec.Placement.Spread]
		if !known {
			return fmt.Sprintf("%s is missing, and the app is spread over it", name)
		}
		other := to.Attr[m.spec.Placement.Spread]
		return fmt.Sprintf("%s %q has %d of its replicas, %q has %d", name, value, shares[value], other, shares[other])
	case m.home.on[on]-1 > m.home.on[to.site]:
		return fmt.Sprintf("%s has %d of its replicas, %s has %d", title(on), m.home.on[on], title(to.site), m.home.on[to.site])
	default:
		return fmt.Sprintf("its affinities prefer %s to %s", title(to.site), title(on))
	}
}

func title(s *site) string { return hostName(s.Name, s.ID) }

// level makes a move from a full host to an emptier one.
func (b *balancing) level() bool {
	full := map[*site]float64{}
	hosts := make([]*site, 0, len(b.at))
	emptiest := 1.0
	for _, s := range b.c.sites {
		full[s] = fill(s)
		if s.Open {
			emptiest = min(emptiest, full[s])
		}
		if len(b.at[s]) > 0 {
			hosts = append(hosts, s)
		}
	}
	slices.SortStableFunc(hosts, func(x, y *site) int { return cmp.Compare(full[y], full[x]) })
	stuck := map[*mover]bool{} // they found nothing from a fuller host
	for _, s := range hosts {
		if full[s]-emptiest < uneven {
			return false
		}
		for _, p := range b.at[s] {
			m := p.app
			if stuck[m] || m.spec.Placement.Strategy == BinPack || b.full(p) || !m.free(s) {
				continue
			}
			to := b.emptier(m, s, full)
			if to == nil {
				stuck[m] = true
				continue
			}
			b.carry(p, to, fmt.Sprintf("%s is %.0f %% full, %s is %.0f %%", title(s), 100*full[s], title(to), 100*full[to]))
			return true
		}
	}
	return false
}

// emptier is the emptiest host that is as good for a replica on s and stays
// emptier.
func (b *balancing) emptier(m *mover, s *site, full map[*site]float64) (best *site) {
	shares := m.spreadNow()
	here, of := m.without(s, shares)
	after := full[s] - m.weight(s)
	for _, t := range b.c.sites {
		if t == s || full[s]-full[t] < uneven || full[t]+m.weight(t) > after || best != nil && full[t] >= full[best] {
			continue
		}
		own := m.home.on[t]
		if m.obstacle(t, own).kind != fits {
			continue
		}
		there := m.rate(t, own, shares)
		if other, known := m.shareOf(t); known && other == of {
			there.share--
		}
		if !here.over(there) {
			best = t
		}
	}
	return best
}

// fill is the part of a host, 0 to 1 and more, that is taken.
func fill(s *site) float64 {
	return (parts(s.Total.MilliCPU-s.free.MilliCPU+s.light.MilliCPU, s.Total.MilliCPU) +
		parts(s.Total.Memory-s.free.Memory+s.light.Memory, s.Total.Memory)) / 2
}

// weight is the part of a host that a replica takes.
func (m *mover) weight(s *site) float64 {
	return (parts(m.need.MilliCPU+m.need.light.MilliCPU, s.Total.MilliCPU) + parts(m.need.Memory+m.need.light.Memory, s.Total.Memory)) / 2
}

// parts is part without bounds, so that a replica weighs the same everywhere.
func parts(taken, total int64) float64 {
	if total <= 0 {
		return 1
	}
	return float64(taken) / float64(total)
}

// moves puts the cluster back as it was, and the moves into an order in which
// each finds room.
func (b *balancing) moves() (out []Move) {
	var todo []*piece
	for _, m := range b.order {
		for _, p := range m.pieces {
			if p.on != p.from {
				todo = append(todo, p)
				b.c.lift(p.on, m.spec.Name, m.need)
				b.c.put(p.from, m.spec.Name, m.need)
			}
		}
	}
	slices.SortFunc(todo, func(x, y *piece) int { return cmp.Compare(x.turn, y.turn) })
	var done []*piece
	for again := true; again; {
		again = false
		rest := todo[:0]
		for _, p := range todo {
			name, n := p.app.spec.Name, p.app.need
			b.c.lift(p.from, name, n)
			if p.app.obstacle(p.on, p.app.home.on[p.on]).kind != fits {
				b.c.put(p.from, name, n)
				rest = append(rest, p)
				continue
			}
			b.c.put(p.on, name, n)
			done = append(done, p)
			again = true
		}
		todo = rest
	}
	for _, p := range slices.Backward(done) {
		b.c.lift(p.on, p.app.spec.Name, p.app.need)
		b.c.put(p.from, p.app.spec.Name, p.app.need)
	}
	for _, p := range done {
		out = append(out, Move{App: p.replica.App, Replica: p.replica.ID, From: p.from.ID, To: p.on.ID, Reason: p.reason})
	}
	return out
}

package app

import (
	"cmp"
	"slices"
)

// Place chooses hosts for n more replicas, takes them there, and says which, in
// order; a host that takes several is there several times. Hosts in avoid are
// used only when no other fits. If fewer than n fit, why says for each host what
// keeps the next one from it: the first hundred by name, the others in groups
// that have no Host. Of a daemon n may be larger than the number of hosts, and
// why has only those that ought to have one.
//
// The order of preference: equal shares of what Placement.Spread names; then the
// weights of the affinities that hold, less, unless the strategy is BinPack, the
// percentage of the app's replicas that are on the host already; then the
// emptiest or, with BinPack, the fullest. What is left is decided by a hash of
// app and host.
func (c *Cluster) Place(spec *Spec, n int, avoid map[string]bool) (hosts []string, why []WhyNot) {
	if n <= 0 {
		return nil, nil
	}
	c.presence(spec.Name) // from now on, for d
	defer c.tidy(spec.Name)
	d := c.demand(spec, n)
	sites := c.sites
	var last []*site
	if len(avoid) > 0 {
		sites = nil
		for _, s := range c.sites {
			if avoid[s.ID] {
				last = append(last, s)
			} else {
				sites = append(sites, s)
			}
		}
	}
	for _, some := range [][]*site{sites, last} {
		if len(hosts) == n || len(some) == 0 {
			continue
		}
		q := d.queue(some)
		for len(hosts) < n {
			s := q.next()
			if s == nil {
				break
			}
			c.put(s, spec.Name, d.need)
			q.took()
			hosts = append(hosts, s.ID)
		}
	}
	if len(hosts) > 0 {
		c.apps[spec.Name].links = linksOf(spec)
	}
	if len(hosts) < n {
		why = c.whyNot(d)
	}
	return hosts, why
}

// Explain says of each host whether it would take a replica: those that do
// first, the best first, and then the others by name.
func (c *Cluster) Explain(spec *Spec) []WhyNot {
	d := c.demand(spec, 1)
	q := d.queue(c.sites)
	all := make([]WhyNot, 0, len(c.sites))
	for _, f := range q.ranked() {
		all = append(all, WhyNot{Host: f.ID, Name: f.Name, Score: f.score})
	}
	for _, s := range c.sites {
		own := d.home.on[s]
		if o := d.obstacle(s, own); o.kind != fits {
			all = append(all, WhyNot{Host: s.ID, Name: s.Name, Reason: d.sentence(s, own, o)})
		}
	}
	return all
}

// Eligible are the hosts, by id, that a daemon should be on, whether it fits
// there now or not: those open or with a replica already, of which all
// constraints and required affinities hold.
func (c *Cluster) Eligible(spec *Spec) (hosts []string) {
	d := c.demand(spec, 1)
	for _, s := range c.sites {
		if own := d.home.on[s]; (s.Open || own > 0) && !s.Leaving && d.misfit(s, max(own-1, 0)).kind == fits {
			hosts = append(hosts, s.ID)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// Misplaced says why a replica that is on a host must not be there, whatever
// room there is: constraints or required affinities no longer hold. Empty: it may.
func (c *Cluster) Misplaced(spec *Spec, hostID string) string {
	s := c.byID[hostID]
	if s == nil {
		return ""
	}
	d := c.demand(spec, 0)
	return d.misplaced(s)
}

func (d *demand) misplaced(s *site) string {
	own := max(d.home.on[s]-1, 0) // besides the one in question
	settled := d.settled
	d.settled = d.elsewhere(s)
	o := d.misfit(s, own)
	d.settled = settled
	if o.kind == fits && d.most > 0 && own >= d.most {
		o = obstacle{isCrowded, 0}
	}
	return d.sentence(s, own+1, o)
}

// maxWhyNot is how many hosts are told one by one why they take nothing.
const maxWhyNot = 100

// whyNot says what keeps the next replica from each host.
func (c *Cluster) whyNot(d *demand) (all []WhyNot) {
	if len(c.sites) == 0 {
		return []WhyNot{{Reason: "there is no host"}}
	}
	var kinds []obstacle
	groups := map[obstacle][]*site{}
	for _, s := range c.sites {
		own := d.home.on[s]
		o := d.obstacle(s, own)
		if d.spec.Kind == Daemon && (own > 0 || o.kind == isClosed || d.misfit(s, own).kind != fits) {
			continue
		}
		if len(all) < maxWhyNot {
			all = append(all, WhyNot{Host: s.ID, Name: s.Name, Reason: d.sentence(s, own, o)})
			continue
		}
		if groups[o] == nil {
			kinds = append(kinds, o)
		}
		groups[o] = append(groups[o], s)
	}
	for _, o := range kinds {
		sites := groups[o]
		all = append(all, WhyNot{Name: several(len(sites), "more host"), Reason: d.summary(sites, o)})
	}
	return all
}

// candidate is a host that takes at least one more replica.
type candidate struct {
	*site
	own   int // replicas of the app that are there
	bonus int // the weights of the affinities that hold there, but for those to the app itself
	score float64
	tie   uint64
}

func (d *demand) candidate(s *site, own int) candidate {
	f := candidate{site: s, own: own, tie: scramble(s.seed ^ d.seed)}
	for i := range d.pulls {
		if p := &d.pulls[i]; !p.Required && !p.self && p.holds(s, own) {
			f.bonus += p.Weight
		}
	}
	f.score = d.score(&f)
	return f
}

// score is how good it is to have the next replica there: in points, of which a
// host's emptiness never makes up one step.
func (d *demand) score(f *candidate) float64 {
	points := d.points(f)
	if d.spec.Placement.Strategy == BinPack {
		return points + 0.999*d.fullness(f.site)
	}
	return points + min(1, 100/float64(d.total))*0.999*(1-d.fullness(f.site))
}

func (d *demand) points(f *candidate) float64 {
	points := float64(f.bonus)
	if f.own > 0 {
		points += float64(d.selfPull)
	}
	if d.spec.Placement.Strategy == BinPack {
		return points
	}
	return points - 100*float64(f.own)/float64(d.total)
}

// fullness is the part of a host, 0 to 1, that is taken once the replica is
// there too: the mean of what it needs.
func (d *demand) fullness(s *site) float64 {
	n := &d.need
	sum := part(s.Total.MilliCPU-s.free.MilliCPU+s.light.MilliCPU+n.MilliCPU+n.light.MilliCPU, s.Total.MilliCPU) +
		part(s.Total.Memory-s.free.Memory+s.light.Memory+n.Memory+n.light.Memory, s.Total.Memory)
	if n.GPUs == 0 {
		return sum / 2
	}
	return (sum + part(int64(s.Total.GPUs-s.free.GPUs+n.GPUs), int64(s.Total.GPUs))) / 3
}

func part(taken, total int64) float64 {
	if total <= 0 {
		return 1
	}
	return min(max(float64(taken)/float64(total), 0), 1)
}

// before says that a is better than b.
func (d *demand) before(a, b *candidate) bool {
	switch {
	case d.byHost && a.own != b.own:
		return a.own < b.own
	case a.score != b.score:
		return a.score > b.score
	case a.own != b.own:
		return a.own < b.own
	case a.tie != b.tie:
		return a.tie < b.tie
	default:
		return a.ID < b.ID
	}
}

// queue has the hosts that fit, the best first.
type queue struct {
	d      *demand
	shares []*share // a heap
}

// share are the hosts with one value of the attribute that is spread over; all
// hosts, if none is.
type share struct {
	value string
	known bool        // the hosts have the attribute
	n     int         // replicas of the app that are there
	heap  []candidate // never empty
}

func (d *demand) queue(sites []*site) *queue {
	q := &queue{d: d}
	byValue := map[string]*share{}
	all := &share{}
	if !d.shares {
		all.heap = make([]candidate, 0, len(sites))
	}
	for _, s := range sites {
		own := 0
		if len(d.home.on) > 0 {
			own = d.home.on[s]
		}
		if d.obstacle(s, own).kind != fits {
			continue
		}
		in := all
		if d.shares {
			value, known := s.Attr[d.spec.Placement.Spread]
			if known {
				if in = byValue[value]; in == nil {
					in = &share{value: value, known: true}
					byValue[value] = in
				}
			}
		}
		in.heap = append(in.heap, d.candidate(s, own))
	}
	for value, n := range d.spreadNow() {
		if in := byValue[value]; in != nil {
			in.n = n
		}
	}
	if len(all.heap) > 0 {
		q.shares = append(q.shares, all)
	}
	for _, in := range byValue {
		q.shares = append(q.shares, in)
	}
	for _, in := range q.shares {
		heapify(in.heap, d.before)
	}
	heapify(q.shares, q.before)
	return q
}

// spreadNow counts the replicas of the app by the value of the attribute that
// they are spread over.
func (d *demand) spreadNow() map[string]int {
	if !d.shares {
		return nil
	}
	now := map[string]int{}
	for s, n := range d.home.on {
		if value, known := s.Attr[d.spec.Placement.Spread]; known && !s.Leaving {
			now[value] += n
		}
	}
	return now
}

// before says that share a is to have the next replica rather than b. Hosts
// without the attribute are the last resort.
func (q *queue) before(a, b **share) bool {
	x, y := *a, *b
	switch {
	case x.known != y.known:
		return x.known
	case x.n != y.n:
		return x.n < y.n
	case q.d.before(&x.heap[0], &y.heap[0]):
		return true
	case q.d.before(&y.heap[0], &x.heap[0]):
		return false
	default:
		return x.value < y.value
	}
}

// next is the best host; nil: none is left. took or next follows.
func (q *queue) next() *site {
	for len(q.shares) > 0 {
		f := &q.shares[0].heap[0]
		if q.d.obstacle(f.site, f.own).kind == fits { // the first replica of an app may have changed that
			return f.site
		}
		q.skip()
	}
	return nil
}

// took says that a replica has been put on the host that next gave.
func (q *queue) took() {
	q.d.settled = true
	in := q.shares[0]
	in.n++
	f := &in.heap[0]
	f.own++
	if q.d.obstacle(f.site, f.own).kind != fits {
		q.skip()
		return
	}
	f.score = q.d.score(f)
	sift(in.heap, 0, q.d.before)
	sift(q.shares, 0, q.before)
}

// skip removes the best host.
func (q *queue) skip() {
	in := q.shares[0]
	if in.heap = pop(in.heap, q.d.before); len(in.heap) == 0 {
		q.shares = pop(q.shares, q.before)
		return
	}
	sift(q.shares, 0, q.before)
}

// ranked are all hosts that fit, for one replica more, the best first.
func (q *queue) ranked() (all []candidate) {
	slices.SortFunc(q.shares, func(a, b *share) int {
		known := 0
		if a.known != b.known {
			known = 1
			if a.known {
				known = -1
			}
		}
		return cmp.Or(known, cmp.Compare(a.n, b.n), cmp.Compare(a.value, b.value))
	})
	for i := 0; i < len(q.shares); {
		var equal []candidate
		first := q.shares[i]
		for ; i < len(q.shares) && q.shares[i].n == first.n && q.shares[i].known == first.known; i++ {
			equal = append(equal, q.shares[i].heap...)
		}
		slices.SortFunc(equal, func(a, b candidate) int {
			if q.d.before(&a, &b) {
				return -1
			}
			return 1
		})
		all = append(all, equal...)
	}
	return all
}

// heapify, sift and pop keep the best element first. That is container/heap
// without a call through an interface for each comparison and without boxes.
func heapify[T any](h []T, before func(a, b *T) bool) {
	for i := len(h)/2 - 1; i >= 0; i-- {
		sift(h, i, before)
	}
}

func sift[T any](h []T, i int, before func(a, b *T) bool) {
	for {
		best := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if before(&h[child], &h[best]) {
				best = child
			}
		}
		if best == i {
			return
		}
		h[i], h[best] = h[best], h[i]
		i = best
	}
}

func pop[T any](h []T, before func(a, b *T) bool) []T {
	h[0] = h[len(h)-1]
	h = h[:len(h)-1]
	sift(h, 0, before)
	return h
}

// hash is FNV-1a, the same in each process.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// scramble makes all bits of the result depend on all bits of h (the end of
// MurmurHash3).
func scramble(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

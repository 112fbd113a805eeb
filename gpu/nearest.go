package gpu

import (
	"cmp"
	"math/big"
	"slices"
)

// Bounds of what is compared: all sets of 8 of 16 GPUs are 12870. Where there are
// more, as of many MIG instances, sets grow from devices here and there.
const (
	maxSets  = 20000
	maxSeeds = 64
)

// nearest are the n devices of free that reach each other best.
func (a *allotment) nearest(free []int, n int) []int {
	c := chooser{a: a, free: free, near: a.closeness(free)}
	if combinations(len(free), n) <= maxSets {
		c.each(nil, 0, n)
	} else {
		for seed := 0; seed < len(free); seed += 1 + len(free)/maxSeeds {
			c.grow(seed, n)
		}
	}
	out := make([]int, 0, n)
	for _, at := range c.best {
		out = append(out, free[at])
	}
	return out
}

// pair is how well two devices reach each other.
type pair struct {
	links    int // of NVLink
	distance Distance
	apart    int // 1: without NVLink
}

// score of a set: what comes first counts first, and less is better.
type score struct {
	full     *big.Rat // of shared devices: how much is left of them, so that whole ones stay whole
	apart    int      // pairs without NVLink
	links    int      // NVLinks, negative
	distance int      // on PCIe, sum of all pairs
	memory   int64    // the largest are left for those who need them
	broken   int      // how near those are that are left: groups are not torn apart
}

func (s score) compare(o score) int {
	return cmp.Or(
		s.full.Cmp(o.full), cmp.Compare(s.apart, o.apart), cmp.Compare(s.links, o.links), cmp.Compare(s.distance, o.distance),
		cmp.Compare(s.memory, o.memory), cmp.Compare(s.broken, o.broken),
	)
}

// chooser compares sets of positions in free.
type chooser struct {
	a     *allotment
	free  []int
	near  [][]pair
	best  []int
	score score
}

// each goes through all sets that begin with set.
func (c *chooser) each(set []int, from, n int) {
	if len(set) == n {
		c.consider(set)
		return
	}
	for at := from; at <= len(c.free)-(n-len(set)); at++ {
		c.each(append(set, at), at+1, n)
	}
}

// grow takes the device that adds least, from a seed on.
func (c *chooser) grow(seed, n int) {
	set := []int{seed}
	adds := make([]score, len(c.free)) // what each would add
	for at := range adds {
		adds[at].full = new(big.Rat)
	}
	for len(set) < n {
		next := -1
		for at := range c.free {
			if slices.Contains(set, at) {
				continue
			}
			adds[at].add(c.near[set[len(set)-1]][at])
			if next < 0 || adds[at].compare(adds[next]) < 0 {
				next = at
			}
		}
		set = append(set, next)
	}
	slices.Sort(set)
	c.consider(set)
}

func (s *score) add(p pair) {
	s.apart += p.apart
	s.links -= p.links
	s.distance += int(p.distance)
}

func (c *chooser) consider(set []int) {
	s := score{full: new(big.Rat)}
	for i, at := range set {
		d := c.a.m.Devices[c.free[at]]
		s.memory += d.Memory
		if c.a.w.Slices > 0 || c.a.w.Share > 0 {
			s.full.Add(s.full, big.NewRat(1, 1))
			if t := c.a.taken[c.free[at]]; t != nil {
				s.full.Sub(s.full, t)
			}
		}
		for _, other := range set[:i] {
			s.add(c.near[at][other])
		}
		for other, p := range c.near[at] {
			if !slices.Contains(set, other) {
				s.broken += p.links*int(System+1) + int(System-p.distance)
			}
		}
	}
	if c.best == nil || s.compare(c.score) < 0 {
		c.best, c.score = slices.Clone(set), s
	}
}

// closeness is how near each two of free are.
func (a *allotment) closeness(free []int) [][]pair {
	type ends struct{ a, b string }
	links := map[ends]Link{}
	for _, l := range a.m.Links {
		links[ends{l.A, l.B}], links[ends{l.B, l.A}] = l, l
	}
	near := make([][]pair, len(free))
	for i, x := range free {
		near[i] = make([]pair, len(free))
		for j, y := range free {
			dx, dy := a.m.Devices[x], a.m.Devices[y]
			l, known := links[ends{card(dx), card(dy)}]
			switch {
			case i == j || card(dx) == card(dy): // instances of one GPU
				near[i][j] = pair{distance: SameBoard}
			case known:
				near[i][j] = pair{links: l.NVLinks, distance: l.Distance}
			case dx.NUMANode == dy.NUMANode:
				near[i][j] = pair{distance: SameNUMANode}
			default:
				near[i][j] = pair{distance: System}
			}
			if near[i][j].links == 0 && card(dx) != card(dy) {
				near[i][j].apart = 1
			}
		}
	}
	return near
}

// card is the UUID of the GPU that a device is, or is an instance of.
func card(d Device) string {
	if d.Instance != nil {
		return d.Instance.Parent
	}
	return d.UUID
}

// combinations is n over k, or more than maxSets.
func combinations(n, k int) int {
	k = min(k, n-k)
	c := 1
	for i := 1; i <= k; i++ {
		if c = c * (n - k + i) / i; c > maxSets {
			return maxSets + 1
		}
	}
	return c
}

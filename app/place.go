package app

import (
	"cmp"
	"slices"
)

// Resources are what a host has, or what is left of it.
type Resources struct {
	MilliCPU int64
	Memory   int64 // bytes
	GPUs     int
}

// Node is a host as placement sees it.
type Node struct {
	ID, Name string
	Attr     map[string]string // by name, see Constraint; not changed afterwards
	Total    Resources         // what apps may have in all, whether they have it or not
	Ports    []uint32          // HostPorts that others than the apps use
	Open     bool              // it takes new replicas
	Why      string            // a sentence, if it does not
	Leaving  bool              // it is to be empty: its replicas do not count when others are spread
}

// HostPort is a port of a host. Of the protocols of Port.Proto, "udp" has ports
// of its own, and all others share TCP's.
func HostPort(proto string, port uint16) uint32 {
	if proto == "udp" {
		return 1<<16 | uint32(port)
	}
	return uint32(port)
}

// Cluster is all hosts and what the replicas on them take. It decides where
// replicas go, and nothing else: one caller at a time, no clock, no chance. It
// is made once and kept up to date: Set and Remove for hosts, Take for each
// replica that is on a host and Give for each that is there no more.
type Cluster struct {
	sites []*site // by name and id
	byID  map[string]*site
	apps  map[string]*presence
}

// site is a host and what is on it.
type site struct {
	Node
	seed  uint64    // for ties, see tie
	free  Resources // below zero: more was given than there is now
	light Resources // what replicas that reserve nothing count for when hosts are compared
	ports map[uint32]int
	apps  map[string]int // replicas
}

// presence is an app on hosts.
type presence struct {
	on    map[*site]int // replicas
	n     int           // in all
	links []Affinity    // to other apps, of the spec that was taken last
}

// NewCluster is a cluster of these hosts, with nothing on them.
func NewCluster(nodes []Node) *Cluster {
	c := &Cluster{byID: map[string]*site{}, apps: map[string]*presence{}}
	block := make([]site, len(nodes)) // side by side: Place goes through all of them
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	for i, n := range sorted {
		if c.byID[n.ID] != nil {
			c.Set(n)
			continue
		}
		c.sites = append(c.sites, c.fill(&block[i], n))
	}
	return c
}

func (c *Cluster) fill(s *site, n Node) *site {
	*s = site{Node: n, seed: hash(n.ID), free: n.Total, ports: map[uint32]int{}, apps: map[string]int{}}
	for _, p := range n.Ports {
		s.ports[p]++
	}
	c.byID[n.ID] = s
	return s
}

// called is how sentences name a host.
func (c *Cluster) called(id string) string {
	if s := c.byID[id]; s != nil {
		return title(s)
	}
	return id
}

func bySite(a, b *site) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) }

// Set adds a host, or changes what is known of it; what was taken on it stays.
func (c *Cluster) Set(n Node) {
	s := c.byID[n.ID]
	if s == nil {
		s = c.fill(&site{}, n)
	} else {
		for _, p := range s.Node.Ports {
			s.release(p)
		}
		for _, p := range n.Ports {
			s.ports[p]++
		}
		s.free.MilliCPU += n.Total.MilliCPU - s.Total.MilliCPU
		s.free.Memory += n.Total.Memory - s.Total.Memory
		s.free.GPUs += n.Total.GPUs - s.Total.GPUs
		if s.Name == n.Name {
			s.Node = n
			return
		}
		c.drop(s)
		s.Node = n
	}
	i, _ := slices.BinarySearchFunc(c.sites, s, bySite)
	c.sites = slices.Insert(c.sites, i, s)
}

// Remove forgets a host and what was taken on it.
func (c *Cluster) Remove(id string) {
	s := c.byID[id]
	if s == nil {
		return
	}
	delete(c.byID, id)
	c.drop(s)
	for name, n := range s.apps {
		p := c.apps[name]
		delete(p.on, s)
		p.n -= n
		c.tidy(name)
	}
}

func (c *Cluster) drop(s *site) {
	if i, ok := slices.BinarySearchFunc(c.sites, s, bySite); ok {
		c.sites = slices.Delete(c.sites, i, i+1)
	}
}

// Take says that a replica is on a host. A host that is not known is left alone.
func (c *Cluster) Take(hostID string, spec *Spec) {
	if s := c.byID[hostID]; s != nil {
		c.put(s, spec.Name, needOf(spec))
		c.apps[spec.Name].links = linksOf(spec)
	}
}

// Give is the inverse of Take, with the spec of that Take.
func (c *Cluster) Give(hostID string, spec *Spec) {
	if s := c.byID[hostID]; s != nil && s.apps[spec.Name] > 0 {
		c.lift(s, spec.Name, needOf(spec))
		c.tidy(spec.Name)
	}
}

// put adds a replica to a host.
func (c *Cluster) put(s *site, name string, n need) {
	s.free.MilliCPU -= n.MilliCPU
	s.free.Memory -= n.Memory
	s.free.GPUs -= n.GPUs
	s.light.MilliCPU += n.light.MilliCPU
	s.light.Memory += n.light.Memory
	for _, p := range n.ports {
		s.ports[p]++
	}
	s.apps[name]++
	p := c.presence(name)
	p.on[s]++
	p.n++
}

// lift takes a replica off a host. The app's presence stays, even if it is empty.
func (c *Cluster) lift(s *site, name string, n need) {
	s.free.MilliCPU += n.MilliCPU
	s.free.Memory += n.Memory
	s.free.GPUs += n.GPUs
	s.light.MilliCPU -= n.light.MilliCPU
	s.light.Memory -= n.light.Memory
	for _, p := range n.ports {
		s.release(p)
	}
	p := c.apps[name]
	p.n--
	if s.apps[name]--; s.apps[name] == 0 {
		delete(s.apps, name)
		delete(p.on, s)
		return
	}
	p.on[s]--
}

func (s *site) release(port uint32) {
	if s.ports[port]--; s.ports[port] <= 0 {
		delete(s.ports, port)
	}
}

func (c *Cluster) presence(name string) *presence {
	p := c.apps[name]
	if p == nil {
		p = &presence{on: map[*site]int{}}
		c.apps[name] = p
	}
	return p
}

// tidy forgets an app that is nowhere.
func (c *Cluster) tidy(name string) {
	if p := c.apps[name]; p != nil && p.n == 0 {
		delete(c.apps, name)
	}
}

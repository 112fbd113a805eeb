package proxy

import (
	"net/netip"
	"slices"
)

// version is an app as an Update has it. It never changes. Without anything in
// it the app is gone.
type version struct {
	rules    []Rule
	doors    []door
	web      *service // for its rules
	streams  map[door]*service
	replicas []*replica
	ends     map[*end]struct{} // those of all replicas
}

// service is where requests, or the connections of one stream, go.
type service struct {
	*app
	door      door // of the stream
	port      uint16
	balance   Balance
	h2c       bool
	sendProxy bool
	ends      []*end // who may be given something new
}

// newest is the same service by the present version; nil: it is gone.
func (s *service) newest() *service {
	v := s.app.now.Load()
	if s.door == (door{}) {
		return v.web
	}
	return v.streams[s.door]
}

// version is the next one, of what an app is to be and what it has of that.
func (a *app) version(c claim) *version {
	v := &version{
		rules: c.rules, doors: c.doors, ends: map[*end]struct{}{},
		web: &service{app: a, port: c.Port, balance: c.Balance, h2c: c.H2C}, streams: make(map[door]*service, len(c.doors)),
	}
	services := []*service{v.web}
	for i, s := range c.Streams {
		to := &service{app: a, door: c.doors[i], port: s.Port, balance: c.Balance, sendProxy: s.SendProxy}
		v.streams[to.door] = to
		services = append(services, to)
	}
	had := map[string]*replica{}
	for _, r := range a.now.Load().replicas {
		had[r.id] = r
	}
	for _, b := range c.Backends {
		r := had[b.ID]
		if r == nil {
			r = newReplica(a, b.ID)
		}
		r.draining.Store(b.Draining)
		reached := false
		for _, s := range services {
			at, ok := b.Ports[s.port]
			if !ok {
				continue
			}
			reached = true
			e := r.endAt(netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
			v.ends[e] = struct{}{}
			if !b.Draining {
				s.ends = append(s.ends, e)
			}
		}
		if reached {
			v.replicas = append(v.replicas, r)
		}
	}
	return v
}

// endAt is the port at an address.
func (r *replica) endAt(at netip.AddrPort) *end {
	if i := slices.IndexFunc(r.ends, func(e *end) bool { return e.addr == at }); i >= 0 {
		return r.ends[i]
	}
	e := &end{replica: r, addr: at, text: at.String()}
	r.ends = append(r.ends, e)
	return e
}

// change is what becomes of an app.
type change struct {
	app       *app
	old, next *version
}

// begin lets new requests go by the next version.
func (c *change) begin() {
	for e := range c.next.ends {
		if !e.draining.Load() {
			e.reopen()
		}
	}
	c.old = c.app.now.Swap(c.next)
}

// finish lets nothing new go by the old one alone.
func (c *change) finish() {
	for e := range c.old.ends {
		if _, still := c.next.ends[e]; !still {
			e.gone.Store(true)
			e.close()
			e.replica.ends = slices.DeleteFunc(e.replica.ends, func(x *end) bool { return x == e })
		}
	}
	for e := range c.next.ends {
		if e.draining.Load() {
			e.close()
		}
	}
}

package proxy

import (
	"bytes"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// app is what lasts of an app from version to version.
type app struct {
	name   string
	cookie string // its name, for Sticky
	tally
	answers   [5]atomic.Uint64
	retries   atomic.Uint64
	ejections atomic.Uint64
	budget    budget
	turn      atomic.Uint32
	now       atomic.Pointer[version]
	ejecting  sync.Mutex // guards the ejections of all replicas
}

// replica is what lasts of a backend.
type replica struct {
	id  string
	tag string // names it in cookies
	app *app
	tally
	health
	draining atomic.Bool
	ends     []*end // guarded by Proxy.updating
}

// end is a port of a replica, where it is published.
type end struct {
	*replica
	addr netip.AddrPort
	text string // addr
	pool
	shut atomic.Bool // nothing new begins: it drains, or is gone
	gone atomic.Bool // its app has it no more
}

func newApp(name string) *app {
	a := &app{name: name, cookie: cookieOf(name)}
	a.now.Store(&version{})
	return a
}

// claims says that an app has just what c claims.
func (a *app) claims(c claim) bool {
	v := a.now.Load()
	return slices.Equal(v.rules, c.rules) && slices.Equal(v.doors, c.doors)
}

func newReplica(a *app, id string) *replica {
	h := fnv.New64a()
	h.Write([]byte(a.name + "\x00" + id))
	return &replica{id: id, tag: strconv.FormatUint(h.Sum64(), 36), app: a}
}

// pick chooses who gets something new, none of tried. It takes those that are
// ejected if there is nobody else; nil: nobody.
func (s *service) pick(by choice, now int64, tried []*end) *end {
	for _, ejected := range []bool{false, true} {
		usable := func(e *end) bool { return e.ejectedAt(now) == ejected && !slices.Contains(tried, e) }
		if e := s.choose(by, usable); e != nil {
			return e
		}
	}
	return nil
}

// enter picks an end and counts what begins there. A request may have its
// service from before an Update; so it looks once more when it has been counted:
// who sees that nothing is under way after an Update can be sure that nothing comes.
func (s *service) enter(by choice, now int64, tried []*end) *end {
	for s != nil {
		e := s.pick(by, now, tried)
		if e == nil {
			return nil
		}
		e.active.Add(1)
		if !e.shut.Load() {
			e.requests.Add(1)
			if len(tried) > 0 {
				s.retries.Add(1)
			}
			return e
		}
		e.active.Add(-1)
		s = s.newest()
	}
	return nil
}

// choice is what Sticky goes by.
type choice struct {
	tag    []byte     // of a cookie, or nothing
	client netip.Addr // of a connection or a datagram; not valid: take turns
}

func (s *service) choose(by choice, usable func(*end) bool) *end {
	n := len(s.ends)
	if n == 0 {
		return nil
	}
	if s.balance == Sticky {
		if e := s.stick(by, usable); e != nil || by.client.IsValid() {
			return e
		}
	}
	start := int(s.turn.Add(1)-1) % n
	var best *end
	for i := range n {
		e := s.ends[(start+i)%n]
		if !usable(e) {
			continue
		}
		if s.balance != LeastConnections {
			return e
		}
		if best == nil || e.active.Load() < best.active.Load() {
			best = e
		}
	}
	return best
}

// stick finds the replica that a client belongs to. By address it is the one
// with the highest hash of both, so that a replica that comes or goes moves
// its own clients alone.
func (s *service) stick(by choice, usable func(*end) bool) *end {
	var best *end
	var high uint64
	for _, e := range s.ends {
		if !usable(e) {
			continue
		}
		if by.client.IsValid() {
			if w := weight(by.client, e.id); best == nil || w > high {
				best, high = e, w
			}
		} else if string(by.tag) == e.tag {
			return e
		}
	}
	return best
}

func weight(client netip.Addr, id string) uint64 {
	h := fnv.New64a()
	b := client.As16()
	h.Write(b[:])
	h.Write([]byte(id))
	w := h.Sum64()
	w ^= w >> 33 // fnv alone mixes its last bytes too little
	w *= 0xff51afd7ed558ccd
	return w ^ w>>33
}

// tagIn finds the tag that an earlier answer has given to the client.
func (s *service) tagIn(b []byte, cookies []span) []byte {
	if s.balance != Sticky {
		return nil
	}
	for _, c := range cookies {
		for rest := c.of(b); len(rest) > 0; {
			var one []byte
			one, rest, _ = bytes.Cut(rest, []byte{';'})
			name, value, ok := bytes.Cut(bytes.TrimSpace(one), []byte{'='})
			if ok && string(name) == s.cookie {
				return value
			}
		}
	}
	return nil
}

// cookieOf is the name of an app's cookie.
func cookieOf(app string) string {
	if allTokens([]byte(app)) {
		return "buoy-" + app
	}
	h := fnv.New64a()
	h.Write([]byte(app))
	return "buoy-" + strconv.FormatUint(h.Sum64(), 36)
}

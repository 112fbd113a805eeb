package dns

import (
	"net/netip"
	"sync"
)

// slots bounds how much is done at a time, for all and for each client, so
// that one that floods us leaves room for the others.
type slots struct {
	most, each int

	mu    sync.Mutex // guards the fields below
	taken int
	by    map[netip.Addr]int
}

// take is a slot, until done is called once.
func (s *slots) take(client netip.Addr) (done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.most || s.by[client] >= s.each {
		return nil, false
	}
	if s.by == nil {
		s.by = map[netip.Addr]int{}
	}
	s.taken++
	s.by[client]++
	return func() { s.give(client) }, true
}

func (s *slots) give(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.by[client]--; s.by[client] == 0 {
		delete(s.by, client)
	}
}

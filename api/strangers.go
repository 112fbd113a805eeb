package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxStrangers bounds connections on which nobody has been let in yet. Each costs
// some 20 KB; a controller that has just come back has one of each of its hosts.
const maxStrangers = 4096

// strangers are the connections by TCP that have not shown yet who is at their
// other end. Where there are too many, the newest of the network that has the most
// is closed: who opens thousands is in nobody's way but his own.
type strangers struct {
	most int

	mu sync.Mutex // guards n, of
	n  int
	of map[netip.Addr][]net.Conn // by network, the oldest first
}

type knownKey struct{}

// note has Known find the connection of a request.
func (s *strangers) note(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, knownKey{}, func() { s.forget(c) })
}

// Known says that it is known who makes a request, and so who is at the other end
// of its connection.
func Known(r *http.Request) {
	if forget, ok := r.Context().Value(knownKey{}).(func()); ok {
		forget()
	}
}

// watch is told of connections as http.Server.ConnState has it.
func (s *strangers) watch(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.meet(c)
	case http.StateClosed, http.StateHijacked:
		s.forget(c)
	case http.StateActive, http.StateIdle:
	}
}

func (s *strangers) meet(c net.Conn) {
	from, ok := network(c)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[netip.Addr][]net.Conn{}
	}
	s.of[from] = append(s.of[from], c)
	if s.n++; s.n <= s.most {
		return
	}
	var crowd netip.Addr
	for other, conns := range s.of {
		if len(conns) > len(s.of[crowd]) {
			crowd = other
		}
	}
	last := len(s.of[crowd]) - 1
	raw := s.of[crowd][last]
	s.drop(crowd, last)
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn() // does not wait for the other end
	}
	_ = raw.Close() // what reads from it tells
}

func (s *strangers) forget(c net.Conn) {
	from, ok := network(c)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.of[from], c); i >= 0 {
		s.drop(from, i)
	}
}

// drop is called with mu held.
func (s *strangers) drop(from netip.Addr, i int) {
	s.n--
	s.of[from] = slices.Delete(s.of[from], i, i+1)
	if len(s.of[from]) == 0 {
		delete(s.of, from)
	}
}

// network is what one person has of the addresses: one of IPv4, or the 64 bits of
// IPv6 that a provider gives.
func network(c net.Conn) (netip.Addr, bool) {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.Is4() {
		return a, true
	}
	p, err := a.Prefix(64)
	return p.Addr(), err == nil
}

// drainTime is how long a client may take for what is left of its body when it has
// its answer. net/http reads some of it before the next request.
const drainTime = 5 * time.Second

// drain is the outermost: no reader of the body comes after it.
func drain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody && r.Header.Get("Upgrade") == "" {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime)) // writers of tests cannot
		}
	})
}

// Package dns is the resolver that containers ask. It answers the names of
// containers from live state and forwards everything else.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Asker is who asks, and the address that was asked: they tell networks apart.
type Asker struct{ Listener, Client netip.Addr }

// Names is what the resolver knows by itself. It is asked for each query, so
// both methods are quick; names come in lower case and without the domain.
type Names interface {
	// Lookup has the addresses of a name, of both families. A name may be
	// known and have none.
	Lookup(a Asker, name string) (addrs []netip.Addr, known bool)
	// Reverse is the name of an address, without the domain.
	Reverse(a Asker, addr netip.Addr) (name string, known bool)
}

// Config says what the resolver knows and whom it asks.
type Config struct {
	Names Names // required

	// Upstream has the resolvers to forward to, in the order to try them. It
	// is read for each query that needs it. nil: there are none.
	Upstream func() []netip.AddrPort

	// Allow says who is answered at a listener; others hear nothing. nil: all.
	Allow func(listener, client netip.Addr) bool

	// Enter runs f in the namespace where sockets are opened. nil: here.
	Enter func(f func() error) error

	Port uint16       // 53
	Log  *slog.Logger // nil: silent
}

// Server is the resolver. It works only while somebody asks.
type Server struct {
	cfg   Config
	cache cache
	ups   upstreams
	asked slots // queries on their way to an upstream
	conns slots // TCP connections
	self  atomic.Pointer[[]netip.AddrPort]

	mu        sync.Mutex // guards the fields below
	listeners map[netip.Addr]*listener
	closed    bool
}

// New is a resolver that listens nowhere.
func New(cfg Config) *Server {
	if cfg.Names == nil {
		panic("BUG: dns.Config without Names")
	}
	if cfg.Upstream == nil {
		cfg.Upstream = func() []netip.AddrPort { return nil }
	}
	if cfg.Allow == nil {
		cfg.Allow = func(_, _ netip.Addr) bool { return true }
	}
	if cfg.Enter == nil {
		cfg.Enter = func(f func() error) error { return f() }
	}
	if cfg.Port == 0 {
		cfg.Port = 53
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		cfg:       cfg,
		asked:     slots{most: maxAsked, each: maxAskedEach},
		conns:     slots{most: maxConns, each: maxConnsEach},
		listeners: map[netip.Addr]*listener{},
	}
}

// Listen answers at exactly these addresses, by UDP and TCP. The same again
// changes nothing; if one address cannot be had, nothing has changed. Queries
// go on being answered after ctx has ended.
func (s *Server) Listen(ctx context.Context, addrs []netip.Addr) (err error) {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("answer names: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errs.E(errs.Unavailable, "answer names: the resolver is closed")
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	want := map[netip.Addr]*listener{}
	for _, a := range addrs {
		a = a.Unmap()
		if want[a] != nil {
			continue
		}
		if want[a] = s.listeners[a]; want[a] != nil {
			continue
		}
		l, err := s.open(ctx, a)
		if err != nil {
			return err
		}
		undo.Push(func() error { l.close(); return nil })
		want[a] = l
	}
	undo.Keep()
	s.set(want)
	return nil
}

// set replaces the listeners; s.mu is held.
func (s *Server) set(want map[netip.Addr]*listener) {
	var self []netip.AddrPort
	for a := range want {
		self = append(self, netip.AddrPortFrom(a, s.cfg.Port))
	}
	s.self.Store(&self)
	for a, l := range s.listeners {
		if want[a] != l {
			l.close()
		}
	}
	s.listeners = want
}

// isSelf says whether a query sent there would come back to us.
func (s *Server) isSelf(a netip.AddrPort) bool {
	self := s.self.Load()
	return self != nil && slices.Contains(*self, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
}

// Close ends all listeners and what they were about to answer.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.set(nil)
	return nil
}

// cannot is why an address cannot be answered at.
func cannot(at netip.AddrPort, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return errs.E(errs.Conflict, "answer names at %s: another resolver listens there: %w", at, err)
	}
	return fmt.Errorf("answer names at %s: %w", at, err)
}

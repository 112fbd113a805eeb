package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config says what a server gives out, and on which link.
type Config struct {
	Link   string       // required
	Addr   netip.Prefix // required; the server's own address on Link
	Start  netip.Addr   // of the range to give out; zero: the first of Addr's network
	End    netip.Addr   // its last; zero: the last of the network
	Router netip.Addr   // zero: none
	DNS    []netip.Addr

	// Taken says that an address is somebody's by other means. It is asked for
	// each one, also for those that are leased, and must not ask the server in
	// turn. nil: none is.
	Taken func(netip.Addr) bool

	// More adds to an answer what only the caller knows. nil: nothing.
	More func(request, answer *dhcpv4.DHCPv4)

	Store     Store                      // required
	LeaseTime time.Duration              // 1 h
	Enter     func(f func() error) error // runs f in the namespace of Link; nil: here
	Log       *slog.Logger               // nil: silent
}

// Store keeps leases over restarts. A lease is there before its client hears
// of it.
type Store interface {
	// Leases are all that are kept, in any order.
	Leases() ([]Held, error)
	// Put keeps a lease in place of what was kept for its address.
	Put(Held) error
	// Drop forgets an address; what is not there is dropped already.
	Drop(netip.Addr) error
}

// Held is an address that somebody has, or had: who comes again gets the same.
type Held struct {
	Addr     netip.Addr
	Client   string // who has it: the identifier it gives, or its MAC, in hexadecimal
	MAC      string
	Hostname string // one label in lower case; "": it gave none
	Until    time.Time
}

// Server gives out addresses on one link.
type Server struct {
	cfg  Config
	pool *pool

	mu   sync.Mutex // guards the fields below
	conn *net.UDPConn
	wg   sync.WaitGroup
}

// NewServer checks cfg, and asks the store for what was given out before.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Store == nil {
		panic("BUG: dhcp.Config without Store")
	}
	if cfg.Taken == nil {
		cfg.Taken = func(netip.Addr) bool { return false }
	}
	if cfg.LeaseTime == 0 {
		cfg.LeaseTime = time.Hour
	}
	if cfg.Enter == nil {
		cfg.Enter = func(f func() error) error { return f() }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.setRange(); err != nil {
		return nil, err
	}
	held, err := cfg.Store.Leases()
	if err != nil {
		return nil, fmt.Errorf("DHCP server on %s: read its leases: %w", cfg.Link, err)
	}
	return &Server{cfg: cfg, pool: newPool(cfg, held)}, nil
}

// setRange fills in and checks the range.
func (c *Config) setRange() error {
	if c.Link == "" || !c.Addr.IsValid() || !c.Addr.Addr().Is4() || c.Addr.Bits() < 1 || c.Addr.Bits() > 30 {
		return errs.E(errs.Invalid, "a DHCP server needs a link and an IPv4 address with a network of its own, not %q and %s", c.Link, c.Addr)
	}
	network := c.Addr.Masked()
	first, last := network.Addr().Next(), broadcastOf(network).Prev()
	if !c.Start.IsValid() {
		c.Start = first
	}
	if !c.End.IsValid() {
		c.End = last
	}
	if c.End.Less(c.Start) || c.Start.Less(first) || last.Less(c.End) {
		return errs.E(errs.Invalid, "DHCP range %s to %s is not within %s to %s", c.Start, c.End, first, last)
	}
	return nil
}

// broadcastOf is the last address of an IPv4 network.
func broadcastOf(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a)
}

// Listen serves until Close. The link has to be there with its address; after
// it was made again, so has the server to be.
func (s *Server) Listen(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return nil
	}
	err := s.cfg.Enter(func() (err error) {
		s.conn, err = listenUDP(ctx, s.cfg.Link, netip.AddrPortFrom(netip.IPv4Unspecified(), serverPort))
		return err
	})
	if errors.Is(err, unix.EADDRINUSE) {
		return errs.E(errs.Conflict, "DHCP server on %s: another one listens there: %w", s.cfg.Link, err)
	}
	if err != nil {
		return fmt.Errorf("DHCP server on %s: %w", s.cfg.Link, err)
	}
	conn := s.conn
	s.wg.Go(func() { s.serve(conn) })
	return nil
}

// Close ends Listen; leases stay. Twice is fine.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	s.wg.Wait()
	return err
}

// Leases are those that are in force.
func (s *Server) Leases() []Held { return s.pool.leases(time.Now()) }

// pause is how long a server rests when the kernel has no memory for it.
const pause = 100 * time.Millisecond

// serve answers one message after the other: a flood fills the socket, and
// nothing else.
func (s *Server) serve(conn *net.UDPConn) {
	buf := make([]byte, maxPacket)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(pause)
			continue
		}
		m, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			continue
		}
		if err := s.answer(conn, m, time.Now()); err != nil {
			s.cfg.Log.Warn("DHCP server", "link", s.cfg.Link, "client", m.ClientHWAddr.String(), "error", err)
		}
	}
}

// answer keeps what a message changes, and answers it then.
func (s *Server) answer(conn *net.UDPConn, m *dhcpv4.DHCPv4, now time.Time) error {
	did, err := s.pool.handle(m, now)
	if err != nil {
		return err
	}
	for _, a := range did.drop {
		if err := s.cfg.Store.Drop(a); err != nil {
			return fmt.Errorf("forget %s: %w", a, err)
		}
	}
	if did.put != nil {
		if err := s.cfg.Store.Put(*did.put); err != nil {
			return fmt.Errorf("keep the lease of %s: %w", did.put.Addr, err)
		}
	}
	if did.reply == nil {
		return nil
	}
	to := netip.AddrPortFrom(replyTo(m, did.reply), clientPort)
	// The address it goes by is the one that clients know, whichever others
	// the link has.
	from := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: s.cfg.Addr.Addr().As4()})
	if _, _, err := conn.WriteMsgUDPAddrPort(did.reply.ToBytes(), from, to); err != nil {
		return fmt.Errorf("answer %s: %w", to, err)
	}
	return nil
}

// replyTo is where an answer goes (RFC 2131, 4.1). Who has no address yet is
// answered by broadcast, which all clients take.
func replyTo(m, reply *dhcpv4.DHCPv4) netip.Addr {
	if c := addrOf(m.ClientIPAddr); usable(c) && reply.MessageType() != dhcpv4.MessageTypeNak {
		return c
	}
	return broadcast
}

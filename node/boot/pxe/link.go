package pxe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// link is where machines are booted. Each socket is bound to it: what arrives
// elsewhere is not seen, and what is sent does not leave by another.
type link struct {
	name string
	addr netip.Prefix // ours
	mtu  int

	index int // as the kernel counts links
}

// findLink finds the link and the address that it has in the network of lease,
// or its first.
func findLink(name string, lease netip.Prefix) (l link, err error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return l, errs.E(errs.NotFound, "there is no interface %s; there are %s", name, strings.Join(interfaces(), ", "))
	}
	all, err := i.Addrs()
	if err != nil {
		return l, fmt.Errorf("addresses of %s: %w", name, err)
	}
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() || lease.IsValid() && !inside(lease, p) {
			continue
		}
		return link{name: name, addr: p, mtu: i.MTU, index: i.Index}, nil
	}
	if lease.IsValid() {
		return l, errs.E(errs.Invalid, "%s has no address in a network with %s: \"ip address add\" gives it one", name, lease)
	}
	return l, errs.E(errs.Invalid, "%s has no IPv4 address", name)
}

// inside says whether all of p is in the network that addr is of.
func inside(p, addr netip.Prefix) bool {
	return p.Addr().Is4() && p.Bits() >= addr.Bits() && addr.Contains(p.Addr())
}

// ends are the first and the last address of p that a machine can have.
func ends(p, addr netip.Prefix) (first, last netip.Addr) {
	p = p.Masked()
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	first, last = p.Addr(), netip.AddrFrom4(b)
	if first == addr.Masked().Addr() {
		first = first.Next()
	}
	if !addr.Contains(last.Next()) {
		last = last.Prev() // broadcast
	}
	return first, last
}

func interfaces() (names []string) {
	all, _ := net.Interfaces() // it is only what is said beside an error
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			names = append(names, i.Name)
		}
	}
	return names
}

func (l link) http(port uint16) netip.AddrPort { return netip.AddrPortFrom(l.addr.Addr(), port) }

// bind has a socket of net's for this link alone.
func (l link) bind(_, _ string, c syscall.RawConn) (err error) {
	failed := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), l.name) })
	return errors.Join(failed, err)
}

// share is bind for DHCP, which others on this machine speak as well.
func (l link) share(network, address string, c syscall.RawConn) (err error) {
	failed := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		)
	})
	return errors.Join(failed, err, l.bind(network, address, c))
}

func (l link) listenTCP(ctx context.Context, port uint16) (net.Listener, error) {
	lc := net.ListenConfig{Control: l.bind}
	listener, err := lc.Listen(ctx, "tcp4", l.http(port).String())
	if err != nil {
		return nil, explain(err)
	}
	return listener, nil
}

func listenUDP(ctx context.Context, at netip.AddrPort, bind func(network, address string, c syscall.RawConn) error) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: bind}
	c, err := lc.ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, explain(err)
	}
	return c.(*net.UDPConn), nil
}

// watch ends with an error when the link is not the one any more, or has not the
// address, that sockets are bound to: nobody would hear us.
func (s *Server) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := findLink(s.link.name, s.cfg.Lease)
		if err != nil {
			return err
		}
		if now != s.link {
			return errs.E(errs.Conflict, "%s has changed: it had the address %s, and is to be served anew", s.link.name, s.link.addr)
		}
	}
}

// pause is how long a socket rests for which the kernel has no memory.
const pause = 100 * time.Millisecond

// datagrams hands on what arrives until ctx ends, and closes conn then.
func datagrams(ctx context.Context, conn *net.UDPConn, size int, f func(b []byte, from netip.AddrPort)) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	buf := make([]byte, size)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			time.Sleep(pause)
		default:
			f(buf[:n], from)
		}
	}
}

// explain says what a person can do about it.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: booting machines needs root", err)
	case errors.Is(err, unix.EADDRINUSE):
		return errs.E(errs.Conflict, "%w: another server of its kind runs here", err)
	}
	return err
}

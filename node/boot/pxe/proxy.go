package pxe

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	dhcpPort   = 67
	clientPort = 68
	binlPort   = 4011
	maxPacket  = 4096 // what is longer is none of DHCP
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// openEar hears what is broadcast to DHCP servers, and answers as a ProxyDHCP
// server unless we are the DHCP server ourselves. It is bound to that address:
// a DHCP server on this very machine gets all that is sent to it.
func (s *Server) openEar(ctx context.Context) (func() error, error) {
	conn, err := listenUDP(ctx, netip.AddrPortFrom(broadcast, dhcpPort), s.link.share)
	if err != nil {
		return nil, err
	}
	return s.receive(ctx, conn, func(m *dhcpv4.DHCPv4, from netip.AddrPort) error {
		if m.MessageType() != dhcpv4.MessageTypeDiscover {
			return nil
		}
		c, ok := s.arrive(m, from)
		if !ok || s.cfg.Lease.IsValid() {
			return nil
		}
		offer := c.proxyAnswer(m, dhcpv4.MessageTypeOffer, s.link.http(s.cfg.Port))
		source := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: s.link.addr.Addr().As4()})
		_, _, err := conn.WriteMsgUDPAddrPort(offer.ToBytes(), source, netip.AddrPortFrom(broadcast, clientPort))
		return err
	}), nil
}

// openBINL answers UEFI, which asks where it has an address already.
func (s *Server) openBINL(ctx context.Context) (func() error, error) {
	conn, err := listenUDP(ctx, netip.AddrPortFrom(s.link.addr.Addr(), binlPort), s.link.bind)
	if err != nil {
		return nil, err
	}
	return s.receive(ctx, conn, func(m *dhcpv4.DHCPv4, from netip.AddrPort) error {
		c, ok, err := s.who(m)
		if ok && err == nil && m.MessageType() == dhcpv4.MessageTypeRequest { // why not was said when it arrived
			answer := c.proxyAnswer(m, dhcpv4.MessageTypeAck, s.link.http(s.cfg.Port))
			_, err = conn.WriteToUDPAddrPort(answer.ToBytes(), from)
			return err
		}
		return nil
	}), nil
}

// receive answers one message after the other until ctx ends: a flood fills
// the socket, and nothing else.
func (s *Server) receive(ctx context.Context, conn *net.UDPConn, answer func(*dhcpv4.DHCPv4, netip.AddrPort) error) func() error {
	return func() error {
		return datagrams(ctx, conn, maxPacket, func(b []byte, from netip.AddrPort) {
			m, err := dhcpv4.FromBytes(b)
			if err != nil {
				return
			}
			if err := answer(m, from); err != nil && ctx.Err() == nil {
				s.cfg.Log.WarnContext(ctx, "a machine that boots is not answered", "mac", m.ClientHWAddr.String(), "error", err)
			}
		})
	}
}

// boot adds to an answer of our own DHCP server where to boot from.
func (s *Server) boot(m, answer *dhcpv4.DHCPv4) {
	if c, ok, err := s.who(m); ok && err == nil {
		c.fill(answer, s.link.http(s.cfg.Port))
	}
}

// who is a machine that wants to boot. The error is why it is not to.
func (s *Server) who(m *dhcpv4.DHCPv4) (c client, ok bool, err error) {
	if c, ok, err = readClient(m); !ok || err != nil {
		return c, ok, err
	}
	_, known, err := s.machines.of(c.mac)
	switch {
	case err != nil && !known:
		return c, true, err
	case !known:
		return c, true, errs.E(errs.NotFound, "it is not listed in %s", s.machines.file)
	case c.stage != ipxe && !s.files.has(c.loader()):
		return c, true, errs.E(errs.NotFound, "there is no ipxe/%s in %s", c.loader(), s.files.dir)
	}
	return c, true, nil
}

// arrive takes note of a machine that boots. What becomes of one that does not
// is logged: somebody stands beside it and wonders.
func (s *Server) arrive(m *dhcpv4.DHCPv4, from netip.AddrPort) (client, bool) {
	c, ok, err := s.who(m)
	if !ok {
		return c, false
	}
	news := s.arrivals.note(c.mac, c.stage, err == nil && from == unaddressed, time.Now())
	log := s.cfg.Log.With("mac", c.mac, "stage", c.stage)
	switch {
	case err != nil && news:
		log.Warn("a machine is not booted", "error", err)
	case news:
		log.Info("a machine boots", "arch", c.arch, "bios", c.bios, "file", c.bootFile(s.link.http(s.cfg.Port)))
	}
	return c, err == nil
}

// unaddressed is where machines speak from that have no address. Programs that
// are not root's cannot.
var unaddressed = netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort)

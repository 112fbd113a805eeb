package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

const (
	maxMessage = 1472 // fits any Ethernet frame without fragments
	maxPacket  = 4096 // some say more; what is longer is none of DHCP
)

// A wire carries messages of one link. receive skips what is no message.
type wire interface {
	send(m *dhcpv4.DHCPv4, to netip.Addr) error
	receive(until time.Time) (*dhcpv4.DHCPv4, error)
	Close() error
}

// rawSocket sees a link's packets of one kind, whether or not the link has an
// address.
type rawSocket struct {
	*os.File
	index int
	mac   net.HardwareAddr
	kind  uint16 // of packets, as Ethernet numbers them
}

// onlyDHCP passes UDP packets to the client's port and drops others in the
// kernel, so that we are not woken by the traffic of the link.
func onlyDHCP() []unix.SockFilter {
	const load, jump, ret = unix.BPF_LD | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return []unix.SockFilter{
		{Code: load | unix.BPF_B, K: 9},
		{Code: jump | unix.BPF_JEQ, K: unix.IPPROTO_UDP, Jf: 6},
		{Code: load | unix.BPF_H, K: 6},
		{Code: jump | unix.BPF_JSET, K: 0x1fff, Jt: 4}, // a later fragment has no port
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 2},
		{Code: jump | unix.BPF_JEQ, K: clientPort, Jf: 1},
		{Code: ret, K: 1<<16 - 1},
		{Code: ret, K: 0},
	}
}

// openRaw opens a socket for packets of a kind on the link.
func (o Options) openRaw(kind uint16, filter []unix.SockFilter) (*rawSocket, error) {
	s := &rawSocket{kind: kind, mac: o.MAC}
	err := o.inside(func() error {
		link, err := net.InterfaceByName(o.Link)
		if err != nil {
			return err
		}
		if s.index = link.Index; s.mac == nil {
			s.mac = link.HardwareAddr
		}
		// Nothing is received before bind says of which link.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		s.File = os.NewFile(uintptr(fd), "DHCP on "+o.Link)
		if filter != nil {
			prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
			err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(kind), Ifindex: link.Index})
		}
		if err != nil {
			s.Close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Link, err)
	}
	if len(s.mac) != 6 {
		s.Close()
		return nil, fmt.Errorf("listen on %s: it has no MAC address", o.Link)
	}
	return s, nil
}

// broadcast sends a packet to all on the link.
func (s *rawSocket) broadcast(packet []byte) error {
	to := unix.SockaddrLinklayer{Protocol: bigEndian(s.kind), Ifindex: s.index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	c, err := s.SyscallConn()
	if err != nil {
		return err
	}
	failed := c.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), packet, 0, &to)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(failed, err)
}

func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// rawWire speaks for a link without an address.
type rawWire struct{ *rawSocket }

func (o Options) openRawWire() (*rawWire, error) {
	s, err := o.openRaw(unix.ETH_P_IP, onlyDHCP())
	if err != nil {
		return nil, err
	}
	return &rawWire{s}, nil
}

func (w *rawWire) send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	return w.broadcast(packet(netip.IPv4Unspecified(), to, clientPort, serverPort, m.ToBytes()))
}

func (w *rawWire) receive(until time.Time) (*dhcpv4.DHCPv4, error) {
	if err := w.SetReadDeadline(until); err != nil {
		return nil, err
	}
	buf := make([]byte, maxPacket)
	for {
		n, err := w.Read(buf)
		if err != nil {
			return nil, err
		}
		b, err := unpacket(buf[:n], clientPort)
		if err != nil {
			continue
		}
		if m, err := dhcpv4.FromBytes(b); err == nil {
			return m, nil
		}
	}
}

// udpWire speaks for a link that has its address.
type udpWire struct{ *net.UDPConn }

// openUDPWire speaks from one of the link's addresses, or from any.
func (o Options) openUDPWire(ctx context.Context, from netip.Addr) (*udpWire, error) {
	var c *net.UDPConn
	err := o.inside(func() (err error) {
		c, err = listenUDP(ctx, o.Link, netip.AddrPortFrom(from, clientPort))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Link, err)
	}
	return &udpWire{c}, nil
}

// listenUDP takes what arrives by one link.
func listenUDP(ctx context.Context, link string, at netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), // beside servers of other links
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.BindToDevice(int(fd), link),
			)
		})
		return errors.Join(failed, err)
	}}
	c, err := lc.ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

func (w *udpWire) send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	_, err := w.WriteToUDPAddrPort(m.ToBytes(), netip.AddrPortFrom(to, serverPort))
	return err
}

func (w *udpWire) receive(until time.Time) (*dhcpv4.DHCPv4, error) {
	if err := w.SetReadDeadline(until); err != nil {
		return nil, err
	}
	buf := make([]byte, maxPacket)
	for {
		n, err := w.Read(buf)
		if err != nil {
			return nil, err
		}
		if m, err := dhcpv4.FromBytes(buf[:n]); err == nil {
			return m, nil
		}
	}
}

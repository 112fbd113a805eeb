package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	arpSize = 28

	// RFC 5227 probes for some seconds; a container that starts cannot wait for
	// so long. On a wire, answers take less than a millisecond.
	probes     = 3
	probeEvery = 100 * time.Millisecond
)

// owner is who else has an address on the link; nil: nobody says so.
func (o Options) owner(ctx context.Context, a netip.Addr) (net.HardwareAddr, error) {
	s, err := o.openRaw(unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	buf := make([]byte, 128)
	for range probes {
		if err := s.broadcast(arpProbe(s.mac, a)); err != nil {
			return nil, err
		}
		if err := s.SetReadDeadline(time.Now().Add(probeEvery)); err != nil {
			return nil, err
		}
		for {
			n, err := s.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, errors.Join(ctx.Err(), err)
			}
			if who := arpOwner(buf[:n], a); who != nil && !bytes.Equal(who, s.mac) {
				return who, nil
			}
		}
	}
	return nil, nil
}

// arpProbe asks who has an address, without saying that we want it.
func arpProbe(mac net.HardwareAddr, a netip.Addr) []byte {
	b := make([]byte, arpSize)
	copy(b, []byte{0, 1, 8, 0, 6, 4, 0, 1}) // Ethernet, IPv4, their sizes, a question
	copy(b[8:14], mac)
	copy(b[24:28], a.AsSlice())
	return b
}

// arpOwner is who claims an address, or is about to.
func arpOwner(b []byte, a netip.Addr) net.HardwareAddr {
	if len(b) < arpSize || !bytes.Equal(b[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return nil
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	probing := binary.BigEndian.Uint16(b[6:]) == 1 && sender.IsUnspecified() && target == a
	if sender != a && !probing {
		return nil
	}
	return bytes.Clone(b[8:14])
}

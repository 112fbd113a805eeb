package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	ipv4Header = 20
	udpHeader  = 8
)

// packet wraps a message in the headers of UDP and IPv4, for a link that has
// no address yet.
func packet(from, to netip.Addr, fromPort, toPort uint16, message []byte) []byte {
	b := make([]byte, ipv4Header+udpHeader, ipv4Header+udpHeader+len(message))
	b = append(b, message...)
	ip, udp := b[:ipv4Header], b[ipv4Header:]
	src, dst := from.As4(), to.As4()
	ip[0] = 4<<4 | ipv4Header/4
	binary.BigEndian.PutUint16(ip[2:], uint16(len(b)))
	ip[8] = 64 // hops
	ip[9] = unix.IPPROTO_UDP
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))

	binary.BigEndian.PutUint16(udp[0:], fromPort)
	binary.BigEndian.PutUint16(udp[2:], toPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	s := sum(0, ip[12:20]) // both addresses
	s = sum(s, []byte{0, unix.IPPROTO_UDP, udp[4], udp[5]})
	check := ^sum(s, udp)
	if check == 0 {
		check = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return b
}

// sum is the Internet checksum so far.
func sum(s uint16, b []byte) uint16 {
	n := uint32(s)
	for ; len(b) >= 2; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		n += uint32(b[0]) << 8
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}

var errPacket = errors.New("no packet of IPv4 and UDP")

// unpacket is the message in a packet to a port. Checksums are not looked at:
// those of packets from this very machine are not filled in.
func unpacket(b []byte, port uint16) ([]byte, error) {
	if len(b) < ipv4Header || b[0]>>4 != 4 || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 { // a fragment
		return nil, errPacket
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4Header || total > len(b) || total < header+udpHeader {
		return nil, errPacket
	}
	udp := b[header:total]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[2:]) != port || size < udpHeader || size > len(udp) {
		return nil, errPacket
	}
	return udp[udpHeader:size], nil
}

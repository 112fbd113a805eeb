package netcfg

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Proto is a transport protocol that ports can be published for.
type Proto string

// The protocols.
const (
	TCP Proto = "tcp"
	UDP Proto = "udp"
)

// Port is a published port as a person writes it: what arrives at Host is sent
// to port Guest of the container.
type Port struct {
	Proto Proto
	Host  netip.AddrPort // unspecified address: all addresses of the machine
	Guest uint16
}

// String is what ParsePort reads.
func (p Port) String() string {
	s := fmt.Sprintf("%s:%d", p.Host, p.Guest)
	if p.Proto == UDP {
		s += "/udp"
	}
	return s
}

// Forward is the port for a container with this address.
func (p Port) Forward(container string, guest netip.Addr) Forward {
	return Forward{Container: container, Proto: p.Proto, Host: p.Host, Guest: netip.AddrPortFrom(guest, p.Guest)}
}

// ParsePort reads [ip:]host:guest[/tcp|/udp], like "8080:80" or
// "127.0.0.1:5353:53/udp". Without ip the port binds to publish, without that
// to all addresses. What it does not take is errs.Invalid.
func ParsePort(s string, publish netip.Addr) (Port, error) {
	bad := func(why string, args ...any) (Port, error) {
		return Port{}, errs.E(errs.Invalid, "port %q: %s", s, fmt.Sprintf(why, args...))
	}
	p := Port{Proto: TCP}
	numbers, proto, named := strings.Cut(s, "/")
	if named {
		p.Proto = Proto(proto)
	}
	if p.Proto != TCP && p.Proto != UDP {
		return bad("the protocol is %q; use tcp or udp", proto)
	}
	if strings.ContainsAny(numbers, "[]") || strings.Count(numbers, ":") > 2 {
		return bad("IPv6 addresses are not supported by this version")
	}
	parts := strings.Split(numbers, ":")
	if len(parts) < 2 {
		return bad("write host:guest, for example 8080:80")
	}
	addr := publish
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	if len(parts) == 3 {
		var err error
		if addr, err = netip.ParseAddr(parts[0]); err != nil || !addr.Is4() {
			return bad("%q is not an IPv4 address of this machine", parts[0])
		}
		parts = parts[1:]
	}
	if addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return bad("%s is not an address of a machine", addr)
	}
	host, err := parsePortNumber(parts[0])
	if err != nil {
		return bad("host port %v", err)
	}
	if p.Guest, err = parsePortNumber(parts[1]); err != nil {
		return bad("guest port %v", err)
	}
	p.Host = netip.AddrPortFrom(addr, host)
	return p, nil
}

func parsePortNumber(s string) (uint16, error) {
	if strings.Contains(s, "-") {
		return 0, fmt.Errorf("%q: ranges are not supported by this version; list the ports one by one", s)
	}
	v, err := strconv.ParseUint(s, 10, 16)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("%q is not a number from 1 to 65535", s)
	}
	return uint16(v), nil
}

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

// Port is a published port, or several in a row, as a person writes it: what
// arrives at Host is sent to port Guest of the container.
type Port struct {
	Proto Proto
	// Host is where it is published: an address of the machine, 0.0.0.0 for all
	// its IPv4 addresses, :: for all it has. With Iface or Within it is one of
	// these two and says which kind of addresses count.
	Host  netip.AddrPort
	Guest uint16
	// Count is how many ports in a row; 0 and 1: one. The n-th after Host goes
	// to the n-th after Guest, with Merge all go to Guest.
	Count  uint16       `json:",omitempty"`
	Merge  bool         `json:",omitempty"`
	Iface  string       `json:",omitempty"` // the addresses that this interface has
	Within netip.Prefix `json:",omitzero"`  // the machine's addresses in it
}

// String is what ParsePort reads.
func (p Port) String() string {
	guest := strconv.Itoa(int(p.Guest))
	if !p.Merge {
		guest = row(p.Guest, p.Count)
	}
	s := p.host() + ":" + guest
	if p.Proto == UDP {
		s += "/udp"
	}
	return s
}

// host is the part that says where the port is published.
func (p Port) host() string {
	where := p.Host.Addr().String()
	switch {
	case p.Iface != "":
		where = p.Iface
	case p.Within.IsValid():
		where = p.Within.String()
	}
	if strings.Contains(where, ":") {
		where = "[" + where + "]"
	}
	return where + ":" + row(p.Host.Port(), p.Count)
}

// row writes count ports from first on.
func row(first, count uint16) string {
	if count < 2 {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, int(first)+int(count)-1)
}

// Forward is the port for a container with this address.
func (p Port) Forward(container string, guest netip.Addr) Forward {
	return Forward{
		Container: container, Proto: p.Proto, Host: p.Host, Guest: netip.AddrPortFrom(guest, p.Guest),
		Count: p.Count, Merge: p.Merge, Iface: p.Iface, Within: p.Within,
	}
}

// Forwards are the port for a container with these addresses: one for each
// that is of a kind that the port is published at. None at all means that the
// container cannot be reached over this port.
func (p Port) Forwards(container string, guests ...netip.Addr) []Forward {
	var list []Forward
	for _, g := range guests {
		if p.takes(g) {
			list = append(list, p.Forward(container, g))
		}
	}
	return list
}

// takes says whether the port is published at addresses of a's kind.
func (p Port) takes(a netip.Addr) bool {
	h := p.Host.Addr()
	return h.Is4() == a.Is4() || h == netip.IPv6Unspecified() && !p.Within.IsValid()
}

// Collides says whether something that arrives could be meant for either port.
// It does not know the machine: whether an interface has an address that the
// other port names shows when both are published.
func (p Port) Collides(q Port) bool {
	a, b := p.Host.Addr(), q.Host.Addr()
	if p.Proto != q.Proto || !p.takes(b) && !q.takes(a) || !p.span().overlaps(q.span()) {
		return false
	}
	switch {
	case p.everywhere() || q.everywhere():
		return true
	case p.Iface != "" || q.Iface != "":
		return p.Iface == q.Iface
	case p.Within.IsValid() && q.Within.IsValid():
		return p.Within.Overlaps(q.Within)
	case p.Within.IsValid():
		return p.Within.Contains(b)
	case q.Within.IsValid():
		return q.Within.Contains(a)
	}
	return a == b
}

func (p Port) everywhere() bool {
	return p.Host.Addr().IsUnspecified() && p.Iface == "" && !p.Within.IsValid()
}

func (p Port) span() span { return spanOf(p.Host.Port(), p.Count) }

// span is ports in a row.
type span struct{ first, last uint16 }

func spanOf(first, count uint16) span { return span{first, first + max(count, 1) - 1} }

func (s span) overlaps(o span) bool { return s.first <= o.last && o.first <= s.last }

// ParsePort reads [where:]host:guest[/tcp|/udp], like "8080:80",
// "127.0.0.1:5353:53/udp", "[fd00::1]:80:80", "eth0:80:80", "10.0.0.0/8:80:80"
// and "8000-8010:9000-9010". Where is an address of the machine, an interface
// or a prefix (IPv6 in brackets); without it the port is published at publish,
// without that at all IPv4 addresses. What it does not take is errs.Invalid.
func ParsePort(s string, publish netip.Addr) (Port, error) {
	p, err := parsePort(s, publish)
	if err != nil {
		return Port{}, errs.E(errs.Invalid, "port %q: %w", s, err)
	}
	return p, nil
}

func parsePort(s string, publish netip.Addr) (Port, error) {
	p := Port{Proto: TCP}
	where, numbers, given := cutWhere(s)
	if i := strings.LastIndexByte(numbers, '/'); i >= 0 {
		p.Proto, numbers = Proto(numbers[i+1:]), numbers[:i]
	}
	if p.Proto != TCP && p.Proto != UDP {
		return p, fmt.Errorf("the protocol is %q; use tcp or udp", p.Proto)
	}
	left, right, ok := strings.Cut(numbers, ":")
	if !ok {
		return p, fmt.Errorf("write host:guest, for example 8080:80")
	}
	host, err := parseSpan(left)
	if err != nil {
		return p, fmt.Errorf("host port %w", err)
	}
	guest, err := parseSpan(right)
	if err != nil {
		return p, fmt.Errorf("guest port %w", err)
	}
	if host.first < host.last {
		p.Count = host.last - host.first + 1
		p.Merge = guest.first == guest.last
	}
	if n := guest.last - guest.first; n > 0 && n != host.last-host.first {
		return p, fmt.Errorf("%s and %s are not equally many ports", left, right)
	}
	p.Guest = guest.first
	addr := publish
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	if given {
		if addr, err = p.parseWhere(where); err != nil {
			return p, err
		}
	}
	p.Host = netip.AddrPortFrom(addr, host.first)
	return p, nil
}

// cutWhere splits at the colon before host:guest.
func cutWhere(s string) (where, numbers string, given bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", s, false
	}
	if i = strings.LastIndexByte(s[:i], ':'); i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// parseWhere sets Iface or Within, or is the address.
func (p *Port) parseWhere(where string) (netip.Addr, error) {
	inner, bracketed := strings.CutPrefix(where, "[")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed || !strings.Contains(inner, ":") {
			return netip.Addr{}, fmt.Errorf("%q is not an IPv6 address in brackets", where)
		}
	} else if strings.Contains(where, ":") {
		return netip.Addr{}, fmt.Errorf("write an IPv6 address in brackets, like [fd00::1]:8080:80")
	}
	if strings.Contains(inner, "/") {
		within, err := netip.ParsePrefix(inner)
		if err != nil || within.Addr().Is4In6() {
			return netip.Addr{}, fmt.Errorf("%q is not a prefix like 10.0.0.0/8", inner)
		}
		p.Within = within.Masked()
		if within.Addr().Is4() {
			return netip.IPv4Unspecified(), nil
		}
		return netip.IPv6Unspecified(), nil
	}
	addr, err := netip.ParseAddr(inner)
	switch {
	case err == nil:
		return addr, checkHostAddr(addr)
	case bracketed || strings.Trim(where, "0123456789.") == "":
		return addr, fmt.Errorf("%q is not an address of a machine", inner)
	}
	p.Iface = where
	if where == "lo" {
		return netip.IPv6Unspecified(), nil
	}
	return netip.IPv6Unspecified(), checkLinkName(where)
}

// checkHostAddr refuses what can be no address to publish at.
func checkHostAddr(a netip.Addr) error {
	switch {
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is not an address of a machine", a)
	case a.Is4In6():
		return fmt.Errorf("write %s as an IPv4 address", a)
	case a == netip.IPv6Loopback():
		return fmt.Errorf("the kernel forwards nothing from ::1; use 127.0.0.1")
	case a.Is6() && (a.IsLinkLocalUnicast() || a.Zone() != ""):
		return fmt.Errorf("%s holds on one link only, and nothing is forwarded from there", a)
	}
	return nil
}

// parseSpan reads a port, or the first and the last of several.
func parseSpan(s string) (span, error) {
	low, high, several := strings.Cut(s, "-")
	first, err := parsePortNumber(low)
	if err != nil || !several {
		return span{first, first}, err
	}
	last, err := parsePortNumber(high)
	if err == nil && last < first {
		err = fmt.Errorf("%q ends before it begins", s)
	}
	return span{first, last}, err
}

func parsePortNumber(s string) (uint16, error) {
	v, err := strconv.ParseUint(s, 10, 16)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("%q is not a number from 1 to 65535", s)
	}
	return uint16(v), nil
}

// Package dhcp gets addresses for NICs of containers from the DHCP servers of
// the networks they are on, and gives addresses out on bridges of our own. It
// is DHCP for IPv4, RFC 2131, without another process.
package dhcp

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	serverPort = 67
	clientPort = 68
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Options say for which NIC an address is wanted.
type Options struct {
	Netns    string           // required; path of the namespace that Link is in
	Link     string           // required
	MAC      net.HardwareAddr // nil: Link's own
	Hostname string           // "": the server is not told
	ClientID []byte           // with its type in front; nil: the server goes by MAC
	Previous *Lease           // asks for the same again

	// Enter runs f on a thread in the namespace at path. Required.
	Enter func(path string, f func() error) error
	Log   *slog.Logger // nil: silent
}

func (o Options) check() (Options, error) {
	if o.Enter == nil {
		panic("BUG: dhcp.Options without Enter")
	}
	if o.Netns == "" || o.Link == "" {
		return o, errs.E(errs.Invalid, "DHCP wants a link and its namespace")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// inside runs f in the namespace. errs.NotFound: there is no such namespace.
func (o Options) inside(f func() error) error {
	entered := false
	err := o.Enter(o.Netns, func() error { entered = true; return f() })
	if err != nil && !entered {
		return errs.E(errs.NotFound, "DHCP on %s: %w", o.Link, err)
	}
	return err
}

// Lease is an address for a while, and what the server says beside it. It can
// be kept as JSON.
type Lease struct {
	Addr   netip.Prefix
	Router netip.Addr // zero: none
	Routes []Route    `json:",omitempty"`
	DNS    []netip.Addr
	Search []string     `json:",omitempty"`
	NTP    []netip.Addr `json:",omitempty"`
	MTU    int          `json:",omitempty"` // 0: not said
	Server netip.Addr

	Got                   time.Time     // by the machine's clock
	Renew, Rebind, Expire time.Duration // after Got
}

// Route is a way to a network.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // zero: directly
}

const (
	// shortest keeps a server from having us ask all the time.
	shortest = time.Second
	minMTU   = 576
)

// leaseOf reads what a server offers or acknowledges. Of what it says, what
// makes no sense is passed over, unless there is no lease without it.
func leaseOf(m *dhcpv4.DHCPv4, got time.Time) (Lease, error) {
	l := Lease{Got: got.UTC(), Server: addrOf(m.ServerIdentifier())}
	a := addrOf(m.YourIPAddr)
	mask := m.SubnetMask()
	if mask == nil {
		mask = net.IP(a.AsSlice()).DefaultMask()
	}
	bits, size := mask.Size()
	switch {
	case !usable(a):
		return l, fmt.Errorf("address %s is not for a NIC", a)
	case size != 32 || bits == 0:
		return l, fmt.Errorf("netmask %s is none", mask)
	case !usable(l.Server):
		return l, fmt.Errorf("server %s does not say who it is", l.Server)
	}
	l.Addr = netip.PrefixFrom(a, bits)
	if l.Expire = m.IPAddressLeaseTime(0); l.Expire == 0 {
		return l, fmt.Errorf("it does not say for how long")
	}
	l.setTimes(m.IPAddressRenewalTime(0), m.IPAddressRebindingTime(0))
	l.setRoutes(m)
	for _, ip := range m.DNS() {
		if s := addrOf(ip); usable(s) {
			l.DNS = append(l.DNS, s)
		}
	}
	for _, ip := range m.NTPServers() {
		if s := addrOf(ip); usable(s) {
			l.NTP = append(l.NTP, s)
		}
	}
	search := []string{m.DomainName()}
	if labels := m.DomainSearch(); labels != nil {
		search = labels.Labels
	}
	l.Search = slices.DeleteFunc(search, func(s string) bool { return !domain(s) })
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && mtu >= minMTU {
		l.MTU = int(mtu)
	}
	return l, nil
}

// setTimes puts T1 and T2 where RFC 2131, 4.4.5, has them, unless the server
// says otherwise and in order.
func (l *Lease) setTimes(t1, t2 time.Duration) {
	l.Expire = max(l.Expire, 2*shortest)
	if l.Rebind = t2; t2 <= 0 || t2 >= l.Expire {
		l.Rebind = l.Expire / 8 * 7
	}
	if l.Renew = t1; t1 <= 0 || t1 >= l.Rebind {
		l.Renew = min(l.Expire/2, l.Rebind)
	}
	l.Renew = max(l.Renew, shortest)
}

// setRoutes takes option 121 where there is one, instead of option 3, as RFC
// 3442 says.
func (l *Lease) setRoutes(m *dhcpv4.DHCPv4) {
	for _, r := range m.ClasslessStaticRoute() {
		bits, _ := r.Dest.Mask.Size()
		to := netip.PrefixFrom(addrOf(r.Dest.IP), bits).Masked()
		via := addrOf(r.Router)
		if via.IsUnspecified() {
			via = netip.Addr{}
		}
		if bits == 0 && via.IsValid() {
			l.Router = via
			continue
		}
		l.Routes = append(l.Routes, Route{to, via})
	}
	if m.Options.Has(dhcpv4.OptionClasslessStaticRoute) {
		return
	}
	for _, ip := range m.Router() {
		if r := addrOf(ip); usable(r) && r != l.Addr.Addr() {
			l.Router = r
			return
		}
	}
}

// usable says whether a machine may have the address.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] < 240
}

// domain keeps what a server says from being anything else in a resolv.conf.
func domain(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

package netcfg

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/buoy-edge/buoy/internal/errs"
)

// BridgeMode says who gives addresses to what is on a bridge.
type BridgeMode string

// The modes, with the names of Zero-OS.
const (
	BridgeNone   BridgeMode = "none"    // nobody that we know of
	BridgeStatic BridgeMode = "static"  // we do, when a container is made
	BridgeDHCP   BridgeMode = "dnsmasq" // a DHCP server of ours
)

// Bridge is a bridge made through the API.
type Bridge struct {
	Name   string // required
	HWAddr string // MAC; made from the name
	Mode   BridgeMode
	NAT    bool         // its containers go out by the machine's addresses
	Prefix netip.Prefix // the bridge's address with the length of its network; zero in mode none
	// Start and End bound the addresses that are given; the whole network.
	Start, End netip.Addr
}

// bad is errs.Invalid about the bridge.
func (b Bridge) bad(format string, args ...any) error {
	return errs.E(errs.Invalid, "bridge %s: %w", b.Name, fmt.Errorf(format, args...)) //nolint:err113 // format is a constant of ours
}

// Validate says in a sentence what is wrong with the bridge; errs.Invalid.
func (b Bridge) Validate() error {
	if err := checkLinkName(b.Name); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if b.HWAddr != "" {
		mac, err := net.ParseMAC(b.HWAddr)
		if err != nil {
			return b.bad("hwaddr %q is not a MAC address like 02:00:5e:10:00:01", b.HWAddr)
		}
		if err := checkMAC(mac); err != nil {
			return b.bad("%w", err)
		}
	}
	switch b.Mode {
	case BridgeNone:
		if b.Prefix.IsValid() || b.Start.IsValid() || b.End.IsValid() {
			return b.bad("in mode none it has no cidr, start and end")
		}
		if b.NAT {
			return b.bad("NAT needs an address of the bridge; use mode static or dnsmasq")
		}
		return nil
	case BridgeStatic, BridgeDHCP:
		return b.validateNetwork()
	}
	return b.bad("mode %q: use none, static or dnsmasq", b.Mode)
}

func (b Bridge) validateNetwork() error {
	p, longest := b.Prefix, 30
	if p.Addr().Is6() {
		longest = 126
	}
	switch {
	case !p.IsValid():
		return b.bad("mode %s needs a cidr: the bridge's address and the length of its network, like 10.20.0.1/24", b.Mode)
	case p.Addr().Is6() && b.Mode == BridgeDHCP:
		return b.bad("its DHCP server gives IPv4 addresses; %s is not one", p)
	case p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 64 || p.Bits() > longest:
		return b.bad("network %s: use a length of /8 to /30, or /64 to /126 for IPv6", p)
	case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast() || p.Addr().Is4In6():
		return b.bad("%s is not an address for a bridge", p)
	case p.Addr() == p.Masked().Addr():
		return b.bad("%s is the address of the network itself; give the bridge another, like %s", p, netip.PrefixFrom(p.Addr().Next(), p.Bits()))
	case p.Addr().Is4() && p.Addr() == lastAddr(p):
		return b.bad("%s is the network's broadcast address", p)
	}
	for _, a := range []netip.Addr{b.Start, b.End} {
		if a.IsValid() && !hostAddr(p, a) {
			return b.bad("%s is not an address for containers of %s", a, p.Masked())
		}
	}
	if b.Start.IsValid() && b.End.IsValid() && b.End.Less(b.Start) {
		return b.bad("start %s comes after end %s", b.Start, b.End)
	}
	return nil
}

// made is the bridge as a device.
func (n *Net) made(b Bridge) device {
	d := device{
		name: b.Name, kind: "bridge", birth: n.birthMAC(b.Name).String(), alias: n.alias() + markBridge, up: true,
	}
	mac, _ := net.ParseMAC(b.HWAddr)
	d.mac = cmp.Or(mac.String(), d.birth)
	if b.Prefix.IsValid() {
		d.addrs = []netip.Prefix{b.Prefix}
	}
	if b.NAT {
		d.alias, d.noted = n.alias()+markNAT, true
		d.sysctls = []sysctl{routeLocalnet(b.Name)}
	}
	return d
}

// SetBridges makes the bridges of the API these and no others: it asserts each,
// and deletes those of this instance that are not in the list. The same list
// again changes nothing.
//
// errs.Conflict: a network overlaps another, or a bridge that should go has a
// container on it. errs.Exists: a link of that name is somebody else's. Then
// everything stays as it was.
func (n *Net) SetBridges(ctx context.Context, bridges []Bridge) error {
	if err := n.setBridges(ctx, bridges); err != nil {
		return fmt.Errorf("set bridges: %w", err)
	}
	return nil
}

func (n *Net) setBridges(ctx context.Context, bridges []Bridge) error {
	for i, b := range bridges {
		if err := b.Validate(); err != nil {
			return err
		}
		if b.Name == n.cfg.Bridge {
			return errs.E(errs.Exists, "bridge %s is the one of default NICs", b.Name)
		}
		if slices.ContainsFunc(bridges[:i], func(o Bridge) bool { return o.Name == b.Name }) {
			return errs.E(errs.Exists, "bridge %s is there twice", b.Name)
		}
	}
	n.life.Lock()
	defer n.life.Unlock()
	n.setMu.Lock()
	defer n.setMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := n.host()
	if err != nil {
		return err
	}
	gone, err := n.checkBridges(s.slow, bridges)
	if err != nil {
		return err
	}
	had, knew := n.bridges, n.bridgesKnown
	n.bridges, n.bridgesKnown = slices.Clone(bridges), true
	if err := n.settleHost(s.slow, gone); err != nil {
		n.bridges, n.bridgesKnown = had, knew
		return err
	}
	return nil
}

// checkBridges says which bridges would go, unless a container is on one, or a
// name is somebody else's.
func (n *Net) checkBridges(s *sock, bridges []Bridge) (gone func(device) bool, err error) {
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	for _, b := range bridges {
		keep[b.Name] = true
	}
	going := map[string]bool{}
	for _, l := range links {
		a := l.Attrs()
		if keep[a.Name] && !n.ownsMade(l) && (l.Type() != "bridge" || a.Alias != "" || a.HardwareAddr.String() != n.birthMAC(a.Name).String()) {
			return nil, errs.E(errs.Exists, "the machine has a link %s that is not ours (%s); choose another name", a.Name, l.Type())
		}
		if !keep[a.Name] && n.ownsMade(l) {
			going[a.Name] = true
			for _, port := range links {
				if of, ours := n.ownsPort(port); ours && port.Attrs().MasterIndex == a.Index {
					return nil, errs.E(errs.Conflict, "container %s is on bridge %s", of.container, a.Name)
				}
			}
		}
	}
	return func(d device) bool { return going[d.name] }, nil
}

// LinkUp says whether the machine has a link of that name, and it is up.
func (n *Net) LinkUp(name string) bool {
	s, err := n.host()
	if err != nil {
		return false
	}
	l, err := linkByName(s.fast.Handle, name)
	return err == nil && l.Attrs().Flags&net.FlagUp != 0
}

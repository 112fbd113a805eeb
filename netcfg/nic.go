package netcfg

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// NICType says what a NIC of a container is connected to.
type NICType string

// The types. ID says which one of the type.
const (
	NICDefault     NICType = "default"     // the NAT bridge of this node; its ID means nothing
	NICBridge      NICType = "bridge"      // the bridge called ID, ours or the machine's
	NICVLAN        NICType = "vlan"        // VLAN ID of the uplink, "0" for its untagged traffic
	NICVXLAN       NICType = "vxlan"       // VXLAN network ID over the uplink
	NICMacvlan     NICType = "macvlan"     // a MAC of its own on the link ID, "" for the uplink
	NICIPvlan      NICType = "ipvlan"      // the MAC of the link ID, "" for the uplink
	NICPassthrough NICType = "passthrough" // the machine's NIC ID itself
	NICCNI         NICType = "cni"         // the CNI network called ID
)

// NIC is a network interface as a container's description asks for it.
type NIC struct {
	Type   NICType
	ID     string
	Name   string // inside the container; "": eth<index>
	HWAddr string // MAC; "": we choose
	Config NICConfig
}

// NICConfig says how the NIC is set up. A NIC on a bridge of ours that names no
// address gets one from us; so does a default NIC, always.
type NICConfig struct {
	DHCP     bool
	CIDRs    []netip.Prefix // addresses, with the length of their network
	Gateways []netip.Addr   // default routes, at most one a family
	Routes   []Route
	DNS      []netip.Addr
	Search   []string // domains
	MTU      int      // 0: that of what it is connected to
	Rate     Rate

	Uplink string // vlan, vxlan: in place of the node's
	Mode   string // macvlan: bridge (default), private, vepa; ipvlan: l2 (default), l3, l3s

	Group netip.Addr   // vxlan: the multicast group of all peers
	Peers []netip.Addr // vxlan: or each of them
	Port  uint16       // vxlan: UDP; 4789
}

// Route is a way to a network.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // zero: directly
}

// Rate bounds what a NIC carries, in bits per second; 0: not at all.
type Rate struct {
	In  uint64 // to the container
	Out uint64 // from it
}

// The bounds of numbers.
const (
	maxVLAN = 4094
	maxVNI  = 1<<24 - 1
	minMTU  = 576
	maxMTU  = 65535
	minRate = 8_000             // bits per second: one full packet in 1.5 s
	maxRate = 1_000_000_000_000 // more than the kernel's buckets are sure to count
)

// Key names the layer-2 network that the NIC is on: addresses and MACs are
// unique in one. A container has one NIC of a key.
func (n NIC) Key() string {
	if n.Type == NICDefault {
		return string(n.Type)
	}
	key := fmt.Sprintf("%s:%s", n.Type, n.ID)
	if n.Config.Uplink != "" {
		key += "@" + n.Config.Uplink
	}
	return key
}

// String is how messages name the NIC.
func (n NIC) String() string {
	if n.Type == NICDefault || n.ID == "" {
		return "NIC " + string(n.Type)
	}
	return fmt.Sprintf("NIC %s %s", n.Type, n.ID)
}

// nicTypes has what each type asks of a NIC beyond what all do.
var nicTypes = map[NICType]func(NIC) error{
	NICDefault:     NIC.validateDefault,
	NICBridge:      NIC.validateBridge,
	NICVLAN:        NIC.validateVLAN,
	NICVXLAN:       NIC.validateVXLAN,
	NICMacvlan:     func(n NIC) error { return n.validateChild("bridge", "private", "vepa") },
	NICIPvlan:      func(n NIC) error { return n.validateChild("l2", "l3", "l3s") },
	NICPassthrough: NIC.validatePassthrough,
	NICCNI:         NIC.validateCNI,
}

// Validate says in a sentence what is wrong with the NIC; errs.Invalid.
func (n NIC) Validate() error {
	validate, ok := nicTypes[n.Type]
	if !ok {
		return errs.E(errs.Invalid, "NIC type %q is not supported; supported: default, bridge, vlan, vxlan, macvlan, ipvlan, "+
			"passthrough and cni (or hostNetworking, or no NIC)", n.Type)
	}
	if n.Name != "" {
		if err := checkNICName(n.Name); err != nil {
			return err
		}
	}
	if n.HWAddr != "" {
		mac, err := net.ParseMAC(n.HWAddr)
		if err != nil {
			return errs.E(errs.Invalid, "NIC hwaddr %q is not a MAC address like 02:00:5e:10:00:01", n.HWAddr)
		}
		if err := checkMAC(mac); err != nil {
			return err
		}
	}
	if err := n.validateLimits(); err != nil {
		return err
	}
	if err := n.validateAddrs(); err != nil {
		return err
	}
	return validate(n)
}

// bad is errs.Invalid about the NIC.
func (n NIC) bad(format string, args ...any) error {
	return errs.E(errs.Invalid, "%s: %w", n, fmt.Errorf(format, args...)) //nolint:err113 // format is a constant of ours
}

func (n NIC) validateLimits() error {
	c := n.Config
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		return n.bad("MTU %d: use %d to %d", c.MTU, minMTU, maxMTU)
	}
	for _, r := range []uint64{c.Rate.In, c.Rate.Out} {
		if r != 0 && r < minRate {
			return n.bad("a rate of %d bit/s is too low; use at least %d", r, minRate)
		}
		if r > maxRate {
			return n.bad("a rate of %d bit/s is too high; use at most %d, or leave it out", r, maxRate)
		}
	}
	if c.Rate.In != 0 && !n.Type.bridged() {
		return n.bad("a rate of what comes in can only be set on a NIC of type default, bridge, vlan or vxlan")
	}
	return nil
}

// bridged says whether NICs of the type are one end of a pair of links, with
// the other on a bridge of the machine.
func (t NICType) bridged() bool {
	return t == NICDefault || t == NICBridge || t == NICVLAN || t == NICVXLAN
}

// validateAddrs checks addresses, gateways, routes and servers.
func (n NIC) validateAddrs() error {
	c := n.Config
	if c.DHCP && len(c.CIDRs)+len(c.Gateways) > 0 {
		return n.bad("with dhcp there is no cidr and no gateway")
	}
	for i, p := range c.CIDRs {
		a := p.Addr()
		switch {
		case !p.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Zone() != "" || a.Is4In6():
			return n.bad("%s is not an address for a NIC, like 192.168.1.10/24", p)
		case a.Is4() && p.Bits() < 31 && a == p.Masked().Addr():
			return n.bad("%s is the address of the network itself", p)
		case a.Is4() && p.Bits() < 31 && a == lastAddr(p):
			return n.bad("%s is the network's broadcast address", p)
		}
		for _, q := range c.CIDRs[:i] {
			if q.Addr() == a {
				return n.bad("address %s is given twice", a)
			}
		}
	}
	if err := n.validateGateways(); err != nil {
		return err
	}
	for _, r := range c.Routes {
		switch {
		case !r.To.IsValid() || r.To != r.To.Masked() || r.To.Addr().Is4In6():
			return n.bad("route to %s: it is not a network like 10.1.0.0/16", r.To)
		case r.Via.IsValid() && !machineAddr(r.Via):
			return n.bad("route to %s: %s is not the address of a machine", r.To, r.Via)
		case r.Via.IsValid() && r.Via.Is4() != r.To.Addr().Is4():
			return n.bad("route to %s: %s is of the other kind of addresses", r.To, r.Via)
		case r.Via.IsValid() && len(c.CIDRs) > 0 && !n.onLink(r.Via) && !r.Via.IsLinkLocalUnicast():
			return n.bad("route to %s: %s is in none of its networks (cidr)", r.To, r.Via)
		}
	}
	for _, a := range c.DNS {
		if !a.IsValid() || a.Zone() != "" || a.IsMulticast() || a.IsUnspecified() {
			return n.bad("dns server %s is not an address of a server", a)
		}
	}
	for _, s := range c.Search {
		if s == "" || len(s) > 253 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return n.bad("search domain %q is not a domain", s)
		}
	}
	return nil
}

func (n NIC) validateGateways() error {
	c := n.Config
	var families [2]int
	for _, g := range c.Gateways {
		ends := func(p netip.Prefix) bool {
			return g.Is4() && p.Bits() < 31 && p.Contains(g) && (g == p.Masked().Addr() || g == lastAddr(p))
		}
		if !machineAddr(g) || slices.ContainsFunc(c.CIDRs, ends) {
			return n.bad("gateway %s is not the address of a machine", g)
		}
		family := 0
		if g.Is6() {
			family = 1
		}
		if families[family]++; families[family] > 1 {
			return n.bad("it has two gateways for the same kind of addresses")
		}
		if !n.onLink(g) && !g.IsLinkLocalUnicast() {
			return n.bad("gateway %s is in none of its networks (cidr)", g)
		}
		if slices.ContainsFunc(c.CIDRs, func(p netip.Prefix) bool { return p.Addr() == g }) {
			return n.bad("gateway %s is its own address", g)
		}
	}
	return nil
}

// machineAddr says whether a machine may have the address. A zone is of the
// machine that names it, and an IPv4 address is to be written as one.
func machineAddr(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == "" && !a.Is4In6()
}

// onLink says whether a is in one of the NIC's networks.
func (n NIC) onLink(a netip.Addr) bool {
	return slices.ContainsFunc(n.Config.CIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// validateDefault takes an address that the node has to have free in the
// bridge's prefix; all else comes from the node.
func (n NIC) validateDefault() error {
	c := n.Config
	if c.DHCP || len(c.Gateways) > 0 {
		return n.bad("its gateway comes from the node; leave out dhcp and gateway")
	}
	if len(c.CIDRs) > 1 || len(c.CIDRs) == 1 && !c.CIDRs[0].Addr().Is4() {
		return n.bad("it has one IPv4 address; give one cidr, or none")
	}
	return n.only(nil)
}

func (n NIC) validateBridge() error {
	if err := checkLinkName(n.ID); err != nil {
		return n.bad("the id names a bridge: %w", err)
	}
	return n.only(nil)
}

func (n NIC) validateVLAN() error {
	if v, err := strconv.ParseUint(n.ID, 10, 16); err != nil || v > maxVLAN || strconv.FormatUint(v, 10) != n.ID {
		return n.bad("the id is a VLAN from 1 to %d, or 0 for untagged traffic", maxVLAN)
	}
	return n.only([]string{"uplink"})
}

func (n NIC) validateVXLAN() error {
	if v, err := strconv.ParseUint(n.ID, 10, 32); err != nil || v == 0 || v > maxVNI || strconv.FormatUint(v, 10) != n.ID {
		return n.bad("the id is a VXLAN network from 1 to %d", maxVNI)
	}
	c := n.Config
	switch {
	case c.Group.IsValid() && (!c.Group.IsMulticast() || c.Group.Zone() != ""):
		return n.bad("group %s is not a multicast address like 239.1.1.1", c.Group)
	case c.Group.IsValid() == (len(c.Peers) > 0):
		return n.bad("say who the peers are: a multicast group, or a list of peers")
	}
	for _, p := range c.Peers {
		if !machineAddr(p) || p.Is4() != c.Peers[0].Is4() {
			return n.bad("peer %s is not the address of a machine of the same kind as the others", p)
		}
	}
	return n.only([]string{"uplink", "vxlan"})
}

func (n NIC) validateChild(modes ...string) error {
	if n.ID != "" {
		if err := checkLinkName(n.ID); err != nil {
			return n.bad("the id names a link of the machine: %w", err)
		}
	}
	if n.Config.Mode != "" && !slices.Contains(modes, n.Config.Mode) {
		return n.bad("mode %q: use %s", n.Config.Mode, strings.Join(modes, ", "))
	}
	if n.Type == NICIPvlan && n.HWAddr != "" {
		return n.bad("it has the MAC of the link it is on; leave out hwaddr")
	}
	return n.only([]string{"mode"})
}

func (n NIC) validatePassthrough() error {
	if err := checkLinkName(n.ID); err != nil {
		return n.bad("the id names a NIC of the machine: %w", err)
	}
	return n.only(nil)
}

func (n NIC) validateCNI() error {
	if n.ID == "" || len(n.ID) > 200 || strings.ContainsFunc(n.ID, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		return n.bad("the id is the name of a network in the CNI configuration directory")
	}
	c := n.Config
	if c.DHCP || len(c.CIDRs)+len(c.Gateways)+len(c.Routes) > 0 || c.MTU != 0 || c.Rate != (Rate{}) {
		return n.bad("its plugins configure it; of config only dns and search count")
	}
	return n.only(nil)
}

// only refuses what belongs to other types than those that allowed names.
func (n NIC) only(allowed []string) error {
	c := n.Config
	for _, f := range []struct {
		name, what string
		set        bool
	}{
		{"uplink", "uplink", c.Uplink != ""},
		{"mode", "mode", c.Mode != ""},
		{"vxlan", "group, peers and port", c.Group.IsValid() || len(c.Peers) > 0 || c.Port != 0},
	} {
		if f.set && !slices.Contains(allowed, f.name) {
			return n.bad("%s means nothing for this type", f.what)
		}
	}
	if c.Uplink != "" {
		if err := checkLinkName(c.Uplink); err != nil {
			return n.bad("uplink: %w", err)
		}
	}
	return nil
}

// checkNICName holds the rules of Zero-OS: eth<index> is given by us, zt by
// ZeroTier.
func checkNICName(name string) error {
	if strings.HasPrefix(name, "eth") || strings.HasPrefix(name, "zt") {
		return errs.E(errs.Invalid, "NIC name %q: names must not start with \"eth\" or \"zt\"", name)
	}
	return checkLinkName(name)
}

func checkMAC(mac net.HardwareAddr) error {
	switch {
	case len(mac) != 6:
		return errs.E(errs.Invalid, "MAC address %s has %d bytes; an Ethernet one has 6", mac, len(mac))
	case mac[0]&1 != 0:
		return errs.E(errs.Invalid, "MAC address %s is a multicast address; a NIC needs a unicast one", mac)
	case [6]byte(mac) == [6]byte{}:
		return errs.E(errs.Invalid, "MAC address %s is all zero", mac)
	}
	return nil
}

// lastAddr is the last address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(a)
}

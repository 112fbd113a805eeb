package netcfg

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// setupBridge makes the bridge right and says what it changed.
func (n *Net) setupBridge(s *sock) (changed []string, err error) {
	link, err := linkByName(s.Handle, n.cfg.Bridge)
	switch {
	case isNotFound(err):
		if err := n.checkOverlap(s, 0); err != nil {
			return nil, err
		}
		if link, err = n.addBridge(s); err != nil {
			return nil, err
		}
		changed = append(changed, "bridge")
	case err != nil:
		return nil, err
	case !n.ownsBridge(link):
		return nil, errs.E(errs.Conflict, "interface %s exists and is not the bridge of instance %s (alias %q); "+
			"choose another bridge name or remove it", n.cfg.Bridge, n.cfg.Instance, link.Attrs().Alias)
	}
	steps := []struct {
		name string
		set  func(*sock, netlink.Link) (bool, error)
	}{
		{"address", n.setBridgeAddr},
		{"link", n.setBridgeLink},
		{"route", n.setBridgeRoute},
	}
	for _, step := range steps {
		did, err := step.set(s, link)
		if err != nil {
			return changed, fmt.Errorf("%s: %w", step.name, err)
		}
		if did {
			changed = append(changed, step.name)
		}
	}
	did, err := n.setSysctls(s, link)
	return append(changed, did...), err
}

// addBridge makes the bridge, with a MAC of its own: one without would change
// its MAC with every container that comes or goes.
func (n *Net) addBridge(s *sock) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.cfg.Bridge
	attrs.HardwareAddr = n.bridgeMAC()
	if err := s.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make it: %w", err)
	}
	return linkByName(s.Handle, n.cfg.Bridge)
}

func (n *Net) gatewayAddr() netip.Prefix { return netip.PrefixFrom(n.gateway, n.cfg.Prefix.Bits()) }

// setBridgeAddr leaves the gateway as the bridge's only IPv4 address.
func (n *Net) setBridgeAddr(s *sock, link netlink.Link) (changed bool, err error) {
	have, err := dumpAddrs(s.Handle, link, netlink.FAMILY_V4)
	if err != nil {
		return false, err
	}
	there := false
	for _, a := range have {
		if toPrefix(a.IPNet) == n.gatewayAddr() {
			there = true
			continue
		}
		if err := s.AddrDel(link, &a); err != nil {
			return changed, fmt.Errorf("remove %s: %w", a.IPNet, err)
		}
		changed = true
	}
	if there {
		return changed, nil
	}
	if err := n.checkOverlap(s, link.Attrs().Index); err != nil {
		return changed, err
	}
	if err := s.AddrAdd(link, &netlink.Addr{IPNet: toIPNet(n.gatewayAddr())}); err != nil {
		return changed, fmt.Errorf("add %s: %w", n.gatewayAddr(), err)
	}
	return true, nil
}

func (n *Net) setBridgeLink(s *sock, link netlink.Link) (changed bool, err error) {
	a := link.Attrs()
	if a.HardwareAddr.String() != n.bridgeMAC().String() {
		if err := s.LinkSetHardwareAddr(link, n.bridgeMAC()); err != nil {
			return false, err
		}
		changed = true
	}
	if a.Flags&net.FlagUp != 0 {
		return changed, nil
	}
	return true, s.LinkSetUp(link)
}

// setBridgeRoute puts back the route that the kernel made with the address.
func (n *Net) setBridgeRoute(s *sock, link netlink.Link) (bool, error) {
	routes, err := dumpRoutes(s.Handle)
	if err != nil {
		return false, err
	}
	for _, r := range routes {
		if r.LinkIndex == link.Attrs().Index && r.Table == unix.RT_TABLE_MAIN && toPrefix(r.Dst) == n.cfg.Prefix {
			return false, nil
		}
	}
	return true, s.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       toIPNet(n.cfg.Prefix),
		Src:       n.gateway.AsSlice(),
		Scope:     netlink.SCOPE_LINK,
		Protocol:  unix.RTPROT_KERNEL,
	})
}

// checkOverlap refuses a prefix that other links of the host (all but index)
// use: containers would cut the host off from what is there, or never reach it.
func (n *Net) checkOverlap(s *sock, index int) error {
	addrs, err := dumpAddrs(s.Handle, nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if p := toPrefix(a.IPNet); a.LinkIndex != index && n.cfg.Prefix.Overlaps(p) {
			return n.overlap(s, "address", p, a.LinkIndex)
		}
	}
	routes, err := dumpRoutes(s.Handle)
	if err != nil {
		return err
	}
	for _, r := range routes {
		p := toPrefix(r.Dst)
		// Half of everything, as VPNs spell their default route, is no network.
		if r.LinkIndex == 0 || r.LinkIndex == index || r.Table == unix.RT_TABLE_LOCAL || !p.IsValid() || p.Bits() <= 1 {
			continue
		}
		if n.cfg.Prefix.Overlaps(p) {
			return n.overlap(s, "route", p, r.LinkIndex)
		}
	}
	return nil
}

func (n *Net) overlap(s *sock, what string, p netip.Prefix, index int) error {
	name := fmt.Sprintf("interface %d", index)
	if link, err := s.LinkByIndex(index); err == nil {
		name = link.Attrs().Name
	}
	return errs.E(errs.Conflict, "container network %s overlaps the %s %s of %s; choose another prefix",
		n.cfg.Prefix, what, p, name)
}

// toPrefix is the zero Prefix for nil.
func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

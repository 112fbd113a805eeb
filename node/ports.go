package node

import (
	"context"
	"net/netip"
	"slices"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
)

// forwards are the port rules of a container. The caller holds b.mu.
func (n *Node) forwards(b *box) []netcfg.Forward {
	addr, ok := b.published()
	if !ok {
		return nil
	}
	var guests []netip.Addr
	for _, p := range n.cfg.Net.DefaultAddrs(addr) {
		guests = append(guests, p.Addr())
	}
	var out []netcfg.Forward
	for _, p := range b.spec.Ports {
		out = append(out, p.Forwards(b.spec.Name, guests...)...)
	}
	return out
}

// published is the IPv4 address that the container's ports lead to: that of its
// default NIC. The caller holds b.mu.
func (b *box) published() (addr netip.Addr, ok bool) {
	for _, g := range b.given {
		if g.Key == defaultPool && len(g.Addrs) > 0 {
			return g.Addrs[0].Addr(), true
		}
	}
	return addr, false
}

// setPorts makes the port rules those of the containers that run now.
func (n *Node) setPorts(ctx context.Context) error {
	n.ports.Lock()
	defer n.ports.Unlock()
	var all []netcfg.Forward
	for _, b := range n.all() {
		all = append(all, get(b, func() []netcfg.Forward { return b.forward })...)
	}
	return n.cfg.Net.SetPorts(ctx, all)
}

// checkPorts says whether a process of the host has a port of the spec.
func (n *Node) checkPorts(s Spec) error {
	if s.HostNetworking {
		return nil
	}
	for _, p := range s.Ports {
		if a := p.Host.Addr(); a.Is6() && p.Iface == "" && !a.IsUnspecified() && !n.cfg.Net.HasIPv6() {
			return errs.E(errs.Invalid, "port %s: containers of this node have no IPv6 address; start buoyd with --cidr6, or publish at an IPv4 address", p)
		}
		if a, ok := n.answersAt(p); ok {
			return errs.E(errs.Conflict, "port %s: buoyd itself answers names at %s; publish it at one address, like 192.0.2.1:53:53/udp", p, a)
		}
		if err := n.cfg.Net.CheckFree(p.Forward(s.Name, netip.Addr{})); err != nil {
			return err
		}
	}
	return nil
}

// answersAt is an address of the resolver that the port would cover.
func (n *Node) answersAt(p netcfg.Port) (a netip.Addr, ok bool) {
	const port = 53
	if !p.Host.Addr().IsUnspecified() || p.Iface != "" || p.Within.IsValid() || p.Host.Port() > port || port >= p.Host.Port()+max(p.Count, 1) {
		return a, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for a = range n.resolving {
		return a, true
	}
	return a, false
}

// checkClash refuses a port that another container publishes. The caller holds
// n.mu.
func (n *Node) checkClash(spec Spec) error {
	for name, other := range n.boxes {
		if name == spec.Name {
			continue
		}
		for _, o := range get(other, other.promises) {
			if p, ok := clash(spec, o.spec); ok {
				return errs.E(errs.Conflict, "port %s is published by container %q", p, name)
			}
		}
	}
	return nil
}

// clash is a port of a that b has as well.
func clash(a, b Spec) (netcfg.Port, bool) {
	if a.HostNetworking || b.HostNetworking {
		return netcfg.Port{}, false
	}
	for _, p := range a.Ports {
		if slices.ContainsFunc(b.Ports, p.Collides) {
			return p, true
		}
	}
	return netcfg.Port{}, false
}

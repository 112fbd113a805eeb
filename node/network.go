package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
)

// allocate is an address of the bridge that no container has. The caller holds n.mu.
func (n *Node) allocate() (string, error) {
	taken := map[netip.Addr]bool{}
	var last netip.Addr
	var newest int64
	for _, b := range n.boxes {
		// rec.Address never changes after reserve.
		p, err := netip.ParsePrefix(b.rec.Address)
		if err != nil {
			continue
		}
		taken[p.Addr()] = true
		// After the one given last: an address rests before it is given
		// again, so that nobody meets another container at it.
		if at := b.rec.Created.UnixNano(); at > newest {
			newest, last = at, p.Addr()
		}
	}
	if n.lastAddr.IsValid() {
		last = n.lastAddr
	}
	addr, err := netcfg.Allocate(n.cfg.Net.Prefix(), taken, last)
	if err != nil {
		return "", err
	}
	n.lastAddr = addr
	return netip.PrefixFrom(addr, n.cfg.Net.Prefix().Bits()).String(), nil
}

// network is a network namespace for a start of the container, with its NIC.
// The namespace lives as long as the caller or a process keeps it open.
func (n *Node) network(ctx context.Context, b *box) (ns *netcfg.Netns, err error) {
	nic, ok := b.spec.defaultNIC()
	if !ok {
		return nil, nil
	}
	if err := n.setUpNet(ctx); err != nil {
		return nil, err
	}
	ns, err = n.cfg.Net.Netns(ctx)
	if err != nil {
		return nil, err
	}
	link, err := n.link(b, nic)
	if err == nil {
		err = n.cfg.Net.Attach(ctx, ns.Path(), link)
	}
	if err == nil && b.spec.Run.UserNS {
		err = netcfg.InNS(ns.Path(), func() error { return setSysctls(container.NetSysctls(b.spec.Run)) })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("NIC default: %w", err), ns.Close())
	}
	return ns, nil
}

// setSysctls sets sysctls of the calling thread's network namespace.
func setSysctls(values map[string]string) error {
	for k, v := range values {
		file := "/proc/sys/" + strings.ReplaceAll(k, ".", "/")
		if err := os.WriteFile(file, []byte(v), 0); err != nil {
			return errs.E(errs.Invalid, "sysctl %q cannot be set to %q: %w", k, v, err)
		}
	}
	return nil
}

// link is what Attach is asked to make for the container's default NIC.
func (n *Node) link(b *box, nic netcfg.NIC) (netcfg.Link, error) {
	addr, err := netip.ParsePrefix(b.rec.Address)
	if err != nil {
		return netcfg.Link{}, fmt.Errorf("address of container %s: %w", b.spec.Name, err)
	}
	l := netcfg.Link{Container: b.spec.Name, Name: nic.Name, Addr: addr.Addr()}
	if l.Name == "" {
		l.Name = "eth0"
	}
	if nic.HWAddr != "" {
		if l.MAC, err = net.ParseMAC(nic.HWAddr); err != nil {
			return l, errs.E(errs.Invalid, "hwaddr %q: %w", nic.HWAddr, err)
		}
	}
	return l, nil
}

// setUpNet makes the bridge and the rules when the first container needs them.
func (n *Node) setUpNet(ctx context.Context) error {
	n.netOnce.Lock()
	defer n.netOnce.Unlock()
	if n.netReady {
		return nil
	}
	if err := n.cfg.Net.Setup(ctx); err != nil {
		return err
	}
	n.netReady = true
	return nil
}

// forwards are the port rules of a container.
func (n *Node) forwards(b *box) []netcfg.Forward {
	addr, err := netip.ParsePrefix(b.rec.Address)
	if err != nil {
		return nil
	}
	var out []netcfg.Forward
	for _, p := range b.spec.Ports {
		out = append(out, p.Forward(b.spec.Name, addr.Addr()))
	}
	return out
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
		if err := n.cfg.Net.CheckFree(p.Forward(s.Name, netip.Addr{})); err != nil {
			return err
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
		for _, q := range b.Ports {
			if overlap(p, q) {
				return p, true
			}
		}
	}
	return netcfg.Port{}, false
}

// overlap says whether something that arrives could be meant for either port.
func overlap(p, q netcfg.Port) bool {
	return p.Proto == q.Proto && p.Host.Port() == q.Host.Port() &&
		(p.Host.Addr() == q.Host.Addr() || p.Host.Addr().IsUnspecified() || q.Host.Addr().IsUnspecified())
}

// UpdateNICs changes the NICs of a container while it runs. This version knows
// one type of NIC and can only leave things as they are.
func (n *Node) UpdateNICs(_ context.Context, name string, nics []netcfg.NIC) error {
	b, err := n.find(name)
	if err != nil {
		return err
	}
	next := b.spec
	next.NICs = nics
	if err := next.validateNetwork(); err != nil {
		return err
	}
	if !slices.EqualFunc(nics, b.spec.NICs, sameNIC) {
		return errs.E(errs.Invalid, "NICs of a container cannot be changed by this version; delete the container and create it again")
	}
	return nil
}

func sameNIC(a, b netcfg.NIC) bool {
	return a.Type == b.Type && a.ID == b.ID && a.Name == b.Name && a.HWAddr == b.HWAddr &&
		a.Config.DHCP == b.Config.DHCP && a.Config.CIDR == b.Config.CIDR && a.Config.Gateway == b.Config.Gateway &&
		slices.Equal(a.Config.DNS, b.Config.DNS)
}

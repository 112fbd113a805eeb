package netcfg

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/buoy-edge/buoy/internal/errs"
)

// defaultBridge is what containers with a default NIC are on. Its MAC is its
// own: a bridge without one changes its MAC with every container that comes or
// goes. The host reaches containers from 127.0.0.1 over it (route_localnet);
// the chain "guard" pays for that.
func (n *Net) defaultBridge() device {
	mac := n.birthMAC(n.cfg.Bridge).String()
	d := device{
		name: n.cfg.Bridge, kind: "bridge", birth: mac, mac: mac, alias: n.alias(), noted: true, up: true,
		addrs:   []netip.Prefix{netip.PrefixFrom(n.gateway, n.cfg.Prefix.Bits())},
		sysctls: []sysctl{routeLocalnet(n.cfg.Bridge)},
	}
	if n.cfg.Prefix6.IsValid() {
		d.addrs = append(d.addrs, n.twin(n.gateway))
	}
	return d
}

func routeLocalnet(link string) sysctl {
	return sysctl{"net/ipv4/conf/" + link + "/route_localnet", "1"}
}

// twin is the IPv6 address that goes with an IPv4 one of the default bridge's:
// the same place in its network.
func (n *Net) twin(a netip.Addr) netip.Prefix {
	four, six := a.As4(), n.cfg.Prefix6.Addr().As16()
	for i, b := range n.cfg.Prefix.Addr().As4() {
		six[12+i] |= four[i] ^ b
	}
	return netip.PrefixFrom(netip.AddrFrom16(six), n.cfg.Prefix6.Bits())
}

// DefaultAddrs are the addresses of the container that has a on the default
// bridge: it, and its IPv6 twin where the node has a prefix.
func (n *Net) DefaultAddrs(a netip.Addr) []netip.Prefix {
	list := []netip.Prefix{netip.PrefixFrom(a, n.cfg.Prefix.Bits())}
	if n.cfg.Prefix6.IsValid() && n.usable(a) {
		list = append(list, n.twin(a))
	}
	return list
}

// HasIPv6 says whether containers on the default bridge have IPv6 addresses.
func (n *Net) HasIPv6() bool { return n.cfg.Prefix6.IsValid() }

// checkPrefixes is New's look at Prefix and Prefix6.
func (c Config) checkPrefixes() error {
	if !c.Prefix.Addr().Is4() || c.Prefix.Bits() < 8 || c.Prefix.Bits() > 29 {
		return errs.E(errs.Invalid, "network prefix %s: use an IPv4 prefix between /8 and /29", c.Prefix)
	}
	six := c.Prefix6
	switch {
	case six == netip.Prefix{}:
		return nil
	case !six.IsValid() || !six.Addr().Is6() || six.Addr().Is4In6() || six.Bits() < 64 || six.Bits() > 120 ||
		six.Addr().IsLinkLocalUnicast() || six.Addr().IsMulticast():
		return errs.E(errs.Invalid, "network prefix %s: use an IPv6 prefix between /64 and /120, like fd00:1234:5678::/64", six)
	case 128-six.Bits() < 32-c.Prefix.Bits():
		return errs.E(errs.Invalid, "network prefix %s has fewer addresses than %s; use /%d or shorter", six, c.Prefix, 128-(32-c.Prefix.Bits()))
	}
	return nil
}

// wanted is the host's side of the network as Setup and SetBridges have it.
// The caller holds n.setMu.
func (n *Net) wanted() want {
	w := want{owns: n.ownsNamed, instance: n.cfg.Instance, reserved: []netip.Prefix{n.cfg.Prefix}, reservedBy: n.cfg.Bridge, switches: true}
	if n.cfg.Prefix6.IsValid() {
		w.reserved = append(w.reserved, n.cfg.Prefix6)
	}
	if n.useDefault.Load() {
		w.devices = append(w.devices, n.defaultBridge())
	}
	for _, b := range n.bridges {
		w.devices = append(w.devices, n.made(b))
	}
	for _, d := range w.devices {
		w.forwardsFor(d)
	}
	return w
}

// forwardsFor has the machine forward what containers on d send out.
func (w *want) forwardsFor(d device) {
	w.v4 = w.v4 || d.noted && slices.ContainsFunc(d.addrs, func(p netip.Prefix) bool { return p.Addr().Is4() })
	w.v6 = w.v6 || d.noted && slices.ContainsFunc(d.addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// ownsNamed says whether a device with a name that we want is ours.
func (n *Net) ownsNamed(d device) bool {
	if d.alias == "" {
		return d.mac == n.birthMAC(d.name).String() || strings.HasPrefix(d.name, n.born("bb")) || strings.HasPrefix(d.name, n.born("bl"))
	}
	base, _ := cutNote(d.alias)
	return base == n.alias() || strings.HasPrefix(base, n.alias()+"/")
}

// settleHost makes bridges, switches and rules as they are wanted. What gone
// names is deleted; bridges of ours that nobody spoke of yet stay as they are.
// The caller holds n.setMu.
func (n *Net) settleHost(s *sock, gone func(device) bool) error {
	w := n.wanted()
	m, err := n.readMachine(s, w)
	if err != nil {
		return err
	}
	nets := n.share(&w, m, gone)
	steps, err := plan(w, m)
	if err != nil {
		return err
	}
	changed, err := n.carryOut(s, steps)
	if err != nil {
		return err
	}
	rules, err := n.settleTable(nets)
	if err != nil {
		return err
	}
	if changed = append(changed, rules...); len(changed) > 0 {
		n.cfg.Log.Info("network set up", "changed", changed)
	}
	return nil
}

// nothing is to be deleted.
func nothing(device) bool { return false }

// settleTable makes the table right for nets, or deletes it where there are none.
func (n *Net) settleTable(nets []natted) (changed []string, err error) {
	if len(nets) > 0 {
		changed, err = n.setTable(nets)
	} else {
		var there bool
		err = n.onTable(func(c *nftables.Conn) (err error) {
			there, err = hasTable(c, n.table())
			return err
		})
		if err == nil && there {
			changed, err = []string{"table deleted"}, n.deleteTable()
		}
	}
	if err != nil {
		return changed, fmt.Errorf("nftables table %s: %w", n.table().Name, err)
	}
	return changed, nil
}

// share completes w with what is on the machine, and says who goes out by NAT.
func (n *Net) share(w *want, m machine, gone func(device) bool) (nets []natted) {
	wanted := map[string]bool{}
	for _, d := range w.devices {
		wanted[d.name] = true
		if d.noted {
			nets = append(nets, nattedBy(d))
		}
	}
	for _, name := range m.names() {
		d := m.devices[name]
		base, _ := cutNote(d.alias)
		ours := base == n.alias() || base == n.alias()+markNAT || base == n.alias()+markBridge
		switch {
		case wanted[name] || !ours && !gone(d):
		case gone(d):
			w.gone = append(w.gone, name)
		default:
			if d.noted = base != n.alias()+markBridge; d.noted {
				nets = append(nets, nattedBy(d))
			}
			w.forwardsFor(d)
		}
	}
	return nets
}

func nattedBy(d device) natted {
	out := natted{link: d.name}
	for _, a := range d.addrs {
		out.prefixes = append(out.prefixes, a.Masked())
	}
	return out
}

package netcfg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// hand does the steps of a plan in the host's namespace.
type hand struct {
	n *Net
	s *sock
}

// carryOut does the steps and says which it did.
func (n *Net) carryOut(s *sock, steps []step) (did []string, err error) {
	h := &hand{n, s}
	for _, step := range steps {
		if err := step.do(h); err != nil {
			return did, fmt.Errorf("%s: %w", step, err)
		}
		did = append(did, step.text)
	}
	return did, nil
}

// on does something to the link of that name.
func (h *hand) on(name string, do func(netlink.Link) error) error {
	link, err := linkByName(h.s.Handle, name)
	if err != nil {
		return err
	}
	return do(link)
}

func (h *hand) addLink(d device) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = d.name
	attrs.HardwareAddr, _ = net.ParseMAC(d.birth)
	attrs.MTU = d.mtu
	parent := 0
	if d.parent != "" {
		on, err := linkByName(h.s.Handle, d.parent)
		if err != nil {
			return err
		}
		parent = on.Attrs().Index
	}
	var link netlink.Link
	switch d.kind {
	case "vlan":
		attrs.ParentIndex = parent
		link = &netlink.Vlan{LinkAttrs: attrs, VlanId: d.vlan}
	case "vxlan":
		v := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: d.vxlan.id, Port: d.vxlan.port, VtepDevIndex: parent, Learning: true}
		if d.vxlan.group.IsValid() {
			v.Group = d.vxlan.group.AsSlice()
		} else if d.vxlan.six {
			v.SrcAddr = net.IPv6unspecified // else the device takes its peers for IPv4
		}
		link = v
	default:
		link = &netlink.Bridge{LinkAttrs: attrs}
	}
	err := h.s.LinkAdd(link)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return lacks(d.kind)
	case errors.Is(err, unix.EEXIST):
		return h.taken(d)
	}
	return err
}

// taken says who has the VLAN or VXLAN that d asked for.
func (h *hand) taken(d device) error {
	links, err := dumpLinks(h.s.Handle)
	if err != nil {
		return err
	}
	other, ok := machine{devices: devices(links, nil)}.find(func(o device) bool {
		return o.name == d.name || o.kind == d.kind && o.vlan == d.vlan && o.vxlan.id == d.vxlan.id && (o.parent == d.parent || d.kind == "vxlan")
	})
	if !ok {
		return errs.E(errs.Conflict, "somebody else has made it")
	}
	whose := "is not ours; join it through a bridge instead"
	if other.alias != "" {
		whose = fmt.Sprintf("has the alias %q", other.alias)
	}
	return errs.E(errs.Conflict, "it exists already as link %s, which %s", other.name, whose)
}

func (h *hand) deleteLink(name string) error {
	err := h.on(name, h.s.LinkDel)
	if isNotFound(err) {
		return nil
	}
	return err
}

func (h *hand) setAlias(name, alias string) error {
	return h.on(name, func(l netlink.Link) error { return h.s.LinkSetAlias(l, alias) })
}

func (h *hand) setMAC(name, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	return h.on(name, func(l netlink.Link) error { return h.s.LinkSetHardwareAddr(l, hw) })
}

func (h *hand) setMTU(name string, mtu int) error {
	return h.on(name, func(l netlink.Link) error { return h.s.LinkSetMTU(l, mtu) })
}

func (h *hand) setMaster(name, bridge string) error {
	return h.on(bridge, func(b netlink.Link) error {
		return h.on(name, func(l netlink.Link) error { return h.s.LinkSetMasterByIndex(l, b.Attrs().Index) })
	})
}

func (h *hand) setUp(name string) error { return h.on(name, h.s.LinkSetUp) }

func (h *hand) addAddr(name string, p netip.Prefix) error {
	return h.on(name, func(l netlink.Link) error { return h.s.AddrAdd(l, toAddr(p)) })
}

func (h *hand) deleteAddr(name string, p netip.Prefix) error {
	return h.on(name, func(l netlink.Link) error { return h.s.AddrDel(l, &netlink.Addr{IPNet: toIPNet(p)}) })
}

// addRoute puts back the route that the kernel made with the address.
func (h *hand) addRoute(name string, p netip.Prefix) error {
	return h.on(name, func(l netlink.Link) error {
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: toIPNet(p.Masked()), Protocol: unix.RTPROT_KERNEL}
		if p.Addr().Is4() {
			r.Src, r.Scope = p.Addr().AsSlice(), netlink.SCOPE_LINK
		} else {
			r.Priority = 256 // IP6_RT_PRIO_ADDRCONF
		}
		return h.s.RouteReplace(r)
	})
}

// peer is an entry of a VXLAN's table that sends what is for nobody known, or
// for all, to a machine.
func peer(link netlink.Link, a netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP | netlink.NUD_PERMANENT,
		Flags: netlink.NTF_SELF, IP: a.AsSlice(), HardwareAddr: make(net.HardwareAddr, 6),
	}
}

func (h *hand) addPeer(name string, a netip.Addr) error {
	return h.on(name, func(l netlink.Link) error { return h.s.NeighAppend(peer(l, a)) })
}

func (h *hand) deletePeer(name string, a netip.Addr) error {
	return h.on(name, func(l netlink.Link) error { return h.s.NeighDel(peer(l, a)) })
}

// modules are the kernel modules that kinds of links come with.
var modules = map[string]struct{ what, module string }{
	"bridge":  {"bridges", "bridge"},
	"vlan":    {"VLANs", "8021q"},
	"vxlan":   {"VXLANs", "vxlan"},
	"macvlan": {"macvlan links", "macvlan"},
	"ipvlan":  {"ipvlan links", "ipvlan"},
	"veth":    {"pairs of links", "veth"},
	"tbf":     {"rate limits", "sch_tbf"},
}

// lacks is the answer of a kernel that does not know a kind of link, and could
// not load it: it has asked modprobe itself by then.
func lacks(kind string) error {
	m := modules[kind]
	return errs.E(errs.Unavailable, "this kernel cannot make %s: load the module %s (modprobe %s), or boot a kernel that has it", m.what, m.module, m.module)
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
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// toAddr is p as an address that is good at once: IPv6 would first ask for two
// seconds whether somebody else has it.
func toAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: toIPNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

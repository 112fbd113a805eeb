package netcfg

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// joint is what a NIC joins on this machine: one of bridge, parent and nic.
type joint struct {
	bridge  string   // its host end is a port of this
	devices []device // which these make, ours alone; none: it is there
	loops   bool     // containers on it may ask for their own published ports

	parent string // or it shares this link,
	child  string // as this kind of link
	mode   string

	nic string // or it is this NIC of the machine's

	mtu  int    // of the NIC; at first the largest that it may have, 0: any
	near string // the MAC of the link that leads to other machines
}

func (j joint) what() string { return cmp.Or(j.parent, j.nic, "what it joins") }

func (j joint) names() (names []string) {
	for _, d := range j.devices {
		names = append(names, d.name)
	}
	return names
}

// want is the part of the host's side that the NIC needs.
func (j joint) want(n *Net) want {
	return want{devices: j.devices, owns: n.ownsNamed, instance: n.cfg.Instance}
}

// veths are made with the MTU that all links of the kind have at first.
const defaultMTU = 1500

// joint says what l joins, and completes its NIC with the uplink it is on.
func (n *Net) joint(s *sock, l *Link) (joint, error) {
	switch l.NIC.Type {
	case NICBridge:
		return n.jointBridge(s, l.NIC)
	case NICVLAN:
		return n.jointVLAN(s, &l.NIC)
	case NICVXLAN:
		return n.jointVXLAN(s, &l.NIC)
	case NICMacvlan, NICIPvlan:
		return n.jointChild(s, &l.NIC)
	case NICPassthrough:
		return joint{nic: l.NIC.ID}, nil
	case NICDefault, NICCNI:
	}
	return joint{bridge: n.cfg.Bridge, loops: true, mtu: defaultMTU}, nil
}

func (n *Net) jointBridge(s *sock, nic NIC) (j joint, err error) {
	link, err := linkByName(s.Handle, nic.ID)
	switch {
	case isNotFound(err):
		return j, errs.E(errs.Invalid, "no bridge %s on this node", nic.ID)
	case err != nil:
		return j, err
	case link.Type() != "bridge":
		return j, errs.E(errs.Invalid, "%s is not a bridge but a link of kind %s", nic.ID, link.Type())
	case n.ownsBridge(link):
		return j, errs.E(errs.Invalid, "bridge %s is the one of default NICs; ask for a NIC of type default", nic.ID)
	case n.otherBridge(link):
		return j, errs.E(errs.Invalid, "bridge %s is another buoy's (%s)", nic.ID, link.Attrs().Alias)
	case n.ownsSegment(link):
		return j, errs.E(errs.Invalid, "bridge %s is made for NICs of type vlan and vxlan; ask for one of these", nic.ID)
	}
	base, _ := cutNote(link.Attrs().Alias)
	mtu, err := n.bridgeMTU(s, link)
	return joint{bridge: nic.ID, loops: base == n.alias()+markNAT, mtu: mtu}, err
}

// bridgeMTU is the least MTU of what connects the bridge to other machines. The
// bridge's own says nothing: it follows that of the smallest container.
func (n *Net) bridgeMTU(s *sock, bridge netlink.Link) (mtu int, err error) {
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return 0, err
	}
	for _, l := range links {
		if _, ours := n.ownsPort(l); l.Attrs().MasterIndex == bridge.Attrs().Index && !ours && (mtu == 0 || l.Attrs().MTU < mtu) {
			mtu = l.Attrs().MTU
		}
	}
	return cmp.Or(mtu, max(bridge.Attrs().MTU, defaultMTU)), nil
}

// uplink is the link that the NIC is to be made on, which is up.
func (n *Net) uplink(s *sock, name string) (netlink.Link, error) {
	name = cmp.Or(name, n.cfg.Uplink)
	var link netlink.Link
	var err error
	if name == "" {
		link, err = defaultLinkOf(s)
	} else {
		link, err = linkByName(s.Handle, name)
	}
	switch {
	case isNotFound(err):
		return nil, errs.E(errs.Invalid, "uplink %s is not on this node", name)
	case err != nil:
		return nil, err
	case link.Attrs().Flags&net.FlagUp == 0 && n.cfg.RaiseUplinks:
		// The machine itself has no part in what goes over it.
		if err := n.writeSysctl("net/ipv6/conf/"+link.Attrs().Name+"/disable_ipv6", "1"); err != nil {
			return nil, err
		}
		return link, s.LinkSetUp(link)
	case link.Attrs().Flags&net.FlagUp == 0:
		return nil, errs.E(errs.Unavailable, "uplink %s is down: ip link set %s up", link.Attrs().Name, link.Attrs().Name)
	}
	return link, nil
}

// defaultLinkOf is the link with the default route.
func defaultLinkOf(s *sock) (netlink.Link, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dumpRoutes(s.Handle, family)
		if err != nil {
			return nil, err
		}
		var best *netlink.Route
		for i, r := range routes {
			if toPrefix(r.Dst).Bits() <= 0 && r.Table == unix.RT_TABLE_MAIN && r.Type == unix.RTN_UNICAST && r.LinkIndex != 0 &&
				(best == nil || r.Priority < best.Priority) {
				best = &routes[i]
			}
		}
		if best != nil {
			return s.LinkByIndex(best.LinkIndex)
		}
	}
	return nil, errs.E(errs.Invalid, "this node has no uplink: no link has the default route, so name one (buoyd --uplink, or uplink in the NIC's config)")
}

// segmentName is a link of ours for a VLAN or VXLAN: bb… its bridge, bl… what
// connects that. No two instances make the same, so that the kernel says it if
// two want the same VLAN.
func (n *Net) segmentName(mark string, nic NIC) string {
	return n.born(mark) + hash(9, n.cfg.Instance, string(nic.Type), nic.ID, nic.Config.Uplink)
}

// segment is the bridge of a VLAN or VXLAN and dev, which connects it. The
// machine itself has no part in it: no IPv6 address, no answers to ARP.
func (n *Net) segment(nic NIC, dev device) []device {
	name := n.segmentName("bb", nic)
	bridge := device{
		name: name, kind: "bridge", birth: n.birthMAC(name).String(), up: true,
		alias: fmt.Sprintf("%s/%s %s on %s", n.alias(), nic.Type, nic.ID, nic.Config.Uplink),
		sysctls: []sysctl{
			{"net/ipv6/conf/" + name + "/disable_ipv6", "1"},
			{"net/ipv4/conf/" + name + "/arp_ignore", "8"}, // not for any address
		},
	}
	dev.name, dev.alias, dev.master, dev.up = n.segmentName("bl", nic), bridge.alias, name, true
	dev.sysctls = []sysctl{{"net/ipv6/conf/" + dev.name + "/disable_ipv6", "1"}}
	return []device{bridge, dev}
}

func (n *Net) jointVLAN(s *sock, nic *NIC) (j joint, err error) {
	up, err := n.uplink(s, nic.Config.Uplink)
	if err != nil {
		return j, fmt.Errorf("%s: %w", *nic, err)
	}
	a := up.Attrs()
	nic.Config.Uplink = a.Name
	if nic.ID == "0" {
		if up.Type() == "bridge" {
			mtu, err := n.bridgeMTU(s, up)
			return joint{bridge: a.Name, mtu: mtu, near: a.HardwareAddr.String()}, err
		}
		return joint{parent: a.Name, child: "macvlan", mode: "bridge", mtu: a.MTU, near: a.HardwareAddr.String()}, nil
	}
	id, err := strconv.Atoi(nic.ID)
	if err != nil {
		return j, err
	}
	devices := n.segment(*nic, device{kind: "vlan", parent: a.Name, vlan: id, mtu: a.MTU})
	return joint{bridge: devices[0].name, devices: devices, mtu: a.MTU, near: a.HardwareAddr.String()}, nil
}

// What VXLAN puts around a packet.
const (
	vxlanOver4 = 50
	vxlanOver6 = 70
	vxlanPort  = 4789 // IANA's
)

func (n *Net) jointVXLAN(s *sock, nic *NIC) (j joint, err error) {
	up, err := n.uplink(s, nic.Config.Uplink)
	if err != nil {
		return j, fmt.Errorf("%s: %w", *nic, err)
	}
	a := up.Attrs()
	nic.Config.Uplink = a.Name
	id, err := strconv.Atoi(nic.ID)
	if err != nil {
		return j, err
	}
	c := nic.Config
	v := vxlan{id: id, port: cmp.Or(int(c.Port), vxlanPort), group: c.Group}
	v.six = v.group.Is6() || len(c.Peers) > 0 && c.Peers[0].Is6()
	mtu := a.MTU - vxlanOver4
	if v.six {
		mtu = a.MTU - vxlanOver6
	}
	devices := n.segment(*nic, device{kind: "vxlan", parent: a.Name, vxlan: v, mtu: mtu, peers: c.Peers})
	return joint{bridge: devices[0].name, devices: devices, mtu: mtu, near: a.HardwareAddr.String()}, nil
}

func (n *Net) jointChild(s *sock, nic *NIC) (j joint, err error) {
	on, err := n.uplink(s, nic.ID)
	if err != nil {
		return j, fmt.Errorf("%s: %w", *nic, err)
	}
	a := on.Attrs()
	nic.ID = a.Name
	modes := map[NICType]string{NICMacvlan: "bridge", NICIPvlan: "l2"}
	j = joint{parent: a.Name, child: string(nic.Type), mode: cmp.Or(nic.Config.Mode, modes[nic.Type]), mtu: a.MTU, near: a.HardwareAddr.String()}
	return j, nil
}

// checkKernel asks for links that lack what they need: a kernel that knows the
// kind says so, having made none.
func (n *Net) checkKernel(s *sock, j joint) error {
	kinds := []string{j.child}
	for _, d := range j.devices {
		if d.kind != "bridge" { // one without anything is a whole one
			kinds = append(kinds, d.kind)
		}
	}
	for _, kind := range slices.DeleteFunc(kinds, func(k string) bool { return k == "" }) {
		if err := s.probe(kind); errors.Is(err, unix.EOPNOTSUPP) {
			return lacks(kind)
		}
	}
	return nil
}

package netcfg

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// readMachine reads what plan has to know for w, of all links and routes.
func (n *Net) readMachine(s *sock, w want) (m machine, err error) {
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return m, err
	}
	addrs, err := dumpAddrs(s.Handle, nil)
	if err != nil {
		return m, err
	}
	m.devices = devices(links, addrs)
	if m.routes, err = readRoutes(s, links); err != nil {
		return m, err
	}
	if m.noted, err = n.readNote(); err != nil {
		return m, err
	}
	names := []string{forward4, forward6}
	var mayLearn []string
	for _, l := range links {
		if n.otherBridge(l) {
			_, said := cutNote(l.Attrs().Alias)
			m.others = m.others.with(said)
			m.inUse[0] = true
			m.inUse[1] = m.inUse[1] || slices.ContainsFunc(m.devices[l.Attrs().Name].addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
		}
		if w.v6 && n.mayLearn(l) {
			mayLearn = append(mayLearn, l.Attrs().Name)
			names = append(names, acceptRA(l.Attrs().Name))
		}
	}
	for _, l := range m.noted.ra {
		names = append(names, acceptRA(l))
	}
	for _, d := range w.devices {
		for _, c := range d.sysctls {
			names = append(names, c.name)
		}
	}
	if m.sysctls, err = n.sysctls(names...); err != nil {
		return m, err
	}
	for _, l := range mayLearn {
		if m.sysctls[acceptRA(l)] == "1" {
			m.learns = append(m.learns, l)
		}
	}
	return m, nil
}

// mayLearn says whether the machine could have IPv6 routes from routers over
// the link.
func (n *Net) mayLearn(link netlink.Link) bool {
	a := link.Attrs()
	_, port := n.ownsPort(link)
	return a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && a.MasterIndex == 0 &&
		!port && !n.ownsBridge(link) && !n.ownsMade(link) && !n.ownsSegment(link)
}

func readRoutes(s *sock, links []netlink.Link) (list []route, err error) {
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dumpRoutes(s.Handle, family)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			p := toPrefix(r.Dst)
			if r.Table == unix.RT_TABLE_LOCAL || r.Type != unix.RTN_UNICAST || !p.IsValid() || p.Addr().IsLinkLocalUnicast() || p.Addr().IsMulticast() {
				continue
			}
			list = append(list, route{p, names[r.LinkIndex], r.Table == unix.RT_TABLE_MAIN})
		}
	}
	return list, nil
}

// readDevices reads links by their names, and the sysctls and peers that want
// speaks of: enough for a segment without addresses of its own.
func (n *Net) readDevices(s *sock, w want) (m machine, err error) {
	var names, sysctls []string
	for _, d := range w.devices {
		names = append(names, d.name, d.parent, d.master)
		for _, c := range d.sysctls {
			sysctls = append(sysctls, c.name)
		}
	}
	slices.Sort(names)
	var links []netlink.Link
	for _, name := range slices.Compact(names) {
		if name == "" {
			continue
		}
		l, err := linkByName(s.Handle, name)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return m, err
		}
		links = append(links, l)
	}
	m.devices = devices(links, nil)
	for _, d := range w.devices {
		if h, there := m.devices[d.name]; there && !sameMake(d, h) { // who else would lose it
			if links, err = dumpLinks(s.Handle); err != nil {
				return m, err
			}
			m.devices = devices(links, nil)
			break
		}
	}
	for _, d := range w.devices {
		h, there := m.devices[d.name]
		if d.kind != "vxlan" || !there {
			continue
		}
		if h.peers, err = dumpPeers(s.Handle, indexOf(links, d.name)); err != nil {
			return m, err
		}
		h.vxlan.six = h.vxlan.six || slices.ContainsFunc(h.peers, netip.Addr.Is6)
		m.devices[d.name] = h
	}
	m.sysctls, err = n.sysctls(sysctls...)
	return m, err
}

func indexOf(links []netlink.Link, name string) int {
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name })
	return links[i].Attrs().Index
}

// devices are links as plan sees them. What is not among them goes by its number.
func devices(links []netlink.Link, addrs []netlink.Addr) map[string]device {
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	name := func(index int) string {
		if s, ok := names[index]; ok || index == 0 {
			return s
		}
		return fmt.Sprint("#", index)
	}
	byIndex := map[int][]netip.Prefix{}
	for _, a := range addrs {
		if p := toPrefix(a.IPNet); !p.Addr().Is6() || !p.Addr().IsLinkLocalUnicast() {
			byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], p)
		}
	}
	all := map[string]device{}
	for _, l := range links {
		a := l.Attrs()
		d := device{
			name: a.Name, kind: l.Type(), alias: a.Alias, mac: a.HardwareAddr.String(), mtu: a.MTU,
			up: a.Flags&net.FlagUp != 0, master: name(a.MasterIndex), addrs: byIndex[a.Index],
		}
		switch l := l.(type) {
		case *netlink.Vlan:
			d.vlan, d.parent = l.VlanId, name(a.ParentIndex)
		case *netlink.Vxlan:
			group, _ := netip.AddrFromSlice(l.Group)
			local, _ := netip.AddrFromSlice(l.SrcAddr)
			d.vxlan = vxlan{id: l.VxlanId, port: l.Port, group: group.Unmap(), six: group.Unmap().Is6() || local.Unmap().Is6()}
			d.parent = name(l.VtepDevIndex)
		}
		all[a.Name] = d
	}
	return all
}

// find is the first device, by name, that fits.
func (m machine) find(fits func(device) bool) (device, bool) {
	for _, name := range m.names() {
		if d := m.devices[name]; fits(d) {
			return d, true
		}
	}
	return device{}, false
}

func (m machine) names() []string { return slices.Sorted(maps.Keys(m.devices)) }

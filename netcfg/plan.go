package netcfg

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/buoy-edge/buoy/internal/errs"
)

// device is a link of the machine: as it should be, or as it is. In one that
// should be, what is zero may be anything.
type device struct {
	name   string
	kind   string // as the kernel calls it: "bridge", "vlan", "vxlan"
	birth  string // the MAC that it is made with, until it bears the alias
	alias  string
	mac    string
	mtu    int
	up     bool
	master string // the bridge that it is a port of
	parent string // the link that it is on
	vlan   int
	vxlan  vxlan

	addrs   []netip.Prefix // of a bridge: these and no others, but link-local ones
	peers   []netip.Addr   // of a VXLAN
	former  []netip.Addr   // peers that nobody wants any more
	sysctls []sysctl
	noted   bool // its alias says what the machine did not forward before us
}

// vxlan is what makes a VXLAN device the one it is.
type vxlan struct {
	id    int
	port  int
	group netip.Addr // zero: peers are listed
	six   bool       // its packets are IPv6
}

// sysctl is a file below /proc/sys, which may have dots in its name, and its content.
type sysctl struct{ name, value string }

// want is the host's side of the network, or the part of it that a NIC needs.
type want struct {
	devices []device          // in the order to make them in
	gone    []string          // links of ours that should not be there
	owns    func(device) bool // whether a device of a wanted name is ours
	// reserved are the networks of the default bridge, reservedBy, also while
	// that is not there.
	reserved   []netip.Prefix
	reservedBy string
	instance   string
	self       string // the port that all this is for
	switches   bool   // v4 and v6 say what to do, else they stay
	v4, v6     bool   // the machine forwards packets
}

// machine is what the machine has, as far as a want is concerned.
type machine struct {
	devices map[string]device
	routes  []route
	sysctls map[string]string // by name; one that is not there has no entry
	learns  []string          // links that learn IPv6 routes from routers, while nothing is forwarded
	noted   note              // what we wrote down in this boot
	others  note              // what other instances say on their bridges
	inUse   [2]bool           // other instances need the machine to forward IPv4, IPv6
}

type route struct {
	to   netip.Prefix
	link string
	main bool // in the main table
}

// step is one change.
type step struct {
	text string
	do   func(*hand) error
}

func (s step) String() string { return s.text }

// plan says how to get from have to w. It is a pure function: the same want on
// what it made plans nothing.
//
// errs.Conflict: a network or a name is somebody else's. Nothing is done then.
func plan(w want, have machine) ([]step, error) {
	p := &planner{want: w, have: have, note: have.noted}
	if w.switches {
		p.note = p.noteOf()
	}
	for _, name := range w.gone {
		if _, there := have.devices[name]; there {
			p.add((*hand).deleteLink, name, "link del %s", name)
		}
	}
	for _, d := range w.devices {
		if err := p.device(d); err != nil {
			return nil, err
		}
	}
	if w.switches {
		p.forward()
	}
	return p.steps, nil
}

type planner struct {
	want  want
	have  machine
	note  note // what will be written down
	steps []step
}

func (p *planner) do(do func(*hand) error, format string, args ...any) {
	p.steps = append(p.steps, step{fmt.Sprintf(format, args...), do})
}

// add is do for what a hand does to a link.
func (p *planner) add(do func(*hand, string) error, name, format string, args ...any) {
	p.do(func(h *hand) error { return do(h, name) }, format, args...)
}

func (p *planner) device(d device) error {
	h, there := p.have.devices[d.name]
	if there && !p.want.owns(h) {
		return errs.E(errs.Conflict, "interface %s exists and is not the bridge of instance %s (alias %q); choose another bridge name or remove it",
			d.name, p.want.instance, h.alias)
	}
	if there && !sameMake(d, h) {
		for _, other := range p.have.devices {
			if other.master == h.master && other.name != h.name && other.name != p.want.self && h.master != "" {
				return errs.E(errs.Conflict, "other containers use it as %q; this one asks for %q", h.describe(), d.describe())
			}
		}
		p.add((*hand).deleteLink, d.name, "link del %s", d.name)
		there, h = false, device{}
	}
	if err := p.overlaps(d, h); err != nil {
		return err
	}
	if !there {
		h = device{name: d.name, mac: d.birth, mtu: d.mtu}
		p.do(func(hd *hand) error { return hd.addLink(d) }, "link add %s type %s%s", d.name, d.describe(), withMTU(d.mtu))
	}
	p.link(d, h)
	p.addrs(d, h)
	p.peers(d, h)
	return nil
}

func withMTU(mtu int) string {
	if mtu == 0 {
		return ""
	}
	return fmt.Sprint(" mtu ", mtu)
}

// sameMake says whether h is what d asks for as far as it cannot be changed.
func sameMake(d, h device) bool {
	return d.kind == h.kind && d.parent == h.parent && d.vlan == h.vlan && d.vxlan == h.vxlan
}

// describe says what the device is made as.
func (d device) describe() string {
	s := d.kind
	if d.birth != "" {
		s += " address " + d.birth
	}
	if d.kind == "vlan" {
		s += fmt.Sprintf(" id %d", d.vlan)
	}
	if d.kind == "vxlan" {
		s += fmt.Sprintf(" id %d dstport %d", d.vxlan.id, d.vxlan.port)
		if d.vxlan.group.IsValid() {
			s += " group " + d.vxlan.group.String()
		}
		if d.vxlan.six {
			s += " over IPv6"
		}
	}
	if d.parent != "" {
		s += " on " + d.parent
	}
	return s
}

// link plans what a link has besides addresses.
func (p *planner) link(d, h device) {
	alias := d.alias
	if d.noted {
		alias += p.note.String()
	}
	if alias != "" && alias != h.alias {
		p.add(func(hd *hand, name string) error { return hd.setAlias(name, alias) }, d.name, "link set %s alias %q", d.name, alias)
	}
	for _, s := range d.sysctls {
		if have, there := p.have.sysctls[s.name]; h.kind != "" && have == s.value || h.kind != "" && !there {
			continue
		}
		p.sysctl(s.name, s.value)
	}
	if d.mac != "" && d.mac != h.mac {
		p.add(func(hd *hand, name string) error { return hd.setMAC(name, d.mac) }, d.name, "link set %s address %s", d.name, d.mac)
	}
	if d.mtu != 0 && d.mtu != h.mtu {
		p.add(func(hd *hand, name string) error { return hd.setMTU(name, d.mtu) }, d.name, "link set %s mtu %d", d.name, d.mtu)
	}
	if d.master != "" && d.master != h.master {
		p.add(func(hd *hand, name string) error { return hd.setMaster(name, d.master) }, d.name, "link set %s master %s", d.name, d.master)
	}
	if d.up && !h.up {
		p.add((*hand).setUp, d.name, "link set %s up", d.name)
	}
}

// addrs leaves the wanted addresses on a bridge, and the routes that come with them.
func (p *planner) addrs(d, h device) {
	if d.kind != "bridge" {
		return
	}
	for _, a := range h.addrs {
		if !slices.Contains(d.addrs, a) {
			p.add(func(hd *hand, name string) error { return hd.deleteAddr(name, a) }, d.name, "addr del %s dev %s", a, d.name)
		}
	}
	for _, a := range d.addrs {
		if !slices.Contains(h.addrs, a) {
			p.add(func(hd *hand, name string) error { return hd.addAddr(name, a) }, d.name, "addr add %s dev %s", a, d.name)
			continue
		}
		if !slices.Contains(p.have.routes, route{a.Masked(), d.name, true}) && !a.IsSingleIP() && h.up {
			p.add(func(hd *hand, name string) error { return hd.addRoute(name, a) }, d.name, "route add %s dev %s src %s", a.Masked(), d.name, a.Addr())
		}
	}
}

func (p *planner) peers(d, h device) {
	for _, a := range d.peers {
		if !slices.Contains(h.peers, a) {
			p.add(func(hd *hand, name string) error { return hd.addPeer(name, a) }, d.name, "fdb append 00:00:00:00:00:00 dev %s dst %s", d.name, a)
		}
	}
	for _, a := range d.former {
		if slices.Contains(h.peers, a) && !slices.Contains(d.peers, a) {
			p.add(func(hd *hand, name string) error { return hd.deletePeer(name, a) }, d.name, "fdb del 00:00:00:00:00:00 dev %s dst %s", d.name, a)
		}
	}
}

// overlaps refuses networks for d that others use: containers would cut the
// machine off from what is there, or never reach it. What d has already stays.
func (p *planner) overlaps(d, h device) error {
	for _, a := range d.addrs {
		net := a.Masked()
		if slices.Contains(h.addrs, a) {
			continue
		}
		refuse := func(what string, p netip.Prefix, of string) error {
			return errs.E(errs.Conflict, "container network %s overlaps the %s %s of %s; choose another prefix", net, what, p, of)
		}
		for _, name := range p.have.names() {
			for _, other := range p.have.devices[name].addrs {
				if name != d.name && !slices.Contains(p.want.gone, name) && net.Overlaps(other) {
					return refuse("address", other, name)
				}
			}
		}
		for _, r := range p.have.routes {
			// Half of everything, as VPNs spell their default route, is no network.
			if r.link != d.name && r.link != "" && !slices.Contains(p.want.gone, r.link) && r.to.Bits() > 1 && net.Overlaps(r.to) {
				return refuse("route", r.to, r.link)
			}
		}
		for _, other := range p.want.devices {
			for _, b := range other.addrs {
				if other.name != d.name && net.Overlaps(b) {
					return refuse("address", b, other.name)
				}
			}
		}
		for _, r := range p.want.reserved {
			if d.name != p.want.reservedBy && net.Overlaps(r) {
				return refuse("network", r, "containers with a default NIC")
			}
		}
	}
	return nil
}

func (p *planner) sysctl(name, value string) {
	p.do(func(h *hand) error { return h.n.writeSysctl(name, value) }, "sysctl %s=%s", name, value)
}

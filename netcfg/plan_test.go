package netcfg

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A plan is shown as text: what is wanted, what is there, what is done.
func TestPlanGolden(t *testing.T) {
	n, err := New(Config{Instance: "t1", StateDir: "/run/x"})
	if err != nil {
		t.Fatal(err)
	}
	six, err := New(Config{Instance: "t1", StateDir: "/run/x", Prefix6: prefix("fd18::/64")})
	if err != nil {
		t.Fatal(err)
	}
	uplink := device{name: "eth1", kind: "device", mac: "02:00:00:00:00:01", mtu: 9000, up: true, addrs: []netip.Prefix{prefix("192.0.2.1/24")}}
	bare := machine{devices: map[string]device{"eth1": uplink}, sysctls: map[string]string{forward4: "0", forward6: "0", acceptRA("eth1"): "1"}, learns: []string{"eth1"}}
	host := func(n *Net, useDefault bool, bridges ...Bridge) want {
		n.useDefault.Store(useDefault)
		n.bridges = bridges
		return n.wanted()
	}
	vlan := func(id string) want {
		nic := NIC{Type: NICVLAN, ID: id, Config: NICConfig{Uplink: "eth1"}}
		number, _ := strconv.Atoi(id)
		return joint{devices: n.segment(nic, device{kind: "vlan", parent: "eth1", vlan: number, mtu: 9000})}.want(n)
	}
	vx := func(v vxlan, peers, former []string) want {
		nic := NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Uplink: "eth1"}}
		d := device{kind: "vxlan", parent: "eth1", vxlan: v, mtu: 8950, peers: addrs(peers...), former: addrs(former...)}
		return joint{devices: n.segment(nic, d)}.want(n)
	}
	nat := Bridge{Name: "br1", Mode: BridgeStatic, NAT: true, Prefix: prefix("10.1.0.1/24"), HWAddr: "02:00:00:00:00:11"}
	plain := Bridge{Name: "br2", Mode: BridgeNone}
	with := func(m machine, edit func(*machine)) machine {
		m.devices, m.sysctls = maps.Clone(m.devices), maps.Clone(m.sysctls)
		edit(&m)
		return m
	}
	change := func(m machine, name string, edit func(*device)) machine {
		return with(m, func(m *machine) {
			d := m.devices[name]
			edit(&d)
			m.devices[name] = d
		})
	}
	made := with(after(host(n, true), bare), func(m *machine) { m.noted = note{v4: true} })
	madeVLAN := after(vlan("100"), bare)
	bl := vlan("100").devices[1].name
	bx := vx(vxlan{}, nil, nil).devices[1].name
	four := vxlan{id: 7, port: 4789}
	madeVXLAN := after(vx(four, []string{"192.0.2.2", "192.0.2.3"}, nil), bare)

	cases := []struct {
		name string
		want want
		have machine
	}{
		{"default bridge", host(n, true), bare},
		{"default bridge, forwarded already", host(n, true), with(bare, func(m *machine) { m.sysctls[forward4] = "1" })},
		{"default bridge, another instance turned forwarding on", host(n, true), with(bare, func(m *machine) {
			m.sysctls[forward4], m.others, m.inUse[0] = "1", note{v4: true}, true
		})},
		{"default bridge with IPv6", host(six, true), bare},
		{"default bridge, half-made", host(n, true), with(bare, func(m *machine) {
			m.devices["buoy0"] = device{name: "buoy0", kind: "bridge", mac: n.birthMAC("buoy0").String()}
		})},
		{"default bridge, all wrong", host(n, true), change(made, "buoy0", func(d *device) {
			d.up, d.mac, d.alias, d.addrs = false, "02:00:00:00:00:07", "buoy:t1", []netip.Prefix{prefix("10.3.0.1/24")}
		})},
		{"default bridge, its route is gone", host(n, true), with(made, func(m *machine) { m.routes = nil })},
		{"default bridge's name is taken", host(n, true), with(bare, func(m *machine) { m.devices["buoy0"] = device{name: "buoy0", kind: "bridge", alias: "mine"} })},
		{"an address overlaps", host(n, true), change(bare, "eth1", func(d *device) { d.addrs = []netip.Prefix{prefix("172.18.5.1/24")} })},
		{"a route overlaps", host(n, true), with(bare, func(m *machine) { m.routes = []route{{prefix("172.16.0.0/12"), "eth1", false}} })},
		{"default and half routes do not overlap", host(n, true), with(bare, func(m *machine) {
			m.routes = []route{{prefix("0.0.0.0/0"), "eth1", true}, {prefix("128.0.0.0/1"), "eth1", true}, {prefix("172.16.0.0/12"), "", true}}
		})},
		{"bridges of the API", host(n, false, nat, plain), bare},
		{"bridges of the API overlap", host(n, false, nat, Bridge{Name: "br3", Mode: BridgeStatic, Prefix: prefix("10.1.0.129/25")}), bare},
		{"a bridge of the API overlaps default NICs", host(n, false, Bridge{Name: "br3", Mode: BridgeStatic, Prefix: prefix("172.18.0.1/16")}), bare},
		{"the default bridge goes", with2(host(n, false), "buoy0"), made},
		{"the default bridge goes, another instance forwards", with2(host(n, false), "buoy0"), with(made, func(m *machine) { m.inUse[0] = true })},
		{"IPv6 goes", host(n, true), with(after(host(six, true), bare), func(m *machine) {
			m.noted, m.learns = note{v4: true, v6: true, ra: []string{"eth1", "gone0"}}, nil
		})},
		{"VLAN", vlan("100"), bare},
		{"VLAN, the uplink's MTU changed", vlan("100"), change(madeVLAN, bl, func(d *device) { d.mtu = 1500 })},
		{"VLAN, its link was deleted", vlan("100"), with(madeVLAN, func(m *machine) { delete(m.devices, bl) })},
		{"VLAN, off its bridge and down", vlan("100"), change(madeVLAN, bl, func(d *device) { d.master, d.up = "", false })},
		{"VLAN, a crash before the alias", vlan("100"), change(madeVLAN, bl, func(d *device) { d.alias, d.master, d.up = "", "", false })},
		{"VLAN, another one's link", vlan("100"), change(madeVLAN, bl, func(d *device) { d.alias = "somebody's" })},
		{"VXLAN with peers", vx(four, []string{"192.0.2.2", "192.0.2.3"}, nil), bare},
		{"VXLAN with a group", vx(vxlan{id: 7, port: 8472, group: addrs("239.1.1.1")[0]}, nil, nil), bare},
		{"VXLAN over IPv6", vx(vxlan{id: 7, port: 4789, six: true}, []string{"fd77::2"}, nil), bare},
		{"VXLAN, peers change", vx(four, []string{"192.0.2.3", "192.0.2.4"}, []string{"192.0.2.2"}), madeVXLAN},
		{"VXLAN, another port, nobody on it", vx(vxlan{id: 7, port: 8472}, []string{"192.0.2.2"}, nil), madeVXLAN},
		{"VXLAN, another port, somebody on it", vx(vxlan{id: 7, port: 8472}, []string{"192.0.2.2"}, nil), with(madeVXLAN, func(m *machine) {
			m.devices["bvx"] = device{name: "bvx", kind: "veth", master: m.devices[bx].master}
		})},
	}
	var out strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&out, "## %s\n", c.name)
		steps, err := plan(c.want, c.have)
		for _, s := range steps {
			fmt.Fprintln(&out, s)
		}
		if err != nil {
			fmt.Fprintln(&out, "refused:", err)
		}
		if len(steps) == 0 && err == nil {
			fmt.Fprintln(&out, "nothing to do")
		}
		fmt.Fprintln(&out)
	}
	if *update {
		if err := os.WriteFile("testdata/plan.golden", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile("testdata/plan.golden")
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(golden) {
		t.Errorf("testdata/plan.golden differs:\n%s", diff(out.String(), string(golden)))
	}
	// What was made is as it is wanted.
	for name, c := range map[string]struct {
		want want
		have machine
	}{
		"default": {host(n, true), made}, "VLAN": {vlan("100"), madeVLAN}, "VXLAN": {vx(four, []string{"192.0.2.3"}, nil), madeVXLAN},
		"bridges": {host(n, false, nat, plain), with(after(host(n, false, nat, plain), bare), func(m *machine) { m.noted = note{v4: true} })},
	} {
		if steps, err := plan(c.want, c.have); err != nil || len(steps) > 0 {
			t.Errorf("%s: the same again plans %v, %v", name, steps, err)
		}
	}
}

func with2(w want, gone ...string) want {
	w.gone = gone
	return w
}

// after is the machine once w has been made on it.
func after(w want, m machine) machine {
	out := machine{devices: maps.Clone(m.devices), sysctls: maps.Clone(m.sysctls), noted: m.noted}
	for _, d := range w.devices {
		for _, s := range d.sysctls {
			out.sysctls[s.name] = s.value
		}
		if d.noted {
			d.alias += note{v4: w.v4, v6: w.v6, ra: map[bool][]string{true: m.learns}[w.v6]}.String()
		}
		if d.mac == "" {
			d.mac = d.birth
		}
		for _, a := range d.addrs {
			out.routes = append(out.routes, route{a.Masked(), d.name, true})
		}
		out.devices[d.name] = d
	}
	for name, on := range map[string]bool{forward4: w.v4, forward6: w.v6} {
		if on {
			out.sysctls[name] = "1"
		}
	}
	if w.v6 {
		out.sysctls[acceptRA("eth1")] = "2"
	}
	return out
}

func TestNote(t *testing.T) {
	for _, tt := range []struct {
		n    note
		want string
	}{
		{note{}, ""},
		{note{v4: true}, " (ip_forward was 0)"},
		{note{v6: true}, " (ipv6 forwarding was 0)"},
		{note{v4: true, v6: true, ra: []string{"eth0", "wlan0"}}, " (ip_forward was 0; ipv6 forwarding was 0; accept_ra was 1: eth0 wlan0)"},
	} {
		got := tt.n.String()
		base, back := cutNote("buoy:t1" + got)
		if got != tt.want || base != "buoy:t1" || !back.equal(tt.n) {
			t.Errorf("%+v: %q, read back as %q %+v", tt.n, got, base, back)
		}
	}
	long := note{v6: true}
	for i := range 40 {
		long.ra = append(long.ra, fmt.Sprint("verylongname", i))
	}
	if s := "buoy:instance/nat" + long.String(); len(s) > 255 {
		t.Errorf("%d characters do not fit into an alias", len(s))
	}
}

// Names tell whose a link is, and never claim another's.
func TestMarks(t *testing.T) {
	n, err := New(Config{Instance: "t1", StateDir: "/run/x"})
	if err != nil {
		t.Fatal(err)
	}
	link := func(kind, name, alias, mac string) netlink.Link {
		a := netlink.LinkAttrs{Name: name, Alias: alias}
		if kind == "bridge" {
			b := &netlink.Bridge{LinkAttrs: a}
			b.HardwareAddr = []byte(mac)
			return b
		}
		return &netlink.Veth{LinkAttrs: a}
	}
	for _, tt := range []struct {
		link netlink.Link
		want string
	}{
		{link("veth", "x", "buoy:t1:web", ""), "port {web 0}"},
		{link("veth", "x", "buoy:t1/1:web", ""), "port {web 1}"},
		{link("veth", "x", "buoy:t1/12:a:b", ""), "port {a:b 12}"},
		{link("veth", n.portName("web", 0), "", ""), "port { 0}"},
		{link("veth", n.portName("web", 0), "buoy:t2:web", ""), ""},
		{link("veth", "x", "buoy:t11:web", ""), ""},
		{link("veth", "x", "buoy:t11/1:web", ""), ""},
		{link("veth", "x", "buoy:t1", ""), ""},
		{link("bridge", "x", "buoy:t1", ""), "default"},
		{link("bridge", "x", "buoy:t1 (ip_forward was 0)", ""), "default"},
		{link("bridge", "x", "buoy:t11", ""), "other"},
		{link("bridge", "x", "buoy:t2 (ip_forward was 0)", ""), "other"},
		{link("bridge", "x", "buoy:t2/nat", ""), "other"},
		{link("bridge", "x", "buoy:t2/bridge", ""), ""},
		{link("bridge", "x", "buoy:t1/bridge", ""), "made"},
		{link("bridge", "x", "buoy:t1/nat (ip_forward was 0)", ""), "made"},
		{link("bridge", "x", "", string(n.birthMAC("x"))), "default"},
		{link("bridge", "y", "", string(n.birthMAC("x"))), ""},
		{link("bridge", "x", "buoy:t1/vlan 7 on eth1", ""), "segment"},
		{link("bridge", "x", "buoy:t11/vlan 7 on eth1", ""), ""},
		{link("veth", n.segmentName("bl", NIC{}), "", ""), "segment"},
		{link("veth", "eth1", "buoy:t1/passthrough eth1", ""), ""},
		{link("veth", "eth1", "", ""), ""},
	} {
		var got []string
		if of, ours := n.ownsPort(tt.link); ours {
			got = append(got, fmt.Sprintf("port %v", struct {
				string
				int
			}{of.container, of.index}))
		}
		for what, is := range map[string]bool{"default": n.ownsBridge(tt.link), "made": n.ownsMade(tt.link), "segment": n.ownsSegment(tt.link), "other": n.otherBridge(tt.link)} {
			if is {
				got = append(got, what)
			}
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s %+v: %q, want %q", tt.link.Type(), tt.link.Attrs().Alias, s, tt.want)
		}
	}
	seen := map[string]bool{}
	for _, c := range []string{"a", "b"} {
		for i := range 3 {
			name := n.portName(c, i)
			if seen[name] || len(name) > 15 {
				t.Errorf("name %s", name)
			}
			seen[name] = true
		}
	}
	if name := n.segmentName("bb", NIC{Type: NICVLAN, ID: "4094", Config: NICConfig{Uplink: "fifteenletters1"}}); len(name) > 15 {
		t.Errorf("name %s", name)
	}
}

package netcfg

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

// each runs f for host and namespace, in a world where eth0 has the default route.
func withUplink(t *testing.T) *world {
	w := newWorld(t)
	w.sh(t, w.host, "ip route add default via 192.0.2.2")
	w.sh(t, w.client, "ip addr add fd77::2/64 dev eth0 nodad")
	return w
}

func TestMacvlan(t *testing.T) {
	w := withUplink(t)
	n := w.net(t)
	before := w.state(t)
	nic := NIC{Type: NICMacvlan, HWAddr: "02:00:5e:10:00:01"}
	a := nicLink("a", nic, "192.0.2.50/24", "fd77::50/64")
	a.Gateways = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	b := nicLink("b", NIC{Type: NICMacvlan, ID: "eth0"}, "192.0.2.51/24")
	for _, l := range []Link{a, b} {
		if err := n.CheckLink(l); err != nil {
			t.Fatal(err)
		}
	}
	nsA, nsB := joinNS(t, n, a), joinNS(t, n, b)
	reaches(t, nsA.Path(), "192.0.2.2")
	reaches(t, nsA.Path(), "fd77::2")
	reaches(t, nsA.Path(), "192.0.2.51")
	reaches(t, w.client, "192.0.2.51")
	cutOff(t, nsA.Path(), "192.0.2.1") // the machine itself: as macvlan is
	if got := w.look(t, nsA.Path(), "eth0"); got.MAC != nic.HWAddr || got.MTU != 1500 || got.Info.Data.Mode != "bridge" {
		t.Errorf("%+v", got)
	}
	if after := w.state(t); after != before {
		t.Errorf("the host changed:\n%s", diff(after, before))
	}
	attach(t, n, nsA, a)
	detach(t, n, nsA.Path(), a)
	detach(t, n, nsA.Path(), a)
	if w.look(t, nsA.Path(), "eth0") != nil {
		t.Error("still there")
	}
	nsB.Close()
	detach(t, n, "", b)
	empty(t, n.cfg.StateDir)
}

func TestMacvlanModes(t *testing.T) {
	w := withUplink(t)
	n := w.net(t)
	ns := newNS(t)
	l := nicLink("a", NIC{Type: NICMacvlan, ID: "eth0", Config: NICConfig{Mode: "private", MTU: 1400}}, "192.0.2.50/24")
	for _, mode := range []string{"private", "vepa", "bridge", ""} {
		l.NIC.Config.Mode = mode
		if err := n.Attach(t.Context(), ns, l); err != nil {
			t.Fatal(err)
		}
		got := w.look(t, ns, "eth0")
		if want := strings.ReplaceAll("x"+mode, "x", ""); got.Info.Data.Mode != want && mode != "" || mode == "" && got.Info.Data.Mode != "bridge" || got.MTU != 1400 {
			t.Errorf("%s: %+v", mode, got)
		}
	}
	l.NIC.Config.MTU = 1501
	refused(t, n.CheckLink(l), errs.Invalid, "MTU 1501 is more than the 1500 of eth0")
	l.NIC.Config.MTU = 1400
	l.NIC.ID, l.NIC.Config.Mode = "nope", ""
	refused(t, n.CheckLink(l), errs.Invalid, "uplink nope is not on this node")
	w.sh(t, w.host, "ip link add br7 type bridge; ip link set br7 up; ip link add port7 type veth peer name peer7; ip link set port7 up master br7")
	l.NIC.ID = "port7"
	l.Container = "other"
	l.Addrs = []netip.Prefix{prefix("192.0.2.60/24")}
	refused(t, n.Attach(t.Context(), newNS(t), l), errs.Conflict, "is a port of a bridge")
	w.sh(t, w.host, "ip link set eth0 down")
	l.NIC.ID = "eth0"
	refused(t, n.CheckLink(l), errs.Unavailable, "uplink eth0 is down")
	n.cfg.RaiseUplinks = true
	if err := n.CheckLink(l); err != nil {
		t.Error(err)
	}
	w.sh(t, w.host, `ip link show dev eth0 up | grep -q eth0; test -z "$(ip -6 addr show dev eth0)"`)
}

// The untagged network: beside the machine on its uplink, or on its bridge.
func TestVLAN0(t *testing.T) {
	for _, bridged := range []bool{false, true} {
		t.Run(fmt.Sprint("bridge=", bridged), func(t *testing.T) {
			w := withUplink(t)
			if bridged {
				w.sh(t, w.host, `ip link add lan type bridge; ip link set lan up; ip addr flush dev eth0; ip link set eth0 master lan
ip addr add 192.0.2.1/24 dev lan; ip route add default via 192.0.2.2; ip link show lan`)
			}
			n := w.net(t)
			before := w.state(t)
			l := nicLink("a", NIC{Type: NICVLAN, ID: "0"}, "192.0.2.50/24")
			ns := joinNS(t, n, l)
			reaches(t, ns.Path(), "192.0.2.2")
			reaches(t, w.host, "192.0.2.2")
			if got := ping(t, ns.Path(), "192.0.2.1", 64); got != bridged {
				t.Errorf("the machine answers: %v", got)
			}
			detach(t, n, ns.Path(), l)
			w.back(t, before)
			empty(t, n.cfg.StateDir)
		})
	}
}

func TestVLANNeedsItsModule(t *testing.T) {
	w := withUplink(t)
	n := w.net(t)
	before := w.state(t)
	for typ, module := range map[NICType]string{NICVLAN: "8021q", NICIPvlan: "ipvlan"} {
		l := nicLink("a", NIC{Type: typ, ID: "7"}, "192.0.2.50/24")
		if typ == NICIPvlan {
			l.NIC.ID = "eth0"
		}
		err := n.CheckLink(l)
		if err == nil {
			t.Logf("this kernel has %s", module)
			continue
		}
		refused(t, err, errs.Unavailable, "load the module "+module)
		refused(t, n.Attach(t.Context(), newNS(t), l), errs.Unavailable, "load the module "+module)
	}
	l := nicLink("a", NIC{Type: NICVLAN, ID: "7", Config: NICConfig{Uplink: "eth9"}}, "192.0.2.50/24")
	refused(t, n.CheckLink(l), errs.Invalid, "uplink eth9 is not on this node")
	if after := w.state(t); after != before {
		t.Errorf("left:\n%s", diff(after, before))
	}
	empty(t, n.cfg.StateDir)
	w.sh(t, w.host, "ip route del default")
	refused(t, n.CheckLink(nicLink("a", NIC{Type: NICVLAN, ID: "7"})), errs.Invalid, "no uplink")
}

func TestBridgeOfTheMachine(t *testing.T) {
	w := newWorld(t)
	w.sh(t, w.host, `ip link add lan type bridge; ip link set lan up; ip addr flush dev eth0; ip link set eth0 master lan; ip addr add 192.0.2.1/24 dev lan
ip link add tap type veth peer name tap1; ip link show lan`)
	before := w.state(t)
	n := w.net(t)
	l := nicLink("a", NIC{Type: NICBridge, ID: "lan", Config: NICConfig{MTU: 1400}}, "192.0.2.50/24")
	ns := joinNS(t, n, l)
	reaches(t, ns.Path(), "192.0.2.2")
	reaches(t, ns.Path(), "192.0.2.1")
	if port := w.look(t, w.host, n.portName("a", 0)); port.Alias != "buoy:t1:a" || port.Master != "lan" || port.MTU != 1400 {
		t.Errorf("%+v", port)
	}
	other := nicLink("b", NIC{Type: NICBridge, ID: "lan", HWAddr: w.look(t, ns.Path(), "eth0").MAC}, "192.0.2.51/24")
	refused(t, n.CheckLink(other), errs.Conflict, "is container a's")
	refused(t, n.Attach(t.Context(), newNS(t), other), errs.Conflict, "MAC "+other.NIC.HWAddr+" is container a's")
	other.NIC.HWAddr, other.Addrs = "", l.Addrs
	refused(t, n.CheckLink(other), errs.Conflict, "address 192.0.2.50 is container a's")
	for id, says := range map[string]string{"nope": "no bridge nope on this node", "tap": "tap is not a bridge but a link of kind veth"} {
		refused(t, n.CheckLink(nicLink("b", NIC{Type: NICBridge, ID: id})), errs.Invalid, says)
	}
	other = nicLink("b", NIC{Type: NICBridge, ID: "lan", Config: NICConfig{MTU: 1501}}, "192.0.2.51/24")
	refused(t, n.CheckLink(other), errs.Invalid, "MTU 1501 is more than the 1500")
	detach(t, n, ns.Path(), l)
	if after := w.state(t); after != before {
		t.Errorf("left:\n%s", diff(after, before))
	}
	if err := n.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, n.CheckLink(nicLink("b", NIC{Type: NICBridge, ID: "buoy0"})), errs.Invalid, "ask for a NIC of type default")
}

// Two machines, one network over the wire between them.
func TestVXLAN(t *testing.T) {
	for name, tt := range map[string]struct {
		one, two NICConfig
		mtu      int
	}{
		"peers":      {NICConfig{Peers: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}, NICConfig{Peers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, 1450},
		"group":      {NICConfig{Group: netip.MustParseAddr("239.1.1.1")}, NICConfig{Group: netip.MustParseAddr("239.1.1.1")}, 1450},
		"IPv6 peers": {NICConfig{Peers: []netip.Addr{netip.MustParseAddr("fd77::2")}}, NICConfig{Peers: []netip.Addr{netip.MustParseAddr("fd77::1")}}, 1430},
		"a port":     {NICConfig{Port: 8472, Group: netip.MustParseAddr("239.1.1.1")}, NICConfig{Port: 8472, Group: netip.MustParseAddr("239.1.1.1")}, 1450},
	} {
		t.Run(name, func(t *testing.T) {
			w := withUplink(t)
			w.sh(t, w.host, "ip addr add fd77::1/64 dev eth0 nodad")
			w.sh(t, w.client, "ip route add default via 192.0.2.1")
			here := w.net(t)
			there := w.net(t, func(c *Config) { c.HostNS = w.client })
			before := w.state(t)
			a := nicLink("a", NIC{Type: NICVXLAN, ID: "7", Config: tt.one}, "10.7.0.1/24", "fd07::1/64")
			b := nicLink("b", NIC{Type: NICVXLAN, ID: "7", Config: tt.two}, "10.7.0.2/24", "fd07::2/64")
			if err := here.CheckLink(a); err != nil {
				t.Fatal(err)
			}
			nsA, nsB := joinNS(t, here, a), joinNS(t, there, b)
			reaches(t, nsA.Path(), "10.7.0.2")
			reaches(t, nsB.Path(), "10.7.0.1")
			reaches(t, nsB.Path(), "fd07::1")
			if !ping(t, nsA.Path(), "10.7.0.2", tt.mtu-20) || ping(t, nsA.Path(), "10.7.0.2", tt.mtu-19) {
				t.Errorf("the largest packet is not %d", tt.mtu)
			}
			made := w.state(t)
			if again := w.net(t, func(c *Config) { c.StateDir = here.cfg.StateDir }); again.Attach(t.Context(), nsA.Path(), a) != nil || w.state(t) != made {
				t.Errorf("another process changed:\n%s", diff(w.state(t), made))
			}
			// Another network is another one.
			c := nicLink("c", NIC{Type: NICVXLAN, ID: "8", Config: tt.one}, "10.7.0.3/24")
			nsC := joinNS(t, here, c)
			cutOff(t, nsC.Path(), "10.7.0.1")
			cutOff(t, nsC.Path(), "10.7.0.2")
			// The machine has no part in it.
			bridge := w.look(t, w.host, here.segmentName("bb", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Uplink: "eth0"}}))
			if len(bridge.AddrsIn) > 0 {
				t.Errorf("the machine has %v on it", bridge.addrs())
			}
			if ask := ping(t, nsA.Path(), "192.0.2.1", 64); ask {
				t.Error("the machine answers")
			}
			detach(t, here, nsA.Path(), a)
			detach(t, here, nsC.Path(), c)
			if after := w.state(t); after != before {
				t.Errorf("left:\n%s", diff(after, before))
			}
			empty(t, here.cfg.StateDir)
		})
	}
}

func TestVXLANPeersChange(t *testing.T) {
	w := withUplink(t)
	n := w.net(t)
	nic := func(peers ...string) NIC {
		nic := NIC{Type: NICVXLAN, ID: "7"}
		for _, p := range peers {
			nic.Config.Peers = append(nic.Config.Peers, netip.MustParseAddr(p))
		}
		return nic
	}
	dev := n.segmentName("bl", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Uplink: "eth0"}})
	check := func(want ...string) {
		t.Helper()
		var got []string
		for l := range strings.Lines(w.sh(t, w.host, "bridge fdb show dev "+dev+" | grep '^00:00:00:00:00:00' || true")) {
			got = append(got, strings.Fields(l)[2])
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("peers %v, want %v", got, want)
		}
	}
	a, b := nicLink("a", nic("192.0.2.2", "192.0.2.3"), "10.7.0.1/24"), nicLink("b", nic("192.0.2.3", "192.0.2.4"), "10.7.0.2/24")
	nsA := joinNS(t, n, a)
	check("192.0.2.2", "192.0.2.3")
	joinNS(t, n, b)
	check("192.0.2.2", "192.0.2.3", "192.0.2.4")
	a.NIC = nic("192.0.2.5")
	attach(t, n, nsA, a)
	check("192.0.2.3", "192.0.2.4", "192.0.2.5")
	c := nicLink("c", nic("192.0.2.3"), "10.7.0.3/24")
	c.NIC.Config.Port = 8472
	refused(t, n.CheckLink(c), errs.Conflict, "other containers use it as")
	refused(t, n.Attach(t.Context(), newNS(t), c), errs.Conflict, "other containers use it as")
	// Another instance cannot have it at the same time.
	two := w.net(t, func(c *Config) { c.Instance, c.Bridge = "t2", "buoy1" })
	refused(t, two.Attach(t.Context(), newNS(t), b), errs.Conflict, `has the alias "buoy:t1/vxlan 7 on eth0"`)
	if left := w.sh(t, w.host, "ip link"); strings.Contains(left, "buoy:t2") {
		t.Errorf("left: %s", left)
	}
	w.sh(t, w.host, "ip link del "+dev)
	attach(t, n, nsA, a)
	check("192.0.2.3", "192.0.2.4", "192.0.2.5")
}

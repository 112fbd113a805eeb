package netcfg

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// onLAN is a world with a bridge lan of the machine's, that leads to the client.
func onLAN(t testing.TB) *world {
	w := newWorld(t)
	w.sh(t, w.host, `ip link add lan type bridge; ip link set lan up; ip addr flush dev eth0; ip link set eth0 master lan; ip addr add 192.0.2.1/24 dev lan; ip link show lan`)
	w.sh(t, w.client, "ip addr add fd77::2/64 dev eth0 nodad; ip addr add 10.9.9.9/32 dev lo; ip addr add fd99::9/128 dev lo; ip link set lo up; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	return w
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// A running container's NIC changes without its link being made anew.
func TestNICChangesInPlace(t *testing.T) {
	w := onLAN(t)
	n := w.net(t)
	l := nicLink("a", NIC{Type: NICBridge, ID: "lan"}, "192.0.2.50/24", "fd77::50/64", "192.0.2.60/24")
	l.Gateways = addrs("192.0.2.2", "fd77::2")
	ns := joinNS(t, n, l)
	reaches(t, ns.Path(), "10.9.9.9")
	reaches(t, ns.Path(), "fd99::9")
	index := w.look(t, ns.Path(), "eth0").Index
	port := w.look(t, w.host, n.portName("a", 0)).Index
	// What its administrator added stays.
	w.sh(t, ns.Path(), "ip addr add 192.0.2.77/24 dev eth0; ip addr add fd77::77/64 dev eth0 nodad; ip route add 10.55.0.0/16 via 192.0.2.2; ip -6 route add fd55::/16 via fd77::2")
	own := []string{"192.0.2.77/24", "fd77::77/64"}
	check := func(name string, routes ...string) {
		t.Helper()
		got := w.look(t, ns.Path(), name)
		if got == nil || got.Index != index || !got.up() || w.look(t, w.host, n.portName("a", 0)).Index != port {
			t.Fatalf("another link: %+v", got)
		}
		want := slices.Clone(own)
		for _, p := range l.Addrs {
			want = append(want, p.String())
		}
		if !sameSet(got.addrs(), want) {
			t.Errorf("addresses %v, want %v", got.addrs(), want)
		}
		have := w.sh(t, ns.Path(), "ip route; ip -6 route")
		for _, r := range append(routes, "10.55.0.0/16 via 192.0.2.2 dev "+name, "fd55::/16 via fd77::2 dev "+name) {
			if !strings.Contains(have, r) {
				t.Errorf("no route %q:\n%s", r, have)
			}
		}
		if got, want := strings.Count(have, "proto 98"), len(l.Gateways)+len(l.NIC.Config.Routes); got != want {
			t.Errorf("%d routes of ours, want %d:\n%s", got, want, have)
		}
	}
	check("eth0", "default via 192.0.2.2 dev eth0 proto 98 metric 1000", "default via fd77::2 dev eth0 proto 98 metric 1000")
	change := func(edit func()) {
		t.Helper()
		edit()
		attach(t, n, ns, l)
		before := w.sh(t, ns.Path(), "ip -d link; ip addr; ip route; ip -6 route; tc qdisc") + w.state(t)
		attach(t, n, ns, l)
		after := w.sh(t, ns.Path(), "ip -d link; ip addr; ip route; ip -6 route; tc qdisc") + w.state(t)
		if still(before) != still(after) {
			t.Errorf("the same again changed:\n%s", diff(still(after), still(before)))
		}
	}
	change(func() { l.Addrs = l.Addrs[1:] }) // the first goes: the kernel takes those it holds for secondary along
	check("eth0", "default via 192.0.2.2", "default via fd77::2")
	change(func() {
		l.Addrs = []netip.Prefix{prefix("192.0.2.51/24"), prefix("fd77::51/64")}
		l.Gateways = addrs("192.0.2.1")
		l.NIC.Config.Routes = []Route{{To: prefix("10.9.9.0/24"), Via: addrs("192.0.2.2")[0]}, {To: prefix("10.44.0.0/16")}, {To: prefix("fd99::/64"), Via: addrs("fd77::2")[0]}}
	})
	check("eth0", "default via 192.0.2.1", "10.9.9.0/24 via 192.0.2.2", "10.44.0.0/16 dev eth0 proto 98 scope link", "fd99::/64 via fd77::2")
	reaches(t, ns.Path(), "10.9.9.9")
	reaches(t, ns.Path(), "fd99::9")
	change(func() { l.NIC.Config.Routes = l.NIC.Config.Routes[:1] })
	check("eth0", "10.9.9.0/24 via 192.0.2.2")
	change(func() { l.NIC.HWAddr, l.NIC.Config.MTU = "02:00:5e:10:00:02", 1400 })
	check("eth0", "10.9.9.0/24 via 192.0.2.2")
	if got := w.look(t, ns.Path(), "eth0"); got.MAC != l.NIC.HWAddr || got.MTU != 1400 {
		t.Errorf("%+v", got)
	}
	change(func() { l.Name = "lan0" })
	check("lan0", "10.9.9.0/24 via 192.0.2.2")
	reaches(t, ns.Path(), "10.9.9.9")
	// Another process knows what was given, too.
	n2 := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
	l.Addrs, l.Gateways, l.NIC.Config.Routes = []netip.Prefix{prefix("192.0.2.52/24")}, nil, nil
	attach(t, n2, ns, l)
	check("lan0")
	// To another bridge, and back.
	w.sh(t, w.host, "ip link add lan2 type bridge; ip link set lan2 up")
	l.NIC.ID = "lan2"
	attach(t, n2, ns, l)
	check("lan0")
	cutOff(t, ns.Path(), "192.0.2.2")
	l.NIC.ID, l.NIC.Config.MTU = "lan", 0
	attach(t, n2, ns, l)
	eventually(t, "192.0.2.2 answers", func() bool { return ping(t, ns.Path(), "192.0.2.2", 1472) })
	detach(t, n2, ns.Path(), l)
	empty(t, n.cfg.StateDir)
}

// still is what ip says without clocks and counters.
func still(s string) string {
	var out []string
	for l := range strings.Lines(s) {
		if !strings.Contains(l, "valid_lft") && !strings.Contains(l, "gc_timer") {
			l, _, _ = strings.Cut(l, " hello_timer")
			out = append(out, strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll(l, " tentative", ""), "LOWERLAYERDOWN", "UP")))
		}
	}
	return strings.Join(out, "\n")
}

func TestNICIsRepaired(t *testing.T) {
	for _, broken := range []string{
		"host ip link del $PORT", "host ip link set $PORT nomaster", "host ip link set $PORT mtu 1300", "host tc qdisc del dev $PORT root",
		"ip addr flush dev eth0", "ip link set eth0 down", "ip link set eth0 down; ip link set eth0 name x", "ip route flush proto 98", "ip -6 route flush proto 98",
		"ip link set eth0 address 02:00:00:00:00:01", "ip link set eth0 mtu 1300", "tc qdisc del dev eth0 root", "tc qdisc replace dev eth0 root tbf rate 1mbit burst 9000 latency 9ms",
	} {
		t.Run(broken, func(t *testing.T) {
			w := onLAN(t)
			n := w.net(t)
			l := nicLink("a", NIC{Type: NICBridge, ID: "lan", Config: NICConfig{Rate: Rate{In: 1e8, Out: 1e8}}}, "192.0.2.50/24", "fd77::50/64")
			l.Gateways = addrs("192.0.2.2", "fd77::2")
			l.NIC.Config.Routes = []Route{{To: prefix("10.9.9.0/24"), Via: addrs("192.0.2.2")[0]}}
			ns := joinNS(t, n, l)
			look := func() string {
				inside := w.sh(t, ns.Path(), "ip -br addr show dev eth0; ip link show dev eth0; ip route; ip -6 route | grep -v fe80; tc qdisc show dev eth0")
				port := w.look(t, w.host, n.portName("a", 0))
				lines := []string{fmt.Sprint(port.Master, port.MTU, port.Alias, port.Flags, w.sh(t, w.host, "tc qdisc show dev "+port.Name))}
				for s := range strings.SplitSeq(inside, "\n") {
					lines = append(lines, stripIndexes(s))
				}
				slices.Sort(lines)
				return strings.Join(lines, "\n")
			}
			eventually(t, "the link is up", func() bool { return strings.Contains(look(), "state UP") })
			before := look()
			if script, ok := strings.CutPrefix(broken, "host "); ok {
				w.sh(t, w.host, "PORT="+n.portName("a", 0)+"; "+script)
			} else {
				w.sh(t, ns.Path(), broken)
			}
			again := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
			attach(t, again, ns, l)
			for end := time.Now().Add(3 * time.Second); look() != before && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond) // until the port forwards
			}
			if after := look(); after != before {
				t.Errorf("not repaired:\n%s", diff(after, before))
			}
			reaches(t, ns.Path(), "10.9.9.9")
		})
	}
}

// stripIndexes cuts what a link made anew may have another of.
func stripIndexes(s string) string {
	words := strings.Fields(s)
	words = slices.DeleteFunc(words, func(w string) bool {
		return strings.Contains(w, "@if") || strings.HasSuffix(w, ":") && len(w) < 5 || strings.HasPrefix(w, "fe80")
	})
	return strings.Join(words, " ")
}

// Several NICs are made, changed and taken away one by one.
func TestSeveralNICs(t *testing.T) {
	w := onLAN(t)
	w.sh(t, w.host, `ip link add lan2 address 02:00:00:00:02:02 type bridge; ip link set lan2 up; ip link add p1 type veth peer name p2
ip link set p1 up master lan2; ip link set p2 up; ip link show lan2`)
	n := w.setup(t)
	before := w.state(t)
	list := []Link{
		defaultLink("a", netip.MustParseAddr("172.18.0.2")),
		nicLink("a", NIC{Type: NICBridge, ID: "lan"}, "192.0.2.50/24"),
		nicLink("a", NIC{Type: NICBridge, ID: "lan2"}, "10.2.0.1/24"),
		nicLink("a", NIC{Type: NICMacvlan, ID: "lan2"}, "10.3.0.1/24"),
	}
	list[1].Gateways, list[2].Name = addrs("192.0.2.2"), "x2"
	ns := newNS(t)
	for i := range list {
		list[i].Index = i
		if err := n.Attach(t.Context(), ns, list[i]); err != nil {
			t.Fatal(err)
		}
	}
	reaches(t, ns, "172.18.0.1")
	reaches(t, ns, "192.0.2.2")
	if r := w.sh(t, ns, "ip route get 9.9.9.9"); !strings.Contains(r, "via 172.18.0.1 dev eth0") {
		t.Errorf("the default NIC's gateway does not win: %s", r)
	}
	if port := w.look(t, w.host, n.portName("a", 1)); port.Alias != "buoy:t1/1:a" {
		t.Errorf("%+v", port)
	}
	for _, i := range []int{2, 0, 3, 1} {
		if err := n.Detach(t.Context(), ns, list[i]); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			reaches(t, ns, "192.0.2.2")
			if r := w.sh(t, ns, "ip route get 9.9.9.9"); !strings.Contains(r, "via 192.0.2.2 dev eth1") {
				t.Errorf("the other gateway does not take over: %s", r)
			}
		}
	}
	if left := w.sh(t, ns, "ip -br link"); strings.Count(left, "\n") != 1 {
		t.Errorf("left inside:\n%s", left)
	}
	w.back(t, before)
}

func TestLinkRefused(t *testing.T) {
	w := onLAN(t)
	n := w.net(t)
	good := nicLink("a", NIC{Type: NICBridge, ID: "lan"}, "192.0.2.50/24")
	for says, edit := range map[string]func(*Link){
		"use 1 to 15 characters":                     func(l *Link) { l.Name = "sixteenletters16" },
		"container id":                               func(l *Link) { l.Container = "" },
		"a container has at most 100":                func(l *Link) { l.Index = 100 },
		"the id is a VLAN from 1 to 4094":            func(l *Link) { l.NIC = NIC{Type: NICVLAN, ID: "4095"} },
		"gateway 10.0.0.1 is in none of its":         func(l *Link) { l.Gateways = addrs("10.0.0.1") },
		"gateway 192.0.2.50 is its own address":      func(l *Link) { l.Gateways = addrs("192.0.2.50") },
		"two gateways for the same kind":             func(l *Link) { l.Gateways = addrs("192.0.2.1", "192.0.2.2") },
		"address 192.0.2.50 is given twice":          func(l *Link) { l.Addrs = append(l.Addrs, l.Addrs...) },
		"is the network's broadcast address":         func(l *Link) { l.Addrs[0] = prefix("192.0.2.255/24") },
		"is a multicast address":                     func(l *Link) { l.MAC = []byte{1, 2, 3, 4, 5, 6} },
		"is made by its plugins":                     func(l *Link) { l.NIC = NIC{Type: NICCNI, ID: "net1"} },
		"is not one for containers of 172.18.0.0/16": func(l *Link) { l.NIC = NIC{Type: NICDefault} },
		`NIC type "zerotier" is not supported`:       func(l *Link) { l.NIC.Type = "zerotier" },
	} {
		l := good
		l.Addrs = slices.Clone(good.Addrs)
		edit(&l)
		refused(t, n.CheckLink(l), errs.Invalid, says)
		refused(t, n.Attach(t.Context(), newNS(t), l), errs.Invalid, says)
	}
	l, err := n.Complete(good)
	if err != nil || l.Name != "eth0" || len(l.MAC) != 6 || l.MAC[0] != 6 {
		t.Errorf("%+v, %v", l, err)
	}
	for _, edit := range []func(*Link){func(l *Link) { l.Container = "b" }, func(l *Link) { l.Index = 1 }, func(l *Link) { l.Addrs = []netip.Prefix{prefix("192.0.2.51/24")} }} {
		other := good
		edit(&other)
		if o, err := n.Complete(other); err != nil || o.MAC.String() == l.MAC.String() {
			t.Errorf("%+v has the MAC of another: %v", o, err)
		}
	}
	empty(t, n.cfg.StateDir)
}

package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestBridgeValidate(t *testing.T) {
	static := func(cidr string, edit ...func(*Bridge)) Bridge {
		b := Bridge{Name: "br1", Mode: BridgeStatic}
		b.Prefix, _ = netip.ParsePrefix(cidr)
		for _, e := range edit {
			e(&b)
		}
		return b
	}
	within := func(start, end string) func(*Bridge) {
		return func(b *Bridge) { b.Start, _ = netip.ParseAddr(start); b.End, _ = netip.ParseAddr(end) }
	}
	dhcp := func(b *Bridge) { b.Mode = BridgeDHCP }
	for _, tt := range []struct {
		b    Bridge
		want string
	}{
		{Bridge{Name: "br1", Mode: BridgeNone}, ""},
		{Bridge{Name: "br1", Mode: BridgeNone, HWAddr: "02:00:00:00:00:01"}, ""},
		{static("10.1.0.1/24"), ""},
		{static("10.1.0.1/24", dhcp, within("10.1.0.10", "10.1.0.20")), ""},
		{static("fd01::1/64"), ""},
		{Bridge{Mode: BridgeNone}, `bridge: interface name "": use 1 to 15 characters`},
		{Bridge{Name: "default", Mode: BridgeNone}, `bridge: interface name "default" is reserved`},
		{Bridge{Name: "sixteenletters16", Mode: BridgeNone}, `bridge: interface name "sixteenletters16": use 1 to 15 characters`},
		{Bridge{Name: "br1"}, `bridge br1: mode "": use none, static or dnsmasq`},
		{Bridge{Name: "br1", Mode: BridgeNone, HWAddr: "x"}, `bridge br1: hwaddr "x" is not a MAC address like 02:00:5e:10:00:01`},
		{Bridge{Name: "br1", Mode: BridgeNone, HWAddr: "01:00:00:00:00:01"}, `bridge br1: MAC address 01:00:00:00:00:01 is a multicast address; a NIC needs a unicast one`},
		{Bridge{Name: "br1", Mode: BridgeNone, NAT: true}, `bridge br1: NAT needs an address of the bridge; use mode static or dnsmasq`},
		{Bridge{Name: "br1", Mode: BridgeNone, Prefix: prefix("10.1.0.1/24")}, `bridge br1: in mode none it has no cidr, start and end`},
		{static(""), `bridge br1: mode static needs a cidr: the bridge's address and the length of its network, like 10.20.0.1/24`},
		{static("10.1.0.0/24"), `bridge br1: 10.1.0.0/24 is the address of the network itself; give the bridge another, like 10.1.0.1/24`},
		{static("10.1.0.255/24"), `bridge br1: 10.1.0.255/24 is the network's broadcast address`},
		{static("10.1.0.1/31"), `bridge br1: network 10.1.0.1/31: use a length of /8 to /30, or /64 to /126 for IPv6`},
		{static("10.1.0.1/7"), `bridge br1: network 10.1.0.1/7: use a length of /8 to /30, or /64 to /126 for IPv6`},
		{static("127.0.0.1/8"), `bridge br1: 127.0.0.1/8 is not an address for a bridge`},
		{static("fd01::1/64", dhcp), `bridge br1: its DHCP server gives IPv4 addresses; fd01::1/64 is not one`},
		{static("10.1.0.1/24", within("10.2.0.1", "")), `bridge br1: 10.2.0.1 is not an address for containers of 10.1.0.0/24`},
		{static("10.1.0.1/24", within("", "10.1.0.1")), `bridge br1: 10.1.0.1 is not an address for containers of 10.1.0.0/24`},
		{static("10.1.0.1/24", within("10.1.0.20", "10.1.0.10")), `bridge br1: start 10.1.0.20 comes after end 10.1.0.10`},
	} {
		err := tt.b.Validate()
		if got := errText(err); got != tt.want || err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%+v: %s, want %s", tt.b, got, tt.want)
		}
	}
}

func setBridges(t testing.TB, n *Net, list ...Bridge) {
	t.Helper()
	if err := n.SetBridges(t.Context(), list); err != nil {
		t.Fatal(err)
	}
}

func TestBridges(t *testing.T) {
	w := newWorld(t)
	before := w.state(t)
	n := w.net(t)
	plain := Bridge{Name: "br1", Mode: BridgeNone, HWAddr: "02:00:00:00:00:11"}
	out := Bridge{Name: "br2", Mode: BridgeStatic, NAT: true, Prefix: prefix("10.2.0.254/24")}
	setBridges(t, n, plain, out)
	made := w.state(t)
	setBridges(t, w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir }), plain, out)
	if after := w.state(t); after != made {
		t.Errorf("the same again changed:\n%s", diff(after, made))
	}
	if br1 := w.look(t, w.host, "br1"); br1.MAC != plain.HWAddr || br1.Alias != "buoy:t1/bridge" || !n.LinkUp("br1") || n.LinkUp("br3") {
		t.Errorf("%+v", br1)
	}
	l := nicLink("a", NIC{Type: NICBridge, ID: "br2"}, "10.2.0.2/24")
	l.Gateways = addrs("10.2.0.254")
	ns := joinNS(t, n, l)
	reaches(t, ns.Path(), "10.2.0.254")
	reaches(t, ns.Path(), "192.0.2.2") // by NAT: the client knows no way back
	a, b := nicLink("b", NIC{Type: NICBridge, ID: "br1"}, "10.1.0.1/24"), nicLink("c", NIC{Type: NICBridge, ID: "br1"}, "10.1.0.2/24")
	nsA := joinNS(t, n, a)
	joinNS(t, n, b)
	reaches(t, nsA.Path(), "10.1.0.2")
	cutOff(t, nsA.Path(), "10.2.0.2")

	err := n.SetBridges(t.Context(), []Bridge{out})
	refused(t, err, errs.Conflict, "is on bridge br1")
	for _, tt := range []struct {
		b    Bridge
		kind errs.Kind
		says string
	}{
		{Bridge{Name: "br3", Mode: BridgeStatic, Prefix: prefix("10.2.0.129/25")}, errs.Conflict, "container network 10.2.0.128/25 overlaps the address 10.2.0.254/24 of br2"},
		{Bridge{Name: "br3", Mode: BridgeStatic, Prefix: prefix("192.0.0.1/16")}, errs.Conflict, "overlaps the address 192.0.2.1/24 of eth0"},
		{Bridge{Name: "br3", Mode: BridgeStatic, Prefix: prefix("172.18.5.1/24")}, errs.Conflict, "overlaps the network 172.18.0.0/16 of containers with a default NIC"},
		{Bridge{Name: "eth0", Mode: BridgeNone}, errs.Exists, "the machine has a link eth0 that is not ours (veth)"},
		{Bridge{Name: "buoy0", Mode: BridgeNone}, errs.Exists, "bridge buoy0 is the one of default NICs"},
		{Bridge{Name: "br2", Mode: BridgeNone}, errs.Exists, "bridge br2 is there twice"},
		{Bridge{Name: "br3"}, errs.Invalid, "use none, static or dnsmasq"},
	} {
		before := w.state(t)
		refused(t, n.SetBridges(t.Context(), []Bridge{plain, out, tt.b}), tt.kind, tt.says)
		if after := w.state(t); after != before {
			t.Errorf("%v: changed:\n%s", tt.b, diff(after, before))
		}
	}
	// A bridge changes.
	out.Prefix = prefix("10.3.0.1/24")
	setBridges(t, n, plain, out)
	if got := w.look(t, w.host, "br2").addrs(); len(got) != 1 || got[0] != "10.3.0.1/24" {
		t.Errorf("addresses %v", got)
	}
	// Setup by a process that does not know the bridges yet leaves them alone.
	made = w.state(t)
	fresh := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
	if err := fresh.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules := w.sh(t, w.host, "nft list ruleset"); !strings.Contains(rules, "10.3.0.0/24") || !strings.Contains(rules, "172.18.0.0/16") {
		t.Errorf("rules:\n%s", rules)
	}
	if err := fresh.Release(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	w.back(t, made)
	for _, l := range []Link{l, a, b} {
		detach(t, n, "", l)
	}
	setBridges(t, n)
	w.back(t, before)
	empty(t, n.cfg.StateDir)
}

func TestReleaseLeavesNothing(t *testing.T) {
	w := withUplink(t)
	for _, six := range []bool{false, true} {
		n := w.net(t, func(c *Config) {
			if six {
				c.Prefix6 = prefix("fd18::/64")
			}
		})
		before := w.state(t)
		c := start(t, n, "a", "172.18.0.2") // Attach sets the network up by itself
		v := nicLink("v", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Peers: addrs("192.0.2.2")}}, "10.7.0.1/24")
		ns := joinNS(t, n, v)
		inUse := w.state(t)
		if err := n.Release(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if after := w.state(t); after != inUse {
			t.Errorf("what is in use changed:\n%s", diff(after, inUse))
		}
		detach(t, n, c.ns.Path(), c.link())
		detach(t, n, ns.Path(), v)
		if err := n.Release(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if w.look(t, w.host, "buoy0") == nil {
			t.Error("the bridge is gone although somebody needs it")
		}
		for range 2 {
			if err := n.Release(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			w.back(t, before)
			empty(t, n.cfg.StateDir)
		}
		c.ns.Close()
		ns.Close()
	}
}

// Whoever comes last does not lose its bridge to one that leaves.
func TestAttachAgainstRelease(t *testing.T) {
	w := withUplink(t)
	n := w.net(t)
	var wg sync.WaitGroup
	const count = 8
	for i := range count {
		wg.Go(func() {
			for round := range 6 {
				ns, err := n.Netns(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				l := defaultLink(fmt.Sprint("c", i), netip.AddrFrom4([4]byte{172, 18, 1, byte(i + 1)}))
				if i%2 == 0 {
					l = nicLink(fmt.Sprint("c", i), NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Peers: addrs("192.0.2.2")}}, fmt.Sprintf("10.7.0.%d/24", i+1))
				}
				if err := n.Attach(t.Context(), ns.Path(), l); err != nil {
					t.Errorf("c%d, round %d: %v", i, round, err)
				} else if p := w.look(t, w.host, n.portName(l.Container, 0)); p == nil || p.Master == "" {
					t.Errorf("c%d, round %d: its bridge is gone: %+v", i, round, p)
				}
				if err := n.Detach(t.Context(), ns.Path(), l); err != nil {
					t.Error(err)
				}
				if err := n.Release(t.Context(), false); err != nil {
					t.Error(err)
				}
				ns.Close()
			}
		})
	}
	wg.Wait()
	if left := w.sh(t, w.host, "ip -br link"); strings.Contains(left, "buoy0") || strings.Contains(left, n.born("bb")) {
		t.Errorf("left:\n%s", left)
	}
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	w.sh(t, w.host, "ip addr add fd77::1/64 dev eth0 nodad; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding; ip link add down0 type veth peer name down1; ip link add mute type bridge; ip link set mute up; echo 0 > /proc/sys/net/ipv6/conf/mute/accept_ra")
	w.sh(t, w.client, "ip addr add fd77::2/64 dev eth0 nodad; ip route add default via fd77::1 || ip -6 route add default via fd77::1")
	sysctls := func() string {
		return w.sh(t, w.host, "cd /proc/sys/net/ipv6/conf; for i in all eth0 down0 mute; do echo $i $(cat $i/forwarding) $(cat $i/accept_ra); done")
	}
	before, conf := w.state(t), sysctls()
	six := func(c *Config) { c.Prefix6 = prefix("fd18::/64") }
	n := w.setup(t, six)
	if got := sysctls(); !strings.Contains(got, "all 1") || !strings.Contains(got, "eth0 1 2") || !strings.Contains(got, "mute 1 0") {
		t.Errorf("sysctls:\n%s", got)
	}
	a, b := start(t, n, "a", "172.18.0.2"), start(t, n, "b", "172.18.3.4")
	if got := w.look(t, b.ns.Path(), "eth0").addrs(); !sameSet(got, []string{"172.18.3.4/16", "fd18::304/64"}) {
		t.Errorf("addresses %v", got)
	}
	reaches(t, a.ns.Path(), "fd18::1")
	reaches(t, a.ns.Path(), "fd18::304")
	reaches(t, a.ns.Path(), "fd77::2")
	for _, broken := range []string{"ip -6 addr flush dev buoy0 scope global", "ip -6 route del fd18::/64 dev buoy0", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"} {
		w.sh(t, w.host, broken)
		if err := n.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		reaches(t, a.ns.Path(), "fd77::2")
	}
	made := w.state(t)
	again := w.setup(t, six, func(c *Config) { c.StateDir = n.cfg.StateDir })
	attach(t, again, a.ns, a.link())
	if after := w.state(t); after != made {
		t.Errorf("the same again changed:\n%s", diff(after, made))
	}
	// A second instance takes the memory over, and is the last to leave.
	two := w.setup(t, six, func(c *Config) {
		c.Instance, c.Bridge, c.Prefix, c.Prefix6 = "t2", "buoy1", prefix("10.9.0.0/24"), prefix("fd19::/64")
	})
	if err := again.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sysctls(); !strings.Contains(got, "all 1") || !strings.Contains(got, "eth0 1 2") {
		t.Errorf("with the other there:\n%s", got)
	}
	if err := two.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.back(t, before)
	if got := sysctls(); got != conf {
		t.Errorf("sysctls:\n%s", diff(got, conf))
	}
	empty(t, n.cfg.StateDir)
	// Without the prefix its address goes.
	n = w.setup(t, six)
	plain := w.setup(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
	if got := w.look(t, w.host, "buoy0").addrs(); len(got) != 1 {
		t.Errorf("addresses %v", got)
	}
	if got := sysctls(); got != conf {
		t.Errorf("sysctls:\n%s", diff(got, conf))
	}
	w.sh(t, w.host, "ip addr add fd18::7/64 dev eth0 nodad")
	if err := plain.Release(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	refused(t, w.net(t, six).Setup(t.Context()), errs.Conflict, "container network fd18::/64 overlaps the address fd18::7/64 of eth0")
}

package netcfg

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// A crash after any step of making something: the next process completes it,
// or removes it.
func TestCrashBetweenSteps(t *testing.T) {
	w := withUplink(t)
	before := w.state(t)
	six := func(c *Config) { c.Prefix6 = prefix("fd18::/64") }
	nat := Bridge{Name: "br1", Mode: BridgeStatic, NAT: true, Prefix: prefix("10.1.0.1/24"), HWAddr: "02:00:00:00:00:11"}
	v := nicLink("v", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Peers: addrs("192.0.2.2")}}, "10.7.0.1/24")
	for name, tt := range map[string]struct {
		steps    func(*testing.T, *Net) []step
		complete func(*testing.T, *Net)
	}{
		"default": {
			func(t *testing.T, n *Net) []step {
				n.useDefault.Store(true)
				n.bridges = []Bridge{nat}
				m, err := n.readMachine(n.sockets.fast, n.wanted())
				if err != nil {
					t.Fatal(err)
				}
				return planned(t, n.wanted(), m)
			},
			func(t *testing.T, n *Net) {
				setBridges(t, n, nat)
				reaches(t, start(t, n, "a", "172.18.0.2").ns.Path(), "192.0.2.2")
			},
		},
		"vxlan": {
			func(t *testing.T, n *Net) []step {
				l := v
				j, err := n.complete(n.sockets.fast, &l)
				if err != nil {
					t.Fatal(err)
				}
				m, err := n.readDevices(n.sockets.fast, j.want(n))
				if err != nil {
					t.Fatal(err)
				}
				return planned(t, j.want(n), m)
			},
			func(t *testing.T, n *Net) { reaches(t, joinNS(t, n, v).Path(), "10.7.0.1") },
		},
	} {
		for k := 1; ; k++ {
			n := w.net(t, six)
			s, err := n.host()
			if err != nil {
				t.Fatal(err)
			}
			steps := tt.steps(t, n)
			if k > len(steps) {
				break
			}
			t.Run(fmt.Sprint(name, " ", k, " ", steps[k-1]), func(t *testing.T) {
				if _, err := n.carryOut(s.fast, steps[:k]); err != nil {
					t.Fatal(err)
				}
				reset := func() {
					t.Helper()
					again := w.net(t, six, func(c *Config) { c.StateDir = n.cfg.StateDir })
					if err := again.Reset(t.Context()); err != nil {
						t.Fatal(err)
					}
					w.back(t, before)
					empty(t, n.cfg.StateDir)
				}
				reset()
				again := w.net(t, six, func(c *Config) { c.StateDir = n.cfg.StateDir })
				if _, err := n.carryOut(s.fast, tt.steps(t, n)[:k]); err != nil {
					t.Fatal(err)
				}
				tt.complete(t, again)
				if left := w.sh(t, w.host, "ip -o link"); strings.Contains(left, n.born("bb")) && !strings.Contains(left, "alias buoy:t1/vxlan 7 on eth0") {
					t.Errorf("not marked:\n%s", left)
				}
				reset()
			})
		}
	}
}

func planned(t *testing.T, w want, m machine) []step {
	t.Helper()
	steps, err := plan(w, m)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// Sweep takes what dead containers had and leaves what live ones have.
func TestSweepOfAllTypes(t *testing.T) {
	w := withNIC(t)
	w.sh(t, w.host, "ip route add default via 192.0.2.2")
	n := w.setup(t)
	vx := func(id string) NIC {
		return NIC{Type: NICVXLAN, ID: id, Config: NICConfig{Peers: addrs("192.0.2.2")}}
	}
	live := nicLink("live", vx("7"), "10.7.0.1/24")
	nsLive := joinNS(t, n, live)
	before := w.state(t)
	for i, l := range []Link{
		nicLink("dead", vx("7"), "10.7.0.2/24"), nicLink("dead", vx("8"), "10.7.0.2/24"),
		nicLink("dead", NIC{Type: NICMacvlan, ID: "eth0"}, "192.0.2.50/24"), nicLink("dead", NIC{Type: NICPassthrough, ID: "nic1"}, "10.1.0.1/24"),
		defaultLink("dead", netip.MustParseAddr("172.18.0.9")),
	} {
		l.Index = i
		ns := joinNS(t, n, l)
		if l.NIC.Type == NICPassthrough {
			if err := kernelReturns(n, ns.Path(), "eth3"); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
	for range 2 {
		if err := again.Sweep(t.Context(), func(c string) bool { return c == "live" }); err != nil {
			t.Fatal(err)
		}
		w.back(t, before)
	}
	if list, err := again.records(); err != nil || len(list) != 1 || list[0].Container != "live" {
		t.Errorf("records %+v, %v", list, err)
	}
	attach(t, again, nsLive, live)
	w.back(t, before)
}

// A NIC moves from one VXLAN to another: the first is not left behind.
func TestSegmentChanges(t *testing.T) {
	w := withUplink(t)
	n := w.net(t)
	before := w.state(t)
	l := nicLink("a", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Peers: addrs("192.0.2.2")}}, "10.7.0.1/24")
	ns := joinNS(t, n, l)
	index := w.look(t, ns.Path(), "eth0").Index
	l.NIC.ID = "8"
	attach(t, n, ns, l)
	if got := w.sh(t, w.host, "ip -o link"); strings.Contains(got, "vxlan 7 on eth0") || !strings.Contains(got, "vxlan 8 on eth0") || w.look(t, ns.Path(), "eth0").Index != index {
		t.Errorf("links:\n%s", got)
	}
	l.NIC.Config.Port = 8472 // nobody else is on it
	if err := n.CheckLink(l); err != nil {
		t.Errorf("its own: %v", err)
	}
	attach(t, n, ns, l)
	// A failure leaves the segment that it made no more than the link.
	bad := nicLink("b", NIC{Type: NICVXLAN, ID: "9", Config: NICConfig{Peers: addrs("192.0.2.2")}}, "10.9.0.1/24")
	other := newNS(t)
	w.sh(t, other, "ip link add eth0 type bridge")
	if err := n.Attach(t.Context(), other, bad); err == nil {
		t.Error("a foreign link was taken for ours")
	}
	if got := w.sh(t, w.host, "ip -o link"); strings.Contains(got, "vxlan 9") || len(n.peers[n.segmentName("bb", bad.NIC)]) > 0 {
		t.Errorf("links:\n%s", got)
	}
	detach(t, n, ns.Path(), l)
	w.back(t, before)
	empty(t, n.cfg.StateDir)
}

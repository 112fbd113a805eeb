package netcfg

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// withNIC gives the machine a second NIC, nic1, with a neighbour 10.1.0.2 on it.
func withNIC(t *testing.T) *world {
	w := newWorld(t)
	w.sh(t, w.host, `ip link add nic1 address 02:00:00:00:01:01 mtu 1480 type veth peer name wire1; ip link set nic1 up alias 'second port'`)
	w.sh(t, w.host, "ip link set wire1 netns "+w.client)
	w.sh(t, w.client, "ip link set wire1 up; ip addr add 10.1.0.2/24 dev wire1; ip link show wire1")
	return w
}

func TestPassthrough(t *testing.T) {
	w := withNIC(t)
	n := w.net(t)
	before := w.state(t)
	l := nicLink("a", NIC{Type: NICPassthrough, ID: "nic1", HWAddr: "02:00:5e:10:00:01", Config: NICConfig{MTU: 1400}}, "10.1.0.1/24", "fd01::1/64")
	if err := n.CheckLink(l); err != nil {
		t.Fatal(err)
	}
	ns := joinNS(t, n, l)
	reaches(t, ns.Path(), "10.1.0.2")
	if got := w.look(t, ns.Path(), "eth0"); got.MAC != l.NIC.HWAddr || got.MTU != 1400 || w.look(t, w.host, "nic1") != nil {
		t.Errorf("%+v", got)
	}
	if err := n.CheckLink(l); err != nil {
		t.Errorf("its own: %v", err)
	}
	other := l
	other.Container = "b"
	refused(t, n.CheckLink(other), errs.Conflict, "NIC passthrough nic1 is container a's")
	// Another daemon verifies, and changes.
	again := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
	l.Name, l.NIC.HWAddr, l.NIC.Config.MTU, l.Addrs = "lan0", "", 0, []netip.Prefix{prefix("10.1.0.3/24")}
	for range 2 {
		attach(t, again, ns, l)
	}
	if got := w.look(t, ns.Path(), "lan0"); got.MAC != "02:00:00:00:01:01" || got.MTU != 1480 || len(got.addrs()) != 1 {
		t.Errorf("%+v", got)
	}
	reaches(t, ns.Path(), "10.1.0.2")
	for range 2 {
		detach(t, again, ns.Path(), l)
		w.back(t, before)
	}
	empty(t, n.cfg.StateDir)
	joinNS(t, again, other) // free again
}

// What the kernel does with a NIC of metal when a namespace ends: back to the
// machine, under any name. A veth would end with it, so this plays the kernel.
func TestPassthroughComesBackByItself(t *testing.T) {
	for how, back := range map[string]func(*testing.T, *world, *Net, Link){
		"detach": func(t *testing.T, w *world, n *Net, l Link) { detach(t, n, "", l) },
		"sweep": func(t *testing.T, w *world, n *Net, l Link) {
			n = w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
			if err := n.Sweep(t.Context(), func(string) bool { return false }); err != nil {
				t.Fatal(err)
			}
		},
		"reset": func(t *testing.T, w *world, n *Net, l Link) {
			n = w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
			if err := n.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		"started again": func(t *testing.T, w *world, n *Net, l Link) {
			ns := joinNS(t, n, l)
			reaches(t, ns.Path(), "10.1.0.2")
			detach(t, n, ns.Path(), l)
		},
		"another's, after a crash": func(t *testing.T, w *world, n *Net, l Link) {
			n = w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
			l.Container, l.NIC.HWAddr, l.NIC.Config.MTU = "b", "", 0
			ns := joinNS(t, n, l)
			if got := w.look(t, ns.Path(), "eth0"); got.MAC != "02:00:00:00:01:01" || got.MTU != 1480 {
				t.Errorf("%+v", got)
			}
			detach(t, n, ns.Path(), l)
		},
	} {
		t.Run(how, func(t *testing.T) {
			w := withNIC(t)
			n := w.net(t)
			before := w.state(t)
			l := nicLink("a", NIC{Type: NICPassthrough, ID: "nic1", HWAddr: "02:00:5e:10:00:01", Config: NICConfig{MTU: 1400, Rate: Rate{Out: 1e6}}}, "10.1.0.1/24")
			ns := joinNS(t, n, l)
			if how == "detach" || how == "started again" { // these wait for it
				done := make(chan error)
				go func() {
					time.Sleep(30 * time.Millisecond)
					done <- kernelReturns(n, ns.Path(), "eth0")
				}()
				back(t, w, n, l)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			} else {
				if err := kernelReturns(n, ns.Path(), "eth0"); err != nil {
					t.Fatal(err)
				}
				back(t, w, n, l)
			}
			w.back(t, before)
			empty(t, n.cfg.StateDir)
		})
	}
}

func kernelReturns(n *Net, ns, name string) error {
	from, err := n.open(ns)
	if err != nil {
		return err
	}
	defer from.release()
	link, err := linkByName(from.h, name)
	if err != nil {
		return err
	}
	s, err := from.sock()
	if err != nil {
		return err
	}
	defer s.close()
	return n.withHostNS(func(host int) error { return s.moveLink(link.Attrs().Index, host, "dev9") })
}

func TestPassthroughCrash(t *testing.T) {
	w := withNIC(t)
	before := w.state(t)
	l := nicLink("a", NIC{Type: NICPassthrough, ID: "nic1"}, "10.1.0.1/24")
	// The record is written, then the alias, then the NIC moves: a crash in
	// between leaves it here.
	for _, alias := range []string{"", "buoy:t1/passthrough nic1"} {
		n := w.net(t)
		r := record{Container: "a", Name: "eth0", Lent: &lent{NIC: "nic1", MAC: "02:00:00:00:01:01", MTU: 1480, Up: true, Alias: "second port"}}
		if err := n.writeRecord(r); err != nil {
			t.Fatal(err)
		}
		if alias != "" {
			w.sh(t, w.host, "ip link set nic1 alias '"+alias+"'")
		}
		if err := n.Sweep(t.Context(), func(string) bool { return false }); err != nil {
			t.Fatal(err)
		}
		w.back(t, before)
		empty(t, n.cfg.StateDir)
	}
	n := w.net(t)
	ns, err := n.Netns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	w.sh(t, ns.Path(), "ip link add eth0 type bridge")
	err = n.Attach(t.Context(), ns.Path(), l)
	refused(t, err, errs.Conflict, "an interface eth0 that is not ours")
	// After the move something fails: the NIC goes back.
	l.Name, l.NIC.HWAddr = "lan0", "02:00:5e:10:00:01"
	l.Addrs = append(l.Addrs, prefix("fd01::1/64"))
	w.sh(t, ns.Path(), "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	refused(t, n.Attach(t.Context(), ns.Path(), l), errs.Unavailable, "fd01::1/64: IPv6 is turned off there")
	w.back(t, before)
	empty(t, n.cfg.StateDir)
}

func TestPassthroughRefuses(t *testing.T) {
	for script, tt := range map[string]struct {
		kind errs.Kind
		says string
	}{
		"ip route add default dev nic1":                                                       {errs.Conflict, "the machine's default route goes over it"},
		"ip -6 route add default dev nic1":                                                    {errs.Conflict, "the machine's default route goes over it"},
		"ip addr add 10.1.0.9/24 dev nic1":                                                    {errs.Conflict, "the machine has the address 10.1.0.9/24 on it"},
		"ip addr add fd01::9/64 dev nic1":                                                     {errs.Conflict, "the machine has the address fd01::9/64 on it"},
		"ip link add br7 type bridge; ip link set nic1 master br7":                            {errs.Conflict, "it is a port of a bridge"},
		"ip link add mac7 link nic1 type macvlan":                                             {errs.Conflict, "link mac7 is on it"},
		"ip link set nic1 down; ip link set nic1 name nic2":                                   {errs.Invalid, "this node has no such NIC"},
		"ip link set nic1 name nic2 2>/dev/null; ip link add nic1 type bridge 2>&1 || exit 0": {errs.Conflict, "it is no NIC but a link of kind bridge"},
	} {
		t.Run(script, func(t *testing.T) {
			w := withNIC(t)
			w.sh(t, w.host, script)
			n := w.net(t)
			before := w.state(t)
			l := nicLink("a", NIC{Type: NICPassthrough, ID: "nic1"}, "10.1.0.1/24")
			refused(t, n.CheckLink(l), tt.kind, tt.says)
			refused(t, n.Attach(t.Context(), newNS(t), l), tt.kind, tt.says)
			if after := w.state(t); after != before {
				t.Errorf("changed:\n%s", diff(after, before))
			}
			if _, err := os.ReadDir(n.recordDir()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("records: %v", err)
			}
		})
	}
}

package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestSetupTwiceChangesNothing(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	web := start(t, n, "web", "172.18.0.2")
	setPorts(t, n, web.forward(TCP, "0.0.0.0:8080", 80), web.forward(UDP, "127.0.0.1:53", 53))
	look := func() string { return w.state(t) + w.sh(t, w.host, "nft -a list ruleset") }
	before := look()
	again := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir }) // a restarted daemon
	for _, n := range []*Net{n, again, again} {
		if err := n.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Attach(t.Context(), web.ns.Path(), web.link()); err != nil {
			t.Fatal(err)
		}
		setPorts(t, n, web.forward(UDP, "127.0.0.1:53", 53), web.forward(TCP, "0.0.0.0:8080", 80))
		if after := look(); after != before {
			t.Errorf("changed:\n%s", diff(after, before))
		}
	}
}

func TestSetupAndAttachRepair(t *testing.T) {
	for _, broken := range []string{
		"ip link del buoy0",
		"ip link set buoy0 down",
		"ip addr flush dev buoy0; ip addr add 10.3.0.1/24 dev buoy0",
		"ip route del 172.18.0.0/16",
		"ip link set buoy0 address 02:00:00:00:00:07",
		"ip link set buoy0 alias ''",
		"nft flush ruleset",
		"nft delete table inet buoy-t1",
		"nft flush chain inet buoy-t1 postrouting",
		"nft insert rule inet buoy-t1 guard counter",
		"nft 'add chain inet buoy-t1 extra'",
		"nft flush map inet buoy-t1 any4",
		"nft 'add element inet buoy-t1 any4 { udp . 1 : 172.18.0.9 . 1 }'",
		"nft 'chain inet buoy-t1 guard { policy drop; }'",
		"echo 0 > /proc/sys/net/ipv4/ip_forward",
		"echo 0 > /proc/sys/net/ipv4/conf/buoy0/route_localnet",
		"ip link set $PORT down",
		"ip link set $PORT nomaster",
		"ip link set $PORT alias ''",
		"ip link del $PORT",
		"guest ip link set eth0 down",
		"guest ip addr flush dev eth0",
		"guest ip addr add 172.18.0.77/16 dev eth0",
		"guest ip route del default",
		"guest ip route replace default via 172.18.0.99",
		"guest ip link set lo down",
		"guest ip link set eth0 address 02:00:00:00:00:01",
	} {
		t.Run(broken, func(t *testing.T) {
			w := newWorld(t)
			n := w.setup(t)
			web := start(t, n, "web", "172.18.0.2")
			serve(t, web.ns.Path(), "web", "0.0.0.0:80")
			forwards := []Forward{web.forward(TCP, "0.0.0.0:8080", 80), web.forward(UDP, "192.0.2.1:8080", 80)}
			setPorts(t, n, forwards...)
			look := func() string {
				guest := w.sh(t, web.ns.Path(), "ip -4 addr | sed 's/^[0-9]*: //;s/@if[0-9]*//;s/ noprefixroute//' | grep -v valid_lft; ip route; cat /sys/class/net/eth0/address || ip link")
				all := w.sh(t, w.host, "nft list ruleset; ip -4 addr show dev buoy0 | sed 's/^[0-9]*: //'; ip route; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/buoy0/route_localnet; "+
					"ip link show dev buoy0 | grep -o 'link/ether [^ ]*\\|alias .*'; bridge link | sed 's/^[0-9]*: //;s/@[^:]*//;s/state [a-z]* priority.*//'; ip link | grep alias")
				return stripLinkNS(guest + all)
			}
			before := look()
			if script, ok := strings.CutPrefix(broken, "guest "); ok {
				w.sh(t, web.ns.Path(), script)
			} else {
				w.sh(t, w.host, "PORT="+n.portName("web", 0)+"; "+broken)
			}
			again := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
			if err := again.Setup(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := again.Attach(t.Context(), web.ns.Path(), web.link()); err != nil {
				t.Fatal(err)
			}
			setPorts(t, again, forwards...)
			var after string
			for range 50 { // ports take a moment to forward
				if after = look(); after == before {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if after != before {
				t.Errorf("not repaired:\n%s", diff(after, before))
			}
			for _, proto := range protos {
				if got := call(w.client, proto, "192.0.2.1:8080"); got != "web 192.0.2.2" {
					t.Errorf("%s answer %q", proto, got)
				}
			}
		})
	}
}

func stripLinkNS(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, " link-netns")
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestSetupRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ script, want string }{
		"address":     {"ip addr add 172.18.5.1/24 dev eth0", "container network 172.18.0.0/16 overlaps the address 172.18.5.1/24 of eth0; choose another prefix"},
		"route":       {"ip route add 172.16.0.0/12 via 192.0.2.2", "container network 172.18.0.0/16 overlaps the route 172.16.0.0/12 of eth0; choose another prefix"},
		"other table": {"ip route add 172.18.9.0/24 via 192.0.2.2 table 7", "container network 172.18.0.0/16 overlaps the route 172.18.9.0/24 of eth0; choose another prefix"},
		"link":        {"ip link add buoy0 type bridge", `interface buoy0 exists and is not the bridge of instance t1 (alias ""); choose another bridge name or remove it`},
		"dummy":       {"ip link add buoy0 type bridge; ip link set buoy0 alias buoy:t2", `interface buoy0 exists and is not the bridge of instance t1 (alias "buoy:t2"); choose another bridge name or remove it`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.sh(t, w.host, tt.script)
			before := w.state(t)
			n := w.net(t)
			err := n.Setup(t.Context())
			if !errors.Is(err, errs.Conflict) || err.Error() != "set up network: "+tt.want && err.Error() != "set up bridge buoy0: "+tt.want {
				t.Errorf("err = %v", err)
			}
			if err := n.Reset(t.Context()); err != nil {
				t.Error(err)
			}
			if after := w.state(t); after != before {
				t.Errorf("changed:\n%s", diff(after, before))
			}
		})
	}
	t.Run("default routes do not overlap", func(t *testing.T) {
		w := newWorld(t)
		w.sh(t, w.host, "ip route add default via 192.0.2.2; ip route add 128.0.0.0/1 via 192.0.2.2; ip route add unreachable 172.16.0.0/12")
		w.setup(t)
	})
}

func TestResetLeavesNothing(t *testing.T) {
	for _, forward := range []string{"0", "1"} {
		t.Run("ip_forward="+forward, func(t *testing.T) {
			w := newWorld(t)
			w.sh(t, w.host, "echo "+forward+" > /proc/sys/net/ipv4/ip_forward; nft add table ip other; ip link add foreign type veth peer name foreign1; ip link set foreign alias buoy:t11:x")
			before := w.state(t)
			n := w.setup(t)
			for i := range 5 {
				c := start(t, n, fmt.Sprint("c", i), fmt.Sprint("172.18.0.", 2+i))
				setPorts(t, n, c.forward(TCP, "0.0.0.0:80", 80))
			}
			dir := n.cfg.StateDir
			fresh := w.net(t, func(c *Config) { c.StateDir = dir })
			for range 2 {
				if err := fresh.Reset(t.Context()); err != nil {
					t.Fatal(err)
				}
				if after := w.state(t); after != before {
					t.Errorf("after reset:\n%s", diff(after, before))
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("state directory: %v, %v", left, err)
			}
			if err := fresh.Setup(t.Context()); err != nil {
				t.Errorf("setup after reset: %v", err)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	for i := range 8 {
		start(t, n, fmt.Sprint("c", i), fmt.Sprint("172.18.0.", 2+i))
	}
	half := n.portMark() + "aaaaaaaaa" // a crash between making and naming it
	w.sh(t, w.host, "ip link add "+half+" type veth peer name foreign; ip link set foreign alias buoy:t2:c1")
	if err := n.Sweep(t.Context(), func(c string) bool { return c == "c1" || c == "c5" }); err != nil {
		t.Fatal(err)
	}
	left := w.sh(t, w.host, "ip link")
	for i := range 8 {
		if there := strings.Contains(left, n.portName(fmt.Sprint("c", i), 0)); there != (i == 1 || i == 5) {
			t.Errorf("c%d there: %v", i, there)
		}
	}
	if strings.Contains(left, half) {
		t.Errorf("half-made link left:\n%s", left)
	}
}

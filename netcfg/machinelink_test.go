package netcfg

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testns"
)

func TestMachineLink(t *testing.T) {
	ns := testns.New(t)
	sh := func(script string) string { return testns.Sh(t, ns, script) }
	sh("ip link add eth0 type veth peer name far && ip link set far up && ip addr add 169.254.7.7/16 dev eth0 && ip link set eth0 up && ip route add 10.99.0.0/16 dev eth0")
	set := func(l MachineLink) {
		t.Helper()
		for range 2 { // twice is fine
			if err := InNS(ns, func() error { return SetMachineLink(l) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(what string, addrs, routes string) {
		t.Helper()
		if got := sh("ip -4 -o addr show dev eth0 | awk '{print $4}'"); strings.Join(strings.Fields(got), " ") != addrs {
			t.Errorf("%s: addresses %q, want %q", what, got, addrs)
		}
		if got := sh("ip route show proto 98 | sed 's/ dev .*//'"); strings.Join(strings.Fields(got), " ") != routes {
			t.Errorf("%s: routes %q, want %q", what, got, routes)
		}
	}
	first := MachineLink{
		Name: "eth0", Addr: netip.MustParsePrefix("10.0.0.9/24"), Router: netip.MustParseAddr("10.0.0.1"), MTU: 1400,
		Routes: []Route{{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParseAddr("10.0.0.8")}},
	}
	set(first)
	check("a lease", "10.0.0.9/24", "default via 10.0.0.1 10.8.0.0/16 via 10.0.0.8")
	if mtu := strings.TrimSpace(sh("cat /sys/class/net/eth0/mtu")); mtu != "1400" {
		t.Errorf("MTU %s", mtu)
	}
	set(MachineLink{Name: "eth0", Addr: netip.MustParsePrefix("10.1.0.9/24"), Router: netip.MustParseAddr("172.31.1.1")})
	check("another one, whose router is elsewhere", "10.1.0.9/24", "default via 172.31.1.1")
	if !strings.Contains(sh("ip route show 10.99.0.0/16"), "10.99") {
		t.Error("a route of somebody else is gone")
	}
	set(MachineLink{Name: "eth0", Addr: netip.MustParsePrefix("10.1.0.10/24")})
	check("another address of that network", "10.1.0.10/24", "")
	set(MachineLink{Name: "eth0"})
	check("none", "", "")
	if err := InNS(ns, func() error { return SetMachineLink(MachineLink{Name: "eth7"}) }); !errors.Is(err, errs.NotFound) {
		t.Errorf("no such NIC: %v", err)
	}
}

package inventory

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestNodeID(t *testing.T) {
	lo := NIC{Index: 1, Name: "lo", Flags: []string{"up", "loopback"}}
	eth0 := NIC{Index: 2, Name: "eth0", HardwareAddr: "52:54:00:12:34:56"}
	eth1 := NIC{Index: 3, Name: "eth1", HardwareAddr: "52:54:00:aa:bb:cc"}
	port := func(n NIC, master int) NIC { n.Master = master; return n }
	bridge := NIC{Index: 10, Name: "br0", Kind: "bridge", HardwareAddr: "02:00:00:00:00:01"}
	veth := NIC{Index: 11, Name: "a0", Kind: "veth", HardwareAddr: "02:00:00:00:00:01", Master: 10, Parent: 2}
	bond := NIC{Index: 12, Name: "bond0", Kind: "bond", HardwareAddr: "52:54:00:aa:bb:cc"}
	slave := NIC{Index: 2, Name: "eth0", HardwareAddr: "52:54:00:aa:bb:cc", Permanent: "52:54:00:12:34:56", Master: 12}
	vlan := NIC{Index: 13, Name: "bond0.5", Kind: "vlan", HardwareAddr: "52:54:00:aa:bb:cc", Parent: 12}
	tunnel := NIC{Index: 14, Name: "wg0", Kind: "wireguard"}
	on := func(names ...string) (routes []route) {
		for _, n := range names {
			routes = append(routes, route{nic: n, v4: true})
		}
		return routes
	}
	tests := []struct {
		name    string
		routes  []route
		nics    []NIC
		machine string
		want    string
	}{
		{"default route", on("eth1"), []NIC{lo, eth0, eth1}, "", "525400aabbcc"},
		{"best route first", on("eth0", "eth1"), []NIC{lo, eth0, eth1}, "", "525400123456"},
		{"no route: first hardware by name", nil, []NIC{lo, bridge, veth, eth1, eth0}, "", "525400123456"},
		{"route of a NIC that is gone", on("eth9"), []NIC{lo, eth1}, "", "525400aabbcc"},
		{"bridge stands for its hardware port", on("br0"), []NIC{lo, port(eth1, 10), bridge, veth}, "", "525400aabbcc"},
		{"bridge without hardware", on("br0"), []NIC{lo, bridge, veth}, "", "020000000001"},
		{"bond port's own MAC", on("bond0"), []NIC{lo, slave, port(eth1, 12), bond}, "", "525400123456"},
		{"vlan on bond", on("bond0.5"), []NIC{lo, slave, port(eth1, 12), bond, vlan}, "", "525400123456"},
		{"bridge on vlan on bond", on("br0"), []NIC{lo, slave, bond, port(vlan, 10), bridge}, "", "525400123456"},
		{"in a container: veth is what there is", on("a0"), []NIC{lo, eth0, {Index: 2, Name: "a0", Kind: "veth", HardwareAddr: "02:42:ac:11:00:02"}}, "", "0242ac110002"},
		{"tunnel has no MAC, next route", on("wg0", "eth1"), []NIC{lo, eth0, eth1, tunnel}, "", "525400aabbcc"},
		{"tunnel only", on("wg0"), []NIC{lo, eth0, tunnel}, "", "525400123456"},
		{"machine-id", nil, []NIC{lo, tunnel}, "0123456789abcdef0123456789abcdef\n", "d2ebf221d947"},
		{"nothing", nil, []NIC{lo}, "uninitialized\n", ""},
		{"nothing at all", nil, nil, "", ""},
	}
	for _, tt := range tests {
		got, err := nodeID(tt.routes, tt.nics, tt.machine)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: nodeID = %q, %v, want %q", tt.name, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, errs.Unavailable) {
			t.Errorf("%s: %v is not Unavailable", tt.name, err)
		}
	}
}

func TestDefaultRoutes(t *testing.T) {
	v4 := "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n" +
		"eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
		"eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n" +
		"tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n" + // 0.0.0.0/1
		"*\t00000000\t00000000\t0200\t0\t0\t10\t00000000\t0\t0\t0\n" + // unreachable
		"short\t00000000\n"
	if got, want := parseRoutes4([]byte(v4)), []route{{"eth0", 100, true}, {"wlan0", 600, true}}; !reflect.DeepEqual(got, want) {
		t.Errorf("parseRoutes4 = %v, want %v", got, want)
	}
	routes := machine("vm").defaultRoutes()
	if want := []route{{"eth0", 0, true}, {"eth0", 0x400, false}}; !reflect.DeepEqual(routes, want) {
		t.Errorf("vm: %v, want %v", routes, want)
	}
	if got := machine("diskless").defaultRoutes(); len(got) != 0 {
		t.Errorf("diskless: %v", got)
	}
}

func TestManagementAddr(t *testing.T) {
	nics := []NIC{
		{Index: 1, Name: "lo", Addrs: []string{"127.0.0.1/8"}, Flags: []string{"loopback"}},
		{Index: 2, Name: "eth0", HardwareAddr: "52:54:00:12:34:56", Addrs: []string{"169.254.3.4/16", "10.0.0.2/24", "10.0.0.3/24", "fe80::1/64", "fd00::2/64"}},
		{Index: 3, Name: "eth1", HardwareAddr: "52:54:00:12:34:57", Addrs: []string{"fe80::2/64", "fd00::3/64"}},
	}
	tests := []struct {
		routes []route
		nics   []NIC
		want   string
	}{
		{[]route{{nic: "eth0", v4: true}}, nics, "10.0.0.2"},
		{[]route{{nic: "eth0"}}, nics, "fd00::2"},
		{[]route{{nic: "eth1", v4: true}, {nic: "eth1"}}, nics, "fd00::3"},
		{nil, nics, "10.0.0.2"},
		{nil, nics[2:], "fd00::3"},
		{[]route{{nic: "lo", v4: true}}, nics[:1], ""},
	}
	for _, tt := range tests {
		want, _ := netip.ParseAddr(tt.want)
		if got := managementAddr(tt.routes, tt.nics); got != want {
			t.Errorf("managementAddr(%v) = %v, want %v", tt.routes, got, want)
		}
	}
}

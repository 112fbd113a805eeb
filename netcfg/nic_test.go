package netcfg

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

// One line a rule.
func TestNICValidate(t *testing.T) {
	nic := func(typ NICType, id string, edit ...func(*NICConfig)) NIC {
		n := NIC{Type: typ, ID: id}
		for _, e := range edit {
			e(&n.Config)
		}
		return n
	}
	cidrs := func(list ...string) func(*NICConfig) {
		return func(c *NICConfig) {
			for _, s := range list {
				c.CIDRs = append(c.CIDRs, prefix(s))
			}
		}
	}
	gateways := func(list ...string) func(*NICConfig) {
		return func(c *NICConfig) { c.Gateways = addrs(list...) }
	}
	route := func(to, via string) func(*NICConfig) {
		return func(c *NICConfig) {
			r := Route{To: prefix(to)}
			r.Via, _ = netip.ParseAddr(via)
			c.Routes = append(c.Routes, r)
		}
	}
	set := func(f func(*NICConfig)) func(*NICConfig) { return f }
	dhcp := set(func(c *NICConfig) { c.DHCP = true })
	group := set(func(c *NICConfig) { c.Group = netip.MustParseAddr("239.1.1.1") })
	peers := func(list ...string) func(*NICConfig) {
		return func(c *NICConfig) { c.Peers = addrs(list...) }
	}
	const types = `is not supported; supported: default, bridge, vlan, vxlan, macvlan, ipvlan, passthrough and cni (or hostNetworking, or no NIC)`
	for _, tt := range []struct {
		nic  NIC
		want string
	}{
		{NIC{}, `NIC type "" ` + types},
		{nic("zerotier", "1"), `NIC type "zerotier" ` + types},

		{NIC{Type: NICDefault, Name: "lan0", HWAddr: "02:00:5e:10:00:01"}, ""},
		{NIC{Type: NICDefault, Name: "eth7"}, `NIC name "eth7": names must not start with "eth" or "zt"`},
		{NIC{Type: NICDefault, Name: "zt0"}, `NIC name "zt0": names must not start with "eth" or "zt"`},
		{NIC{Type: NICDefault, Name: "default"}, `interface name "default" is reserved`},
		{NIC{Type: NICDefault, Name: "sixteenletters16"}, `interface name "sixteenletters16": use 1 to 15 characters`},
		{NIC{Type: NICDefault, Name: "a/b"}, `interface name "a/b": use letters, digits, '.', '-' and '_'`},
		{NIC{Type: NICDefault, HWAddr: "nonsense"}, `NIC hwaddr "nonsense" is not a MAC address like 02:00:5e:10:00:01`},
		{NIC{Type: NICDefault, HWAddr: "01:00:5e:10:00:01"}, `MAC address 01:00:5e:10:00:01 is a multicast address; a NIC needs a unicast one`},
		{NIC{Type: NICDefault, HWAddr: "00:00:00:00:00:00"}, `MAC address 00:00:00:00:00:00 is all zero`},
		{NIC{Type: NICDefault, HWAddr: "02:00:5e:10:00:00:00:01"}, `MAC address 02:00:5e:10:00:00:00:01 has 8 bytes; an Ethernet one has 6`},

		{nic(NICDefault, "ignored"), ""},
		{nic(NICDefault, "", cidrs("172.18.0.9/16")), ""},
		{nic(NICDefault, "", cidrs("172.18.0.9/16", "172.18.0.10/16")), `NIC default: it has one IPv4 address; give one cidr, or none`},
		{nic(NICDefault, "", cidrs("fd00::9/64")), `NIC default: it has one IPv4 address; give one cidr, or none`},
		{nic(NICDefault, "", cidrs("172.18.0.9/16"), gateways("172.18.0.1")), `NIC default: its gateway comes from the node; leave out dhcp and gateway`},
		{nic(NICDefault, "", dhcp), `NIC default: its gateway comes from the node; leave out dhcp and gateway`},

		{nic(NICBridge, "br1", cidrs("10.1.0.2/24", "fd01::2/64", "10.1.0.3/24"), gateways("10.1.0.1", "fe80::1")), ""},
		{nic(NICBridge, "br1", dhcp), ""},
		{nic(NICBridge, "br1", dhcp, cidrs("10.1.0.2/24")), `NIC bridge br1: with dhcp there is no cidr and no gateway`},
		{nic(NICBridge, "br1", cidrs("0.0.0.0/24")), `NIC bridge br1: 0.0.0.0/24 is not an address for a NIC, like 192.168.1.10/24`},
		{nic(NICBridge, "br1", cidrs("224.0.0.1/24")), `NIC bridge br1: 224.0.0.1/24 is not an address for a NIC, like 192.168.1.10/24`},
		{nic(NICBridge, "br1", cidrs("127.0.0.2/8")), `NIC bridge br1: 127.0.0.2/8 is not an address for a NIC, like 192.168.1.10/24`},
		{nic(NICBridge, "br1", cidrs("10.1.0.0/24")), `NIC bridge br1: 10.1.0.0/24 is the address of the network itself`},
		{nic(NICBridge, "br1", cidrs("10.1.0.255/24")), `NIC bridge br1: 10.1.0.255/24 is the network's broadcast address`},
		{nic(NICBridge, "br1", cidrs("10.1.0.0/31")), ""},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24", "10.1.0.2/25")), `NIC bridge br1: address 10.1.0.2 is given twice`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), gateways("0.0.0.0")), `NIC bridge br1: gateway 0.0.0.0 is not the address of a machine`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), gateways("10.1.0.255")), `NIC bridge br1: gateway 10.1.0.255 is not the address of a machine`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), gateways("10.1.0.0")), `NIC bridge br1: gateway 10.1.0.0 is not the address of a machine`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/31"), gateways("10.1.0.3")), ""},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), gateways("10.2.0.1")), `NIC bridge br1: gateway 10.2.0.1 is in none of its networks (cidr)`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), gateways("10.1.0.2")), `NIC bridge br1: gateway 10.1.0.2 is its own address`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), gateways("10.1.0.1", "10.1.0.3")), `NIC bridge br1: it has two gateways for the same kind of addresses`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), route("10.5.0.0/16", "10.1.0.1"), route("10.6.0.0/16", "")), ""},
		{nic(NICBridge, "br1", route("10.5.0.1/16", "")), `NIC bridge br1: route to 10.5.0.1/16: it is not a network like 10.1.0.0/16`},
		{nic(NICBridge, "br1", route("::ffff:10.0.0.0/104", "")), `NIC bridge br1: route to ::ffff:10.0.0.0/104: it is not a network like 10.1.0.0/16`},
		{nic(NICBridge, "br1", route("fd01::/64", "fe80::1%eth9")), `NIC bridge br1: route to fd01::/64: fe80::1%eth9 is not the address of a machine`},
		{nic(NICBridge, "br1", route("10.5.0.0/16", "fd00::1")), `NIC bridge br1: route to 10.5.0.0/16: fd00::1 is of the other kind of addresses`},
		{nic(NICBridge, "br1", cidrs("10.1.0.2/24"), route("10.5.0.0/16", "10.2.0.1")), `NIC bridge br1: route to 10.5.0.0/16: 10.2.0.1 is in none of its networks (cidr)`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.DNS = addrs("9.9.9.9", "fd00::1"); c.Search = []string{"example.net"} })), ""},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.DNS = addrs("224.0.0.1") })), `NIC bridge br1: dns server 224.0.0.1 is not an address of a server`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.Search = []string{"a b"} })), `NIC bridge br1: search domain "a b" is not a domain`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.MTU = 575 })), `NIC bridge br1: MTU 575: use 576 to 65535`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.MTU = 65536 })), `NIC bridge br1: MTU 65536: use 576 to 65535`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.Rate.In, c.Rate.Out = 8000, 1e9 })), ""},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.Rate.Out = 7999 })), `NIC bridge br1: a rate of 7999 bit/s is too low; use at least 8000`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.Rate.In = 1<<64 - 1 })), `NIC bridge br1: a rate of 18446744073709551615 bit/s is too high; use at most 1000000000000, or leave it out`},
		{nic(NICMacvlan, "eth0", set(func(c *NICConfig) { c.Rate.In = 8000 })), `NIC macvlan eth0: a rate of what comes in can only be set on a NIC of type default, bridge, vlan or vxlan`},
		{nic(NICBridge, ""), `NIC bridge: the id names a bridge: interface name "": use 1 to 15 characters`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.Uplink = "eth1" })), `NIC bridge br1: uplink means nothing for this type`},
		{nic(NICBridge, "br1", set(func(c *NICConfig) { c.Mode = "l2" })), `NIC bridge br1: mode means nothing for this type`},
		{nic(NICBridge, "br1", group), `NIC bridge br1: group, peers and port means nothing for this type`},

		{nic(NICVLAN, "0"), ""},
		{nic(NICVLAN, "4094", set(func(c *NICConfig) { c.Uplink = "eth1" })), ""},
		{nic(NICVLAN, "4095"), `NIC vlan 4095: the id is a VLAN from 1 to 4094, or 0 for untagged traffic`},
		{nic(NICVLAN, "-1"), `NIC vlan -1: the id is a VLAN from 1 to 4094, or 0 for untagged traffic`},
		{nic(NICVLAN, "07"), `NIC vlan 07: the id is a VLAN from 1 to 4094, or 0 for untagged traffic`},
		{nic(NICVLAN, ""), `NIC vlan: the id is a VLAN from 1 to 4094, or 0 for untagged traffic`},
		{nic(NICVLAN, "7", set(func(c *NICConfig) { c.Uplink = "a/b" })), `NIC vlan 7: uplink: interface name "a/b": use letters, digits, '.', '-' and '_'`},

		{nic(NICVXLAN, "7", group), ""},
		{nic(NICVXLAN, "16777215", peers("192.0.2.1", "192.0.2.2")), ""},
		{nic(NICVXLAN, "16777216", group), `NIC vxlan 16777216: the id is a VXLAN network from 1 to 16777215`},
		{nic(NICVXLAN, "0", group), `NIC vxlan 0: the id is a VXLAN network from 1 to 16777215`},
		{nic(NICVXLAN, "7"), `NIC vxlan 7: say who the peers are: a multicast group, or a list of peers`},
		{nic(NICVXLAN, "7", group, peers("192.0.2.1")), `NIC vxlan 7: say who the peers are: a multicast group, or a list of peers`},
		{nic(NICVXLAN, "7", set(func(c *NICConfig) { c.Group = netip.MustParseAddr("10.0.0.1") })), `NIC vxlan 7: group 10.0.0.1 is not a multicast address like 239.1.1.1`},
		{nic(NICVXLAN, "7", peers("192.0.2.1", "fd00::1")), `NIC vxlan 7: peer fd00::1 is not the address of a machine of the same kind as the others`},
		{nic(NICVXLAN, "7", peers("::ffff:192.0.2.1")), `NIC vxlan 7: peer ::ffff:192.0.2.1 is not the address of a machine of the same kind as the others`},
		{nic(NICVXLAN, "7", peers("fe80::1%eth0")), `NIC vxlan 7: peer fe80::1%eth0 is not the address of a machine of the same kind as the others`},
		{nic(NICVXLAN, "7", peers("224.0.0.1")), `NIC vxlan 7: peer 224.0.0.1 is not the address of a machine of the same kind as the others`},

		{nic(NICMacvlan, ""), ""},
		{nic(NICMacvlan, "eth0", set(func(c *NICConfig) { c.Mode = "vepa" })), ""},
		{nic(NICMacvlan, "eth0", set(func(c *NICConfig) { c.Mode = "l2" })), `NIC macvlan eth0: mode "l2": use bridge, private, vepa`},
		{nic(NICMacvlan, "a/b"), `NIC macvlan a/b: the id names a link of the machine: interface name "a/b": use letters, digits, '.', '-' and '_'`},
		{nic(NICIPvlan, "eth0", set(func(c *NICConfig) { c.Mode = "l3s" })), ""},
		{nic(NICIPvlan, "eth0", set(func(c *NICConfig) { c.Mode = "vepa" })), `NIC ipvlan eth0: mode "vepa": use l2, l3, l3s`},
		{NIC{Type: NICIPvlan, ID: "eth0", HWAddr: "02:00:5e:10:00:01"}, `NIC ipvlan eth0: it has the MAC of the link it is on; leave out hwaddr`},

		{nic(NICPassthrough, "eth1"), ""},
		{nic(NICPassthrough, ""), `NIC passthrough: the id names a NIC of the machine: interface name "": use 1 to 15 characters`},
		{nic(NICPassthrough, "lo"), `NIC passthrough lo: the id names a NIC of the machine: interface name "lo" is reserved`},

		{nic(NICCNI, "net1", set(func(c *NICConfig) { c.DNS = addrs("9.9.9.9") })), ""},
		{nic(NICCNI, "../x"), `NIC cni ../x: the id is the name of a network in the CNI configuration directory`},
		{nic(NICCNI, "net1", cidrs("10.1.0.2/24")), `NIC cni net1: its plugins configure it; of config only dns and search count`},
	} {
		err := tt.nic.Validate()
		if got := errText(err); got != tt.want {
			t.Errorf("%+v:\n%s, want\n%s", tt.nic, got, tt.want)
		}
		if err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%+v: kind of %v", tt.nic, err)
		}
	}
}

func TestNICKey(t *testing.T) {
	for want, n := range map[string]NIC{
		"default":       {Type: NICDefault, ID: "7"},
		"bridge:br1":    {Type: NICBridge, ID: "br1"},
		"vlan:7":        {Type: NICVLAN, ID: "7"},
		"vlan:7@eth1":   {Type: NICVLAN, ID: "7", Config: NICConfig{Uplink: "eth1"}},
		"vxlan:7@eth1":  {Type: NICVXLAN, ID: "7", Config: NICConfig{Uplink: "eth1"}},
		"passthrough:x": {Type: NICPassthrough, ID: "x"},
	} {
		if got := n.Key(); got != want {
			t.Errorf("%+v: %s, want %s", n, got, want)
		}
	}
}

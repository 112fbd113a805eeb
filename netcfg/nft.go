package netcfg

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// The table of an instance, "inet buoy-<instance>", as nft would write it. The
// rules with BRIDGE are there once for each bridge with NAT, those with PREFIX
// for each of its prefixes, and the publish chain's for IPv6 as well:
//
//	map addr4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//	map any4 { type inet_proto . inet_service : ipv4_addr . inet_service }
//	map range4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval }
//	chain guard { type filter hook prerouting priority raw
//		ip daddr 127.0.0.0/8 iifname != "lo" drop
//		ip saddr 127.0.0.0/8 iifname != "lo" drop }
//	chain publish {
//		dnat ip to ip daddr . meta l4proto . th dport map @addr4
//		dnat ip to meta l4proto . th dport map @any4
//		dnat ip to ip daddr . meta l4proto . th dport map @range4
//		ip6 daddr ::1 return
//		… }
//	chain prerouting { type nat hook prerouting priority dstnat
//		fib daddr type local jump publish }
//	chain output { type nat hook output priority dstnat
//		fib daddr type local jump publish }
//	chain forward { type filter hook forward priority filter
//		ct state established,related return
//		iifname != BRIDGE oifname BRIDGE ct state invalid drop
//		iifname != BRIDGE oifname BRIDGE ct state new ct status & dnat == 0 drop }
//	chain postrouting { type nat hook postrouting priority srcnat
//		oifname BRIDGE ip saddr 127.0.0.0/8 masquerade
//		oifname BRIDGE ip saddr PREFIX ct status & dnat == dnat masquerade
//		oifname != BRIDGE ip saddr PREFIX masquerade }
//
// One table of family inet and not two, of ip and ip6: the chains that know no
// address are said once, and all changes in one transaction.
//
// addr4 and any4 are hashes, range4 is a tree of intervals: a range of ports is
// one element there, for which the container's ports must have the same
// numbers. guard: route_localnet on a bridge, needed for 127.0.0.1:port, would
// let containers (and who routes through us) at what listens on 127.0.0.1.
// publish: nothing comes back from a container to ::1, for which the kernel has
// no route_localnet; a client that tries it first is to be refused at once.
// forward: only published ports are reachable from outside a bridge, also for
// another of our bridges and for a neighbour that has a route to PREFIX through
// us; all packets pass its first rule, those of a connection no other.
// postrouting: the host as 127.0.0.1, then containers that come back to
// their bridge through a published port, then the way out, which is also the
// one to another of our bridges. Nothing is accepted here: a firewall of the
// host decides as it does without us.

// natted is a bridge whose containers go out by NAT and may publish ports.
type natted struct {
	link     string
	prefixes []netip.Prefix // of its containers
}

const (
	rtnLocal     = 2        // RTN_LOCAL of fib addrtype
	ctStatusDNAT = 1 << 5   // IPS_DST_NAT
	elemsPerMsg  = 256      // a message's list of elements must stay below 64 KiB
	sendBuffer   = 64 << 20 // a batch is one send: 90 bytes for each element
)

func (n *Net) table() *nftables.Table {
	return &nftables.Table{Name: "buoy-" + n.cfg.Instance, Family: nftables.TableFamilyINet}
}

// formerTable is what versions that knew IPv4 alone made.
func (n *Net) formerTable() *nftables.Table {
	return &nftables.Table{Name: n.table().Name, Family: nftables.TableFamilyIPv4}
}

// chain is an nftables.Chain with its rules; without hook it is only jumped to.
type chain struct {
	name  string
	kind  nftables.ChainType
	hook  *nftables.ChainHook
	prio  *nftables.ChainPriority
	rules [][]expr.Any
}

// chains are the table's chains for these bridges.
func chains(nets []natted) []chain {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	publish := join(fibLocal(), jump("publish"))
	forward := [][]expr.Any{join(ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, true), back())}
	var postrouting [][]expr.Any
	for _, b := range nets {
		in := join(iif(expr.CmpOpNeq, b.link), oif(expr.CmpOpEq, b.link))
		forward = append(forward,
			join(in, ct(expr.CtKeySTATE, expr.CtStateBitINVALID, true), drop()),
			join(in, ct(expr.CtKeySTATE, expr.CtStateBitNEW, true), ct(expr.CtKeySTATUS, ctStatusDNAT, false), drop()))
		postrouting = append(postrouting, join(oif(expr.CmpOpEq, b.link), from(loopback), masquerade()))
		for _, p := range b.prefixes {
			postrouting = append(postrouting,
				join(oif(expr.CmpOpEq, b.link), from(p), ct(expr.CtKeySTATUS, ctStatusDNAT, true), masquerade()),
				join(oif(expr.CmpOpNeq, b.link), from(p), masquerade()))
		}
	}
	return []chain{
		{"guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, [][]expr.Any{
			join(to(loopback), iif(expr.CmpOpNeq, "lo"), drop()),
			join(from(loopback), iif(expr.CmpOpNeq, "lo"), drop()),
		}},
		{name: "publish", rules: slices.Concat(
			ipv4.publish("4"),
			[][]expr.Any{join(to(netip.MustParsePrefix("::1/128")), back())},
			ipv6.publish("6"),
		)},
		{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, [][]expr.Any{publish}},
		{"output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, [][]expr.Any{publish}},
		{"forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, forward},
		{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, postrouting},
	}
}

// publish are the rules that look a packet up in the maps whose names end so.
func (f family) publish(maps string) [][]expr.Any {
	at := join(f.only(), f.load(f.daddr), proto(f.second), dport(f.third))
	return [][]expr.Any{
		join(at, f.dnat("addr"+maps, true)),
		join(f.only(), proto(regFirst), dport(regPort), f.dnat("any"+maps, true)),
		join(at, f.dnat("range"+maps, false)),
	}
}

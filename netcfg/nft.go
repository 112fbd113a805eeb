package netcfg

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The table of an instance, "buoy-<instance>", as nft would write it:
//
//	map ports_addr { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//	map ports_any { type inet_proto . inet_service : ipv4_addr . inet_service }
//	chain guard { type filter hook prerouting priority raw
//		iifname != "lo" ip daddr 127.0.0.0/8 drop
//		iifname != "lo" ip saddr 127.0.0.0/8 drop }
//	chain publish {
//		dnat to ip daddr . meta l4proto . th dport map @ports_addr
//		dnat to meta l4proto . th dport map @ports_any }
//	chain prerouting { type nat hook prerouting priority dstnat
//		fib daddr type local jump publish }
//	chain output { type nat hook output priority dstnat
//		fib daddr type local jump publish }
//	chain forward { type filter hook forward priority filter
//		iifname != BRIDGE oifname BRIDGE ct state invalid drop
//		iifname != BRIDGE oifname BRIDGE ct state new ct status & dnat == 0 drop }
//	chain postrouting { type nat hook postrouting priority srcnat
//		oifname BRIDGE ip saddr 127.0.0.0/8 masquerade
//		oifname BRIDGE ip saddr PREFIX ct status & dnat == dnat masquerade
//		oifname != BRIDGE ip saddr PREFIX masquerade }
//
// guard: route_localnet on the bridge, needed for 127.0.0.1:port, would let
// containers (and who routes through us) at what listens on 127.0.0.1.
// forward: only published ports are reachable from outside the bridge, also
// for a neighbour that has a route to PREFIX through us. postrouting: the host
// as 127.0.0.1, then containers that come back to a container through a
// published port, then the way out. Nothing is accepted here: a firewall of
// the host decides as it does without us.

const (
	mapAddr = "ports_addr"
	mapAny  = "ports_any"

	rtnLocal     = 2       // RTN_LOCAL of fib addrtype
	ctStatusDNAT = 1 << 5  // IPS_DST_NAT
	elemsPerMsg  = 256     // a message's list of elements must stay below 64 KiB
	regAddr      = 1       // register with the first four bytes
	regSecond    = 9       // the next four
	regThird     = 10      // and the next
	sendBuffer   = 4 << 20 // a batch is one send
)

func (n *Net) table() *nftables.Table {
	return &nftables.Table{Name: "buoy-" + n.cfg.Instance, Family: nftables.TableFamilyIPv4}
}

// chain is an nftables.Chain with its rules; without hook it is only jumped to.
type chain struct {
	name  string
	kind  nftables.ChainType
	hook  *nftables.ChainHook
	prio  *nftables.ChainPriority
	rules [][]expr.Any
}

func (n *Net) chains() []chain {
	bridge, prefix, loopback := n.cfg.Bridge, n.cfg.Prefix, netip.MustParsePrefix("127.0.0.0/8")
	publish := join(fibLocal(), jump("publish"))
	in := join(iif(expr.CmpOpNeq, bridge), oif(expr.CmpOpEq, bridge))
	return []chain{
		{"guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, [][]expr.Any{
			join(iif(expr.CmpOpNeq, "lo"), daddr(loopback), drop()),
			join(iif(expr.CmpOpNeq, "lo"), saddr(loopback), drop()),
		}},
		{name: "publish", rules: [][]expr.Any{
			join(load(regAddr, daddrOffset), proto(regSecond), dport(regThird), dnat(mapAddr)),
			join(proto(regAddr), dport(regSecond), dnat(mapAny)),
		}},
		{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, [][]expr.Any{publish}},
		{"output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, [][]expr.Any{publish}},
		{"forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, [][]expr.Any{
			join(in, ct(expr.CtKeySTATE, expr.CtStateBitINVALID, true), drop()),
			join(in, ct(expr.CtKeySTATE, expr.CtStateBitNEW, true), ct(expr.CtKeySTATUS, ctStatusDNAT, false), drop()),
		}},
		{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, [][]expr.Any{
			join(oif(expr.CmpOpEq, bridge), saddr(loopback), masquerade()),
			join(oif(expr.CmpOpEq, bridge), saddr(prefix), ct(expr.CtKeySTATUS, ctStatusDNAT, true), masquerade()),
			join(oif(expr.CmpOpNeq, bridge), saddr(prefix), masquerade()),
		}},
	}
}

// portSets are the two maps, empty. Their ids are ours to choose within a batch.
func (n *Net) portSets() (addr, anyAddr *nftables.Set) {
	guest := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	anyAddr = &nftables.Set{
		Table: n.table(), ID: 1, Name: mapAny, IsMap: true, Concatenation: true, DataType: guest,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}
	addr = &nftables.Set{
		Table: n.table(), ID: 2, Name: mapAddr, IsMap: true, Concatenation: true, DataType: guest,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
	}
	return addr, anyAddr
}

// elements are the forwards as elements of the two maps.
func (m portMap) elements() (addr, anyAddr []nftables.SetElement) {
	for k, guest := range m {
		l4 := []byte{unix.IPPROTO_TCP, 0, 0, 0}
		if k.proto == UDP {
			l4[0] = unix.IPPROTO_UDP
		}
		key := append(l4, port4(k.host.Port())...)
		val := append(guest.Addr().AsSlice(), port4(guest.Port())...)
		if k.host.Addr().IsUnspecified() {
			anyAddr = append(anyAddr, nftables.SetElement{Key: key, Val: val})
		} else {
			addr = append(addr, nftables.SetElement{Key: append(k.host.Addr().AsSlice(), key...), Val: val})
		}
	}
	return addr, anyAddr
}

// readElements undoes elements; ok is false if they are not ours.
func (m portMap) readElements(elems []nftables.SetElement, withAddr bool) (ok bool) {
	for _, e := range elems {
		key, addr := e.Key, netip.IPv4Unspecified()
		if withAddr && len(key) == 12 {
			addr, key = netip.AddrFrom4([4]byte(key)), key[4:]
		}
		if len(key) != 8 || len(e.Val) != 8 {
			return false
		}
		l4 := TCP
		if key[0] == unix.IPPROTO_UDP {
			l4 = UDP
		}
		k := portKey{l4, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(key[4:]))}
		m[k] = netip.AddrPortFrom(netip.AddrFrom4([4]byte(e.Val)), binary.BigEndian.Uint16(e.Val[4:]))
	}
	return true
}

// port4 is a port as nftables keeps it, filled up to a register.
func port4(p uint16) []byte { return []byte{byte(p >> 8), byte(p), 0, 0} }

// without is the part of m that is not in other.
func (m portMap) without(other portMap) portMap {
	rest := maps.Clone(m)
	maps.DeleteFunc(rest, func(k portKey, v netip.AddrPort) bool { return other[k] == v })
	return rest
}

// change is the set of messages for some elements of one map.
func change(do func(*nftables.Set, []nftables.SetElement) error, s *nftables.Set, elems []nftables.SetElement) error {
	for chunk := range slices.Chunk(elems, elemsPerMsg) {
		if err := do(s, chunk); err != nil {
			return err
		}
	}
	return nil
}

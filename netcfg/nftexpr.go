package netcfg

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Pieces of nftables rules. They are spelled as the kernel gives them back, so
// that a rule that is there can be compared with the one that should be.

// family is what differs between IPv4 and IPv6: where headers have the
// addresses, and the registers behind a loaded address. Register 1 has room
// for both kinds.
type family struct {
	proto  byte // NFPROTO_
	size   int  // of an address
	saddr  uint32
	daddr  uint32
	second uint32 // the register after an address
	third  uint32 // and the next, of four bytes
}

var (
	ipv4 = family{proto: unix.NFPROTO_IPV4, size: 4, saddr: 12, daddr: 16, second: 9, third: 10}
	ipv6 = family{proto: unix.NFPROTO_IPV6, size: 16, saddr: 8, daddr: 24, second: 2, third: 13}
)

// familyOf is that of a prefix or address.
func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

const (
	regFirst = 1 // 16 bytes
	regPort  = 9 // the second four of these
)

func join(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

// ifname is an interface's name as registers hold it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func iif(op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: regFirst},
		&expr.Cmp{Op: op, Register: regFirst, Data: ifname(name)},
	}
}

func oif(op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: regFirst},
		&expr.Cmp{Op: op, Register: regFirst, Data: ifname(name)},
	}
}

// only lets packets of the family through to the rest of the rule.
func (f family) only() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: regFirst},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: []byte{f.proto}},
	}
}

func (f family) load(offset uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		OperationType: expr.PayloadLoad, DestRegister: regFirst,
		Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(f.size),
	}}
}

// from asks whether the packet's source is in p, to for its destination.
func from(p netip.Prefix) []expr.Any {
	f := familyOf(p.Addr())
	return f.within(f.saddr, p)
}

func to(p netip.Prefix) []expr.Any {
	f := familyOf(p.Addr())
	return f.within(f.daddr, p)
}

func (f family) within(offset uint32, p netip.Prefix) []expr.Any {
	rule := join(f.only(), f.load(offset))
	if !p.IsSingleIP() {
		rule = append(rule, &expr.Bitwise{
			SourceRegister: regFirst, DestRegister: regFirst, Len: uint32(f.size),
			Mask: net.CIDRMask(p.Bits(), 8*f.size), Xor: make([]byte, f.size),
		})
	}
	return append(rule, &expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: p.Masked().Addr().AsSlice()})
}

func proto(reg uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}
}

func dport(reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{
		OperationType: expr.PayloadLoad, DestRegister: reg,
		Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2,
	}}
}

// dnat looks address and port up and sends the packet there; without port it
// keeps its own.
func (f family) dnat(set string, port bool) []expr.Any {
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: regFirst, RegAddrMax: regFirst}
	if port {
		nat.Specified, nat.RegProtoMin, nat.RegProtoMax = true, f.second, f.second
	}
	return []expr.Any{&expr.Lookup{SourceRegister: regFirst, DestRegister: regFirst, IsDestRegSet: true, SetName: set}, nat}
}

// ct asks whether a bit of the connection is set.
func ct(key expr.CtKey, bit uint32, set bool) []expr.Any {
	op := expr.CmpOpEq
	if set {
		op = expr.CmpOpNeq
	}
	return []expr.Any{
		&expr.Ct{Key: key, Register: regFirst},
		&expr.Bitwise{
			SourceRegister: regFirst, DestRegister: regFirst, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bit), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: op, Register: regFirst, Data: make([]byte, 4)},
	}
}

func fibLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: regFirst, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regFirst, Data: binary.NativeEndian.AppendUint32(nil, rtnLocal)},
	}
}

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func back() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

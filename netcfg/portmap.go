package netcfg

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// portKey is what a packet is looked up by, portMap what the kernel is to know:
// one entry is one element of one of the table's maps.
type portKey struct {
	proto Proto
	host  netip.Addr // unspecified: all of its kind
	span
}

// portMap leads to guests. Where a key is more than one port, each goes to
// that very port of the guest.
type portMap map[portKey]netip.AddrPort

// maxElements bounds what publishing may cost: so many take 0.7 s to make and
// 2 s to compare at Setup (2026-11).
const maxElements = 1 << 16

// add makes elements of what o publishes. Ports that go to those of the same
// number are one element however many they are; a map cannot count, so others
// are one each.
func (m portMap) add(o owner) {
	f, s := o.forward, o.forward.span()
	if s.first == s.last || f.Guest.Port() == s.first && !f.Merge {
		m[portKey{f.Proto, o.host, s}] = f.Guest
		return
	}
	for i := range s.last - s.first + 1 {
		guest := f.Guest
		if !f.Merge {
			guest = netip.AddrPortFrom(guest.Addr(), guest.Port()+i)
		}
		m[portKey{f.Proto, o.host, span{s.first + i, s.first + i}}] = guest
	}
}

// without is the part of m that is not in other.
func (m portMap) without(other portMap) portMap {
	rest := maps.Clone(m)
	maps.DeleteFunc(rest, func(k portKey, v netip.AddrPort) bool { return other[k] == v })
	return rest
}

// set is the name of the map that the key belongs into.
func (k portKey) set() string {
	kind, family := "addr", "4"
	switch {
	case k.first < k.last:
		kind = "range"
	case k.host.IsUnspecified():
		kind = "any"
	}
	if k.host.Is6() {
		family = "6"
	}
	return kind + family
}

// portSets are the maps, empty. Their ids are ours to choose within a batch.
func (n *Net) portSets() []*nftables.Set {
	var sets []*nftables.Set
	for _, family := range []string{"4", "6"} {
		addr := nftables.TypeIPAddr
		if family == "6" {
			addr = nftables.TypeIP6Addr
		}
		port := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
		at := slices.Insert(slices.Clone(port), 0, addr)
		guest := nftables.MustConcatSetType(addr, nftables.TypeInetService)
		sets = append(sets,
			&nftables.Set{Name: "addr" + family, KeyType: nftables.MustConcatSetType(at...), DataType: guest},
			&nftables.Set{Name: "any" + family, KeyType: nftables.MustConcatSetType(port...), DataType: guest},
			&nftables.Set{Name: "range" + family, KeyType: nftables.MustConcatSetType(at...), DataType: addr, Interval: true})
	}
	for i, s := range sets {
		s.Table, s.ID, s.IsMap, s.Concatenation = n.table(), uint32(i+1), true, true
	}
	return sets
}

// elements are the entries as elements of the maps, by the maps' names.
func (m portMap) elements() map[string][]nftables.SetElement {
	sets := map[string][]nftables.SetElement{}
	for k, guest := range m {
		l4 := []byte{unix.IPPROTO_TCP, 0, 0, 0}
		if k.proto == UDP {
			l4[0] = unix.IPPROTO_UDP
		}
		e := nftables.SetElement{Val: slices.Concat(guest.Addr().AsSlice(), port4(guest.Port()))}
		name, low := k.set(), k.host
		switch {
		case k.first < k.last:
			e.Key = slices.Concat(low.AsSlice(), l4, port4(k.first))
			e.KeyEnd = slices.Concat(highest(low).AsSlice(), l4, port4(k.last))
			e.Val = guest.Addr().AsSlice()
		case low.IsUnspecified():
			e.Key = slices.Concat(l4, port4(k.first))
		default:
			e.Key = slices.Concat(low.AsSlice(), l4, port4(k.first))
		}
		sets[name] = append(sets[name], e)
	}
	return sets
}

// highest ends the addresses that begin with a: all of its kind, or a alone.
func highest(a netip.Addr) netip.Addr {
	if !a.IsUnspecified() {
		return a
	}
	all := a.AsSlice()
	for i := range all {
		all[i] = 0xff
	}
	a, _ = netip.AddrFromSlice(all)
	return a
}

// readElements undoes elements; ok is false if they are not ours.
func (m portMap) readElements(name string, elems []nftables.SetElement) (ok bool) {
	host, size := netip.IPv4Unspecified(), 4
	if name[len(name)-1] == '6' {
		host, size = netip.IPv6Unspecified(), 16
	}
	for _, e := range elems {
		k, key, end := portKey{host: host, proto: TCP}, e.Key, e.KeyEnd
		if name[:3] != "any" && len(key) == size+8 {
			k.host, _ = netip.AddrFromSlice(key[:size])
			key = key[size:]
		}
		val := slices.Clone(e.Val)
		isRange := len(end) == size+8 && len(val) == size
		if isRange && len(key) == 8 {
			val = append(val, key[4:]...)
			if !slices.Equal(end[:size], highest(k.host).AsSlice()) {
				return false
			}
		}
		if len(key) != 8 || len(val) != size+4 {
			return false
		}
		if key[0] == unix.IPPROTO_UDP {
			k.proto = UDP
		}
		k.first = binary.BigEndian.Uint16(key[4:])
		k.last = k.first
		if isRange {
			k.last = binary.BigEndian.Uint16(end[size+4:])
		}
		guest, _ := netip.AddrFromSlice(val[:size])
		m[k] = netip.AddrPortFrom(guest, binary.BigEndian.Uint16(val[size:]))
		if k.set() != name {
			return false
		}
	}
	return true
}

// port4 is a port as nftables keeps it, filled up to a register.
func port4(p uint16) []byte { return []byte{byte(p >> 8), byte(p), 0, 0} }

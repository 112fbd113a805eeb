package netcfg

import (
	"net/netip"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Allocate is the next address for a container after after, cyclically, that
// is not taken: never prefix's network, gateway (the first) or broadcast
// address. An after outside prefix means from the start.
//
// errs.Unavailable: all are taken.
func Allocate(prefix netip.Prefix, taken map[netip.Addr]bool, after netip.Addr) (netip.Addr, error) {
	prefix = prefix.Masked()
	if !prefix.Addr().Is4() {
		return netip.Addr{}, errs.E(errs.Invalid, "prefix %s: only IPv4 is supported by this version", prefix)
	}
	first := prefix.Addr().Next().Next()
	if !hostAddr(prefix, first) {
		return netip.Addr{}, errs.E(errs.Unavailable, "prefix %s has no address for containers", prefix)
	}
	start := first
	if next := after.Next(); hostAddr(prefix, next) {
		start = next
	}
	for a := start; ; {
		if !taken[a] {
			return a, nil
		}
		if a = a.Next(); !hostAddr(prefix, a) {
			a = first
		}
		if a == start {
			return netip.Addr{}, errs.E(errs.Unavailable, "no free address in %s", prefix)
		}
	}
}

// hostAddr says whether a is one that a container may have.
func hostAddr(prefix netip.Prefix, a netip.Addr) bool {
	gateway := prefix.Addr().Next()
	// The broadcast address is the last: the one after it is outside.
	return a.Is4() && prefix.Contains(a) && gateway.Less(a) && prefix.Contains(a.Next())
}

func (n *Net) usable(a netip.Addr) bool { return hostAddr(n.cfg.Prefix, a) }

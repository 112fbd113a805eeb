package netcfg

import (
	"net/netip"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Allocate is the next address for a container after after, cyclically, that
// is not taken, from start to end: zero for those of the whole prefix. It is
// never prefix's network, broadcast or own address, which is the one that it is
// written with, or the first if that is the network's (172.18.0.0/16). An after
// outside means from the start.
//
// errs.Unavailable: all are taken.
func Allocate(prefix netip.Prefix, start, end netip.Addr, taken map[netip.Addr]bool, after netip.Addr) (netip.Addr, error) {
	inside := func(a netip.Addr) bool {
		return prefix.Contains(a) && (!start.IsValid() || !a.Less(start)) && (!end.IsValid() || !end.Less(a))
	}
	first := prefix.Masked().Addr().Next()
	if start.IsValid() {
		first = start
	}
	for inside(first) && !hostAddr(prefix, first) {
		first = first.Next()
	}
	if !inside(first) {
		return netip.Addr{}, errs.E(errs.Unavailable, "prefix %s has no address for containers", prefix)
	}
	from := first
	if next := after.Next(); inside(next) && !next.Less(first) {
		from = next
	}
	for a := from; ; {
		if !taken[a] && hostAddr(prefix, a) {
			return a, nil
		}
		if a = a.Next(); !inside(a) {
			a = first
		}
		if a == from {
			return netip.Addr{}, errs.E(errs.Unavailable, "no free address in %s", prefix)
		}
	}
}

// hostAddr says whether a is one that a container may have on a network of ours.
func hostAddr(prefix netip.Prefix, a netip.Addr) bool {
	network := prefix.Masked().Addr()
	own := prefix.Addr()
	if own == network {
		own = network.Next()
	}
	return prefix.Contains(a) && a != network && a != own && (!a.Is4() || a != lastAddr(prefix))
}

func (n *Net) usable(a netip.Addr) bool { return hostAddr(n.cfg.Prefix, a) }

package netcfg

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A container may be on a network of its clients besides the bridge that its
// published ports lead to. Its answers would go straight to them, from an
// address that they never asked. So what has the address of such a NIC leaves
// through it: one rule, and a table with one route.
const (
	answerPriority = 9800 // of the rule, and the NIC's index
	answerTable    = 9800
)

// setAnswers makes that so, or undoes it.
func (w *wire) setAnswers() error {
	if w.made && !w.l.Answers {
		return nil
	}
	number := answerTable + w.l.Index
	var want *netlink.Rule
	var via netip.Addr
	if w.l.Answers && len(w.l.Addrs) > 0 && len(w.l.Gateways) > 0 {
		want = netlink.NewRule()
		want.Family, want.Priority, want.Table = netlink.FAMILY_V4, answerPriority+w.l.Index, number
		want.Src = toIPNet(netip.PrefixFrom(w.l.Addrs[0].Addr(), 32))
		via = w.l.Gateways[0]
	}
	have, err := dumpRules(w.ns.h)
	if err != nil {
		return err
	}
	there := false
	for _, r := range have {
		switch {
		case r.Priority != answerPriority+w.l.Index:
		case want != nil && r.Table == number && toPrefix(r.Src) == toPrefix(want.Src):
			there = true
		default:
			if err := w.ns.h.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove the rule for answers: %w", err)
			}
			w.did("rule for answers removed")
		}
	}
	if want == nil {
		return nil // a table that no rule names does nothing, and ends with the link
	}
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	route := netlink.Route{LinkIndex: w.guest.Attrs().Index, Dst: toIPNet(all), Gw: via.AsSlice(), Table: number, Protocol: routeMark}
	if err := w.ns.h.RouteReplace(&route); err != nil {
		return fmt.Errorf("route for answers: %w", err)
	}
	if there {
		return nil
	}
	if err := w.ns.h.RuleAdd(want); err != nil {
		return fmt.Errorf("rule for answers: %w", err)
	}
	if !w.made {
		w.did("rule for answers")
	}
	return nil
}

package netcfg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// MachineLink is how a NIC of the machine itself is to be, on a machine whose
// network nobody else sets.
type MachineLink struct {
	Name   string       // required
	Addr   netip.Prefix // of IPv4; zero: none
	Router netip.Addr   // zero: none
	Routes []Route      // besides
	MTU    int          // 0: as it is
}

// SetMachineLink makes it so, in the namespace of this process: the link is up,
// and of IPv4 has this address and these routes alone. Twice is fine.
func SetMachineLink(l MachineLink) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := linkByName(h, l.Name)
	if err != nil {
		return errs.E(errs.NotFound, "there is no NIC %s: %w", l.Name, err)
	}
	if l.MTU != 0 && link.Attrs().MTU != l.MTU {
		if err := h.LinkSetMTU(link, l.MTU); err != nil {
			return fmt.Errorf("set MTU %d of %s: %w", l.MTU, l.Name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", l.Name, err)
	}
	if err := setMachineAddr(h, link, l.Addr); err != nil {
		return fmt.Errorf("%s: %w", l.Name, err)
	}
	routes := slices.Clone(l.Routes)
	if l.Router.IsValid() {
		routes = append(routes, Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: l.Router})
	}
	return setMachineRoutes(h, link, l.Addr, routes)
}

func setMachineAddr(h *netlink.Handle, link netlink.Link, want netip.Prefix) error {
	have, err := dumpAddrs(h, link)
	if err != nil {
		return err
	}
	set := func() error {
		if !want.IsValid() {
			return nil
		}
		if err := h.AddrReplace(link, toAddr(want)); err != nil {
			return fmt.Errorf("set address %s: %w", want, err)
		}
		return nil
	}
	// With the last address all routes go, and with one those of the same network
	// that came after it: so before, and again.
	if err := set(); err != nil {
		return err
	}
	for _, a := range have {
		p := toPrefix(a.IPNet)
		if p == want || !p.Addr().Is4() {
			continue
		}
		if err := h.AddrDel(link, &netlink.Addr{IPNet: a.IPNet}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	return set()
}

func setMachineRoutes(h *netlink.Handle, link netlink.Link, addr netip.Prefix, routes []Route) error {
	var want []netlink.Route
	for _, r := range routes {
		n := netlink.Route{LinkIndex: link.Attrs().Index, Dst: toIPNet(r.To), Protocol: routeMark}
		if r.Via.IsValid() {
			n.Gw = r.Via.AsSlice()
			if !addr.Contains(r.Via) {
				n.Flags = int(netlink.FLAG_ONLINK)
			}
		} else {
			n.Scope = netlink.SCOPE_LINK
		}
		want = append(want, n)
	}
	have, err := dumpRoutes(h, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range have {
		ours := r.LinkIndex == link.Attrs().Index && int(r.Protocol) == routeMark && r.Table == unix.RT_TABLE_MAIN
		if !ours || slices.ContainsFunc(want, func(w netlink.Route) bool { return sameRoute(w, r) }) {
			continue
		}
		if err := h.RouteDel(&r); err != nil {
			return fmt.Errorf("remove route to %s: %w", routeDst(r), err)
		}
	}
	for _, w := range want {
		if err := h.RouteReplace(&w); err != nil {
			return fmt.Errorf("set route to %s by way of %s: %w", toPrefix(w.Dst), w.Gw, err)
		}
	}
	return nil
}

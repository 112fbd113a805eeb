package netcfg

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// setGuest makes right what is inside the namespace.
func (w *wire) setGuest() error {
	if !w.ns.fresh {
		if err := w.ns.h.LinkSetUp(lo()); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
	}
	if err := w.setGuestLink(); err != nil {
		return err
	}
	if err := w.setAddrs(); err != nil {
		return err
	}
	if err := w.setRoutes(); err != nil {
		return err
	}
	return w.setAnswers()
}

func (w *wire) setGuestLink() error {
	h, a := w.ns.h, w.guest.Attrs()
	if len(w.l.MAC) > 0 && !bytes.Equal(a.HardwareAddr, w.l.MAC) {
		err := h.LinkSetHardwareAddr(w.guest, w.l.MAC)
		if errors.Is(err, unix.EBUSY) { // some NICs do it only while they are down
			err = errors.Join(h.LinkSetDown(w.guest), h.LinkSetHardwareAddr(w.guest, w.l.MAC))
			a.Flags &^= net.FlagUp
		}
		if err != nil {
			return fmt.Errorf("set MAC %s: %w", w.l.MAC, err)
		}
		w.did("mac")
	}
	if w.j.mtu != 0 && a.MTU != w.j.mtu {
		if err := h.LinkSetMTU(w.guest, w.j.mtu); err != nil {
			if errors.Is(err, unix.EINVAL) {
				return errs.E(errs.Invalid, "%s does not take MTU %d", w.l.NIC, w.j.mtu)
			}
			return fmt.Errorf("set MTU %d: %w", w.j.mtu, err)
		}
		w.did("mtu")
	}
	if a.Flags&net.FlagUp == 0 {
		if err := h.LinkSetUp(w.guest); err != nil {
			if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EBUSY) {
				return errs.E(errs.Conflict, "MAC %s is in use on %s", w.l.MAC, w.j.parent)
			}
			return fmt.Errorf("set up: %w", err)
		}
		w.did("up")
	}
	rate := w.l.NIC.Config.Rate.Out
	if w.made && rate == 0 {
		return nil
	}
	did, err := setRate(h, w.guest, rate, cmp.Or(w.j.mtu, a.MTU))
	if did {
		w.did("rate out")
	}
	return err
}

// gave says whether the address on the link is one that we once gave. On the
// default bridge all of its network are.
func (w *wire) gave(p netip.Prefix) bool {
	if w.l.NIC.Type == NICDefault {
		return w.n.cfg.Prefix.Contains(p.Addr()) || w.n.cfg.Prefix6.Contains(p.Addr())
	}
	return slices.Contains(w.had.Addrs, p)
}

// setAddrs leaves the addresses that l has and those that we never gave. IPv4:
// first add, then remove, and have the kernel keep what it holds for secondary,
// since with the last address of a network all routes by way of it go. IPv6 the
// other way round: an address is there once, whatever the length of its network.
func (w *wire) setAddrs() error {
	var stale []netip.Prefix
	missing := w.l.Addrs
	if !w.made {
		have, err := w.addrs()
		if err != nil {
			return err
		}
		stale = slices.DeleteFunc(slices.Clone(have), func(p netip.Prefix) bool { return slices.Contains(w.l.Addrs, p) || !w.gave(p) })
		missing = slices.DeleteFunc(slices.Clone(w.l.Addrs), func(p netip.Prefix) bool { return slices.Contains(have, p) })
	}
	if err := w.removeAddrs(stale, netip.Addr.Is6); err != nil {
		return err
	}
	for _, p := range missing {
		err := w.ns.h.AddrAdd(w.guest, toAddr(p))
		if p.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP)) {
			return errs.E(errs.Unavailable, "address %s: IPv6 is turned off there (net.ipv6.conf.all.disable_ipv6, or the kernel lacks it)", p)
		}
		if err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
		w.did("address " + p.String())
	}
	if !slices.ContainsFunc(stale, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		return nil
	}
	promote := "/proc/sys/net/ipv4/conf/" + w.l.Name + "/promote_secondaries"
	err := w.ns.do(func() error {
		was, err := os.ReadFile(promote)
		if err != nil {
			return err
		}
		if err := os.WriteFile(promote, []byte("1"), 0); err != nil {
			return err
		}
		err = w.removeAddrs(stale, netip.Addr.Is4)
		return errors.Join(err, os.WriteFile(promote, was, 0))
	})
	return err
}

func (w *wire) removeAddrs(stale []netip.Prefix, of func(netip.Addr) bool) error {
	for _, p := range stale {
		if !of(p.Addr()) {
			continue
		}
		if err := w.ns.h.AddrDel(w.guest, &netlink.Addr{IPNet: toIPNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
		w.did("address " + p.String() + " removed")
	}
	return nil
}

// addrs are the link's, but those that IPv6 gives each link by itself.
func (w *wire) addrs() (list []netip.Prefix, err error) {
	have, err := dumpAddrs(w.ns.h, w.guest)
	for _, a := range have {
		p := toPrefix(a.IPNet)
		if p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() || slices.Contains(w.l.Addrs, p) || w.gave(p) {
			list = append(list, p)
		}
	}
	return list, err
}

// routeMark is the protocol of routes that we make, which tells them from those
// of a container's administrator.
const routeMark = 98

// The metrics of routes. The least wins: a default NIC's gateway before that of
// others, as with Zero-OS, and these in the order of the NICs.
const (
	metricDefault6 = 100  // IPv4's is 0
	metricGateway  = 1000 // and the NIC's index
	metric6        = 1024 // what the kernel takes IPv6's 0 for
)

// routes are those that the container should have over the link.
func (w *wire) routes() (list []netlink.Route) {
	add := func(to netip.Prefix, via netip.Addr, metric int) {
		r := netlink.Route{LinkIndex: w.guest.Attrs().Index, Dst: toIPNet(to), Priority: metric, Protocol: routeMark}
		if via.IsValid() {
			r.Gw = via.AsSlice()
			if !slices.ContainsFunc(w.l.Addrs, func(p netip.Prefix) bool { return p.Contains(via) }) && via.Is4() {
				r.Flags = int(netlink.FLAG_ONLINK)
			}
		} else if to.Addr().Is4() {
			r.Scope = netlink.SCOPE_LINK
		}
		list = append(list, r)
	}
	for _, g := range w.l.Gateways {
		all, metric := netip.PrefixFrom(netip.IPv4Unspecified(), 0), metricGateway+w.l.Index
		if g.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if w.l.NIC.Type == NICDefault {
			metric = 0
			if g.Is6() {
				metric = metricDefault6
			}
		}
		add(all, g, metric)
	}
	for _, r := range w.l.NIC.Config.Routes {
		metric := 0
		if r.To.Addr().Is6() {
			metric = metric6
		}
		add(r.To, r.Via, metric)
	}
	return list
}

func (w *wire) setRoutes() error {
	want := w.routes()
	if w.made {
		for _, r := range want {
			if err := w.addRoute(r); err != nil {
				return err
			}
		}
		return nil
	}
	var have []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dumpRoutes(w.ns.h, family)
		if err != nil {
			return err
		}
		have = append(have, routes...)
	}
	for _, r := range want {
		if slices.ContainsFunc(have, func(h netlink.Route) bool { return h.Table == unix.RT_TABLE_MAIN && sameRoute(r, h) }) {
			continue
		}
		if err := w.addRoute(r); err != nil {
			return err
		}
	}
	for _, h := range have {
		ours := h.LinkIndex == w.guest.Attrs().Index && int(h.Protocol) == routeMark && h.Table == unix.RT_TABLE_MAIN
		if !ours || slices.ContainsFunc(want, func(r netlink.Route) bool { return sameTarget(r, h) }) {
			continue
		}
		if err := w.ns.h.RouteDel(&h); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %s: %w", toPrefix(h.Dst), err)
		}
		w.did("route to " + toPrefix(h.Dst).String() + " removed")
	}
	return nil
}

func sameTarget(r, h netlink.Route) bool {
	return toPrefix(r.Dst) == routeDst(h) && r.Priority == h.Priority
}

func sameRoute(r, h netlink.Route) bool {
	return sameTarget(r, h) && r.LinkIndex == h.LinkIndex && r.Gw.Equal(h.Gw)
}

// routeDst is where h leads to; everything is spelled in several ways.
func routeDst(h netlink.Route) netip.Prefix {
	if p := toPrefix(h.Dst); p.IsValid() {
		return p
	}
	if h.Family == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func (w *wire) addRoute(r netlink.Route) error {
	err := w.ns.h.RouteAdd(&r)
	if errors.Is(err, unix.EEXIST) {
		err = w.ns.h.RouteReplace(&r)
	}
	if err != nil {
		return fmt.Errorf("route to %s by %s: %w", toPrefix(r.Dst), r.Gw, err)
	}
	if !w.made {
		w.did("route to " + toPrefix(r.Dst).String())
	}
	return nil
}

package netcfg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Link is the default NIC of a container: a pair of links, one end in the
// container's namespace, one on the bridge.
type Link struct {
	Container string           // required
	Name      string           // in the container; "eth0"
	Addr      netip.Addr       // out of the bridge's prefix // required
	MAC       net.HardwareAddr // made from Addr
	MTU       int              // the kernel's, 1500
}

// Attach gives the namespace at nsPath the link l, with the address, and the
// bridge as its default route. On a namespace that has it, Attach verifies it
// and repairs what is missing, and logs what that was. A failure leaves
// nothing that was not there before.
//
// errs.Conflict: the address is another container's, or the namespace has a
// foreign link of that name. errs.Unavailable: the bridge is not set up.
func (n *Net) Attach(ctx context.Context, nsPath string, l Link) error {
	if err := n.attach(ctx, nsPath, l); err != nil {
		return fmt.Errorf("attach container %s: %w", l.Container, err)
	}
	return nil
}

func (n *Net) attach(ctx context.Context, nsPath string, l Link) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l, err = n.completeLink(l); err != nil {
		return err
	}
	s, err := n.host()
	if err != nil {
		return err
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	if err := n.claim(ctx, s.fast, l); err != nil {
		return err
	}
	undo.Push(func() error { n.claims.release(l); return nil })
	ns, err := n.open(nsPath)
	if err != nil {
		return err
	}
	defer ns.release()
	bridge, err := linkByName(s.fast.Handle, n.cfg.Bridge)
	if isNotFound(err) || err == nil && !n.ownsBridge(bridge) {
		return errs.E(errs.Unavailable, "bridge %s is gone; set the network up again", n.cfg.Bridge)
	}
	if err != nil {
		return err
	}
	changed, err := n.plug(s, ns, l, bridge, &undo)
	if err != nil {
		return err
	}
	did, err := n.setGuest(ns, l)
	if err != nil {
		return fmt.Errorf("interface %s: %w", l.Name, err)
	}
	if changed = append(changed, did...); len(changed) > 0 {
		if err := n.settle(s.fast, ns, l); err != nil {
			return err
		}
		if !ns.fresh {
			n.cfg.Log.Info("container network repaired", "container", l.Container, "changed", changed)
		}
	}
	n.claims.settle(l)
	undo.Keep()
	return nil
}

func (n *Net) completeLink(l Link) (Link, error) {
	if l.Name == "" {
		l.Name = "eth0"
	}
	if err := checkLinkName(l.Name); err != nil {
		return l, err
	}
	if l.Container == "" || len(l.Container) > 200 || strings.ContainsFunc(l.Container, func(r rune) bool { return r < ' ' }) {
		return l, errs.E(errs.Invalid, "container id %q: use 1 to 200 printable characters", l.Container)
	}
	if !n.usable(l.Addr) {
		return l, errs.E(errs.Invalid, "address %s is not one for containers of %s", l.Addr, n.cfg.Prefix)
	}
	if len(l.MAC) == 0 {
		l.MAC = guestMAC(l.Addr)
	}
	if err := checkMAC(l.MAC); err != nil {
		return l, err
	}
	if l.MTU != 0 && (l.MTU < 576 || l.MTU > 65535) {
		return l, errs.E(errs.Invalid, "MTU %d: use 576 to 65535", l.MTU)
	}
	return l, nil
}

// plug makes sure the pair of links is there, with the host end on the bridge.
func (n *Net) plug(s *sockets, ns *space, l Link, bridge netlink.Link, undo *cleanup.Stack) (changed []string, err error) {
	name, alias := n.portName(l.Container), n.portAlias(l.Container)
	guest, err := linkByName(ns.h, l.Name)
	if err != nil && !isNotFound(err) {
		return nil, err
	}
	if err != nil {
		pair := veth{host: name, guest: l.Name, mac: l.MAC, mtu: l.MTU, ns: ns.fd}
		if err := n.addPair(s, pair, alias); err != nil {
			return nil, fmt.Errorf("make link %s: %w", name, err)
		}
		undo.Push(func() error { return n.deletePort(s.slow, name) })
		changed = append(changed, "link")
	} else {
		port, err := linkByName(s.fast.Handle, name)
		if isNotFound(err) || err == nil && guest.Attrs().ParentIndex != port.Attrs().Index {
			return nil, errs.E(errs.Conflict, "the namespace has an interface %s that is not ours", l.Name)
		}
		if err != nil {
			return nil, err
		}
		if a := port.Attrs(); a.MasterIndex == bridge.Attrs().Index && a.Alias == alias && a.Flags&net.FlagUp != 0 {
			return nil, nil
		}
		changed = append(changed, "bridge port")
	}
	if err := s.fast.setPort(name, alias, bridge.Attrs().Index); err != nil {
		return nil, fmt.Errorf("put link %s on bridge %s: %w", name, n.cfg.Bridge, err)
	}
	return changed, n.setHairpin(s.fast, name)
}

// addPair makes the pair. A host end that is there already belongs to a former
// namespace of the container, which ended or is about to.
func (n *Net) addPair(s *sockets, pair veth, alias string) error {
	err := s.fast.addVeth(pair)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	old, err := linkByName(s.fast.Handle, pair.host)
	if err == nil && old.Attrs().Alias != alias && old.Attrs().Alias != "" {
		return errs.E(errs.Conflict, "interface %s is not ours (alias %q)", pair.host, old.Attrs().Alias)
	}
	if err != nil && !isNotFound(err) {
		return err
	}
	if err := n.deletePort(s.slow, pair.host); err != nil {
		return err
	}
	return s.fast.addVeth(pair)
}

// deletePort is fine with a link that is gone.
func (n *Net) deletePort(s *sock, name string) error {
	link, err := linkByName(s.Handle, name)
	if err == nil {
		err = s.LinkDel(link)
	}
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// settle makes the kernel act on the carrier that links have now: by itself it
// does so up to a second later, and until then the port and a bridge that had
// none drop packets (one start in ten, 2026-11). Asking for a link does it at
// once since Linux 6.8.
func (n *Net) settle(s *sock, ns *space, l Link) error {
	_, errPort := linkByName(s.Handle, n.portName(l.Container))
	_, errBridge := linkByName(s.Handle, n.cfg.Bridge)
	_, errGuest := linkByName(ns.h, l.Name)
	return errors.Join(errPort, errBridge, errGuest)
}

// setGuest makes right what is inside the namespace.
func (n *Net) setGuest(ns *space, l Link) (changed []string, err error) {
	link, err := linkByName(ns.h, l.Name)
	if err != nil {
		return nil, err
	}
	if !ns.fresh {
		if err := ns.h.LinkSetUp(lo()); err != nil {
			return nil, fmt.Errorf("set lo up: %w", err)
		}
	}
	a := link.Attrs()
	if !bytes.Equal(a.HardwareAddr, l.MAC) {
		if err := ns.h.LinkSetHardwareAddr(link, l.MAC); err != nil {
			return changed, fmt.Errorf("set MAC %s: %w", l.MAC, err)
		}
		changed = append(changed, "mac")
	}
	if l.MTU != 0 && a.MTU != l.MTU {
		if err := ns.h.LinkSetMTU(link, l.MTU); err != nil {
			return changed, fmt.Errorf("set MTU %d: %w", l.MTU, err)
		}
		changed = append(changed, "mtu")
	}
	if a.Flags&net.FlagUp == 0 {
		if err := ns.h.LinkSetUp(link); err != nil {
			return changed, fmt.Errorf("set up: %w", err)
		}
		changed = append(changed, "up")
	}
	did, err := n.setGuestAddr(ns.h, link, l.Addr)
	if did {
		changed = append(changed, "address")
	}
	if err != nil {
		return changed, err
	}
	did, err = n.setGuestRoute(ns.h, link)
	if did {
		changed = append(changed, "route")
	}
	return changed, err
}

// setGuestAddr gives link the address and takes others of our prefix away; what
// a container's own administrator added is his.
func (n *Net) setGuestAddr(h *netlink.Handle, link netlink.Link, addr netip.Addr) (changed bool, err error) {
	want := netip.PrefixFrom(addr, n.cfg.Prefix.Bits())
	have, err := dumpAddrs(h, link, netlink.FAMILY_V4)
	if err != nil {
		return false, err
	}
	there := false
	for _, a := range have {
		p := toPrefix(a.IPNet)
		if p == want {
			there = true
			continue
		}
		if n.cfg.Prefix.Contains(p.Addr()) {
			if err := h.AddrDel(link, &a); err != nil {
				return changed, fmt.Errorf("remove address %s: %w", p, err)
			}
			changed = true
		}
	}
	if there {
		return changed, nil
	}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: toIPNet(want)}); err != nil {
		return changed, fmt.Errorf("add address %s: %w", want, err)
	}
	return true, nil
}

// setGuestRoute makes the gateway the way out.
func (n *Net) setGuestRoute(h *netlink.Handle, link netlink.Link) (bool, error) {
	want := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.gateway.AsSlice()}
	err := h.RouteAdd(want)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("add default route: %w", err)
	}
	routes, err := dumpRoutes(h)
	if err != nil {
		return false, err
	}
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_MAIN && toPrefix(r.Dst).Bits() <= 0 && r.LinkIndex == want.LinkIndex && r.Gw.Equal(want.Gw) {
			return false, nil
		}
	}
	if err := h.RouteReplace(want); err != nil {
		return false, fmt.Errorf("replace default route: %w", err)
	}
	return true, nil
}

// Detach deletes the container's link now. It is needed where the namespace
// may live on; closing the namespace does the same in the background, and the
// caller does not wait 16 ms for it. No link is fine.
func (n *Net) Detach(ctx context.Context, container string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("detach container %s: %w", container, err)
	}
	s, err := n.host()
	if err != nil {
		return fmt.Errorf("detach container %s: %w", container, err)
	}
	link, err := linkByName(s.slow.Handle, n.portName(container))
	if err == nil {
		if of, ours := n.ownsPort(link); !ours || of != container && of != "" {
			return errs.E(errs.Conflict, "detach container %s: interface %s is not ours", container, link.Attrs().Name)
		}
		err = s.slow.LinkDel(link)
	}
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("detach container %s: %w", container, err)
	}
	n.claims.drop(container)
	return nil
}

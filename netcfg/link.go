package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Link is one NIC of a container with every choice made: what Attach makes.
type Link struct {
	Container string           // required
	Index     int              // which of the container's NICs: with Container it names the host end
	NIC       NIC              // Type, ID, HWAddr and Config of it: what it joins, MTU, rate, routes
	Name      string           // in the container; "eth<Index>"
	MAC       net.HardwareAddr // that of NIC, or made from Container, Index and first address
	Addrs     []netip.Prefix   // a default NIC has one of the bridge's, and its IPv6 twin if there is to be one
	Gateways  []netip.Addr     // a default NIC's are the bridge's
	Answers   bool             // what was asked at its IPv4 address is answered through it, whatever else leads to who asked
}

// maxNICs bounds Index. It is also how far the metrics of gateways reach.
const maxNICs = 100

// Complete is l with the choices that netcfg makes.
func (n *Net) Complete(l Link) (Link, error) {
	s, err := n.host()
	if err != nil {
		return l, err
	}
	_, err = n.complete(s.fast, &l)
	return l, err
}

// complete checks l, fills in what it leaves open, and says what it joins.
func (n *Net) complete(s *sock, l *Link) (j joint, err error) {
	if l.Name == "" {
		l.Name = fmt.Sprint("eth", l.Index)
	}
	if err := checkLinkName(l.Name); err != nil {
		return j, err
	}
	if l.Container == "" || len(l.Container) > 200 || strings.ContainsFunc(l.Container, func(r rune) bool { return r < ' ' }) {
		return j, errs.E(errs.Invalid, "container id %q: use 1 to 200 printable characters", l.Container)
	}
	if l.Index < 0 || l.Index >= maxNICs {
		return j, errs.E(errs.Invalid, "NIC %d: a container has at most %d", l.Index, maxNICs)
	}
	if err := l.NIC.Validate(); err != nil {
		return j, err
	}
	if err := n.completeAddrs(l); err != nil {
		return j, err
	}
	if j, err = n.joint(s, l); err != nil {
		return j, err
	}
	if mtu := l.NIC.Config.MTU; mtu > j.mtu && j.mtu != 0 {
		return j, l.NIC.bad("MTU %d is more than the %d of %s", mtu, j.mtu, j.what())
	} else if mtu != 0 {
		j.mtu = mtu
	}
	return j, l.completeMAC(j)
}

func (n *Net) completeAddrs(l *Link) error {
	if l.NIC.Type == NICDefault {
		if len(l.Addrs) == 0 || !n.usable(l.Addrs[0].Addr()) {
			return errs.E(errs.Invalid, "address %s is not one for containers of %s", l.Addrs, n.cfg.Prefix)
		}
		l.Addrs = n.DefaultAddrs(l.Addrs[0].Addr())
		l.Gateways = []netip.Addr{n.gateway}
		if n.cfg.Prefix6.IsValid() {
			l.Gateways = append(l.Gateways, n.twin(n.gateway).Addr())
		}
		return nil
	}
	asked := l.NIC // as if the container's description had named them
	asked.Config.DHCP, asked.Config.CIDRs = false, l.Addrs
	if !l.NIC.Config.DHCP { // a lease may name a gateway outside its network
		asked.Config.Gateways = l.Gateways
	}
	if asked.Type == NICCNI {
		return errs.E(errs.Invalid, "%s is made by its plugins", l.NIC)
	}
	return asked.Validate()
}

func (l *Link) completeMAC(j joint) (err error) {
	if l.NIC.Type == NICIPvlan {
		l.MAC = nil
		return nil
	}
	if len(l.MAC) == 0 && l.NIC.HWAddr != "" {
		if l.MAC, err = net.ParseMAC(l.NIC.HWAddr); err != nil {
			return err
		}
	}
	if len(l.MAC) == 0 {
		if l.NIC.Type == NICPassthrough {
			return nil // its own
		}
		l.MAC = guestMAC(*l, j.near)
	}
	return checkMAC(l.MAC)
}

// CheckLink says what keeps l from being made, before anything is: the machine
// lacks what it joins or the kernel what it takes (errs.Invalid,
// errs.Unavailable), or somebody else has what it needs (errs.Conflict).
func (n *Net) CheckLink(l Link) error {
	s, err := n.host()
	if err != nil {
		return err
	}
	j, err := n.complete(s.fast, &l)
	if err != nil {
		return err
	}
	if err := n.claims.check(l); err != nil {
		return err
	}
	if err := n.checkOwn(s.fast, l, j); err != nil {
		return err
	}
	if err := n.checkKernel(s.fast, j); err != nil {
		return fmt.Errorf("%s: %w", l.NIC, err)
	}
	if len(j.devices) > 0 {
		w := j.want(n)
		w.self = n.portName(l.Container, l.Index)
		m, err := n.readDevices(s.fast, w)
		if err != nil {
			return err
		}
		if _, err := plan(w, m); err != nil {
			return fmt.Errorf("%s: %w", l.NIC, err)
		}
	}
	if j.nic == "" {
		return nil
	}
	had, err := n.readRecord(n.recordFile(l.holder()))
	if err == nil && (had.Lent == nil || had.Lent.NIC != j.nic) { // else it has it, or had it last
		_, err = n.lendable(s.fast, l)
	}
	return err
}

// checkOwn refuses an address that the machine has itself on the link that is
// shared.
func (n *Net) checkOwn(s *sock, l Link, j joint) error {
	if j.parent == "" || j.child == "" {
		return nil
	}
	parent, err := linkByName(s.Handle, j.parent)
	if err != nil {
		return err
	}
	have, err := dumpAddrs(s.Handle, parent)
	if err != nil {
		return err
	}
	for _, a := range have {
		own := toPrefix(a.IPNet).Addr()
		if slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == own }) {
			return errs.E(errs.Conflict, "%s: address %s is this node's own, on %s", l.NIC, own, j.parent)
		}
	}
	return nil
}

// Attach gives the namespace at nsPath the NIC l, and makes what it joins where
// that is ours to make. On a namespace that has it, Attach verifies it, repairs
// what is missing, changes what l says otherwise now, and logs what that was.
// Addresses and routes that a container's own administrator added stay. A
// failure leaves nothing that was not there before; where it comes in the middle
// of a change, Attach with the former l goes back.
//
// errs.Conflict: an address or MAC is another container's on that network, or
// the namespace has a foreign link of that name. Otherwise as CheckLink.
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
	s, err := n.host()
	if err != nil {
		return err
	}
	j, err := n.complete(s.fast, &l)
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
	if len(j.devices) > 0 {
		undo.Push(func() error { return n.dropIdle(j.names()) })
	}
	moved, err := n.attachTo(ctx, s, ns, l, j)
	if err != nil {
		return err
	}
	n.claims.settle(l)
	undo.Keep()
	if moved {
		return n.dropIdle(nil) // the VLAN that it was on
	}
	return nil
}

// attachTo makes the link while nobody deletes what it joins.
func (n *Net) attachTo(ctx context.Context, s *sockets, ns *space, l Link, j joint) (moved bool, err error) {
	n.life.RLock()
	defer n.life.RUnlock()
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	w := &wire{n: n, s: s, ns: ns, l: l, j: j, undo: &undo}
	if err := n.note(w); err != nil {
		return false, err
	}
	switch {
	case j.nic != "":
		err = w.lend(ctx)
	case j.child != "":
		err = w.share()
	default:
		err = w.plug(ctx)
	}
	if err != nil {
		return false, err
	}
	if err := w.setGuest(); err != nil {
		return false, fmt.Errorf("interface %s: %w", l.Name, err)
	}
	if len(w.changed) > 0 {
		if err := w.settle(); err != nil {
			return false, err
		}
		if !ns.fresh {
			n.cfg.Log.Info("container network changed", "container", l.Container, "nic", l.Name, "changed", w.changed)
		}
	}
	if err := w.noted(); err != nil {
		return false, err
	}
	undo.Keep()
	return w.moved, nil
}

// wire is a link while Attach works on it.
type wire struct {
	n       *Net
	s       *sockets
	ns      *space
	l       Link
	j       joint
	undo    *cleanup.Stack
	had     record       // what an earlier Attach gave the container
	guest   netlink.Link // the container's end, once it is there
	made    bool         // just now: nothing but what we gave it is on it
	moved   bool         // from another bridge
	changed []string
}

func (w *wire) did(what string) { w.changed = append(w.changed, what) }

// settle makes the kernel act on the carrier that links have now: by itself it
// does so up to a second later, and until then the port and a bridge that had
// none drop packets (one start in ten, 2026-11). Asking for a link does it at
// once since Linux 6.8.
func (w *wire) settle() error {
	_, err := linkByName(w.ns.h, w.l.Name)
	if w.j.bridge != "" {
		_, errPort := linkByName(w.s.fast.Handle, w.n.portName(w.l.Container, w.l.Index))
		_, errBridge := linkByName(w.s.fast.Handle, w.j.bridge)
		err = errors.Join(errPort, errBridge, err)
	}
	return err
}

// Detach takes the NIC away now: from the namespace at nsPath, "" when there is
// none any more. A NIC of the machine's goes back to it as it was. What only
// this NIC needed of a VLAN or VXLAN goes with it. No NIC is fine.
//
// Closing the namespace deletes a default or bridge NIC as well, in the
// background, and its caller does not wait 16 ms for that. All others need
// Detach, sooner or later.
func (n *Net) Detach(ctx context.Context, nsPath string, l Link) error {
	if err := n.detach(ctx, nsPath, l); err != nil {
		return fmt.Errorf("detach container %s: %w", l.Container, err)
	}
	return nil
}

func (n *Net) detach(ctx context.Context, nsPath string, l Link) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := n.host()
	if err != nil {
		return err
	}
	if l.Name == "" {
		l.Name = fmt.Sprint("eth", l.Index)
	}
	n.claims.drop(l.holder())
	switch l.NIC.Type {
	case NICPassthrough:
		err = n.giveBack(ctx, s, nsPath, l)
	case NICMacvlan, NICIPvlan:
		err = n.unshare(nsPath, l)
	case NICVLAN:
		if l.NIC.ID == "0" {
			err = n.unshare(nsPath, l) // where the uplink is no bridge
		}
		err = errors.Join(err, n.unplug(s, l))
	default:
		err = n.unplug(s, l)
	}
	if err != nil {
		return err
	}
	if err := n.forgetRecord(l.holder()); err != nil {
		return err
	}
	if l.NIC.Type == NICVLAN || l.NIC.Type == NICVXLAN {
		n.leavePeers(l.holder())
		return n.dropIdle(nil)
	}
	return nil
}

// sameSet says whether two lists name the same, in any order.
func sameSet[T comparable](a, b []T) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x T) bool { return !slices.Contains(b, x) })
}

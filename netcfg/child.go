package netcfg

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// childModes are the modes of links that share another, as the kernel has
// them, and as the library tells what is there.
var childModes = map[string]map[string]struct{ kernel, told uint32 }{
	"macvlan": {
		"bridge":  {nl.MACVLAN_MODE_BRIDGE, uint32(netlink.MACVLAN_MODE_BRIDGE)},
		"private": {nl.MACVLAN_MODE_PRIVATE, uint32(netlink.MACVLAN_MODE_PRIVATE)},
		"vepa":    {nl.MACVLAN_MODE_VEPA, uint32(netlink.MACVLAN_MODE_VEPA)},
	},
	"ipvlan": {"l2": {0, uint32(netlink.IPVLAN_MODE_L2)}, "l3": {1, uint32(netlink.IPVLAN_MODE_L3)}, "l3s": {2, uint32(netlink.IPVLAN_MODE_L3S)}},
}

// share makes sure the namespace has a link that shares one of the machine's:
// a macvlan or ipvlan. It is made inside, so nothing of it is on the host, and
// it ends with the namespace.
func (w *wire) share() error {
	parent, err := linkByName(w.s.fast.Handle, w.j.parent)
	if err != nil {
		return err
	}
	child := childLink{
		kind: w.j.child, parent: parent.Attrs().Index, mode: childModes[w.j.child][w.j.mode].kernel,
		mac: w.l.MAC, mtu: w.j.mtu, ns: w.ns.fd,
	}
	w.guest, err = linkByName(w.ns.h, cmp.Or(w.had.Name, w.l.Name))
	if w.had.Name != "" && isNotFound(err) {
		w.guest, err = linkByName(w.ns.h, w.l.Name)
	}
	switch {
	case err == nil && w.shares(parent):
		if w.guest.Attrs().Name != w.l.Name {
			return w.rename()
		}
		return nil
	case err == nil && (w.had.Name == "" || w.guest.Type() != "macvlan" && w.guest.Type() != "ipvlan"):
		return w.foreign()
	case err == nil: // ours, on another link or in another mode
		if err := w.ns.h.LinkDel(w.guest); err != nil {
			return fmt.Errorf("delete interface %s: %w", w.guest.Attrs().Name, err)
		}
	case !isNotFound(err):
		return err
	}
	return w.addChild(child)
}

// addChild makes the link under a name that nobody else has: Linux 6.1 and others
// look for one that is taken in the namespace of who asks, not in that where it
// is made.
func (w *wire) addChild(child childLink) error {
	inside := &sock{Handle: w.ns.h}
	child.name = w.n.portName(w.l.Container, w.l.Index)
	err := w.s.fast.addChild(child)
	if errors.Is(err, unix.EEXIST) { // of an Attach that did not live to name it
		if err := deletePort(inside, child.name); err != nil {
			return err
		}
		err = w.s.fast.addChild(child)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.l.NIC, childRefused(err, w.j))
	}
	w.made = true
	w.undo.Push(func() error {
		return errors.Join(deletePort(inside, child.name), deletePort(inside, w.l.Name))
	})
	link, err := linkByName(w.ns.h, child.name)
	if err != nil {
		return err
	}
	if err := w.ns.h.LinkSetName(link, w.l.Name); err != nil {
		return fmt.Errorf("name interface %s: %w", w.l.Name, err)
	}
	return w.find(nil)
}

// shares says whether what the container has shares parent as it should.
func (w *wire) shares(parent netlink.Link) bool {
	if w.guest.Attrs().ParentIndex != parent.Attrs().Index || w.guest.Type() != w.j.child {
		return false
	}
	mode := childModes[w.j.child][w.j.mode].told
	switch l := w.guest.(type) {
	case *netlink.Macvlan:
		return uint32(l.Mode) == mode
	case *netlink.IPVlan:
		return uint32(l.Mode) == mode
	}
	return false
}

// childRefused says why the kernel made no link.
func childRefused(err error, j joint) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return lacks(j.child)
	case errors.Is(err, unix.EBUSY):
		return errs.E(errs.Conflict, "link %s cannot be shared: it is a port of a bridge or a bond, or is shared in another way (macvlan and ipvlan exclude each other)", j.parent)
	case errors.Is(err, unix.EINVAL):
		return errs.E(errs.Invalid, "link %s cannot be shared: %w", j.parent, err)
	}
	return err
}

// unshare deletes what share made. Without a namespace it is gone already.
func (n *Net) unshare(nsPath string, l Link) error {
	if nsPath == "" {
		return nil
	}
	ns, err := n.open(nsPath)
	if errors.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.release()
	had, err := n.readRecord(n.recordFile(l.holder()))
	if err != nil {
		return err
	}
	link, err := linkByName(ns.h, cmp.Or(had.Name, l.Name))
	if isNotFound(err) || err == nil && link.Type() != "macvlan" && link.Type() != "ipvlan" {
		return nil
	}
	if err != nil {
		return err
	}
	if err := ns.h.LinkDel(link); err != nil && !isNotFound(err) {
		return fmt.Errorf("delete interface %s: %w", l.Name, err)
	}
	return nil
}

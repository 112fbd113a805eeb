package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// plug makes sure a pair of links is there, with the host's end on the bridge.
func (w *wire) plug(ctx context.Context) error {
	bridge, err := w.bridge(ctx)
	if err != nil {
		return err
	}
	name := w.n.portName(w.l.Container, w.l.Index)
	pair := veth{host: name, guest: w.l.Name, mac: w.l.MAC, mtu: w.j.mtu, ns: w.ns.fd}
	if w.guest, err = linkByName(w.ns.h, w.l.Name); isNotFound(err) {
		err = w.addPair(pair)
		if w.made {
			w.undo.Push(func() error { return deletePort(w.s.slow, name) })
		}
	}
	if err != nil {
		return fmt.Errorf("make link %s: %w", name, err)
	}
	if !w.made {
		if right, err := w.checkPort(name, bridge); err != nil || right {
			return errors.Join(err, w.limitPort(name))
		}
	}
	if err := w.s.fast.setPort(name, w.n.portAlias(w.l.Container, w.l.Index), bridge.Attrs().Index); err != nil {
		return fmt.Errorf("put link %s on bridge %s: %w", name, w.j.bridge, err)
	}
	if w.j.loops {
		if err := w.n.setHairpin(w.s.fast, name); err != nil {
			return err
		}
	}
	return w.limitPort(name)
}

// bridge is what the host's end goes on, made first if that is for us to do.
func (w *wire) bridge(ctx context.Context) (netlink.Link, error) {
	if len(w.j.devices) > 0 {
		w.undo.Push(w.n.rememberPeers(w.j.bridge, w.l.holder()))
		changed, err := w.n.makeSegment(w.s.fast, w.l, w.j)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.l.NIC, err)
		}
		w.changed = append(w.changed, changed...)
	}
	bridge, err := linkByName(w.s.fast.Handle, w.j.bridge)
	if w.l.NIC.Type == NICDefault && (isNotFound(err) || err == nil && (!w.n.ownsBridge(bridge) || !w.n.useDefault.Load())) {
		if err := w.n.Setup(ctx); err != nil {
			return nil, err
		}
		bridge, err = linkByName(w.s.fast.Handle, w.j.bridge)
	}
	if isNotFound(err) {
		return nil, errs.E(errs.Unavailable, "bridge %s is gone", w.j.bridge)
	}
	return bridge, err
}

// addPair makes the pair. A host's end that is there already belongs to this
// namespace, where the other end bears another name, or to a former one of the
// container's, which ended or is about to.
func (w *wire) addPair(pair veth) error {
	err := w.s.fast.addVeth(pair)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return lacks("veth")
	}
	if err == nil || !errors.Is(err, unix.EEXIST) {
		w.made = err == nil
		return w.find(err)
	}
	old, err := linkByName(w.s.fast.Handle, pair.host)
	if err == nil {
		of, ours := w.n.ownsPort(old)
		if !ours || of.container != "" && of != w.l.holder() {
			return errs.E(errs.Conflict, "interface %s is not ours (alias %q)", pair.host, old.Attrs().Alias)
		}
		guest, errGuest := w.ns.h.LinkByIndex(old.Attrs().ParentIndex)
		if errGuest == nil && guest.Attrs().ParentIndex == old.Attrs().Index && guest.Type() == "veth" {
			w.guest = guest
			return w.rename()
		}
	}
	if err != nil && !isNotFound(err) {
		return err
	}
	if err := deletePort(w.s.slow, pair.host); err != nil {
		return err
	}
	err = w.s.fast.addVeth(pair)
	w.made = err == nil
	return w.find(err)
}

// find looks at the end that has just been made in the namespace.
func (w *wire) find(err error) error {
	if err != nil {
		return err
	}
	w.did("link")
	w.guest, err = linkByName(w.ns.h, w.l.Name)
	return err
}

// rename gives the container's end its name. Linux before 6.2 does that to
// links that are down alone; routes are put back afterwards.
func (w *wire) rename() error {
	w.did("name")
	err := w.ns.h.LinkSetName(w.guest, w.l.Name)
	if errors.Is(err, unix.EBUSY) {
		err = errors.Join(w.ns.h.LinkSetDown(w.guest), w.ns.h.LinkSetName(w.guest, w.l.Name))
	}
	if err != nil {
		return fmt.Errorf("rename interface %s: %w", w.guest.Attrs().Name, err)
	}
	w.guest, err = linkByName(w.ns.h, w.l.Name)
	return err
}

// checkPort says whether the host's end of a pair that was there is as it
// should be, but for its rate.
func (w *wire) checkPort(name string, bridge netlink.Link) (right bool, err error) {
	port, err := linkByName(w.s.fast.Handle, name)
	if isNotFound(err) || err == nil && w.guest.Attrs().ParentIndex != port.Attrs().Index {
		return false, w.foreign()
	}
	if err != nil {
		return false, err
	}
	a := port.Attrs()
	if a.MTU != w.j.mtu {
		if err := w.s.fast.LinkSetMTU(port, w.j.mtu); err != nil {
			return false, fmt.Errorf("set MTU %d of %s: %w", w.j.mtu, name, err)
		}
		w.did("bridge port's mtu")
	}
	alias := w.n.portAlias(w.l.Container, w.l.Index)
	w.moved = a.MasterIndex != bridge.Attrs().Index
	if a.MasterIndex == bridge.Attrs().Index && a.Alias == alias && a.Flags&net.FlagUp != 0 {
		return true, nil
	}
	w.did("bridge port")
	return false, nil
}

func (w *wire) foreign() error {
	return errs.E(errs.Conflict, "the namespace has an interface %s that is not ours", w.l.Name)
}

// limitPort bounds what comes to the container: that is what leaves the host's end.
func (w *wire) limitPort(name string) error {
	rate := w.l.NIC.Config.Rate.In
	if w.made && rate == 0 {
		return nil
	}
	port, err := linkByName(w.s.fast.Handle, name)
	if err != nil {
		return err
	}
	did, err := setRate(w.s.fast.Handle, port, rate, w.j.mtu)
	if did {
		w.did("rate in")
	}
	return err
}

// unplug deletes the host's end, and with it the other.
func (n *Net) unplug(s *sockets, l Link) error {
	name := n.portName(l.Container, l.Index)
	link, err := linkByName(s.slow.Handle, name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if of, ours := n.ownsPort(link); !ours || of.container != "" && of != l.holder() {
		return errs.E(errs.Conflict, "interface %s is not ours", name)
	}
	return deletePort(s.slow, name)
}

// deletePort is fine with a link that is gone.
func deletePort(s *sock, name string) error {
	link, err := linkByName(s.Handle, name)
	if err == nil {
		err = s.LinkDel(link)
	}
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

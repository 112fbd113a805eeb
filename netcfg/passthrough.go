package netcfg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// lent is what a NIC of the machine's was like before a container got it. In
// the container's namespace and back, its alias tells it from others: with the
// namespace of a container that ended the kernel gives the NIC back under the
// name that it had there, or another, down and without addresses.
type lent struct {
	NIC   string // its name
	MAC   string
	MTU   int
	Up    bool
	Alias string
}

func (n *Net) lentAlias(nic string) string { return n.alias() + markPassthrough + nic }

// lendable is the NIC that l asks for, if the machine can do without it.
func (n *Net) lendable(s *sock, l Link) (netlink.Link, error) {
	refuse := func(why string, args ...any) error {
		return errs.E(errs.Conflict, "%s: %s", l.NIC, fmt.Sprintf(why, args...))
	}
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(links, func(k netlink.Link) bool { return k.Attrs().Alias == n.lentAlias(l.NIC.ID) })
	if i >= 0 {
		return links[i], nil // it was lent before
	}
	if i = slices.IndexFunc(links, func(k netlink.Link) bool { return k.Attrs().Name == l.NIC.ID }); i < 0 {
		return nil, errs.E(errs.Invalid, "%s: this node has no such NIC, or another container has it", l.NIC)
	}
	a := links[i].Attrs()
	if kind := links[i].Type(); strings.HasPrefix(a.Alias, aliasMark) || kind == "bridge" {
		return nil, refuse("it is no NIC but a link of kind %s (alias %q)", kind, a.Alias)
	}
	if a.MasterIndex != 0 {
		return nil, refuse("it is a port of a bridge or a bond")
	}
	for _, k := range links {
		if k.Attrs().ParentIndex == a.Index && k.Attrs().NetNsID < 0 && k.Type() != "veth" {
			return nil, refuse("link %s is on it", k.Attrs().Name)
		}
	}
	if other, shared := n.claims.on(a.Name); shared {
		return nil, refuse("a NIC of %s is on it", other)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dumpRoutes(s.Handle, family)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if r.LinkIndex == a.Index && routeDst(r).Bits() == 0 && r.Type == unix.RTN_UNICAST {
				return nil, refuse("the machine's default route goes over it")
			}
		}
	}
	addrs, err := dumpAddrs(s.Handle, links[i])
	if err != nil {
		return nil, err
	}
	for _, ad := range addrs {
		if p := toPrefix(ad.IPNet); !p.Addr().IsLinkLocalUnicast() {
			return nil, refuse("the machine has the address %s on it", p)
		}
	}
	return links[i], nil
}

// lend makes sure the namespace has the machine's NIC.
func (w *wire) lend(ctx context.Context) (err error) {
	alias := w.n.lentAlias(w.j.nic)
	links, err := dumpLinks(w.ns.h)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().Alias != alias {
			continue
		}
		w.guest = l
		if l.Attrs().Name != w.l.Name {
			err = w.rename()
		}
		w.lentMAC()
		return err
	}
	if slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == w.l.Name }) {
		return w.foreign()
	}
	if err := w.n.restoreFormer(w.s.slow, w.l); err != nil {
		return err
	}
	var nic netlink.Link
	err = w.n.wait(ctx, func() (there bool, err error) {
		nic, err = w.n.lendable(w.s.slow, w.l)
		return err == nil || w.had.Lent == nil, err // a former namespace of the container's may be about to end
	})
	if err != nil {
		return err
	}
	if w.had.Lent == nil || nic.Attrs().Alias != alias {
		a := nic.Attrs()
		w.had.Lent = &lent{NIC: a.Name, MAC: a.HardwareAddr.String(), MTU: a.MTU, Up: a.Flags&net.FlagUp != 0, Alias: a.Alias}
		if err := w.n.writeRecord(record{Container: w.l.Container, Index: w.l.Index, Name: w.l.Name, Addrs: w.l.Addrs, Lent: w.had.Lent}); err != nil {
			return err
		}
	}
	was := *w.had.Lent
	w.undo.Push(func() error { return w.n.restore(w.s.slow, was) })
	if err := w.s.slow.LinkSetAlias(nic, alias); err != nil {
		return fmt.Errorf("mark %s: %w", w.j.nic, err)
	}
	w.undo.Push(func() error { return w.n.takeBack(w.ns, was) })
	if err := w.s.slow.moveLink(nic.Attrs().Index, w.ns.fd, w.l.Name); err != nil {
		return fmt.Errorf("move %s into the namespace: %w", w.j.nic, err)
	}
	w.did("link")
	w.lentMAC()
	w.guest, err = linkByName(w.ns.h, w.l.Name)
	return err
}

// restoreFormer makes the NIC what it was before other containers had it, if it
// came back from one that nobody detached.
func (n *Net) restoreFormer(s *sock, l Link) error {
	records, err := n.records()
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Lent == nil || r.Lent.NIC != l.NIC.ID || r.holder() == l.holder() {
			continue
		}
		if err := n.restore(s, *r.Lent); err != nil {
			return err
		}
		if err := n.forgetRecord(r.holder()); err != nil {
			return err
		}
	}
	return nil
}

// lentMAC has a NIC that once was asked for another MAC, or MTU, bear its own
// when it is not any more.
func (w *wire) lentMAC() {
	if w.had.Lent == nil {
		return
	}
	if len(w.l.MAC) == 0 {
		w.l.MAC, _ = net.ParseMAC(w.had.Lent.MAC)
	}
	w.j.mtu = cmp.Or(w.j.mtu, w.had.Lent.MTU)
}

// wait asks until done, for as long as the kernel may take to clear up after a
// namespace, and gives the last answer.
func (n *Net) wait(ctx context.Context, done func() (bool, error)) error {
	const patience, pause = 2 * time.Second, 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		ok, err := done()
		if ok || waited >= patience {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// giveBack returns the NIC to the machine, from the namespace at nsPath or
// from where the kernel puts it when that ended. Where the namespace lives on,
// unknown to us, Sweep finds the NIC later.
func (n *Net) giveBack(ctx context.Context, s *sockets, nsPath string, l Link) error {
	r, err := n.readRecord(n.recordFile(l.holder()))
	if err != nil || r.Lent == nil {
		return err
	}
	if nsPath != "" {
		ns, err := n.open(nsPath)
		if err == nil {
			err = n.takeBack(ns, *r.Lent)
			ns.release()
		}
		if err != nil && !errors.Is(err, errs.NotFound) {
			return err
		}
	}
	return n.wait(ctx, func() (bool, error) {
		err := n.restore(s.slow, *r.Lent)
		return !errors.Is(err, errs.Unavailable), err
	})
}

// takeBack moves a lent NIC that is in ns to the machine. None is fine.
func (n *Net) takeBack(ns *space, was lent) error {
	links, err := dumpLinks(ns.h)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Alias == n.lentAlias(was.NIC) })
	if i < 0 {
		return nil
	}
	return n.withHostNS(func(host int) error {
		inside, err := ns.sock()
		if err != nil {
			return err
		}
		defer inside.close()
		err = inside.moveLink(links[i].Attrs().Index, host, was.NIC)
		if errors.Is(err, unix.EEXIST) { // somebody else took its name meanwhile
			err = inside.moveLink(links[i].Attrs().Index, host, n.born("bp")+hash(9, was.NIC))
		}
		if err != nil {
			return fmt.Errorf("move %s back: %w", was.NIC, err)
		}
		return nil
	})
}

// restore makes a NIC that is back what it was. One that never got its alias
// is untouched.
//
// errs.Unavailable: it is not back.
func (n *Net) restore(s *sock, was lent) error {
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Alias == n.lentAlias(was.NIC) })
	if i < 0 {
		if slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == was.NIC }) {
			return nil
		}
		return errs.E(errs.Unavailable, "%s is not back from its container", was.NIC)
	}
	nic, a := links[i], links[i].Attrs()
	mac, err := net.ParseMAC(was.MAC)
	if err != nil {
		return err
	}
	if err := s.LinkSetDown(nic); err != nil {
		return err
	}
	if a.Name != was.NIC {
		if err := s.LinkSetName(nic, was.NIC); err != nil {
			return fmt.Errorf("name %s %s again: %w", a.Name, was.NIC, err)
		}
	}
	addrs, err := dumpAddrs(s.Handle, nic)
	if err != nil {
		return err
	}
	for _, ad := range addrs {
		if err := s.AddrDel(nic, &ad); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
	if a.HardwareAddr.String() != was.MAC {
		if err := s.LinkSetHardwareAddr(nic, mac); err != nil {
			return fmt.Errorf("give %s its MAC again: %w", was.NIC, err)
		}
	}
	if a.MTU != was.MTU {
		if err := s.LinkSetMTU(nic, was.MTU); err != nil {
			return fmt.Errorf("give %s its MTU again: %w", was.NIC, err)
		}
	}
	if _, err := setRate(s.Handle, nic, 0, 0); err != nil {
		return err
	}
	if was.Up {
		if err := s.LinkSetUp(nic); err != nil {
			return err
		}
	}
	// Last: until then it is known as one that is to be restored.
	return s.LinkSetAlias(nic, was.Alias)
}

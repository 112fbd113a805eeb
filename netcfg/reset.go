package netcfg

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Sweep deletes the links of this instance whose container is not live, what
// VLANs and VXLANs then have no container, and takes back the NICs that those
// containers had of the machine.
func (n *Net) Sweep(ctx context.Context, live func(container string) bool) error {
	if err := n.sweep(ctx, live); err != nil {
		return fmt.Errorf("sweep links: %w", err)
	}
	return nil
}

func (n *Net) sweep(ctx context.Context, live func(container string) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := n.host()
	if err != nil {
		return err
	}
	if err := n.sweepPorts(s.slow, live); err != nil {
		return err
	}
	records, err := n.records()
	if err != nil {
		return err
	}
	for _, r := range records {
		if live(r.Container) {
			continue
		}
		n.claims.drop(r.holder())
		n.leavePeers(r.holder())
		if r.Lent != nil {
			err := n.wait(ctx, func() (bool, error) {
				err := n.restore(s.slow, *r.Lent)
				return !errors.Is(err, errs.Unavailable), err
			})
			if errors.Is(err, errs.Unavailable) { // its namespace lives on somewhere
				n.cfg.Log.Warn("a lent NIC is not back", "nic", r.Lent.NIC, "container", r.Container)
				continue
			}
			if err != nil {
				return err
			}
		}
		if err := n.forgetRecord(r.holder()); err != nil {
			return err
		}
	}
	return n.dropIdle(nil)
}

func (n *Net) sweepPorts(s *sock, live func(container string) bool) error {
	n.life.Lock()
	defer n.life.Unlock()
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return err
	}
	var dead []netlink.Link
	for _, l := range links {
		if of, ours := n.ownsPort(l); ours && !live(of.container) {
			dead = append(dead, l)
			n.claims.drop(of)
		}
	}
	if len(dead) > 0 {
		n.cfg.Log.Info("sweeping links without a container", "links", len(dead))
	}
	return n.deleteLinks(s, dead)
}

// Release removes what no container needs: VLANs and VXLANs without one, and,
// unless keepDefault says that some container, running or not, has a default
// NIC, the default bridge, its rules and the machine's forwarding. Bridges of
// the API stay, and so does a default bridge with a container on it. The next
// Setup or Attach makes it again.
func (n *Net) Release(ctx context.Context, keepDefault bool) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("release network: %w", err)
	}
	if err := n.dropIdle(nil); err != nil {
		return fmt.Errorf("release network: %w", err)
	}
	if keepDefault {
		return nil
	}
	n.life.Lock()
	defer n.life.Unlock()
	n.setMu.Lock()
	defer n.setMu.Unlock()
	s, err := n.host()
	if err != nil {
		return fmt.Errorf("release network: %w", err)
	}
	links, err := dumpLinks(s.slow.Handle)
	if err != nil {
		return fmt.Errorf("release network: %w", err)
	}
	busy, going := map[int]bool{}, map[string]bool{}
	for _, l := range links {
		busy[l.Attrs().MasterIndex] = true
	}
	for _, l := range links {
		if n.ownsBridge(l) {
			if busy[l.Attrs().Index] {
				return nil
			}
			going[l.Attrs().Name] = true
		}
	}
	n.useDefault.Store(false)
	if err := n.settleHost(s.slow, func(d device) bool { return going[d.name] }); err != nil {
		return fmt.Errorf("release network: %w", err)
	}
	return nil
}

// Reset removes all that this instance made: links, bridges, table, and what it
// told the machine to forward if no other instance needs that. NICs of the
// machine go back to it. Twice is fine.
func (n *Net) Reset(ctx context.Context) error {
	if err := n.Sweep(ctx, func(string) bool { return false }); err != nil {
		return fmt.Errorf("reset network: %w", err)
	}
	n.life.Lock()
	defer n.life.Unlock()
	n.setMu.Lock()
	defer n.setMu.Unlock()
	s, err := n.host()
	if err != nil {
		return fmt.Errorf("reset network: %w", err)
	}
	links, err := dumpLinks(s.slow.Handle)
	if err != nil {
		return fmt.Errorf("reset network: %w", err)
	}
	// Bridges go whatever their names: an earlier start may have been given others.
	going := map[string]bool{}
	for _, l := range links {
		if n.ownsBridge(l) || n.ownsMade(l) {
			going[l.Attrs().Name] = true
		}
	}
	n.useDefault.Store(false)
	n.bridges, n.bridgesKnown = nil, false
	if err := n.deleteTable(); err != nil {
		return fmt.Errorf("reset network: delete nftables table %s: %w", n.table().Name, err)
	}
	if err := n.settleHost(s.slow, func(d device) bool { return going[d.name] }); err != nil {
		return fmt.Errorf("reset network: %w", err)
	}
	return os.RemoveAll(n.recordDir())
}

// deleteLinks deletes many at once: one by one is 16 ms each. They go into a
// group that nobody else uses, and the group is deleted.
func (n *Net) deleteLinks(s *sock, links []netlink.Link) error {
	if len(links) == 1 {
		if err := s.LinkDel(links[0]); err != nil && !isNotFound(err) {
			return fmt.Errorf("delete link %s: %w", links[0].Attrs().Name, err)
		}
		return nil
	}
	if len(links) == 0 {
		return nil
	}
	group, err := freeGroup(s)
	if err != nil {
		return err
	}
	moved := 0
	for _, l := range links {
		err := s.LinkSetGroup(l, int(group))
		if err != nil && !isNotFound(err) {
			return fmt.Errorf("delete link %s: %w", l.Attrs().Name, err)
		}
		if err == nil {
			moved++
		}
	}
	if moved == 0 {
		return nil
	}
	if err := s.deleteGroup(group); err != nil && !isNotFound(err) {
		return fmt.Errorf("delete %d links: %w", moved, err)
	}
	return nil
}

// freeGroup is a link group that no link is in.
func freeGroup(s *sock) (uint32, error) {
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return 0, err
	}
	used := map[uint32]bool{}
	for _, l := range links {
		used[l.Attrs().Group] = true
	}
	for g := uint32(0x62756f79); g > 0; g-- { // "buoy", and down from there
		if !used[g] {
			return g, nil
		}
	}
	return 0, errs.E(errs.Unavailable, "no free link group")
}

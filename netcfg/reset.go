package netcfg

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Sweep deletes the links of this instance whose container is not live.
func (n *Net) Sweep(ctx context.Context, live func(container string) bool) error {
	n.setMu.Lock()
	defer n.setMu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sweep links: %w", err)
	}
	s, err := n.host()
	if err != nil {
		return fmt.Errorf("sweep links: %w", err)
	}
	links, err := dumpLinks(s.slow.Handle)
	if err != nil {
		return fmt.Errorf("sweep links: %w", err)
	}
	var dead []netlink.Link
	for _, l := range links {
		if container, ours := n.ownsPort(l); ours && !live(container) {
			dead = append(dead, l)
			n.claims.drop(container)
		}
	}
	if len(dead) > 0 {
		n.cfg.Log.Info("sweeping links without a container", "links", len(dead))
	}
	if err := n.deleteLinks(s.slow, dead); err != nil {
		return fmt.Errorf("sweep links: %w", err)
	}
	return nil
}

// Reset removes all that this instance made: links, bridge, table, and
// ip_forward if we turned it on and no other instance needs it. Twice is fine.
func (n *Net) Reset(ctx context.Context) error {
	if err := n.Sweep(ctx, func(string) bool { return false }); err != nil {
		return fmt.Errorf("reset network: %w", err)
	}
	n.setMu.Lock()
	defer n.setMu.Unlock()
	s, err := n.host()
	if err != nil {
		return fmt.Errorf("reset network: %w", err)
	}
	if err := n.deleteBridges(s.slow); err != nil {
		return fmt.Errorf("reset network: %w", err)
	}
	if err := n.deleteTable(); err != nil {
		return fmt.Errorf("reset network: delete nftables table %s: %w", n.table().Name, err)
	}
	n.ports = nil
	n.setOwners(nil)
	if err := n.restoreForward(s.slow); err != nil {
		return fmt.Errorf("reset network: restore ip_forward: %w", err)
	}
	return nil
}

// deleteBridges deletes the instance's bridge whatever its name: an earlier
// start may have been given another one.
func (n *Net) deleteBridges(s *sock) error {
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return err
	}
	for _, l := range links {
		if !n.ownsBridge(l) {
			continue
		}
		if err := s.LinkDel(l); err != nil && !isNotFound(err) {
			return fmt.Errorf("delete bridge %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
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
	return 0, errors.Join(errs.Unavailable, errors.New("no free link group"))
}

package netcfg

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// makeSegment makes the bridge of a VLAN or VXLAN, and what connects it, as l
// needs them. The caller holds n.life.
func (n *Net) makeSegment(s *sock, l Link, j joint) (changed []string, err error) {
	n.segMu.Lock()
	defer n.segMu.Unlock()
	w := j.want(n)
	w.self = n.portName(l.Container, l.Index)
	w.devices = slices.Clone(w.devices)
	last := &w.devices[len(w.devices)-1]
	last.peers, last.former = n.sharePeers(j.bridge, l)
	have, err := n.readDevices(s, w)
	if err != nil {
		return nil, err
	}
	steps, err := plan(w, have)
	if err != nil {
		return nil, err
	}
	return n.carryOut(s, steps)
}

// sharePeers are the peers that any container on the VXLAN names, and those
// that l named before and nobody else does. The caller holds n.segMu.
func (n *Net) sharePeers(bridge string, l Link) (peers, former []netip.Addr) {
	if n.peers == nil {
		n.peers = map[string]map[holder][]netip.Addr{}
	}
	if n.peers[bridge] == nil {
		n.peers[bridge] = map[holder][]netip.Addr{}
	}
	former = n.peers[bridge][l.holder()]
	n.peers[bridge][l.holder()] = slices.Clone(l.NIC.Config.Peers)
	peers = slices.Clone(l.NIC.Config.Peers)
	for _, list := range n.peers[bridge] {
		for _, a := range list {
			if !slices.Contains(peers, a) {
				peers = append(peers, a)
			}
		}
	}
	return peers, former
}

// rememberPeers gives the way back from sharePeers.
func (n *Net) rememberPeers(bridge string, h holder) (undo func() error) {
	n.segMu.Lock()
	defer n.segMu.Unlock()
	had, there := n.peers[bridge][h]
	return func() error {
		n.segMu.Lock()
		defer n.segMu.Unlock()
		if delete(n.peers[bridge], h); there {
			n.peers[bridge][h] = had
		}
		return nil
	}
}

// leavePeers forgets whom the NIC named.
func (n *Net) leavePeers(h holder) {
	n.segMu.Lock()
	defer n.segMu.Unlock()
	for _, named := range n.peers {
		delete(named, h)
	}
}

// idle are the links of this instance's VLANs and VXLANs that no container is on.
func (n *Net) idle(links []netlink.Link) (idle []netlink.Link) {
	busy := map[int]bool{}
	for _, l := range links {
		if !n.ownsSegment(l) {
			busy[l.Attrs().MasterIndex] = true
		}
	}
	for _, l := range links {
		a := l.Attrs()
		if n.ownsSegment(l) && !busy[a.Index] && (a.MasterIndex == 0 || !busy[a.MasterIndex]) {
			idle = append(idle, l)
		}
	}
	return idle
}

// dropIdle deletes the links of VLANs and VXLANs that no container is on: of
// those named, nil for all.
func (n *Net) dropIdle(names []string) error {
	n.life.Lock()
	defer n.life.Unlock()
	s, err := n.host()
	if err != nil {
		return err
	}
	links, err := dumpLinks(s.slow.Handle)
	if err != nil {
		return err
	}
	idle := n.idle(links)
	if names != nil {
		idle = slices.DeleteFunc(idle, func(l netlink.Link) bool { return !slices.Contains(names, l.Attrs().Name) })
	}
	n.segMu.Lock()
	for _, l := range idle {
		delete(n.peers, l.Attrs().Name)
	}
	n.segMu.Unlock()
	if err := n.deleteLinks(s.slow, idle); err != nil {
		return fmt.Errorf("delete links that no container needs: %w", err)
	}
	return nil
}

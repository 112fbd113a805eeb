package node

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/netcfg"
)

// names answers the resolver on the bridges from what runs now: a container is
// known, by its name, to those on the same bridge.
type names struct{ n *Node }

// listeners are the addresses of bridges that the resolver answers at.
func (n *Node) listeners() []netip.Addr {
	var all []netip.Addr
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, p := range n.pools() {
		if key != defaultPool || n.defaultUp {
			all = append(all, p.bridge.Addr())
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// keyOf is the network whose bridge has the address.
func (n *Node) keyOf(listener netip.Addr) (key string, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, p := range n.pools() {
		if p.bridge.Addr() == listener {
			return key, true
		}
	}
	return "", false
}

// answerNames lets the resolver listen on the bridges that there are. Where
// somebody else has the port, containers have the machine's servers alone.
func (n *Node) answerNames(ctx context.Context) {
	var good []netip.Addr
	for _, a := range n.listeners() {
		if err := n.dns.Listen(ctx, append(slices.Clone(good), a)); err != nil {
			n.cfg.Log.Warn("containers on this bridge cannot find each other by name", "bridge", a, "error", err)
			continue
		}
		good = append(good, a)
	}
	resolving := map[netip.Addr]bool{}
	for _, a := range good {
		resolving[a] = true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resolving = resolving
}

// Lookup implements dns.Names.
func (s names) Lookup(listener netip.Addr, name string) (addrs []netip.Addr, known bool) {
	key, ok := s.n.keyOf(listener)
	if !ok {
		return nil, false
	}
	for _, b := range s.n.all() {
		if strings.EqualFold(b.name, name) {
			return b.addrsOn(key)
		}
	}
	return nil, false
}

// Reverse implements dns.Names.
func (s names) Reverse(listener, addr netip.Addr) (name string, known bool) {
	key, ok := s.n.keyOf(listener)
	if !ok {
		return "", false
	}
	for _, b := range s.n.all() {
		if addrs, _ := b.addrsOn(key); slices.Contains(addrs, addr) {
			return b.name, true
		}
	}
	return "", false
}

// mayAsk says whether the resolver answers a client: one that is on the bridge,
// or the machine itself.
func (n *Node) mayAsk(listener, client netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pools() {
		if p.bridge.Addr() == listener {
			return p.bridge.Contains(client)
		}
	}
	return false
}

// addrsOn are the addresses of a running container on a network.
func (b *box) addrsOn(key string) (addrs []netip.Addr, there bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status != Running && b.status != Standby {
		return nil, false
	}
	for _, p := range b.plugs {
		if p.Link.NIC.Key() != key {
			continue
		}
		for _, a := range p.addrs() {
			addrs = append(addrs, a.Addr())
		}
	}
	return addrs, len(addrs) > 0
}

// resolver is the address of the resolver that a container asks: that of the
// first bridge of ours that it is on.
func (n *Node) resolver(nics []netcfg.NIC) (netip.Addr, bool) {
	if len(nics) == 0 {
		return netip.Addr{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	pools := n.pools()
	for _, nic := range nics {
		if p, ok := pools[nic.Key()]; ok && n.resolving[p.bridge.Addr()] {
			return p.bridge.Addr(), true
		}
	}
	return netip.Addr{}, false
}

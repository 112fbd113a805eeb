package node

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/dns"
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

// networks are those that who asks may know names of: that of the bridge which
// was asked, then the others of ours that the asking container is on.
func (n *Node) networks(a dns.Asker) []string {
	n.mu.Lock()
	pools := n.pools()
	n.mu.Unlock()
	var keys []string
	for key, p := range pools {
		if p.bridge.Addr() == a.Listener {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	for _, b := range n.all() {
		if addrs, _ := b.addrsOn(keys[0]); !slices.Contains(addrs, a.Client) {
			continue
		}
		b.set(func() {
			for _, p := range b.plugs {
				if key := p.Link.NIC.Key(); pools[key].bridge.IsValid() && key != keys[0] {
					keys = append(keys, key)
				}
			}
		})
		break
	}
	return keys
}

// answerNames lets the resolver listen on the bridges that there are. Where
// somebody else has the port, containers have the machine's servers alone.
func (n *Node) answerNames(ctx context.Context) {
	ctx, cancel := aside(ctx) // the bridge stays although whoever asked for it has given up
	defer cancel()
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
func (s names) Lookup(a dns.Asker, name string) (addrs []netip.Addr, known bool) {
	all := s.n.all()
	i := slices.IndexFunc(all, func(b *box) bool { return strings.EqualFold(b.name, name) })
	if i < 0 {
		return nil, false
	}
	for _, key := range s.n.networks(a) {
		if addrs, known = all[i].addrsOn(key); known {
			return addrs, true
		}
	}
	return nil, false
}

// Reverse implements dns.Names.
func (s names) Reverse(a dns.Asker, addr netip.Addr) (name string, known bool) {
	keys := s.n.networks(a)
	for _, b := range s.n.all() {
		for _, key := range keys {
			if addrs, _ := b.addrsOn(key); slices.Contains(addrs, addr) {
				return b.name, true
			}
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

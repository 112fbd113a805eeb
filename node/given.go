package node

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
)

// given is what the node decided for a NIC of a container, kept for as long as
// the container has the NIC: the row of the container is the lease.
type given struct {
	Key   string         `json:"key"`             // netcfg.NIC.Key
	Index int            `json:"index"`           // eth<Index>, and the name of the host's end
	Addrs []netip.Prefix `json:"addrs,omitempty"` // none: from DHCP, a CNI plugin, or none at all
}

// pool is a network whose addresses the node gives out.
type pool struct {
	bridge     netip.Prefix // the bridge's address
	start, end netip.Addr   // what is given out; zero: all of it
	nat        bool         // the bridge is the way out
	leased     []netip.Addr // by DHCP
}

// neighbour is a NIC of another container on the same network.
type neighbour struct {
	container string
	addrs     []netip.Prefix
	mac       string
}

// giveAll decides for all NICs of a container: what it had it keeps, where that
// still fits. neighbours are the others by key, last the address given last in
// a pool. Conflict: an address or MAC is somebody else's.
func giveAll(nics []netcfg.NIC, had []given, pools map[string]pool, neighbours map[string][]neighbour, last map[string]netip.Addr) ([]given, error) {
	var out []given
	for i, nic := range nics {
		g := given{Key: nic.Key(), Index: -1}
		old := slices.IndexFunc(had, func(h given) bool { return h.Key == g.Key })
		if old >= 0 {
			g.Index = had[old].Index
			g.Addrs = had[old].Addrs
		}
		if err := checkMAC(nic, neighbours[g.Key]); err != nil {
			return nil, err
		}
		var err error
		if g.Addrs, err = giveAddrs(nic, g.Addrs, pools[g.Key], neighbours[g.Key], last[g.Key]); err != nil {
			return nil, err
		}
		if err := checkApart(nics[:i], out, nic, g); err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return numbered(out), nil
}

// numbered gives those without an index the lowest that is free, in order.
func numbered(all []given) []given {
	used := map[int]bool{}
	for _, g := range all {
		used[g.Index] = true
	}
	next := 0
	for i := range all {
		if all[i].Index >= 0 {
			continue
		}
		for used[next] {
			next++
		}
		all[i].Index = next
		used[next] = true
	}
	return all
}

// giveAddrs are the addresses of a NIC: those asked for, those it had, a new
// one out of the pool, or none.
func giveAddrs(nic netcfg.NIC, had []netip.Prefix, p pool, others []neighbour, last netip.Addr) ([]netip.Prefix, error) {
	if nic.Config.DHCP || nic.Type == netcfg.NICCNI {
		return nil, nil
	}
	if asked := nic.Config.CIDRs; len(asked) > 0 {
		for i, a := range asked {
			if owner, taken := takenBy(a.Addr(), others); taken {
				return nil, errs.E(errs.Conflict, "%s: address %s is container %q's", nic, a.Addr(), owner)
			}
			if !p.bridge.IsValid() || a.Addr().Is4() != p.bridge.Addr().Is4() {
				continue
			}
			switch {
			case a.Addr() == p.bridge.Addr():
				return nil, errs.E(errs.Conflict, "%s: address %s is the bridge's own", nic, a.Addr())
			case !p.bridge.Contains(a.Addr()):
				return nil, errs.E(errs.Invalid, "%s: address %s is not in the bridge's network %s", nic, a.Addr(), p.bridge.Masked())
			case a.Bits() != p.bridge.Bits():
				asked = slices.Clone(asked)
				asked[i] = netip.PrefixFrom(a.Addr(), p.bridge.Bits()) // of two views of one network the bridge's counts
			}
		}
		return asked, nil
	}
	if !p.bridge.IsValid() {
		return nil, nil
	}
	if len(had) == 1 && p.bridge.Contains(had[0].Addr()) {
		if _, taken := takenBy(had[0].Addr(), others); !taken {
			return had, nil
		}
	}
	taken := map[netip.Addr]bool{p.bridge.Addr(): true}
	for _, a := range p.leased {
		taken[a] = true
	}
	for _, o := range others {
		for _, a := range o.addrs {
			taken[a.Addr()] = true
		}
	}
	// After the one given last: an address rests before it is given again, so
	// that nobody meets another container at it.
	addr, err := netcfg.Allocate(p.bridge, p.start, p.end, taken, last)
	if err != nil {
		return nil, err
	}
	return []netip.Prefix{netip.PrefixFrom(addr, p.bridge.Bits())}, nil
}

func takenBy(a netip.Addr, others []neighbour) (container string, taken bool) {
	for _, o := range others {
		if slices.ContainsFunc(o.addrs, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return o.container, true
		}
	}
	return "", false
}

func checkMAC(nic netcfg.NIC, others []neighbour) error {
	mac := canonicalMAC(nic.HWAddr)
	for _, o := range others {
		if mac != "" && o.mac == mac {
			return errs.E(errs.Conflict, "%s: hwaddr %s is container %q's", nic, mac, o.container)
		}
	}
	return nil
}

// canonicalMAC spells a valid MAC in the one way, so that two can be compared.
func canonicalMAC(s string) string {
	mac, err := net.ParseMAC(s)
	if err != nil {
		return ""
	}
	return mac.String()
}

// checkApart refuses a NIC in a network that the container is in through
// another one: it would answer through either.
func checkApart(nics []netcfg.NIC, had []given, nic netcfg.NIC, g given) error {
	for i, other := range had {
		for _, a := range g.Addrs {
			for _, b := range other.Addrs {
				if a.Overlaps(b) {
					return errs.E(errs.Invalid, "%s: its network %s overlaps %s of %s", nic, a.Masked(), b.Masked(), nics[i])
				}
			}
		}
	}
	return nil
}

// setGiven is what the record and the box say of the NICs.
func (b *box) setGiven(all []given) {
	raw, err := json.Marshal(all)
	if err != nil {
		panic("BUG: what NICs were given cannot be written: " + err.Error())
	}
	b.set(func() { b.given, b.rec.NICs = all, raw })
}

// defaultPool names the network of default NICs.
const defaultPool = string(netcfg.NICDefault)

// pools are the networks that the node gives addresses of, by key. The caller
// holds n.mu.
func (n *Node) pools() map[string]pool {
	prefix := n.cfg.Net.Prefix()
	all := map[string]pool{
		defaultPool: {bridge: netip.PrefixFrom(n.cfg.Net.Gateway(), prefix.Bits()), nat: true},
	}
	for _, b := range n.bridges {
		if b.Prefix.IsValid() {
			all[bridgeKey(b.Name)] = pool{bridge: b.Prefix, start: b.Start, end: b.End, nat: b.NAT}
		}
	}
	return all
}

// addLeased says in pools which addresses DHCP servers of ours have given out,
// where a NIC of these is about to get one beside them.
func (n *Node) addLeased(ctx context.Context, nics []netcfg.NIC, pools map[string]pool) error {
	for _, nic := range nics {
		p, ours := pools[nic.Key()]
		if !ours || nic.Type != netcfg.NICBridge || nic.Config.DHCP || len(nic.Config.CIDRs) > 0 {
			continue
		}
		leases, err := n.cfg.DB.Leases(ctx, nic.ID)
		if err != nil {
			return err
		}
		for _, l := range leases {
			if l.Expires.After(time.Now()) {
				p.leased = append(p.leased, l.Addr)
			}
		}
		pools[nic.Key()] = p
	}
	return nil
}

// give decides for the NICs of a spec. The caller holds n.mu.
func (n *Node) give(ctx context.Context, spec Spec, had []given) ([]given, error) {
	if spec.HostNetworking {
		return nil, nil
	}
	if err := n.checkBridges(spec.NICs); err != nil {
		return nil, err
	}
	neighbours := map[string][]neighbour{}
	newest := map[string]int64{}
	last := map[string]netip.Addr{}
	for name, b := range n.boxes {
		b.set(func() {
			for _, p := range b.promises() {
				for _, g := range p.given {
					if name != spec.Name {
						neighbours[g.Key] = append(neighbours[g.Key], neighbour{name, g.Addrs, macOf(p.spec, g.Key)})
					}
					if at := b.rec.Created.UnixNano(); at > newest[g.Key] && len(g.Addrs) > 0 {
						newest[g.Key], last[g.Key] = at, g.Addrs[0].Addr()
					}
				}
			}
		})
	}
	maps.Copy(last, n.lastAddr)
	pools := n.pools()
	if err := n.addLeased(ctx, spec.NICs, pools); err != nil {
		return nil, err
	}
	all, err := giveAll(spec.NICs, had, pools, neighbours, last)
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if len(g.Addrs) > 0 {
			n.lastAddr[g.Key] = g.Addrs[0].Addr()
		}
	}
	return all, nil
}

func macOf(s Spec, key string) string {
	for _, nic := range s.NICs {
		if nic.Key() == key {
			return canonicalMAC(nic.HWAddr)
		}
	}
	return ""
}

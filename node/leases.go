package node

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/dhcp"
	"github.com/buoy-edge/buoy/node/state"
)

// dhcpTime is how long a start waits for a DHCP server.
const dhcpTime = 20 * time.Second

// lease gets an address for a NIC that has just been made, and gives it to it.
func (n *Node) lease(ctx context.Context, ns string, l netcfg.Link) (*dhcp.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, dhcpTime)
	defer cancel()
	got, err := dhcp.Acquire(ctx, n.dhcpOptions(ns, l))
	if err != nil {
		return nil, err
	}
	return &got, n.cfg.Net.Attach(ctx, ns, n.leased(l, got))
}

func (n *Node) dhcpOptions(ns string, l netcfg.Link) dhcp.Options {
	return dhcp.Options{Netns: ns, Link: l.Name, Hostname: l.Container, Enter: netcfg.InNS, Log: n.cfg.Log}
}

// leased is the link with what its lease says, where its own configuration does
// not say otherwise. An MTU that is more than the link carries is not followed.
func (n *Node) leased(l netcfg.Link, lease dhcp.Lease) netcfg.Link {
	if !lease.Addr.IsValid() {
		return l
	}
	l.Addrs = []netip.Prefix{lease.Addr}
	if lease.Router.IsValid() && lease.Addr.Contains(lease.Router) {
		l.Gateways = []netip.Addr{lease.Router}
	}
	c := &l.NIC.Config
	c.Routes = slices.Clone(c.Routes)
	for _, r := range lease.Routes {
		if !slices.ContainsFunc(c.Routes, func(own netcfg.Route) bool { return own.To == r.To }) {
			c.Routes = append(c.Routes, netcfg.Route(r))
		}
	}
	if c.MTU == 0 && lease.MTU != 0 {
		c.MTU = lease.MTU
		if _, err := n.cfg.Net.Complete(l); err != nil {
			c.MTU = 0
		}
	}
	return l
}

// keepLeases has the leases of a run renewed until the run ends or its NICs
// change. Without Run nobody is there to do it.
func (n *Node) keepLeases(ctx context.Context, b *box) {
	n.dropKeepers(b)
	plugs := get(b, func() []plug { return b.plugs })
	if !slices.ContainsFunc(plugs, func(p plug) bool { return p.Lease != nil }) {
		return
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // not with who made the NICs
	b.set(func() { b.keeping = cancel })
	ns := fdPath(get(b, func() *os.File { return b.netns }))
	for _, p := range plugs {
		if p.Lease == nil {
			continue
		}
		n.background(func(run context.Context) {
			defer context.AfterFunc(run, cancel)()
			err := dhcp.Keep(ctx, n.dhcpOptions(ns, p.Link), *p.Lease, func(l dhcp.Lease) { n.renewed(ctx, b, p.Link, ns, l) })
			if ctx.Err() == nil && errs.KindOf(err) != errs.NotFound { // not the end of the run, of which we are about to hear
				n.cfg.Log.Error("lease is kept no longer", "container", b.spec.Name, "nic", p.Link.Name, "error", err)
			}
		})
	}
}

// dropKeepers ends what keepLeases began.
func (n *Node) dropKeepers(b *box) {
	b.set(func() {
		if b.keeping != nil {
			b.keeping()
			b.keeping = nil
		}
	})
}

// renewed takes in what became of a lease. A zero address: it is lost, and will
// be asked for again.
func (n *Node) renewed(ctx context.Context, b *box, l netcfg.Link, ns string, lease dhcp.Lease) {
	if !n.hold(ctx, b) {
		return
	}
	defer b.unlock()
	plugs := slices.Clone(b.plugs)
	i := slices.IndexFunc(plugs, func(p plug) bool { return p.Link.NIC.Key() == l.NIC.Key() && p.Lease != nil })
	if i < 0 || ctx.Err() != nil {
		return
	}
	was := plugs[i].Lease
	plugs[i].Lease = &lease
	b.set(func() { b.plugs = plugs })
	if err := n.writePlugs(b.spec.Name, plugs); err != nil {
		n.cfg.Log.Error("lease not written down", "container", b.spec.Name, "error", err)
	}
	if was.Addr == lease.Addr && was.Router == lease.Router && was.MTU == lease.MTU &&
		slices.Equal(was.Routes, lease.Routes) && slices.Equal(was.DNS, lease.DNS) && slices.Equal(was.Search, lease.Search) {
		return
	}
	n.cfg.Log.Warn("the DHCP server has changed a lease", "container", b.spec.Name, "nic", l.Name, "was", was.Addr, "now", lease.Addr)
	if err := n.cfg.Net.Attach(ctx, ns, n.leased(l, lease)); err != nil {
		n.cfg.Log.Error("NIC does not follow its lease", "container", b.spec.Name, "nic", l.Name, "error", err)
	}
	if err := n.writeNames(b, b.run.Hostname); err != nil {
		n.cfg.Log.Error("names not written", "container", b.spec.Name, "error", err)
	}
}

// serveDHCP has a server on each bridge of mode dnsmasq. anew: bridges may have
// been made again, and servers on what was there before hear nothing. The caller
// holds n.netOnce.
func (n *Node) serveDHCP(ctx context.Context, anew bool) {
	n.mu.Lock()
	bridges := n.bridges
	n.mu.Unlock()
	for name, s := range n.servers {
		if b, there := bridges[name]; there && b.Mode == netcfg.BridgeDHCP && !anew {
			continue
		}
		if err := s.Close(); err != nil {
			n.cfg.Log.Error("DHCP server not closed", "bridge", name, "error", err)
		}
		delete(n.servers, name)
	}
	for name, b := range bridges {
		if b.Mode != netcfg.BridgeDHCP || n.servers[name] != nil {
			continue
		}
		s, err := n.dhcpServer(ctx, b)
		if err != nil {
			n.cfg.Log.Error("no DHCP on a bridge", "bridge", name, "error", err)
			continue
		}
		n.servers[name] = s
	}
}

func (n *Node) dhcpServer(ctx context.Context, b netcfg.Bridge) (*dhcp.Server, error) {
	c := dhcp.Config{
		Link: b.Name, Addr: b.Prefix, Start: b.Start, End: b.End, Log: n.cfg.Log,
		DNS: []netip.Addr{b.Prefix.Addr()}, Store: leaseStore{context.WithoutCancel(ctx), n.cfg.DB, b.Name}, // it outlives the request that made the bridge
		Taken: func(a netip.Addr) bool { return n.isGiven(bridgeKey(b.Name), a) },
	}
	if b.NAT {
		c.Router = b.Prefix.Addr()
	}
	s, err := dhcp.NewServer(c)
	if err != nil {
		return nil, err
	}
	return s, s.Listen(ctx)
}

// isGiven says whether a container has the address from us.
func (n *Node) isGiven(key string, a netip.Addr) bool {
	return slices.ContainsFunc(n.all(), func(b *box) bool {
		return get(b, func() bool {
			return slices.ContainsFunc(b.promises(), func(p promise) bool {
				return slices.ContainsFunc(p.given, func(g given) bool {
					return g.Key == key && slices.ContainsFunc(g.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
				})
			})
		})
	})
}

// leaseStore keeps the leases of a bridge in the node's database.
type leaseStore struct {
	ctx    context.Context //nolint:containedctx // dhcp.Store has none
	db     *state.DB
	bridge string
}

// Leases implements dhcp.Store, as do the others.
func (s leaseStore) Leases() (all []dhcp.Held, err error) {
	rows, err := s.db.Leases(s.ctx, s.bridge)
	for _, l := range rows {
		all = append(all, dhcp.Held{Addr: l.Addr, Client: l.Client, MAC: l.MAC, Hostname: l.Hostname, Until: l.Expires})
	}
	return all, err
}

func (s leaseStore) Put(h dhcp.Held) error {
	return s.db.PutLease(s.ctx, state.Lease{
		Bridge: s.bridge, Addr: h.Addr, Client: h.Client, MAC: h.MAC, Hostname: h.Hostname, Expires: h.Until,
	})
}

func (s leaseStore) Drop(a netip.Addr) error {
	return s.db.DeleteLease(s.ctx, s.bridge, a)
}

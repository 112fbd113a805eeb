package netcfg

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Forward is a published port, or several in a row: what arrives at Host goes
// to Guest. The fields mean what they mean in Port.
type Forward struct {
	Container string
	Proto     Proto
	Host      netip.AddrPort
	Guest     netip.AddrPort // address and port of the container
	Count     uint16
	Merge     bool
	Iface     string
	Within    netip.Prefix
}

// port is what f was made from.
func (f Forward) port() Port {
	return Port{
		Proto: f.Proto, Host: f.Host, Guest: f.Guest.Port(),
		Count: f.Count, Merge: f.Merge, Iface: f.Iface, Within: f.Within,
	}
}

// String is how messages name the port: as it was asked for.
func (f Forward) String() string { return fmt.Sprintf("%s/%s", f.port().host(), f.Proto) }

func (f Forward) span() span { return spanOf(f.Host.Port(), f.Count) }

// SetPorts publishes these ports and no others, all at once. The same set
// again changes nothing. Interfaces and prefixes stand for the addresses that
// the machine has now; Setup looks again. Connections over a TCP port that is
// no longer in the set go on; UDP has no connections, so there the kernel's
// memory of flows is cleared for ports that come, go or change.
//
// errs.Conflict: two forwards want the same host port. errs.Unavailable: there
// was no Setup.
func (n *Net) SetPorts(ctx context.Context, forwards []Forward) error {
	n.setMu.Lock()
	defer n.setMu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	if n.nets == nil && len(forwards) > 0 {
		return errs.E(errs.Unavailable, "publish ports: the network is not set up")
	}
	want, owners, err := n.resolve(forwards, n.forwards)
	if err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	if n.nets != nil && (n.ports == nil || !maps.Equal(want, n.ports)) {
		if err := n.replacePorts(want); err != nil {
			return fmt.Errorf("publish ports: %w", err)
		}
	}
	n.forwards = append([]Forward{}, forwards...)
	n.setOwners(owners)
	return nil
}

func (n *Net) setOwners(owners []owner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owners = owners
}

// resolve is what forwards mean on this machine now. What was published before
// and cannot be any longer, since the machine has changed, is left out and
// logged: it is no reason to refuse what somebody else asks for. The caller holds
// n.setMu.
func (n *Net) resolve(forwards, before []Forward) (portMap, []owner, error) {
	old := make(map[Forward]bool, len(before))
	for _, f := range before {
		old[f] = true
	}
	r := resolver{
		net: n, old: old, dark: map[Forward]bool{}, addrs: map[string][]netip.Addr{},
		want: make(portMap, len(forwards)), taken: taken{byPort: map[uint16][]owner{}},
	}
	for _, f := range forwards {
		if err := r.publish(f); err != nil {
			return nil, nil, err
		}
	}
	n.dark = r.dark
	if len(r.want) > maxElements {
		return nil, nil, errs.E(errs.Invalid, "more than %d ports; a range costs only one where its ports are the container's own", maxElements)
	}
	return r.want, r.taken.all, nil
}

// resolver is the state of resolve.
type resolver struct {
	net   *Net
	old   map[Forward]bool
	dark  map[Forward]bool        // published nowhere
	addrs map[string][]netip.Addr // of interfaces, as they were asked for
	want  portMap
	taken taken
}

// addrsOf asks the machine once.
func (r *resolver) addrsOf(iface string) ([]netip.Addr, error) {
	if list, known := r.addrs[iface]; known {
		return list, nil
	}
	list, err := r.net.addrsOf(iface)
	r.addrs[iface] = list
	return list, err
}

func (r *resolver) publish(f Forward) error {
	log := r.net.cfg.Log.With("port", f, "container", f.Container)
	if err := r.net.checkForward(f); err != nil {
		if !r.old[f] {
			return err
		}
		log.Warn("port is not published", "error", err)
		return nil
	}
	hosts, err := f.hosts(r.addrsOf)
	if err != nil {
		return err
	}
	if r.dark[f] = len(hosts) == 0; r.dark[f] && !r.net.dark[f] {
		log.Warn("port is published nowhere")
	}
	for _, h := range hosts {
		o := owner{f, h}
		other, there := r.taken.find(o)
		if !there {
			r.taken.add(o)
			r.want.add(o)
			continue
		}
		if !r.old[f] || !r.old[other.forward] {
			return errs.E(errs.Conflict, "port %s of container %s is already published by container %s",
				f, f.Container, other.forward.Container)
		}
		log.Warn("port is not published at an address", "address", h, "container_there", other.forward.Container)
	}
	return nil
}

func (n *Net) checkForward(f Forward) error {
	count := max(int(f.Count), 1)
	guests := count
	if f.Merge {
		guests = 1
	}
	switch {
	case f.Proto != TCP && f.Proto != UDP:
		return errs.E(errs.Invalid, "port %s: the protocol is %q; use tcp or udp", f, f.Proto)
	case !f.Host.Addr().IsValid() || f.Host.Port() == 0 || int(f.Host.Port())+count > 1<<16:
		return errs.E(errs.Invalid, "port %s: it needs an address and ports from 1 to 65535 on the host", f)
	case f.Guest.Port() == 0 || int(f.Guest.Port())+guests > 1<<16 || !n.behindNAT(f.Guest.Addr()):
		return errs.E(errs.Invalid, "port %s: %s is not a port of a container on a bridge with NAT", f, f.Guest)
	case !f.port().takes(f.Guest.Addr()):
		return errs.E(errs.Invalid, "port %s: %s is an address of the other kind", f, f.Guest.Addr())
	}
	return nil
}

// behindNAT says whether a is in a network whose rules the table has.
func (n *Net) behindNAT(a netip.Addr) bool {
	for _, b := range n.nets {
		for _, p := range b.prefixes {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// owner is a forward at one address.
type owner struct {
	forward Forward
	host    netip.Addr // unspecified: all of its kind
}

// collides says whether two could not be bound at the same time.
func (o owner) collides(p owner) bool {
	return o.forward.Proto == p.forward.Proto && o.forward.span().overlaps(p.forward.span()) &&
		o.host.Is4() == p.host.Is4() && (o.host == p.host || o.host.IsUnspecified() || p.host.IsUnspecified())
}

// taken finds collisions without comparing all with all: of ranges there are
// few.
type taken struct {
	all, ranges []owner
	byPort      map[uint16][]owner // those of one port
}

func (t *taken) add(o owner) {
	t.all = append(t.all, o)
	if s := o.forward.span(); s.first == s.last {
		t.byPort[s.first] = append(t.byPort[s.first], o)
	} else {
		t.ranges = append(t.ranges, o)
	}
}

func (t *taken) find(o owner) (other owner, there bool) {
	lists := [][]owner{t.all}
	if s := o.forward.span(); s.first == s.last {
		lists = [][]owner{t.byPort[s.first], t.ranges}
	}
	for _, list := range lists {
		for _, other := range list {
			if o.collides(other) {
				return other, true
			}
		}
	}
	return owner{}, false
}

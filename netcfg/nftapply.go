package netcfg

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// onTable runs f with a connection of its own: after a batch that failed, the
// answers still in a socket would be taken for those of the next.
func (n *Net) onTable(f func(*nftables.Conn) error) error {
	return n.onHost(func() error {
		c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			return errors.Join(c.SetWriteBuffer(sendBuffer), c.SetReadBuffer(sendBuffer))
		}))
		if err != nil {
			return fmt.Errorf("open nftables socket: %w", err)
		}
		return errors.Join(f(c), c.CloseLasting())
	})
}

// setTable makes the table right for these bridges and says what it changed.
// Ports are those that SetPorts was given, at the addresses that the machine
// has now; before the first SetPorts they are those that the table has.
func (n *Net) setTable(nets []natted) (changed []string, err error) {
	n.nets = append([]natted{}, nets...)
	if n.forwards == nil {
		return n.applyTable(nil)
	}
	want, owners, err := n.resolve(n.forwards, n.forwards)
	if err != nil {
		return nil, err
	}
	if changed, err = n.applyTable(want); err != nil {
		return nil, err
	}
	n.setOwners(owners)
	return changed, nil
}

// applyTable makes the table right: want are the ports it has to have, nil
// those that it has. It says what it changed, and sets n.ports.
func (n *Net) applyTable(want portMap) (changed []string, err error) {
	var before portMap
	err = n.onTable(func(c *nftables.Conn) error {
		have, err := dumpTable(c, n.table())
		if err != nil {
			return err
		}
		former, err := hasTable(c, n.formerTable())
		if err != nil {
			return err
		}
		var whole bool
		before, whole = n.readPorts(have)
		if want == nil {
			want = before
		}
		if !whole || former || !sameChains(have, chains(n.nets)) {
			changed = append(changed, "nftables table")
			return n.rebuild(c, want, former)
		}
		gone, fresh := before.without(want), want.without(before)
		if len(gone)+len(fresh) == 0 {
			return nil
		}
		changed = append(changed, "ports")
		return n.update(c, gone, fresh)
	})
	if err != nil {
		return nil, err
	}
	n.ports = want
	return changed, n.forgetFlows(before.without(want), want.without(before))
}

// replacePorts goes from n.ports to want, without a look at the kernel if that
// works: an element that is not as we left it fails the whole batch.
func (n *Net) replacePorts(want portMap) error {
	if n.ports != nil {
		gone, fresh := n.ports.without(want), want.without(n.ports)
		err := n.onTable(func(c *nftables.Conn) error { return n.update(c, gone, fresh) })
		if err == nil {
			n.ports = want
			return n.forgetFlows(gone, fresh)
		}
	}
	_, err := n.applyTable(want)
	return err
}

// update takes elements away and adds others, in one transaction.
func (n *Net) update(c *nftables.Conn, gone, fresh portMap) error {
	away, add := gone.elements(), fresh.elements()
	for _, s := range n.portSets() {
		for chunk := range slices.Chunk(away[s.Name], elemsPerMsg) {
			if err := c.SetDeleteElements(s, chunk); err != nil {
				return err
			}
		}
		for chunk := range slices.Chunk(add[s.Name], elemsPerMsg) {
			if err := c.SetAddElements(s, chunk); err != nil {
				return err
			}
		}
	}
	return c.Flush()
}

// rebuild replaces the table, in one transaction: no packet sees it half done.
func (n *Net) rebuild(c *nftables.Conn, ports portMap, former bool) error {
	if former {
		c.DelTable(n.formerTable())
	}
	t := c.AddTable(n.table()) // there must be one to delete
	c.DelTable(t)
	c.AddTable(t)
	for _, s := range n.portSets() {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	want := chains(n.nets)
	for _, ch := range want {
		c.AddChain(&nftables.Chain{Table: t, Name: ch.name, Type: ch.kind, Hooknum: ch.hook, Priority: ch.prio})
	}
	for _, ch := range want {
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: ch.name}, Exprs: exprs})
		}
	}
	return n.update(c, nil, ports)
}

// deleteTable is fine with a table that is not there. What is published is
// forgotten with it.
func (n *Net) deleteTable() error {
	err := n.onTable(func(c *nftables.Conn) error {
		for _, t := range []*nftables.Table{n.table(), n.formerTable()} {
			c.DelTable(c.AddTable(t))
		}
		return c.Flush()
	})
	if err != nil {
		return err
	}
	n.nets, n.ports, n.forwards = nil, nil, nil
	n.setOwners(nil)
	return nil
}

func hasTable(c *nftables.Conn, t *nftables.Table) (bool, error) {
	tables, err := c.ListTablesOfFamily(t.Family)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(have *nftables.Table) bool { return have.Name == t.Name }), nil
}

// readPorts is what the maps of the table hold, and whether all are there and
// readable.
func (n *Net) readPorts(have *tableDump) (ports portMap, whole bool) {
	ports = portMap{}
	if have == nil {
		return ports, false
	}
	sets := n.portSets()
	whole = len(have.maps) == len(sets)
	for _, s := range sets {
		elems, there := have.maps[s.Name]
		readable := ports.readElements(s.Name, elems)
		whole = whole && there && readable
	}
	return ports, whole
}

// sameChains compares the table's chains and rules with ours. A kernel that
// spells a rule in another way costs a rebuild at Setup, nothing more.
func sameChains(have *tableDump, want []chain) bool {
	if len(have.chains) != len(want) {
		return false
	}
	for _, w := range want {
		ch, ok := have.chains[w.name]
		if !ok || ch.Type != w.kind || !reflect.DeepEqual(ch.Hooknum, w.hook) || !reflect.DeepEqual(ch.Priority, w.prio) {
			return false
		}
		if w.hook != nil && (ch.Policy == nil || *ch.Policy != nftables.ChainPolicyAccept) {
			return false
		}
		if !slices.EqualFunc(have.rules[w.name], w.rules, func(r *nftables.Rule, w []expr.Any) bool { return sameRule(r.Exprs, w) }) {
			return false
		}
	}
	return true
}

func sameRule(a, b []expr.Any) bool {
	return slices.EqualFunc(a, b, func(a, b expr.Any) bool {
		x, errX := expr.Marshal(unix.NFPROTO_INET, a)
		y, errY := expr.Marshal(unix.NFPROTO_INET, b)
		return errX == nil && errY == nil && string(x) == string(y)
	})
}

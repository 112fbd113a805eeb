package netcfg

import (
	"errors"
	"fmt"
	"reflect"

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

// applyTable makes the table right: want are the ports it has to have, nil
// those that it has. It says what it changed, and sets n.ports.
func (n *Net) applyTable(want portMap) (changed []string, err error) {
	var before portMap
	err = n.onTable(func(c *nftables.Conn) error {
		have, err := dumpTable(c, n.table())
		if err != nil {
			return err
		}
		var whole bool
		before, whole = n.readPorts(have)
		if want == nil {
			want = before
		}
		if !whole || !n.sameChains(have) {
			changed = append(changed, "nftables table")
			return n.rebuild(c, want)
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
	addr, anyAddr := n.portSets()
	goneAddr, goneAny := gone.elements()
	freshAddr, freshAny := fresh.elements()
	err := errors.Join(
		change(c.SetDeleteElements, addr, goneAddr),
		change(c.SetDeleteElements, anyAddr, goneAny),
		change(c.SetAddElements, addr, freshAddr),
		change(c.SetAddElements, anyAddr, freshAny))
	if err != nil {
		return err
	}
	return c.Flush()
}

// rebuild replaces the table, in one transaction: no packet sees it half done.
func (n *Net) rebuild(c *nftables.Conn, ports portMap) error {
	t := c.AddTable(n.table()) // there must be one to delete
	c.DelTable(t)
	c.AddTable(t)
	addr, anyAddr := n.portSets()
	if err := errors.Join(c.AddSet(addr, nil), c.AddSet(anyAddr, nil)); err != nil {
		return err
	}
	chains := n.chains()
	for _, ch := range chains {
		c.AddChain(&nftables.Chain{Table: t, Name: ch.name, Type: ch.kind, Hooknum: ch.hook, Priority: ch.prio})
	}
	for _, ch := range chains {
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: ch.name}, Exprs: exprs})
		}
	}
	return n.update(c, nil, ports)
}

// deleteTable is fine with a table that is not there.
func (n *Net) deleteTable() error {
	return n.onTable(func(c *nftables.Conn) error {
		c.DelTable(c.AddTable(n.table()))
		return c.Flush()
	})
}

// readPorts is what the maps of the table hold, and whether both are there and
// readable.
func (n *Net) readPorts(have *tableDump) (portMap, bool) {
	ports := portMap{}
	if have == nil {
		return ports, false
	}
	addr, okAddr := have.maps[mapAddr]
	anyAddr, okAny := have.maps[mapAny]
	readAddr, readAny := ports.readElements(addr, true), ports.readElements(anyAddr, false)
	return ports, okAddr && okAny && readAddr && readAny && len(have.maps) == 2
}

// sameChains compares the table's chains and rules with ours. A kernel that
// spells a rule in another way costs a rebuild at Setup, nothing more.
func (n *Net) sameChains(have *tableDump) bool {
	want := n.chains()
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
		rules := have.rules[w.name]
		if len(rules) != len(w.rules) {
			return false
		}
		for i, r := range rules {
			if !sameRule(r.Exprs, w.rules[i]) {
				return false
			}
		}
	}
	return true
}

func sameRule(a, b []expr.Any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, errX := expr.Marshal(unix.NFPROTO_IPV4, a[i])
		y, errY := expr.Marshal(unix.NFPROTO_IPV4, b[i])
		if errX != nil || errY != nil || string(x) != string(y) {
			return false
		}
	}
	return true
}

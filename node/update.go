package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
)

// Change is what Update changes of a container; nil is left as it is.
type Change struct {
	NICs  *[]netcfg.NIC
	Ports *[]netcfg.Port
}

// Update gives a container exactly these NICs and ports, live if it runs: NICs
// that stay (by type and id) are changed in place, others are taken away or
// made. When it fails, everything is as it was.
func (n *Node) Update(ctx context.Context, name string, c Change) (err error) {
	b, err := n.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer b.unlock()
	var ns *os.File
	defer func() {
		if ns != nil { // after what is undone in it
			err = errors.Join(err, ns.Close())
		}
	}()
	before, had := b.spec, b.given
	next, err := n.after(before, c)
	if err != nil {
		return err
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	if err := n.respec(b, next, had); err != nil {
		return err
	}
	undo.Push(func() error {
		ctx, cancel := aside(ctx)
		defer cancel()
		b.set(func() { b.spec = before; b.respec() })
		b.setGiven(had)
		n.record(ctx, b, func() {})
		if b.process.PID == 0 {
			return nil
		}
		return n.writeNames(b, b.run.Hostname)
	})
	if err := n.cfg.DB.Put(ctx, b.set(func() {})); err != nil {
		return err
	}
	status := get(b, func() Status { return b.status })
	if status != Running && status != Standby {
		undo.Keep()
		return nil
	}
	if ns, err = container.OpenProc(b.process, "ns/net"); err != nil {
		return err
	}
	if err := n.rewire(ctx, b, fdPath(ns), &undo); err != nil {
		return fmt.Errorf("update container %s: %w", name, err)
	}
	forward := b.forward
	b.set(func() { b.forward = n.forwards(b) })
	undo.Push(func() error {
		ctx, cancel := aside(ctx)
		defer cancel()
		b.set(func() { b.forward = forward })
		return n.setPorts(ctx)
	})
	if err := errors.Join(n.setPorts(ctx), n.writeNames(b, b.run.Hostname)); err != nil {
		return fmt.Errorf("update container %s: %w", name, err)
	}
	undo.Keep()
	n.tidy()
	return nil
}

// after is the spec after the change, if that can be.
func (n *Node) after(spec Spec, c Change) (Spec, error) {
	next := spec
	if c.NICs != nil {
		next.NICs = *c.NICs
	}
	if c.Ports != nil {
		next.Ports = *c.Ports
	}
	if next.HostNetworking && len(next.NICs)+len(next.Ports) > 0 {
		return next, errs.E(errs.Invalid, "container %s has the node's network: it has no NICs and no ports", spec.Name)
	}
	if err := next.Validate(); err != nil {
		return next, err
	}
	return next, n.checkNewPorts(spec, next)
}

// checkNewPorts looks whether ports that come are free on the machine.
func (n *Node) checkNewPorts(before, next Spec) error {
	next.Ports = slices.DeleteFunc(slices.Clone(next.Ports), func(p netcfg.Port) bool { return slices.Contains(before.Ports, p) })
	return n.checkPorts(next)
}

// respec makes next the spec of the container, with what its NICs are given.
func (n *Node) respec(b *box, next Spec, had []given) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.checkClash(next); err != nil {
		return err
	}
	all, err := n.give(next, had)
	if err != nil {
		return err
	}
	b.set(func() { b.spec = next; b.respec() })
	b.setGiven(all)
	return nil
}

// rewire goes from the NICs that a run has to those that it should have, in its
// namespace.
func (n *Node) rewire(ctx context.Context, b *box, path string, undo *cleanup.Stack) error {
	plugs := b.plugs
	links, err := n.links(b)
	if err != nil {
		return err
	}
	if len(plugs) == 0 && len(links) == 0 {
		return nil
	}
	if err := n.setUpNet(ctx, links); err != nil {
		return err
	}
	// A daemon that finds this file after a crash puts right whatever of it is
	// there, and removes what should not be.
	if err := n.writePlugs(b.spec.Name, slices.Concat(plugs, unmade(links))); err != nil {
		return err
	}
	undo.Push(func() error {
		b.set(func() { b.plugs = plugs })
		n.keepLeases(b)
		return n.writePlugs(b.spec.Name, plugs)
	})
	var now []plug
	for _, l := range links {
		i := slices.IndexFunc(plugs, func(p plug) bool { return p.Link.NIC.Key() == l.NIC.Key() })
		if i >= 0 && reflect.DeepEqual(plugs[i].Link, l) {
			now = append(now, plugs[i])
			continue
		}
		p, err := n.replug(ctx, path, l, plugs, i, undo)
		if err != nil {
			return about(l, err)
		}
		now = append(now, p)
	}
	for _, p := range plugs {
		if slices.ContainsFunc(links, func(l netcfg.Link) bool { return l.NIC.Key() == p.Link.NIC.Key() }) {
			continue
		}
		if err := n.pullOut(ctx, path, p); err != nil {
			return about(p.Link, err)
		}
		undo.Push(func() error {
			ctx, cancel := aside(ctx)
			defer cancel()
			_, err := n.plugIn(ctx, path, p.Link)
			return err
		})
	}
	b.set(func() { b.plugs = now })
	if err := errors.Join(n.writePlugs(b.spec.Name, now), n.holdNetns(b, path)); err != nil {
		return err
	}
	n.keepLeases(b)
	return nil
}

// replug makes a NIC that the run does not have, or changes one that it has at
// plugs[i].
func (n *Node) replug(ctx context.Context, path string, l netcfg.Link, plugs []plug, i int, undo *cleanup.Stack) (plug, error) {
	if i < 0 {
		p, err := n.plugIn(ctx, path, l)
		if err == nil {
			undo.Push(func() error { return n.pullOut(ctx, path, p) })
		}
		return p, err
	}
	old := plugs[i]
	p, err := n.change(ctx, path, l, old)
	if err == nil {
		undo.Push(func() error {
			ctx, cancel := aside(ctx)
			defer cancel()
			_, err := n.change(ctx, path, old.Link, p)
			return err
		})
	}
	return p, err
}

// change makes a NIC into another of the same type and id: in place where its
// addresses come from us on both sides.
func (n *Node) change(ctx context.Context, path string, l netcfg.Link, old plug) (plug, error) {
	inPlace := l.NIC.Type != netcfg.NICCNI && !l.NIC.Config.DHCP && !old.Link.NIC.Config.DHCP && l.Name == old.Link.Name
	if inPlace {
		if err := n.cfg.Net.CheckLink(l); err != nil {
			return plug{}, err
		}
		return plug{Link: l}, n.cfg.Net.Attach(ctx, path, l)
	}
	if err := n.pullOut(ctx, path, old); err != nil {
		return plug{}, err
	}
	p, err := n.plugIn(ctx, path, l)
	if err != nil {
		ctx, cancel := aside(ctx)
		defer cancel()
		_, back := n.plugIn(ctx, path, old.Link)
		return plug{}, errors.Join(err, back)
	}
	return p, nil
}

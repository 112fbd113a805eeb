package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/events"
)

// Change is what Update changes of a container; nil is left as it is.
type Change struct {
	NICs  *[]netcfg.NIC
	Ports *[]netcfg.Port
}

// Update gives a container exactly these NICs and ports, live if it runs: NICs
// that stay (by type and id) are changed in place, others are taken away or
// made. When it fails, everything is as it was.
func (n *Node) Update(ctx context.Context, name string, c Change) error {
	b, err := n.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer b.unlock()
	if err := n.update(ctx, b, c); err != nil {
		return err
	}
	n.tell(ctx, b, events.ContainerUpdated, events.Data{})
	n.tellNet(ctx, b)
	return nil
}

func (n *Node) update(ctx context.Context, b *box, c Change) (err error) {
	defer n.tidy() // what was taken away may have been the last of its kind
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
	defer func() { b.set(func() { b.fallback = nil }) }() // after what is undone
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	if err := n.respec(ctx, b, next, had); err != nil {
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
	if b.process.PID != 0 {
		// A daemon that finds this file after a crash takes away what should not be,
		// and makes the rest. Of default NICs alone there was none so far.
		if err := n.writePlugs(b.name, b.plugs); err != nil {
			return err
		}
	}
	if err := n.cfg.DB.Put(ctx, b.set(func() {})); err != nil {
		return err
	}
	status := get(b, func() Status { return b.status })
	if status != Running && status != Standby {
		undo.Keep()
		return nil
	}
	ns, err = container.OpenProc(b.process, "ns/net")
	if errors.Is(err, errs.NotFound) {
		undo.Keep()
		return nil // the shim is about to tell of its end; its next run has what this one should
	}
	if err != nil {
		return err
	}
	if err := n.updateRun(ctx, b, fdPath(ns), &undo); err != nil {
		return fmt.Errorf("update container %s: %w", b.name, err)
	}
	undo.Keep()
	return nil
}

// updateRun has the run of a container follow its spec, in its namespace.
func (n *Node) updateRun(ctx context.Context, b *box, path string, undo *cleanup.Stack) error {
	if err := n.rewire(ctx, b, path, undo); err != nil {
		return err
	}
	forward := b.forward
	b.set(func() { b.forward = n.forwards(b) })
	undo.Push(func() error {
		ctx, cancel := aside(ctx)
		defer cancel()
		b.set(func() { b.forward = forward })
		return n.setPorts(ctx)
	})
	return errors.Join(n.setPorts(ctx), n.writeNames(b, b.run.Hostname))
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
func (n *Node) respec(ctx context.Context, b *box, next Spec, had []given) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.checkClash(next); err != nil {
		return err
	}
	all, err := n.give(ctx, next, had)
	if err != nil {
		return err
	}
	b.set(func() {
		b.fallback = &promise{b.spec, b.given}
		b.spec = next
		b.respec()
	})
	b.setGiven(all)
	return nil
}

package node

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/netcfg"
)

// staying is the index of the plug that becomes l where it is, or -1.
func staying(plugs []plug, l netcfg.Link) int {
	return slices.IndexFunc(plugs, func(p plug) bool { return stays(p, l) })
}

// stays says whether a NIC that was made becomes l where it is: it is l, or its
// addresses come from us on both sides. Where it cannot, it is taken away before
// l is made, which may have its name and its place.
func stays(p plug, l netcfg.Link) bool {
	old := p.Link
	if old.NIC.Key() != l.NIC.Key() || old.Index != l.Index || old.Name != l.Name {
		return false
	}
	return reflect.DeepEqual(old, l) || l.NIC.Type != netcfg.NICCNI && !l.NIC.Config.DHCP && !old.NIC.Config.DHCP
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
	coming := slices.DeleteFunc(slices.Clone(links), func(l netcfg.Link) bool {
		return slices.ContainsFunc(plugs, func(p plug) bool { return reflect.DeepEqual(p.Link, l) })
	})
	for _, l := range coming { // before anything is taken away for it
		if err := n.checkLink(ctx, l); err != nil {
			return about(l, err)
		}
	}
	back := slices.Clone(plugs) // what is made again may have another address
	undo.Push(func() error {
		b.set(func() { b.plugs = back })
		n.keepLeases(ctx, b)
		return n.writePlugs(b.spec.Name, back)
	})
	n.dropKeepers(b)
	var kept []plug
	for i, p := range plugs {
		if slices.ContainsFunc(links, func(l netcfg.Link) bool { return stays(p, l) }) {
			kept = append(kept, p)
			continue
		}
		undo.Push(func() (err error) { // of one that is half away, too
			ctx, cancel := aside(ctx)
			defer cancel()
			back[i], err = n.plugIn(ctx, path, p.Link)
			return err
		})
		if err := n.pullOut(ctx, path, p); err != nil {
			return about(p.Link, err)
		}
	}
	// What goes and what comes are never in the file together: two may bear one
	// name, one after the other.
	undo.Push(func() error { return n.writePlugs(b.spec.Name, plugs) })
	if err := n.writePlugs(b.spec.Name, slices.Concat(kept, unmade(coming))); err != nil {
		return err
	}
	var now []plug
	for _, l := range links {
		p, err := n.becomes(ctx, path, l, plugs, undo)
		if err != nil {
			return about(l, err)
		}
		now = append(now, p)
	}
	b.set(func() { b.plugs = now })
	if err := errors.Join(n.writePlugs(b.spec.Name, now), n.holdNetns(b, path)); err != nil {
		return err
	}
	n.keepLeases(ctx, b)
	return nil
}

// becomes makes l, of the plug that stays for it or anew.
func (n *Node) becomes(ctx context.Context, path string, l netcfg.Link, plugs []plug, undo *cleanup.Stack) (plug, error) {
	i := staying(plugs, l)
	if i < 0 {
		p, err := n.plugIn(ctx, path, l)
		if err == nil {
			undo.Push(func() error { return n.pullOut(ctx, path, p) })
		}
		return p, err
	}
	old := plugs[i]
	if reflect.DeepEqual(old.Link, l) {
		return old, nil
	}
	if err := n.cfg.Net.Attach(ctx, path, l); err != nil {
		return plug{}, err
	}
	undo.Push(func() error {
		ctx, cancel := aside(ctx)
		defer cancel()
		return n.cfg.Net.Attach(ctx, path, old.Link)
	})
	return plug{Link: l}, nil
}

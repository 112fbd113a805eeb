package node

import (
	"context"
	"fmt"
	"time"

	"github.com/buoy-edge/buoy/node/events"
)

// watchRetry paces attempts to listen to the kernel.
const watchRetry = 10 * time.Second

// watchNet puts back what others take from the network of containers, until ctx
// ends.
func (n *Node) watchNet(ctx context.Context) {
	select {
	case <-n.ready: // adopting asserts the network by itself
	case <-ctx.Done():
		return
	}
	for {
		err := n.cfg.Net.Watch(ctx, func(what string) { n.putBack(ctx, what) })
		if ctx.Err() != nil {
			return
		}
		n.cfg.Log.Error("nobody watches the network", "error", err)
		select {
		case <-time.After(watchRetry):
			n.putBack(ctx, "anything")
		case <-ctx.Done():
			return
		}
	}
}

// putBack asserts bridges, rules and the NICs of all containers. One whose NICs
// cannot be had any more is restarted with the reason.
func (n *Node) putBack(ctx context.Context, what string) {
	if ctx.Err() != nil {
		return
	}
	n.cfg.Log.Warn("somebody else changed the network: putting it back", "what", what)
	ofContainer := n.lostNIC(what)
	if err := n.assertHost(ctx); err != nil {
		n.cfg.Log.Error("network not put back", "error", err)
		return
	}
	if err := n.setPorts(ctx); err != nil {
		n.cfg.Log.Error("ports not put back", "error", err)
	} else if !ofContainer {
		n.emit(ctx, events.NetworkRestored, "", events.Data{Message: "put back: " + what})
	}
	// Not waited for: one that is busy with a registry must not keep what is lost
	// meanwhile from being put back.
	for _, b := range n.all() {
		doubted := false
		b.set(func() { doubted, b.doubted = b.doubted, true })
		if !doubted {
			n.background(func(ctx context.Context) { n.reassert(ctx, b) })
		}
	}
}

// reassert makes the NICs of a container what they are to be, once nobody else
// is at it.
func (n *Node) reassert(ctx context.Context, b *box) {
	ctx = events.ByItself(ctx, "network watch")
	if !n.hold(ctx, b) {
		return
	}
	defer b.unlock()
	// The box before the slot, as everywhere: those who have a slot never wait for
	// a box.
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	case <-ctx.Done():
		return
	}
	b.set(func() { b.doubted = false })
	if s := get(b, func() Status { return b.status }); s != Running && s != Standby {
		return
	}
	if err := n.assert(ctx, b); err != nil && ctx.Err() == nil {
		n.cfg.Log.Warn("container is restarted: its network cannot be put back", "container", b.spec.Name, "error", err)
		n.again(ctx, b, reasonStartFailed, fmt.Errorf("it lost its network: %w", err))
		return
	}
	n.tellRestored(ctx, b)
}

// assertHost makes the bridges and rules of the machine what they are to be.
func (n *Node) assertHost(ctx context.Context) error {
	n.netOnce.Lock()
	defer n.netOnce.Unlock()
	n.mu.Lock()
	bridges := n.bridges
	n.mu.Unlock()
	if err := n.setBridges(ctx, bridges); err != nil {
		return err
	}
	n.serveDHCP(ctx, true)
	if !n.usesDefault() {
		return nil
	}
	if err := n.cfg.Net.Setup(ctx); err != nil {
		return err
	}
	n.setDefaultUp(ctx, true)
	return nil
}

package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// Reboot stops the containers, the newest first, writes everything to disk and
// restarts the machine; what is wanted stays wanted. With force a container
// that does not end in time does not matter. When it fails, what it had stopped
// runs again. Conflict: this is a developer's machine.
func (n *Node) Reboot(ctx context.Context, force bool) error {
	if n.cfg.Dev && !n.cfg.AllowReboot {
		return errs.E(errs.Conflict, "this buoyd runs with --dev: it reboots the machine only if started with --allow-reboot")
	}
	boxes := n.all()
	slices.SortFunc(boxes, func(a, b *box) int { return b.rec.Created.Compare(a.rec.Created) })
	var stopped []*box
	for _, b := range boxes {
		ran, err := n.stopForReboot(ctx, b)
		if ran {
			stopped = append(stopped, b)
		}
		if err != nil && !force {
			n.startAgain(ctx, stopped)
			return fmt.Errorf("reboot: %w", err)
		}
	}
	n.emit(ctx, events.NodeRebooting, "", events.Data{})
	n.cfg.Events.Flush()
	unix.Sync()
	err := n.reboot()
	if err != nil {
		n.startAgain(ctx, stopped)
		return fmt.Errorf("reboot: the kernel refuses; containers were stopped and started again: %w", err)
	}
	return nil
}

// rebootMachine does not return when it succeeds.
func rebootMachine() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }

// stopForReboot stops a container; ran says that it is to run again.
func (n *Node) stopForReboot(ctx context.Context, b *box) (ran bool, err error) {
	if !n.hold(ctx, b) {
		return false, ctx.Err()
	}
	defer b.unlock()
	n.cancelTimer(b)
	if get(b, func() Status { return b.status }) == Halted {
		return false, nil
	}
	if err := n.halt(ctx, b, reasonStopped, "the node reboots"); err != nil {
		return b.waits(), err
	}
	// It ran until the reboot, so it runs again after it.
	rec := b.set(func() {
		if ran = b.rec.Wanted == state.Run; ran {
			b.rec.Finished, b.rec.Reason, b.rec.Message = time.Time{}, "", ""
		}
	})
	return ran, n.cfg.DB.Put(ctx, rec)
}

// waits says whether the container should run and does not.
func (b *box) waits() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rec.Wanted == state.Run && (b.status == Halted || b.status == Restarting)
}

// startAgain starts what was stopped for a reboot that did not come, also when
// nobody waits for the answer any more.
func (n *Node) startAgain(ctx context.Context, stopped []*box) {
	ctx = context.WithoutCancel(ctx)
	var g errgroup.Group
	g.SetLimit(startsAtOnce)
	for _, b := range slices.Backward(stopped) { // the oldest first
		g.Go(func() error {
			if n.hold(ctx, b) {
				defer b.unlock()
				if b.waits() {
					n.tryStart(ctx, b)
				}
			}
			return nil
		})
	}
	_ = g.Wait() // none fails: a start that does is tried again later
}

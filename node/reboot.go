package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/state"
)

// Reboot stops the containers, the newest first, writes everything to disk and
// restarts the machine; what is wanted stays wanted. With force a container
// that does not end in time does not matter. Conflict: this is a developer's
// machine.
func (n *Node) Reboot(ctx context.Context, force bool) error {
	if n.cfg.Dev && !n.cfg.AllowReboot {
		return errs.E(errs.Conflict, "this buoyd runs with --dev: it reboots the machine only if started with --allow-reboot")
	}
	boxes := n.all()
	slices.SortFunc(boxes, func(a, b *box) int { return b.rec.Created.Compare(a.rec.Created) })
	for _, b := range boxes {
		if err := n.stopForReboot(ctx, b); err != nil && !force {
			return fmt.Errorf("reboot: %w", err)
		}
	}
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func (n *Node) stopForReboot(ctx context.Context, b *box) error {
	if !n.hold(ctx, b) {
		return ctx.Err()
	}
	defer b.unlock()
	n.cancelTimer(b)
	if get(b, func() Status { return b.status }) == Halted {
		return nil
	}
	if err := n.halt(ctx, b, reasonStopped, "the node reboots"); err != nil {
		return err
	}
	// It ran until the reboot, so it runs again after it.
	rec := b.set(func() {
		if b.rec.Wanted == state.Run {
			b.rec.Finished, b.rec.Reason, b.rec.Message = time.Time{}, "", ""
		}
	})
	return n.cfg.DB.Put(ctx, rec)
}

package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
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
	if err := b.lock(ctx); err != nil {
		return err
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

// UpdateNICs changes the NICs of a container while it runs. This version knows
// one type of NIC and can only leave things as they are.
func (n *Node) UpdateNICs(_ context.Context, name string, nics []netcfg.NIC) error {
	b, err := n.find(name)
	if err != nil {
		return err
	}
	next := b.spec
	next.NICs = nics
	if err := next.validateNetwork(); err != nil {
		return err
	}
	if !slices.EqualFunc(nics, b.spec.NICs, sameNIC) {
		return errs.E(errs.Invalid, "NICs of a container cannot be changed by this version; delete the container and create it again")
	}
	return nil
}

func sameNIC(a, b netcfg.NIC) bool {
	return a.Type == b.Type && a.ID == b.ID && a.Name == b.Name && a.HWAddr == b.HWAddr &&
		a.Config.DHCP == b.Config.DHCP && a.Config.CIDR == b.Config.CIDR && a.Config.Gateway == b.Config.Gateway &&
		slices.Equal(a.Config.DNS, b.Config.DNS)
}

// Logs reads what a container says; f is called for each line. With Follow it
// goes on until the container has ended or ctx has.
func (n *Node) Logs(ctx context.Context, name string, q container.LogQuery, f func(container.LogLine) error) error {
	b, err := n.find(name)
	if err != nil {
		return err
	}
	b.mu.Lock()
	if q.Follow && b.status != Restarting {
		q.Done = b.ended
	}
	b.mu.Unlock()
	err = container.ReadLogs(ctx, n.logFile(name), q, f)
	if errors.Is(err, errs.NotFound) {
		return nil // it has said nothing yet
	}
	return err
}

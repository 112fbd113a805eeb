package node

import (
	"context"
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Kill sends a signal to the first process of a container. SIGKILL is a stop
// without a question, and cuts one short that is under way. An end that follows
// the container's own stop signal within its grace counts as a stop, too.
func (n *Node) Kill(ctx context.Context, name string, sig syscall.Signal) error {
	b, err := n.find(name)
	if err != nil {
		return err
	}
	status := get(b, func() Status { return b.status })
	if sig == unix.SIGKILL && (status == Running || status == Standby || status == Restarting) {
		return n.stop(ctx, name, true)
	}
	if status != Running && status != Stopping {
		return errs.E(errs.Conflict, "container %q is %s, not running", name, status)
	}
	b.set(func() {
		if stop, grace := b.run.Stopping(); sig == stop && container.Heeds(b.process.PID, sig) {
			b.parting = time.Now().Add(grace)
		}
	})
	err = n.cfg.Runtime.Shim().Signal(ctx, shimapi.SignalRequest{ID: name, Signal: int(sig)})
	switch {
	case !errors.Is(err, errs.NotFound):
		return err
	case sig == unix.SIGKILL:
		return nil
	}
	return errs.E(errs.Conflict, "container %q has just ended", name)
}

package node

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// TestFailedReboot: what ran before runs again, what was stopped stays so.
func TestFailedReboot(t *testing.T) {
	n, shim := newNode(t)
	ctx := t.Context()
	if err := n.Reboot(ctx, false); !errors.Is(err, errs.Conflict) {
		t.Errorf("on a developer's machine: %v", err)
	}
	n.cfg.AllowReboot = true
	standby := n.spec("standby")
	standby.Standby = true
	for _, s := range []Spec{n.spec("ran"), standby, n.spec("stopped")} {
		if err := n.Create(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Stop(ctx, "stopped"); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		for name, want := range map[string]Status{"ran": Running, "standby": Standby, "stopped": Halted} {
			if c, err := n.Container(name); err != nil || c.Status != want || shim.has(name) != (want != Halted) {
				t.Errorf("%s: %s is %s (%s), %v; want %s", when, name, c.Status, c.Message, err, want)
			}
		}
	}
	n.reboot = func() error {
		if shim.has("ran") || shim.has("standby") {
			t.Error("containers run at the moment of the reboot")
		}
		return unix.EPERM
	}
	if err := n.Reboot(ctx, false); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "started again") {
		t.Errorf("Reboot = %v", err)
	}
	check("the kernel refused")
	shim.ask(func(op shimapi.Op, id string) error {
		if op == shimapi.OpKill && id == "ran" {
			return errs.E(errs.Internal, "it hangs")
		}
		return nil
	})
	if err := n.Reboot(ctx, false); err == nil || !strings.Contains(err.Error(), "it hangs") {
		t.Errorf("Reboot = %v", err)
	}
	check("one could not be stopped")
}

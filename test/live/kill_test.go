package live

import (
	"os"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestKill: what a person kills stays down, whatever its policy is; what ends of
// another signal is started again.
func TestKill(t *testing.T) {
	d := newDaemon(t)
	script := "trap 'echo told' HUP; trap 'exit 3' USR1; trap 'exit 4' TERM; echo ready; while :; do sleep 0.02; done"
	r := sh(t, "box", script)
	r.Restart = "always"
	d.create(r)
	ready := 1
	await := func() {
		t.Helper()
		d.await("it is ready", func() bool { return strings.Count(d.logs("box", buoy.LogOptions{}), "ready") == ready })
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := d.buoyIn(t.TempDir(), "", args...); err != nil {
			t.Fatalf("buoy %q: %v\n%s", args, err, out)
		}
	}
	get := func() buoy.Container {
		t.Helper()
		c, err := d.client.Container(t.Context(), "box")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	await()
	must("kill", "-s", "HUP", "box")
	d.await("it was told", func() bool { return strings.Contains(d.logs("box", buoy.LogOptions{}), "told") })
	must("kill", "-s", "USR1", "box")
	ready++
	await()

	must("kill", "box")
	if c := get(); c.State != "halted" || c.Reason != "Stopped" || c.ExitCode == nil || *c.ExitCode != 137 {
		t.Errorf("killed: %s %s %v", c.State, c.Reason, c.ExitCode)
	}
	if out, err := d.buoyIn(t.TempDir(), "", "kill", "box"); err == nil || !strings.Contains(out, "is halted, not running") {
		t.Errorf("killed twice: %v, %s", err, out)
	}
	must("start", "box")
	ready++
	await()
	must("kill", "-s", "TERM", "box")
	d.await("it has ended", func() bool { return get().State != "running" })
	if c := get(); c.State != "halted" || c.Reason != "Stopped" || c.ExitCode == nil || *c.ExitCode != 4 {
		t.Errorf("ended by its stop signal: %s %s %v %q", c.State, c.Reason, c.ExitCode, c.Message)
	}

	// It ends a stop that is patient.
	r = sh(t, "deaf", "trap : TERM; echo deaf; while :; do sleep 0.02; done")
	r.StopGrace = 600
	d.create(r)
	d.await("it is deaf", func() bool { return strings.Contains(d.logs("deaf", buoy.LogOptions{}), "deaf") })
	stopped := make(chan error, 1)
	go func() { stopped <- d.client.Stop(t.Context(), "deaf") }()
	d.awaitState("deaf", "stopping")
	must("kill", "deaf")
	if err := <-stopped; err != nil {
		t.Error(err)
	}

	// So does the second Ctrl-C of run.
	cmd := d.buoy("run", "--name", "loud", "--stop-timeout", "600", image(t), "/bin/sh", "-c", "trap : TERM; echo loud; while :; do sleep 0.02; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.awaitState("loud", "running")
	d.await("it is loud", func() bool { return strings.Contains(d.logs("loud", buoy.LogOptions{}), "loud") })
	for _, state := range []string{"stopping", "halted"} {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		d.awaitState("loud", state)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 137 {
		t.Errorf("run: %v, want exit code 137", err)
	}
}

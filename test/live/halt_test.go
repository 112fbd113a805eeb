package live

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// halt is "buoyd halt" of the instance.
func (d *daemon) halt() *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin(d.t), "buoyd"), "halt", "--data", d.data(), "--run", d.run())
	cmd.Stdout, cmd.Stderr = d.log, d.log
	return cmd
}

// TestHalt: what a shutdown of the machine does with containers, and that the
// next daemon starts them again.
func TestHalt(t *testing.T) {
	d := newInstance(t)
	before := traces(t)
	d.start()
	create := func(name, script string, more func(*buoy.CreateRequest)) {
		t.Helper()
		r := buoy.CreateRequest{
			Name: name, Flist: image(t), Command: []string{"/bin/sh", "-c", script}, NICs: []buoy.NIC{{Type: "default"}},
			Mounts: []buoy.Mount{{Type: "volume", Source: "said", Target: "/said"}},
		}
		if more != nil {
			more(&r)
		}
		if err := d.client.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		d.awaitState(name, "running")
	}
	const wait = "while true; do sleep 0.1; done"
	create("polite", `trap 'sleep 0.5; echo bye >/said/polite; exit' USR1; echo >/said/polite-listens; `+wait, func(r *buoy.CreateRequest) { r.StopSignal = "USR1" })
	create("deaf", `trap '' TERM; echo >/said/deaf-listens; `+wait, func(r *buoy.CreateRequest) { r.StopGrace = 1 })
	create("stopped", wait, nil)
	if err := d.client.Stop(t.Context(), "stopped"); err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(d.data(), "volumes/said")
	d.await("both listen", func() bool {
		_, err1 := os.Stat(filepath.Join(said, "polite-listens"))
		_, err2 := os.Stat(filepath.Join(said, "deaf-listens"))
		return errors.Join(err1, err2) == nil
	})

	if err := d.halt().Run(); err == nil {
		t.Error("containers were taken from a daemon that runs")
	}
	d.stop()
	if err := d.halt().Run(); err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	if text, err := os.ReadFile(filepath.Join(said, "polite")); err != nil || string(text) != "bye\n" {
		t.Errorf("it was not asked by its own signal, or not waited for: %q, %v", text, err)
	}
	if _, err := os.Stat(d.run()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its run directory is left: %v", err)
	}
	d.await("nothing is left on the machine", func() bool { return len(d.mine(added(before, traces(t)))) == 0 })
	if err := d.halt().Run(); err != nil {
		t.Errorf("again: %v", err)
	}

	d.start()
	d.awaitState("polite", "running")
	d.awaitState("deaf", "running")
	if c := d.awaitState("stopped", "halted"); c.Reason != "Stopped" {
		t.Errorf("what a person had stopped: %+v", c)
	}

	// One that has lost its patience does not wait for anybody's grace.
	create("slow", `trap '' TERM; echo >/said/slow-listens; `+wait, func(r *buoy.CreateRequest) { r.StopGrace = 600 })
	d.await("it listens", func() bool {
		_, err := os.Stat(filepath.Join(said, "slow-listens"))
		return err == nil
	})
	d.stop()
	if err := os.Remove(filepath.Join(said, "polite")); err != nil {
		t.Fatal(err)
	}
	cmd := d.halt()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.await("it waits for the slow one alone", func() bool {
		_, err := os.Stat(filepath.Join(said, "polite"))
		return err == nil
	})
	began := time.Now()
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v\n%s", err, time.Since(began), d.log)
	}
}

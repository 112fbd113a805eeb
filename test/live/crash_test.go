package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// killsPerStep is at how many moments of each operation each program is killed.
const killsPerStep = 12

// TestKillMatrix kills buoyd and buoy-shim in the middle of every operation, at
// moments spread over its whole length, and wants the node whole again: what
// was answered is so, what was not is either done or undone, and after deleting
// everything nothing is left.
func TestKillMatrix(t *testing.T) {
	t.Parallel()
	victims := map[string]func(*daemon){
		"buoyd":     (*daemon).killAndStart,
		"buoy-shim": (*daemon).killShim,
	}
	for victim, kill := range victims {
		for _, op := range []string{"create", "start", "stop", "delete"} {
			t.Run(victim+"/"+op, func(t *testing.T) {
				t.Parallel()
				d := newDaemon(t)
				d.killDuring(t, op, func() { kill(d) })
			})
		}
	}
}

// killDuring does op again and again, each time with a kill a little later.
func (d *daemon) killDuring(t *testing.T, op string, kill func()) {
	took := d.timed(op, "x-"+op+"-whole", func() {})
	for i := range killsPerStep {
		name := fmt.Sprintf("x-%s-%d", op, i)
		after := took * time.Duration(i) / (killsPerStep - 1)
		d.timed(op, name, func() {
			time.Sleep(after) // the moment is what is tested
			kill()
		})
		d.whole(t, op, name)
	}
	for _, c := range d.list() {
		if err := d.client.Delete(t.Context(), c.Name); err != nil {
			t.Errorf("delete %s: %v", c.Name, err)
		}
	}
	d.empty(t)
}

// timed prepares a container for op, does it while meanwhile happens, and gives
// the time that op took. What the client was told is kept in d.told.
func (d *daemon) timed(op, name string, meanwhile func()) time.Duration {
	d.t.Helper()
	ctx := context.WithoutCancel(d.t.Context())
	r := sh(d.t, name, "trap 'exit 0' TERM; while :; do sleep 0.05; done")
	r.NICs, r.Restart = []buoy.NIC{{Type: "default"}}, "unless-stopped"
	r.Ports = []string{fmt.Sprintf("%d:80", takePorts(d.t, 1))}
	if op != "create" {
		d.create(r)
	}
	if op == "start" {
		if err := d.client.Stop(ctx, name); err != nil {
			d.t.Fatal(err)
		}
	}
	do := map[string]func() error{
		"create": func() error { return d.client.Create(ctx, r) },
		"start":  func() error { return d.client.Start(ctx, name) },
		"stop":   func() error { return d.client.Stop(ctx, name) },
		"delete": func() error { return d.client.Delete(ctx, name) },
	}[op]
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- do() }()
	meanwhile()
	d.told = <-done
	return time.Since(began)
}

// whole checks what a container is after op was disturbed.
func (d *daemon) whole(t *testing.T, op, name string) {
	t.Helper()
	var c buoy.Container
	var err error
	d.await(name+" is settled", func() bool {
		c, err = d.client.Container(context.WithoutCancel(t.Context()), name)
		return errors.Is(err, buoy.ErrNotFound) || err == nil && (c.State == "running" || c.State == "halted")
	})
	there, answered := err == nil, d.told == nil
	switch {
	case op == "delete" && answered && there:
		t.Errorf("%s was deleted and is there: %s", name, c.State)
	case op == "create" && answered && c.State != "running",
		op == "start" && answered && c.State != "running":
		t.Errorf("%s was started and is %q: %s", name, c.State, c.Message)
	case op == "stop" && answered && c.State != "halted":
		t.Errorf("%s was stopped and is %q", name, c.State)
	case (op == "start" || op == "stop") && !there:
		t.Errorf("%s is gone", name)
	case there && c.State == "running":
		if j := d.exec(name, "/bin/ip", "route"); !strings.Contains(j.Stdout, "default via") {
			t.Errorf("%s has the routes %q %q", name, j.Stdout, j.Stderr)
		}
	}
}

// empty checks that a node without containers has nothing of any.
func (d *daemon) empty(t *testing.T) {
	t.Helper()
	d.await("nothing is left of deleted containers", func() bool { return len(d.leftovers(t)) == 0 })
}

// leftovers are traces of single containers: directories, cgroups, mounts of
// the shim's namespace, links.
func (d *daemon) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{
		d.data() + "/containers/*", d.run() + "/containers/*", d.run() + "/shim/*", d.run() + "/lc/*",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	hello, err := shimapi.NewClient(filepath.Join(d.run(), "shim.sock")).Hello(t.Context())
	if err != nil {
		return append(left, err.Error())
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", hello.PID))
	if err != nil {
		return append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.dir) {
			left = append(left, strings.TrimSpace(line))
		}
	}
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/" + d.instance() + "/*@")
	if err != nil {
		t.Fatal(err)
	}
	left = append(left, cgroups...)
	aliases, err := filepath.Glob("/sys/class/net/*/ifalias")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range aliases {
		if alias, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(alias), "buoy:"+d.instance()+":") {
			left = append(left, file)
		}
	}
	return left
}

func (d *daemon) list() []buoy.ContainerSummary {
	d.t.Helper()
	list, err := d.client.Containers(context.WithoutCancel(d.t.Context()))
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

func (d *daemon) killAndStart() {
	d.kill()
	d.start()
}

// killShim kills the shim and waits for the next one.
func (d *daemon) killShim() {
	d.t.Helper()
	shim := shimapi.NewClient(filepath.Join(d.run(), "shim.sock"))
	defer shim.Close()
	ctx := context.WithoutCancel(d.t.Context())
	before, err := shim.Hello(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	d.await("the reaper starts another shim", func() bool {
		now, err := shim.Hello(ctx)
		return err == nil && now.PID != before.PID
	})
}

// TestExitAndOutputOfTheGapAreThere: a container that writes and ends while a
// program of ours is away is reported with its last words and its exit code.
func TestExitAndOutputOfTheGapAreThere(t *testing.T) {
	d := newDaemon(t)
	shim := shimapi.NewClient(filepath.Join(d.run(), "shim.sock"))
	defer shim.Close()
	away := map[string]func(end func()){
		"buoyd": func(end func()) { d.kill(); end(); d.start() },
		"buoy-shim": func(end func()) {
			hello, err := shim.Hello(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// Stopped first, so that the end falls into its absence for sure.
			for _, sig := range []syscall.Signal{syscall.SIGSTOP, 0, syscall.SIGKILL} {
				if sig == 0 {
					end()
					continue
				}
				if err := syscall.Kill(hello.PID, sig); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	for who, leave := range away {
		name := "gap-" + who
		d.create(sh(t, name, "trap 'echo last words; exit 9' USR1; echo ready; while :; do sleep 0.02; done"))
		d.await("it is ready", func() bool { return d.logs(name, buoy.LogOptions{}) == "ready\n" })
		c, err := d.client.Container(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		leave(func() {
			if err := syscall.Kill(c.PID, syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			d.await("it has ended", func() bool {
				stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID))
				return err != nil || strings.Contains(string(stat), ") Z ")
			})
		})
		c = d.awaitState(name, "halted")
		if c.ExitCode == nil || *c.ExitCode != 9 {
			t.Errorf("%s: exit code %v, want 9", name, c.ExitCode)
		}
		if got := d.logs(name, buoy.LogOptions{}); got != "ready\nlast words\n" {
			t.Errorf("%s: said %q", name, got)
		}
	}
}

func TestTwoHundredSurviveTheDaemon(t *testing.T) {
	const count = 200
	d := newDaemon(t)
	errs := make(chan error, count)
	slots := make(chan struct{}, 8)
	for i := range count {
		slots <- struct{}{}
		go func() {
			r := sh(t, fmt.Sprintf("c%d", i), "exec sleep 100000")
			r.NICs = []buoy.NIC{{Type: "default"}}
			errs <- d.client.Create(t.Context(), r)
			<-slots
		}()
	}
	for range count {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	pids := func() map[string]int {
		m := map[string]int{}
		for _, c := range d.list() {
			full, err := d.client.Container(t.Context(), c.Name)
			if err != nil || full.State != "running" {
				t.Fatalf("%s is %q (%s: %s), %v", c.Name, full.State, full.Reason, full.Message, err)
			}
			m[c.Name] = full.PID
		}
		return m
	}
	before := pids()
	if len(before) != count {
		t.Fatalf("%d containers run, want %d", len(before), count)
	}
	d.stop()
	d.start()
	after := pids()
	d.killAndStart()
	again := pids()
	for name, pid := range before {
		if after[name] != pid || again[name] != pid {
			t.Errorf("%s had pid %d, then %d, then %d", name, pid, after[name], again[name])
		}
	}
	for name := range before {
		slots <- struct{}{}
		go func() {
			errs <- d.client.Delete(t.Context(), name)
			<-slots
		}()
	}
	for range count {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	d.empty(t)
}

// TestDatabaseLost: a daemon whose database is gone does not take what runs for
// nobody's, however often it is started.
func TestDatabaseLost(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "c", "sleep 1000"))
	pid := d.awaitState("c", "running").PID
	d.stop()
	aside := filepath.Join(t.TempDir(), "node.db")
	if err := os.Rename(filepath.Join(d.data(), "node.db"), aside); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		cmd := exec.Command(filepath.Join(bin(t), "buoyd"), "--dev", "--data", d.data(), "--run", d.run(), "--node-id", "525400123456")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "node.db is new or empty, but there are containers") {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := os.Rename(aside, filepath.Join(d.data(), "node.db")); err != nil {
		t.Fatal(err)
	}
	for _, rest := range []string{"node.db-wal", "node.db-journal"} { // of the one that was made
		_ = os.Remove(filepath.Join(d.data(), rest))
	}
	d.start()
	if c := d.awaitState("c", "running"); c.PID != pid {
		t.Errorf("its pid is %d, was %d", c.PID, pid)
	}
}

//go:build linux && cgo

package shim_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

func TestAdopt(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("run", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.002; done"))
	n.mustRun(n.request("gap", "sh", "-c", "sleep 0.4; echo in the gap; exit 42"))
	n.mustRun(n.request("later", "sh", "-c", "trap 'echo bye; exit 43' TERM; echo up; while :; do sleep 0.01; done"))
	held := n.request("held", "echo", "released")
	held.Hold = true
	n.mustRun(held)
	n.mustRun(n.request("ended", "sh", "-c", "exit 3"))
	n.exit("ended")
	if _, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: "run", Job: "job", Process: process("sh", "-c", "sleep 0.5; exit 44"), Log: shimapi.Log{Path: n.dir + "/job.log"}}); err != nil {
		t.Fatal(err)
	}
	before, _ := n.get("run")
	// Keep it from coming back before the gap.
	shim := bin + "/buoy-shim"
	if err := os.Rename(shim, shim+".away"); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(n.awaitShim().PID, syscall.SIGKILL)
	time.Sleep(time.Second)
	if err := os.Rename(shim+".away", shim); err != nil {
		t.Fatal(err)
	}
	n.awaitShim()
	after, ok := n.get("run")
	if !ok || after.Process != before.Process || after.Status != shimapi.Running || !after.Started.Equal(before.Started) {
		t.Errorf("adopted %+v, was %+v", after, before)
	}
	if e := n.exit("gap"); e.Code != 42 || e.Lost {
		t.Errorf("in the gap: %+v", e)
	}
	if got := n.output(n.dir + "/gap.log"); got != "stdout F in the gap\n" {
		t.Errorf("log of the gap %q", got)
	}
	if e := n.exit("ended"); e.Code != 3 {
		t.Errorf("ended before: %+v", e)
	}
	if e := n.jobExit("run", "job"); e.Code != 44 || e.Lost {
		t.Errorf("job: %+v", e)
	}
	if err := n.Signal(t.Context(), shimapi.SignalRequest{ID: "later", Signal: 15}); err != nil {
		t.Error(err)
	}
	if e := n.exit("later"); e.Code != 43 || e.Lost {
		t.Errorf("ended after adoption: %+v", e)
	}
	if err := n.Release(t.Context(), "held"); err != nil {
		t.Errorf("Release after adoption: %v", err)
	}
	if e := n.exit("held"); e.Code != 0 {
		t.Errorf("held: %+v", e)
	}
	if got := n.output(n.dir + "/held.log"); got != "stdout F released\n" {
		t.Errorf("log of the held one %q", got)
	}
	if _, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: "run", Job: "new", Process: process("true")}); err != nil {
		t.Errorf("Exec after adoption: %v", err)
	}
	if err := n.Kill(t.Context(), "run"); err != nil {
		t.Error(err)
	}
	consecutive(t, n.output(n.dir+"/run.log"))
}

// consecutive fails unless out counts from 0 without a gap and without a line
// twice.
func consecutive(t *testing.T, out string) {
	t.Helper()
	i := 0
	// A line whose writer was away for a second in the middle of it is logged in parts.
	if strings.Contains(out, "stdout P ") {
		out = regexp.MustCompile(`stdout P (.*)\nstdout F `).ReplaceAllString(out, "stdout F $1")
	}
	for l := range strings.Lines(out) {
		if l != "stdout F "+strconv.Itoa(i)+"\n" {
			t.Fatalf("line %d of the log is %q", i, l)
		}
		i++
	}
	if i == 0 {
		t.Error("the log is empty")
	}
	t.Logf("%d lines", i)
}

// TestLogsSurviveKills kills the shim again and again while containers print
// as fast as they can.
func TestLogsSurviveKills(t *testing.T) {
	n := startNode(t)
	var ids []string
	for i := range 2 {
		id := fmt.Sprintf("chat%d", i)
		r := n.request(id, "sh", "-c", "seq 0 100000000")
		r.Log.MaxBytes = 1 << 40
		n.mustRun(r)
		ids = append(ids, id)
	}
	for range 8 {
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		n.killShim()
	}
	for _, id := range ids {
		if err := n.Kill(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		out := n.output(n.dir + "/" + id + ".log")
		out = out[:strings.LastIndex(out, "stdout F")] // the last may be cut by the kill
		consecutive(t, out)
	}
}

// TestDieAnywhere kills the shim at each place of each operation.
func TestDieAnywhere(t *testing.T) {
	n := startNode(t)
	die := func(at string) { write(t, n.dir+"/fail", at) }
	dead := func(at string, err error) {
		t.Helper()
		if !errors.Is(err, errs.Unavailable) {
			t.Errorf("%s: %v, want Unavailable", at, err)
		}
		n.awaitShim()
	}
	for _, at := range []string{"record", "root", "user", "output", "start", "exec"} {
		for _, hold := range []bool{false, true} {
			r := n.request("c", "sh", "-c", "sleep 1000")
			r.Hold = hold
			die("run:" + at)
			_, err := n.Run(t.Context(), r)
			dead("run:"+at, err)
			if c, ok := n.get("c"); ok && at != "exec" {
				t.Errorf("died at run:%s: %+v is left", at, c)
			} else if !ok {
				n.noTraces(t.Context())
			}
			if err := n.Delete(t.Context(), "c"); err != nil {
				t.Errorf("Delete: %v", err)
			}
		}
	}
	for _, at := range []string{"marked", "killed", "dropped"} {
		n.mustRun(n.request("c", "sleep", "1000"))
		die("delete:" + at)
		dead("delete:"+at, n.Delete(t.Context(), "c"))
		n.noTraces(t.Context())
	}
	for _, at := range []string{"seen", "saved"} {
		h := n.awaitShim()
		die("exit:" + at)
		_, _ = n.Run(t.Context(), n.request("c", "sh", "-c", "exit 21"))
		n.until("the next shim answers", func() bool {
			now, err := n.Hello(t.Context())
			return err == nil && now.PID != h.PID
		})
		if e := n.exit("c"); e.Code != 21 || e.Lost {
			t.Errorf("exit:%s: %+v", at, e)
		}
		if err := n.Delete(t.Context(), "c"); err != nil {
			t.Error(err)
		}
	}
	r := n.request("c", "sh", "-c", "exit 22")
	r.Hold = true
	n.mustRun(r)
	die("release:go")
	dead("release:go", n.Release(t.Context(), "c"))
	if e := n.exit("c"); e.Code != 22 {
		t.Errorf("released: %+v", e)
	}
	if err := n.Delete(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	n.mustRun(n.request("c", "sleep", "1000"))
	for _, at := range []string{"started", "recorded"} {
		die("exec:" + at)
		_, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: "c", Job: at, Process: process("sleep", "1000")})
		dead("exec:"+at, err)
		c, _ := n.get("c")
		n.until("the half-made job is gone", func() bool { return len(n.cgroupPids("c")) == 1 })
		if at == "started" && len(c.Jobs) > 0 {
			t.Errorf("job %+v is left", c.Jobs)
		}
	}
	if e := n.jobExit("c", "recorded"); e.Code != 125 {
		t.Errorf("job that was never let go: %+v, want 125", e)
	}
}

// TestDieAtRandom kills the shim while many run and delete.
func TestDieAtRandom(t *testing.T) {
	n := startNode(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("w%d", w)
				if _, err := n.Run(t.Context(), n.request(id, "sh", "-c", "echo x; exit 33")); err == nil {
					if e := n.lenientExit(id); e != nil && (e.Code != 33 || e.Lost) {
						t.Errorf("%s: %+v", id, e)
					}
				}
				for n.Delete(t.Context(), id) != nil {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	for range 12 {
		time.Sleep(time.Duration(20+rand.IntN(120)) * time.Millisecond)
		n.killShim()
	}
	close(stop)
	wg.Wait()
	n.noTraces(t.Context())
}

// lenientExit waits through deaths of the shim.
func (n *node) lenientExit(id string) *shimapi.Exit {
	for range 2000 {
		l, err := n.List(n.Context())
		if err == nil {
			for _, c := range l {
				if c.ID == id && c.Exit != nil {
					return c.Exit
				}
			}
		}
		time.Sleep(3 * time.Millisecond)
	}
	n.Errorf("%s does not end", id)
	return nil
}

func TestSecondReaper(t *testing.T) {
	n := startNode(t)
	out, err := runProgram(bin+"/buoy-reaper", n.run, bin+"/buoy-shim")
	if err != nil || !strings.Contains(out, "served already") {
		t.Errorf("second reaper: %q, %v", out, err)
	}
	_ = syscall.Kill(n.reaper.Process.Pid, syscall.SIGTERM)
	time.Sleep(50 * time.Millisecond)
	n.awaitShim()
}

// TestStuck: what an adopting shim could not remove is in no list; Quit names
// it, and the next Run of that id removes it.
func TestStuck(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("c", "sleep", "1000"))
	at := filepath.Join(n.run, "shim", "c", "busy")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	}()
	if err := n.Delete(t.Context(), "c"); err == nil {
		t.Fatal("Delete removed a busy directory")
	}
	n.killShim()
	if _, ok := n.get("c"); ok {
		t.Error("a half-removed container is listed")
	}
	if err := n.Quit(t.Context()); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("Quit: %v, want that it names the container", err)
	}
	if _, err := n.Run(t.Context(), n.request("c", "true")); err == nil {
		t.Error("Run beside what is left: no error")
	}
	if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	mounted = false
	n.mustRun(n.request("c", "true"))
	n.exit("c")
	n.noStuck()
}

// noStuck is TestStuck with nobody but Quit left to clear up.
func (n *node) noStuck() {
	n.Helper()
	at := filepath.Join(n.run, "shim", "c", "busy")
	_ = os.Mkdir(at, 0o700)
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		n.Fatal(err)
	}
	_ = n.Delete(n.Context(), "c")
	n.killShim()
	if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
		n.Fatal(err)
	}
	n.mustRun(n.request("other", "sleep", "1000"))
	if err := n.Quit(n.Context()); !errors.Is(err, errs.Conflict) {
		n.Errorf("Quit: %v, want Conflict for the other", err)
	}
	if _, err := os.Stat(filepath.Join(n.run, "shim", "c")); !errors.Is(err, os.ErrNotExist) {
		n.Errorf("Quit left the half-removed one: %v", err)
	}
}

// TestLeadingDot: names that ls hides are names like others.
func TestLeadingDot(t *testing.T) {
	n := startNode(t)
	for _, id := range []string{".new", "..a", ".-"} {
		r := n.request(id, "sleep", "1000")
		r.Init = true
		n.mustRun(r)
		if _, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: id, Job: ".new", Process: process("sleep", "1000")}); err != nil {
			t.Fatal(err)
		}
	}
	n.killShim()
	for _, id := range []string{".new", "..a", ".-"} {
		c, ok := n.get(id)
		if !ok || c.Status != shimapi.Running || len(c.Jobs) != 1 || c.Jobs[0].Exit != nil {
			t.Errorf("adopted %s: %+v", id, c)
		}
		if _, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: id, Job: "..", Process: process("true")}); !errors.Is(err, errs.Invalid) {
			t.Errorf("job ..: %v", err)
		}
		if err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	n.noTraces(t.Context())
}

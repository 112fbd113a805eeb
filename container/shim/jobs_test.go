//go:build linux && cgo

package shim_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

func TestExec(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("c", "sleep", "1000"))
	run := func(job string, edit func(*shimapi.ExecRequest), args ...string) (string, error) {
		r := shimapi.ExecRequest{ID: "c", Job: job, Process: process(args...), Log: shimapi.Log{Path: filepath.Join(n.dir, job+".log")}}
		if edit != nil {
			edit(&r)
		}
		_, err := n.Exec(t.Context(), r)
		return r.Log.Path, err
	}
	path, err := run("in", func(r *shimapi.ExecRequest) { r.Stdin = []byte("from stdin\n"); r.User = "alice" }, "sh", "-c", "cat; id -u; echo $HOME; exit 4")
	if err != nil {
		t.Fatal(err)
	}
	if e := n.jobExit("c", "in"); e.Code != 4 {
		t.Errorf("exit %+v, want 4", e)
	}
	if got := n.output(path); got != "stdout F from stdin\nstdout F 1000\nstdout F /home/alice\n" {
		t.Errorf("output %q", got)
	}
	if _, err := run("in", nil, "true"); !errors.Is(err, errs.Exists) {
		t.Errorf("same name: %v, want Exists", err)
	}
	if err := n.Forget(t.Context(), "c", "in"); err != nil {
		t.Error(err)
	}
	if _, err := run("in", nil, "nope"); !errors.Is(err, errs.NotFound) {
		t.Errorf("missing command: %v", err)
	}
	if _, err := run("in", nil, "notexec"); !errors.Is(err, errs.Invalid) {
		t.Errorf("not executable: %v", err)
	}
	if _, err := run("in", func(r *shimapi.ExecRequest) { r.User = "bob" }, "true"); !errors.Is(err, errs.Invalid) {
		t.Errorf("unknown user: %v", err)
	}
	// A process group is killed whole.
	if _, err := run("group", nil, "sh", "-c", "sleep 1000 & sleep 1000 & wait"); err != nil {
		t.Fatal(err)
	}
	if err := n.Forget(t.Context(), "c", "group"); !errors.Is(err, errs.Conflict) {
		t.Errorf("Forget of a running job: %v, want Conflict", err)
	}
	n.until("the group is there", func() bool { return len(n.cgroupPids("c")) == 4 })
	if err := n.Signal(t.Context(), shimapi.SignalRequest{ID: "c", Job: "group", Signal: int(syscall.SIGKILL)}); err != nil {
		t.Fatal(err)
	}
	if e := n.jobExit("c", "group"); e.Signal != 9 {
		t.Errorf("exit %+v", e)
	}
	n.until("the group is gone", func() bool { return len(n.cgroupPids("c")) == 1 })
	// A grandchild that keeps the pipe does not hold the exit up.
	path, err = run("bg", nil, "sh", "-c", "(sleep 0.5; echo late) & echo early")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	n.jobExit("c", "bg")
	if d := time.Since(begin); d > 400*time.Millisecond {
		t.Errorf("the exit took %v", d)
	}
	if got := n.output(path); got != "stdout F early\n" {
		t.Errorf("output at exit %q", got)
	}
	n.until("the late line is logged", func() bool { return strings.Contains(n.output(path), "late") })
	if err := n.Kill(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := run("dead", nil, "true"); !errors.Is(err, errs.Conflict) {
		t.Errorf("Exec in an ended container: %v, want Conflict", err)
	}
}

func TestLogs(t *testing.T) {
	n := startNode(t)
	r := n.request("l", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line-$i-0123456789012345678901234567890123456789; i=$((i+1)); done")
	r.Log.MaxBytes, r.Log.Files, r.Log.Dropped = 300<<10, 100, filepath.Join(n.dir, "whole")
	n.mustRun(r)
	n.exit("l")
	if _, err := os.Stat(r.Log.Dropped); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was rotated, and that passes for a loss: %v", err)
	}
	var all strings.Builder
	for i := 99; i >= 0; i-- {
		p := r.Log.Path
		if i > 0 {
			p = fmt.Sprintf("%s.%d", p, i)
		}
		if st, err := os.Stat(p); err == nil {
			all.WriteString(n.output(p))
			if st.Size() > r.Log.MaxBytes {
				t.Errorf("%s has %d bytes", p, st.Size())
			}
		}
	}
	lines := strings.Split(strings.TrimSpace(all.String()), "\n")
	if len(lines) != 20000 {
		t.Fatalf("%d lines, want 20000", len(lines))
	}
	for i, l := range lines {
		if tag, rest, tagged := strings.Cut(strings.TrimPrefix(l, "stdout F:"), " "); tagged && tag != "stdout" { // the first of a file
			l = "stdout F " + rest
		}
		if !strings.HasPrefix(l, fmt.Sprintf("stdout F line-%d-", i)) {
			t.Fatalf("line %d is %q", i, l)
		}
	}
	r = n.request("rot", "sh", "-c", "seq 1 100000")
	r.Log.MaxBytes, r.Log.Files, r.Log.Dropped = 256<<10, 2, filepath.Join(n.dir, "dropped")
	n.mustRun(r)
	n.exit("rot")
	if l, _ := filepath.Glob(r.Log.Path + "*"); len(l) != 2 {
		t.Errorf("files %v, want 2", l)
	}
	if _, err := os.Stat(r.Log.Dropped); err != nil {
		t.Errorf("nothing says that lines were dropped: %v", err)
	}
	if got := n.output(r.Log.Path); !strings.HasSuffix(got, "F 100000\n") {
		t.Errorf("the log ends in %q", got[max(0, len(got)-40):])
	}
	r = n.request("long", "sh", "-c", "head -c 100000 /dev/zero | busybox tr '\\0' x; echo; printf prompt; sleep 1000")
	n.mustRun(r)
	n.until("the prompt is logged", func() bool { return strings.HasSuffix(n.output(r.Log.Path), "P prompt\n") })
	xs := 0
	for l := range strings.Lines(n.output(r.Log.Path)) {
		if len(l) > 17<<10 {
			t.Errorf("a record of %d bytes", len(l))
		}
		xs += strings.Count(l, "x")
	}
	if xs != 100000 {
		t.Errorf("%d bytes of the long line, want 100000", xs)
	}
}

// TestLongWrites has a program write much at once behind an unfinished line: it
// is not held up, although the kernel does not tell of it.
func TestLongWrites(t *testing.T) {
	n := startNode(t)
	r := n.request("w", "sh", "-c", "printf unfinished; dd if=/dev/urandom bs=1M count=8 2>/dev/null")
	r.Log.MaxBytes = 1 << 30
	begin := time.Now()
	n.mustRun(r)
	n.exit("w")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("8 MiB took %v", took)
	}
}

// TestDiskFull logs to a file system that is full: the container goes on, the
// loss is counted.
func TestDiskFull(t *testing.T) {
	n := startNode(t)
	small := filepath.Join(n.dir, "small")
	_ = os.Mkdir(small, 0o755)
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	r := n.request("d", "sh", "-c", "seq 1 50000; sleep 3; echo after; exit 6")
	r.Log = shimapi.Log{Path: small + "/log", MaxBytes: 1 << 30}
	n.mustRun(r)
	time.Sleep(700 * time.Millisecond)
	if err := syscall.Mount("", small, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	n.until("word of the lost lines, though the container is silent", func() bool {
		return strings.Contains(n.output(small+"/log"), "lines were lost")
	})
	if got := n.output(small + "/log"); strings.Contains(got, "F after") {
		t.Error("the container was not silent")
	}
	if e := n.exit("d"); e.Code != 6 {
		t.Errorf("exit %+v", e)
	}
	if got := n.output(small + "/log"); !strings.Contains(got, "lines were lost") || !strings.Contains(got, "F after") {
		t.Errorf("log %q", got)
	}
}

// A container that stops what is started in it is not rid of for ever: what
// libcontainer leaves of such a start would keep its namespace from ending.
func TestExecHeldUp(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("c", "sh", "-c", "while :; do kill -STOP -1; done"))
	shim := n.awaitShim().PID
	stopped := func() (stages int) {
		for _, pid := range children(t, shim) {
			stat := procFile(pid, "stat")
			if strings.Contains(stat, "(runc:[") && strings.Contains(stat, ") T ") {
				stages++
			}
		}
		return stages
	}
	var jobs sync.WaitGroup
	defer jobs.Wait()
	n.until("a start is held up half-way", func() bool {
		jobs.Go(func() {
			r := shimapi.ExecRequest{ID: "c", Job: rand.Text(), Process: process("true"), Log: shimapi.Log{Path: filepath.Join(n.dir, "job.log")}}
			_, _ = n.Exec(t.Context(), r) // some come through
		})
		return stopped() > 0
	})
	begin := time.Now()
	if err := n.Delete(t.Context(), "c"); err != nil {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	jobs.Wait()
	for _, pid := range children(t, shim) {
		t.Errorf("the shim has a child still: %s", procFile(pid, "stat"))
	}
}

// children are the processes that another has started.
func children(t *testing.T, parent int) (pids []int) {
	t.Helper()
	all, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		raw, _ := os.ReadFile(one) // the thread may have ended
		for text := range strings.FieldsSeq(string(raw)) {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

package live

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// talker is a session and what it has said.
type talker struct {
	*buoy.Session
	t        testing.TB
	out, err said
	ended    chan struct{}
	code     int
	failed   error
}

// said is written by one goroutine and read by others.
type said struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// talk follows a session.
func (d *daemon) talk(s *buoy.Session, err error) *talker {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	k := &talker{Session: s, t: d.t, ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		k.code, k.failed = s.Copy(&k.out, &k.err)
	}()
	d.t.Cleanup(func() {
		_ = s.Close()
		<-k.ended
	})
	return k
}

func (d *daemon) execSession(name string, o buoy.ExecOptions) *talker {
	d.t.Helper()
	return d.talk(d.client.ExecSession(d.t.Context(), name, o))
}

func (d *daemon) attach(name string, o buoy.AttachOptions) *talker {
	d.t.Helper()
	return d.talk(d.client.Attach(d.t.Context(), name, o))
}

func (k *talker) says(text string) {
	k.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(k.out.String(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			k.t.Fatalf("waited in vain for %q, it says %q", text, k.out.String())
		}
	}
}

func (k *talker) types(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k, text); err != nil {
		k.t.Fatal(err)
	}
}

// ends waits for the end and wants this exit code.
func (k *talker) ends(code int) {
	k.t.Helper()
	select {
	case <-k.ended:
	case <-time.After(20 * time.Second):
		k.t.Fatalf("it does not end, it says %q", k.out.String())
	}
	if k.failed != nil || k.code != code {
		k.t.Errorf("it ended with %d, %v; want %d", k.code, k.failed, code)
	}
}

// noSessions waits until nothing of one is left in any program.
func (d *daemon) noSessions(name string, before map[string]int) {
	d.t.Helper()
	d.await("nothing of the sessions is left", func() bool {
		jobs, _ := filepath.Glob(filepath.Join(d.run(), "shim", name, "jobs", "*"))
		after := d.open()
		return len(jobs) == 0 && after["buoyd"] <= before["buoyd"] && after["shim"] <= before["shim"] && after["reaper"] <= before["reaper"]
	})
	if jobs, err := d.client.Jobs(d.t.Context(), name); err != nil && !errors.Is(err, buoy.ErrNotFound) || len(jobs) > 0 {
		d.t.Errorf("jobs %v, %v", jobs, err)
	}
}

// open counts the pipes and terminals that the programs have open.
func (d *daemon) open() map[string]int {
	d.t.Helper()
	shim, reaper := d.pids()
	counts := map[string]int{}
	for name, pid := range map[string]int{"buoyd": d.cmd.Process.Pid, "shim": shim, "reaper": reaper} {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, l := range links {
			to, _ := os.Readlink(l)
			if strings.HasPrefix(to, "pipe:") || strings.HasSuffix(to, "/ptmx") {
				counts[name]++
			}
		}
	}
	return counts
}

// running says whether a program runs in a container.
func (d *daemon) running(name, program string) bool {
	d.t.Helper()
	list, err := d.client.Processes(d.t.Context(), name)
	if err != nil {
		return false
	}
	for _, p := range list {
		if strings.HasPrefix(p.Cmdline, program) {
			return true
		}
	}
	return false
}

func TestExecSessions(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t), Env: []string{"A=container", "B=container"}, Pwd: "/tmp"})
	before := d.open()
	k := d.execSession("c", buoy.ExecOptions{
		Command: []string{"sh", "-c", "cat; echo $A $B $PWD $(id -u) >&2; exit 3"}, Env: []string{"A=mine"}, User: "1000", Workdir: "/bin", Stdin: true,
	})
	k.types("hello\n")
	k.says("hello\n") // at once
	if err := k.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	k.ends(3)
	if got := k.err.String(); got != "mine container /bin 1000\n" {
		t.Errorf("stderr %q", got)
	}
	k = d.execSession("c", buoy.ExecOptions{Command: []string{"sh", "-c", "cat; pwd; [ -t 1 ] || echo none"}})
	k.ends(0)
	if got := k.out.String(); got != "/tmp\nnone\n" {
		t.Errorf("without stdin: %q", got)
	}

	// 10 MB there and back.
	sent := make([]byte, 10<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(sent)
	k = d.execSession("c", buoy.ExecOptions{Command: []string{"sh", "-c", "tee /dev/stderr"}, Stdin: true})
	if _, err := k.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = k.CloseStdin()
	k.ends(0)
	for _, got := range []string{k.out.String(), k.err.String()} {
		if sha256.Sum256([]byte(got)) != sha256.Sum256(sent) {
			t.Errorf("10 MB came back as %d bytes", len(got))
		}
	}

	// Signals reach the whole group; what is left behind does not hold it up.
	k = d.execSession("c", buoy.ExecOptions{Command: []string{"sh", "-c", "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.02; done"}})
	k.says("ready\n")
	if err := k.Signal("USR1"); err != nil {
		t.Fatal(err)
	}
	k.ends(9)
	if got := k.out.String(); got != "ready\ncaught\n" {
		t.Errorf("with a signal: %q", got)
	}
	k = d.execSession("c", buoy.ExecOptions{Command: []string{"sh", "-c", "setsid sleep 1001 & echo behind"}})
	k.ends(0)
	if got := k.out.String(); got != "behind\n" {
		t.Errorf("with something left behind: %q", got)
	}
	d.await("what it left behind runs", func() bool { return d.running("c", "sleep 1001") })

	r, err := d.client.ExecWait(t.Context(), "c", buoy.ExecRequest{Command: []string{"sh", "-c", "cat; echo oops >&2; exit 4"}, Stdin: "in", User: "1000"})
	if want := (buoy.ExecResult{ExitCode: 4, Stdout: "in", Stderr: "oops\n"}); err != nil || r != want {
		t.Errorf("to the end: %+v, %v", r, err)
	}
	r, err = d.client.ExecWait(t.Context(), "c", buoy.ExecRequest{Command: []string{"sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"}, Stdin: strings.Repeat("never read", 10_000)})
	if err != nil || len(r.Stdout) != 1<<20 || !r.Truncated {
		t.Errorf("much output: %d bytes, truncated %v, %v", len(r.Stdout), r.Truncated, err)
	}
	d.noSessions("c", before)
}

func TestExecSessionRefused(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t)})
	d.create(buoy.CreateRequest{Name: "stopped", Flist: image(t)})
	if err := d.client.Stop(t.Context(), "stopped"); err != nil {
		t.Fatal(err)
	}
	before := d.open()
	for _, tt := range []struct {
		name    string
		command []string
		kind    error
		text    string
	}{
		{"none", []string{"true"}, buoy.ErrNotFound, `no container "none"`},
		{"stopped", []string{"true"}, buoy.ErrConflict, `is halted, not running`},
		{"c", []string{"nothing"}, buoy.ErrNotFound, `command "nothing" not found in the image`},
		{"c", []string{"/etc"}, buoy.ErrInvalid, `not executable`},
		{"c", nil, buoy.ErrInvalid, `command is missing`},
	} {
		for _, tty := range []bool{false, true} {
			_, err := d.client.ExecSession(t.Context(), tt.name, buoy.ExecOptions{Command: tt.command, TTY: tty, Stdin: true})
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s %q tty=%v: %v", tt.name, tt.command, tty, err)
			}
		}
	}
	for _, o := range []buoy.AttachOptions{{}, {Stdin: true}} {
		if _, err := d.client.Attach(t.Context(), "stopped", o); !errors.Is(err, buoy.ErrConflict) {
			t.Errorf("attach to a stopped one: %v", err)
		}
	}
	if _, err := d.client.Attach(t.Context(), "c", buoy.AttachOptions{Stdin: true}); !errors.Is(err, buoy.ErrConflict) || !strings.Contains(err.Error(), "open stdin") {
		t.Errorf("attach without a stdin: %v", err)
	}
	d.noSessions("c", before)
}

func TestExecTerminals(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t)})
	before := d.open()
	k := d.execSession("c", buoy.ExecOptions{Command: []string{"sh"}, Env: []string{"PS1=> "}, User: "1000", TTY: true, Stdin: true, Width: 91, Height: 33})
	k.says("> ")
	k.types("tty; stty size; echo $TERM; echo to tty >/dev/tty; echo to fd >/proc/self/fd/1; id -u\n")
	k.says("/dev/pts/0\r\n33 91\r\nxterm\r\nto tty\r\nto fd\r\n1000\r\n> ")
	if err := k.Resize(120, 50); err != nil {
		t.Fatal(err)
	}
	k.types("stty size; echo\n")
	k.says("50 120\r\n\r\n> ")
	k.types("sleep 1002\n")
	d.await("sleep runs", func() bool { return d.running("c", "sleep 1002") })
	k.types("\x03")
	k.says("^C")
	k.types("exit 6\n")
	k.ends(6)
	if k.err.String() != "" {
		t.Errorf("stderr of a terminal: %q", k.err.String())
	}
	// All of what a program says last arrives, and its terminal is its own.
	k = d.execSession("c", buoy.ExecOptions{Command: []string{"sh", "-c", "seq 1 20000; tty"}, TTY: true})
	k.ends(0)
	if got := k.out.String(); strings.Count(got, "\r\n") != 20001 || !strings.HasSuffix(got, "\r\n20000\r\n/dev/pts/0\r\n") {
		t.Errorf("%d lines, the last %q", strings.Count(got, "\r\n"), got[max(0, len(got)-40):])
	}
	d.noSessions("c", before)
}

// TestSessionClientGoes has clients vanish: what they started ends.
func TestSessionClientGoes(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t)})
	before := d.open()
	for _, tt := range []struct {
		script string
		tty    bool
	}{
		{"echo here; exec sleep 1003", false},                          // does not notice
		{"trap '' HUP; echo here; exec sleep 1003", false},             // does not care
		{"echo here; exec sleep 1003", true},                           // is hung up on
		{"trap '' HUP; echo here; while :; do sleep 1003; done", true}, // does not care
		{"echo here; while :; do echo x; done", false},                 // its pipe breaks
		{"echo here; (sleep 1003 & sleep 1003 & wait) & wait", false},  // has children
	} {
		k := d.execSession("c", buoy.ExecOptions{Command: []string{"sh", "-c", tt.script}, TTY: tt.tty, Stdin: true})
		k.says("here")
		_ = k.Close()
		d.await(fmt.Sprintf("%+v has ended", tt), func() bool { return !d.running("c", "sleep 1003") && !d.running("c", "sh") })
	}
	// One that waits for its command to read.
	k := d.execSession("c", buoy.ExecOptions{Command: []string{"sleep", "1003"}, Stdin: true})
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		_, _ = k.Write(make([]byte, 64<<20))
	}()
	time.Sleep(200 * time.Millisecond)
	_ = k.Close()
	<-stuck
	d.await("it has ended, too", func() bool { return !d.running("c", "sleep 1003") })
	d.noSessions("c", before)
}

// TestSessionsAndCrashes kills the daemons in the middle.
func TestSessionsAndCrashes(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t)})
	open := func(tty bool) *talker {
		t.Helper()
		k := d.execSession("c", buoy.ExecOptions{Command: []string{"sh", "-c", "echo here; read x; echo got $x; sleep 1004"}, TTY: tty, Stdin: true})
		k.says("here")
		return k
	}
	pipes, tty := open(false), open(true)
	d.killShim() // which nobody in a session notices
	for _, k := range []*talker{pipes, tty} {
		k.types("word\n")
		k.says("got word")
		if err := k.Signal("KILL"); err != nil {
			t.Fatal(err)
		}
		k.ends(137)
	}
	for _, tty := range []bool{false, true} {
		k := open(tty)
		d.killAndStart()
		select {
		case <-k.ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the session does not end with buoyd")
		}
		if k.failed == nil {
			t.Errorf("the session ended with %d", k.code)
		}
		d.await("what ran in it has ended", func() bool { return !d.running("c", "sleep 1004") && !d.running("c", "sh") })
	}
	// A container that goes takes its sessions along, and an orderly end says so.
	k := open(true)
	if err := d.client.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	k.ends(137)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t)})
	k = open(false)
	d.stop()
	<-k.ended
	if k.failed == nil || !strings.Contains(k.failed.Error(), "buoyd is stopping") {
		t.Errorf("ended with %d, %v", k.code, k.failed)
	}
	d.start()
	d.await("what ran in it has ended", func() bool { return !d.running("c", "sleep 1004") && !d.running("c", "sh") })
	before := d.open()
	d.noSessions("c", before)
}

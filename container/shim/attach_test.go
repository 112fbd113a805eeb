//go:build linux && cgo

package shim_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// pipe gives an end of ours that can be given up waiting for, and theirs.
func pipe(t testing.TB, oursReads bool) (ours, theirs *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = r, w
	if !oursReads {
		ours, theirs = w, r
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	_ = ours.SetDeadline(time.Now().Add(20 * time.Second))
	return ours, theirs
}

// ends counts the pipes and terminals that a process has open.
func (n *node) ends(pid int) (count int) {
	l, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range l {
		to, _ := os.Readlink(fd)
		if strings.HasPrefix(to, "pipe:") || strings.HasSuffix(to, "/ptmx") {
			count++
		}
	}
	return count
}

// screen collects what arrives at an end.
type screen struct {
	testing.TB
	f    *os.File
	seen string
}

// until waits for a text, and gives what came up to it.
func (s *screen) until(text string) string {
	s.Helper()
	buf := make([]byte, 4096)
	for {
		if i := strings.Index(s.seen, text); i >= 0 {
			before := s.seen[:i+len(text)]
			s.seen = s.seen[i+len(text):]
			return before
		}
		n, err := s.f.Read(buf)
		if err != nil {
			s.Fatalf("waited for %q and got %q, %v", text, s.seen, err)
		}
		s.seen += string(buf[:n])
	}
}

func (s *screen) typed(text string) {
	s.Helper()
	if _, err := s.f.WriteString(text); err != nil {
		s.Fatal(err)
	}
}

// terminal starts a job with a terminal and gives the master.
func (n *node) terminal(t testing.TB, r shimapi.ExecRequest) *screen {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	r.Process.Terminal = true
	if _, err := n.Exec(t.Context(), r, theirs); err != nil {
		t.Fatal(err)
	}
	control := make([]byte, unix.CmsgSpace(4))
	_, on, _, _, err := unix.Recvmsg(fds[0], make([]byte, 4096), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, _ := unix.ParseSocketControlMessage(control[:on])
	got, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetNonblock(got[0], true)
	master := os.NewFile(uintptr(got[0]), "master")
	t.Cleanup(func() { master.Close() })
	_ = master.SetDeadline(time.Now().Add(20 * time.Second))
	return &screen{TB: t, f: master}
}

// TestExecEnds has jobs that are given their ends: the shim keeps none.
func TestExecEnds(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("c", "sleep", "1000"))
	before := n.ends(n.awaitShim().PID)
	run := func(job, user string, args ...string) (in, out, err *os.File) {
		t.Helper()
		in, theirIn := pipe(t, false)
		out, theirOut := pipe(t, true)
		err, theirErr := pipe(t, true)
		r := shimapi.ExecRequest{ID: "c", Job: job, Process: process(args...), User: user}
		if _, e := n.Exec(t.Context(), r, theirIn, theirOut, theirErr); e != nil {
			t.Fatal(e)
		}
		for _, f := range []*os.File{theirIn, theirOut, theirErr} {
			f.Close()
		}
		return in, out, err
	}
	in, out, errOut := run("cat", "alice", "sh", "-c", "cat; echo again > /proc/self/fd/1; echo oops > /dev/stderr; exit 5")
	if _, err := in.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if got, err := io.ReadAll(out); string(got) != "hello\nagain\n" {
		t.Errorf("stdout %q, %v", got, err)
	}
	if got, err := io.ReadAll(errOut); string(got) != "oops\n" {
		t.Errorf("stderr %q, %v", got, err)
	}
	if e := n.jobExit("c", "cat"); e.Code != 5 {
		t.Errorf("exit %+v", e)
	}
	if err := n.Forget(t.Context(), "c", "cat"); err != nil {
		t.Error(err)
	}
	// Who hangs up is not waited for: the next write ends the job.
	_, out, _ = run("yes", "", "sh", "-c", "while echo y; do :; done")
	if _, err := io.ReadFull(out, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	out.Close()
	n.jobExit("c", "yes")
	if err := n.Forget(t.Context(), "c", "yes"); err != nil {
		t.Error(err)
	}
	if after := n.ends(n.awaitShim().PID); after != before {
		t.Errorf("the shim has %d pipes and terminals, and had %d", after, before)
	}
	r := shimapi.ExecRequest{ID: "c", Job: "two", Process: process("true")}
	if _, err := n.Exec(t.Context(), r, errOut, errOut); !errors.Is(err, errs.Invalid) {
		t.Errorf("two descriptors: %v, want Invalid", err)
	}
	r.Process = process("nope")
	if _, err := n.Exec(t.Context(), r, errOut, errOut, errOut); !errors.Is(err, errs.NotFound) {
		t.Errorf("missing command: %v, want NotFound", err)
	}
}

// TestExecTerminal has a shell with a terminal of the container's own.
func TestExecTerminal(t *testing.T) {
	n := startNode(t)
	n.mustRun(n.request("c", "sleep", "1000"))
	before := n.ends(n.awaitShim().PID)
	p := process("sh")
	p.Env = append(p.Env, "PS1=> ")
	p.ConsoleSize = &specs.Box{Width: 91, Height: 33}
	s := n.terminal(t, shimapi.ExecRequest{ID: "c", Job: "sh", Process: p, User: "alice"})
	s.until("> ")
	for _, c := range []struct{ typed, want string }{
		{"tty; stty size", "/dev/pts/0\r\n33 91\r\n> "},
		{"id -u; stat -c %u:%g /dev/pts/0; [ -r $(tty) ] && echo there", "1000\r\n1000:5\r\nthere\r\n> "},
		{"echo to the terminal > /dev/tty; echo to stdout > /proc/self/fd/1", "to the terminal\r\nto stdout\r\n> "},
	} {
		s.typed(c.typed + "\n")
		s.until("\r\n") // the echo
		if got := s.until("> "); got != c.want {
			t.Errorf("%s: %q, want %q", c.typed, got, c.want)
		}
	}
	size := unix.Winsize{Row: 50, Col: 120}
	raw, err := s.f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) })
	if err != nil {
		t.Fatal(err)
	}
	s.typed("stty size\n")
	s.until("50 120\r\n> ")
	s.typed("sleep 1000\n")
	n.awaitFront("c", "sleep")
	s.typed("\x03")
	s.until("^C")
	s.until("> ")
	s.typed("exit 3\n")
	if e := n.jobExit("c", "sh"); e.Code != 3 {
		t.Errorf("exit %+v", e)
	}
	// Hanging up ends what is there.
	s.f.Close()
	s = n.terminal(t, shimapi.ExecRequest{ID: "c", Job: "gone", Process: process("sh", "-c", "echo here; sleep 1000")})
	s.until("here")
	s.f.Close()
	if e := n.jobExit("c", "gone"); e.Signal != int(unix.SIGHUP) {
		t.Errorf("exit %+v, want SIGHUP", e)
	}
	for _, job := range []string{"sh", "gone"} {
		if err := n.Forget(t.Context(), "c", job); err != nil {
			t.Error(err)
		}
	}
	if after := n.ends(n.awaitShim().PID); after != before {
		t.Errorf("the shim has %d pipes and terminals, and had %d", after, before)
	}
}

// awaitFront waits until a program has the terminal: what is typed before that is
// somebody else's.
func (n *node) awaitFront(id, program string) {
	n.Helper()
	n.until(program+" has the terminal", func() bool {
		front := 0
		for _, pid := range n.cgroupPids(id) {
			if group, foreground := groups(pid); foreground > 0 && group == foreground {
				comm, _ := os.ReadFile("/proc/" + pid + "/comm") // it may have ended
				if string(comm) != program+"\n" {
					return false
				}
				front++
			}
		}
		return front == 1
	})
}

// groups are the process group of a process and the one in the foreground of its
// terminal.
func groups(pid string) (group, foreground int) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	group, _ = strconv.Atoi(fields[2])
	foreground, _ = strconv.Atoi(fields[5])
	return group, foreground
}

// attached is a client of a container.
type attached struct {
	*shimapi.Attachment
	out, err *os.File
}

func (n *node) attach(t testing.TB, r shimapi.AttachRequest) attached {
	t.Helper()
	var a attached
	var theirOut, theirErr *os.File
	a.out, theirOut = pipe(t, true)
	a.err, theirErr = pipe(t, true)
	var err error
	a.Attachment, err = n.Attach(t.Context(), r, theirOut, theirErr)
	if err != nil {
		t.Fatal(err)
	}
	theirOut.Close()
	theirErr.Close()
	t.Cleanup(func() { a.Close(); a.Input.Close() })
	return a
}

// TestOpenStdin is a container whose stdin two clients feed, until it is closed.
func TestOpenStdin(t *testing.T) {
	n := startNode(t)
	shim, reaper := n.awaitShim().PID, n.reaper.Process.Pid
	before := n.ends(shim)
	r := n.request("c", "sh", "-c", "cat; echo end >&2")
	r.Stdin = true
	n.mustRun(r)
	a, b := n.attach(t, shimapi.AttachRequest{ID: "c"}), n.attach(t, shimapi.AttachRequest{ID: "c", Lossless: true})
	both := func(want string) {
		t.Helper()
		for _, c := range []attached{a, b} {
			(&screen{TB: t, f: c.out}).until(want)
		}
	}
	if _, err := a.Input.WriteString("from a, no newline yet"); err != nil {
		t.Fatal(err)
	}
	both("from a, no newline yet")
	n.killShim()
	for _, c := range []attached{a, b} {
		if err := c.Wait(t.Context()); !errors.Is(err, errs.Unavailable) {
			t.Errorf("the shim has died: %v", err)
		}
		c.Close()
	}
	a.Input.Close() // b keeps its
	if _, err := b.Input.WriteString("\nfrom b\n"); err != nil {
		t.Fatal(err)
	}
	n.until("it is logged", func() bool {
		return n.output(r.Log.Path) == "stdout F from a, no newline yet\nstdout F from b\n" ||
			n.output(r.Log.Path) == "stdout P from a, no newline yet\nstdout F \nstdout F from b\n"
	})
	c := n.attach(t, shimapi.AttachRequest{ID: "c"})
	for range 2 {
		if err := n.CloseStdin(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
	}
	if l, _ := n.get("c"); l.Exit != nil {
		t.Error("it has ended, although two still have its stdin open")
	}
	n.killShim() // which must not open it again
	b.Input.Close()
	c.Input.Close()
	n.exit("c")
	if got, err := n.Attach(t.Context(), shimapi.AttachRequest{ID: "c"}, c.out, c.err); !errors.Is(err, errs.Conflict) {
		t.Errorf("attached to one that has ended: %v, %v", got, err)
	}
	if err := n.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	n.until("all is closed", func() bool { return n.ends(n.awaitShim().PID) == before })
	kept := n.ends(reaper)
	n.mustRun(n.request("d", "true"))
	n.exit("d")
	if err := n.Delete(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	n.until("the reaper keeps nothing", func() bool { return n.ends(reaper) <= kept })
}

// TestTerminal is a container with a terminal: what it prints while shims die
// is logged once, and a client can come and go.
func TestTerminal(t *testing.T) {
	n := startNode(t)
	reaper := n.reaper.Process.Pid
	before, kept := n.ends(n.awaitShim().PID), n.ends(reaper)
	r := n.request("c", "sh", "-c", "i=0; while [ $i -lt 30000 ]; do echo line-$i-0123456789012345678901234567890123456789; i=$((i+1)); done; read x; stty size; read x; exit 7")
	r.Spec.Process.Terminal, r.Hold, r.Log.MaxBytes = true, true, 100<<20
	n.mustRun(r)
	a := n.attach(t, shimapi.AttachRequest{ID: "c", Lossless: true})
	if !a.TTY {
		t.Error("it does not say that there is a terminal")
	}
	if got, err := io.ReadAll(a.err); len(got) > 0 || err != nil {
		t.Errorf("stderr of a terminal: %q, %v", got, err)
	}
	if err := n.Release(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	(&screen{TB: t, f: a.out}).until("line-1000-")
	a.Close()
	a.Input.Close()
	for range 4 {
		time.Sleep(10 * time.Millisecond)
		n.killShim()
	}
	n.until("all is logged", func() bool { return strings.Contains(n.output(r.Log.Path), "F line-29999-") })
	i := 0
	for l := range strings.Lines(n.output(r.Log.Path)) {
		if want := fmt.Sprintf("stdout F line-%d-0123456789012345678901234567890123456789\r\n", i); l != want {
			t.Fatalf("line %d is %q", i, l)
		}
		i++
	}
	a = n.attach(t, shimapi.AttachRequest{ID: "c"})
	s := &screen{TB: t, f: a.out}
	raw, err := a.Input.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 81})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Input.WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	s.until("x\r\n24 81\r\n")
	if _, err := a.Input.WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(a.out); err != nil || string(got) != "x\r\n" {
		t.Errorf("at the end: %q, %v", got, err)
	}
	if e := n.exit("c"); e.Code != 7 {
		t.Errorf("exit %+v", e)
	}
	a.Close()
	a.Input.Close()
	if err := n.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	n.until("all is closed", func() bool { return n.ends(n.awaitShim().PID) == before && n.ends(reaper) == kept })
}

// TestTerminalInit has buoy-init hand the terminal on to its child.
func TestTerminalInit(t *testing.T) {
	n := startNode(t)
	r := n.request("c", "sh")
	r.Spec.Process.Env = append(r.Spec.Process.Env, "PS1=> ")
	r.Spec.Process.Terminal, r.Init, r.Hold = true, true, true
	n.mustRun(r)
	a := n.attach(t, shimapi.AttachRequest{ID: "c"})
	if err := n.Release(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	s := &screen{TB: t, f: a.out}
	if got := s.until("> "); strings.Contains(got, "job control") {
		t.Errorf("it begins with %q", got)
	}
	typed := func(text string) {
		t.Helper()
		if _, err := a.Input.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	typed("echo to the terminal > /dev/tty; echo to the console > /dev/console\n")
	s.until("to the terminal\r\nto the console\r\n> ")
	typed("sleep 1000\n")
	n.awaitFront("c", "sleep")
	sleeps := func(state string) func() bool {
		pids := n.cgroupPids("c")
		last := pids[len(pids)-1]
		return func() bool {
			raw, _ := os.ReadFile("/proc/" + last + "/stat")
			return strings.Contains(string(raw), "(sleep) "+state)
		}
	}
	typed("\x1a")
	n.until("sleep is stopped", sleeps("T"))
	s.until("Stopped")
	s.until("> ")
	typed("fg\n")
	n.until("sleep goes on", sleeps("S"))
	typed("\x03")
	s.until("> ")
	typed("exit 4\n")
	if e := n.exit("c"); e.Code != 4 {
		t.Errorf("exit %+v", e)
	}
}

// TestTaps: who reads slowly is cut off or waited for, and neither the log nor
// other clients lose anything.
func TestTaps(t *testing.T) {
	n := startNode(t)
	for _, tty := range []bool{false, true} {
		name := map[bool]string{false: "pipe", true: "tty"}[tty]
		r := n.request(name, "sh", "-c", "[ -t 0 ] && stty raw; seq 1 200000; echo done")
		r.Spec.Process.Terminal, r.Hold, r.Log.MaxBytes = tty, true, 1<<30
		n.mustRun(r)
		deaf := n.attach(t, shimapi.AttachRequest{ID: name})
		slow := n.attach(t, shimapi.AttachRequest{ID: name, Lossless: true})
		left := n.attach(t, shimapi.AttachRequest{ID: name, Lossless: true})
		if err := n.Release(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if err := deaf.Wait(t.Context()); !errors.Is(err, errs.Conflict) {
			t.Errorf("%s: one who does not read: %v, want Conflict", name, err)
		}
		time.Sleep(50 * time.Millisecond)
		if l, _ := n.get(name); l.Exit != nil {
			t.Errorf("%s: it has ended without waiting for its clients", name)
		}
		left.Close() // without having read
		var got bytes.Buffer
		buf := make([]byte, 3000)
		for {
			k, err := slow.out.Read(buf)
			got.Write(buf[:k])
			if err != nil {
				break
			}
			if got.Len() > 1<<20 { // the end of a container that has ended
				time.Sleep(50 * time.Microsecond)
			}
		}
		if err := slow.Wait(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		lines := strings.Split(strings.TrimSpace(got.String()), "\n")
		if len(lines) != 200001 || lines[199999] != "200000" || lines[200000] != "done" {
			t.Errorf("%s: the slow one got %d lines, the last %q", name, len(lines), lines[len(lines)-1])
		}
		for i, l := range lines[:200000] {
			if l != fmt.Sprint(i+1) {
				t.Fatalf("%s: line %d is %q", name, i, l)
			}
		}
		n.exit(name)
		logged := strings.ReplaceAll(n.output(r.Log.Path), "stdout F ", "")
		var whole strings.Builder
		for l := range strings.Lines(logged) {
			if part, ok := strings.CutPrefix(l, "stdout P "); ok {
				l = strings.TrimSuffix(part, "\n")
			}
			whole.WriteString(l)
		}
		if whole.String() != got.String() {
			t.Errorf("%s: the log has %d bytes, the client %d", name, whole.Len(), got.Len())
		}
	}
}

// TestTypedTerminal echoes many single bytes without a newline: a full pipe of
// small pieces must not stop the output.
func TestTypedTerminal(t *testing.T) {
	n := startNode(t)
	r := n.request("c", "sh", "-c", "stty raw -echo; echo ready; cat")
	r.Spec.Process.Terminal, r.Hold = true, true
	n.mustRun(r)
	a := n.attach(t, shimapi.AttachRequest{ID: "c"})
	if err := n.Release(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	(&screen{TB: t, f: a.out}).until("ready\n")
	begin := time.Now()
	one := make([]byte, 1)
	for i := range 500 {
		if _, err := a.Input.Write([]byte{'a' + byte(i%26)}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a.out, one); err != nil || one[0] != 'a'+byte(i%26) {
			t.Fatalf("byte %d came back as %q, %v", i, one, err)
		}
	}
	took := time.Since(begin)
	t.Logf("500 bytes there and back: %v each", took/500)
	if took > 5*time.Second {
		t.Errorf("500 bytes took %v", took)
	}
}

// TestPipesOfUserNS: pipes belong to the user of the process, in a user
// namespace as well.
func TestPipesOfUserNS(t *testing.T) {
	n := startNode(t)
	_ = os.Chmod(filepath.Dir(n.dir), 0o711)
	_ = os.Chmod(n.run, 0o711)
	r := n.request("u", "sh", "-c", "echo logged > /proc/self/fd/1; sleep 1000")
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	r.Spec.Linux.UIDMappings, r.Spec.Linux.GIDMappings = ids, ids
	r.User = "alice"
	n.mustRun(r)
	n.until("it is logged", func() bool { return n.output(r.Log.Path) == "stdout F logged\n" })
	job := filepath.Join(n.dir, "job.log")
	in, theirIn := pipe(t, false)
	out, theirOut := pipe(t, true)
	_, err := n.Exec(t.Context(), shimapi.ExecRequest{ID: "u", Job: "j", Process: process("sh", "-c", "cat; echo again > /proc/self/fd/1"), User: "alice"}, theirIn, theirOut, theirOut)
	if err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	in.Close()
	if got, err := io.ReadAll(out); string(got) != "again\n" {
		t.Errorf("stdout %q, %v", got, err)
	}
	_, err = n.Exec(t.Context(), shimapi.ExecRequest{ID: "u", Job: "l", Process: process("sh", "-c", "echo again > /proc/self/fd/1"), User: "alice", Log: shimapi.Log{Path: job}})
	if err != nil {
		t.Fatal(err)
	}
	n.jobExit("u", "l")
	if got := n.output(job); got != "stdout F again\n" {
		t.Errorf("logged %q", got)
	}
	s := n.terminal(t, shimapi.ExecRequest{ID: "u", Job: "t", Process: process("sh", "-c", "echo here > /dev/tty; id -u; tty"), User: "alice"})
	s.until("here\r\n1000\r\n/dev/pts/0\r\n")
}

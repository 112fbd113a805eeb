package live

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// person sits at a terminal in which buoy runs.
type person struct {
	t      testing.TB
	master *os.File
	slave  *os.File // stays open, so that the terminal outlives buoy
	before *unix.Termios
	cmd    *exec.Cmd
	sees   said
	exited chan struct{}
}

func (d *daemon) buoy(args ...string) *exec.Cmd {
	d.t.Helper()
	cmd := exec.Command(filepath.Join(bin(d.t), "buoy"), append([]string{"--addr", "http://" + d.addr}, args...)...)
	cmd.Env = append(os.Environ(), "BUOY_ADDR=")
	return cmd
}

// sitDown runs buoy in a terminal of 100 by 30.
func (d *daemon) sitDown(args ...string) *person {
	d.t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})
	}
	if err != nil {
		d.t.Fatal(err)
	}
	p := &person{t: d.t, master: os.NewFile(uintptr(fd), "master"), cmd: d.buoy(args...), exited: make(chan struct{})}
	if p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		d.t.Fatal(err)
	}
	p.before = p.modes()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, p.slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		_, _ = io.Copy(&p.sees, p.master)
	}()
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	d.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		p.slave.Close()
		p.master.Close()
		<-looked
	})
	return p
}

func (p *person) modes() *unix.Termios {
	p.t.Helper()
	modes, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return modes
}

func (p *person) until(text string) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.sees.String(), text); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain for %q on the screen: %q", text, p.sees.String())
		}
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// leaves waits for the end of buoy, and wants the terminal as it was.
func (p *person) leaves(code int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("buoy does not end; on the screen: %q", p.sees.String())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("buoy ended with %d, want %d; on the screen: %q", got, code, p.sees.String())
	}
	if now := p.modes(); *now != *p.before {
		p.t.Errorf("the terminal is not as it was: %+v, was %+v", now, p.before)
	}
}

// piped runs buoy without a terminal.
func (d *daemon) piped(stdin string, args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	cmd := d.buoy(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestExecInTerminal(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t), Env: []string{"PS1=> "}})
	before := d.open()
	p := d.sitDown("exec", "-it", "c", "sh")
	p.until("> ")
	p.types("stty size; tty\r")
	p.until("30 100\r\n/dev/pts/0\r\n")
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 55, Col: 132}); err != nil {
		t.Fatal(err)
	}
	d.await("the new size has arrived", func() bool {
		p.types("stty size\r")
		time.Sleep(20 * time.Millisecond)
		return strings.Contains(p.sees.String(), "55 132\r\n")
	})
	p.types("sleep 1008\r")
	d.await("sleep runs", func() bool { return d.running("c", "sleep 1008") })
	p.types("\x03\x10\x11echo alive\r") // and no keys make exec leave
	p.until("alive\r\n")
	p.types("exit 7\r")
	p.leaves(7)

	for name, sig := range map[string]syscall.Signal{"kill -9": syscall.SIGKILL, "kill": syscall.SIGTERM, "a closed window": syscall.SIGHUP} {
		p := d.sitDown("exec", "-it", "c", "sh", "-c", "echo here; sleep 1008")
		p.until("here")
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		<-p.exited
		if now := p.modes(); sig != syscall.SIGKILL && *now != *p.before {
			t.Errorf("%s: the terminal is not as it was", name)
		}
		d.await("what ran has ended after "+name, func() bool { return !d.running("c", "sleep 1008") })
	}
	p = d.sitDown("exec", "-it", "c", "nothing")
	p.leaves(127)
	p = d.sitDown("exec", "-it", "c", "/etc")
	p.leaves(126)
	p = d.sitDown("exec", "-t", "c", "sh", "-c", "stty size; cat")
	p.until("30 100")
	_ = p.cmd.Process.Kill()
	d.noSessions("c", before)
}

func TestExecPiped(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t)})
	before := d.open()
	if out, errs, code := d.piped("in", "exec", "-i", "c", "sh", "-c", "cat; echo err >&2; exit 9"); out != "in" || errs != "err\n" || code != 9 {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	if out, errs, code := d.piped("in", "exec", "c", "cat"); out != "" || errs != "" || code != 0 {
		t.Errorf("without -i: %q, %q, %d", out, errs, code)
	}
	for _, args := range [][]string{{"exec", "-it", "c", "true"}, {"run", "-it", "--rm", image(t), "true"}} {
		if out, errs, code := d.piped("", args...); out != "" || errs != "buoy: the input device is not a TTY\n" || code != 125 {
			t.Errorf("%v: %q, %q, %d", args, out, errs, code)
		}
	}
	sent := make([]byte, 10<<20)
	random := rand.NewChaCha8([32]byte{4})
	_, _ = random.Read(sent)
	if out, errs, code := d.piped(string(sent), "exec", "-i", "c", "cat"); sha256.Sum256([]byte(out)) != sha256.Sum256(sent) || errs != "" || code != 0 {
		t.Errorf("10 MB: %d bytes, %q, %d", len(out), errs, code)
	}
	// Who takes only the beginning ends the rest.
	cmd := exec.Command("sh", "-c", `"$0" --addr "$1" exec c sh -c 'while echo y; do :; done' | head -n 1`, filepath.Join(bin(t), "buoy"), "http://"+d.addr)
	if out, err := cmd.Output(); string(out) != "y\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	d.await("nothing goes on", func() bool { return !d.running("c", "sh") })

	for _, tt := range []struct {
		signals []syscall.Signal
		script  string
		code    int
	}{
		{[]syscall.Signal{syscall.SIGINT}, "trap 'exit 11' INT; echo here; while :; do sleep 0.02; done", 11},
		{[]syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM}, "trap 'echo usr' USR1; trap 'exit 12' TERM; echo here; while :; do sleep 0.02; done", 12},
		{[]syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGINT}, "trap '' INT; echo here; while :; do sleep 0.02; done", 130},
		{[]syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGINT}, "trap '' INT; echo here; exec sleep 1000 # and does not read", 130},
	} {
		cmd := d.buoy("exec", "-i", "c", "sh", "-c", tt.script)
		if strings.Contains(tt.script, "does not read") {
			cmd.Stdin = bytes.NewReader(make([]byte, 64<<20))
		}
		out := &said{}
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		d.await("it runs", func() bool { return strings.Contains(out.String(), "here") })
		for _, sig := range tt.signals {
			_ = cmd.Process.Signal(sig)
			time.Sleep(100 * time.Millisecond) // two of a kind at once are one
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != tt.code {
			t.Errorf("%v: exit code %d, want %d, after %q", tt.signals, code, tt.code, out)
		}
	}
	d.noSessions("c", before)
}

func TestRunInTerminal(t *testing.T) {
	d := newDaemon(t)
	p := d.sitDown("run", "-it", "--rm", "--name", "c", "-e", "PS1=> ", image(t), "sh")
	p.until("> ")
	p.types("stty size; tty; ps | head -n 2 | tail -n 1\r")
	p.until("30 100\r\n/dev/pts/0\r\n")
	p.until("sh\r\n") // it is process 1
	p.types("exit 4\r")
	p.leaves(4)
	if one, err := d.client.Container(t.Context(), "c"); err == nil {
		t.Errorf("--rm left %+v", one)
	}

	p = d.sitDown("run", "-it", "--init", "--name", "c", "-e", "PS1=> ", image(t), "sh")
	p.until("> ")
	p.types("echo $((40+2)); \x10\x11")
	p.leaves(0)
	d.awaitState("c", "running")
	p = d.sitDown("attach", "--detach-keys", "ctrl-x,y", "c")
	p.types("\r")
	p.until("42\r\n> ")
	p.types("\x10\x11still\r\x18y")
	p.leaves(0)
	d.awaitState("c", "running")
	p = d.sitDown("attach", "c")
	p.types("exit 5\r")
	p.leaves(5)
	if c := d.awaitState("c", "halted"); *c.ExitCode != 5 {
		t.Errorf("exit code %d", *c.ExitCode)
	}

	p = d.sitDown("run", "-t", "--rm", "--name", "t", image(t), "sh", "-c", "tty; stty size; exit 6")
	p.leaves(6)
	if got := strings.ReplaceAll(p.sees.String(), "\r\r", "\r"); got != "/dev/pts/0\r\n30 100\r\n" { // no input, so ours is as it was
		t.Errorf("run -t: %q", got)
	}
	p = d.sitDown("run", "-it", "--name", "n", image(t), "nothing")
	p.leaves(127)
	if _, err := d.client.Container(t.Context(), "n"); err == nil {
		t.Error("what could not be started is left")
	}
	p = d.sitDown("run", "-it", "--name", "k", "-e", "PS1=> ", image(t), "sh")
	p.until("> ")
	_ = p.cmd.Process.Kill()
	<-p.exited
	d.awaitState("k", "running") // it is not the terminal's
}

func TestRunPiped(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	if out, errs, code := d.piped("hi\n", "run", "-i", "--rm", "--name", "c", image(t), "cat"); out != "hi\n" || errs != "" || code != 0 {
		t.Errorf("echo hi | buoy run -i cat: %q, %q, %d", out, errs, code)
	}
	sent := make([]byte, 10<<20)
	random := rand.NewChaCha8([32]byte{5})
	_, _ = random.Read(sent)
	if out, errs, code := d.piped(string(sent), "run", "-i", "--rm", image(t), "sh", "-c", "cat; echo end >&2; exit 3"); sha256.Sum256([]byte(out)) != sha256.Sum256(sent) || errs != "end\n" || code != 3 {
		t.Errorf("10 MB: %d bytes, %q, %d", len(out), errs, code)
	}
	// A slow reader gets all of it, long after the container would have ended.
	cmd := exec.Command("sh", "-c", `"$0" --addr "$1" run -i --rm "$2" seq 1 3000000 </dev/null | (sleep 3; sha256sum)`, filepath.Join(bin(t), "buoy"), "http://"+d.addr, image(t))
	want := sha256.New()
	for i := range 3000000 {
		fmt.Fprintln(want, i+1)
	}
	if out, err := cmd.Output(); err != nil || !strings.HasPrefix(string(out), fmt.Sprintf("%x", want.Sum(nil))) {
		t.Errorf("a slow reader: %q, %v", out, err)
	}
	// Signals stop it, as in any run.
	one := d.buoy("run", "-i", "--name", "s", image(t), "sh", "-c", "trap 'exit 8' TERM; echo here; while :; do sleep 0.02; done")
	stdin, err := one.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out := &said{}
	one.Stdout = out
	if err := one.Start(); err != nil {
		t.Fatal(err)
	}
	d.await("it runs", func() bool { return strings.Contains(out.String(), "here") })
	_ = one.Process.Signal(syscall.SIGINT)
	_ = one.Wait()
	if code := one.ProcessState.ExitCode(); code != 8 {
		t.Errorf("stopped by a signal: %d", code)
	}

	script := "trap 'echo heard' USR1; while :; do echo alive; sleep 0.02; done"
	if _, errs, code := d.piped("", "run", "-d", "-i", "--name", "d", image(t), "sh", "-c", script); code != 0 {
		t.Errorf("run -d -i: %d, %q", code, errs)
	}
	before := d.open()
	for _, tt := range []struct {
		flag string
		sig  syscall.Signal
		code int
	}{
		{"--sig-proxy=true", syscall.SIGUSR1, -1},
		{"--sig-proxy=false", syscall.SIGINT, 130},
	} {
		cmd := d.buoy("attach", tt.flag, "--no-stdin", "d")
		out := &said{}
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		d.await("it is attached, and hears signals", func() bool { return strings.Contains(out.String(), "alive\n") })
		_ = cmd.Process.Signal(tt.sig)
		if tt.code < 0 {
			d.await("the container has got the signal", func() bool { return strings.Contains(out.String(), "heard\n") })
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != tt.code {
			t.Errorf("attach %s: %d", tt.flag, code)
		}
		d.awaitState("d", "running")
		d.noSessions("d", before)
	}
}

// TestTerminalSurvives restarts buoyd under somebody at a terminal, and under
// somebody who looks on.
func TestTerminalSurvives(t *testing.T) {
	d := newDaemon(t)
	p := d.sitDown("run", "-it", "--name", "c", "-e", "PS1=> ", image(t), "sh")
	p.until("> ")
	p.types("x=41\r")
	p.until("> ")
	q := d.sitDown("attach", "--no-stdin", "c")
	d.await("it looks on", func() bool {
		p.types("echo $x\r")
		time.Sleep(20 * time.Millisecond)
		return strings.Contains(q.sees.String(), "41\r") // its own terminal adds to line ends
	})
	for range 2 {
		d.kill()
		p.until("waiting 30s for buoyd")
		d.start()
		p.until("attached again")
		q.until("attached again")
		p.types("echo $((x+1)).\r")
		p.until("42.\r\n> ")
		q.until("42.\r")
	}
	d.kill()
	p.until("waiting 30s for buoyd")
	p.types("exit 7\r") // it is there when buoyd is
	d.start()
	p.leaves(7)
	q.leaves(7)

	// Who leaves while buoyd is away has left.
	p = d.sitDown("run", "-it", "--name", "e", "-e", "PS1=> ", image(t), "sh")
	p.until("> ")
	d.kill()
	p.until("waiting 30s for buoyd")
	p.types("\x10\x11")
	p.leaves(0)
	d.start()
	d.awaitState("e", "running")
}

// TestRunSurvives restarts buoyd under a run in the foreground: what comes out is
// what the container wrote, byte for byte.
func TestRunSurvives(t *testing.T) {
	d := newDaemon(t)
	const lines = 3000
	cmd := d.buoy("run", "--name", "c", image(t), "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; echo e$i >&2; usleep 500; done; printf '\\377no end'; exit 4", lines))
	out, errs := &said{}, &said{}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("buoy said at last %q", errs.String()[max(0, len(errs.String())-500):])
		}
	})
	for _, at := range []string{"\n100\n", "\n600\n", "\n1200\n"} {
		d.await("it counts", func() bool { return strings.Contains(out.String(), at) })
		d.kill()
		d.start()
	}
	_ = cmd.Wait()
	var ours, theirs strings.Builder
	for line := range strings.Lines(errs.String()) {
		if strings.HasPrefix(line, "buoy: ") {
			ours.WriteString(line)
		} else {
			theirs.WriteString(line)
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("exit code %d, and %q", code, &ours)
	}
	var want, wantErrs strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i+1)
		fmt.Fprintf(&wantErrs, "e%d\n", i+1)
	}
	want.WriteString("\xffno end")
	if out.String() != want.String() {
		t.Errorf("stdout has %d bytes, want %d", len(out.String()), want.Len())
	}
	if theirs.String() != wantErrs.String() {
		t.Errorf("stderr has %d bytes, want %d", theirs.Len(), wantErrs.Len())
	}
}

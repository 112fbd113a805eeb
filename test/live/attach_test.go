package live

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestAttachTerminal has several clients of one shell, which outlives them, the
// shim and buoyd.
func TestAttachTerminal(t *testing.T) {
	d := newDaemon(t)
	before := d.open()
	r := buoy.CreateRequest{Name: "c", Flist: image(t), Command: []string{"sh"}, Env: []string{"PS1=> "}, User: "1000", TTY: true, Stdin: true, Standby: true}
	d.create(r)
	a := d.attach("c", buoy.AttachOptions{Stdin: true, Lossless: true})
	if err := a.Resize(99, 44); err != nil {
		t.Fatal(err)
	}
	if err := d.client.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	a.says("> ") // the first prompt, too
	one, err := d.client.Container(t.Context(), "c")
	if err != nil || !one.TTY || !one.Stdin {
		t.Errorf("%+v, %v", one, err)
	}
	if j := d.exec("c", "sh", "-c", "[ -t 0 ] || echo none"); j.Stdout != "none\n" {
		t.Errorf("a job's terminal: %+v", j)
	}
	b := d.attach("c", buoy.AttachOptions{Stdin: true})
	a.types("stty size; tty; echo $TERM; echo x > /dev/console\n")
	for _, k := range []*talker{a, b} {
		k.says("44 99\r\n/dev/pts/0\r\nxterm\r\nx\r\n> ")
	}
	b.types("sleep 1005\n")
	d.await("sleep runs", func() bool { return d.running("c", "sleep 1005") })
	a.types("\x03") // as on any terminal
	b.says("^C")
	_ = a.Close()
	b.types("echo still here\n")
	b.says("\r\nstill here\r\n")

	d.killShim()
	<-b.ended
	if b.failed == nil || b.failed.Error() != "buoy-shim has ended; the container runs on, attach to it again" {
		t.Errorf("the shim died, and the session ended with %d, %v", b.code, b.failed)
	}
	b = d.attach("c", buoy.AttachOptions{Stdin: true})
	b.types("echo with another shim\n")
	b.says("\r\nwith another shim\r\n")
	d.killAndStart()
	<-b.ended
	if b.failed == nil {
		t.Errorf("buoyd died, and the session ended with %d", b.code)
	}
	b = d.attach("c", buoy.AttachOptions{Stdin: true})
	b.types("echo with another daemon\n")
	b.says("\r\nwith another daemon\r\n")
	b.types("exit 5\n")
	b.ends(5)
	d.awaitState("c", "halted")
	log := d.logs("c", buoy.LogOptions{})
	for _, text := range []string{"44 99\r\n", "\r\nstill here\r\n", "\r\nwith another shim\r\n", "\r\nwith another daemon\r\n"} {
		if !strings.Contains(log, text) {
			t.Errorf("%q is not in the log: %q", text, log)
		}
	}
	if err := d.client.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	d.noSessions("c", before)
}

// TestTerminalPrints has a container print on its terminal while shims die: the
// log has all of it, once.
func TestTerminalPrints(t *testing.T) {
	d := newDaemon(t)
	d.create(buoy.CreateRequest{
		Name: "c", Flist: image(t), TTY: true, Standby: true,
		Command: []string{"sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; sleep 1006"},
	})
	k := d.attach("c", buoy.AttachOptions{})
	if err := d.client.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	k.says("line 0\r\n")
	for range 3 {
		d.killShim()
	}
	d.await("all of it is logged", func() bool { return strings.Contains(d.logs("c", buoy.LogOptions{Tail: 1}), "line 19999") })
	var want strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&want, "line %d\r\n", i)
	}
	if got := d.logs("c", buoy.LogOptions{}); got != want.String() {
		t.Errorf("the log has %d bytes, want %d", len(got), want.Len())
	}
}

// TestAttachStdin feeds a container without a terminal until its stdin is closed.
func TestAttachStdin(t *testing.T) {
	d := newDaemon(t)
	before := d.open()
	create := func(once bool) {
		t.Helper()
		d.create(buoy.CreateRequest{Name: "c", Flist: image(t), Command: []string{"sh", "-c", "tee /dev/stderr; exit 3"}, Stdin: true, StdinOnce: once, Standby: true})
	}
	start := func() {
		t.Helper()
		if err := d.client.Start(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
	}
	create(true)
	k := d.attach("c", buoy.AttachOptions{Stdin: true, Lossless: true})
	other := d.attach("c", buoy.AttachOptions{Stdin: true, Lossless: true})
	start()
	other.types("x")
	k.says("x")
	sent := make([]byte, 10<<20)
	random := rand.NewChaCha8([32]byte{2})
	_, _ = random.Read(sent)
	if _, err := k.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := k.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	k.ends(3)
	other.ends(3)
	for _, got := range []string{k.out.String(), k.err.String(), other.out.String()} {
		if sha256.Sum256([]byte(got)) != sha256.Sum256(append([]byte("x"), sent...)) {
			t.Errorf("10 MB came back as %d bytes", len(got))
		}
	}
	if err := d.client.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}

	// A client that goes takes stdin along, if that is its own.
	create(true)
	k = d.attach("c", buoy.AttachOptions{Stdin: true})
	start()
	k.types("x\n")
	k.says("x\n")
	_ = k.Close()
	if c := d.awaitState("c", "halted"); *c.ExitCode != 3 {
		t.Errorf("exit code %d", *c.ExitCode)
	}
	if err := d.client.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	create(false)
	k = d.attach("c", buoy.AttachOptions{Stdin: true})
	start()
	k.types("x\n")
	if err := k.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	k.says("x\n")
	_ = k.Close()
	k = d.attach("c", buoy.AttachOptions{Stdin: true})
	k.types("y\n")
	k.says("y\n")
	if err := k.Signal("SIGKILL"); err != nil { // of process 1
		t.Fatal(err)
	}
	k.ends(137)
	if err := d.client.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	d.noSessions("c", before)
}

// TestAttachMany has fifty clients, one of which does not read, and one that the
// container waits for.
func TestAttachMany(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	before := d.open()
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t), Stdin: true, Standby: true, Command: []string{"sh", "-c", "read x; i=0; while [ $i -lt 400 ]; do seq 1 2000; sleep 0.005; i=$((i+1)); done; exit 2"}})
	deaf, err := d.client.Attach(t.Context(), "c", buoy.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	var all []*talker
	for i := range 49 {
		all = append(all, d.attach("c", buoy.AttachOptions{Stdin: i == 0, Lossless: i%2 == 0}))
	}
	if err := d.client.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	all[0].types("go\n")
	var piece strings.Builder
	for i := range 2000 {
		fmt.Fprintln(&piece, i+1)
	}
	want := strings.Repeat(piece.String(), 400)
	for i, k := range all {
		select {
		case <-k.ended:
		case <-time.After(60 * time.Second):
			t.Fatalf("client %d does not end", i)
		}
		switch got := k.out.String(); {
		case k.failed == nil && k.code == 2 && got == want:
		case i%2 == 1 && k.failed != nil && strings.Contains(k.failed.Error(), "not read fast enough") && strings.HasPrefix(want, got):
			t.Logf("client %d was cut off after %d bytes", i, len(got)) // two cores are not many
		default:
			t.Errorf("client %d: %d of %d bytes, ended with %d, %v", i, len(got), len(want), k.code, k.failed)
		}
	}
	t.Logf("%d bytes to each of 49 clients in %v", len(want), time.Since(began))
	if err := d.client.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}

	// More than the buffers on the way take.
	d.create(buoy.CreateRequest{Name: "c", Flist: image(t), Standby: true, Command: []string{"sh", "-c", "seq 1 4000000"}})
	if deaf, err = d.client.Attach(t.Context(), "c", buoy.AttachOptions{}); err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	k := d.attach("c", buoy.AttachOptions{Lossless: true})
	if err := d.client.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	k.ends(0)
	if got := k.out.String(); len(got) != 30888896 || !strings.HasSuffix(got, "\n4000000\n") {
		t.Errorf("the one who is waited for got %d bytes", len(got))
	}
	var out said
	if _, err := deaf.Copy(&out, &out); err == nil || !strings.Contains(err.Error(), "not read fast enough") {
		t.Errorf("the deaf one: %v, after %d bytes", err, len(out.String()))
	}
	if err := d.client.Delete(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	d.noSessions("c", before)
}

// TestSessionsOfFleet talks with a node through its controller.
func TestSessionsOfFleet(t *testing.T) {
	f := newFleet(t, 2)
	far := f.client.On("n2")
	if err := far.Create(t.Context(), buoy.CreateRequest{Name: "c", Flist: image(t), Command: []string{"cat"}, Stdin: true}); err != nil {
		t.Fatal(err)
	}
	k := f.talk(far.ExecSession(t.Context(), "c", buoy.ExecOptions{Command: []string{"sh"}, TTY: true, Stdin: true, Width: 71, Height: 31, Env: []string{"PS1=> "}}))
	k.says("> ")
	k.types("stty size\n")
	k.says("31 71\r\n> ")
	k.types("sleep 1007\n")
	n2 := f.nodes[1]
	n2.await("sleep runs", func() bool { return n2.running("c", "sleep 1007") })
	k.types("\x03exit 8\n")
	k.ends(8)

	sent := make([]byte, 10<<20)
	random := rand.NewChaCha8([32]byte{3})
	_, _ = random.Read(sent)
	k = f.talk(far.ExecSession(t.Context(), "c", buoy.ExecOptions{Command: []string{"cat"}, Stdin: true}))
	if _, err := k.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = k.CloseStdin()
	k.ends(0)
	if got := k.out.String(); sha256.Sum256([]byte(got)) != sha256.Sum256(sent) {
		t.Errorf("10 MB came back as %d bytes", len(got))
	}
	k = f.talk(far.Attach(t.Context(), "c", buoy.AttachOptions{Stdin: true}))
	k.types("hello\n")
	k.says("hello\n")
	_ = k.Close()
	if r, err := far.ExecWait(t.Context(), "c", buoy.ExecRequest{Command: []string{"false"}}); err != nil || r.ExitCode != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := far.ExecSession(t.Context(), "none", buoy.ExecOptions{Command: []string{"true"}}); !errors.Is(err, buoy.ErrNotFound) {
		t.Errorf("no such container: %v", err)
	}
	// The client goes, and so does what it started, on the other side.
	k = f.talk(far.ExecSession(t.Context(), "c", buoy.ExecOptions{Command: []string{"sleep", "1007"}, TTY: true}))
	n2.await("sleep runs", func() bool { return n2.running("c", "sleep 1007") })
	_ = k.Close()
	n2.await("sleep has ended", func() bool { return !n2.running("c", "sleep 1007") })
}

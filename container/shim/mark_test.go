//go:build linux && cgo

package shim

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// TestMarkOnAFullDisk: a hole in a mapped file on a full disk would be the end
// of the shim, and of each that follows it.
func TestMarkOnAFullDisk(t *testing.T) {
	testroot.Require(t)
	dir := t.TempDir()
	if err := unix.Mount("mark", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 64<<10), 0o600); err == nil {
		t.Fatal("the disk takes more than it has")
	}
	m, err := openMark(filepath.Join(dir, "logmark"))
	if err != nil {
		t.Fatal(err)
	}
	m.set("box//stdout", []byte("line\n"), 0, 5)
	m.clear()
}

// TestRepairTakesWhatIsLogged: a shim was killed when a batch was in the file,
// and in the pipe still. The next one has logged nothing yet.
func TestRepairTakesWhatIsLogged(t *testing.T) {
	dir := t.TempDir()
	data := []byte("one\ntwo\n")
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	if _, err := unix.Write(p[1], append(data, "three\n"...)); err != nil {
		t.Fatal(err)
	}
	open := func() (*logs, *stream) {
		l, err := newLogs(filepath.Join(dir, "logmark"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := openLog(shimapi.Log{Path: filepath.Join(dir, "log")}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return l, &stream{key: "box//stdout", name: "stdout", fd: p[0], file: f, tty: -1, sink: -1}
	}
	l, st := open()
	now := time.Now()
	out, lines := format(nil, st.name, st.file.tag(now), data, now)
	l.mark.set(st.key, data, 0, int64(len(out)))
	st.file.write(out, lines)
	// Here it dies.
	l, st = open()
	l.repair(st)
	if n, err := l.peek(st); err != nil || string(l.in[:n]) != "three\n" {
		t.Errorf("in the pipe is %q, %v", l.in[:n], err)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "log")); err != nil || string(raw) != string(out) {
		t.Errorf("in the log is %q, %v", raw, err)
	}
}

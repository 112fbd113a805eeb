//go:build linux && cgo

package shim_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// fuseMounts are the lines of the mount table of the shim's namespace that are FUSE.
func (n *node) fuseMounts() (lines []string) {
	n.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.reaper.Process.Pid))
	if err != nil {
		n.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, " - fuse.buoy ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// take copies a descriptor as buoy-flist does.
func take(t *testing.T, pid, fd int) int {
	t.Helper()
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p)
	got, err := unix.PidfdGetfd(p, fd, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(got) })
	return got
}

// opcode is that of the request that waits on a FUSE connection.
func opcode(t *testing.T, fd int) uint32 {
	t.Helper()
	buf := make([]byte, 1<<20+8192)
	var n int
	var err error
	for range 2000 {
		if n, err = unix.Read(fd, buf); !errors.Is(err, unix.EAGAIN) {
			break
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5)
	}
	if err != nil || n < 40 {
		t.Fatalf("read a FUSE request: %d, %v", n, err)
	}
	return uint32(buf[4]) | uint32(buf[5])<<8
}

func TestFuseMount(t *testing.T) {
	n := startNode(t)
	dir := filepath.Join(n.run, "flists", "one")
	m, err := n.Mount(t.Context(), "one", dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != "one" || m.Dir != dir || m.Conn == 0 {
		t.Errorf("Mount: %+v", m)
	}
	fd := take(t, m.PID, m.FD)
	if got := opcode(t, fd); got != 26 {
		t.Errorf("the first request is %d, not INIT", got)
	}
	again, err := n.Mount(t.Context(), "one", dir)
	if err != nil || again.FD != m.FD || again.Conn != m.Conn {
		t.Errorf("Mount again: %+v, %v", again, err)
	}
	if _, err := n.Mount(t.Context(), "one", dir+"2"); !errors.Is(err, errs.Conflict) {
		t.Errorf("Mount elsewhere: %v", err)
	}
	if _, err := n.Mount(t.Context(), "../one", dir); !errors.Is(err, errs.Invalid) {
		t.Errorf("Mount of a bad id: %v", err)
	}
	l, err := n.Mounts(t.Context())
	if err != nil || len(l) != 1 || l[0].ID != "one" || l[0].FD != m.FD {
		t.Errorf("Mounts: %+v, %v", l, err)
	}
	for range 2 { // absent is fine
		if err := n.Unmount(t.Context(), "one", false); err != nil {
			t.Errorf("Unmount: %v", err)
		}
	}
	if left := n.fuseMounts(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

// The connection outlives the shim: the next one has the same.
func TestFuseMountOutlivesShim(t *testing.T) {
	n := startNode(t)
	dir := filepath.Join(n.run, "flists", "one")
	before, err := n.Mount(t.Context(), "one", dir)
	if err != nil {
		t.Fatal(err)
	}
	fd := take(t, before.PID, before.FD)
	n.killShim()
	after, err := n.Mount(t.Context(), "one", dir)
	if err != nil || after.Conn != before.Conn || after.PID == before.PID {
		t.Fatalf("Mount after the shim was killed: %+v, %v, before it %+v", after, err, before)
	}
	if got := opcode(t, take(t, after.PID, after.FD)); got != 26 {
		t.Errorf("the first request is %d, not INIT", got)
	}
	if err := n.Unmount(t.Context(), "one", true); err != nil {
		t.Error(err)
	}
	if _, err := unix.Read(fd, make([]byte, 1<<20+8192)); !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the connection lives on: %v", err)
	}
}

// A shim that dies between mounting and giving the descriptor away leaves nothing.
func TestFuseMountHalfMade(t *testing.T) {
	n := startNode(t)
	dir := filepath.Join(n.run, "flists", "one")
	write(t, n.dir+"/fail", "mount:mounted")
	if _, err := n.Mount(t.Context(), "one", dir); !errors.Is(err, errs.Unavailable) {
		t.Fatalf("Mount by a shim that dies: %v", err)
	}
	n.awaitShim()
	if left := n.fuseMounts(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if l, err := n.Mounts(t.Context()); err != nil || len(l) > 0 {
		t.Errorf("Mounts: %v, %v", l, err)
	}
	if _, err := n.Mount(t.Context(), "one", dir); err != nil {
		t.Errorf("Mount after it: %v", err)
	}
	if err := n.Unmount(t.Context(), "one", false); err != nil {
		t.Errorf("Unmount: %v", err)
	}
}

// Quit leaves no mount, and nothing in the run directory.
func TestFuseQuit(t *testing.T) {
	n := startNode(t)
	m, err := n.Mount(t.Context(), "one", filepath.Join(n.run, "flists", "one"))
	if err != nil {
		t.Fatal(err)
	}
	fd := take(t, m.PID, m.FD)
	if err := n.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-n.ended; err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(n.run); len(left) > 0 {
		t.Errorf("left in the run directory: %v", left)
	}
	if _, err := unix.Read(fd, make([]byte, 1<<20+8192)); !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the connection lives on: %v", err)
	}
	n.start()
}

// Force gets those free that wait for a server that will not come.
func TestFuseUnmountForce(t *testing.T) {
	n := startNode(t)
	dir := filepath.Join(n.run, "flists", "one")
	m, err := n.Mount(t.Context(), "one", dir)
	if err != nil {
		t.Fatal(err)
	}
	fd := take(t, m.PID, m.FD) // as long as this is open, the connection is
	ended := make(chan error, 1)
	go func() {
		ended <- func() error {
			_, err := os.ReadDir(fmt.Sprintf("/proc/%d/root%s", n.reaper.Process.Pid, dir))
			return err
		}()
	}()
	n.until("somebody waits", func() bool {
		l, err := n.Mounts(context.Background())
		return err == nil && len(l) == 1 && l[0].Waiting != 0
	})
	if err := n.Unmount(t.Context(), "one", true); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("who waited got %v", err)
	}
	_ = fd
}

// Package testns gives tests network namespaces of their own, so that what
// they do to links and addresses is not done to the machine.
package testns

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/testroot"
	"github.com/buoy-edge/buoy/internal/thread"
)

// New makes a namespace with lo up. It ends with the test.
func New(t testing.TB) (path string) {
	t.Helper()
	testroot.Require(t)
	var file *os.File
	err := thread.Own(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up").Run()
	})
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() { file.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd())
}

// In runs f inside a namespace. f must not start goroutines, but processes.
func In(path string, f func() error) error {
	return thread.Own(func() error {
		ns, err := os.Open(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// Sh runs a script inside a namespace and has what it says.
func Sh(t testing.TB, path, script string) string {
	t.Helper()
	var out []byte
	err := In(path, func() (err error) {
		out, err = exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// Wire joins two namespaces by a cable with a plug in each.
func Wire(t testing.TB, one, plug, other, otherPlug string) {
	t.Helper()
	err := In(one, func() error {
		link := exec.CommandContext(t.Context(), "ip", "link", "add", "dev", plug, "type", "veth", "peer", "name", "other-end")
		if out, err := link.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return exec.CommandContext(t.Context(), "ip", "link", "set", "other-end", "netns", other, "name", otherPlug).Run()
	})
	if err != nil {
		t.Fatalf("join two namespaces: %v", err)
	}
	Sh(t, one, "ip link set dev "+plug+" up")
	Sh(t, other, "ip link set dev "+otherPlug+" up")
}

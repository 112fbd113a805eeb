//go:build linux && cgo

package shim

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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

//go:build linux && cgo

package shim

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// What a container has in place of /etc/passwd is read if it is a file of some
// size, and nothing else is, as that might never end.
func TestOpenDatabase(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("file"), []byte("x"), 0o600), os.Symlink("file", at("link")), os.Symlink("/gone", at("dangling")),
		unix.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("dir"), 0o700), os.WriteFile(at("large"), nil, 0o600), os.Truncate(at("large"), maxDatabase+1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, ok := range map[string]bool{
		at("file"): true, at("link"): true, at("dangling"): true, at("none"): true, at("fifo"): false, at("dir"): false, at("large"): false,
		"/proc/version": false, "/proc/kmsg": false,
	} {
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f, err := openDatabase(root, name)
		if (err == nil) != ok || err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			f.Close()
		}
		unix.Close(root)
	}
}

// Package sysmount makes the mounts of a machine whose first program is ours:
// of one that has nothing but buoy, and of the tests' guests.
package sysmount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// LeaveInitramfs makes / a mount of its own. The initramfs is the mount below
// all others, and pivot_root, which containers need, refuses to leave that one.
func LeaveInitramfs() error {
	const to = "/mnt"
	if err := Mount("/", to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return Enter(to)
}

// Enter makes what is mounted at dir the root, of this process and those that it starts.
func Enter(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s: %w", dir, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// Mount mounts, at a directory that it makes if need be.
func Mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// Safe are flags of what has no programs for others, and no devices.
const Safe = unix.MS_NOSUID | unix.MS_NODEV

// All mounts what programs on Linux expect, but for cgroups, of which there are
// several layouts.
func All() error {
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		data         string
	}{
		{"proc", "/proc", Safe | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", Safe | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", Safe, ""},
		{"mqueue", "/dev/mqueue", Safe | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", Safe, "mode=0755"},
		{"tmpfs", "/tmp", Safe, "mode=1777"},
	} {
		if err := Mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+to, "/dev/"+name); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

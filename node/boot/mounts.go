package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// leaveInitramfs makes / a mount of its own. The initramfs is the mount below
// all others, and pivot_root, which containers need, refuses to leave that one.
func leaveInitramfs() error {
	const to = "/mnt"
	if err := unix.Mount("/", to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /: %w", err)
	}
	if err := unix.Chdir(to); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// mountAll mounts what programs on Linux expect, with cgroups of version 2.
func mountAll() error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	for _, m := range []struct {
		kind, target string
		flags        uintptr
		data         string
	}{
		{"proc", "/proc", safe | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", safe | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", safe, ""},
		{"mqueue", "/dev/mqueue", safe | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", safe, "mode=0755"},
		{"tmpfs", "/tmp", safe, "mode=1777"},
		{"cgroup2", "/sys/fs/cgroup", safe | unix.MS_NOEXEC, "nsdelegate,memory_recursiveprot"},
	} {
		if err := mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil {
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

// mounted says whether something is mounted there.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// limits are the kernel's that a host of some hundred containers needs to be
// other than it has them, and those by which a machine that nobody looks after
// goes on by itself.
var limits = map[string]string{
	"kernel/panic":                      "10", // seconds until it reboots
	"kernel/dmesg_restrict":             "1",
	"kernel/pid_max":                    "4194304",
	"kernel/keys/maxkeys":               "20000",
	"kernel/keys/maxbytes":              "2000000",
	"fs/inotify/max_user_instances":     "8192",
	"fs/inotify/max_user_watches":       "524288",
	"net/ipv4/neigh/default/gc_thresh3": "8192",
}

func setLimits() error {
	var all error
	for name, value := range limits {
		if name == "kernel/panic" && readLine("/proc/sys/"+name) != "0" {
			continue // the command line says otherwise
		}
		all = errors.Join(all, os.WriteFile("/proc/sys/"+name, []byte(value), 0))
	}
	return all
}

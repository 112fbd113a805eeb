package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// leaveInitramfs makes / a mount of its own. The initramfs is the mount below
// all others, and pivot_root, which containers need, refuses to leave that one.
func leaveInitramfs() error {
	const to = "/.root"
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
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

func mountAll(cgroup string) error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV
	for _, m := range []struct {
		target, kind string
		flags        uintptr
		data         string
	}{
		{"/proc", "proc", safe | unix.MS_NOEXEC, ""},
		{"/sys", "sysfs", safe | unix.MS_NOEXEC, ""},
		{"/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,ptmxmode=666"},
		{"/dev/shm", "tmpfs", safe, ""},
		{"/dev/mqueue", "mqueue", safe | unix.MS_NOEXEC, ""},
		{"/run", "tmpfs", safe, "mode=0755"},
		{"/tmp", "tmpfs", safe, "mode=1777"},
		{"/var/lib", "tmpfs", 0, "mode=0755"},
	} {
		if err := mount(m.kind, m.target, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+to, "/dev/"+name); err != nil {
			return err
		}
	}
	return mountCgroups(cgroup)
}

// mountCgroups mounts one hierarchy, or one for each controller, or both as
// systemd does where it is told to be hybrid.
func mountCgroups(layout string) error {
	const top = "/sys/fs/cgroup"
	if layout == "v2" {
		return mount("cgroup2", top, "cgroup2", 0, "nsdelegate")
	}
	if err := mount("tmpfs", top, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	raw, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line) // name, hierarchy, number of cgroups, enabled
		if f[0][0] == '#' || f[3] != "1" {
			continue
		}
		if err := mount("cgroup", filepath.Join(top, f[0]), "cgroup", 0, f[0]); err != nil {
			return err
		}
	}
	if layout == "hybrid" {
		return mount("cgroup2", top+"/unified", "cgroup2", 0, "nsdelegate")
	}
	return mount("cgroup", top+"/systemd", "cgroup", 0, "none,name=systemd")
}

// disks are where a test's disks are mounted, each in a directory named by its label.
const disks = "/disk"

// mountDisks mounts what has a file system.
func mountDisks() error {
	have, err := labels()
	if err != nil {
		return err
	}
	for label, dev := range have {
		if err := mount(dev, filepath.Join(disks, label), "ext4", 0, ""); err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
	}
	return nil
}

// labels are the disks by their labels, which are their serial numbers.
func labels() (map[string]string, error) {
	serials, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, file := range serials {
		label, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all[strings.TrimSpace(string(label))] = "/dev/" + filepath.Base(filepath.Dir(file))
	}
	return all, nil
}

func unmountDisks() {
	targets, _ := filepath.Glob(disks + "/*") // the pattern is right
	for _, target := range targets {
		if err := unix.Unmount(target, 0); err != nil {
			say(os.Stdout, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/sysmount"
)

// mountAll mounts what a host has; what lasts on others is in memory.
func mountAll(cgroup string) error {
	if err := sysmount.All(); err != nil {
		return err
	}
	if err := sysmount.Mount("tmpfs", "/var/lib", "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	return mountCgroups(cgroup)
}

// mountCgroups mounts one hierarchy, or one for each controller, or both as
// systemd does where it is told to be hybrid.
func mountCgroups(layout string) error {
	const top = "/sys/fs/cgroup"
	if layout == "v2" {
		return sysmount.Mount("cgroup2", top, "cgroup2", 0, "nsdelegate")
	}
	if err := sysmount.Mount("tmpfs", top, "tmpfs", 0, "mode=0755"); err != nil {
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
		if err := sysmount.Mount("cgroup", filepath.Join(top, f[0]), "cgroup", 0, f[0]); err != nil {
			return err
		}
	}
	if layout == "hybrid" {
		return sysmount.Mount("cgroup2", top+"/unified", "cgroup2", 0, "nsdelegate")
	}
	return sysmount.Mount("cgroup", top+"/systemd", "cgroup", 0, "none,name=systemd")
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
		if err := sysmount.Mount(dev, filepath.Join(disks, label), "ext4", 0, ""); err != nil {
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

package container

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// devices are the nodes to make and the rules of the device cgroup. The usual
// harmless ones (null, zero, tty, …) are the shim's.
func devices(s Spec) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	if s.Privileged {
		nodes, err := hostDevices()
		return nodes, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, err
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	var nodes []specs.LinuxDevice
	for _, d := range s.Devices {
		node, err := device(d.Path)
		if err != nil {
			return nil, nil, errs.E(errs.Invalid, "device %q: %w", d.Path, err)
		}
		d.change(&node)
		if !s.UserNS {
			nodes = append(nodes, node)
		} // else it is mounted: see deviceMounts
		if d.Permissions == noPermissions {
			continue
		}
		access := cmp.Or(d.Permissions, "rwm")
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: node.Type, Major: &node.Major, Minor: &node.Minor, Access: access})
	}
	return nodes, rules, nil
}

// deviceMounts are the devices of a container with a user namespace, in which no
// node can be made; libcontainer would take the host's node that has the name of
// the container's. Owner and mode are those of the host's.
func deviceMounts(s Spec) (all []Mount) {
	for _, d := range s.Devices {
		if s.UserNS {
			all = append(all, Mount{Type: Bind, Source: d.Path, Target: cmp.Or(d.Target, d.Path)})
		}
	}
	return all
}

// noPermissions leaves a device out of the device cgroup.
const noPermissions = "none"

// change makes of the host's node what the container's is to be.
func (d Device) change(node *specs.LinuxDevice) {
	node.Path = cmp.Or(d.Target, node.Path)
	if d.Mode != nil {
		node.FileMode = d.Mode
	}
	if d.UID != nil {
		node.UID = d.UID
	}
	if d.GID != nil {
		node.GID = d.GID
	}
}

func device(path string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return specs.LinuxDevice{}, err
	}
	d := specs.LinuxDevice{Path: path, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return d, errs.E(errs.Invalid, "not a device")
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, nil
}

// hostDevices are all device nodes of the machine, for privileged containers.
func hostDevices() ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	skip := []string{"/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/console"}
	err := filepath.WalkDir("/dev", func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // a device that went away while we looked is not there
		case slices.Contains(skip, path) && e.IsDir():
			return filepath.SkipDir
		case e.Type()&os.ModeDevice == 0 || slices.Contains(skip, path):
			return nil
		}
		if d, err := device(path); err == nil {
			out = append(out, d)
		}
		return nil
	})
	return out, err
}

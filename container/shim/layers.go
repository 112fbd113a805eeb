//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// layers is a set of open directories for one mount. In a container with a
// user namespace of its own, a layer that still belongs to root is mapped into
// it while mounted; a layer that was shifted on disk is taken as it is. That
// takes a file system which supports idmapped mounts, and Linux 6.15: only then
// overlayfs takes detached mounts, as the mapped ones are.
type layers struct {
	spec   *specs.Spec
	fds    []int
	userNS *os.File // nil until needed
}

func (l *layers) openDir(base int, name string) (int, error) {
	fd, err := unix.Openat(base, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errs.E(errs.NotFound, "open layer %q: %w", name, err)
	}
	l.fds = append(l.fds, fd)
	return fd, nil
}

func (l *layers) open(base int, name string) (int, error) {
	fd, err := l.openDir(base, name)
	if err != nil || !l.toMap(fd) {
		return fd, err
	}
	if fd, err = l.mapped(fd); err != nil {
		return -1, fmt.Errorf("map layer %q into the user namespace: %w", name, err)
	}
	return fd, nil
}

// openUpper opens the writable layer. The kernel wants both of its parts on
// one mount, so where they are to be mapped it is their parent that is.
func (l *layers) openUpper(base int, upper, work string) (u, w int, err error) {
	if u, err = l.openDir(base, upper); err != nil {
		return -1, -1, err
	}
	if !l.toMap(u) {
		w, err = l.openDir(base, work)
		return u, w, err
	}
	parent := filepath.Dir(upper)
	if filepath.Dir(work) != parent {
		return -1, -1, errs.E(errs.Invalid, "with a user namespace, %q and %q must be in one directory", upper, work)
	}
	dir, err := l.openDir(base, parent)
	if err != nil {
		return -1, -1, err
	}
	if dir, err = l.mapped(dir); err != nil {
		return -1, -1, fmt.Errorf("map layer %q into the user namespace: %w", upper, err)
	}
	if u, err = l.openDir(dir, filepath.Base(upper)); err != nil {
		return -1, -1, err
	}
	w, err = l.openDir(dir, filepath.Base(work))
	return u, w, err
}

// toMap is true for a layer of root's when the container's root is somebody
// else outside.
func (l *layers) toMap(fd int) bool {
	var st unix.Stat_t
	return hostID(l.spec.Linux.UIDMappings) != 0 && unix.Fstat(fd, &st) == nil && st.Uid == 0
}

func (l *layers) mapped(fd int) (int, error) {
	if l.userNS == nil {
		ns, err := userNamespace(l.spec.Linux)
		if err != nil {
			return -1, err
		}
		l.userNS = ns
	}
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	l.fds = append(l.fds, tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(l.userNS.Fd())}
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr)
	switch {
	case errors.Is(err, unix.EINVAL):
		return -1, errs.E(errs.Conflict, "its file system cannot do that (idmapped mounts): ext4, xfs and btrfs can, tmpfs from Linux 6.3 on, "+
			"overlayfs and NFS cannot; move the data directory, or the image if it is a directory, or do without userns")
	case err != nil:
		return -1, fmt.Errorf("mount_setattr: %w", err)
	}
	return tree, nil
}

// explain says why overlayfs may not take mapped layers.
func (l *layers) explain(err error) error {
	var u unix.Utsname
	if l.userNS == nil || !errors.Is(err, unix.EINVAL) || unix.Uname(&u) != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if !olderThan(release, 6, 15) {
		return err
	}
	return errs.E(errs.Conflict, "a user namespace needs Linux 6.15 or newer, and this is %s; do without userns, or upgrade the kernel", release)
}

// olderThan says whether a kernel's release, "6.12.3-amd64", is before major.minor.
func olderThan(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a < major || a == major && b < minor
}

func (l *layers) close() {
	for _, fd := range l.fds {
		unix.Close(fd)
	}
	if l.userNS != nil {
		l.userNS.Close()
	}
}

// userNamespace makes one with the container's mapping. A mapping lives as
// long as a process or a descriptor is in it: a stopped child of a moment.
func userNamespace(s *specs.Linux) (*os.File, error) {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // it never runs, see Ptrace
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: idMap(s.UIDMappings), GidMappings: idMap(s.GIDMappings),
		Ptrace: true, Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Start()
	if errors.Is(err, unix.ENOSPC) {
		return nil, errs.E(errs.Conflict, "this machine allows no further user namespaces: raise the sysctl user.max_user_namespaces")
	}
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	f, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/user")
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it says "killed"
	return f, err
}

// idMap also gives our own root a number on the disk, the first that the
// container has not: overlayfs makes its working files as us.
func idMap(l []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	free, have := 0, false
	for _, m := range l {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
		free = max(free, int(m.ContainerID)+int(m.Size))
		have = have || m.HostID == 0
	}
	if !have {
		out = append(out, syscall.SysProcIDMap{ContainerID: free, HostID: 0, Size: 1})
	}
	return out
}

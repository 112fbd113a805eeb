//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// rootMount is a container's root while it is made: mounted in the shim's
// namespace, from which libcontainer's init stage copies it into the
// container's. It leaves ours then, so a node with 200 containers does not
// carry 200 mounts into the namespace of the next.
type rootMount struct {
	at       string
	dir      *os.File // the root
	writable bool
	linux    *specs.Linux
}

// standardDirs must be in every root; mounts go there.
var standardDirs = [...]string{"proc", "sys", "dev", "etc"}

// mountRoot mounts the layers. Each is given to the kernel as /proc/self/fd/N:
// no name needs escaping and 120 layers fit into the page that options may
// have.
func mountRoot(c *container, r shimapi.Rootfs, spec *specs.Spec) (*rootMount, error) {
	l := layers{spec: spec}
	defer l.close()
	base, err := l.openDir(unix.AT_FDCWD, r.Base)
	if err != nil {
		return nil, err
	}
	var lower []string
	for _, name := range r.Lower {
		fd, err := l.open(base, name)
		if err != nil {
			return nil, err
		}
		lower = append(lower, fdPath(fd))
	}
	opts := ""
	if r.Upper == "" {
		skel := filepath.Join(c.dir, "skel")
		if err := makeSkeleton(skel, spec); err != nil {
			return nil, err
		}
		fd, err := l.open(unix.AT_FDCWD, skel)
		if err != nil {
			return nil, err
		}
		lower = append(lower, fdPath(fd))
	} else {
		upper, work, err := l.openUpper(base, r.Upper, r.Work)
		if err != nil {
			return nil, err
		}
		opts = ",upperdir=" + fdPath(upper) + ",workdir=" + fdPath(work)
	}
	opts = "lowerdir=" + strings.Join(lower, ":") + opts
	if len(opts) >= os.Getpagesize() {
		return nil, errs.E(errs.Invalid, "the image has too many layers (%d)", len(r.Lower))
	}
	if err := unix.Mount("overlay", c.rootfs(), "overlay", 0, opts); err != nil {
		return nil, fmt.Errorf("mount %d layers as the root: %w", len(r.Lower), l.explain(err))
	}
	m := &rootMount{at: c.rootfs(), writable: r.Upper != "", linux: spec.Linux}
	m.dir, err = os.OpenFile(m.at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return m, err
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// makeSkeleton fills the lowest layer of a read-only root with whatever will
// be mounted over: nothing can be made there later.
func makeSkeleton(dir string, spec *specs.Spec) error {
	for _, name := range standardDirs {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for _, m := range spec.Mounts {
		at := filepath.Join(dir, path.Clean("/"+m.Destination))
		st, err := os.Stat(m.Source)
		if m.Type != "bind" && !bindOption(m) || err != nil || st.IsDir() {
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(at, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

func bindOption(m specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// complete makes standard directories that the image lacks. What is there,
// whatever it is, stays.
func (m *rootMount) complete() error {
	if !m.writable {
		return nil
	}
	for _, name := range standardDirs {
		err := unix.Mkdirat(int(m.dir.Fd()), name, 0o755)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil {
			uid, gid := hostID(m.linux.UIDMappings), hostID(m.linux.GIDMappings)
			err = unix.Fchownat(int(m.dir.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("make /%s in the root: %w", name, err)
		}
	}
	return nil
}

// hostID is who the container's root is outside.
func hostID(l []specs.LinuxIDMapping) int {
	for _, m := range l {
		if m.ContainerID == 0 {
			return int(m.HostID)
		}
	}
	return 0
}

// leave takes the root out of the shim's namespace. It may be called twice.
func (m *rootMount) leave() error {
	m.dir.Close()
	return unmountRoot(m.at)
}

// unmountRoot unmounts all that is mounted at a root's place, if anything.
func unmountRoot(at string) error {
	for {
		err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		}
		return &os.PathError{Op: "unmount", Path: at, Err: err}
	}
}

// openIn opens name below dir as if dir were the root: no symbolic link and no
// ".." leads out.
func openIn(dir int, name string, flags int) (int, error) {
	return unix.Openat2(dir, strings.TrimLeft(name, "/"), &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// openFile opens a file of a root that has so many bytes at most, and none that
// would hold us up: a container that runs may have made a link to /proc/kmsg.
func openFile(root int, name string, most int64) (*os.File, error) {
	fd, err := openIn(root, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	st, err := f.Stat()
	var on unix.Statfs_t
	if err == nil {
		err = unix.Fstatfs(fd, &on)
	}
	kernels := []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC}
	switch {
	case err != nil:
	case !st.Mode().IsRegular() || slices.Contains(kernels, int64(on.Type)): //nolint:unconvert // int32 on 32-bit machines
		err = errors.New("it is not a file")
	case st.Size() > most:
		err = fmt.Errorf("it has %d bytes; at most %d are read", st.Size(), most)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

package container

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/thread"
)

// Files reaches into the root file system of a running container. Every path
// is resolved inside that root, whatever links the container has made.
type Files struct{ root *os.File }

// OpenFiles opens the root of a process. Conflict: it has ended.
func OpenFiles(p shimapi.Process) (Files, error) {
	root, err := OpenProc(p, "root")
	if errors.Is(err, errs.NotFound) {
		return Files{}, errs.E(errs.Conflict, "the container has just ended")
	}
	return Files{root}, err
}

// Close lets go of the root.
func (f Files) Close() error { return f.root.Close() }

// openTries bounds how often an open is repeated that the kernel could not
// prove to stay inside the root, because something was renamed meanwhile.
const openTries = 100

// open opens name as the container would see it. Who has more capabilities when
// he opens a file of /proc is shown more in it, of the host, too, like the log and
// the addresses of the kernel.
func (f Files) open(name string, flags uint64) (file *os.File, err error) {
	err = thread.Own(func() error {
		if err := effective(1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_SYS_PTRACE); err != nil {
			return fmt.Errorf("file %q: give up capabilities: %w", name, err)
		}
		file, err = f.openIn(name, flags)
		return err
	})
	return file, err
}

// effective leaves this thread no capabilities but some that it has.
func effective(caps uint32) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return err
	}
	data[0].Effective, data[1].Effective = data[0].Effective&caps, 0
	return unix.Capset(&head, &data[0])
}

func (f Files) openIn(name string, flags uint64) (*os.File, error) {
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(f.root.Fd()), name, &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if try == openTries || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return nil, fileError(name, err)
		}
	}
}

func fileError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errs.E(errs.NotFound, "no file %q in the container", name)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EINVAL):
		return errs.E(errs.Invalid, "file %q: %w", name, err)
	case errors.Is(err, fs.ErrPermission):
		return errs.E(errs.Conflict, "file %q: the container's file system does not permit it", name)
	case errors.Is(err, unix.EBUSY):
		return errs.E(errs.Conflict, "file %q is mounted into the container and cannot be removed", name)
	case errors.Is(err, unix.EROFS):
		return errs.E(errs.Conflict, "file %q: the container's file system is read-only", name)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errs.E(errs.Unavailable, "file %q: no space left on the node", name)
	}
	return fmt.Errorf("file %q: %w", name, err)
}

// Read opens a regular file; the caller closes it. The size is -1 where the
// kernel makes the file up while it is read.
func (f Files) Read(name string) (file *os.File, size int64, err error) {
	// NONBLOCK: opening a fifo must not wait for a writer.
	file, err = f.open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, 0, err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errs.E(errs.Invalid, "%q is a %s, not a regular file", name, kind(st.Mode()))
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	if madeUp(file) {
		return file, -1, nil
	}
	return file, st.Size(), nil
}

// madeUp says whether the sizes of files on this file system mean nothing.
func madeUp(file *os.File) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(int(file.Fd()), &st) != nil {
		return false
	}
	return slices.Contains([]int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC}, int64(st.Type)) //nolint:unconvert // int32 on 32-bit machines
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeDevice != 0:
		return "device"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "special file"
}

// Write replaces or makes the file name with what r gives: whole, or not at
// all. An existing file's mode and owner stay, a link gives way to the file; a
// file that is mounted into the container is overwritten in its place. The
// directory must exist.
func (f Files) Write(name string, r io.Reader) (err error) {
	dir, base := path.Split(name)
	if base == "" || base == "." || base == ".." {
		return errs.E(errs.Invalid, "%q is a directory", name)
	}
	d, err := f.open(cmp.Or(dir, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	if mountPoint(d, base) {
		return f.writeInto(name, r)
	}
	mode, uid, gid, err := previous(d, base, name)
	if err != nil {
		return err
	}
	temp := ".buoy-" + rand.Text()
	fd, err := unix.Openat(int(d.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fileError(name, err)
	}
	out := os.NewFile(uintptr(fd), temp)
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Unlinkat(int(d.Fd()), temp, 0))
		}
	}()
	_, err = io.Copy(out, r)
	err = errors.Join(err, out.Chown(uid, gid), out.Chmod(mode), out.Close())
	if err == nil {
		err = unix.Renameat(int(d.Fd()), temp, int(d.Fd()), base)
	}
	if err != nil {
		return fileError(name, err)
	}
	return nil
}

// mountPoint says whether something is mounted at base. To replace it from out
// here, where that mount does not count, would undo the mount.
func mountPoint(d *os.File, base string) bool {
	var dir, file unix.Statx_t
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if unix.Statx(int(d.Fd()), "", flags|unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &dir) != nil ||
		unix.Statx(int(d.Fd()), base, flags, unix.STATX_MNT_ID, &file) != nil {
		return false // nothing there, or a kernel before 5.8
	}
	return file.Mnt_id != dir.Mnt_id
}

// writeInto overwrites a regular file.
func (f Files) writeInto(name string, r io.Reader) error {
	file, err := f.open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errs.E(errs.Invalid, "%q is a %s, not a regular file", name, kind(st.Mode()))
	}
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = io.Copy(file, r)
	}
	if err = errors.Join(err, file.Close()); err != nil && !errors.Is(err, errs.Invalid) {
		return fileError(name, err)
	}
	return err
}

// previous is mode and owner of the file that Write replaces, or the default ones.
func previous(d *os.File, base, name string) (mode fs.FileMode, uid, gid int, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(int(d.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := unix.Fstat(int(d.Fd()), &st); err != nil {
			return 0, 0, 0, err
		}
		return 0o644, int(st.Uid), int(st.Gid), nil
	case err != nil:
		return 0, 0, 0, fileError(name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return fs.FileMode(st.Mode & 0o777), int(st.Uid), int(st.Gid), nil
	case unix.S_IFLNK: // whose own mode means nothing
		return 0o644, int(st.Uid), int(st.Gid), nil
	case unix.S_IFDIR:
		return 0, 0, 0, errs.E(errs.Invalid, "%q is a directory", name)
	}
	return 0, 0, 0, errs.E(errs.Invalid, "%q is a device, pipe or socket, not a regular file", name)
}

// Remove removes a file, or a directory with all that is in it. What is not
// there is removed.
func (f Files) Remove(name string) error {
	dir, base := path.Split(strings.TrimRight(name, "/"))
	switch base {
	case "":
		return errs.E(errs.Invalid, "the root directory cannot be removed")
	case ".", "..":
		return errs.E(errs.Invalid, "%q does not name a file", name)
	}
	d, err := f.open(cmp.Or(dir, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if mountPoint(d, base) {
		return fileError(name, unix.EBUSY)
	}
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(d.Fd())))
	if err != nil {
		return fileError(name, err)
	}
	if err := errors.Join(root.RemoveAll(base), root.Close()); err != nil {
		return fileError(name, err)
	}
	return nil
}

//go:build linux && cgo

package shim

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// copyMark is set on a volume while it is being filled, so that a copy that
// broke off is not taken for the user's data.
const copyMark = "trusted.buoy.filling"

// fill gives an empty volume what the image has at its path: contents, owner,
// mode, attributes. A volume that has something in it stays as it is.
func (m *rootMount) fill(v shimapi.Volume) error {
	dst, err := unix.Open(v.Source, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errs.E(errs.NotFound, "open volume %q: %w", v.Source, err)
	}
	defer unix.Close(dst)
	if err := clearBroken(dst); err != nil {
		return fmt.Errorf("clear volume %q after a copy that broke off: %w", v.Source, err)
	}
	names, err := namesIn(dst)
	if err != nil || len(names) > 0 {
		return err
	}
	src, err := openIn(int(m.dir.Fd()), v.Path, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return nil // libcontainer makes the directory
	}
	if err != nil {
		return errs.E(errs.Invalid, "open %q of the image for its volume: %w", v.Path, err)
	}
	defer unix.Close(src)
	marked := unix.Fsetxattr(dst, copyMark, []byte{'1'}, 0) == nil
	t := tree{links: map[[2]uint64]string{}, root: dst}
	if err := t.dir(src, dst, ""); err != nil {
		return fmt.Errorf("copy %q of the image into volume %q: %w", v.Path, v.Source, err)
	}
	if marked {
		return unix.Fremovexattr(dst, copyMark)
	}
	return nil
}

func clearBroken(dir int) error {
	if n, err := unix.Fgetxattr(dir, copyMark, nil); err != nil || n == 0 {
		return nil // no mark, or no attributes here
	}
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	r, err := os.OpenRoot(fdPath(dir))
	if err != nil {
		return err
	}
	defer r.Close()
	for _, n := range names {
		err = errors.Join(err, r.RemoveAll(n))
	}
	return err
}

// namesIn lists a directory through a descriptor of its own.
func namesIn(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "dir")
	defer f.Close()
	return f.Readdirnames(-1)
}

// tree copies directories descriptor by descriptor; no name with a slash is
// ever opened, so no link can lead it astray.
type tree struct {
	links map[[2]uint64]string // files with several names: where the first is
	root  int
}

func (t *tree) dir(src, dst int, at string) error {
	names, err := namesIn(src)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.entry(src, dst, name, at+name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	return attributes(src, dst, &st)
}

func (t *tree) entry(src, dst int, name, at string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
		return both(src, dst, name, unix.O_RDONLY|unix.O_DIRECTORY, 0, func(a, b int) error {
			return t.dir(a, b, at+"/")
		})
	case unix.S_IFREG:
		return t.file(src, dst, name, at, &st)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), dst, name); err != nil {
			return err
		}
		return unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknodat(dst, name, st.Mode, 0); err != nil {
			return err
		}
		if err := unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return unix.Fchmodat(dst, name, st.Mode&0o7777, 0)
	}
	return nil // devices of an image are not taken over
}

func (t *tree) file(src, dst int, name, at string, st *unix.Stat_t) error {
	key := [2]uint64{st.Dev, st.Ino}
	if first, ok := t.links[key]; ok {
		return unix.Linkat(t.root, first, dst, name, 0)
	}
	if st.Nlink > 1 {
		t.links[key] = at
	}
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	return both(src, dst, name, unix.O_RDONLY, flags, func(a, b int) error {
		for {
			n, err := unix.Sendfile(b, a, nil, 1<<30)
			if n == 0 && err == nil {
				return attributes(a, b, st)
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
}

// both opens name on both sides; toFlags 0 means the same on both.
func both(src, dst int, name string, flags, toFlags int, f func(a, b int) error) error {
	a, err := unix.Openat(src, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(a)
	if toFlags == 0 {
		toFlags = flags
	}
	b, err := unix.Openat(dst, name, toFlags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(b)
	return f(a, b)
}

// attributes gives dst the owner, mode, extended attributes and times of src.
// The owner goes first: changing it takes away set-id bits and capabilities.
func attributes(src, dst int, st *unix.Stat_t) error {
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(src, list)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(list[:max(n, 0)]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") {
			continue // overlayfs's own
		}
		v, err := unix.Fgetxattr(src, name, value)
		if err == nil {
			err = unix.Fsetxattr(dst, name, value[:v], 0)
		}
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	times := []unix.Timeval{
		unix.NsecToTimeval(unix.TimespecToNsec(st.Atim)), unix.NsecToTimeval(unix.TimespecToNsec(st.Mtim)),
	}
	return unix.Futimes(dst, times)
}

package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// copyBuffer is the size of writes.
const copyBuffer = 256 << 10

// file writes a regular file.
func (t *tree) file(ctx context.Context, e entry, fd int, real, base string) error {
	if e.size > t.opt.MaxBytes-t.result.Bytes {
		return errs.E(errs.Invalid, "entry %q: the files are larger than %d bytes together", e.name, t.opt.MaxBytes)
	}
	t.result.Bytes += e.size
	w := &fileWriter{limit: e.size, sparse: e.sparse}
	err := t.place(fd, real, base, func() (err error) {
		w.fd, err = unix.Openat(fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return failed(e.name, err)
	}
	err = w.fill(ctx, e)
	if err == nil {
		err = dressFd(w.fd, e)
	}
	if err == nil {
		err = failed(e.name, setTime(fd, base, e.mtime))
	}
	return errors.Join(err, failed(e.name, unix.Close(w.fd)))
}

// fileWriter writes to a descriptor without the costs of an os.File, which matter for thousands of small files. It leaves
// holes for blocks of zeros if sparse.
type fileWriter struct {
	fd     int
	limit  int64
	sparse bool
	at     int64
}

func (w *fileWriter) fill(ctx context.Context, e entry) error {
	if e.size == 0 {
		return nil
	}
	n, err := e.copy(ctx, w)
	if err == nil && n != e.size {
		err = errs.E(errs.Invalid, "%d of %d bytes are there: %w", n, e.size, io.ErrUnexpectedEOF)
	}
	if err == nil && w.sparse {
		err = unix.Ftruncate(w.fd, e.size)
	}
	return failed(e.name, err)
}

// zeros is compared with, never written.
var zeros [4096]byte

func (w *fileWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.limit-w.at {
		return 0, errs.E(errs.Invalid, "content is longer than %d bytes", w.limit)
	}
	done := 0
	for done < len(p) {
		rest := p[done:]
		if w.sparse {
			if n := min(len(rest), len(zeros)); bytes.Equal(rest[:n], zeros[:n]) {
				done += n
				w.at += int64(n)
				continue
			}
			rest = rest[:dataRun(rest)]
		}
		n, err := unix.Pwrite(w.fd, rest, w.at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
		w.at += int64(n)
	}
	return done, nil
}

// dataRun is how far p goes before a block of zeros.
func dataRun(p []byte) int {
	for i := len(zeros); i < len(p); i += len(zeros) {
		n := min(len(zeros), len(p)-i)
		if bytes.Equal(p[i:i+n], zeros[:n]) {
			return i
		}
	}
	return len(p)
}

// dress gives what was just made owner, mode and time.
func dress(fd int, base string, e entry) error {
	err := unix.Fchownat(fd, base, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && e.format() != unix.S_IFLNK {
		// This call follows links, but base is the node that we have just made.
		err = unix.Fchmodat(fd, base, e.mode&0o7777, 0)
	}
	if err == nil {
		err = setTime(fd, base, e.mtime)
	}
	return failed(e.name, err)
}

func dressIf(err error, fd int, base string, e entry) error {
	if err != nil {
		return nil //nolint:nilerr // nothing is there to dress; the caller has err
	}
	return dress(fd, base, e)
}

// dressFd gives a file or directory owner, mode and attributes, in the order that keeps them: a new owner clears setuid
// and capabilities. Its time comes later, from whoever is done with it.
func dressFd(fd int, e entry) error {
	err := unix.Fchown(fd, int(e.uid), int(e.gid))
	if err == nil {
		err = unix.Fchmod(fd, e.mode&0o7777)
	}
	if err != nil {
		return failed(e.name, err)
	}
	for _, name := range slices.Sorted(maps.Keys(e.xattrs)) {
		if err := setXattr(fd, name, e.xattrs[name]); err != nil {
			return errs.E(errs.KindOf(err), "entry %q: attribute %q: %w", e.name, name, err)
		}
	}
	return nil
}

// keptXattr says which extended attributes go from archives to files and back: capabilities and the user's own. An archive
// that could set trusted.overlay.* or user.overlay.* would forge what overlayfs believes about lower layers; labels
// (security.selinux, security.ima) and ACLs belong to the machine that had them.
func keptXattr(name string) bool {
	return name == "security.capability" ||
		strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

func setXattr(fd int, name, value string) error {
	if !keptXattr(name) {
		return nil
	}
	err := unix.Fsetxattr(fd, name, []byte(value), 0)
	switch {
	case err == nil:
		return nil
	case err == unix.EOPNOTSUPP && name != "security.capability":
		return nil // the file system has none, and programs that set them expect that
	case err == unix.EINVAL || err == unix.ERANGE || err == unix.E2BIG:
		return errs.E(errs.Invalid, "%w", err)
	}
	return err
}

// noXattr is true if err says that an attribute is not there.
func noXattr(err error) bool {
	return err == nil || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM)
}

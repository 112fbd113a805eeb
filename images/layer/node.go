package layer

import (
	"context"
	"errors"
	"path"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// add puts one entry of the archive into the tree. A later entry of a name wins.
func (t *tree) add(ctx context.Context, e entry) error {
	if t.result.Entries++; t.result.Entries > t.opt.MaxEntries {
		return errs.E(errs.Invalid, "archive has more than %d entries", t.opt.MaxEntries)
	}
	if err := e.check(); err != nil {
		return err
	}
	parts, err := split(e.name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if e.format() != unix.S_IFDIR {
			return errs.E(errs.Invalid, "entry %q: the root is a directory", e.name)
		}
		t.rootEntry = &e
		return nil
	}
	dir, base := parts[:len(parts)-1], parts[len(parts)-1]
	if t.opt.Whiteouts {
		kind, gone, err := classify(e.name, parts)
		if err != nil {
			return err
		}
		if kind != notWhiteout {
			return t.whiteoutEntry(e, kind, dir, gone)
		}
	}
	if t.leaveOut(e) {
		t.result.Skipped++
		return nil
	}
	if e.format() == 0 {
		return t.link(e, dir, base)
	}
	fd, real, err := t.parent(e.name, dir)
	if err != nil {
		return err
	}
	return t.make(ctx, e, fd, path.Join(real, base), base)
}

// make makes base in the directory fd; real is its path without links.
func (t *tree) make(ctx context.Context, e entry, fd int, real, base string) error {
	switch e.format() {
	case unix.S_IFDIR:
		return t.mkdir(e, fd, real, base)
	case unix.S_IFREG:
		return t.file(ctx, e, fd, real, base)
	case unix.S_IFLNK:
		err := t.place(fd, real, base, func() error { return unix.Symlinkat(e.target, fd, base) })
		return errors.Join(failed(e.name, err), dressIf(err, fd, base, e))
	}
	if e.major < 0 || e.major > 0xfff || e.minor < 0 || e.minor > 0xfffff {
		return errs.E(errs.Invalid, "entry %q: device %d:%d does not exist", e.name, e.major, e.minor)
	}
	dev := int(unix.Mkdev(uint32(e.major), uint32(e.minor)))
	err := t.place(fd, real, base, func() error { return unix.Mknodat(fd, base, e.format()|0o600, dev) })
	return errors.Join(failed(e.name, err), dressIf(err, fd, base, e))
}

// harmless are the character devices that every container may use.
var harmless = map[[2]int64]bool{
	{1, 3}: true, {1, 5}: true, {1, 7}: true, {1, 8}: true, {1, 9}: true, // null zero full random urandom
	{5, 0}: true, {5, 1}: true, {5, 2}: true, // tty console ptmx
}

func (t *tree) leaveOut(e entry) bool {
	switch e.format() {
	case unix.S_IFSOCK:
		return true
	case unix.S_IFBLK:
		return !t.opt.Devices
	case unix.S_IFCHR:
		dev := [2]int64{e.major, e.minor}
		return dev == [2]int64{} || !t.opt.Devices && !harmless[dev]
	}
	return false
}

// place calls make, and once more after removing what is in its way.
func (t *tree) place(fd int, real, base string, make func() error) error {
	err := make()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := t.remove(fd, real, base); err != nil {
		return err
	}
	return make()
}

// remove removes base and everything below it. The cached parent is not below it but may have been found through it.
func (t *tree) remove(fd int, real, base string) error {
	t.parentName = "/" // no entry's parent is called that: the descriptor stays open, its name is forgotten
	err := unix.Unlinkat(fd, base, 0)
	if err == unix.EISDIR {
		return t.root.RemoveAll(real)
	}
	return err
}

func (t *tree) mkdir(e entry, fd int, real, base string) error {
	isOpaque := false
	err := unix.Mkdirat(fd, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st *unix.Stat_t
		if st, err = statAt(fd, base); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			// A directory in place of one that a whiteout removed is a new one, not one merged with the old.
			isOpaque = t.opt.Whiteouts && isWhiteout(st)
			if err = t.remove(fd, real, base); err == nil {
				err = unix.Mkdirat(fd, base, 0o700)
			}
		}
	}
	if err != nil {
		return failed(e.name, err)
	}
	d, err := openDir(fd, base)
	if err != nil {
		return failed(e.name, err)
	}
	defer closeFd(d)
	if isOpaque {
		if err := markOpaque(e.name, d); err != nil {
			return err
		}
	}
	if err := dressFd(d, e); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(d, &st); err != nil {
		return failed(e.name, err)
	}
	return t.remember(e.name, real, st.Ino, e.mtime)
}

// link makes a hard link. Its target is a name in the archive like any other; a symbolic link there is linked itself.
func (t *tree) link(e entry, dir []string, base string) error {
	parts, err := split(e.target)
	if err != nil {
		return errs.E(errs.Invalid, "entry %q: hard link: %w", e.name, err)
	}
	if len(parts) == 0 {
		return errs.E(errs.Invalid, "entry %q: hard link to the root", e.name)
	}
	from, _, err := t.open(e.name, parts[:len(parts)-1], false)
	if errors.Is(err, unix.ENOENT) {
		return noTarget(e)
	}
	if err != nil {
		return err
	}
	defer closeFd(from)
	last := parts[len(parts)-1]
	st, err := statAt(from, last)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG):
		return noTarget(e)
	case err != nil:
		return failed(e.name, err)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR || isWhiteout(st):
		return errs.E(errs.Invalid, "entry %q: hard link to %q, which is not a file", e.name, e.target)
	}
	fd, real, err := t.parent(e.name, dir)
	if err != nil {
		return err
	}
	if old, err := statAt(fd, base); err == nil && old.Ino == st.Ino && old.Dev == st.Dev {
		return nil // it is that file already, perhaps the target itself
	}
	return failed(e.name, t.place(fd, real, base, func() error { return unix.Linkat(from, last, fd, base, 0) }))
}

func noTarget(e entry) error {
	return errs.E(errs.Invalid, "entry %q: hard link to %q, which is not in the archive before it", e.name, e.target)
}

package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// View gives the plain bytes of chunks as files; flist/cache has one, FromSource makes one without a cache.
type View interface {
	// Open is a file with exactly the size plain bytes of a chunk, both hashes checked. The caller closes it.
	Open(ctx context.Context, ref chunk.Ref, size int) (*os.File, error)
}

// UnpackOptions say how a list becomes a tree.
type UnpackOptions struct {
	DropSuid bool // leave out set-user-id and set-group-id of files
	// Link makes a file of one chunk a hard link to the view's file where owner, mode and time allow it: the first one
	// gives the view's file its own. Nobody may write to the view's files then, or change their owners, modes or times.
	Link     bool
	Parallel int               // chunks under way at once; 0: as Pack
	Progress func(bytes int64) // plain bytes since the last call; called from several goroutines; nil: nobody asks
}

// Unpacked is what Unpack made.
type Unpacked struct {
	Files, Dirs, Links, Specials int   // the root is one of Dirs
	Skipped                      int   // sockets and devices that are never made
	Bytes                        int64 // of files
	Linked                       int64 // of those, shared with the view's files by hard link
}

// Unpack makes the tree of l below dir, which must be an empty directory of the caller's own. Owners, modes and times are
// those of the flist; of devices only those are made that any container may use, and sockets never. Chunks are fetched side
// by side, files in the order of the list.
//
// When it fails or ctx ends, dir is empty again. What was written is durable only after a sync of the file system.
func Unpack(ctx context.Context, l *flist.List, v View, dir string, opt UnpackOptions) (_ Unpacked, err error) {
	fd, err := openEmpty(dir)
	if err != nil {
		return Unpacked{}, fmt.Errorf("unpack: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	u := &unpacker{l: l, v: v, opt: opt, jobs: make(chan job), fail: func(err error) {
		if err != nil {
			stop(err) // the first one counts
		}
	}}
	u.src, _ = v.(Source)
	var wg sync.WaitGroup
	for range cmp.Or(max(opt.Parallel, 0), defaultParallel) {
		wg.Go(func() {
			buf := make([]byte, 0, chunk.Size)
			for j := range u.jobs {
				u.work(ctx, j, buf)
			}
		})
	}
	u.walk(ctx, newFolder(nil, fd, 0))
	close(u.jobs)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Unpacked{}, errors.Join(fmt.Errorf("unpack: %w", roomless(err)), empty(dir))
	}
	u.res.Bytes, u.res.Linked = u.bytes.Load(), u.linked.Load()
	return u.res, nil
}

func openEmpty(dir string) (int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return -1, err
	}
	defer func() { _ = d.Close() }() // nothing is written through it
	if _, err := d.Readdirnames(1); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errs.E(errs.Exists, "%s is not empty", dir)
		}
		return -1, err
	}
	return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// empty removes all that is in a directory.
func empty(dir string) error {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("empty %s: %w", dir, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return errors.Join(fmt.Errorf("empty %s: %w", dir, err), r.Close())
	}
	names, err := d.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, r.RemoveAll(name))
	}
	return errors.Join(err, d.Close(), r.Close())
}

// roomless gives a full file system its kind.
func roomless(err error) error {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT} {
		if errors.Is(err, full) && !errors.Is(err, errs.Unavailable) {
			return errs.E(errs.Unavailable, "%w", err)
		}
	}
	return err
}

// unpacker makes one tree.
type unpacker struct {
	l    *flist.List
	v    View
	src  Source // v, if it has the bytes themselves
	opt  UnpackOptions
	jobs chan job
	fail func(error) // ends the work, unless the error is nil

	res           Unpacked // the walk's
	bytes, linked atomic.Int64
	inodes        sync.Map // of the view's files that are in the tree; a key each
}

// folder is a directory that is being filled. What is in it, and the walk itself, hold it; the last one to let go gives it
// its owner, mode and time.
type folder struct {
	parent *folder
	fd     int
	node   int
	users  atomic.Int64
}

func newFolder(parent *folder, fd, node int) *folder {
	f := &folder{parent: parent, fd: fd, node: node}
	f.users.Store(1)
	return f
}

func (f *folder) hold() *folder {
	f.users.Add(1)
	return f
}

func (u *unpacker) release(ctx context.Context, f *folder) {
	for ; f != nil && f.users.Add(-1) == 0; f = f.parent {
		if ctx.Err() == nil {
			u.fail(u.named(f.node, u.dress(f.fd, &u.l.Nodes[f.node])))
		}
		u.fail(unix.Close(f.fd))
	}
}

// named says which file err is about.
func (u *unpacker) named(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q: %w", "/"+u.l.Path(i), err)
}

// walk makes what is in a directory, and leaves regular files to others.
func (u *unpacker) walk(ctx context.Context, f *folder) {
	defer u.release(ctx, f)
	u.res.Dirs++
	dir := &u.l.Nodes[f.node]
	for i := int(dir.First); i < int(dir.First+dir.Count) && ctx.Err() == nil; i++ {
		n := &u.l.Nodes[i]
		err := component(n.Name)
		if err != nil {
			u.fail(u.named(i, err))
			return
		}
		switch n.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			var fd int
			if fd, err = mkdir(f.fd, n.Name); err == nil {
				f.hold()
				u.walk(ctx, newFolder(f, fd, i))
			}
		case unix.S_IFREG:
			u.res.Files++
			err = u.file(ctx, f, i)
		case unix.S_IFLNK:
			u.res.Links++
			err = u.symlink(f.fd, n)
		default:
			err = u.special(f.fd, n)
		}
		u.fail(u.named(i, err))
	}
}

// component refuses a name that would be somewhere else. A reader of flists does, too; a list need not come from one.
func component(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return errs.E(errs.Invalid, "%q is no name of a file", name)
	}
	return nil
}

func mkdir(dir int, name string) (int, error) {
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return -1, err
	}
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (u *unpacker) symlink(dir int, n *flist.Node) error {
	err := unix.Symlinkat(n.Target, dir, n.Name)
	if err == nil {
		err = unix.Fchownat(dir, n.Name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.UtimesNanoAt(dir, n.Name, times(n), unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

// harmless are the character devices that every container may use; images/layer makes the same.
var harmless = map[uint64]bool{
	unix.Mkdev(1, 3): true, unix.Mkdev(1, 5): true, unix.Mkdev(1, 7): true, // null, zero, full
	unix.Mkdev(1, 8): true, unix.Mkdev(1, 9): true, // random, urandom
	unix.Mkdev(5, 0): true, unix.Mkdev(5, 1): true, unix.Mkdev(5, 2): true, // tty, console, ptmx
}

func (u *unpacker) special(dir int, n *flist.Node) error {
	kind := n.Mode & unix.S_IFMT
	if kind != unix.S_IFIFO && (kind != unix.S_IFCHR || !harmless[n.Rdev]) {
		u.res.Skipped++
		return nil
	}
	u.res.Specials++
	err := unix.Mknodat(dir, n.Name, kind|0o600, int(n.Rdev))
	if err == nil {
		err = unix.Fchownat(dir, n.Name, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Fchmodat(dir, n.Name, n.Mode&0o7777, 0) // not a link: it was made above
	}
	if err == nil {
		err = unix.UtimesNanoAt(dir, n.Name, times(n), unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

// times leaves the time of access, by which a cache knows what was used lately.
func times(n *flist.Node) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: n.MTime}}
}

// mode is the permissions that a node gets.
func (u *unpacker) mode(n *flist.Node) uint32 {
	if u.opt.DropSuid && n.Mode&unix.S_IFMT == unix.S_IFREG {
		return n.Mode & 0o1777
	}
	return n.Mode & 0o7777
}

// dress gives a file or directory owner, mode and time, in the order that keeps them: a new owner clears set-id bits.
func (u *unpacker) dress(fd int, n *flist.Node) error {
	err := unix.Fchown(fd, int(n.UID), int(n.GID))
	if err == nil {
		err = unix.Fchmod(fd, u.mode(n))
	}
	if err == nil {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times(n), 0)
	}
	return err
}

package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// maxDepth is how deep directories may be nested; images/layer has the same limit.
const maxDepth = 512

// entry is a file while the tree is being read.
type entry struct {
	node flist.Node
	kids []*entry
}

// walker reads a tree, always from a directory that it has open, and never through a link.
type walker struct {
	files    chan<- *content
	result   *Result
	progress func(int64) // or nil
	// linked are files with several names, by device and inode: their content is read once.
	linked map[[2]uint64]*flist.Node
}

// content is a regular file whose chunks are to be made.
type content struct {
	f      *os.File
	path   string
	before unix.Stat_t
	node   *flist.Node
	left   counter // chunks
}

// dir reads the directory that fd is, which has that path, and closes fd.
func (w *walker) dir(ctx context.Context, fd int, path string, depth int, into *entry) (err error) {
	d := os.NewFile(uintptr(fd), "/"+path)
	defer func() { err = errors.Join(err, d.Close()) }()
	var before, after unix.Stat_t
	if depth > maxDepth {
		return errs.E(errs.Invalid, "directory %q: nested deeper than %d", "/"+path, maxDepth)
	}
	if err := unix.Fstat(fd, &before); err != nil {
		return fmt.Errorf("read %q: %w", "/"+path, err)
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	slices.Sort(names)
	setStat(&into.node, &before)
	w.result.Dirs++
	for _, name := range names {
		kid, err := w.entry(ctx, fd, name, join(path, name), depth)
		if err != nil {
			return err
		}
		into.kids = append(into.kids, kid)
	}
	if err := unix.Fstat(fd, &after); err != nil {
		return fmt.Errorf("read %q: %w", "/"+path, err)
	}
	if before.Mtim != after.Mtim {
		return changed(path)
	}
	return ctx.Err()
}

func changed(path string) error {
	return errs.E(errs.Conflict, "%q changed while it was being packed", "/"+path)
}

func (w *walker) entry(ctx context.Context, dir int, name, path string, depth int) (*entry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, fmt.Errorf("read %q: %w", "/"+path, err)
	}
	e := &entry{}
	e.node.Name = name
	setStat(&e.node, &st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := openSame(dir, name, unix.O_DIRECTORY, &st)
		if err != nil {
			return nil, fmt.Errorf("open %q: %w", "/"+path, err)
		}
		return e, w.dir(ctx, fd, path, depth+1, e)
	case unix.S_IFREG:
		w.result.Files++
		w.result.Bytes += st.Size
		return e, w.file(ctx, dir, path, &st, e)
	case unix.S_IFLNK:
		w.result.Links++
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return nil, fmt.Errorf("read link %q: %w", "/"+path, err)
		}
		e.node.Target, e.node.Size = string(buf[:n]), int64(n)
	default:
		w.result.Specials++
		e.node.Rdev = st.Rdev
	}
	return e, nil
}

// file hands the content over. Of an empty one there is none.
func (w *walker) file(ctx context.Context, dir int, path string, st *unix.Stat_t, e *entry) (err error) {
	n := &e.node
	n.Size, n.ChunkSize = st.Size, chunk.Size
	if st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		if first := w.linked[id]; first != nil && first.Size == n.Size && first.MTime == n.MTime {
			n.Chunks = first.Chunks // which may not be known yet, but will be
			if w.progress != nil {
				w.progress(n.Size)
			}
			return nil
		}
		w.linked[id] = n
	}
	fd, err := openSame(dir, n.Name, unix.O_NONBLOCK, st)
	if err != nil {
		return fmt.Errorf("open %q: %w", "/"+path, err)
	}
	c := &content{f: os.NewFile(uintptr(fd), "/"+path), path: path, before: *st, node: n}
	if size, err := unix.Fgetxattr(fd, "security.capability", nil); err == nil && size > 0 {
		w.result.Capabilities = append(w.result.Capabilities, "/"+path)
	}
	if st.Size == 0 {
		return c.f.Close()
	}
	n.Chunks = make([]chunk.Ref, (st.Size+chunk.Size-1)/chunk.Size)
	c.left.set(len(n.Chunks))
	select {
	case w.files <- c:
		return nil
	case <-ctx.Done():
		return errors.Join(ctx.Err(), c.f.Close())
	}
}

// openSame opens what st was taken of.
func openSame(dir int, name string, flags int, st *unix.Stat_t) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if now.Ino != st.Ino || now.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT {
		return -1, errors.Join(errs.E(errs.Conflict, "it changed while it was being packed"), unix.Close(fd))
	}
	return fd, nil
}

// setStat takes from st what flists can say. The change time is that of the machine's disk, not of the file: to have the
// same flist of the same tree, the time of modification stands in for it.
func setStat(n *flist.Node, st *unix.Stat_t) {
	n.Mode, n.UID, n.GID = st.Mode, st.Uid, st.Gid
	n.MTime, n.CTime = st.Mtim.Sec, st.Mtim.Sec
}

// flatten puts the tree into the order of a List: level by level.
func flatten(root *entry) []flist.Node {
	nodes := []flist.Node{root.node}
	for level := []*entry{root}; len(level) > 0; {
		var next []*entry
		at := len(nodes) - len(level)
		for i, dir := range level {
			if dir.node.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			nodes[at+i].First, nodes[at+i].Count = uint32(len(nodes)), uint32(len(dir.kids))
			for _, kid := range dir.kids {
				kid.node.Parent = uint32(at + i)
				nodes = append(nodes, kid.node)
			}
			next = append(next, dir.kids...)
		}
		level = next
	}
	return nodes
}

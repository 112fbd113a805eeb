package flist

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// listD is what is read of era D before it is a tree: nodes as the rows have them, in the order of their numbers.
type listD struct {
	inodes []inodeD
	arena  arena
}

type inodeD struct {
	Node
	ino, parent int64
	size        int64
}

func readD(ctx context.Context, d *database) (*List, error) {
	for _, t := range []string{"inode", "extra", "block"} {
		if !d.tables[t] {
			return nil, errs.E(errs.Invalid, "its database has no table %s", t)
		}
	}
	r := &listD{}
	if err := r.readInodes(ctx, d); err != nil {
		return nil, err
	}
	if err := r.readTargets(ctx, d); err != nil {
		return nil, err
	}
	if err := r.readBlocks(ctx, d); err != nil {
		return nil, err
	}
	l := &List{Era: EraD}
	if err := r.assemble(l); err != nil {
		return nil, err
	}
	if err := l.Meta.readD(ctx, d); err != nil {
		return nil, err
	}
	return l, nil
}

func (r *listD) readInodes(ctx context.Context, d *database) error {
	err := d.scan(ctx, "inode", "ino, parent, name, size, uid, gid, mode, rdev, ctime, mtime", func(row []driver.Value) error {
		if len(r.inodes) >= maxNodes {
			return errs.E(errs.Invalid, "it has more than %d files", maxNodes)
		}
		n, err := r.inode(row)
		if err != nil {
			return errs.E(errs.Invalid, "file %v, %.40q: %w", row[0], text(row[2]), err)
		}
		r.inodes = append(r.inodes, n)
		return nil
	})
	if err != nil {
		return err
	}
	byIno := func(a, b inodeD) int { return cmp.Compare(a.ino, b.ino) }
	if !slices.IsSortedFunc(r.inodes, byIno) {
		slices.SortFunc(r.inodes, byIno)
	}
	for i := 1; i < len(r.inodes); i++ {
		if r.inodes[i].ino == r.inodes[i-1].ino {
			return errs.E(errs.Invalid, "it has two files %d", r.inodes[i].ino)
		}
	}
	return nil
}

// inode reads a row; what its block and extra rows say comes later.
func (r *listD) inode(row []driver.Value) (n inodeD, err error) {
	var v [10]int64 // by column; the name's is unused
	for i := range row {
		var ok bool
		if v[i], ok = row[i].(int64); !ok && row[i] != nil && i != 2 {
			return n, errors.New("a number is none")
		}
	}
	uid, gid, mode, rdev := v[4], v[5], v[6], v[7]
	if mode < 0 || mode > 0xffff || uid < 0 || uid >= math.MaxUint32 || gid < 0 || gid >= math.MaxUint32 {
		return n, fmt.Errorf("there is no mode %o or owner %d:%d", mode, uid, gid)
	}
	n.ino, n.parent, n.size = v[0], v[1], v[3]
	n.Name = r.arena.string([]byte(text(row[2])))
	n.Mode, n.UID, n.GID, n.CTime, n.MTime = uint32(mode), uint32(uid), uint32(gid), v[8], v[9]
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFBLK, unix.S_IFCHR:
		n.Rdev = uint64(rdev)
		if unix.Major(n.Rdev) > maxMajor || unix.Minor(n.Rdev) > maxMinor {
			return n, fmt.Errorf("there is no device %d:%d", unix.Major(n.Rdev), unix.Minor(n.Rdev))
		}
	default:
		return n, fmt.Errorf("its mode %o has no type", mode)
	}
	return n, nil
}

// find is the node of that number, nil if there is none.
func (r *listD) find(ino int64) *inodeD {
	if i := ino - 1; i >= 0 && i < int64(len(r.inodes)) && r.inodes[i].ino == ino { // as packers number them
		return &r.inodes[i]
	}
	i, ok := slices.BinarySearchFunc(r.inodes, ino, func(n inodeD, ino int64) int { return cmp.Compare(n.ino, ino) })
	if !ok {
		return nil
	}
	return &r.inodes[i]
}

// number is the number of a file as a row about it has it; 0 is no file's.
func number(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func (r *listD) readTargets(ctx context.Context, d *database) error {
	return d.scan(ctx, "extra", "ino, data", func(row []driver.Value) error {
		if n := r.find(number(row[0])); n != nil && n.Mode&unix.S_IFMT == unix.S_IFLNK {
			if err := n.setTarget(r.arena.string([]byte(text(row[1])))); err != nil {
				return errs.E(errs.Invalid, "file %d, %.40q: %w", n.ino, n.Name, err)
			}
		}
		return nil
	})
}

// readBlocks gives files their chunks: in the order of rows, as the format has no other.
func (r *listD) readBlocks(ctx context.Context, d *database) error {
	return d.scan(ctx, "block", "ino, id, key", func(row []driver.Value) error {
		n := r.find(number(row[0]))
		if n == nil || n.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
		id, key := text(row[1]), text(row[2])
		if len(id) != 32 || len(key) != 32 {
			return errs.E(errs.Invalid, "file %d, %.40q: a chunk has a name of %d bytes and a key of %d", n.ino, n.Name, len(id), len(key))
		}
		n.Chunks = append(n.Chunks, chunk.Ref{ID: chunk.ID(id), Key: key})
		return nil
	})
}

// assemble makes the tree, level by level. What does not hang on the root is left out, rings of directories among it: a
// file has one parent only.
func (r *listD) assemble(l *List) error {
	root := r.find(1)
	if root == nil || root.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errs.E(errs.Invalid, "it has no root directory")
	}
	root.parent, root.Name = 0, ""
	// Sorted by parent and name, the children of a directory follow one another; but find needs the old order.
	sorted := make([]*inodeD, 0, len(r.inodes))
	for i := range r.inodes {
		sorted = append(sorted, &r.inodes[i])
	}
	slices.SortFunc(sorted, func(a, b *inodeD) int {
		return cmp.Or(cmp.Compare(a.parent, b.parent), cmp.Compare(a.Name, b.Name))
	})
	l.Nodes = append(make([]Node, 0, len(sorted)), root.Node)
	inos := append(make([]int64, 0, len(sorted)), 1) // of Nodes
	for at, levelEnd, depth := 0, 1, 0; at < len(l.Nodes); at++ {
		if at == levelEnd {
			levelEnd = len(l.Nodes)
			if depth++; depth > maxDepth {
				return errs.E(errs.Invalid, "its directories are more than %d deep", maxDepth)
			}
		}
		first, _ := slices.BinarySearchFunc(sorted, inos[at], func(n *inodeD, ino int64) int { return cmp.Compare(n.parent, ino) })
		if l.Nodes[at].Mode&unix.S_IFMT == unix.S_IFDIR {
			l.Nodes[at].First = uint32(len(l.Nodes))
		}
		for _, n := range sorted[first:] {
			if n.parent != inos[at] {
				break
			}
			if err := n.finish(l, uint32(at)); err != nil {
				return errs.E(errs.Invalid, "file %d, %.40q: %w", n.ino, n.Name, err)
			}
			l.Nodes, inos = append(l.Nodes, n.Node), append(inos, n.ino)
			l.Nodes[at].Count++
		}
	}
	return nil
}

// finish checks a node that is about to be the next child of the directory at.
func (n *inodeD) finish(l *List, at uint32) error {
	dir := &l.Nodes[at]
	if dir.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.New("it is in a file that is no directory")
	}
	if err := checkName([]byte(n.Name)); err != nil {
		return err
	}
	if dir.Count > 0 && l.Nodes[len(l.Nodes)-1].Name == n.Name {
		return errors.New("there are two of that name")
	}
	n.Parent = at
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return n.setSize(uint64(n.size), chunk.Size, len(n.Chunks))
	case unix.S_IFLNK:
		return n.setTarget(n.Target)
	}
	return nil
}

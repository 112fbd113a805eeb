package squashfs

import (
	"context"
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// Walk calls fn for the root and then everything below it, a directory before what it holds, names in the order of the
// image, which is sorted. For a regular file f writes its contents; it is valid during the call only. Walk ends with the
// first error of fn.
func (im *Image) Walk(ctx context.Context, fn func(n Node, f *File) error) error {
	n, err := im.node(im.root)
	if err != nil {
		return err
	}
	if n.Mode&unix.S_IFMT != unix.S_IFDIR {
		return damaged("the root is not a directory")
	}
	if err := fn(n, nil); err != nil {
		return err
	}
	w := walker{im: im, fn: fn, seen: map[uint64]bool{n.Inode: true}}
	return w.walk(ctx, n, 0)
}

type walker struct {
	im   *Image
	fn   func(Node, *File) error
	seen map[uint64]bool // directories: one that appears twice would be a loop, or a bomb
}

func (w *walker) walk(ctx context.Context, dir Node, depth int) error {
	if depth > maxDepth {
		return damaged("directories are nested deeper than %d", maxDepth)
	}
	// The size counts "." and "..", which are not there, as 3 bytes.
	left := int64(dir.list.size) - 3
	if left <= 0 {
		return nil
	}
	c, err := w.im.cursorAt(w.im.dirs, uint64(dir.list.start), int(dir.list.offset))
	if err != nil {
		return err
	}
	for left > 0 {
		h, err := c.take(12)
		if err != nil {
			return err
		}
		count, start := binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
		if count > 255 {
			return damaged("directory header of %d entries", uint64(count)+1)
		}
		left -= 12
		for range count + 1 {
			if err := ctx.Err(); err != nil {
				return err
			}
			size, err := w.entry(ctx, &c, dir.Path, start, depth)
			if err != nil {
				return err
			}
			left -= size
		}
	}
	if left < 0 {
		return damaged("directory %q is longer than its size", dir.Path)
	}
	return nil
}

// entry visits the directory entry at c and says how long it was.
func (w *walker) entry(ctx context.Context, c *cursor, dir string, start uint32, depth int) (int64, error) {
	b, err := c.take(8)
	if err != nil {
		return 0, err
	}
	offset, size := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[6:]))+1
	if size > 256 {
		return 0, damaged("name of %d bytes in %q", size, dir)
	}
	raw, err := c.take(size)
	if err != nil {
		return 0, err
	}
	name := string(raw)
	if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return 0, damaged("name %q in %q", name, dir)
	}
	n, err := w.im.node(uint64(start)<<16 | uint64(offset))
	if err != nil {
		return 0, err
	}
	n.Path = name
	if dir != "" {
		n.Path = dir + "/" + name
	}
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = w.fn(n, &File{im: w.im, n: n})
	case unix.S_IFDIR:
		if w.seen[n.Inode] {
			return 0, damaged("directory %q is in two places", n.Path)
		}
		w.seen[n.Inode] = true
		if err = w.fn(n, nil); err == nil {
			err = w.walk(ctx, n, depth+1)
		}
	default:
		err = w.fn(n, nil)
	}
	return int64(8 + size), err
}

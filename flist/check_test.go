package flist

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
)

// check says what is wrong with a list that Open must not have returned.
func check(l *List) error {
	if len(l.Nodes) == 0 || len(l.Nodes) > maxNodes+1 || l.Nodes[0].Name != "" || l.Nodes[0].Parent != 0 {
		return fmt.Errorf("%d nodes, or no root", len(l.Nodes))
	}
	next := uint32(1)
	for i := range l.Nodes {
		n := &l.Nodes[i]
		if err := checkNode(n); err != nil {
			return fmt.Errorf("node %d, %q: %w", i, n.Name, err)
		}
		if n.Mode&unix.S_IFMT == unix.S_IFDIR {
			if n.First != next {
				return fmt.Errorf("node %d: its children begin at %d, not %d", i, n.First, next)
			}
			next += n.Count
		}
		if i == 0 {
			continue
		}
		if p := l.Nodes[n.Parent]; int(n.Parent) >= i || uint32(i) < p.First || uint32(i) >= p.First+p.Count {
			return fmt.Errorf("node %d is no child of its parent", i)
		}
		if before := l.Nodes[i-1]; i > 1 && before.Parent == n.Parent && before.Name >= n.Name {
			return fmt.Errorf("node %d, %q, comes after %q", i, n.Name, before.Name)
		}
		if strings.ContainsAny(n.Name, "/\x00") || n.Name == "" || n.Name == "." || n.Name == ".." || len(n.Name) > 255 {
			return fmt.Errorf("node %d is called %q", i, n.Name)
		}
	}
	if int(next) != len(l.Nodes) {
		return fmt.Errorf("%d of %d nodes are children", next-1, len(l.Nodes)-1)
	}
	return nil
}

func checkNode(n *Node) error {
	kind := n.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && (len(n.Chunks) > 0 || n.Missing()) || kind != unix.S_IFDIR && n.Count > 0 {
		return fmt.Errorf("mode %o with %d chunks, %d children", n.Mode, len(n.Chunks), n.Count)
	}
	switch kind {
	case unix.S_IFDIR, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFBLK, unix.S_IFCHR:
		if unix.Major(n.Rdev) > 0xfff || unix.Minor(n.Rdev) > 0xfffff {
			return fmt.Errorf("device %x", n.Rdev)
		}
	case unix.S_IFLNK:
		if n.Target == "" || len(n.Target) > 4095 || strings.Contains(n.Target, "\x00") || n.Size != int64(len(n.Target)) {
			return fmt.Errorf("links to %q", n.Target)
		}
	case unix.S_IFREG:
		return checkChunks(n)
	default:
		return fmt.Errorf("mode %o", n.Mode)
	}
	return nil
}

func checkChunks(n *Node) error {
	sum := int64(0)
	for i, c := range n.Chunks {
		if _, err := chunk.SchemeOf(c.ID); err != nil || len(c.Key) != len(c.ID) {
			return fmt.Errorf("chunk %x, %x", string(c.ID), c.Key)
		}
		size := n.ChunkLen(i)
		if size <= 0 || size > chunk.MaxSize || size != int(n.ChunkSize) && i != len(n.Chunks)-1 {
			return fmt.Errorf("chunk %d of %d bytes", i, size)
		}
		sum += int64(size)
	}
	if n.Size < 0 || sum != n.Size && !n.Missing() || n.Size == 0 && len(n.Chunks) > 0 {
		return fmt.Errorf("%d bytes in chunks of %d", sum, n.Size)
	}
	return nil
}

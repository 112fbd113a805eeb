package flist

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
)

// Find is the index of the file with that path, which may or may not begin with a slash. Links are not followed and ".."
// is no name.
func (l *List) Find(path string) (int, bool) {
	at := 0
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		i, ok := l.Child(at, name)
		if !ok {
			return 0, false
		}
		at = i
	}
	return at, true
}

// Child is the index of the file of that name in a directory.
func (l *List) Child(dir int, name string) (int, bool) {
	d := &l.Nodes[dir]
	if d.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, false
	}
	children := l.Nodes[d.First : d.First+d.Count]
	i, ok := slices.BinarySearchFunc(children, name, func(n Node, name string) int { return cmp.Compare(n.Name, name) })
	return int(d.First) + i, ok
}

// Path is the path of a file, without a slash at its start: "" for the root.
func (l *List) Path(i int) string {
	var names []string
	for ; i != 0; i = int(l.Nodes[i].Parent) {
		names = append(names, l.Nodes[i].Name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// Stats is what an flist has.
type Stats struct {
	Files, Dirs, Links, Specials int   // the root is one of Dirs
	Missing                      int   // of Files: those whose chunks the flist lacks
	Bytes                        int64 // of all files together
	Chunks                       int   // that differ
	ChunkBytes                   int64 // plain bytes in them
}

// Stats counts.
func (l *List) Stats() Stats {
	var s Stats
	seen := map[chunk.ID]struct{}{}
	for i := range l.Nodes {
		n := &l.Nodes[i]
		switch n.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			s.Dirs++
		case unix.S_IFLNK:
			s.Links++
		case unix.S_IFREG:
			s.Files++
			s.Bytes += min(n.Size, math.MaxInt64-s.Bytes)
			if n.Missing() {
				s.Missing++
			}
		default:
			s.Specials++
		}
		for j, ref := range n.Chunks {
			if _, ok := seen[ref.ID]; !ok {
				seen[ref.ID] = struct{}{}
				s.ChunkBytes += int64(n.ChunkLen(j))
			}
		}
	}
	s.Chunks = len(seen)
	return s
}

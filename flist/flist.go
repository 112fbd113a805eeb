// Package flist reads flists: root filesystems as metadata, whose contents are chunks in a store.
//
// Two generations are read, told apart by content and not by name:
//
//	era C (".flist", 0-flist and 0-fs)  a tar.gz with an SQLite file of Cap'n Proto records
//	era D (".fl", rfs 2)                an SQLite file
//
// Nothing in a file is believed: sizes, names, links between records and the bounds of lists are checked before they are
// used, and what is not a sane tree is refused whole.
package flist

import (
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
)

// What an flist may have at most. The greatest that is known has 30,370 files.
const (
	maxNodes = 2_000_000 // files of all kinds, as in a layer
	maxDepth = 1000      // directories in one another
	maxFile  = 1 << 40   // bytes of a file
)

// Era is a generation of the format.
type Era int

// The generations that are read and written.
const (
	EraC Era = iota + 1
	EraD
)

func (e Era) String() string {
	switch e {
	case EraC:
		return "C (.flist)"
	case EraD:
		return "D (.fl)"
	}
	return "unknown"
}

// Scheme is how the era encrypts chunks.
func (e Era) Scheme() chunk.Scheme {
	if e == EraD {
		return chunk.GCM
	}
	return chunk.XXTEA
}

// List is an flist in memory. It does not change.
type List struct {
	Era Era
	// Nodes is the tree: Nodes[0] is the root, the children of a directory follow one another, sorted by name, and come
	// after it.
	Nodes []Node
	Meta  Meta

	pending []pendingOwner // what ResolveOwners is to look up
}

// Node is a file, directory, link or special file.
type Node struct {
	Name     string // one component; "" for the root
	Mode     uint32 // as st_mode: type and permission bits
	UID, GID uint32
	Size     int64 // of a regular file, or the length of Target
	MTime    int64 // Unix seconds
	CTime    int64
	Rdev     uint64 // of a device, as unix.Mkdev makes it
	Target   string // of a symbolic link
	Parent   uint32 // index; the root is its own
	First    uint32 // of a directory: its children are Nodes[First:First+Count]
	Count    uint32
	// Chunks are the pieces of a regular file, in order: each has ChunkSize plain bytes, the last one what is left.
	Chunks    []chunk.Ref
	ChunkSize uint32
}

// Missing says that the flist has not the chunks of a file that is not empty: its packer was interrupted. Such a file is
// listed and cannot be read.
func (n *Node) Missing() bool {
	return n.Size > 0 && len(n.Chunks) == 0 && n.Mode&unix.S_IFMT == unix.S_IFREG
}

// ChunkLen is how many plain bytes the i-th chunk has.
func (n *Node) ChunkLen(i int) int {
	return int(min(int64(n.ChunkSize), n.Size-int64(i)*int64(n.ChunkSize)))
}

// Meta is what an flist says besides its tree. All of it may be empty.
type Meta struct {
	Backend string  // URL of the store its maker used
	Routes  []Route // where chunks are, by the start of their names
	Config  *Config // nil: the flist does not say what to run
	Texts   map[string]string
}

// Route sends chunks whose names start with From…To (inclusive, hexadecimal, of equal length) to a store. Pools are tried in
// order; within a pool, all routes that fit.
type Route struct {
	Pool     int
	From, To string
	URL      string
	Cache    bool // chunks that were found elsewhere are put there
}

// Config is what an flist says about running it.
type Config struct {
	Env        []string          `json:"env,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	User       string            `json:"user,omitempty"`
	StopSignal string            `json:"stopSignal,omitempty"`
	Volumes    []string          `json:"volumes,omitempty"`
	Ports      []string          `json:"ports,omitempty"` // "80/tcp"
	Labels     map[string]string `json:"labels,omitempty"`
}

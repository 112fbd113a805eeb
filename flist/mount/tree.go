package mount

import (
	"math"
	"sort"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
)

// tree answers everything but READ, from memory. A node's id is its index in the list and one more, so the root is 1.
type tree struct {
	fuse.RawFileSystem // answers ENOSYS, and the kernel then does not ask again
	m                  *Mount
	nodes              []flist.Node
	mask               uint32 // of the mode bits that are shown
}

func newTree(m *Mount) *tree {
	t := &tree{RawFileSystem: fuse.NewDefaultRawFileSystem(), m: m, nodes: m.cfg.List.Nodes, mask: math.MaxUint32}
	if m.cfg.DropSuid {
		t.mask &^= unix.S_ISUID | unix.S_ISGID
	}
	return t
}

func (t *tree) String() string { return "buoy" }

// forever is how long the kernel may believe what it was told. Lists do not change.
const forever = 10 * 365 * 24 * 3600

const blockSize = 4096

func (t *tree) node(id uint64) *flist.Node {
	if id == 0 || id > uint64(len(t.nodes)) {
		return nil
	}
	return &t.nodes[id-1]
}

func (t *tree) attr(id uint64, a *fuse.Attr) {
	n := &t.nodes[id-1]
	mode := n.Mode
	if mode&unix.S_IFMT != unix.S_IFDIR { // of a directory, set-gid is for what is made in it
		mode &= t.mask
	}
	*a = fuse.Attr{
		Ino: id, Size: uint64(n.Size), Blocks: uint64(n.Size+511) / 512, Mode: mode, Nlink: 1, Rdev: newRdev(n.Rdev), Blksize: blockSize,
		Mtime: uint64(n.MTime), Ctime: uint64(n.CTime), Atime: uint64(n.MTime),
	}
	a.Uid, a.Gid = n.UID, n.GID
	if mode&unix.S_IFMT == unix.S_IFDIR {
		a.Size, a.Blocks = blockSize, blockSize/512
	}
}

// newRdev is a device number as FUSE carries it, in 32 bits.
func newRdev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

func (t *tree) entry(id uint64, out *fuse.EntryOut) {
	out.NodeId, out.Generation = id, 1
	out.EntryValid, out.AttrValid = forever, forever
	t.attr(id, &out.Attr)
}

// child is the index of a name in a directory.
func (t *tree) child(dir *flist.Node, name string) (uint32, bool) {
	kids := t.nodes[dir.First : dir.First+dir.Count]
	i, ok := sort.Find(len(kids), func(i int) int { return strings.Compare(name, kids[i].Name) })
	return dir.First + uint32(i), ok
}

func (t *tree) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := t.node(in.NodeId)
	if dir == nil {
		return fuse.ENOENT
	}
	if i, ok := t.child(dir, name); ok {
		t.entry(uint64(i)+1, out)
	} else {
		out.EntryValid = forever // node 0: there is none, and never will be
	}
	return fuse.OK
}

func (t *tree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if t.node(in.NodeId) == nil {
		return fuse.ENOENT
	}
	out.AttrValid = forever
	t.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (t *tree) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n := t.node(in.NodeId)
	if n == nil || n.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	return []byte(n.Target), fuse.OK
}

// dirEntry is the i-th entry of a directory, "." and ".." first, and the id of its node. Its offset names the next one.
func (t *tree) dirEntry(id uint64, i uint64) (e fuse.DirEntry, child uint64, ok bool) {
	dir := &t.nodes[id-1]
	switch {
	case i == 0:
		return fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: id, Off: 1}, 0, true
	case i == 1:
		return fuse.DirEntry{Name: "..", Mode: unix.S_IFDIR, Ino: uint64(dir.Parent) + 1, Off: 2}, 0, true
	case i-2 >= uint64(dir.Count):
		return e, 0, false
	}
	child = uint64(dir.First) + i - 2 + 1
	n := &t.nodes[child-1]
	return fuse.DirEntry{Name: n.Name, Mode: n.Mode, Ino: child, Off: i + 1}, child, true
}

func (t *tree) isDir(id uint64) bool {
	n := t.node(id)
	return n != nil && n.Mode&unix.S_IFMT == unix.S_IFDIR
}

func (t *tree) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !t.isDir(in.NodeId) {
		return fuse.ENOTDIR
	}
	for i := in.Offset; ; i++ {
		if e, _, ok := t.dirEntry(in.NodeId, i); !ok || !out.AddDirEntry(e) {
			return fuse.OK
		}
	}
}

func (t *tree) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !t.isDir(in.NodeId) {
		return fuse.ENOTDIR
	}
	for i := in.Offset; ; i++ {
		e, child, ok := t.dirEntry(in.NodeId, i)
		if !ok {
			return fuse.OK
		}
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return fuse.OK
		}
		if child != 0 {
			t.entry(child, entry)
		}
	}
}

// StatFs is what "df" shows: full, as a read-only file system is.
func (t *tree) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var bytes int64
	for i := range t.nodes {
		if t.nodes[i].Mode&unix.S_IFMT == unix.S_IFREG {
			bytes += t.nodes[i].Size
		}
	}
	*out = fuse.StatfsOut{
		Blocks: uint64(bytes+blockSize-1) / blockSize, Files: uint64(len(t.nodes)), Bsize: blockSize, Frsize: blockSize, NameLen: unix.NAME_MAX,
	}
	return fuse.OK
}

func (t *tree) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := t.node(in.NodeId)
	if n == nil || n.Mode&unix.S_IFMT != unix.S_IFREG {
		return fuse.EINVAL
	}
	return t.m.openFile(in, out)
}

func (t *tree) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { t.m.open.remove(in.Fh, t.m.unregister) }

func (t *tree) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

func (t *tree) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

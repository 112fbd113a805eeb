package pack

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
)

// Records of era C, in the order of their parts that zflist gives them: equal input, equal bytes, so that a test can hold
// ours against genuine ones.
const (
	inodeData, inodePointers = 3, 3
	dirData, dirPointers     = 2, 5
	aciData, aciPointers     = 3, 3

	kindDir, kindFile, kindLink, kindSpecial = 0, 1, 2, 3 // of the union in an inode

	blockUnit = 4096 // of the chunk size in a file
	dirSize   = 4096 // what zflist says of every directory

	specialSocket, specialBlock, specialChar, specialFifo = 0, 1, 2, 3
)

// encoder makes the records of one list.
type encoder struct {
	l *flist.List
	// user and group name an owner. The names count for readers from before 2020 only; since then there are numbers.
	user, group func(id uint32) string
	acis        map[string][]byte // by key
}

// idName is the owner's name, which must not depend on the machine that packs: what zflist takes for an owner that its
// machine does not know.
func idName(id uint32) string {
	if id == 0 {
		return "root"
	}
	return strconv.FormatUint(uint64(id), 10)
}

// digest is the key of a record: BLAKE2b of n bytes, in hexadecimal.
func digest(n int, s string) string {
	h, err := blake2b.New(n, nil)
	if err != nil {
		panic("BUG: no such BLAKE2b: " + err.Error())
	}
	h.Write([]byte(s))
	return hex.EncodeToString(h.Sum(nil))
}

// dirKey is the key of the directory with that path: no slash at either end, "" for the root.
func dirKey(path string) string { return digest(16, path) }

// seconds is a time as era C can say it.
func seconds(t int64) uint32 { return uint32(min(max(t, 0), math.MaxUint32)) }

// aci is the key of the record of a node's owner and permissions, which it makes if it is not there.
func (e *encoder) aci(n *flist.Node) (string, error) {
	mode, user, group := n.Mode&0o7777, e.user(n.UID), e.group(n.GID)
	key := digest(8, fmt.Sprintf("user:%s\ngroup:%s\nmode:0o%o\nuid:%d\ngid:%d", user, group, mode, n.UID, n.GID))
	if _, ok := e.acis[key]; ok {
		return key, nil
	}
	m := newMessage()
	at := m.alloc(aciData + aciPointers)
	m.pointStruct(0, at, aciData, aciPointers)
	m.set16(at, uint16(mode))
	m.set64(at+1, ^uint64(n.UID)) // their default is -1, and what is stored is the difference from it
	m.set64(at+2, ^uint64(n.GID))
	m.pointBlob(at+3, m.text(user))
	m.pointBlob(at+4, m.text(group))
	record, err := m.stream()
	e.acis[key] = record
	return key, err
}

// rootNode is what every root is in this era.
func rootNode() flist.Node { return flist.Node{Mode: unix.S_IFDIR | 0o755} }

// dir is the record of directory i, which has that path.
func (e *encoder) dir(i int, path string) ([]byte, error) {
	n, parent := e.l.Nodes[i], ""
	if i == 0 {
		n.Mode, n.UID, n.GID, n.MTime, n.CTime = rootNode().Mode, 0, 0, 0, 0
	} else {
		parent = parentPath(path)
	}
	m := newMessage()
	count := int(n.Count)
	first := m.structs(count, inodeData, inodePointers)
	at := first
	for _, dirs := range []bool{true, false} { // zflist puts directories first
		for k := range count {
			kid := &e.l.Nodes[int(n.First)+k]
			if (kid.Mode&unix.S_IFMT == unix.S_IFDIR) != dirs {
				continue
			}
			if err := e.inode(m, at, kid, join(path, kid.Name)); err != nil {
				return nil, err
			}
			at += inodeData + inodePointers
		}
	}
	at = m.alloc(dirData + dirPointers)
	m.pointStruct(0, at, dirData, dirPointers)
	m.set64(at, dirSize)
	m.set32(at+1, 0, seconds(n.MTime))
	m.set32(at+1, 1, seconds(n.CTime))
	p := at + dirData
	key, err := e.aci(&n)
	if err != nil {
		return nil, err
	}
	m.pointBlob(p, m.text(n.Name))
	m.pointBlob(p+1, m.text(path))
	m.pointStructs(p+2, first, count, inodeData+inodePointers)
	m.pointBlob(p+3, m.text(dirKey(parent)))
	m.pointBlob(p+4, m.text(key))
	return m.stream()
}

// inode fills in the struct at word at.
func (e *encoder) inode(m *message, at int, n *flist.Node, path string) error {
	p, kind, size := at+inodeData, kindSpecial, int64(0)
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		kind, size = kindDir, dirSize
		sub := m.alloc(1)
		m.pointBlob(sub, m.text(dirKey(path)))
		m.pointStruct(p+1, sub, 0, 1)
	case unix.S_IFREG:
		kind, size = kindFile, n.Size
		e.file(m, p+1, n)
	case unix.S_IFLNK:
		kind, size = kindLink, int64(len(n.Target))
		link := m.alloc(1)
		m.pointBlob(link, m.text(n.Target))
		m.pointStruct(p+1, link, 0, 1)
	default:
		what, says := special(n)
		b := m.data(says)
		s := m.alloc(2)
		m.set16(s, what)
		m.pointBlob(s+1, b)
		m.pointStruct(p+1, s, 1, 1)
	}
	m.set64(at, uint64(size))
	m.set16(at+1, uint16(kind))
	m.set32(at+1, 1, seconds(n.MTime))
	m.set32(at+2, 0, seconds(n.CTime))
	key, err := e.aci(n)
	if err != nil {
		return err
	}
	m.pointBlob(p, m.text(n.Name))
	m.pointBlob(p+2, m.text(key))
	return nil
}

// file puts the chunks of a file at the end, and the pointer to it at word from.
func (e *encoder) file(m *message, from int, n *flist.Node) {
	first := 0
	if len(n.Chunks) > 0 {
		first = m.structs(len(n.Chunks), 0, 2)
		for i, ref := range n.Chunks {
			m.pointBlob(first+2*i, m.data(string(ref.ID)))
			m.pointBlob(first+2*i+1, m.data(ref.Key))
		}
	}
	at := m.alloc(2)
	m.pointStruct(from, at, 1, 1)
	m.set16(at, uint16(n.ChunkSize/blockUnit))
	if first > 0 {
		m.pointStructs(at+1, first, len(n.Chunks), 2)
	}
}

// special is how a device, socket or pipe is written. zflist says 0 of all of them, so that readers have to look at the
// text; we say what the schema has for each, as block devices could not be told from character devices otherwise.
func special(n *flist.Node) (what uint16, says string) {
	device := fmt.Sprintf("%d,%d", unix.Major(n.Rdev), unix.Minor(n.Rdev))
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return specialBlock, device
	case unix.S_IFCHR:
		return specialChar, device
	case unix.S_IFIFO:
		return specialFifo, "(nothing)"
	}
	return specialSocket, "(nothing)"
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func parentPath(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return ""
}

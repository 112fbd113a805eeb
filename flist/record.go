package flist

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// dirKey is the name of a directory's record.
type dirKey [16]byte

func parseDirKey(b []byte) (k dirKey, ok bool) {
	n, err := hex.Decode(k[:], b[:min(len(b), 32)])
	return k, err == nil && n == len(k) && len(b) == 32
}

// directory is the record of a directory in era C. What can only be known once all records are read waits in fields of
// its nodes: UID is the number of a permission record, and First, of a directory, an index of subs.
type directory struct {
	key   dirKey
	nodes []Node
	subs  []dirKey
	acl   uint32
	mtime int64
	ctime int64
	used  bool
	err   error
}

// recordReader reads directories' records. Several of them work side by side.
type recordReader struct {
	acls  *names
	nodes *atomic.Int64 // of all records, also of those that nobody asks for
	arena arena
}

// names numbers strings, so that nodes need not keep them. It may be used at once.
type names struct {
	mu   sync.Mutex // guards ids, list
	ids  map[string]uint32
	list []string
}

func (n *names) id(b []byte) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, ok := n.ids[string(b)]
	if !ok {
		id = uint32(len(n.list))
		n.list = append(n.list, string(b))
		n.ids[n.list[id]] = id
	}
	return id
}

// arena keeps short strings and lists together: an flist has hundreds of thousands of them.
type arena struct {
	text strings.Builder
	refs []chunk.Ref
}

const arenaSize = 64 << 10

func (a *arena) string(b []byte) string {
	if len(b) > a.text.Cap()-a.text.Len() {
		a.text = strings.Builder{} // the strings made so far keep the old one's bytes
		a.text.Grow(max(arenaSize, len(b)))
	}
	at := a.text.Len()
	a.text.Write(b)
	return a.text.String()[at:]
}

func (a *arena) chunks(n int) []chunk.Ref {
	if n > cap(a.refs)-len(a.refs) {
		a.refs = make([]chunk.Ref, 0, max(arenaSize/64, n))
	}
	at := len(a.refs)
	a.refs = a.refs[:at+n]
	return a.refs[at : at+n : at+n]
}

// read reads a record and sorts what it lists. What is wrong with it is kept in it: nobody may ever ask for it.
func (r *recordReader) read(key dirKey, b []byte) *directory {
	d := &directory{key: key}
	if d.err = r.directory(d, b); d.err != nil {
		d.err = fmt.Errorf("record %x: %w", key, d.err)
		d.nodes, d.subs = nil, nil
	}
	return d
}

func (r *recordReader) directory(d *directory, b []byte) error {
	root, err := readMessage(b)
	if err != nil {
		return err
	}
	acl, err := root.text(4)
	if err != nil {
		return err
	}
	d.acl, d.mtime, d.ctime = r.acls.id(acl), int64(root.uint32(8)), int64(root.uint32(12))
	list, err := root.list(2)
	if err != nil {
		return err
	}
	if r.nodes.Add(int64(list.len)) > maxNodes {
		return fmt.Errorf("with it there are more than %d files", maxNodes)
	}
	d.nodes = make([]Node, 0, min(list.len, 1024)) // more when there are so many indeed
	for i := range list.len {
		in, err := list.get(i)
		if err == nil {
			d.nodes = append(d.nodes, Node{})
			err = r.inode(d, &d.nodes[i], in)
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return sortNames(d.nodes)
}

// sortNames sorts siblings and refuses two of the same name.
func sortNames(nodes []Node) error {
	byName := func(a, b Node) int { return cmp.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(nodes, byName) {
		slices.SortFunc(nodes, byName)
	}
	for i := 1; i < len(nodes); i++ {
		if nodes[i].Name == nodes[i-1].Name {
			return fmt.Errorf("there are two of the name %q", nodes[i].Name)
		}
	}
	return nil
}

// The kinds of an inode in era C.
const (
	kindDir = iota
	kindFile
	kindLink
	kindSpecial
)

func (r *recordReader) inode(d *directory, n *Node, in structure) error {
	name, err := in.text(0)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	acl, err := in.text(2)
	if err != nil {
		return err
	}
	of, err := in.child(1)
	if err != nil {
		return err
	}
	n.Name, n.UID = r.arena.string(name), r.acls.id(acl)
	n.MTime, n.CTime = int64(in.uint32(12)), int64(in.uint32(16))
	switch kind := in.uint16(8); kind {
	case kindDir:
		err = d.subdirectory(n, of)
	case kindFile:
		err = r.file(n, of, in.uint64(0))
	case kindLink:
		err = r.link(n, of)
	case kindSpecial:
		err = special(n, of)
	default:
		err = fmt.Errorf("its kind %d is unknown", kind)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", n.Name, err)
	}
	return nil
}

func (d *directory) subdirectory(n *Node, of structure) error {
	text, err := of.text(0)
	if err != nil {
		return err
	}
	key, ok := parseDirKey(text)
	if !ok {
		return fmt.Errorf("%.40q is no name of a directory's record", text)
	}
	n.Mode, n.First = unix.S_IFDIR, uint32(len(d.subs))
	d.subs = append(d.subs, key)
	return nil
}

func (r *recordReader) file(n *Node, of structure, size uint64) error {
	blocks, err := of.list(0)
	if err != nil {
		return err
	}
	chunkSize := 4096 * int64(of.uint16(0))
	if blocks.len == 0 {
		chunkSize = chunk.Size // of no chunk
	}
	n.Mode = unix.S_IFREG
	if err := n.setSize(size, chunkSize, blocks.len); err != nil || blocks.len == 0 {
		return err
	}
	n.Chunks = r.arena.chunks(blocks.len)
	for i := range n.Chunks {
		b, err := blocks.get(i)
		if err != nil {
			return err
		}
		id, err := b.bytes(0)
		if err != nil {
			return err
		}
		key, err := b.bytes(1)
		if err != nil {
			return err
		}
		if len(id) != 16 || len(key) != 16 {
			return fmt.Errorf("chunk %d has a name of %d bytes and a key of %d", i, len(id), len(key))
		}
		n.Chunks[i] = chunk.Ref{ID: chunk.ID(r.arena.string(id)), Key: r.arena.string(key)}
	}
	return nil
}

func (r *recordReader) link(n *Node, of structure) error {
	target, err := of.text(0)
	if err != nil {
		return err
	}
	n.Mode = unix.S_IFLNK
	return n.setTarget(r.arena.string(target))
}

// setSize sets the size of a file and of its chunks, and checks that it takes that many of them; or none: see Missing.
func (n *Node) setSize(size uint64, chunkSize int64, chunks int) error {
	if size > maxFile {
		return fmt.Errorf("it claims to be %d bytes long", size)
	}
	if chunkSize <= 0 || chunkSize > chunk.MaxSize {
		return fmt.Errorf("its chunks claim to be %d bytes long", chunkSize)
	}
	n.Size, n.ChunkSize = int64(size), uint32(chunkSize)
	if want := (n.Size + chunkSize - 1) / chunkSize; int64(chunks) != want && chunks != 0 {
		return fmt.Errorf("%d chunks of %d bytes are not its %d bytes", chunks, chunkSize, size)
	}
	return nil
}

func (n *Node) setTarget(target string) error {
	if target == "" || len(target) >= unix.PathMax || strings.Contains(target, "\x00") {
		return fmt.Errorf("it is a link to %.40q", target)
	}
	n.Target, n.Size = target, int64(len(target))
	return nil
}

// checkName refuses what is not one component of a path.
func checkName(name []byte) error {
	if s := string(name); s == "" || s == "." || s == ".." || len(s) > unix.NAME_MAX || bytes.ContainsAny(name, "/\x00") {
		return errs.E(errs.Invalid, "%.40q is no name of a file", s)
	}
	return nil
}

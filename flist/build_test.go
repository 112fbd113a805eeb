package flist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// What makes flists for tests, good ones and others. It shares nothing with the readers.

// layout is how a message is cut into segments.
type layout struct {
	segment int  // bytes after which a new segment begins; 0: one segment
	double  bool // pointers between segments are doubly far
}

// layouts are those that every record must read the same in; the second is that of the genuine packer.
var layouts = map[string]layout{
	"one segment": {}, "4 KiB": {segment: 4096}, "each object": {segment: 1}, "each object, double": {segment: 1, double: true},
}

type place struct{ seg, off int }

type builder struct {
	layout
	segs [][]byte
}

func (b *builder) alloc(words int) place {
	last := len(b.segs) - 1
	if last < 0 || b.segment > 0 && len(b.segs[last])+8*words > b.segment {
		b.segs, last = append(b.segs, nil), last+1
	}
	p := place{last, len(b.segs[last])}
	b.segs[last] = append(b.segs[last], make([]byte, 8*words)...)
	return p
}

func (b *builder) put(p place, w uint64) { binary.LittleEndian.PutUint64(b.segs[p.seg][p.off:], w) }

// point writes a pointer at p; w says to what, without the offset.
func (b *builder) point(p place, w uint64, to place) {
	if p.seg == to.seg {
		b.put(p, w|uint64(uint32((to.off-p.off-8)/8<<2)))
		return
	}
	far := func(p place) uint64 { return 2 | uint64(p.off/8)<<3 | uint64(p.seg)<<32 }
	if b.double {
		pad := b.alloc(2)
		b.put(pad, far(to))
		b.put(place{pad.seg, pad.off + 8}, w)
		b.put(p, far(pad)|4)
		return
	}
	pad := place{to.seg, len(b.segs[to.seg])}
	b.segs[to.seg] = append(b.segs[to.seg], make([]byte, 8)...)
	b.point(pad, w, to)
	b.put(p, far(pad))
}

func (b *builder) structure(p place, data, pointers int) place {
	to := b.alloc(data + pointers)
	b.point(p, uint64(data)<<32|uint64(pointers)<<48, to)
	return to
}

func (b *builder) bytes(p place, s string) {
	if s == "" {
		return
	}
	to := b.alloc((len(s) + 7) / 8)
	copy(b.segs[to.seg][to.off:], s)
	b.point(p, 1|2<<32|uint64(len(s))<<35, to)
}

func (b *builder) text(p place, s string) { b.bytes(p, s+"\x00") }

// list is the first of n structs in a list.
func (b *builder) list(p place, n, data, pointers int) place {
	to := b.alloc(1 + n*(data+pointers))
	b.put(to, uint64(n)<<2|uint64(data)<<32|uint64(pointers)<<48)
	b.point(p, 1|7<<32|uint64(n*(data+pointers))<<35, to)
	return to.add(1)
}

func (p place) add(words int) place { return place{p.seg, p.off + 8*words} }

func (b *builder) message() []byte {
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(b.segs)-1))
	for _, s := range b.segs {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(s)/8))
	}
	out = append(out, make([]byte, len(out)%8)...)
	return append(out, bytes.Join(b.segs, nil)...)
}

// file is an entry of a directory of era C. What is empty is that of a directory "d/NAME" with permissions "a".
type file struct {
	name    string
	acl     string // "-": none
	kind    int
	size    uint64
	mtime   uint32
	sub     string // key of a directory
	unit    uint16 // of 4096 bytes; 0 is written as is
	chunks  []string
	link    string
	special uint16
	data    string
}

func dirRecord(lay layout, files ...file) []byte {
	b := &builder{layout: lay}
	root := b.structure(b.alloc(1), 2, 5)
	b.put(root, 4096)
	b.put(root.add(1), 1_700_000_001|1_700_000_002<<32)
	b.text(root.add(6), "a")
	if len(files) == 0 {
		return b.message()
	}
	first := b.list(root.add(4), len(files), 3, 3)
	for i, f := range files {
		at := first.add(6 * i)
		b.put(at, f.size)
		b.put(at.add(1), uint64(f.kind)|uint64(f.mtime)<<32)
		b.text(at.add(3), f.name)
		if acl := f.acl; acl != "-" {
			b.text(at.add(5), "a"+acl)
		}
		switch f.kind {
		case kindDir:
			b.text(b.structure(at.add(4), 0, 1), f.sub)
		case kindFile:
			b.file(at.add(4), f)
		case kindLink:
			b.text(b.structure(at.add(4), 0, 1), f.link)
		case kindSpecial:
			s := b.structure(at.add(4), 1, 1)
			b.put(s, uint64(f.special))
			b.bytes(s.add(1), f.data)
		}
	}
	return b.message()
}

func (b *builder) file(p place, f file) {
	s := b.structure(p, 1, 1)
	b.put(s, uint64(f.unit))
	if len(f.chunks) == 0 {
		return
	}
	first := b.list(s.add(1), len(f.chunks), 0, 2)
	for i, c := range f.chunks {
		b.bytes(first.add(2*i), c)
		b.bytes(first.add(2*i+1), strings.ToUpper(c))
	}
}

// aclRecord is a permission record; those from before 2020-07-30 have no numbers.
func aclRecord(user, group string, mode uint16, ids ...int64) []byte {
	b := &builder{}
	data := 1
	if ids != nil {
		data = 3
	}
	s := b.structure(b.alloc(1), data, 3)
	b.put(s, uint64(mode))
	for i, id := range ids {
		b.put(s.add(1+i), ^uint64(id))
	}
	b.text(s.add(data), user)
	b.text(s.add(data+1), group)
	return b.message()
}

// keyC is the name of a directory's record.
func keyC(p string) string {
	h, _ := blake2b.New(16, nil)
	h.Write([]byte(p))
	return hex.EncodeToString(h.Sum(nil))
}

// entriesC are records of era C with permissions "a", for tests to change.
func entriesC(dirs map[string][]file) map[string][]byte {
	e := map[string][]byte{"a": aclRecord("root", "root", 0o755, 0, 0)}
	for p, files := range dirs {
		files = slices.Clone(files)
		for i := range files {
			if f := &files[i]; f.kind == kindDir && f.sub == "" {
				f.sub = keyC(path.Join(p, f.name))
			}
		}
		e[keyC(p)] = dirRecord(layout{segment: 4096}, files...)
	}
	return e
}

// database makes an SQLite file.
func makeDB(t testing.TB, do func(x *sql.Tx)) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "db")
	db, err := sql.Open("sqlite", name)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	do(tx)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func must(t testing.TB, x *sql.Tx, query string, args ...any) {
	t.Helper()
	if _, err := x.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// dbC is a database of era C, changed by the statements.
func dbC(t testing.TB, entries map[string][]byte, statements ...string) []byte {
	t.Helper()
	return makeDB(t, func(x *sql.Tx) {
		must(t, x, "CREATE TABLE entries (key VARCHAR(64) PRIMARY KEY, value BLOB)")
		must(t, x, "CREATE TABLE metadata (key VARCHAR(64) PRIMARY KEY, value TEXT)")
		for k, v := range entries {
			must(t, x, "INSERT INTO entries VALUES (?, ?)", k, v)
		}
		for _, s := range statements {
			must(t, x, s)
		}
	})
}

// schemaD is what rfs makes.
const schemaD = `
CREATE TABLE inode (ino INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER, name VARCHAR(255), size INTEGER, uid INTEGER, gid INTEGER,
	mode INTEGER, rdev INTEGER, ctime INTEGER, mtime INTEGER);
CREATE INDEX parents ON inode (parent);
CREATE INDEX names ON inode (name);
CREATE TABLE extra (ino INTEGER PRIMARY KEY, data VARCHAR(4096));
CREATE TABLE block (ino INTEGER, id VARCHAR(32), key VARCHAR(32));
CREATE INDEX block_ino ON block (ino);
CREATE TABLE tag (key VARCHAR(10) PRIMARY KEY, value VARCHAR(255));
CREATE TABLE route (start integer, end integer, url VARCHAR(2048));
INSERT INTO inode VALUES (1, 0, '/', 4096, 0, 0, 16877, 0, 5, 6);`

func dbD(t testing.TB, statements ...string) []byte {
	t.Helper()
	return makeDB(t, func(x *sql.Tx) {
		must(t, x, schemaD)
		for _, s := range statements {
			must(t, x, s)
		}
	})
}

// member of an archive.
type member struct {
	name string
	body []byte
}

func archiveC(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.body)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// write is a file with that content.
func write(t testing.TB, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// dump is a list as text, a line a node.
func dump(l *List) string {
	var b strings.Builder
	for i := range l.Nodes {
		n := &l.Nodes[i]
		fmt.Fprintf(&b, "/%s %o %d:%d %d %d/%d %x %q %d@%d+%d %d×%d", l.Path(i), n.Mode, n.UID, n.GID, n.Size, n.MTime, n.CTime, n.Rdev, n.Target,
			n.Parent, n.First, n.Count, len(n.Chunks), n.ChunkSize)
		for _, c := range n.Chunks {
			fmt.Fprintf(&b, " %x:%x", string(c.ID), c.Key)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

package flist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// one is a tree whose root has one file.
func one(f file) map[string][]byte { return entriesC(map[string][]file{"": {f}}) }

// with puts a record into entries.
func with(e map[string][]byte, key string, b []byte) map[string][]byte {
	e[key] = b
	return e
}

// TestHostile: what is no sane tree is refused whole, with a sentence that says why.
func TestHostile(t *testing.T) {
	root := keyC("")
	regular := file{name: "f", kind: kindFile, size: 1, unit: 128, chunks: []string{id(16, "x")}}
	change := func(do func(*file)) map[string][]byte {
		f := regular
		do(&f)
		return one(f)
	}
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"nothing":    {nil, "neither"},
		"text":       {[]byte("hello\n"), "neither"},
		"era A":      {[]byte("/etc/a|d41d8cd98f00b204e9800998ecf8427e|0|root|root|0644|2|1|1|\n"), "era A"},
		"era B":      {archiveC(t, member{"./CURRENT", nil}, member{"./MANIFEST-000001", nil}, member{"./000003.sst", nil}), "era B"},
		"no gzip":    {[]byte{0x1f, 0x8b, 9, 9}, "gzip"},
		"no tar":     {zip(t, []byte("hello")), "archive is broken"},
		"no members": {archiveC(t, member{"x", nil}), "no flistdb"},
		"twice":      {archiveC(t, member{"flistdb.sqlite3", []byte("x")}, member{"./flistdb.sqlite3", []byte("y")}), "twice"},
		"no SQLite":  {archiveC(t, member{"flistdb.sqlite3", []byte("hello")}), "no SQLite"},
		"header":     {append([]byte("SQLite format 3\x00"), make([]byte, 200)...), "end is missing"},
		"D in a tar": {archiveC(t, member{"flistdb.sqlite3", dbD(t)}), "not that of an flist"},
		"no tables":  {dbD(t, "DROP TABLE inode"), "not that of an flist"},
		"no block":   {dbD(t, "DROP TABLE block"), "no table block"},
		"view":       {dbC(t, one(regular), "ALTER TABLE entries RENAME TO e", "CREATE VIEW entries AS SELECT * FROM e"), "has a view"},
		"trigger":    {dbC(t, one(regular), "CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END"), "has a trigger"},
		"virtual":    {dbC(t, one(regular), "CREATE VIRTUAL TABLE t USING fts5(x)"), "has a table"},
		"computed":   {dbC(t, one(regular), "ALTER TABLE entries RENAME TO e", "CREATE TABLE entries (key, v, value AS (v || key))"), "not plain"},
		"rowid":      {dbD(t, "DROP TABLE block", "CREATE TABLE block (ino, id, key, rowid)"), "not plain"},
		"no rowid":   {dbD(t, "DROP TABLE extra", "CREATE TABLE extra (ino INTEGER PRIMARY KEY, data) WITHOUT ROWID"), "flists have not"},
		"no root":    {dbC(t, map[string][]byte{"x": nil}), "is missing"},
		"no record":  {dbC(t, with(one(regular), root, []byte("hello, hello"))), "do not fit"},
		"empty":      {dbC(t, with(one(regular), root, nil)), "leads out"},
		"lost dir":   {dbC(t, one(file{name: "d"})), "is missing"},
		"cycle":      {dbC(t, one(file{name: "d", sub: root})), "another directory too"},
		"cycle of two": {
			dbC(t, entriesC(map[string][]file{"": {{name: "a"}}, "a": {{name: "b"}}, "a/b": {{name: "c", sub: keyC("a")}}})),
			"another directory too",
		},
		"shared":        {dbC(t, entriesC(map[string][]file{"": {{name: "a"}, {name: "b", sub: keyC("a")}}, "a": {}})), "another directory too"},
		"too deep":      {dbC(t, entriesC(deep(1001))), "deep"},
		"same name":     {dbC(t, entriesC(map[string][]file{"": {regular, regular}})), "two of the name"},
		"slash":         {dbC(t, change(func(f *file) { f.name = "a/b" })), "no name"},
		"NUL":           {dbC(t, change(func(f *file) { f.name = "a\x00b" })), "no name"},
		"dot":           {dbC(t, change(func(f *file) { f.name = "." })), "no name"},
		"up":            {dbC(t, change(func(f *file) { f.name = ".." })), "no name"},
		"no name":       {dbC(t, change(func(f *file) { f.name = "" })), "no name"},
		"long":          {dbC(t, change(func(f *file) { f.name = strings.Repeat("x", 256) })), "no name"},
		"kind":          {dbC(t, change(func(f *file) { f.kind = 4 })), "unknown"},
		"size":          {dbC(t, change(func(f *file) { f.size = 128*4096 + 1 })), "chunks of"},
		"no size":       {dbC(t, change(func(f *file) { f.size = 0 })), "chunks of"},
		"vast":          {dbC(t, change(func(f *file) { f.size, f.chunks = 1<<63, nil })), "claims"},
		"no chunk size": {dbC(t, change(func(f *file) { f.unit = 0 })), "claim"},
		"vast chunks":   {dbC(t, change(func(f *file) { f.unit = 65535 })), "claim"},
		"chunk's name":  {dbC(t, change(func(f *file) { f.chunks = []string{id(32, "x")} })), "name of 32 bytes"},
		"sub":           {dbC(t, one(file{name: "d", sub: "../../etc/passwd"})), "no name of a directory"},
		"no target":     {dbC(t, one(file{name: "l", kind: kindLink})), "link to"},
		"NUL target":    {dbC(t, one(file{name: "l", kind: kindLink, link: "a\x00b"})), "link to"},
		"long target":   {dbC(t, one(file{name: "l", kind: kindLink, link: strings.Repeat("x", 4096)})), "link to"},
		"device":        {dbC(t, one(file{name: "c", kind: kindSpecial, special: typeChar, data: "4096,0"})), "no device"},
		"no device":     {dbC(t, one(file{name: "c", kind: kindSpecial, special: typeChar, data: "(nothing)"})), "without numbers"},
		"special":       {dbC(t, one(file{name: "c", kind: kindSpecial, special: 5})), "unknown"},
		"owner":         {dbC(t, with(one(regular), "a", aclRecord("x", "x", 0o644, 1<<32-1, 0))), "no user"},
		"owner -2":      {dbC(t, with(one(regular), "a", aclRecord("x", "x", 0o644, 0, -2))), "no user"},
		"permissions":   {dbC(t, with(one(regular), "a", []byte("hello"))), "permissions"},
		"entrypoint":    {dbC(t, one(regular), `INSERT INTO metadata VALUES ('entrypoint', '"sh"')`), "metadata entrypoint"},
		"config":        {dbC(t, one(regular), `INSERT INTO metadata VALUES ('buoy.config', '[]')`), "configuration"},
		"config's NUL":  {dbC(t, one(regular), `INSERT INTO metadata VALUES ('buoy.config', '{"env": ["A=\u0000"]}')`), "NUL"},
		"D: name":       {dbD(t, "INSERT INTO inode VALUES (2, 1, '..', 0, 0, 0, 16877, 0, 0, 0)"), "no name"},
		"D: no name":    {dbD(t, "INSERT INTO inode VALUES (2, 1, NULL, 0, 0, 0, 16877, 0, 0, 0)"), "no name"},
		"D: same name":  {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 0, 0, 0, 16877, 0, 0, 0), (3, 1, 'a', 0, 0, 0, 16877, 0, 0, 0)"), "two of that"},
		"D: in a file":  {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 0, 0, 0, 33188, 0, 0, 0), (3, 2, 'a', 0, 0, 0, 33188, 0, 0, 0)"), "no directory"},
		"D: size":       {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 1, 0, 0, 33188, 0, 0, 0)", "INSERT INTO block SELECT 2, zeroblob(32), zeroblob(32) FROM (SELECT 1 UNION ALL SELECT 2)"), "chunks of"},
		"D: below 0":    {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', -1, 0, 0, 33188, 0, 0, 0)"), "claims"},
		"D: key":        {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 1, 0, 0, 33188, 0, 0, 0)", "INSERT INTO block VALUES (2, zeroblob(32), zeroblob(16))"), "key of 16"},
		"D: no target":  {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 1, 0, 0, 41471, 0, 0, 0)"), "link to"},
		"D: type":       {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 1, 0, 0, 511, 0, 0, 0)"), "no type"},
		"D: owner":      {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 1, -1, 0, 33188, 0, 0, 0)"), "owner"},
		"D: text":       {dbD(t, "INSERT INTO inode VALUES (2, 1, 'a', 'x', 0, 0, 33188, 0, 0, 0)"), "number"},
		"D: root":       {dbD(t, "UPDATE inode SET mode = 33188"), "no root"},
		"D: lost root":  {dbD(t, "UPDATE inode SET ino = 2"), "no root"},
		"D: route":      {dbD(t, "INSERT INTO route VALUES (0, 256, 'x')"), "route"},
	} {
		_, err := Open(t.Context(), write(t, c.content))
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func zip(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestDamaged cuts a good file at every 211th byte and flips a bit of every 181st: an error or, where nothing of
// importance was hit, a sane list.
func TestDamaged(t *testing.T) {
	for _, name := range []string{mini, "testdata/mini/flistdb.sqlite3"} {
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(good); n += 211 {
			if _, err := Open(t.Context(), write(t, good[:n])); err == nil {
				t.Errorf("%s: cut at %d is not seen", name, n)
			}
		}
		for n := 0; n < len(good); n += 181 {
			bad := bytes.Clone(good)
			bad[n] ^= 1 << (n % 8)
			if l, err := Open(t.Context(), write(t, bad)); err == nil {
				if err := check(l); err != nil {
					t.Errorf("%s: bit flipped at %d: %v", name, n, err)
				}
			} else if !errors.Is(err, errs.Invalid) {
				t.Errorf("%s: bit flipped at %d: %v", name, n, err)
			}
		}
	}
}

// TestBombs: neither memory nor disk fills up.
func TestBombs(t *testing.T) {
	const size = 70 << 20
	zeros := bytes.Repeat(zip(t, make([]byte, 1<<20)), size>>20) // gzip may be made of pieces
	claim := func(name string) []byte {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: name, Size: size, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		return append(zip(t, b.Bytes()), zeros...)
	}
	shared := bombOfPointers()
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"zeros":            {zeros, ""},
		"database":         {claim("flistdb.sqlite3"), "at most"},
		"other member":     {claim("x"), "more than any flist"},
		"after the end":    {append(archiveC(t, member{"x", nil}), zeros...), "more than any flist"},
		"one list for all": {dbC(t, with(one(file{name: "x", kind: kindFile}), keyC(""), shared)), "again and again"},
		"empty structs":    {dbC(t, with(one(file{name: "x", kind: kindFile}), keyC(""), bombOfStructs())), "again and again"},
	} {
		file := write(t, c.content)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Open(t.Context(), file)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 64 {
			t.Errorf("%s: %d MiB were allocated", name, mib)
		}
	}
}

// bombOfPointers is a record of 1,000 files that all point to the same 10,000 chunks.
func bombOfPointers() []byte {
	b := &builder{}
	root := b.structure(b.alloc(1), 2, 5)
	first := b.list(root.add(4), 1000, 3, 3)
	var chunks place
	for i := range 1000 {
		at := first.add(6 * i)
		b.put(at, 10_000*4096)
		b.put(at.add(1), kindFile)
		b.text(at.add(3), strings.Repeat("x", 1+i%200)+string(rune('a'+i/200)))
		s := b.structure(at.add(4), 1, 1)
		b.put(s, 1)
		if i > 0 {
			b.point(s.add(1), 1|7<<32|uint64(20_000)<<35, chunks)
			continue
		}
		chunk := b.list(s.add(1), 10_000, 0, 2)
		for j := range 10_000 {
			b.bytes(chunk.add(2*j), id(16, "x"))
			b.bytes(chunk.add(2*j+1), id(16, "y"))
		}
		chunks = chunk.add(-1)
	}
	return b.message()
}

// bombOfStructs is a record of a list of half a billion entries without fields.
func bombOfStructs() []byte {
	b := &builder{}
	root := b.structure(b.alloc(1), 2, 5)
	b.list(root.add(4), 0, 0, 0)
	m := b.message()
	binary.LittleEndian.PutUint32(m[len(m)-8:], 1<<31)
	return m
}

// bombOfFiles is a record of too many entries, all of them without a name.
func bombOfFiles() []byte {
	b := &builder{}
	b.list(b.structure(b.alloc(1), 2, 5).add(4), maxNodes+1, 0, 1)
	return b.message()
}

// TestTooManyFiles: of era C, a record has too many; of era D, the rows before are said to have been as many as may be.
func TestTooManyFiles(t *testing.T) {
	c := recordReader{acls: &names{ids: map[string]uint32{}}, nodes: &atomic.Int64{}}
	if d := c.read(dirKey{}, bombOfFiles()); d.err == nil || !strings.Contains(d.err.Error(), "more than 2000000") {
		t.Error(d.err)
	}
	d, err := openSQLite(t.Context(), dbD(t))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	r := &listD{inodes: make([]inodeD, maxNodes)}
	if err := r.readInodes(t.Context(), d); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "more than 2000000") {
		t.Error(err)
	}
}

// TestCancel: a reader that nobody waits for ends.
func TestCancel(t *testing.T) {
	for _, content := range [][]byte{
		archiveC(t, member{"flistdb.sqlite3", dbC(t, entriesC(wide(20_000)))}), dbC(t, entriesC(wide(20_000))), dbD(t),
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Open(ctx, write(t, content)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := Open(ctx, write(t, content)); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		cancel()
	}
}

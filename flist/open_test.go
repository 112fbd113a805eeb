package flist

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// id is a chunk's name of n bytes.
func id(n int, c string) string { return strings.Repeat(c, n) }

// variety has every kind of entry of era C.
var variety = map[string][]file{
	"": {
		{name: "z", kind: kindLink, link: "../a b", mtime: 7},
		{name: "d"},
		{name: "empty", kind: kindFile},
		{name: "big", kind: kindFile, size: 3*4096 + 1, unit: 1, mtime: 1<<32 - 1, chunks: []string{id(16, "a"), id(16, "b"), id(16, "a"), id(16, "c")}},
		{name: "missing", kind: kindFile, size: 99, unit: 128},
		{name: "fifo", kind: kindSpecial, special: typeFifo},
		{name: "block", kind: kindSpecial, special: typeBlock, data: "1,3"},
		{name: "char", kind: kindSpecial, special: typeChar, data: "8,0"},
		{name: "sock", kind: kindSpecial, data: "(nothing)"},
		{name: "null", kind: kindSpecial, data: "1,3"},
		{name: "sda", kind: kindSpecial, data: "8,0"},
		{name: "odd", kind: kindSpecial, special: typeUnknown, data: "300,70000"},
		{name: "loop0", kind: kindSpecial, data: "7,0"},
		{name: "vcsa1", kind: kindSpecial, data: "7,129"},
	},
	"d":     {{name: "e"}, {name: "é|測 x\xff", kind: kindFile}},
	"d/e":   {{name: "f"}},
	"d/e/f": {},
}

const varietyDump = `/ 40755 0:0 0 1700000001/1700000002 0 "" 0@1+14 0×0
/big 100755 0:0 12289 4294967295/0 0 "" 0@0+0 4×4096 61616161616161616161616161616161:41414141414141414141414141414141 62626262626262626262626262626262:42424242424242424242424242424242 61616161616161616161616161616161:41414141414141414141414141414141 63636363636363636363636363636363:43434343434343434343434343434343
/block 60755 0:0 0 0/0 103 "" 0@0+0 0×0
/char 20755 0:0 0 0/0 800 "" 0@0+0 0×0
/d 40755 0:0 0 1700000001/1700000002 0 "" 0@15+2 0×0
/empty 100755 0:0 0 0/0 0 "" 0@0+0 0×524288
/fifo 10755 0:0 0 0/0 0 "" 0@0+0 0×0
/loop0 60755 0:0 0 0/0 700 "" 0@0+0 0×0
/missing 100755 0:0 99 0/0 0 "" 0@0+0 0×524288
/null 20755 0:0 0 0/0 103 "" 0@0+0 0×0
/odd 20755 0:0 0 0/0 11112c70 "" 0@0+0 0×0
/sda 60755 0:0 0 0/0 800 "" 0@0+0 0×0
/sock 140755 0:0 0 0/0 0 "" 0@0+0 0×0
/vcsa1 20755 0:0 0 0/0 781 "" 0@0+0 0×0
/z 120755 0:0 6 7/0 0 "../a b" 0@0+0 0×0
/d/e 40755 0:0 0 1700000001/1700000002 0 "" 4@17+1 0×0
` + "/d/é|測 x\xff" + ` 100755 0:0 0 0/0 0 "" 4@0+0 0×524288
/d/e/f 40755 0:0 0 1700000001/1700000002 0 "" 15@18+0 0×0
`

// TestLayouts: however a record is cut into segments, it says the same.
func TestLayouts(t *testing.T) {
	for name, lay := range layouts {
		entries := entriesC(variety)
		for p, files := range variety {
			b := bytes.Clone(entries[keyC(p)])
			for i := range files {
				if files[i].kind == kindDir {
					files[i].sub = keyC(strings.TrimPrefix(p+"/"+files[i].name, "/"))
				}
			}
			if entries[keyC(p)] = dirRecord(lay, files...); lay.segment == 1 && len(files) > 0 && bytes.Equal(b, entries[keyC(p)]) {
				t.Errorf("%s: the record is the same", name)
			}
		}
		l := openFile(t, write(t, dbC(t, entries)))
		if got := dump(l); got != varietyDump {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

// wide is a root with n files.
func wide(n int) map[string][]file {
	files := make([]file, n)
	for i := range files {
		files[i] = file{name: fmt.Sprintf("f%06d", n-i), kind: kindFile, size: 1, unit: 128, chunks: []string{id(16, "x")}}
	}
	return map[string][]file{"": files}
}

// deep are n directories in one another.
func deep(n int) map[string][]file {
	dirs := map[string][]file{}
	p := ""
	for range n {
		dirs[p] = []file{{name: "d"}}
		p = strings.TrimPrefix(p+"/d", "/")
	}
	dirs[p] = nil
	return dirs
}

func TestWideAndDeep(t *testing.T) {
	l := openFile(t, write(t, archiveC(t, member{"flistdb.sqlite3", dbC(t, entriesC(wide(100_000)))})))
	if s := l.Stats(); s.Files != 100_000 || s.Chunks != 1 {
		t.Errorf("%+v", s)
	}
	if i, ok := l.Find("f000001"); !ok || i != 1 {
		t.Errorf("the first file is node %d", i)
	}
	l = openFile(t, write(t, dbC(t, entriesC(deep(1000)))))
	if p := l.Path(len(l.Nodes) - 1); strings.Count(p, "/") != 999 {
		t.Errorf("the deepest is %d deep", strings.Count(p, "/")+1)
	}
	rows := []string{"DROP INDEX names", "DROP INDEX parents"}
	for i := range 100 {
		rows = append(rows, fmt.Sprintf("INSERT INTO inode VALUES (%d, %d, 'd', 0, 0, 0, 16877, 0, 0, 0)", i+2, i+1))
	}
	rows = append(rows, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 100000)
		INSERT INTO inode SELECT 1000+i, 101, 'f'||i, 0, 0, 0, 33188, 0, 0, 0 FROM n`)
	l = openFile(t, write(t, dbD(t, rows...)))
	if s := l.Stats(); s.Files != 100_000 || s.Dirs != 101 {
		t.Errorf("%+v", s)
	}
	if i, ok := l.Find(strings.Repeat("d/", 100) + "f77"); !ok || l.Nodes[i].Name != "f77" {
		t.Error("a file is not found")
	}
}

// TestEraD has what the public lists lack.
func TestEraD(t *testing.T) {
	l := openFile(t, write(t, dbD(t,
		`INSERT INTO inode VALUES (9, 1, 'b', 524289, 3, 4, 33261+2048, 0, 1, -2), (3, 1, 'a', 0, 0, 0, 33188, 77, 0, 0),
			(4, 1, 'c', 0, 0, 0, 8630, 259, 0, 0), (5, 1, 'l', 0, 0, 0, 41471, 0, 0, 0), (6, 1, 'm', 16694240, 0, 0, 33188, 0, 0, 0),
			(7, 1, 'p', 0, 0, 0, 4516, 0, 0, 0), (20, 20, 'self', 0, 0, 0, 16877, 0, 0, 0), (21, 22, 'x', 0, 0, 0, 16877, 0, 0, 0),
			(22, 21, 'y', 0, 0, 0, 16877, 0, 0, 0), (23, 99, 'orphan', 0, 0, 0, 33188, 0, 0, 0)`,
		`INSERT INTO extra VALUES (5, 'text')`,
		`INSERT INTO block VALUES (9, CAST('`+id(32, "q")+`' AS BLOB), '`+id(32, "K")+`'), (77, x'00', x'00'), (9, '`+id(32, "a")+`', '`+id(32, "L")+`')`,
		`INSERT INTO tag VALUES ('config', '{"cmd": ["/bin/sh"], "user": "web", "new": 1}'), ('note', 'hello')`,
		`INSERT INTO route VALUES (0, 127, 'dir:///a'), (128, 255, 'zdb://b:9900')`)))
	want := `/ 40755 0:0 0 6/5 0 "" 0@1+6 0×0
/a 100644 0:0 0 0/0 0 "" 0@0+0 0×524288
/b 104755 3:4 524289 -2/1 0 "" 0@0+0 2×524288 7171717171717171717171717171717171717171717171717171717171717171:4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b 6161616161616161616161616161616161616161616161616161616161616161:4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c
/c 20666 0:0 0 0/0 103 "" 0@0+0 0×0
/l 120777 0:0 4 0/0 0 "text" 0@0+0 0×0
/m 100644 0:0 16694240 0/0 0 "" 0@0+0 0×524288
/p 10644 0:0 0 0/0 0 "" 0@0+0 0×0
`
	if got := dump(l); got != want {
		t.Errorf("got\n%s", got)
	}
	if s := l.Stats(); s.Missing != 1 || !l.Nodes[5].Missing() || l.Nodes[1].Missing() {
		t.Errorf("%+v", s)
	}
	m := l.Meta
	if m.Config == nil || m.Config.User != "web" || m.Texts["note"] != "hello" || len(m.Texts) != 1 {
		t.Errorf("%+v", m)
	}
	if len(m.Routes) != 2 || m.Routes[1] != (Route{From: "80", To: "ff", URL: "zdb://b:9900"}) || l.Era.Scheme() != chunk.GCM {
		t.Errorf("%+v", m.Routes)
	}
}

// TestKinds: what programs other than the packers may have made of a database.
func TestKinds(t *testing.T) {
	for _, pragma := range []string{"journal_mode = WAL", "encoding = 'UTF-16'", "page_size = 65536", "page_size = 512", "auto_vacuum = FULL"} {
		name := filepath.Join(t.TempDir(), "db")
		db, err := sql.Open("sqlite", name)
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(1)
		for _, s := range []string{"PRAGMA " + pragma, schemaD, "INSERT INTO inode VALUES (2, 1, 'é', 0, 0, 0, 33188, 0, 0, 0)"} {
			if _, err := db.Exec(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if l := openFile(t, name); len(l.Nodes) != 2 || l.Nodes[1].Name != "é" {
			t.Errorf("%s: %s", pragma, dump(l))
		}
		if left, err := os.ReadDir(filepath.Dir(name)); err != nil || len(left) != 1 {
			t.Errorf("%s: Open leaves files behind: %v", pragma, left)
		}
	}
}

// TestArchive: which members count.
func TestArchive(t *testing.T) {
	db := dbC(t, entriesC(variety))
	router := []byte("pools:\n  a: {\"00:ff\": \"zdb://h:9900\"}\nlookup: [a]\n")
	for name, members := range map[string][]member{
		"plain": {{"flistdb.sqlite3", db}, {"router.yaml", router}},
		"dot":   {{"./router.yaml", router}, {"./flistdb.sqlite3", db}, {"./../../evil", db}, {"/flistdb.sqlite3", []byte("no")}, {"x.sst", nil}},
	} {
		l := openFile(t, write(t, archiveC(t, members...)))
		if len(l.Meta.Routes) != 1 || l.Meta.Routes[0].URL != "zdb://h:9900" {
			t.Errorf("%s: routes %+v", name, l.Meta.Routes)
		}
	}
}

// TestNotRegular: no fifo holds Open up, and a missing file is told from a bad one.
func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, fifo} {
		if _, err := Open(t.Context(), name); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	l := openFile(t, write(t, dbC(t, entriesC(variety))))
	for path, want := range map[string]string{"": "", "/": "", ".": "", "d": "d", "/d/e/f/": "d/e/f", "./d//e": "d/e", "z": "z"} {
		if i, ok := l.Find(path); !ok || l.Path(i) != want {
			t.Errorf("%q is %d, %v", path, i, ok)
		}
	}
	for _, path := range []string{"nope", "d/nope", "z/x", "d/..", "..", "empty/x", "D"} {
		if i, ok := l.Find(path); ok {
			t.Errorf("%q is %q", path, l.Path(i))
		}
	}
}

// TestSame: the order of rows does not matter.
func TestSame(t *testing.T) {
	entries := entriesC(variety)
	for range 3 { // maps differ in order each time
		if got := dump(openFile(t, write(t, dbC(t, maps.Clone(entries))))); got != varietyDump {
			t.Errorf("got\n%s", got)
		}
	}
}

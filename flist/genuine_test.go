package flist

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
)

const mini = "testdata/mini/mini.flist"

// fetchMini gets chunks of mini.flist.
func fetchMini(_ context.Context, ref chunk.Ref, size int) ([]byte, error) {
	stored, err := os.ReadFile(filepath.Join("testdata/mini/chunks", ref.ID.String()))
	if err != nil {
		return nil, err
	}
	return ref.Open(stored, size)
}

func openFile(t testing.TB, name string) *List {
	t.Helper()
	l, err := Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(l); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return l
}

// TestMini compares what the genuine packer wrote with what it was given, entry for entry and byte for byte.
func TestMini(t *testing.T) {
	l := openFile(t, mini)
	f, err := os.Open("testdata/mini/source-manifest.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[int]bool{0: true}
	for s := bufio.NewScanner(f); s.Scan(); {
		if !strings.HasPrefix(s.Text(), "#") {
			seen[compareLine(t, l, strings.Split(s.Text(), "\t"))] = true
		}
	}
	if len(seen) != len(l.Nodes) || len(seen) != 65 {
		t.Errorf("%d of %d entries are in the manifest", len(seen), len(l.Nodes))
	}
	if root := l.Nodes[0]; root.Mode != unix.S_IFDIR|0o755 || root.UID != 0 || root.GID != 0 {
		t.Errorf("the root is %o %d:%d", root.Mode, root.UID, root.GID)
	}
	want := Stats{Files: 22, Dirs: 23, Links: 14, Specials: 6, Bytes: 5661649, Chunks: 22, ChunkBytes: 3468784}
	if diff := cmp.Diff(want, l.Stats()); diff != "" {
		t.Error(diff)
	}
	meta := Meta{Backend: "zdb://127.0.0.1:19900", Config: &Config{Entrypoint: []string{"/bin/sh"}, Env: []string{"PATH=/bin:/sbin"}}}
	if diff := cmp.Diff(meta, l.Meta); diff != "" {
		t.Error(diff)
	}
	if l.Era != EraC || l.Era.Scheme() != chunk.XXTEA {
		t.Errorf("it is of era %v", l.Era)
	}
}

// compareLine compares a line of the manifest (path type mode uid gid size mtime major,minor linktarget sha256) with its node.
func compareLine(t *testing.T, l *List, f []string) int {
	t.Helper()
	i, ok := l.Find(f[0])
	if !ok {
		t.Errorf("%s is missing", f[0])
		return 0
	}
	n := &l.Nodes[i]
	types := map[string]uint32{
		"d": unix.S_IFDIR, "f": unix.S_IFREG, "l": unix.S_IFLNK, "c": unix.S_IFCHR, "b": unix.S_IFBLK, "s": unix.S_IFSOCK,
		"p": unix.S_IFSOCK, // that packer does not tell them apart
	}
	mode, _ := strconv.ParseUint(f[2], 8, 32)
	size, rdev := f[5], uint64(0)
	if f[1] == "d" {
		size = "0"
	}
	var major, minor uint32
	if n, _ := fmt.Sscanf(f[7], "%d,%d", &major, &minor); n == 2 {
		rdev = unix.Mkdev(major, minor)
	}
	got := fmt.Sprintf("%s %o %d:%d %d %d %x %s", l.Path(i), n.Mode, n.UID, n.GID, n.Size, n.MTime, n.Rdev, n.Target)
	want := fmt.Sprintf("%s %o %s:%s %s %s %x %s", f[0], types[f[1]]|uint32(mode), f[3], f[4], size, f[6], rdev, f[8])
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if f[1] != "f" {
		return i
	}
	b, err := l.readFile(t.Context(), f[0], 1<<30, fetchMini)
	sum := sha256.Sum256(b)
	if err != nil || hex.EncodeToString(sum[:]) != f[9] {
		t.Errorf("%s: %d bytes are not its content: %v", f[0], len(b), err)
	}
	return i
}

// The same database bare, as found in caches, is the same list.
func TestBareDatabase(t *testing.T) {
	if got, want := dump(openFile(t, "testdata/mini/flistdb.sqlite3")), dump(openFile(t, mini)); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

// public finds a public flist by the start of its name. They are not ours to distribute.
func public(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("BUOY_FLIST_FIXTURES")
	if dir == "" {
		t.Skip("SKIPPED: BUOY_FLIST_FIXTURES does not name a directory of public flists")
	}
	found, err := filepath.Glob(filepath.Join(dir, name+"*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s has %d files %s*: %v", dir, len(found), name, err)
	}
	return found[0]
}

// TestPublic lists public flists in full. The files, directories and links of the one of era C were counted with the
// genuine library; those of era D are compared with SQL. Bytes and chunks are what this package said first (2026-11).
func TestPublic(t *testing.T) {
	for name, want := range map[string]Stats{
		"ad5e65d2": {Files: 30370, Dirs: 6881, Links: 830, Bytes: 956239538, Chunks: 27938, ChunkBytes: 630962368},
		"64913f44": {Files: 96, Dirs: 100, Links: 334, Bytes: 15357504, Chunks: 108, ChunkBytes: 15341811},
		"d0bc1fd1": {Files: 92, Dirs: 100, Links: 335, Bytes: 7829519, Chunks: 90, ChunkBytes: 7813826},
		"fcbd87d0": {Files: 7, Dirs: 7, Links: 1, Bytes: 13441, Chunks: 2, ChunkBytes: 13441},
	} {
		t.Run(name, func(t *testing.T) {
			file := public(t, name)
			l := openFile(t, file)
			if diff := cmp.Diff(want, l.Stats()); diff != "" {
				t.Error(diff)
			}
			text := dump(l)
			if again := dump(openFile(t, file)); again != text {
				t.Error("read twice, the order differs")
			}
			for i := range l.Nodes {
				if at, ok := l.Find("/" + l.Path(i)); !ok || at != i {
					t.Fatalf("node %d, %q, is found as %d", i, l.Path(i), at)
				}
			}
			if l.Era == EraD {
				compareRows(t, file, l)
			}
		})
	}
}

// compareRows compares a list of era D with what SQL says of the same file.
func compareRows(t *testing.T, file string, l *List) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?immutable=1&mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`WITH RECURSIVE tree (ino, path) AS (
			SELECT 1, '' UNION ALL SELECT i.ino, tree.path || '/' || i.name FROM inode i JOIN tree ON i.parent = tree.ino)
		SELECT format('%s %o %d:%d %d %d %d %s %s', path, mode, uid, gid, CASE WHEN mode/4096 = 4 THEN 0 ELSE size END, mtime, ctime,
			CASE WHEN mode/4096 = 10 THEN CAST(data AS TEXT) ELSE '' END,
			coalesce((SELECT group_concat(lower(hex(id) || hex(key)), ',' ORDER BY block.rowid) FROM block WHERE block.ino = tree.ino), ''))
		FROM tree JOIN inode USING (ino) LEFT JOIN extra USING (ino)`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var want, got []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		want = append(want, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for i := range l.Nodes {
		n := &l.Nodes[i]
		path := "/" + l.Path(i)
		if i == 0 {
			path = ""
		}
		var refs []string
		for _, c := range n.Chunks {
			refs = append(refs, hex.EncodeToString([]byte(string(c.ID)+c.Key)))
		}
		got = append(got, fmt.Sprintf("%s %o %d:%d %d %d %d %s %s", path, n.Mode, n.UID, n.GID, n.Size, n.MTime, n.CTime, n.Target, strings.Join(refs, ",")))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"ad5e65d2", "64913f44"} {
		b.Run(name, func(b *testing.B) {
			file := public(b, name)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Open(b.Context(), file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

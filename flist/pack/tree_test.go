package pack_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/pack"
	"github.com/buoy-edge/buoy/flist/store"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noise is bytes that do not compress, the same ones for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

// oddTree fills dir with all that flists can say; it takes root.
func oddTree(t testing.TB, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"bin", "data", "dev", "empty", "tmp", "usr/share/déjà vu", "usr/z", "usr/a"} {
		must(t, os.MkdirAll(at(d), 0o755))
	}
	deep := "deep" + strings.Repeat("/d", 100)
	must(t, os.MkdirAll(at(deep), 0o755))
	files := map[string][]byte{
		deep + "/bottom": []byte("bottom\n"), "bin/su": noise(1, 70_000), "bin/wall": noise(1, 70_000), "data/empty": nil,
		"data/one": []byte("x"), "data/exact": noise(2, chunk.Size), "data/minus": noise(3, chunk.Size-1),
		"data/plus": noise(4, chunk.Size+1), "data/three": noise(5, 3*chunk.Size+77), "data/zeros": make([]byte, 2*chunk.Size),
		"data/same": noise(5, 3*chunk.Size+77), "usr/share/déjà vu/name|with 'odd' \"parts\"\n": []byte("odd"),
		"usr/share/" + strings.Repeat("n", 255): []byte("long"), "data/text": bytes.Repeat([]byte("all work and no play\n"), 40_000),
	}
	for name, content := range files {
		must(t, os.WriteFile(at(name), content, 0o644))
	}
	must(t, os.Link(at("data/one"), at("data/linked")))
	for name, target := range map[string]string{"bin/sh": "su", "data/dangling": "no/where/../at all", "usr/abs": "/bin/su", "usr/up": "../../../../etc"} {
		must(t, os.Symlink(target, at(name)))
	}
	for name, dev := range map[string]uint64{"dev/null": unix.Mkdev(1, 3), "dev/console": unix.Mkdev(5, 1)} {
		must(t, unix.Mknod(at(name), unix.S_IFCHR|0o666, int(dev)))
	}
	must(t, unix.Mkfifo(at("dev/pipe"), 0o640))
	must(t, os.Lchown(at("bin/sh"), 7, 8))
	for name, owner := range map[string][2]int{"data/one": {4242, 4343}, "usr/z": {1000, 1000}, "bin/wall": {0, 5}, "data/big-id": {4_000_000_000, 4_000_000_000}} {
		if name == "data/big-id" {
			must(t, os.WriteFile(at(name), []byte("id"), 0o600))
		}
		must(t, os.Chown(at(name), owner[0], owner[1]))
	}
	for name, mode := range map[string]uint32{"bin/su": 0o4755, "bin/wall": 0o2755, "tmp": 0o1777, "empty": 0o555, "usr/z": 0o2770, "data/one": 0o604, "dev/null": 0o666} {
		must(t, unix.Chmod(at(name), mode))
	}
	n := int64(0)
	must(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { // the deepest last: it changes nothing above
		n++
		times := []unix.Timespec{{Sec: 1_700_000_000 + n}, {Sec: 1_700_000_000 + n}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, times, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// snapshot is a line for each file below dir, all that a round trip has to keep.
func snapshot(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, err := filepath.Rel(dir, p)
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(p, &st))
		line := fmt.Sprintf("%q %o %d:%d %d.%d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			must(t, err)
			line += " -> " + target
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			must(t, err)
			line += fmt.Sprintf(" %d %x", len(b), sha256.Sum256(b))
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		all = append(all, line)
		return nil
	}))
	return all
}

func diff(t testing.TB, what string, got, want []string) {
	t.Helper()
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("%s: got  %s", what, l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("%s: want %s", what, l)
		}
	}
}

func writer(t testing.TB, url string) store.Writer {
	t.Helper()
	w, err := store.Write(url, store.Options{})
	must(t, err)
	return w
}

// packed packs dir into file; the store is open no more.
func packed(t testing.TB, dir, file, url string, era flist.Era) (*flist.List, pack.Result) {
	t.Helper()
	w := writer(t, url)
	l, res, err := pack.Pack(t.Context(), pack.Options{Dir: dir, Era: era, Store: w, Meta: flist.Meta{Backend: url}})
	must(t, err)
	must(t, w.Close())
	must(t, pack.Write(t.Context(), file, l))
	return l, res
}

func open(t testing.TB, file string) *flist.List {
	t.Helper()
	l, err := flist.Open(t.Context(), file)
	must(t, err)
	return l
}

// router is where the chunks of l are.
func router(t testing.TB, l *flist.List) *store.Router {
	t.Helper()
	r, err := store.Route(l.Meta, nil, nil, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

type eraCase struct {
	era  flist.Era
	file string
}

var eras = map[string]eraCase{"C": {flist.EraC, "x.flist"}, "D": {flist.EraD, "x.fl"}}

func newDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(dir, 0o755))
	return dir
}

package pack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/pack"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testredis"
	"github.com/buoy-edge/buoy/internal/testroot"
)

func TestRoundTrip(t *testing.T) {
	testroot.Require(t)
	src := newDir(t)
	oddTree(t, src)
	want := snapshot(t, src)
	for name, era := range eras {
		for _, where := range []string{"dir", "redis"} {
			t.Run(name+" "+where, func(t *testing.T) {
				url := "dir://" + t.TempDir()
				if where == "redis" {
					url = testredis.New(t).URL()
				}
				file := filepath.Join(t.TempDir(), era.file)
				made, res := packed(t, src, file, url, era.era)
				l := open(t, file)
				if len(made.Nodes) != len(l.Nodes) {
					t.Fatalf("%d files were packed, %d are read", len(made.Nodes), len(l.Nodes))
				}
				for i := range made.Nodes {
					a, b := made.Nodes[i], l.Nodes[i]
					if i == 0 && era.era == flist.EraC { // says nothing of its root
						a.MTime, a.CTime = b.MTime, b.CTime
					}
					if a.Mode&unix.S_IFMT != unix.S_IFREG || len(a.Chunks) == 0 {
						a.ChunkSize, b.ChunkSize = 0, 0
					}
					if d := cmp.Diff(a, b); d != "" {
						t.Errorf("%q differs from what was packed:\n%s", l.Path(i), d)
					}
				}
				if s := l.Stats(); s.Files != res.Files || s.Dirs != res.Dirs || s.Links != res.Links || s.Specials != res.Specials ||
					s.Bytes != res.Bytes || s.Chunks != res.Chunks {
					t.Errorf("packed %+v, read %+v", res, s)
				}
				for _, v := range []struct {
					name string
					view pack.View
				}{{"bytes", pack.FromSource(router(t, l))}, {"files", fileView{router(t, l), t.TempDir()}}} {
					out := newDir(t)
					n := int64(0)
					opt := pack.UnpackOptions{Parallel: 1, Progress: func(b int64) { n += b }}
					got, err := pack.Unpack(t.Context(), l, v.view, out, opt)
					must(t, err)
					diff(t, v.name, snapshot(t, out), want)
					if got.Bytes != res.Bytes || n != res.Bytes || got.Files != res.Files || got.Skipped != 0 || got.Specials != 3 {
						t.Errorf("%s: unpacked %+v with %d bytes of progress, packed %+v", v.name, got, n, res)
					}
				}
			})
		}
	}
}

// fileView gives chunks as files of a directory, which stay there as in a cache.
type fileView struct {
	src pack.Source
	dir string
}

func (v fileView) Open(ctx context.Context, ref chunk.Ref, size int) (*os.File, error) {
	name := filepath.Join(v.dir, ref.ID.String())
	if f, err := os.Open(name); err == nil {
		return f, nil
	}
	plain, err := v.src.Fetch(ctx, ref, size)
	if err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(v.dir, "new")
	if err != nil {
		return nil, err
	}
	_, err = tmp.Write(plain)
	if err := errors.Join(err, tmp.Close(), os.Rename(tmp.Name(), name)); err != nil {
		return nil, err
	}
	return os.Open(name)
}

// TestReproducible: the bytes depend on nothing but the tree, not on where it is, in which order its files were made, or how
// many cores were at work.
func TestReproducible(t *testing.T) {
	testroot.Require(t)
	src := newDir(t)
	oddTree(t, src)
	copied := newDir(t)
	for _, c := range [][]string{ // the last directories first, so that inodes and readdir have another order
		{"sh", "-ec", `cd "$1"; ls -rA | while read -r f; do cp -a "$f" "$2/"; done`, "sh", src, copied},
		{"touch", "-h", "-r", src, copied},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", c, err, out)
		}
	}
	for name, era := range eras {
		url := "dir://" + t.TempDir()
		var first []byte
		for i, dir := range []string{src, src, copied} {
			file := filepath.Join(t.TempDir(), era.file)
			w := writer(t, url)
			l, _, err := pack.Pack(t.Context(), pack.Options{
				Dir: dir, Era: era.era, Store: w, Parallel: 1 + 7*i,
				Meta: flist.Meta{Backend: "redis://10.0.0.1:6379", Config: &flist.Config{Env: []string{"B=1", "A=2"}, Labels: map[string]string{"x": "y", "a": "b"}}},
			})
			must(t, err)
			must(t, w.Close())
			must(t, pack.Write(t.Context(), file, l))
			got, err := os.ReadFile(file)
			must(t, err)
			if first == nil {
				first = got
			}
			if !bytes.Equal(got, first) {
				t.Errorf("era %s: run %d gives other bytes", name, i)
			}
		}
	}
}

// TestLink: files of one chunk share the cache's file where they can, and only there.
func TestLink(t *testing.T) {
	testroot.Require(t)
	src := newDir(t)
	oddTree(t, src)
	file := filepath.Join(t.TempDir(), "x.fl")
	_, _ = packed(t, src, file, "dir://"+t.TempDir(), flist.EraD)
	l := open(t, file)
	base := t.TempDir()
	cache, want := filepath.Join(base, "cache"), snapshot(t, src)
	must(t, os.Mkdir(cache, 0o700))
	view := fileView{router(t, l), cache}
	for i := range 2 { // the second layer shares all that the first one could
		out := filepath.Join(base, fmt.Sprint("layer", i))
		must(t, os.Mkdir(out, 0o755))
		res, err := pack.Unpack(t.Context(), l, view, out, pack.UnpackOptions{Link: true, Parallel: 1}) // see TestLinkOnce
		must(t, err)
		diff(t, out, snapshot(t, out), want)
		if res.Linked == 0 || res.Linked >= res.Bytes {
			t.Errorf("%d of %d bytes are linked", res.Linked, res.Bytes)
		}
		var su, wall, three unix.Stat_t
		must(t, unix.Stat(out+"/bin/su", &su))
		must(t, unix.Stat(out+"/bin/wall", &wall))
		must(t, unix.Stat(out+"/data/three", &three))
		if su.Ino == wall.Ino || max(su.Nlink, wall.Nlink) < 2 || min(su.Nlink, wall.Nlink) != 1 || three.Nlink != 1 {
			t.Errorf("links: su %d, wall %d, three %d", su.Nlink, wall.Nlink, three.Nlink)
		}
	}
	dropped := filepath.Join(base, "dropped")
	must(t, os.Mkdir(dropped, 0o755))
	_, err := pack.Unpack(t.Context(), l, view, dropped, pack.UnpackOptions{Link: true, DropSuid: true})
	must(t, err)
	for name, want := range map[string]uint32{"bin/su": 0o755, "bin/wall": 0o755, "usr/z": 0o2770, "tmp": 0o1777} {
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(dropped, name), &st))
		if st.Mode&0o7777 != want {
			t.Errorf("%s without set-id bits has mode %o, want %o", name, st.Mode&0o7777, want)
		}
	}
}

// TestLinkOnce: files of the same content are not names of one file, which "cp a b" refuses.
func TestLinkOnce(t *testing.T) {
	testroot.Require(t)
	src := newDir(t)
	for _, name := range []string{"a", "b"} {
		must(t, os.WriteFile(filepath.Join(src, name), bytes.Repeat([]byte("the same\n"), 10_000), 0o644))
		must(t, os.Chtimes(filepath.Join(src, name), time.Unix(1e9, 0), time.Unix(1e9, 0)))
	}
	file := filepath.Join(t.TempDir(), "x.fl")
	_, _ = packed(t, src, file, "dir://"+t.TempDir(), flist.EraD)
	l := open(t, file)
	base := t.TempDir()
	cache, out := filepath.Join(base, "cache"), filepath.Join(base, "layer")
	must(t, errors.Join(os.Mkdir(cache, 0o700), os.Mkdir(out, 0o755)))
	// One after the other: the test's cache makes two files of a chunk that is asked for twice at once.
	res, err := pack.Unpack(t.Context(), l, fileView{router(t, l), cache}, out, pack.UnpackOptions{Link: true, Parallel: 1})
	must(t, err)
	var a, b unix.Stat_t
	must(t, errors.Join(unix.Stat(out+"/a", &a), unix.Stat(out+"/b", &b)))
	if a.Ino == b.Ino || res.Linked != 90_000 {
		t.Errorf("inodes %d and %d, %d bytes linked; want two files, one of them linked", a.Ino, b.Ino, res.Linked)
	}
}

func TestWide(t *testing.T) {
	testroot.Require(t)
	const files = 100_000
	all := newDir(t) // in memory: disks take a minute for so many
	must(t, unix.Mount("tmpfs", all, "tmpfs", 0, "nr_inodes=400000"))
	t.Cleanup(func() { must(t, unix.Unmount(all, 0)) })
	src := all + "/src"
	must(t, os.Mkdir(src, 0o755))
	for i := range files {
		must(t, os.Symlink("x", fmt.Sprintf("%s/%06d", src, i)))
	}
	for name, era := range eras {
		file := filepath.Join(t.TempDir(), era.file)
		packed(t, src, file, "dir://"+t.TempDir(), era.era)
		l := open(t, file)
		out := all + "/out" + name
		must(t, os.Mkdir(out, 0o755))
		res, err := pack.Unpack(t.Context(), l, nil, out, pack.UnpackOptions{})
		must(t, err)
		if s := l.Stats(); s.Links != files || res.Links != files {
			t.Errorf("era %s: packed %d links, unpacked %d", name, s.Links, res.Links)
		}
	}
}

func TestUnpackLeavesNothing(t *testing.T) {
	testroot.Require(t)
	src, file, chunks := newDir(t), filepath.Join(t.TempDir(), "x.flist"), t.TempDir()
	oddTree(t, src)
	packed(t, src, file, "dir://"+chunks, flist.EraC)
	l := open(t, file)
	clean := func(t *testing.T, dir string) {
		t.Helper()
		left, err := os.ReadDir(dir)
		must(t, err)
		if len(left) > 0 {
			t.Errorf("%d files are left", len(left))
		}
	}
	t.Run("no room", func(t *testing.T) {
		small := newDir(t)
		must(t, unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m"))
		t.Cleanup(func() { must(t, unix.Unmount(small, 0)) })
		_, err := pack.Unpack(t.Context(), l, pack.FromSource(router(t, l)), small, pack.UnpackOptions{})
		if !errors.Is(err, errs.Unavailable) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("error is %v", err)
		}
		clean(t, small)
	})
	t.Run("cancelled", func(t *testing.T) {
		out := newDir(t)
		ctx, stop := context.WithCancel(t.Context())
		_, err := pack.Unpack(ctx, l, pack.FromSource(router(t, l)), out, pack.UnpackOptions{Progress: func(int64) { stop() }})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		clean(t, out)
	})
	t.Run("chunk missing", func(t *testing.T) {
		i, _ := l.Find("data/three")
		id := l.Nodes[i].Chunks[1].ID.String()
		gone := filepath.Join(chunks, id[:2], id)
		must(t, os.Rename(gone, gone+".away"))
		t.Cleanup(func() { must(t, os.Rename(gone+".away", gone)) })
		out := newDir(t)
		_, err := pack.Unpack(t.Context(), l, pack.FromSource(router(t, l)), out, pack.UnpackOptions{})
		if err == nil || !strings.Contains(err.Error(), "/data/") || !strings.Contains(err.Error(), id) {
			t.Errorf("error is %v, want the file and the chunk in it", err)
		}
		clean(t, out)
		bad, err := pack.Verify(t.Context(), l, router(t, l), 0, nil)
		if err != nil || len(bad) != 1 || bad[0].Ref.ID.String() != id || !strings.HasPrefix(bad[0].Path, "/data/") {
			t.Errorf("verify says %+v, %v", bad, err)
		}
	})
	t.Run("not empty", func(t *testing.T) {
		out := newDir(t)
		must(t, os.WriteFile(out+"/mine", nil, 0o600))
		_, err := pack.Unpack(t.Context(), l, pack.FromSource(router(t, l)), out, pack.UnpackOptions{})
		if _, gone := os.Stat(out + "/mine"); !errors.Is(err, errs.Exists) || gone != nil {
			t.Errorf("error is %v, the file that was there: %v", err, gone)
		}
	})
}

// TestVerifyDamage: a chunk with a flipped bit, and one that is another one.
func TestVerifyDamage(t *testing.T) {
	src, chunks := newDir(t), t.TempDir()
	must(t, os.WriteFile(src+"/a", noise(1, 3*chunk.Size), 0o644))
	file := filepath.Join(t.TempDir(), "x.fl")
	packed(t, src, file, "dir://"+chunks, flist.EraD)
	l := open(t, file)
	path := func(i int) string {
		id := l.Nodes[1].Chunks[i].ID.String()
		return filepath.Join(chunks, id[:2], id)
	}
	b, err := os.ReadFile(path(0))
	must(t, err)
	b[1000] ^= 1
	must(t, os.WriteFile(path(0), b, 0o644))
	must(t, os.Remove(path(2)))
	must(t, os.Link(path(1), path(2)))
	bad, err := pack.Verify(t.Context(), l, router(t, l), 0, nil)
	if err != nil || len(bad) != 2 || bad[0].Path != "/a" || bad[1].Path != "/a" {
		t.Errorf("verify says %+v, %v", bad, err)
	}
}

// changing is a store whose first Put changes the tree.
type changing struct {
	store.Writer
	change func()
}

func (c *changing) Put(ctx context.Context, id chunk.ID, stored []byte) error {
	if c.change != nil {
		c.change()
		c.change = nil
	}
	return c.Writer.Put(ctx, id, stored)
}

func TestChangeWhilePacking(t *testing.T) {
	src := newDir(t)
	name := src + "/log"
	must(t, os.WriteFile(name, noise(1, 4*chunk.Size), 0o644))
	w := writer(t, "dir://"+t.TempDir())
	defer w.Close()
	for what, change := range map[string]func(){
		"grows": func() {
			f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteString("x")
			must(t, errors.Join(err, f.Close()))
		},
		"shrinks": func() { must(t, os.Truncate(name, 3*chunk.Size)) },
	} {
		_, _, err := pack.Pack(t.Context(), pack.Options{Dir: src, Era: flist.EraC, Store: &changing{w, change}, Parallel: 1})
		if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), `"/log"`) {
			t.Errorf("a file that %s: error is %v", what, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	testroot.Require(t)
	src := newDir(t)
	must(t, os.WriteFile(src+"/ping", []byte("x"), 0o755))
	// VFS_CAP_REVISION_2, cap_net_raw permitted and effective
	must(t, unix.Setxattr(src+"/ping", "security.capability", []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0))
	w := writer(t, "dir://"+t.TempDir())
	defer w.Close()
	_, res, err := pack.Pack(t.Context(), pack.Options{Dir: src, Era: flist.EraD, Store: w})
	if err != nil || len(res.Capabilities) != 1 || res.Capabilities[0] != "/ping" {
		t.Errorf("capabilities of %q, %v", res.Capabilities, err)
	}
}

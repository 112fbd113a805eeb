package pack_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/pack"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// plant makes files: "dir/", "link -> target" or "file=content".
func plant(t testing.TB, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		name, content, isFile := strings.Cut(f, "=")
		link, target, isLink := strings.Cut(f, " -> ")
		switch {
		case isLink:
			must(t, os.Symlink(target, filepath.Join(dir, link)))
		case isFile:
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		default:
			must(t, os.MkdirAll(filepath.Join(dir, f), 0o755))
		}
	}
}

// TestMerge holds the merge against overlayfs, which shows the same trees.
func TestMerge(t *testing.T) {
	testroot.Require(t)
	low, up := newDir(t), newDir(t)
	plant(t, low, "both/low=1", "both/same=low", "dir-to-file/x=1", "file-to-dir=1", "link-to-dir -> both", "only-low/a=1", "z=1")
	plant(t, up, "both/up=2", "both/same=up", "dir-to-file=2", "file-to-dir/x=2", "link-to-dir/y=2", "a=2", "both/link -> /etc")
	must(t, os.Chmod(up+"/both", 0o700))
	merged, empty := newDir(t), newDir(t)
	must(t, unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, "lowerdir="+up+":"+low+":"+empty))
	t.Cleanup(func() { must(t, unix.Unmount(merged, 0)) })
	for name, era := range eras {
		file, urls := filepath.Join(t.TempDir(), era.file), []string{"dir://" + t.TempDir(), "dir://" + t.TempDir()}
		var lists []*flist.List
		for i, dir := range []string{low, up} {
			packed(t, dir, file, urls[i], era.era)
			lists = append(lists, open(t, file))
		}
		l, err := pack.Merge(lists...)
		must(t, err)
		must(t, pack.Write(t.Context(), file, l))
		l = open(t, file)
		out := newDir(t)
		_, err = pack.Unpack(t.Context(), l, pack.FromSource(router(t, l)), out, pack.UnpackOptions{})
		must(t, err)
		diff(t, "era "+name, wholeSeconds(snapshot(t, out)), wholeSeconds(snapshot(t, merged))) // neither era has more
	}
}

func wholeSeconds(lines []string) []string {
	for i, l := range lines {
		parts := strings.SplitN(l, " ", 5)
		parts[3], _, _ = strings.Cut(parts[3], ".")
		lines[i] = strings.Join(parts, " ")
	}
	return lines
}

func TestMergeMeta(t *testing.T) {
	root := []flist.Node{{Mode: unix.S_IFDIR | 0o755}}
	low := &flist.List{Era: flist.EraD, Nodes: root, Meta: flist.Meta{
		Backend: "redis://low:1", Config: &flist.Config{User: "low"}, Texts: map[string]string{"a": "low", "b": "low"},
	}}
	up := &flist.List{Era: flist.EraD, Nodes: root, Meta: flist.Meta{
		Routes: []flist.Route{{Pool: 0, From: "00", To: "7f", URL: "redis://up:1"}, {Pool: 1, From: "00", To: "ff", URL: "redis://up:2"}},
		Texts:  map[string]string{"a": "up"},
	}}
	l, err := pack.Merge(low, up)
	must(t, err)
	want := flist.Meta{
		Backend: "redis://low:1", Config: &flist.Config{User: "low"}, Texts: map[string]string{"a": "up", "b": "low"},
		Routes: []flist.Route{
			{Pool: 0, From: "00", To: "7f", URL: "redis://up:1"},
			{Pool: 1, From: "00", To: "ff", URL: "redis://up:2"},
			{Pool: 2, From: "00", To: "ff", URL: "redis://low:1"},
		},
	}
	if d := cmp.Diff(want, l.Meta); d != "" {
		t.Error(d)
	}
	if l, err := pack.Merge(low, low); err != nil || !slices.Equal(l.Meta.Routes, low.Meta.Routes) {
		t.Errorf("one store twice: %+v, %v", l, err)
	}
	if _, err := pack.Merge(low, &flist.List{Era: flist.EraC, Nodes: root}); !errors.Is(err, errs.Invalid) {
		t.Errorf("two eras: %v", err)
	}
}

func TestConvert(t *testing.T) {
	testroot.Require(t)
	src := newDir(t)
	oddTree(t, src)
	file := filepath.Join(t.TempDir(), "x.flist")
	packed(t, src, file, "dir://"+t.TempDir(), flist.EraC)
	l := open(t, file)
	url := "dir://" + t.TempDir()
	w := writer(t, url)
	converted, err := pack.Convert(t.Context(), l, flist.EraD, router(t, l), w, 0)
	must(t, errors.Join(err, w.Close()))
	converted.Meta.Backend = url
	file = filepath.Join(t.TempDir(), "x.fl")
	must(t, pack.Write(t.Context(), file, converted))
	l = open(t, file)
	out := newDir(t)
	_, err = pack.Unpack(t.Context(), l, pack.FromSource(router(t, l)), out, pack.UnpackOptions{})
	must(t, err)
	diff(t, "converted", snapshot(t, out), snapshot(t, src))
}

// TestMeta: what an flist says besides its tree comes back.
func TestMeta(t *testing.T) {
	config := &flist.Config{
		Env: []string{"PATH=/bin", "EMPTY=", "A=b=c"}, Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"echo <&> é"}, WorkingDir: "/srv",
		User: "1000:1000", StopSignal: "SIGINT", Volumes: []string{"/data"}, Ports: []string{"80/tcp", "5000-5010/udp"}, Labels: map[string]string{"a": "b"},
	}
	redis := []flist.Route{{Pool: 0, From: "00", To: "ff", URL: "redis://10.0.0.1:6379"}}
	for name, c := range map[string]struct {
		meta   flist.Meta
		routes []flist.Route // as they come back
		c      string        // the backend of era C
	}{
		"nothing":   {},
		"config":    {meta: flist.Meta{Config: config, Texts: map[string]string{"readme": "hello"}}},
		"backend":   {flist.Meta{Backend: "redis://10.0.0.1:6379"}, redis, "zdb://10.0.0.1:6379"},
		"password":  {flist.Meta{Backend: "zdb://:secret@[::1]:9900/ns"}, []flist.Route{{From: "00", To: "ff", URL: "zdb://:secret@[::1]:9900/ns"}}, "zdb://:secret@[::1]:9900/ns"},
		"directory": {flist.Meta{Backend: "dir:///srv/chunks"}, []flist.Route{{From: "00", To: "ff", URL: "dir:///srv/chunks"}}, ""},
		"pools": {flist.Meta{Routes: []flist.Route{
			{Pool: 0, From: "00", To: "7f", URL: "redis://a:1"}, {Pool: 0, From: "80", To: "ff", URL: "redis://b:1"}, {Pool: 1, From: "00", To: "ff", URL: "https://c/d"},
		}}, nil, ""},
	} {
		for era, ec := range eras {
			l := &flist.List{Era: ec.era, Nodes: []flist.Node{{Mode: unix.S_IFDIR | 0o755}}, Meta: c.meta}
			file := filepath.Join(t.TempDir(), ec.file)
			must(t, pack.Write(t.Context(), file, l))
			got := open(t, file).Meta
			want := c.meta
			want.Backend = ""
			if ec.era == flist.EraC {
				want.Backend = c.c
			}
			if c.routes != nil {
				want.Routes = slices.Clone(c.routes)
			}
			for i := range want.Routes {
				if ec.era == flist.EraC { // as 0-fs spells it
					want.Routes[i].URL = strings.Replace(want.Routes[i].URL, "//:secret@", "//secret@", 1)
				}
			}
			if ec.era == flist.EraD { // has no pools
				want.Routes = slices.Clone(want.Routes)
				for i := range want.Routes {
					want.Routes[i].Pool = 0
				}
			}
			for k := range got.Texts {
				if k == flist.RouterKeyC {
					delete(got.Texts, k)
				}
			}
			if d := cmp.Diff(want, got, cmp.Transformer("len", func(r []flist.Route) map[string]flist.Route {
				m := map[string]flist.Route{}
				for _, x := range r {
					m[x.From+x.URL] = x
				}
				return m
			})); d != "" {
				t.Errorf("%s in era %s:\n%s", name, era, d)
			}
		}
	}
}

// TestUnpackHostile: a list that no reader made.
func TestUnpackHostile(t *testing.T) {
	testroot.Require(t)
	dir := func(first, count uint32) flist.Node {
		return flist.Node{Mode: unix.S_IFDIR | 0o755, First: first, Count: count}
	}
	for _, name := range []string{"", ".", "..", "a/b", "/etc", "../x", "a\x00b"} {
		for _, mode := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO} {
			out := newDir(t)
			l := &flist.List{Era: flist.EraC, Nodes: []flist.Node{dir(1, 1), {Name: name, Mode: mode | 0o644, Target: "x"}}}
			_, err := pack.Unpack(t.Context(), l, nil, out, pack.UnpackOptions{})
			left, _ := os.ReadDir(out)
			beside, _ := os.ReadDir(filepath.Dir(out))
			if !errors.Is(err, errs.Invalid) || len(left) != 0 || len(beside) != 1 {
				t.Errorf("%q of mode %o: %v; %d files are left, %d beside", name, mode, err, len(left), len(beside)-1)
			}
		}
	}
	t.Run("twice", func(t *testing.T) { // a link, and a file of the same name, which must not be written through it
		out, victim := newDir(t), filepath.Join(t.TempDir(), "victim")
		must(t, os.WriteFile(victim, []byte("mine"), 0o600))
		ref, stored := chunk.XXTEA.Seal([]byte("evil"))
		chunks := t.TempDir()
		w := writer(t, "dir://"+chunks)
		must(t, errors.Join(w.Put(t.Context(), ref.ID, stored), w.Close()))
		for _, second := range []flist.Node{
			{Name: "l", Mode: unix.S_IFREG | 0o644, Size: 4, ChunkSize: chunk.Size, Chunks: []chunk.Ref{ref}},
			{Name: "l", Mode: unix.S_IFREG | 0o4755},
			{Name: "l", Mode: unix.S_IFDIR | 0o777},
			{Name: "l", Mode: unix.S_IFIFO | 0o777},
		} {
			l := &flist.List{Era: flist.EraC, Nodes: []flist.Node{dir(1, 2), {Name: "l", Mode: unix.S_IFLNK | 0o777, Target: victim}, second}}
			r, err := store.Route(flist.Meta{Backend: "dir://" + chunks}, nil, nil, store.Options{})
			must(t, err)
			_, err = pack.Unpack(t.Context(), l, pack.FromSource(r), out, pack.UnpackOptions{})
			must(t, r.Close())
			b, readErr := os.ReadFile(victim)
			st, statErr := os.Stat(victim)
			must(t, errors.Join(readErr, statErr))
			if err == nil || string(b) != "mine" || st.Mode() != 0o600 {
				t.Errorf("mode %o: %v; the victim is %q, %v", second.Mode, err, b, st.Mode())
			}
		}
	})
	t.Run("devices", func(t *testing.T) {
		out := newDir(t)
		l := &flist.List{Era: flist.EraC, Nodes: []flist.Node{
			dir(1, 4),
			{Name: "kmem", Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 2)},
			{Name: "sda", Mode: unix.S_IFBLK | 0o666, Rdev: unix.Mkdev(1, 3)},
			{Name: "sock", Mode: unix.S_IFSOCK | 0o666},
			{Name: "white", Mode: unix.S_IFCHR | 0o666},
		}}
		res, err := pack.Unpack(t.Context(), l, nil, out, pack.UnpackOptions{})
		if left, _ := os.ReadDir(out); err != nil || res.Skipped != 4 || len(left) != 0 {
			t.Errorf("%+v, %v; %d are there", res, err, len(left))
		}
	})
}

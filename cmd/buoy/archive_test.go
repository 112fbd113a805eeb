package main

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestArchiveThereAndBack: what is packed is unpacked as it was; what is no file is told.
func TestArchiveThereAndBack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for name, mode := range map[string]fs.FileMode{"closed/run": 0o750, "plain": 0o640, "empty/": 0o700} {
		path := filepath.Join(from, name)
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			if err := os.MkdirAll(filepath.Join(from, dir), mode); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(from, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../etc", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "closed"), 0o555); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	var told []string
	tell := func(what string) { told = append(told, what) }
	if err := pack(&archive, from, "site", tell); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "fifo") {
		t.Errorf("told %q, want the fifo", told)
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	text := archive.Bytes()
	for range 2 { // over what is there, too
		if err := unpack(root, bytes.NewReader(text), tell); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(to, "site/closed"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unpack(root, bytes.NewReader(text), tell); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"site": 0o755, "site/closed": 0o555, "site/closed/run": 0o750, "site/plain": 0o640, "site/empty": 0o700} {
		st, err := root.Stat(name)
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, st, err, want)
		}
	}
	if link, err := root.Readlink("site/link"); link != "../../etc" || err != nil {
		t.Errorf("link = %q, %v", link, err)
	}
	_ = os.Chmod(filepath.Join(from, "closed"), 0o755)
	_ = os.Chmod(filepath.Join(to, "site/closed"), 0o755)
}

// TestUnpackStaysInside: an archive of a container that means ill.
func TestUnpackStaysInside(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"dots":           {{Name: "../out", Typeflag: tar.TypeReg}},
		"absolute":       {{Name: "/OUT", Typeflag: tar.TypeReg}},
		"link above":     {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/out", Typeflag: tar.TypeReg}},
		"directory":      {{Name: "../out", Typeflag: tar.TypeDir}},
		"hard link":      {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}},
		"mode by a link": {{Name: "d", Typeflag: tar.TypeDir, Mode: 0o777}, {Name: "d", Typeflag: tar.TypeSymlink, Linkname: ".."}},
	} {
		above := t.TempDir()
		if err := os.WriteFile(filepath.Join(above, "secret"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(above, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(above)
		if err == nil {
			err = root.Mkdir("in", 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		in, err := root.OpenRoot("in")
		if err != nil {
			t.Fatal(err)
		}
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		for _, h := range entries {
			h.Name = strings.ReplaceAll(h.Name, "/OUT", filepath.Join(above, "out"))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := unpack(in, &archive, func(string) {}); err == nil {
			t.Errorf("%s: was taken", name)
		}
		there, err := os.ReadDir(above)
		names := []string{}
		for _, one := range there {
			names = append(names, one.Name())
		}
		if st, serr := os.Stat(above); err != nil || serr != nil || !slices.Equal(names, []string{"in", "secret"}) || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: above are %q, %v", name, names, err)
		}
		_ = in.Close()
		_ = root.Close()
	}
}

// FuzzUnpack: an archive that a container sends makes nothing outside of where it
// is unpacked, and changes nothing there.
func FuzzUnpack(f *testing.F) {
	archive := func(all ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range all {
			if h.Typeflag == tar.TypeReg {
				h.Size = 1
			}
			h.Mode = 0o755
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			if h.Size > 0 {
				if _, err := w.Write([]byte("x")); err != nil {
					f.Fatal(err)
				}
			}
		}
		return b.Bytes()
	}
	f.Add(archive(tar.Header{Name: "a/", Typeflag: tar.TypeDir}, tar.Header{Name: "a/b", Typeflag: tar.TypeReg}, tar.Header{Name: "c", Linkname: "a/b", Typeflag: tar.TypeLink}))
	f.Add(archive(tar.Header{Name: "l", Linkname: "..", Typeflag: tar.TypeSymlink}, tar.Header{Name: "l/canary", Typeflag: tar.TypeReg}))
	f.Add(archive(tar.Header{Name: "../canary", Typeflag: tar.TypeReg}, tar.Header{Name: "/canary", Typeflag: tar.TypeReg}))
	f.Add(archive(tar.Header{Name: "h", Linkname: "../canary", Typeflag: tar.TypeLink}, tar.Header{Name: "h", Typeflag: tar.TypeReg}, tar.Header{Name: "f", Typeflag: tar.TypeFifo}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		into, canary := filepath.Join(dir, "into"), filepath.Join(dir, "canary")
		if err := os.Mkdir(into, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(canary, []byte("alive"), 0o600); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(into)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = unpack(root, bytes.NewReader(data), func(string) {})
		_ = filepath.WalkDir(into, func(path string, d os.DirEntry, err error) error { // so that it can be removed
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
		all, err := os.ReadDir(dir)
		text, rerr := os.ReadFile(canary)
		st, serr := os.Lstat(canary)
		if err != nil || rerr != nil || serr != nil || len(all) != 2 || string(text) != "alive" || st.Mode() != 0o600 {
			t.Fatalf("%v, %q, %v", all, text, st)
		}
	})
}

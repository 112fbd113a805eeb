package layer_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var epoch = time.Unix(1_700_000_000, 123_456_789)

// item is a tar entry for tests; its owner is whoever runs the test unless h says otherwise.
type item struct {
	h    tar.Header
	body string
}

func reg(name, body string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body}
}

func dir(name string) item {
	return item{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func sym(name, target string) item {
	return item{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func hard(name, target string) item {
	return item{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func char(name string, major, minor int64) item {
	return item{tar.Header{Typeflag: tar.TypeChar, Name: name, Devmajor: major, Devminor: minor, Mode: 0o666}, ""}
}

func archive(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, it := range items {
		h := it.h
		h.Size = int64(len(it.body))
		if h.ModTime.IsZero() {
			h.ModTime = epoch
		}
		if h.Uid == 0 && h.Gid == 0 {
			h.Uid, h.Gid = os.Getuid(), os.Getgid()
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, it.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// canary makes a directory to unpack into beside things that must not change.
type canary struct {
	t      testing.TB
	base   string
	dir    string
	before []string
}

func newCanary(t testing.TB) *canary {
	t.Helper()
	c := &canary{t: t, base: t.TempDir()}
	c.dir = filepath.Join(c.base, "deep", "root")
	for _, d := range []string{"outside/sub", "deep"} {
		must(t, os.MkdirAll(filepath.Join(c.base, d), 0o755))
	}
	for _, f := range []string{"outside/canary", "outside/sub/canary", "deep/canary", "canary"} {
		must(t, os.WriteFile(filepath.Join(c.base, f), []byte("canary"), 0o600))
	}
	c.before = c.outside()
	must(t, os.Mkdir(c.dir, 0o755))
	return c
}

// outside lists everything but the directory unpacked into, with its times, which even a touch would change.
func (c *canary) outside() []string {
	return slices.DeleteFunc(snapshot(c.t, c.base, time.Nanosecond), func(line string) bool {
		return strings.HasPrefix(line, "deep/root") || strings.HasPrefix(line, "deep ")
	})
}

func (c *canary) check() {
	c.t.Helper()
	if after := c.outside(); !slices.Equal(after, c.before) {
		c.t.Errorf("outside changed:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(c.before, "\n"))
	}
}

func (c *canary) checkEmpty() {
	c.t.Helper()
	if got := names(c.t, c.dir); len(got) > 0 {
		c.t.Errorf("directory is not empty: %q", got)
	}
}

// names lists everything below dir as "path", "path/" or "path -> target".
func names(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, err := filepath.Rel(dir, p)
		switch d.Type() {
		case fs.ModeDir:
			name += "/"
		case fs.ModeSymlink:
			var target string
			target, err = os.Readlink(p)
			name += " -> " + target
		}
		all = append(all, name)
		return err
	}))
	return all
}

// snapshot describes everything below dir, a line each: path, mode, owner, time, device, links, attributes, content.
func snapshot(t testing.TB, dir string, round time.Duration) []string {
	t.Helper()
	first := map[uint64]string{}
	var all []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		format := st.Mode & unix.S_IFMT
		line := fmt.Sprintf("%s %o %d:%d %d", name, st.Mode, st.Uid, st.Gid, time.Unix(st.Mtim.Unix()).Truncate(round).UnixNano())
		if format != unix.S_IFDIR && st.Nlink > 1 {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += fmt.Sprintf(" link %d %s", st.Nlink, first[st.Ino])
		}
		switch format {
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(b), sha256.Sum256(b))
		}
		all = append(all, line+xattrs(t, p))
		return nil
	}))
	return all
}

func xattrs(t testing.TB, p string) string {
	t.Helper()
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(p, list)
	must(t, err)
	keys := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
	slices.Sort(keys)
	out := ""
	for _, k := range keys {
		if k == "" {
			continue
		}
		value := make([]byte, 1<<16)
		m, err := unix.Lgetxattr(p, k, value)
		must(t, err)
		out += fmt.Sprintf(" %s=%x", k, value[:m])
	}
	return out
}

// diff fails t unless the snapshots are the same.
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tool runs a program of the machine and skips t where there is none.
func tool(t testing.TB, in []byte, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("SKIPPED: needs the %s program", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, stderr.String())
	}
	return out
}

// everything makes a tree with all that a file system holds.
func everything(t testing.TB, root string) {
	t.Helper()
	j := func(p string) string { return filepath.Join(root, p) }
	for _, d := range []string{"etc", "usr/bin", "var/empty", "tmp", "dev", "a/very/deep/" + strings.Repeat("d/", 60)} {
		must(t, os.MkdirAll(j(d), 0o755))
	}
	file := func(p, body string, mode uint32) {
		must(t, os.WriteFile(j(p), []byte(body), 0o600))
		must(t, unix.Chmod(j(p), mode))
	}
	file("etc/passwd", "root:x:0:0\n", 0o644)
	file("etc/shadow", "", 0o000)
	file("usr/bin/su", strings.Repeat("ELF", 100_000), 0o4755)
	file("usr/bin/wall", "x", 0o2755)
	file("usr/bin/ping", "ping", 0o755)
	file("usr/bin/"+strings.Repeat("n", 255), "long name", 0o644)
	file("a/very/deep/"+strings.Repeat("d/", 60)+strings.Repeat("long", 40), "long path", 0o644)
	file("tmp/new\nline é \xff", "odd", 0o644)
	must(t, os.Truncate(j("etc/shadow"), 3<<20+5)) // one hole
	must(t, os.WriteFile(j("var/sparse"), nil, 0o600))
	f, err := os.OpenFile(j("var/sparse"), os.O_WRONLY, 0)
	must(t, err)
	for _, at := range []int64{1 << 20, 5<<20 + 77, 9 << 20} {
		_, err := f.WriteAt([]byte("data"), at)
		must(t, err)
	}
	must(t, f.Truncate(12<<20))
	must(t, f.Close())
	must(t, os.Link(j("etc/passwd"), j("usr/passwd")))
	must(t, os.Link(j("etc/passwd"), j("a/passwd")))
	must(t, os.Symlink("/etc/passwd", j("etc/absolute")))
	must(t, os.Symlink("../../../../up", j("etc/up")))
	must(t, os.Symlink("missing", j("etc/dangling")))
	must(t, os.Link(j("etc/dangling"), j("etc/dangling2")))
	must(t, unix.Mkfifo(j("tmp/fifo"), 0o622))
	for name, dev := range map[string]uint64{"null": unix.Mkdev(1, 3), "tty": unix.Mkdev(5, 0), "ptmx": unix.Mkdev(5, 2)} {
		must(t, unix.Mknod(j("dev/"+name), unix.S_IFCHR|0o600, int(dev)))
		must(t, unix.Chmod(j("dev/"+name), 0o666))
	}
	must(t, unix.Chmod(j("tmp"), 0o1777))
	must(t, unix.Chmod(j("var/empty"), 0o500))
	must(t, os.Chown(j("usr/passwd"), 1000, 2000))
	must(t, os.Lchown(j("etc/up"), 4_000_000_000, 3_000_000_000))
	must(t, os.Chown(j("usr"), 4_294_967_294, 7))
	must(t, unix.Chmod(j("usr"), 0o2775)) // after the files, which would inherit its group
	must(t, unix.Setxattr(j("usr/bin/ping"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(t, unix.Setxattr(j("etc/passwd"), "user.note", []byte("binary\x00\xff\n="), 0))
	must(t, unix.Setxattr(j("etc/passwd"), "user.empty", nil, 0))
	must(t, unix.Setxattr(j("var"), "user.dir", []byte("yes"), 0))
	var all []string
	must(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error { all = append(all, p); return err }))
	for i, p := range slices.Backward(all) {
		ts := unix.NsecToTimespec(epoch.UnixNano() + int64(i)*1_000_000_007)
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

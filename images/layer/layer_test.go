package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// What tar(1) packs, in each of its formats and compressions, comes out as it went in.
func TestUnpackWhatTarPacks(t *testing.T) {
	testroot.Require(t)
	src := t.TempDir()
	everything(t, src)
	for _, c := range []struct {
		name  string
		args  []string
		round time.Duration
	}{
		{"pax", []string{"--format=posix", "--xattrs", "--xattrs-include=*"}, time.Nanosecond},
		{"pax sparse", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--sparse"}, time.Nanosecond},
		{"pax sparse 0.0", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.0"}, time.Nanosecond},
		{"pax sparse 0.1", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"}, time.Nanosecond},
		{"gnu", []string{"--format=gnu"}, time.Second},
		{"gnu sparse", []string{"--format=gnu", "--sparse"}, time.Second},
		{"gzip", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--gzip"}, time.Nanosecond},
		{"zstd", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--zstd"}, time.Nanosecond},
		{"zstd long", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "-Izstd --long=27"}, time.Nanosecond},
		{"xz", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--xz"}, time.Nanosecond},
		{"bzip2", []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--bzip2"}, time.Nanosecond},
		{"tight umask", []string{"--format=posix", "--xattrs", "--xattrs-include=*"}, time.Nanosecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "tight umask" {
				defer unix.Umask(unix.Umask(0o177))
			}
			in := tool(t, nil, "tar", append(c.args, "-C", src, "-c", ".")...)
			dst := t.TempDir()
			res, err := layer.Unpack(t.Context(), dst, bytes.NewReader(in), layer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := snapshot(t, src, c.round)
			if c.round == time.Second { // this format has no attributes
				for i, l := range want {
					want[i], _, _ = strings.Cut(l, " user.")
					want[i], _, _ = strings.Cut(want[i], " security.")
				}
			}
			diff(t, "tree", snapshot(t, dst, c.round), want)
			if n := int64(len(want)); res.Entries != n || res.Skipped != 0 {
				t.Errorf("Result = %+v; want %d entries", res, n)
			}
			var st unix.Stat_t
			must(t, unix.Stat(dst+"/var/sparse", &st))
			if strings.Contains(c.name, "sparse") && st.Blocks*512 > 1<<20 {
				t.Errorf("the sparse file takes %d bytes", st.Blocks*512)
			}
			if len(names(t, dst)) != len(want)-1 {
				t.Error("more or fewer names")
			}
		})
	}
}

func TestPackRoundTrip(t *testing.T) {
	testroot.Require(t)
	src := t.TempDir()
	everything(t, src)
	must(t, unix.Mknod(src+"/etc/gone", unix.S_IFCHR, 0))
	must(t, os.Mkdir(src+"/opt", 0o755))
	must(t, unix.Setxattr(src+"/opt", "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Setxattr(src+"/opt", "user.a=b%", []byte("c"), 0))
	var one, two bytes.Buffer
	must(t, layer.Pack(t.Context(), &one, src))
	dst := t.TempDir()
	res, err := layer.Unpack(t.Context(), dst, bytes.NewReader(one.Bytes()), layer.Options{Whiteouts: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(one.Bytes())); res.DiffID != want {
		t.Errorf("DiffID = %s; want %s", res.DiffID, want)
	}
	diff(t, "round trip", snapshot(t, dst, time.Nanosecond), snapshot(t, src, time.Nanosecond))
	must(t, layer.Pack(t.Context(), &two, dst))
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("packing again gives other bytes")
	}
	must(t, layer.Sync(dst))

	listed := string(tool(t, one.Bytes(), "tar", "-t"))
	for _, want := range []string{"etc/.wh.gone\n", "opt/.wh..wh..opq\n"} {
		if !strings.Contains(listed, want) {
			t.Errorf("tar lists no %q", want)
		}
	}
	must(t, os.Remove(src+"/etc/gone"))
	must(t, os.Remove(src+"/opt"))
	one.Reset()
	must(t, layer.Pack(t.Context(), &one, src))
	dst = t.TempDir()
	tool(t, one.Bytes(), "tar", "-C", dst, "--xattrs", "--xattrs-include=*", "-xp", "--same-owner", "--delay-directory-restore")
	diff(t, "tar -x", snapshot(t, dst, time.Nanosecond), snapshot(t, src, time.Nanosecond))

	must(t, os.WriteFile(src+"/.wh.x", nil, 0o600))
	if err := layer.Pack(t.Context(), io.Discard, src); !errors.Is(err, errs.Invalid) {
		t.Errorf("packing .wh.x: %v; want Invalid", err)
	}
}

// overlayLines shows a directory in overlay terms: "x whiteout", "d/ opaque", "f content".
func overlayLines(t *testing.T, root string) []string {
	t.Helper()
	all := names(t, root)
	for i, name := range all {
		base, _, _ := strings.Cut(name, " -> ")
		p := filepath.Join(root, base)
		var st unix.Stat_t
		must(t, unix.Lstat(p, &st))
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if strings.Contains(xattrs(t, p), "overlay.opaque=79") {
				all[i] += " opaque"
			}
		case unix.S_IFCHR:
			all[i] += " whiteout"
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			must(t, err)
			all[i] += " " + string(b)
		}
	}
	return all
}

func TestUnpackOrderAndWhiteouts(t *testing.T) {
	testroot.Require(t)
	for name, c := range map[string]struct {
		items []item
		want  []string
	}{
		"later file":                {[]item{reg("a", "1"), reg("./a", "2")}, []string{"a 2"}},
		"file for directory":        {[]item{reg("a/b/c", "1"), reg("a", "2")}, []string{"a 2"}},
		"directory for file":        {[]item{reg("a", "1"), dir("a"), reg("a/b", "2")}, []string{"a/", "a/b 2"}},
		"directory again":           {[]item{reg("a/b", "1"), dir("a")}, []string{"a/", "a/b 1"}},
		"link breaks":               {[]item{reg("a", "1"), hard("b", "a"), reg("a", "2")}, []string{"a 2", "b 1"}},
		"whiteout":                  {[]item{reg(".wh.a", ""), reg("d/.wh.b", "")}, []string{"a whiteout", "d/", "d/b whiteout"}},
		"opaque":                    {[]item{reg("d/x", "1"), reg("d/.wh..wh..opq", ""), reg("d/y", "2")}, []string{"d/ opaque", "d/x 1", "d/y 2"}},
		"opaque first":              {[]item{reg("d/.wh..wh..opq", ""), dir("d"), reg("d/y", "2")}, []string{"d/ opaque", "d/y 2"}},
		"whiteout then file":        {[]item{reg(".wh.a", ""), reg("a", "1")}, []string{"a 1"}},
		"file then whiteout":        {[]item{reg("a", "1"), reg(".wh.a", "")}, []string{"a 1"}},
		"whiteout then directory":   {[]item{reg(".wh.a", ""), dir("a"), reg("a/b", "1")}, []string{"a/ opaque", "a/b 1"}},
		"whiteout then implied":     {[]item{reg(".wh.a", ""), reg("a/b", "1")}, []string{"a/ opaque", "a/b 1"}},
		"directory then whiteout":   {[]item{dir("a"), reg("a/b", "1"), reg(".wh.a", "")}, []string{"a/ opaque", "a/b 1"}},
		"whiteout twice":            {[]item{reg(".wh.a", ""), reg(".wh.a", "")}, []string{"a whiteout"}},
		"whiteout of whiteout name": {[]item{reg(".wh..wh.x", "")}, nil},
		"whiteout through symlink":  {[]item{sym("l", "/o"), reg("l/.wh.x", ""), reg("l/.wh..wh..opq", "")}, []string{"l -> /o", "o/ opaque", "o/x whiteout"}},
		"whiteout of symlink":       {[]item{sym("l", "/o"), reg(".wh.l", "")}, []string{"l -> /o"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := newCanary(t)
			if _, err := layer.Unpack(t.Context(), out.dir, bytes.NewReader(archive(t, c.items...)), layer.Options{Whiteouts: true}); err != nil {
				t.Fatal(err)
			}
			if got := overlayLines(t, out.dir); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			out.check()
		})
	}
}

// The kernel agrees on what whiteouts and opaque directories hide.
func TestWhiteoutsInOverlayfs(t *testing.T) {
	testroot.Require(t)
	base := t.TempDir()
	for _, d := range []string{"lower", "upper", "merged"} {
		must(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	unpack := func(d string, items ...item) layer.Result {
		t.Helper()
		res, err := layer.Unpack(t.Context(), filepath.Join(base, d), bytes.NewReader(archive(t, items...)), layer.Options{Whiteouts: true})
		must(t, err)
		return res
	}
	unpack("lower", reg("keep/a", "1"), reg("gone/a", "1"), reg("file", "1"), reg("opq/a", "1"), reg("again/a", "1"), reg("other", "1"))
	res := unpack("upper", reg(".wh.gone", ""), reg(".wh.file", ""), reg("opq/.wh..wh..opq", ""), reg("opq/b", "2"), reg(".wh.again", ""), reg("again/b", "2"), reg("keep/b", "2"))
	opts := fmt.Sprintf("lowerdir=%s/upper:%s/lower", base, base)
	if err := unix.Mount("overlay", base+"/merged", "overlay", 0, opts); err != nil {
		t.Skipf("SKIPPED: this kernel mounts no overlay: %v", err)
	}
	defer func() { must(t, unix.Unmount(base+"/merged", 0)) }()
	want := []string{"again/", "again/b 2", "keep/", "keep/a 1", "keep/b 2", "opq/", "opq/b 2", "other 1"}
	if got := overlayLines(t, base+"/merged"); !slices.Equal(got, want) {
		t.Errorf("merged %q; want %q", got, want)
	}
	if res.Opaque {
		t.Error("Opaque without an opaque root")
	}
	must(t, os.Mkdir(base+"/root", 0o755))
	if res := unpack("root", reg(".wh..wh..opq", "")); !res.Opaque {
		t.Error("Opaque is false for an opaque root")
	}
}

func TestUnpackRootEntryAndImpliedDirectories(t *testing.T) {
	testroot.Require(t)
	root := dir("./")
	root.h.Mode, root.h.Uid = 0o1750, 12
	for range 2 {
		dst := t.TempDir()
		_, err := layer.Unpack(t.Context(), dst, bytes.NewReader(archive(t, root, reg("a/b/c", ""))), layer.Options{})
		must(t, err)
		got := snapshot(t, dst, time.Nanosecond)
		want := []string{
			fmt.Sprintf(". 41750 12:0 %d", epoch.UnixNano()), "a 40755 0:0 0", "a/b 40755 0:0 0",
			fmt.Sprintf("a/b/c 100644 0:0 %d 0 %x", epoch.UnixNano(), sha256.Sum256(nil)),
		}
		diff(t, "tree", got, want)
	}
}

func TestUnpackDevices(t *testing.T) {
	testroot.Require(t)
	items := []item{char("null", 1, 3), char("sda", 8, 0), char("zero-zero", 0, 0), {tar.Header{Typeflag: tar.TypeBlock, Name: "loop", Devmajor: 7}, ""}}
	for _, c := range []struct {
		opt     layer.Options
		want    []string
		skipped int64
	}{{layer.Options{}, []string{"null"}, 3}, {layer.Options{Devices: true}, []string{"loop", "null", "sda"}, 1}} {
		dst := t.TempDir()
		res, err := layer.Unpack(t.Context(), dst, bytes.NewReader(archive(t, items...)), c.opt)
		must(t, err)
		if got := names(t, dst); !slices.Equal(got, c.want) || res.Skipped != c.skipped {
			t.Errorf("Devices=%v: %q, skipped %d; want %q, %d", c.opt.Devices, got, res.Skipped, c.want, c.skipped)
		}
	}
}

func TestUnpackCompressedEnds(t *testing.T) {
	in := archive(t, reg("a", "x"))
	z := zip(t, in)
	for name, b := range map[string][]byte{
		"zeros after gzip":     append(bytes.Clone(z), make([]byte, 10_000)...),
		"two gzip members":     append(zip(t, in[:1000]), zip(t, in[1000:])...),
		"more after the end":   append(bytes.Clone(in), make([]byte, 10_240)...),
		"no end mark":          in[:len(in)-1024],
		"one zero block":       in[:len(in)-512],
		"zstd skippable frame": append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"), tool(t, in, "zstd", "-c")...),
	} {
		dst := t.TempDir()
		r := bytes.NewReader(b)
		_, err := layer.Unpack(t.Context(), dst, r, layer.Options{})
		if got := names(t, dst); err != nil || !slices.Equal(got, []string{"a"}) || r.Len() != 0 {
			t.Errorf("%s: %q, %v, %d bytes unread", name, got, err, r.Len())
		}
	}
}

func TestUnpackDiskFull(t *testing.T) {
	testroot.Require(t)
	var many []item
	for i := range 100 {
		many = append(many, reg(fmt.Sprintf("d%d/f", i), ""))
	}
	for name, items := range map[string][]item{"bytes": {reg("a", strings.Repeat("x", 900_000)), reg("b", strings.Repeat("x", 900_000))}, "inodes": many} {
		dst := t.TempDir()
		if err := unix.Mount("tmpfs", dst, "tmpfs", 0, "size=1m,nr_inodes=50"); err != nil {
			t.Skipf("SKIPPED: no tmpfs: %v", err)
		}
		_, err := layer.Unpack(t.Context(), dst, bytes.NewReader(archive(t, items...)), layer.Options{})
		if errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "no space left on device") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: err = %v (%v); want Unavailable, no space left", name, err, errs.KindOf(err))
		}
		if got := names(t, dst); len(got) > 0 {
			t.Errorf("%s: left %q", name, got)
		}
		must(t, unix.Unmount(dst, 0))
	}
}

// endless gives an archive of one file that never ends, as fast as it is read.
type endless struct{ head *bytes.Reader }

func (e endless) Read(p []byte) (int, error) {
	if e.head.Len() > 0 {
		return e.head.Read(p)
	}
	return len(p), nil
}

func TestUnpackStopsWithItsContext(t *testing.T) {
	before := runtime.NumGoroutine()
	head := archive(t, reg("a", strings.Repeat("x", 10_000)))[:3000]
	pipe := func() io.ReadCloser {
		r, w, err := os.Pipe()
		must(t, err)
		t.Cleanup(func() { _ = w.Close() })
		return r
	}
	later := pipe()
	for name, r := range map[string]io.Reader{
		"endless": endless{bytes.NewReader(raw("f", '0', "77777777777\x00", ""))},
		"blocked": pipe(),
		"blocked later": struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), later), later},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		out := newCanary(t)
		start := time.Now()
		_, err := layer.Unpack(ctx, out.dir, r, layer.Options{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(start))
		}
		out.checkEmpty()
		cancel()
	}
	for i := 0; runtime.NumGoroutine() > before && i < 100; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines; %d before", n, before)
	}
}

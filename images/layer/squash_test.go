package layer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

func mksquashfs(t testing.TB, src string, args ...string) []byte {
	t.Helper()
	img := filepath.Join(t.TempDir(), "img")
	tool(t, nil, "mksquashfs", append([]string{src, img, "-noappend", "-quiet", "-no-progress", "-processors", "1"}, args...)...)
	b, err := os.ReadFile(img)
	must(t, err)
	return b
}

func TestUnpackSquashfsAsMksquashfsPacks(t *testing.T) {
	testroot.Require(t)
	src := t.TempDir()
	everything(t, src)
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20+333) // does not compress: stored blocks
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(src+"/usr/noise", noise, 0o644))
	must(t, os.WriteFile(src+"/usr/program", self[:400<<10], 0o755))
	must(t, os.Mkdir(src+"/many", 0o755))
	for i := range 300 {
		must(t, os.WriteFile(fmt.Sprintf("%s/many/%04d", src, i), noise[i:2*i], 0o644))
	}
	must(t, unix.Setxattr(src+"/many", "user.long", noise[:3000], 0))
	must(t, unix.Setxattr(src+"/usr/noise", "user.long", noise[:3000], 0))
	must(t, unix.Setxattr(src+"/usr/program", "trusted.overlay.opaque", []byte("y"), 0))
	must(t, unix.Mknod(src+"/dev/sda", unix.S_IFBLK, int(unix.Mkdev(8, 70_000))))
	want := snapshot(t, src, time.Second)
	for i, l := range want {
		want[i], _, _ = strings.Cut(l, " trusted.overlay")
	}
	for _, args := range []string{
		"-comp gzip", "-comp xz", "-comp xz -Xbcj x86,arm,armthumb", "-comp zstd", "-comp lz4", "-comp lz4 -Xhc", "-comp lzma",
		"-b 4096", "-b 1M -always-use-fragments", "-no-fragments", "-noI -noD -noF -noX", "-no-duplicates -no-exports",
	} {
		t.Run(args, func(t *testing.T) {
			img := mksquashfs(t, src, strings.Fields(args)...)
			dst := t.TempDir()
			res, err := layer.UnpackSquashfs(t.Context(), dst, bytes.NewReader(img), int64(len(img)), layer.Options{Devices: true})
			must(t, err)
			diff(t, "tree", snapshot(t, dst, time.Second), want)
			if got := fmt.Sprintf("sha256:%x", sha256.Sum256(img)); res.DiffID != got || res.Skipped != 0 || res.Entries != int64(len(want)) {
				t.Errorf("Result = %+v; want %s, %d entries", res, got, len(want))
			}
			var st unix.Stat_t
			must(t, unix.Stat(dst+"/var/sparse", &st))
			if st.Blocks*512 > 1<<20 {
				t.Errorf("the sparse file takes %d bytes", st.Blocks*512)
			}
		})
	}
}

func TestUnpackSquashfsRefuses(t *testing.T) {
	src := t.TempDir()
	must(t, os.WriteFile(src+"/f", []byte(strings.Repeat("x", 2000)), 0o644))
	img := mksquashfs(t, src)
	future := bytes.Clone(img)
	future[28] = 5
	lzo := bytes.Clone(img)
	lzo[20] = 3
	for name, c := range map[string]struct {
		img  []byte
		opt  layer.Options
		text string
	}{
		"nothing": {nil, layer.Options{}, "short"}, "short": {img[:200], layer.Options{}, "short"},
		"tar": {archive(t, reg("a", "")), layer.Options{}, "superblock"}, "future": {future, layer.Options{}, "version 5"},
		"lzo": {lzo, layer.Options{}, "lzo"}, "too large": {img, layer.Options{MaxBytes: 1999}, "1999 bytes"},
		"too many": {img, layer.Options{MaxEntries: 1}, "1 entries"},
	} {
		out := newCanary(t)
		_, err := layer.UnpackSquashfs(t.Context(), out.dir, bytes.NewReader(c.img), int64(len(c.img)), c.opt)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: err = %v; want Invalid with %q", name, err, c.text)
		}
		out.checkEmpty()
	}
}

// smallImages are images small enough to damage everywhere; uncompressed tables let damage reach the structures.
func smallImages(t testing.TB) [][]byte {
	src := t.TempDir()
	must(t, os.MkdirAll(src+"/d/e", 0o755))
	must(t, os.WriteFile(src+"/d/f", []byte(strings.Repeat("x", 9000)), 0o644))
	must(t, os.WriteFile(src+"/d/g", []byte("y"), 0o4755))
	must(t, os.Link(src+"/d/g", src+"/h"))
	must(t, os.Symlink("../../outside", src+"/l"))
	must(t, unix.Setxattr(src+"/d/g", "user.a", []byte("b"), 0))
	must(t, unix.Mkfifo(src+"/p", 0o600))
	return [][]byte{
		mksquashfs(t, src, "-noI", "-noX", "-b", "4096", "-nopad"),
		mksquashfs(t, src, "-comp", "gzip", "-nopad", "-b", "4096"), mksquashfs(t, src, "-comp", "xz", "-nopad"),
		mksquashfs(t, src, "-comp", "zstd", "-nopad"), mksquashfs(t, src, "-comp", "lz4", "-nopad"),
	}
}

func damage(t *testing.T, out *canary, img []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	opt := layer.Options{MaxBytes: 1 << 22, MaxEntries: 200}
	_, err := layer.UnpackSquashfs(ctx, out.dir, bytes.NewReader(img), int64(len(img)), opt)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("it hangs")
	}
	if err != nil {
		out.checkEmpty()
	}
}

func TestUnpackSquashfsDamaged(t *testing.T) {
	testroot.Require(t)
	out := newCanary(t)
	for i, img := range smallImages(t) {
		for at := range img {
			for _, v := range []byte{0xff, 0x01, 0x80} {
				bad := bytes.Clone(img)
				bad[at] ^= v
				damage(t, out, bad)
				for _, name := range names(t, out.dir) {
					_ = os.RemoveAll(filepath.Join(out.dir, strings.Split(name, " -> ")[0])) // parents went first
				}
				if t.Failed() {
					t.Fatalf("image %d, byte %d ^ %#x", i, at, v)
				}
				if i > 0 {
					break
				}
			}
		}
	}
	out.check()
}

// A directory that holds itself, or its parent, ends.
func TestUnpackSquashfsLoop(t *testing.T) {
	src := t.TempDir()
	must(t, os.MkdirAll(src+"/d/e", 0o755))
	img := mksquashfs(t, src, "-noI", "-nopad")
	dirs := int(binary.LittleEndian.Uint64(img[72:]))
	root := binary.LittleEndian.Uint64(img[32:])
	// The listing of d has one header and the entry of e: give it the offset of the root's inode.
	binary.LittleEndian.PutUint16(img[dirs+2+12:], uint16(root))
	out := newCanary(t)
	_, err := layer.UnpackSquashfs(t.Context(), out.dir, bytes.NewReader(img), int64(len(img)), layer.Options{})
	if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "two places") {
		t.Errorf("err = %v; want a loop refused", err)
	}
	out.checkEmpty()
}

func FuzzUnpackSquashfs(f *testing.F) {
	testroot.Require(f)
	for _, img := range smallImages(f) {
		f.Add(img)
	}
	f.Fuzz(func(t *testing.T, img []byte) {
		out := newCanary(t)
		damage(t, out, img)
		out.check()
	})
}

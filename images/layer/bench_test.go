package layer_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// benchTree is 5,000 files in 250 directories, 0 to 64 KiB each, half compressible, like /usr of a distribution.
func benchTree(b *testing.B) string {
	b.Helper()
	src := b.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 64<<10)
	for i := range 5000 {
		d := fmt.Sprintf("%s/usr/lib/package-%03d", src, i/20)
		must(b, os.MkdirAll(d, 0o755))
		n := r.IntN(1 << (6 + r.IntN(11)))
		for j := range n {
			buf[j] = byte(r.Uint32()) >> (j / 512 % 2 * 6)
		}
		must(b, os.WriteFile(fmt.Sprintf("%s/file-%d", d, i), buf[:n], 0o644))
	}
	return src
}

// BenchmarkUnpack compares with the programs of the machine, on the same file system.
func BenchmarkUnpack(b *testing.B) {
	testroot.Require(b)
	src := benchTree(b)
	plain := tool(b, nil, "tar", "-C", src, "-c", ".")
	each := func(name string, in []byte, f func(b *testing.B, dst string)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			base := b.TempDir()
			for i := 0; b.Loop(); i++ {
				dst := filepath.Join(base, fmt.Sprint(i))
				must(b, os.Mkdir(dst, 0o755))
				f(b, dst)
				b.StopTimer()
				must(b, os.RemoveAll(dst))
				b.StartTimer()
			}
		})
	}
	file := func(in []byte) string {
		p := filepath.Join(b.TempDir(), "archive")
		must(b, os.WriteFile(p, in, 0o600))
		return p
	}
	for _, c := range []struct {
		name, flag string
		in         []byte
	}{{"plain", "-p", plain}, {"gzip", "-z", tool(b, plain, "gzip", "-c")}, {"zstd", "--zstd", tool(b, plain, "zstd", "-c")}, {"xz", "-J", tool(b, plain, "xz", "-1", "-c")}} {
		each(c.name+"/buoy", c.in, func(b *testing.B, dst string) {
			_, err := layer.Unpack(b.Context(), dst, bytes.NewReader(c.in), layer.Options{})
			must(b, err)
		})
		p := file(c.in)
		each(c.name+"/tar", c.in, func(b *testing.B, dst string) {
			must(b, exec.Command("tar", "-C", dst, c.flag, "-xf", p).Run())
		})
	}
	for _, comp := range []string{"gzip", "zstd", "xz"} {
		img := mksquashfs(b, src, "-comp", comp)
		each("squashfs-"+comp+"/buoy", img, func(b *testing.B, dst string) {
			_, err := layer.UnpackSquashfs(b.Context(), dst, bytes.NewReader(img), int64(len(img)), layer.Options{})
			must(b, err)
		})
		p := file(img)
		each("squashfs-"+comp+"/unsquashfs", img, func(b *testing.B, dst string) {
			must(b, exec.Command("unsquashfs", "-q", "-n", "-f", "-d", dst, p).Run())
		})
	}
}

package pack_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/pack"
	"github.com/buoy-edge/buoy/flist/store"
)

// nowhere takes chunks and forgets them: what is measured is reading, sealing and the list.
type nowhere struct{ store.Writer }

func (nowhere) Put(context.Context, chunk.ID, []byte) error { return nil }

// benchTree is 128 MiB: programs and libraries of this machine if it has so many, which compress as those of images do.
func benchTree(b *testing.B) (dir string, size int64) {
	b.Helper()
	dir = newDir(b)
	const enough = 128 << 20
	for _, from := range []string{"/usr/bin/*", "/usr/lib/*/*"} {
		names, err := filepath.Glob(from)
		must(b, err)
		for _, name := range names {
			st, err := os.Lstat(name)
			if size >= enough || err != nil || !st.Mode().IsRegular() {
				continue
			}
			content, err := os.ReadFile(name)
			must(b, err)
			must(b, os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o644))
			size += int64(len(content))
		}
	}
	return dir, size
}

func BenchmarkPack(b *testing.B) {
	dir, size := benchTree(b)
	for name, era := range eras {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				l, _, err := pack.Pack(b.Context(), pack.Options{Dir: dir, Era: era.era, Store: nowhere{}})
				must(b, err)
				must(b, pack.Write(b.Context(), filepath.Join(b.TempDir(), era.file), l))
			}
		})
	}
}

func BenchmarkUnpack(b *testing.B) {
	dir, size := benchTree(b)
	for name, era := range eras {
		url := "dir://" + b.TempDir()
		l, _ := packed(b, dir, filepath.Join(b.TempDir(), era.file), url, era.era)
		r := router(b, &flist.List{Meta: flist.Meta{Backend: url}})
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				_, err := pack.Unpack(b.Context(), l, pack.FromSource(r), newDir(b), pack.UnpackOptions{})
				must(b, err)
			}
		})
	}
}

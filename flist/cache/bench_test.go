package cache

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/store"
)

// BenchmarkReadAt compares reads of cached chunks with those of a plain file.
func BenchmarkReadAt(b *testing.B) {
	list := makeChunks(64, chunk.Size)
	c := mustOpen(b, Config{Dir: b.TempDir()})
	v := c.View(newShop(list))
	name := filepath.Join(b.TempDir(), "plain")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for i, m := range list {
		if _, err := f.WriteAt(m.plain, int64(i)*chunk.Size); err != nil {
			b.Fatal(err)
		}
		check(b, v, m)
	}
	for _, n := range []int{4 << 10, 128 << 10, 512 << 10} {
		p := make([]byte, n)
		pieces := len(list) * chunk.Size / n
		b.Run(fmt.Sprintf("plain-%dk", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			for i := 0; b.Loop(); i++ {
				if _, err := f.ReadAt(p, int64(i%pieces*n)); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("cache-%dk", n>>10), func(b *testing.B) {
			b.SetBytes(int64(n))
			for i := 0; b.Loop(); i++ {
				off := i % pieces * n
				if _, err := v.ReadAt(b.Context(), list[off/chunk.Size].Ref, chunk.Size, p, int64(off%chunk.Size)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpenCache is a start with 100,000 chunks.
func BenchmarkOpenCache(b *testing.B) {
	dir := b.TempDir()
	for i := range 100_000 {
		ref, _ := chunk.XXTEA.Seal([]byte(fmt.Sprint(i)))
		name := hex.EncodeToString([]byte(ref.ID))
		if err := os.MkdirAll(filepath.Join(dir, name[:2]), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name[:2], name), []byte("x"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		c, err := Open(Config{Dir: dir})
		if err != nil || c.Stats().Chunks != 100_000 {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFirstLook is the first read of a chunk after a start, with its hash.
func BenchmarkFirstLook(b *testing.B) {
	list := makeChunks(64, chunk.Size)
	dir := b.TempDir()
	c := mustOpen(b, Config{Dir: dir})
	for _, m := range list {
		check(b, c.View(newShop(list)), m)
	}
	p := make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		if i%64 == 0 {
			b.StopTimer()
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
			c = mustOpen(b, Config{Dir: dir})
			b.StartTimer()
		}
		m := list[i%64]
		if _, err := c.View(newShop(nil)).ReadAt(b.Context(), m.Ref, m.Size, p, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCold reads 100 chunks of 512 KiB in turn from a store that is 10ms away.
func BenchmarkCold(b *testing.B) {
	list := makeChunks(100, chunk.Size)
	hub := storeOf(b, list, 10*time.Millisecond)
	for _, ahead := range []int{0, 4, 8, 16} {
		b.Run(fmt.Sprintf("ahead-%d", ahead), func(b *testing.B) {
			b.SetBytes(100 * chunk.Size)
			for b.Loop() {
				c := mustOpen(b, Config{Dir: b.TempDir()})
				v := c.View(route(b, []string{hub.URL}, nil, store.Options{}))
				p := make([]byte, 128<<10)
				for i, m := range list {
					v.Ahead(b.Context(), wants(list[min(i+1, 100):min(i+1+ahead, 100)]))
					for off := 0; off < m.Size; off += len(p) {
						if _, err := v.ReadAt(b.Context(), m.Ref, m.Size, p, int64(off)); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
		})
	}
	b.Run("prefetch-16", func(b *testing.B) {
		b.SetBytes(100 * chunk.Size)
		for b.Loop() {
			c := mustOpen(b, Config{Dir: b.TempDir()})
			if err := c.View(route(b, []string{hub.URL}, nil, store.Options{})).Prefetch(b.Context(), wants(list), 16, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

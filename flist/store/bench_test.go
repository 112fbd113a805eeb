package store

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/testredis"
)

// BenchmarkFetch is chunks of 512 KiB from a redis on this machine, by so many readers.
func BenchmarkFetch(b *testing.B) {
	s := testredis.New(b)
	for _, scheme := range []chunk.Scheme{chunk.XXTEA, chunk.GCM} {
		var list []made
		w := mustWrite(b, s.URL(), Options{})
		for i := range 32 {
			m := makeChunk(scheme, uint64(i), chunk.Size)
			list = append(list, m)
			if err := w.Put(b.Context(), m.ref.ID, m.stored); err != nil {
				b.Fatal(err)
			}
		}
		name := map[chunk.Scheme]string{chunk.XXTEA: "xxtea", chunk.GCM: "gcm"}[scheme]
		for _, n := range []int{1, 2, 4, 8, 16, 32} {
			b.Run(fmt.Sprintf("%s-%d", name, n), func(b *testing.B) {
				r := mustRoute(b, flistMeta(s.URL()), nil, nil, Options{Parallel: n})
				b.SetBytes(chunk.Size)
				b.SetParallelism((n + 1) / 2) // for each of two processors
				var next atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						m := list[next.Add(1)%32]
						if _, err := r.Fetch(b.Context(), m.ref, chunk.Size); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
		b.Run(name+"-get-16", func(b *testing.B) {
			b.SetBytes(int64(len(list[0].stored)))
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := w.Get(b.Context(), list[0].ref.ID); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

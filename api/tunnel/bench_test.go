package tunnel_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
)

func BenchmarkRequest(b *testing.B) {
	s := newSite(b)
	s.join(b, "h1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	c := s.client("h1")
	for b.Loop() {
		get(b, c, "/")
	}
}

func BenchmarkDownload(b *testing.B) {
	const size = 16 << 20
	s := newSite(b)
	s.join(b, "h1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, 32<<10)
		for range size / len(piece) {
			_, _ = w.Write(piece)
		}
	}))
	c := s.client("h1")
	b.SetBytes(size)
	for b.Loop() {
		resp, err := c.Get("http://node/")
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
			b.Fatal(n, err)
		}
		resp.Body.Close()
	}
}

// BenchmarkIdle is what both ends of an idle tunnel take of memory.
func BenchmarkIdle(b *testing.B) {
	s := newSite(b)
	n := 0
	used := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := used()
	for b.Loop() {
		s.join(b, fmt.Sprint("h", n), http.NotFoundHandler())
		n++
	}
	b.ReportMetric(float64(used()-before)/float64(n), "B/tunnel")
}

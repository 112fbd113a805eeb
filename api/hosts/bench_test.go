package hosts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/buoy-edge/buoy/app"
)

// still is an engine that finds a host as the real one does and does nothing.
type still struct {
	*fakeEngine
	host map[[sha256.Size]byte]app.Host
}

func (s *still) HostByToken(token string) (app.Host, bool) {
	h, ok := s.host[sha256.Sum256([]byte(token))]
	return h, ok
}

func (*still) Report(context.Context, string, app.Report) (app.Orders, error) {
	return app.Orders{Mode: app.Continue}, nil
}

// answer is a ResponseWriter that keeps nothing.
type answer struct {
	header http.Header
	status int
	size   int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { a.size += len(p); return len(p), nil }

// BenchmarkUpdateStatus is a report in which nothing has changed, through all
// of the server but its connections.
func BenchmarkUpdateStatus(b *testing.B) {
	f := newFake()
	_, s := server(b, func(c *Config) {
		c.Engine = &still{f, map[[sha256.Size]byte]app.Host{sha256.Sum256([]byte("token1")): f.hosts["node1"]}}
	})
	body := []byte(`{"CPUUtilized":12.5,"numCPU":4,"vCPUAvailable":3584,"memoryAvailable":6442450944,"memoryUsed":2147483648,"diskAvailableRoot":10737418240,` +
		`"diskAvailableOptAiware":10737418240,"numGPU":0,"GPUAvailable":0,"numContainers":12,"numEngineInstances":12,"containerStatus":[],` +
		`"boot":"f3976780-f369-45df-ab54-206149dc000e","sequence":4711,"time":"2026-11-21T08:00:00.123456789Z","diskTotal":107374182400,"same":4710}`)
	reader := bytes.NewReader(body)
	r := httptest.NewRequest("POST", "/host/node1/updatestatus", reader)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer token1")
	w := &answer{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		r.Body = io.NopCloser(reader)
		clear(w.header)
		if s.ServeHTTP(w, r); w.status != 200 {
			b.Fatal(w.status)
		}
	}
	b.ReportMetric(float64(w.size)/float64(b.N), "bytes/answer")
}

package system

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/node"
)

// measured is a node with so many containers, of which every second is of an app.
type measured int

func (m measured) Sample(time.Duration) (*node.Sample, error) {
	s := &node.Sample{At: time.Now(), Memory: 1 << 34}
	for i := range int(m) {
		u := node.Usage{Name: fmt.Sprintf("web-%03d", i), Image: "docker.io/library/nginx:1.27", Started: time.Unix(1700000000, 0), Stats: container.Stats{
			CPU:       container.CPUStats{Total: 1500 * time.Millisecond, User: time.Second, System: 500 * time.Millisecond, Periods: 10, Throttled: 3, ThrottledTime: 250 * time.Millisecond},
			Memory:    container.MemoryStats{Usage: 123456789, WorkingSet: 100000000, RSS: 90000000, Cache: 33456789, Peak: 200000000, Limit: 1 << 28, OOMKills: 2},
			Processes: 3, Tasks: 12, TaskLimit: 4096, IO: container.IOStats{ReadBytes: 1 << 20, WriteBytes: 1 << 21, Reads: 256, Writes: 512},
			NICs:     []container.NICStats{{Name: "eth0", RXBytes: 123456, RXPackets: 1234, TXBytes: 654321, TXPackets: 4321}},
			Pressure: container.PressureStats{Known: true, CPU: container.Pressure{Some: container.Stall{Avg10: 1, Total: time.Second}}},
		}}
		if i%2 == 0 {
			u.App, u.Limits.MilliCPU = "web", 500
		}
		s.Containers = append(s.Containers, u)
	}
	return s, nil
}

func (m measured) Figures(context.Context) (node.Figures, error) {
	return node.Figures{
		CPUs: 2, CPUBusy: time.Hour, Load: .5, MemoryTotal: 1 << 34, MemoryAvailable: 1 << 33, DataTotal: 1 << 40, DataFree: 1 << 39,
		Links: map[string]node.Link{"eth0": {RXBytes: 5}}, Disks: map[string]node.Disk{"vda": {Reads: 7}},
		Waits:  map[node.Wait]time.Duration{{Resource: "cpu"}: time.Second, {Resource: "memory", All: true}: time.Second},
		Images: 3, Layers: 9, ImageBytes: 1 << 30, Starts: node.Starts{Count: 3, Sum: time.Second, Below: map[float64]uint64{.5: 2, 1: 3}},
		Pulled: 4, PullsFailed: 1, Restarted: 2, Exits: map[string]uint64{"Exited": 5}, Failures: map[string]uint64{"StartFailed": 1},
	}, nil
}

func measuring(t testing.TB, n Node) *api.Server {
	t.Helper()
	d, err := New(Config{Health: func() Health { return Health{} }, Containers: func() map[string]int { return map[string]int{"running": 1} }, Node: n})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{Dialects: []api.Dialect{d}, Observe: d.Observe})
	if err != nil {
		t.Fatal(err)
	}
	d.Tell(InFlight(s.InFlight))
	return s
}

func scraped(t testing.TB, s *api.Server) map[string]*dto.MetricFamily {
	t.Helper()
	s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/none", nil))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(get(t.(*testing.T), s, "/metrics")))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// TestExposition: Prometheus can read it, and finds nothing to complain of.
func TestExposition(t *testing.T) {
	s := measuring(t, measured(3))
	families := scraped(t, s)
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(families))).Lint()
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "container_") { // whose names are cAdvisor's
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	value := func(name string, labels string) float64 {
		t.Helper()
		for _, m := range families[name].GetMetric() {
			var all []string
			for _, l := range m.GetLabel() {
				all = append(all, l.GetName()+"="+l.GetValue())
			}
			if strings.Join(all, " ") == labels {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		t.Errorf("there is no %s{%s}", name, labels)
		return 0
	}
	web := "name=web-001 image=docker.io/library/nginx:1.27"
	ofApp := "name=web-002 image=docker.io/library/nginx:1.27 app=web"
	for _, want := range []struct {
		name, labels string
		value        float64
	}{
		{"container_cpu_usage_seconds_total", web, 1.5},
		{"container_memory_working_set_bytes", ofApp, 1e8},
		{"container_network_receive_bytes_total", web + " interface=eth0", 123456},
		{"container_oom_events_total", web, 2},
		{"container_spec_cpu_quota", ofApp, 50000},
		{"container_pressure_cpu_waiting_seconds_total", web, 1},
		{"container_start_time_seconds", web, 1700000000},
		{"buoy_node_cpu_busy_seconds_total", "", 3600},
		{"buoy_node_pressure_seconds_total", "resource=memory tasks=all", 1},
		{"buoy_image_pulls_total", "result=failed", 1},
		{"buoy_container_exits_total", "reason=Exited", 5},
		{"buoy_container_start_duration_seconds", "", 3},
		{"buoy_api_errors_total", "kind=not_found", 1},
		{"buoy_api_requests_in_flight", "", 1},
	} {
		if got := value(want.name, want.labels); got != want.value {
			t.Errorf("%s{%s} is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	if n := len(families["container_spec_cpu_quota"].GetMetric()); n != 2 {
		t.Errorf("%d containers have a quota, of 2", n)
	}
}

// TestLabels: what is in a label cannot end it.
func TestLabels(t *testing.T) {
	var out bytes.Buffer
	odd := "a\\\"\n{},b=\"c"
	if err := expose(&out, &node.Sample{Containers: []node.Usage{{Name: "x", Image: odd, App: odd}}}); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range families["container_processes"].GetMetric()[0].GetLabel() {
		if l.GetName() != "name" && l.GetValue() != odd {
			t.Errorf("%s is %q", l.GetName(), l.GetValue())
		}
	}
}

// TestPackedMetrics are the same as those that are not.
func TestPackedMetrics(t *testing.T) {
	s := measuring(t, measured(1))
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	s.ServeHTTP(w, r)
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil || !bytes.Contains(text, []byte("container_processes{")) || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("%.200q %v %v", text, w.Header(), err)
	}
}

// TestDashboard: what the dashboard asks for is told.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile("../../docs/grafana-buoy.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(raw) {
		t.Fatal("it is no JSON")
	}
	families := scraped(t, measuring(t, measured(2)))
	apps, err := os.ReadFile("../apps/metrics.go") // its test has that these are told
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`\b(buoy|container)_[a-z0-9_]+`).FindAllString(string(raw), -1)
	if len(asked) < 30 {
		t.Errorf("it asks for %d metrics", len(asked))
	}
	for _, name := range asked {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if trimmed := strings.TrimSuffix(name, suffix); families[trimmed] != nil && families[trimmed].GetType() == dto.MetricType_HISTOGRAM {
				base = trimmed
			}
		}
		ofApps := strings.TrimSuffix(strings.TrimPrefix(name, "buoy_"), "_bucket")
		if families[base] == nil && !strings.Contains(string(apps), fmt.Sprintf(", %q", ofApps)) {
			t.Errorf("nobody tells %s", name)
		}
	}
}

// BenchmarkScrape is of 500 containers, without measuring them: container has
// the benchmark of that.
func BenchmarkScrape(b *testing.B) {
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			s := measuring(b, measured(500))
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				r := httptest.NewRequest("GET", "/metrics", nil)
				r.Header.Set("Accept-Encoding", encoding)
				s.ServeHTTP(w, r)
				n = w.Body.Len()
			}
			b.ReportMetric(float64(n), "bytes")
		})
	}
}

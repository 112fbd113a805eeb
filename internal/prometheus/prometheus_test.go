package prometheus

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestPage(t *testing.T) {
	var p Page
	p.Metric(Gauge, "a_none", "It has no values.", "x")
	n := p.Metric(Counter, "a_total", "Things.", "kind", "of")
	n.Add(1, "b", "")
	n.Add(1e21, "odd\\\"\n\xff{},x=\"y", "ä")
	p.Metric(Gauge, "b", "Others.").Add(math.NaN())
	h := p.Metric(Histogram, "c_seconds", "Times.", "app")
	h.Buckets(5, .75, map[float64]uint64{10: 5, .005: 1, .25: 3}, "web")
	h.Buckets(0, 0, nil, "idle")
	var out strings.Builder
	if _, err := p.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	want := `# HELP a_total Things.
# TYPE a_total counter
a_total{kind="b",of=""} 1
a_total{kind="odd\\\"\n�{},x=\"y",of="ä"} 1e+21
# HELP b Others.
# TYPE b gauge
b NaN
# HELP c_seconds Times.
# TYPE c_seconds histogram
c_seconds_bucket{app="web",le="0.005"} 1
c_seconds_bucket{app="web",le="0.25"} 3
c_seconds_bucket{app="web",le="10"} 5
c_seconds_bucket{app="web",le="+Inf"} 5
c_seconds_sum{app="web"} 0.75
c_seconds_count{app="web"} 5
c_seconds_bucket{app="idle",le="+Inf"} 0
c_seconds_sum{app="idle"} 0
c_seconds_count{app="idle"} 0
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got := families["a_total"].GetMetric()[1].GetLabel()[0].GetValue(); got != "odd\\\"\n\uFFFD{},x=\"y" {
		t.Errorf("Prometheus reads %q", got)
	}
	if got := families["c_seconds"].GetMetric()[0].GetHistogram(); got.GetSampleCount() != 5 || len(got.GetBucket()) != 4 {
		t.Errorf("Prometheus reads %v", got)
	}
}

// TestLabels: a value with other labels than its metric is our mistake.
func TestLabels(t *testing.T) {
	defer func() {
		if got := recover(); got != "BUG: a has other labels" {
			t.Errorf("recovered %v", got)
		}
	}()
	var p Page
	p.Metric(Gauge, "a", "It.", "x").Add(1)
}

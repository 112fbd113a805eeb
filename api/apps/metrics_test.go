package apps

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/prometheus"
)

// scrape reads metrics as Prometheus does.
func scrape(t *testing.T, f fixture) map[string]*dto.MetricFamily {
	t.Helper()
	var page prometheus.Page
	f.d.Metrics(&page)
	var text bytes.Buffer
	if _, err := page.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// lines are the samples of metrics in the text format.
func lines(t *testing.T, families map[string]*dto.MetricFamily) string {
	t.Helper()
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestMetrics(t *testing.T) {
	f := serve(t, nil)
	if w := f.ask("POST", "/api/v1/apps/register", nginxApp); w.Code != 201 {
		t.Fatal(w.Body)
	}
	families := scrape(t, f)
	text := lines(t, families)
	for _, want := range []string{
		`buoy_hosts{liveness="lost"} `,
		`buoy_app_replicas{app="my-app",state="wanted"} `,
		`buoy_app_requests_total{app="my-app"} 10`,
		`buoy_app_errors_total{app="my-app"} 2`,
		`buoy_app_requests_active{app="my-app"} 3`,
		`buoy_app_request_duration_seconds_bucket{app="my-app",le="0.01"} 0`,
		`buoy_app_request_duration_seconds_bucket{app="my-app",le="0.025"} 10`,
		`buoy_app_request_duration_seconds_sum{app="my-app"} 0.2`,
		`buoy_app_request_duration_seconds_count{app="my-app"} 10`,
		`buoy_app_responses_total{app="my-app",code="1xx"} 0`,
		`buoy_app_responses_total{app="my-app",code="2xx"} 7`,
		`buoy_app_responses_total{app="my-app",code="5xx"} 1`,
		`buoy_app_retries_total{app="my-app"} 4`,
		`buoy_app_ejections_total{app="my-app"} 5`,
		`buoy_replica_ejected{app="my-app",replica="launch1"} 1`,
		`buoy_replica_request_duration_seconds_bucket{app="my-app",replica="launch1",le="0.025"} 10`,
		`buoy_replica_request_duration_seconds_count{app="my-app",replica="launch1"} 10`,
		`buoy_replicas_unlisted 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	name := regexp.MustCompile(`^buoy_[a-z_]+$`)
	for _, m := range families {
		counter := m.GetType() == dto.MetricType_COUNTER
		histogram := m.GetType() == dto.MetricType_HISTOGRAM
		if !name.MatchString(m.GetName()) || counter != strings.HasSuffix(m.GetName(), "_total") || histogram != strings.HasSuffix(m.GetName(), "_seconds") || m.GetHelp() == "" {
			t.Errorf("%s is a %s: %q", m.GetName(), m.GetType(), m.GetHelp())
		}
	}
}

// herd has apps with many replicas.
type herd struct {
	Engine
	sizes []int
}

func (herd) Totals() app.Totals { return app.Totals{} }

func (c herd) Apps() (all []app.View) {
	for i := range c.sizes {
		all = append(all, app.View{App: app.App{Name: fmt.Sprint("app", i)}})
	}
	return all
}

func (c herd) Traffic() map[string]app.Traffic {
	all := map[string]app.Traffic{}
	for i, n := range c.sizes {
		t := app.Traffic{Latency: allAt(time.Millisecond), Replicas: map[string]app.ReplicaTraffic{}}
		for r := range n {
			t.Replicas[fmt.Sprint("r", r)] = app.ReplicaTraffic{Latency: allAt(time.Millisecond)}
		}
		all[fmt.Sprint("app", i)] = t
	}
	return all
}

// TestMetricsAreBounded: of very many replicas only some have series, and it is
// said how many have none. An app has as many lines whatever its size.
func TestMetricsAreBounded(t *testing.T) {
	f := serve(t, nil)
	f.d.engine = herd{Engine: f.d.engine, sizes: []int{600, 700, 400, 1}}
	families := scrape(t, f)
	perApp := map[string]int{}
	for _, m := range families["buoy_replica_requests_total"].GetMetric() {
		perApp[m.GetLabel()[0].GetValue()]++
	}
	if perApp["app0"] != 600 || perApp["app2"] != 400 || len(perApp) != 2 {
		t.Errorf("replicas with metrics: %v", perApp)
	}
	if n := families["buoy_replicas_unlisted"].GetMetric()[0].GetGauge().GetValue(); n != 701 {
		t.Errorf("%v are said to have none", n)
	}
	n := 0
	for line := range strings.Lines(lines(t, families)) {
		if strings.Contains(line, `{app="app0"`) && !strings.Contains(line, "replica=") {
			n++
		}
	}
	if n != 34 { // docs/api.md says so
		t.Errorf("%d lines of an app", n)
	}
	if n := strings.Count(lines(t, families), `replica="r1"`); n != 2*12 {
		t.Errorf("%d lines of a replica", n/2)
	}
}

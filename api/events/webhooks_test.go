package events

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/buoy-edge/buoy/internal/prometheus"
)

func (s *site) do(method, path, body string) (int, http.Header, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.srv.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.srv.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func TestWebhookRoutes(t *testing.T) {
	s := newSite(t, 1<<20)
	const url = `"url":"https://example.org/x"`
	own := `"secret":"` + strings.Repeat("k", 40) + `"`
	for _, tt := range []struct {
		method, path, body string
		status             int
		want, not          string
	}{
		{"GET", "/webhooks", "", 200, "[]\n", ""},
		{"POST", "/webhooks", `{"name":"a",` + url + `}`, 201, `"secret":"whsec_`, ""},
		{"POST", "/webhooks", `{"name":"a",` + url + `}`, 409, `webhook \"a\" exists already`, ""},
		{
			"POST", "/webhooks", `{"name":"b",` + url + `,"eventtypes":["container","image.pulled"],"images":["nginx"],` + own + `}`, 201,
			`"eventtypes":["container","image.pulled"],"containers":[],"images":["docker.io/library/nginx:latest"],"configured":false,`, "secret",
		},
		{"GET", "/webhooks/b", "", 200, `"delivered":0,"failed":0,"dead":0,"missed":0,`, "secret"},
		{"GET", "/webhooks", "", 200, `"name":"a"`, "secret"},
		{"PUT", "/webhooks/a", `{` + url + `,"containers":["web"],` + own + `}`, 200, `"containers":["web"]`, "secret"},
		{"PUT", "/webhooks/a", `{"name":"b",` + url + `}`, 400, "keeps its name", ""},
		{"PUT", "/webhooks/c", `{` + url + `}`, 404, `there is no webhook \"c\"`, ""},
		{"PUT", "/webhooks/a", `{"url":"x"}`, 400, "must begin with http", ""},
		{"POST", "/webhooks", `{"name":"c"}`, 400, "must begin with http", ""},
		{"POST", "/webhooks", `{"name":"c","url":"http://127.0.0.1/"}`, 400, "--webhook-allow allows it", ""},
		{"POST", "/webhooks", `{"name":"c",` + url + `,"eventtypes":["x"]}`, 400, "is no type of event", ""},
		{"POST", "/webhooks", `{"name":"c",` + url + `,"secret":"x"}`, 400, "it has 1 characters", ""},
		{"POST", "/webhooks", `{"name":"c",` + url + `,"x":1}`, 400, `there is no field \"x\"`, ""},
		{"GET", "/webhooks/c", "", 404, "there is no webhook", ""},
		{"DELETE", "/webhooks/a", "", 204, "", ""},
		{"DELETE", "/webhooks/a", "", 204, "", ""},
		{"GET", "/webhooks/a", "", 404, "", ""},
	} {
		status, header, body := s.do(tt.method, tt.path, tt.body)
		if status != tt.status || !strings.Contains(body, tt.want) || tt.not != "" && strings.Contains(body, tt.not) {
			t.Errorf("%s %s %s = %d %s, want %d %s", tt.method, tt.path, tt.body, status, body, tt.status, tt.want)
		}
		if location := header.Get("Location"); (status == 201) != strings.HasPrefix(location, "/webhooks/") {
			t.Errorf("%s %s: Location %q", tt.method, tt.path, location)
		}
	}
	_, _, body := s.do("GET", "/events?type=webhook", "")
	if n := strings.Count(body, "\n"); n != 4 || !strings.Contains(body, `"type":"webhook.created"`) || !strings.Contains(body, `"actor":{"kind":"api","request":"`) || !strings.Contains(body, `"peer":"127.0.0.1:`) {
		t.Errorf("%d events: %s", n, body)
	}
}

func TestMetrics(t *testing.T) {
	s := newSite(t, 1<<20)
	s.do("POST", "/webhooks", `{"name":"a","url":"https://example.org/x"}`)
	s.emit(1, 3)
	var page prometheus.Page
	s.d.Metrics(&page)
	var text bytes.Buffer
	if _, err := page.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "buoy_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	want := map[string]float64{
		"event_followers": 0, "event_followers_cut_total": 0,
		"events_total container.exited": 1, "events_total container.started": 2, "events_total webhook.created": 1,
		"webhook_behind a": 4, "webhook_deliveries_total a": 0, "webhook_failures_total a": 0, "webhook_dead_total a": 0, "webhook_missed_total a": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

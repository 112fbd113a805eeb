package apps

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func TestMetrics(t *testing.T) {
	f := serve(t, nil)
	if w := f.ask("POST", "/api/v1/apps/register", nginxApp); w.Code != 201 {
		t.Fatal(w.Body)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(f.d.Collector())
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`buoy_hosts{liveness="lost"} `,
		`buoy_app_replicas{app="my-app",state="wanted"} `,
		`buoy_app_requests_total{app="my-app"} 10`,
		`buoy_app_errors_total{app="my-app"} 2`,
		`buoy_app_requests_active{app="my-app"} 3`,
		`buoy_app_request_seconds_bucket{app="my-app",le="0.01"} 0`,
		`buoy_app_request_seconds_bucket{app="my-app",le="0.025"} 10`,
		`buoy_app_request_seconds_count{app="my-app"} 10`,
		`buoy_replica_ejected{app="my-app",replica="launch1"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in\n%s", want, w.Body)
		}
	}
}

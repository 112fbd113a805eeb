package system

import (
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/version"
)

// metrics are our own registry: nothing that a library registers gets in.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "buoy_api_requests_total", Help: "Answered API requests.",
		}, []string{"route", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "buoy_api_request_duration_seconds", Help: "Time to answer an API request, streams to their end.",
			// From reading state in memory (1 ms) over starting a container
			// (50 ms) to pulling an image.
			Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60},
		}, []string{"route", "method"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "buoy_build_info", Help: "Always 1; the labels say which buoyd this is.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.seconds, build)
	return m
}

// observe keeps the number of series bounded: a route is a pattern of ours and
// a method one that we know.
func (m *metrics) observe(o api.Observation) {
	switch o.Method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		o.Method = "other"
	}
	if o.Route == "" {
		o.Route = "none"
	}
	m.requests.WithLabelValues(o.Route, o.Method, strconv.Itoa(o.Status)).Inc()
	m.seconds.WithLabelValues(o.Route, o.Method).Observe(o.Took.Seconds())
}

// containers counts containers when it is asked.
type containers struct{ count func() map[string]int }

// containersDesc describes the one metric of containers.
func containersDesc() *prometheus.Desc {
	return prometheus.NewDesc("buoy_containers", "Containers of the node by status.", []string{"status"}, nil)
}

// Describe implements prometheus.Collector.
func (c containers) Describe(ch chan<- *prometheus.Desc) { ch <- containersDesc() }

// Collect implements prometheus.Collector.
func (c containers) Collect(ch chan<- prometheus.Metric) {
	for status, n := range c.count() {
		ch <- prometheus.MustNewConstMetric(containersDesc(), prometheus.GaugeValue, float64(n), status)
	}
}

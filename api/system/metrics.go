package system

import (
	"net/http"
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/version"
)

// metrics are our own registry: nothing that a library registers gets in.
type metrics struct {
	registry *prometheus.Registry
	node     []nodeMetric
	requests *prometheus.CounterVec
	errors   *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(), node: nodeSeries(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "buoy_api_requests_total", Help: "Answered API requests.",
		}, []string{"route", "method", "code"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "buoy_api_errors_total", Help: "Of these, those that were errors, by what was wrong.",
		}, []string{"kind"}),
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
	m.registry.MustRegister(m.requests, m.errors, m.seconds, build)
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
	if o.Status >= http.StatusBadRequest {
		m.errors.WithLabelValues(kindOf(o.Status)).Inc()
	}
}

// kindOf is what was wrong, in words of internal/errs where it has one.
func kindOf(status int) string {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "forbidden"
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return "not_found"
	case http.StatusConflict, http.StatusPreconditionFailed:
		return "conflict"
	case http.StatusTooManyRequests:
		return "too_many"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "unavailable"
	case clientGone:
		return "client_gone"
	}
	if status < http.StatusInternalServerError {
		return "invalid"
	}
	return "internal"
}

// clientGone is api.Observation's status of a client that went away.
const clientGone = 499

// InFlight is a metric of the requests that are being answered, streams among
// them.
func InFlight(count func() int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "buoy_api_requests_in_flight", Help: "Requests that are being answered, streams among them.",
	}, func() float64 { return float64(count()) })
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

package system

import (
	"cmp"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/prometheus"
	"github.com/buoy-edge/buoy/internal/version"
)

// requests counts answered requests.
type requests struct {
	mu       sync.Mutex // guards all below
	answered map[answered]uint64
	errors   map[string]uint64
	took     map[answered]*times // of all statuses together
}

// answered are requests with one answer.
type answered struct {
	route, method string
	status        int
}

// times are those that answers took.
type times struct {
	count  uint64
	sum    float64
	atMost [len(bounds)]uint64
}

// bounds are seconds: from reading state in memory (1 ms) over starting a
// container (50 ms) to pulling an image.
var bounds = [...]float64{.001, .005, .025, .1, .5, 2.5, 10, 60}

func newRequests() *requests {
	return &requests{answered: map[answered]uint64{}, errors: map[string]uint64{}, took: map[answered]*times{}}
}

// observe keeps the number of series bounded: a route is a pattern of ours and
// a method one that we know.
func (r *requests) observe(o api.Observation) {
	switch o.Method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		o.Method = "other"
	}
	if o.Route == "" {
		o.Route = "none"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered[answered{o.Route, o.Method, o.Status}]++
	if o.Status >= http.StatusBadRequest {
		r.errors[kindOf(o.Status)]++
	}
	key := answered{route: o.Route, method: o.Method}
	t := r.took[key]
	if t == nil {
		t = &times{}
		r.took[key] = t
	}
	t.count++
	t.sum += o.Took.Seconds()
	for i, bound := range bounds {
		if o.Took.Seconds() <= bound {
			t.atMost[i]++
		}
	}
}

// metrics adds them to a page.
func (r *requests) metrics(page *prometheus.Page) {
	r.mu.Lock()
	defer r.mu.Unlock()
	order := func(a, b answered) int {
		return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.method, b.method), cmp.Compare(a.status, b.status))
	}
	m := page.Metric(prometheus.Counter, "buoy_api_requests_total", "Answered API requests.", "code", "method", "route")
	for _, a := range slices.SortedFunc(maps.Keys(r.answered), order) {
		m.Add(float64(r.answered[a]), strconv.Itoa(a.status), a.method, a.route)
	}
	m = page.Metric(prometheus.Counter, "buoy_api_errors_total", "Of these, those that were errors, by what was wrong.", "kind")
	for _, kind := range slices.Sorted(maps.Keys(r.errors)) {
		m.Add(float64(r.errors[kind]), kind)
	}
	m = page.Metric(prometheus.Histogram, "buoy_api_request_duration_seconds", "Time to answer an API request, streams to their end.", "method", "route")
	for _, a := range slices.SortedFunc(maps.Keys(r.took), order) {
		t := r.took[a]
		atMost := map[float64]uint64{}
		for i, bound := range bounds {
			atMost[bound] = t.atMost[i]
		}
		m.Buckets(t.count, t.sum, atMost, a.method, a.route)
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

// daemon adds what is known of the daemon itself.
func (d *Dialect) daemon(page *prometheus.Page) {
	page.Metric(prometheus.Gauge, "buoy_build_info", "Always 1; the labels say which buoyd this is.", "go", "version").Add(1, runtime.Version(), version.Version)
	d.requests.metrics(page)
	counts := d.cfg.Containers()
	m := page.Metric(prometheus.Gauge, "buoy_containers", "Containers of the node by status.", "status")
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		m.Add(float64(counts[status]), status)
	}
}

// InFlight adds the number of requests that are being answered.
func InFlight(count func() int64) func(*prometheus.Page) {
	return func(page *prometheus.Page) {
		page.Metric(prometheus.Gauge, "buoy_api_requests_in_flight", "Requests that are being answered, streams among them.").Add(float64(count()))
	}
}

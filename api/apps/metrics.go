package apps

import (
	"maps"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/prometheus"
)

// answerTimes are the buckets of the time that answers of an app take.
var answerTimes = []time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// replicaTimes are those of a replica, fewer: there may be many replicas.
var replicaTimes = []time.Duration{
	5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2500 * time.Millisecond, 10 * time.Second,
}

// maxReplicaSeries is for how many replicas there are series of their own, 12
// each: of the first apps by name that fit.
const maxReplicaSeries = 1000

// classes are the first digits of statuses, as a label.
var classes = [5]string{"1xx", "2xx", "3xx", "4xx", "5xx"}

// series are the metrics of apps and replicas.
type series struct {
	replicas, missing, cpu, memory                              *prometheus.Metric
	requests, errors, active, took, answers, retries, ejections *prometheus.Metric
	replicaRequests, replicaErrors, replicaEjected, replicaTook *prometheus.Metric
}

func newSeries(page *prometheus.Page) *series {
	metric := func(kind prometheus.Kind, name, help string, labels ...string) *prometheus.Metric {
		return page.Metric(kind, "buoy_"+name, help, labels...)
	}
	const counter, gauge, histogram = prometheus.Counter, prometheus.Gauge, prometheus.Histogram
	return &series{
		replicas:        metric(gauge, "app_replicas", "Replicas of an app: wanted, running, ready to serve, and standing by.", "app", "state"),
		missing:         metric(gauge, "app_replicas_unplaced", "Replicas of an app that no host takes.", "app"),
		cpu:             metric(gauge, "app_cpu_cores", "CPUs that the replicas of an app use.", "app"),
		memory:          metric(gauge, "app_memory_working_set_bytes", "Memory that the replicas of an app use.", "app"),
		requests:        metric(counter, "app_requests_total", "Requests and connections of an app through the balancer.", "app"),
		errors:          metric(counter, "app_errors_total", "Of these, answered with 5xx, cut off, or not at all.", "app"),
		active:          metric(gauge, "app_requests_active", "Requests and connections of an app that are under way.", "app"),
		took:            metric(histogram, "app_request_duration_seconds", "Time from a request to its answer, tries included, within 6 %; of a connection, until a replica had accepted it.", "app"),
		answers:         metric(counter, "app_responses_total", "Answers to requests by HTTP, by the class of their status.", "app", "code"),
		retries:         metric(counter, "app_retries_total", "Tries at another replica.", "app"),
		ejections:       metric(counter, "app_ejections_total", "How often a replica was left out for its failures.", "app"),
		replicaRequests: metric(counter, "replica_requests_total", "Requests and connections that a replica was given.", "app", "replica"),
		replicaErrors:   metric(counter, "replica_errors_total", "Of these, those that failed.", "app", "replica"),
		replicaEjected:  metric(gauge, "replica_ejected", "1 while a replica is left out for its failures.", "app", "replica"),
		replicaTook:     metric(histogram, "replica_request_duration_seconds", "The time that answers of a replica took, within 6 %.", "app", "replica"),
	}
}

// Metrics adds the metrics of hosts, apps and replicas.
func (d *Dialect) Metrics(page *prometheus.Page) {
	alive := d.engine.Totals().Hosts
	hosts := page.Metric(prometheus.Gauge, "buoy_hosts", "Hosts of this controller by how well they are in touch.", "liveness")
	for _, l := range []app.Liveness{app.Alive, app.Silent, app.Lost} {
		hosts.Add(float64(alive[l]), string(l))
	}
	s := newSeries(page)
	traffic := d.engine.Traffic()
	listed, unlisted := 0, 0
	for _, v := range d.engine.Apps() {
		name := v.App.Name
		s.replicas.Add(float64(v.Desired), name, "wanted")
		s.replicas.Add(float64(v.Current), name, "running")
		s.replicas.Add(float64(v.Ready), name, "ready")
		s.replicas.Add(float64(v.Standby), name, "standby")
		s.missing.Add(float64(v.Missing), name)
		s.cpu.Add(float64(v.Sample.MilliCPU)/1000, name)
		s.memory.Add(float64(v.Sample.MemoryBytes), name)
		t, ok := traffic[name]
		if !ok {
			continue
		}
		s.ofApp(name, t)
		if listed+len(t.Replicas) > maxReplicaSeries {
			unlisted += len(t.Replicas)
			continue
		}
		listed += len(t.Replicas)
		for _, id := range slices.Sorted(maps.Keys(t.Replicas)) {
			s.ofReplica(name, id, t.Replicas[id])
		}
	}
	page.Metric(prometheus.Gauge, "buoy_replicas_unlisted", "Replicas behind the balancer that are too many to have metrics of their own.").Add(float64(unlisted))
}

func (s *series) ofApp(name string, t app.Traffic) {
	s.requests.Add(float64(t.Requests), name)
	s.errors.Add(float64(t.Errors), name)
	s.active.Add(float64(t.Active), name)
	times(s.took, t.Latency, answerTimes, name)
	for i, n := range t.Answers {
		s.answers.Add(float64(n), name, classes[i])
	}
	s.retries.Add(float64(t.Retries), name)
	s.ejections.Add(float64(t.Ejections), name)
}

func (s *series) ofReplica(name, id string, r app.ReplicaTraffic) {
	s.replicaRequests.Add(float64(r.Requests), name, id)
	s.replicaErrors.Add(float64(r.Errors), name, id)
	ejected := 0.0
	if r.Ejected {
		ejected = 1
	}
	s.replicaEjected.Add(ejected, name, id)
	times(s.replicaTook, r.Latency, replicaTimes, name, id)
}

// times adds what has been measured, if anything has.
func times(m *prometheus.Metric, l app.Latencies, ends []time.Duration, labels ...string) {
	if l == nil {
		return
	}
	atMost := make(map[float64]uint64, len(ends))
	for _, end := range ends {
		atMost[end.Seconds()] = l.Below(end)
	}
	m.Buckets(l.Count(), l.Sum().Seconds(), atMost, labels...)
}

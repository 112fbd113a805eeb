package apps

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buoy-edge/buoy/app"
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

// series are the metrics of the fleet. They are read when somebody asks.
type series struct {
	engine Engine

	hosts, replicas, missing, cpu, memory                       *prometheus.Desc
	requests, errors, active, took, answers, retries, ejections *prometheus.Desc
	replicaRequests, replicaErrors, replicaEjected, replicaTook *prometheus.Desc
	unlisted                                                    *prometheus.Desc
}

// Collector gives the metrics of apps, replicas and hosts.
func (d *Dialect) Collector() prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("buoy_"+name, help, labels, nil)
	}
	return &series{
		engine:          d.engine,
		hosts:           desc("hosts", "Hosts of this controller by how well they are in touch.", "liveness"),
		replicas:        desc("app_replicas", "Replicas of an app: wanted, running, ready to serve, and standing by.", "app", "state"),
		missing:         desc("app_replicas_unplaced", "Replicas of an app that no host takes.", "app"),
		cpu:             desc("app_cpu_cores", "CPUs that the replicas of an app use.", "app"),
		memory:          desc("app_memory_working_set_bytes", "Memory that the replicas of an app use.", "app"),
		requests:        desc("app_requests_total", "Requests and connections of an app through the balancer.", "app"),
		errors:          desc("app_errors_total", "Of these, answered with 5xx, cut off, or not at all.", "app"),
		active:          desc("app_requests_active", "Requests and connections of an app that are under way.", "app"),
		took:            desc("app_request_duration_seconds", "Time from a request to its answer, tries included, within 6 %; of a connection, until a replica had accepted it.", "app"),
		answers:         desc("app_responses_total", "Answers to requests by HTTP, by the class of their status.", "app", "code"),
		retries:         desc("app_retries_total", "Tries at another replica.", "app"),
		ejections:       desc("app_ejections_total", "How often a replica was left out for its failures.", "app"),
		replicaRequests: desc("replica_requests_total", "Requests and connections that a replica was given.", "app", "replica"),
		replicaErrors:   desc("replica_errors_total", "Of these, those that failed.", "app", "replica"),
		replicaEjected:  desc("replica_ejected", "1 while a replica is left out for its failures.", "app", "replica"),
		replicaTook:     desc("replica_request_duration_seconds", "The time that answers of a replica took, within 6 %.", "app", "replica"),
		unlisted:        desc("replicas_unlisted", "Replicas behind the balancer that are too many to have metrics of their own."),
	}
}

// Describe implements prometheus.Collector.
func (s *series) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.hosts, s.replicas, s.missing, s.cpu, s.memory, s.requests, s.errors, s.active, s.took, s.answers, s.retries, s.ejections,
		s.replicaRequests, s.replicaErrors, s.replicaEjected, s.replicaTook, s.unlisted,
	} {
		ch <- d
	}
}

// to sends metrics.
type to chan<- prometheus.Metric

func (ch to) gauge(d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (ch to) counter(d *prometheus.Desc, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (ch to) histogram(d *prometheus.Desc, l app.Latencies, ends []time.Duration, labels ...string) {
	if l == nil {
		return
	}
	buckets := make(map[float64]uint64, len(ends))
	for _, end := range ends {
		buckets[end.Seconds()] = l.Below(end)
	}
	ch <- prometheus.MustNewConstHistogram(d, l.Count(), l.Sum().Seconds(), buckets, labels...)
}

// Collect implements prometheus.Collector.
func (s *series) Collect(metrics chan<- prometheus.Metric) {
	ch := to(metrics)
	alive := s.engine.Totals().Hosts
	for _, l := range []app.Liveness{app.Alive, app.Silent, app.Lost} {
		ch.gauge(s.hosts, float64(alive[l]), string(l))
	}
	traffic := s.engine.Traffic()
	listed, unlisted := 0, 0
	for _, v := range s.engine.Apps() {
		name := v.App.Name
		for state, n := range map[string]int{"wanted": v.Desired, "running": v.Current, "ready": v.Ready, "standby": v.Standby} {
			ch.gauge(s.replicas, float64(n), name, state)
		}
		ch.gauge(s.missing, float64(v.Missing), name)
		ch.gauge(s.cpu, float64(v.Sample.MilliCPU)/1000, name)
		ch.gauge(s.memory, float64(v.Sample.MemoryBytes), name)
		t, ok := traffic[name]
		if !ok {
			continue
		}
		s.collectApp(ch, name, t)
		if listed+len(t.Replicas) > maxReplicaSeries {
			unlisted += len(t.Replicas)
			continue
		}
		listed += len(t.Replicas)
		for id, r := range t.Replicas {
			s.collectReplica(ch, name, id, r)
		}
	}
	ch.gauge(s.unlisted, float64(unlisted))
}

func (s *series) collectApp(ch to, name string, t app.Traffic) {
	ch.counter(s.requests, t.Requests, name)
	ch.counter(s.errors, t.Errors, name)
	ch.gauge(s.active, float64(t.Active), name)
	ch.histogram(s.took, t.Latency, answerTimes, name)
	for i, n := range t.Answers {
		ch.counter(s.answers, n, name, classes[i])
	}
	ch.counter(s.retries, t.Retries, name)
	ch.counter(s.ejections, t.Ejections, name)
}

func (s *series) collectReplica(ch to, name, id string, r app.ReplicaTraffic) {
	ch.counter(s.replicaRequests, r.Requests, name, id)
	ch.counter(s.replicaErrors, r.Errors, name, id)
	ejected := 0.0
	if r.Ejected {
		ejected = 1
	}
	ch.gauge(s.replicaEjected, ejected, name, id)
	ch.histogram(s.replicaTook, r.Latency, replicaTimes, name, id)
}

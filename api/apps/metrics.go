package apps

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buoy-edge/buoy/app"
)

// answerTimes are the buckets of the time that answers take.
var answerTimes = []time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// series are the metrics of the fleet. They are read when somebody asks.
type series struct {
	engine Engine

	hosts, replicas, missing, cpu, memory          *prometheus.Desc
	requests, errors, active, took                 *prometheus.Desc
	replicaRequests, replicaErrors, replicaEjected *prometheus.Desc
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
		took:            desc("app_request_seconds", "Time from a request to its answer, within 6 %.", "app"),
		replicaRequests: desc("replica_requests_total", "Requests and connections that a replica was given.", "app", "replica"),
		replicaErrors:   desc("replica_errors_total", "Of these, those that failed.", "app", "replica"),
		replicaEjected:  desc("replica_ejected", "1 while a replica is left out for its failures.", "app", "replica"),
	}
}

// Describe implements prometheus.Collector.
func (s *series) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.hosts, s.replicas, s.missing, s.cpu, s.memory, s.requests, s.errors, s.active, s.took, s.replicaRequests, s.replicaErrors, s.replicaEjected,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *series) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	alive := s.engine.Totals().Hosts
	for _, l := range []app.Liveness{app.Alive, app.Silent, app.Lost} {
		gauge(s.hosts, float64(alive[l]), string(l))
	}
	traffic := s.engine.Traffic()
	for _, v := range s.engine.Apps() {
		name := v.App.Name
		for state, n := range map[string]int{"wanted": v.Desired, "running": v.Current, "ready": v.Ready, "standby": v.Standby} {
			gauge(s.replicas, float64(n), name, state)
		}
		gauge(s.missing, float64(v.Missing), name)
		gauge(s.cpu, float64(v.Sample.MilliCPU)/1000, name)
		gauge(s.memory, float64(v.Sample.MemoryBytes), name)
		if t, ok := traffic[name]; ok {
			s.collectTraffic(ch, name, t)
		}
	}
}

func (s *series) collectTraffic(ch chan<- prometheus.Metric, name string, t app.Traffic) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(s.requests, t.Requests, name)
	counter(s.errors, t.Errors, name)
	ch <- prometheus.MustNewConstMetric(s.active, prometheus.GaugeValue, float64(t.Active), name)
	if t.Latency != nil {
		buckets := map[float64]uint64{}
		for _, d := range answerTimes {
			buckets[d.Seconds()] = t.Latency.Below(d)
		}
		n := t.Latency.Below(time.Hour)
		ch <- prometheus.MustNewConstHistogram(s.took, n, t.Latency.Mean().Seconds()*float64(n), buckets, name)
	}
	for id, r := range t.Replicas {
		counter(s.replicaRequests, r.Requests, name, id)
		counter(s.replicaErrors, r.Errors, name, id)
		ejected := 0.0
		if r.Ejected {
			ejected = 1
		}
		ch <- prometheus.MustNewConstMetric(s.replicaEjected, prometheus.GaugeValue, ejected, name, id)
	}
}

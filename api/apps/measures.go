package apps

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
)

// metrics is what an app's replicas use and answer.
type metrics struct {
	CPU         float64 `json:"cpu_percent"`
	Memory      float64 `json:"memory_percent"`
	RPS         float64 `json:"rps"`
	P95         float64 `json:"latency_p95_ms"`
	Connections float64 `json:"active_connections"`

	Errors float64 `json:"errors_per_second"` // ours
}

func metricsOf(s app.Sample) metrics {
	return metrics{
		CPU: round(s.CPU), Memory: round(s.Memory), RPS: round(s.RPS), P95: millis(s.P95), Connections: round(s.Connections), Errors: round(s.Errors),
	}
}

// currentMetrics adds how many replicas there were.
type currentMetrics struct {
	metrics
	Healthy int `json:"healthy_replicas"`
	Total   int `json:"total_replicas"`
}

func currentOf(s app.Sample) currentMetrics { return currentMetrics{metricsOf(s), s.Ready, s.Total} }

// pastMetrics are those of a time.
type pastMetrics struct {
	Timestamp string `json:"timestamp"`
	currentMetrics
}

const (
	historyDefault  = 10
	historyMost     = 1000
	intervalDefault = 5 * time.Minute // between the times that the document shows
)

// metricsObject is how an app does and did.
type metricsObject struct {
	AppName   string         `json:"app_name"`
	Timestamp string         `json:"timestamp"`
	Current   currentMetrics `json:"current"`
	History   []pastMetrics  `json:"history"`
}

// getMetrics answers with the present and the past, newest first.
func (d *Dialect) getMetrics(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	points, err := count(q, "history", historyDefault, historyMost)
	if err != nil {
		return err
	}
	apart, err := interval(q, intervalDefault)
	if err != nil {
		return err
	}
	name := api.Param(r, "app")
	v, err := d.engine.App(name)
	if err != nil {
		return err
	}
	var past []app.Sample
	if points > 0 {
		if past, err = d.engine.History(name, points, apart); err != nil {
			return err
		}
	}
	history := each(past, func(s app.Sample) pastMetrics { return pastMetrics{stamp(s.At), currentOf(s)} })
	slices.Reverse(history)
	api.JSON(w, http.StatusOK, metricsObject{name, stamp(cmp.Or(v.Sample.At, time.Now())), currentOf(v.Sample), history})
	return nil
}

const (
	gib = 1 << 30
	mib = 1 << 20
)

// systemObject is all hosts together.
type systemObject struct {
	CPU               float64 `json:"cpu_percent"`
	MemoryUsed        float64 `json:"memory_used_gb"` // of 2^30 bytes, as the others
	MemoryTotal       float64 `json:"memory_total_gb"`
	DiskUsed          float64 `json:"disk_used_gb"`
	DiskTotal         float64 `json:"disk_total_gb"`
	ContainersRunning int     `json:"containers_running"` // replicas
	ContainersTotal   int     `json:"containers_total"`   // of any kind, whatever state

	Hosts int `json:"hosts"` // ours: that are in touch
}

// systemApp is an app among all.
type systemApp struct {
	Name     string  `json:"name"`
	CPU      float64 `json:"cpu_percent"`
	Memory   float64 `json:"memory_mb"` // of 2^20 bytes
	Replicas int     `json:"replicas"`
	RPS      float64 `json:"rps"`
}

// network is what the balancer has seen.
type network struct {
	RPS      float64 `json:"requests_per_second"`
	Requests uint64  `json:"total_requests"`
	Errors   float64 `json:"error_rate_percent"`
	Mean     float64 `json:"avg_response_time_ms"`
}

// systemMetrics is all of it.
type systemMetrics struct {
	Timestamp    string       `json:"timestamp"`
	System       systemObject `json:"system"`
	Applications []systemApp  `json:"applications"`
	Network      network      `json:"network"`
}

func (d *Dialect) systemMetrics(w http.ResponseWriter, _ *http.Request) error {
	sums := d.engine.Totals()
	list := each(d.engine.Apps(), func(v app.View) systemApp {
		return systemApp{
			Name: v.App.Name, CPU: round(v.Sample.CPU), Memory: round(float64(v.Sample.MemoryBytes) / mib),
			Replicas: v.Current, RPS: round(v.Sample.RPS),
		}
	})
	api.JSON(w, http.StatusOK, systemMetrics{
		stamp(time.Now()), systemOf(d.engine.Hosts(), sums), list,
		network{RPS: round(sums.RPS), Requests: sums.Requests, Errors: round(sums.ErrorPct), Mean: round(sums.MeanMillis)},
	})
	return nil
}

// systemOf sums up the hosts that are in touch.
func systemOf(hosts []app.HostView, sums app.Totals) systemObject {
	o := systemObject{ContainersRunning: sums.Replicas}
	var used, cpus float64
	var memUsed, memTotal, diskUsed, diskTotal int64
	for i := range hosts {
		h := &hosts[i]
		if h.Liveness == app.Lost {
			continue
		}
		o.Hosts++
		used += h.Report.CPU * float64(h.Facts.MilliCPU)
		cpus += float64(h.Facts.MilliCPU)
		memUsed += h.Report.MemoryUsed
		memTotal += h.Facts.Memory
		diskUsed += h.Report.DiskTotal - h.Report.DiskFree
		diskTotal += h.Report.DiskTotal
		o.ContainersTotal += h.Report.Total
	}
	o.CPU = round(used / cpus)
	o.MemoryUsed, o.MemoryTotal = round(float64(memUsed)/gib), round(float64(memTotal)/gib)
	o.DiskUsed, o.DiskTotal = round(float64(diskUsed)/gib), round(float64(diskTotal)/gib)
	return o
}

// streamDefault is the time between two messages of a stream of metrics.
const streamDefault = 2 * time.Second

// streamedMetrics is a message of the stream.
type streamedMetrics struct {
	AppName string `json:"app_name"`
	pastMetrics
}

// streamMetrics sends the present metrics of an app again and again.
func (d *Dialect) streamMetrics(w http.ResponseWriter, r *http.Request) error {
	every, err := interval(r.URL.Query(), streamDefault)
	if err != nil {
		return err
	}
	name := api.Param(r, "app")
	if _, err := d.engine.App(name); err != nil {
		return err
	}
	return d.stream(w, r, func(ctx context.Context, send func(any) error) error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			v, err := d.engine.App(name)
			if err != nil {
				return err
			}
			err = send(streamedMetrics{name, pastMetrics{stamp(cmp.Or(v.Sample.At, time.Now())), currentOf(v.Sample)}})
			if err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

package app

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// scaleWish is what the autoscaler wants of an app.
type scaleWish struct {
	app  string
	d    Decision
	mean Sample
}

// measure samples every app, and asks the autoscaler about those it is time for.
func (e *Engine) measure(ctx context.Context) {
	traffic := e.count()
	now, most := e.cfg.Now(), e.Config().MaxScales
	var scale []scaleWish
	for _, name := range e.names() {
		if w := e.measureOne(name, traffic[name], now); w != nil && len(scale) < most {
			scale = append(scale, *w)
		}
	}
	for _, w := range scale {
		if err := e.autoscale(ctx, w.app, w.d, w.mean); err != nil && !errors.Is(err, ErrScaling) {
			e.cfg.Log.Warn("app is not scaled", "app", w.app, "replicas", w.d.Replicas, "error", err)
		}
	}
}

// measureOne is measure for one app: reports would have to wait for all of them.
func (e *Engine) measureOne(name string, t Traffic, now time.Time) *scaleWish {
	e.mu.Lock()
	defer e.mu.Unlock()
	rec := e.apps[name]
	if rec == nil {
		return nil
	}
	if !rec.app.Started {
		rec.sample, rec.sampled = Sample{At: now}, time.Time{}
		return nil
	}
	s := e.sample(rec, t, now)
	rec.window.Add(s)
	rec.sample = s
	spec := rec.app.Spec()
	if rec.app.Scaling.Mode != Auto || spec.Kind != Service || now.Sub(rec.decided) < e.config.ScaleInterval-samplePace/2 { // a tick may come early
		return nil
	}
	rec.decided = now
	var d Decision
	d, rec.memory = Decide(rec.app.Scaling, rec.window, rec.app.Replicas, rec.memory, now)
	if !d.Changed {
		return nil
	}
	return &scaleWish{name, d, rec.window.Mean(now.Add(-rec.app.Scaling.Window))}
}

// autoscale does what the autoscaler says.
func (e *Engine) autoscale(ctx context.Context, name string, d Decision, mean Sample) error {
	_, err := e.edited(ctx, name, func(a *App) ([]Event, error) {
		if !a.Started || a.Scaling.Mode != Auto || a.Replicas == d.Replicas {
			return nil, nil
		}
		if !e.settled(a) {
			return nil, errs.E(errs.Conflict, "app %q: %w", name, ErrScaling)
		}
		now := e.cfg.Now().UTC()
		from := a.Replicas
		a.Scaled = ScaleEvent{At: now, From: from, To: d.Replicas, Reason: d.Reason}
		a.resize(d.Replicas, now)
		details := map[string]any{
			"previous_replicas": from, "new_replicas": d.Replicas, "trigger": d.Trigger, "factors": d.Factors,
			"cpu_percent": round(mean.CPU), "memory_percent": round(mean.Memory), "rps": round(mean.RPS),
			"latency_p95_ms": mean.P95.Milliseconds(), "active_connections": round(mean.Connections),
		}
		return []Event{scaledEvent(name, from, d.Replicas, d.Reason, details)}, nil
	})
	return err
}

// round is for people.
func round(v float64) float64 { return math.Round(v*10) / 10 }

// sample is an app over the moment since the last one. The caller holds mu.
func (e *Engine) sample(rec *record, t Traffic, now time.Time) Sample {
	s := Sample{At: now}
	if took := now.Sub(rec.sampled).Seconds(); !rec.sampled.IsZero() && took > 0 && t.Latency != nil && t.Requests >= rec.traffic.Requests {
		s.RPS = float64(t.Requests-rec.traffic.Requests) / took
		s.Errors = float64(t.Errors-rec.traffic.Errors) / took
		s.P95 = t.Latency.Since(rec.traffic.Latency).Quantile(0.95)
	}
	s.Connections = float64(t.Active)
	rec.traffic, rec.sampled = t, now
	var cpu, cpuLimit, mem, memLimit float64
	for id := range rec.reps {
		r := e.replicas[id]
		if r.Phase != Running || r.Standby || !r.Stopped.IsZero() {
			continue
		}
		s.Total++
		if r.Ready() && e.liveness[r.Host] != Lost {
			s.Ready++
		}
		rev := rec.app.Revision(r.Revision)
		h := e.hosts[r.Host]
		if rev == nil || h == nil {
			continue
		}
		cpu += r.Seen.CPU * 10 // thousandths of a CPU
		mem += float64(r.Seen.Memory)
		cpuLimit += orElse(rev.Spec.Container.Limits.MilliCPU, 1000)
		memLimit += orElse(rev.Spec.Container.Limits.Memory, h.Facts.Memory)
	}
	s.MilliCPU, s.MemoryBytes = int64(cpu), int64(mem)
	if cpuLimit > 0 {
		s.CPU = 100 * cpu / cpuLimit
	}
	if memLimit > 0 {
		s.Memory = 100 * mem / memLimit
	}
	return s
}

func orElse(n, otherwise int64) float64 {
	if n > 0 {
		return float64(n)
	}
	return float64(otherwise)
}

// Simulate is what the autoscaler would say of an app under such a load, after
// its cooldown.
func (e *Engine) Simulate(name string, s Sample) (Decision, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	rec := e.apps[name]
	if rec == nil {
		return Decision{}, noApp(name)
	}
	now := e.cfg.Now()
	s.At = now
	if s.Total == 0 {
		s.Ready, s.Total = rec.app.Replicas, rec.app.Replicas
	}
	w := NewWindow()
	w.Add(s)
	d, _ := Decide(rec.app.Scaling, w, rec.app.Replicas, ScaleMemory{}, now)
	return d, nil
}

// History are the newest points of an app, oldest first, an interval apart.
func (e *Engine) History(name string, points int, interval time.Duration) ([]Sample, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	rec := e.apps[name]
	if rec == nil {
		return nil, noApp(name)
	}
	return rec.window.Points(points, interval), nil
}

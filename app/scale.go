package app

import (
	"fmt"
	"math"
	"time"
)

// Decision is what the autoscaler says about an app.
type Decision struct {
	Replicas int
	Changed  bool
	Trigger  string             // what it is about: "cpu_high", "memory_high", "rps_high", "latency_high", "connections_high", "below_min", "above_max", "low_load", "no_healthy"
	Reason   string             // for people: "High CPU usage: 78.5%", or why nothing is changed
	Factors  map[string]float64 // "cpu", "memory", "rps", "latency", "connections": what was measured, by its target
}

// ScaleMemory is what Decide has to know of the decisions before. Who keeps it
// need not know whether they were carried out, or who else has scaled: the next
// Decide sees it by the number of replicas. Zero: this is the first. After a
// start Replicas, Changed and Seen may be set to what the last change was.
type ScaleMemory struct {
	Seen     time.Time // when the last decision was made
	Replicas int       // that were wanted then
	Changed  time.Time // when that became another number
	Quiet    time.Time // the load has been low since then; zero: it is not
	Least    []Least   // what was needed during Stabilization, as far as nothing later needed as much
}

// Least is how many replicas a load needs at least.
type Least struct {
	At       time.Time
	Replicas int
}

// Decide says how many replicas an app is to have that has current ones wanted.
// What was measured counts since the last change, since before there were others
// to share the load, and at most for Scaling.Window.
//
//	F = max(measured / target)
//	F > OutPct: current × F replicas, at least one more, at most OutStep more;
//	            if OutPct is above 100, as many as bring F down to it
//	F < InPct for all of Stabilization: InStep fewer, but no fewer than what F
//	            needed in that time to stay below OutPct
//
// Requests and connections are shared among the replicas that are ready; those
// still starting will have their share, so nothing is added if they suffice.
// Nothing changes during the cooldown, but for what is outside Min and Max and
// for a first replica when requests come.
func Decide(s Scaling, w *Window, current int, mem ScaleMemory, now time.Time) (Decision, ScaleMemory) {
	mem = mem.next(current, now)
	d := Decision{Replicas: current}
	switch {
	case s.Mode != Auto:
		d.Reason = "It is scaled by hand"
		mem.Quiet, mem.Least = time.Time{}, nil
		return d, mem
	case current < s.Min:
		d.set(s.Min, current, "below_min", "Below the minimum of "+several(s.Min, "replica"))
		return d, mem
	case current > max(s.Max, s.Min):
		d.set(max(s.Max, s.Min), current, "above_max", "Above the maximum of "+several(max(s.Max, s.Min), "replica"))
		return d, mem
	}
	since := now.Add(-max(s.Window, 2*fineStep)) // less may have no sample
	if mem.Changed.After(since) {
		since = mem.Changed
	}
	m := w.Mean(since)
	l := loadOf(s, m)
	d.Factors = l.factors
	mem.note(s, m, l, now)
	decide(&d, s, m, l, &mem, now)
	return d, mem
}

// next brings the memory up to date with how many replicas there are.
func (m ScaleMemory) next(current int, now time.Time) ScaleMemory {
	if !m.Seen.IsZero() && m.Replicas != current || m.Changed.After(now) {
		m.Changed = now
	}
	if m.Quiet.After(now) || m.Seen.After(now) { // the clock was set back
		m.Quiet, m.Least = time.Time{}, nil
	}
	m.Seen, m.Replicas = now, current
	return m
}

// note remembers whether the load is low, and what it needs.
func (m *ScaleMemory) note(s Scaling, mean Sample, l load, now time.Time) {
	if mean.At.IsZero() || mean.Ready == 0 && m.Replicas > 0 || l.factor >= s.InPct/100 {
		m.Quiet, m.Least = time.Time{}, nil
		return
	}
	if m.Quiet.IsZero() {
		m.Quiet = now
	}
	one := Least{now, replicas(l.need/(s.OutPct/100), s.Max)}
	var least []Least // the former value is the caller's
	for _, old := range m.Least {
		if old.Replicas > one.Replicas && now.Sub(old.At) <= s.Stabilization {
			least = append(least, old)
		}
	}
	m.Least = append(least, one)
}

func decide(d *Decision, s Scaling, m Sample, l load, mem *ScaleMemory, now time.Time) {
	current := d.Replicas
	switch {
	case m.At.IsZero():
		d.Reason = "Nothing has been measured yet"
		return
	case len(l.factors) == 0:
		d.Reason = "No target is set"
		return
	case current == 0 && l.asked:
		d.set(min(1, s.Max), current, "no_healthy", "No replica is there for "+l.traffic(m))
		return
	}
	if left := s.Cooldown - now.Sub(mem.Changed); !mem.Changed.IsZero() && left > 0 {
		d.Reason = fmt.Sprintf("Cooldown: %s left", left.Round(time.Second))
		return
	}
	switch out := s.OutPct / 100 * (1 + 2*rounding); {
	case m.Ready == 0 && l.asked:
		d.set(min(current+1, s.Max), current, "no_healthy", "No replica is ready for "+l.traffic(m))
	case m.Ready == 0:
		d.Reason = "No replica is ready"
	case l.factor > out && l.need <= out*float64(current):
		d.Trigger = l.trigger
		d.Reason = fmt.Sprintf("%s; the replicas that are starting suffice", l.reason)
	case l.factor > out:
		to := max(current+1, replicas(l.need/max(out, 1), s.Max))
		if s.OutStep > 0 {
			to = min(to, current+s.OutStep)
		}
		d.set(min(to, s.Max), current, l.trigger, l.reason)
	case !mem.Quiet.IsZero():
		d.in(s, l, mem, now)
	default:
		d.Reason = fmt.Sprintf("The load is %.0f%% of the targets", 100*l.factor)
	}
}

// in decides about fewer replicas while the load is low.
func (d *Decision) in(s Scaling, l load, mem *ScaleMemory, now time.Time) {
	quiet := now.Sub(mem.Quiet)
	low := fmt.Sprintf("Low load: %.1f%% of the targets for %s", 100*l.factor, quiet.Round(time.Second))
	if quiet < s.Stabilization {
		d.Reason = fmt.Sprintf("%s; fewer replicas after %s of it", low, s.Stabilization)
		return
	}
	to := max(d.Replicas-max(s.InStep, 1), s.Min)
	for _, one := range mem.Least {
		to = max(to, one.Replicas)
	}
	if to >= d.Replicas {
		d.Reason = low + "; fewer replicas would be too few"
		if d.Replicas == s.Min {
			d.Reason = fmt.Sprintf("%s; %d is the minimum", low, s.Min)
		}
		return
	}
	d.set(to, d.Replicas, "low_load", low)
}

// set says that there are to be n replicas, if that is another number.
func (d *Decision) set(n, current int, trigger, reason string) {
	d.Replicas, d.Changed, d.Trigger, d.Reason = n, n != current, trigger, reason
	if !d.Changed {
		d.Reason = fmt.Sprintf("%s; %d is the maximum", reason, n)
	}
}

// load is how much there is to do.
type load struct {
	factors map[string]float64
	factor  float64 // the largest
	trigger string  // and what it is about
	reason  string
	need    float64 // replicas that would be at their targets exactly
	asked   bool    // somebody wants to be served
}

func (l load) traffic(m Sample) string {
	if m.RPS > 0 {
		return fmt.Sprintf("%.1f requests/s", m.RPS)
	}
	return several(int(math.Round(m.Connections)), "connection")
}

func loadOf(s Scaling, m Sample) load {
	l := load{factors: map[string]float64{}, asked: m.RPS > 0 || m.Connections > 0}
	ready, total := float64(max(m.Ready, 1)), float64(max(m.Total, m.Ready, 1))
	for _, one := range []struct {
		name             string
		measured, target float64 // of a replica
		replicas         float64 // that measured is the mean of
		reason           string
	}{
		{"cpu", m.CPU, s.CPU, total, fmt.Sprintf("High CPU usage: %.1f%%", m.CPU)},
		{"memory", m.Memory, s.Memory, total, fmt.Sprintf("High memory usage: %.1f%%", m.Memory)},
		{"rps", m.RPS / ready, s.RPS, ready, fmt.Sprintf("High request rate: %.1f requests/s per replica", m.RPS/ready)},
		{"latency", m.P95.Seconds(), s.P95.Seconds(), ready, fmt.Sprintf("High latency: p95 %.0f ms", 1000*m.P95.Seconds())},
		{"connections", m.Connections / ready, s.Connections, ready, fmt.Sprintf("High connection count: %.1f per replica", m.Connections/ready)},
	} {
		if one.target <= 0 {
			continue
		}
		f := one.measured / one.target
		l.factors[one.name] = f
		l.need = max(l.need, f*one.replicas)
		if f > l.factor {
			l.factor, l.trigger, l.reason = f, one.name+"_high", one.reason
		}
	}
	return l
}

// rounding is what a factor may be off its value.
const rounding = 1e-6

// replicas is need as a whole number, of which no more than most is of interest.
func replicas(need float64, most int) int {
	switch {
	case !(need > 0):
		return 0
	case need >= float64(most):
		return most
	}
	return max(int(math.Ceil(need-rounding)), 1)
}

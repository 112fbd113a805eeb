package app

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// policy is the document's.
func policy(change ...func(s *Scaling)) Scaling {
	s := Scaling{
		Mode: Auto, Min: 1, Max: 5, RPS: 50, P95: 250 * time.Millisecond, CPU: 70, Memory: 75, Connections: 100,
		OutPct: 80, InPct: 30, Window: time.Minute, Cooldown: 3 * time.Minute, Stabilization: 5 * time.Minute, OutStep: 0, InStep: 1,
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

var noon = time.Date(2024, 1, 15, 12, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	steady := func(n int) ScaleMemory { return ScaleMemory{Seen: noon.Add(-10 * time.Second), Replicas: n} }
	quiet := func(n int, since time.Duration, least ...int) ScaleMemory {
		m := steady(n)
		m.Quiet = noon.Add(-since)
		for _, l := range least {
			m.Least = append(m.Least, Least{noon.Add(-time.Minute), l})
		}
		return m
	}
	ready := func(n int, s Sample) Sample {
		s.Ready, s.Total = n, n
		return s
	}
	for _, tt := range []struct {
		name    string
		policy  Scaling
		current int
		mem     ScaleMemory
		sample  Sample // zero: there is none
		want    int
		trigger string
		reason  string
	}{
		{"high CPU", policy(), 2, steady(2), ready(2, Sample{CPU: 78.5}), 3, "cpu_high", "High CPU usage: 78.5%"},
		{"very high CPU", policy(), 2, steady(2), ready(2, Sample{CPU: 140}), 4, "cpu_high", "High CPU usage: 140.0%"},
		{"more than the maximum", policy(), 2, steady(2), ready(2, Sample{CPU: 1400}), 5, "cpu_high", "High CPU usage: 1400.0%"},
		{"at the maximum", policy(), 5, steady(5), ready(5, Sample{CPU: 78.5}), 5, "cpu_high", "High CPU usage: 78.5%; 5 is the maximum"},
		{"no more than a step", policy(func(s *Scaling) { s.OutStep = 1 }), 2, steady(2), ready(2, Sample{CPU: 140}), 3, "cpu_high", "High CPU usage: 140.0%"},
		{"high memory", policy(), 1, steady(1), ready(1, Sample{Memory: 90, CPU: 10}), 2, "memory_high", "High memory usage: 90.0%"},
		{"requests of each replica", policy(), 2, steady(2), ready(2, Sample{RPS: 162.2}), 4, "rps_high", "High request rate: 81.1 requests/s per replica"},
		{"80 % of the wanted requests", policy(), 2, steady(2), ready(2, Sample{RPS: 81}), 3, "rps_high", "High request rate: 40.5 requests/s per replica"},
		{"less than that", policy(), 2, steady(2), ready(2, Sample{RPS: 80}), 2, "", "The load is 80% of the targets"},
		{"latency", policy(), 3, steady(3), ready(3, Sample{P95: 320 * time.Millisecond, RPS: 60}), 4, "latency_high", "High latency: p95 320 ms"},
		{"connections", policy(), 2, steady(2), ready(2, Sample{Connections: 390}), 4, "connections_high", "High connection count: 195.0 per replica"},
		{"a target that is not looked at", policy(func(s *Scaling) { s.CPU = 0 }), 2, steady(2), ready(2, Sample{CPU: 100, Memory: 50}), 2, "", "The load is 67% of the targets"},
		{"no target", policy(func(s *Scaling) { s.CPU, s.Memory, s.RPS, s.P95, s.Connections = 0, 0, 0, 0, 0 }), 2, steady(2), ready(2, Sample{CPU: 100}), 2, "", "No target is set"},
		{"of equals the first", policy(), 1, steady(1), ready(1, Sample{CPU: 70, Memory: 75}), 2, "cpu_high", "High CPU usage: 70.0%"},

		{"those that start will do", policy(), 4, steady(4), Sample{RPS: 100, Ready: 1, Total: 4}, 4, "rps_high", "High request rate: 100.0 requests/s per replica; the replicas that are starting suffice"},
		{"those that start will not do", policy(), 3, steady(3), Sample{RPS: 220, Ready: 2, Total: 3}, 5, "rps_high", "High request rate: 110.0 requests/s per replica"},

		{"below the minimum", policy(func(s *Scaling) { s.Min = 2 }), 1, ScaleMemory{Seen: noon, Replicas: 1, Changed: noon}, Sample{}, 2, "below_min", "Below the minimum of 2 replicas"},
		{"above the maximum", policy(), 9, steady(9), Sample{}, 5, "above_max", "Above the maximum of 5 replicas"},
		{"by hand", policy(func(s *Scaling) { s.Mode = Manual }), 9, steady(9), ready(1, Sample{CPU: 100}), 9, "", "It is scaled by hand"},
		{"nothing measured", policy(), 2, steady(2), Sample{}, 2, "", "Nothing has been measured yet"},
		{"cooldown", policy(), 2, ScaleMemory{Seen: noon, Replicas: 2, Changed: noon.Add(-145 * time.Second)}, ready(2, Sample{CPU: 100}), 2, "", "Cooldown: 35s left"},
		{"after the cooldown", policy(), 2, ScaleMemory{Seen: noon, Replicas: 2, Changed: noon.Add(-3 * time.Minute)}, ready(2, Sample{CPU: 100}), 3, "cpu_high", "High CPU usage: 100.0%"},
		{"somebody has scaled", policy(), 3, steady(2), ready(3, Sample{CPU: 100}), 3, "", "Cooldown: 3m0s left"},

		{"nobody is ready", policy(), 2, steady(2), Sample{RPS: 12, Ready: 0, Total: 2}, 3, "no_healthy", "No replica is ready for 12.0 requests/s"},
		{"nobody is ready, at the maximum", policy(), 5, steady(5), Sample{Connections: 3}, 5, "no_healthy", "No replica is ready for 3 connections; 5 is the maximum"},
		{"nobody is ready, in the cooldown", policy(), 2, ScaleMemory{Seen: noon, Replicas: 2, Changed: noon}, Sample{RPS: 12}, 2, "", "Cooldown: 3m0s left"},
		{"nobody is ready, nobody asks", policy(), 2, quiet(2, time.Hour), Sample{Total: 2}, 2, "", "No replica is ready"},
		{"woken", policy(func(s *Scaling) { s.Min = 0 }), 0, ScaleMemory{Seen: noon, Replicas: 0, Changed: noon}, Sample{RPS: 0.1}, 1, "no_healthy", "No replica is there for 0.1 requests/s"},
		{"asleep", policy(func(s *Scaling) { s.Min = 0 }), 0, steady(0), Sample{}, 0, "", "Nothing has been measured yet"},

		{"quiet, but not for long", policy(), 3, steady(3), ready(3, Sample{CPU: 7}), 3, "", "Low load: 10.0% of the targets for 0s; fewer replicas after 5m0s of it"},
		{"quiet", policy(), 3, quiet(3, 5*time.Minute, 1), ready(3, Sample{CPU: 7}), 2, "low_load", "Low load: 10.0% of the targets for 5m0s"},
		{"quiet, without stabilization", policy(func(s *Scaling) { s.Stabilization = 0 }), 3, steady(3), ready(3, Sample{CPU: 7}), 2, "low_load", "Low load: 10.0% of the targets for 0s"},
		{"quiet, in steps", policy(func(s *Scaling) { s.InStep = 3 }), 5, quiet(5, 5*time.Minute, 1), ready(5, Sample{CPU: 7}), 2, "low_load", "Low load: 10.0% of the targets for 5m0s"},
		{"quiet, but more was needed lately", policy(func(s *Scaling) { s.InStep = 3 }), 5, quiet(5, 5*time.Minute, 3), ready(5, Sample{CPU: 7}), 3, "low_load", "Low load: 10.0% of the targets for 5m0s"},
		{"quiet, in the cooldown", policy(), 3, ScaleMemory{Seen: noon, Replicas: 3, Changed: noon.Add(-time.Minute), Quiet: noon.Add(-time.Hour)}, ready(3, Sample{CPU: 7}), 3, "", "Cooldown: 2m0s left"},
		{"quiet, at the minimum", policy(func(s *Scaling) { s.Min = 3 }), 3, quiet(3, time.Hour), ready(3, Sample{CPU: 7}), 3, "", "Low load: 10.0% of the targets for 1h0m0s; 3 is the minimum"},
		{
			"quiet, but one fewer would be too few", policy(func(s *Scaling) { s.InPct = 70 }), 2, quiet(2, time.Hour), ready(2, Sample{CPU: 45.5}), 2, "",
			"Low load: 65.0% of the targets for 1h0m0s; fewer replicas would be too few",
		},
		{"the last one stays while there is anything", policy(func(s *Scaling) { s.Min = 0 }), 1, quiet(1, time.Hour), ready(1, Sample{RPS: 0.01}), 1, "", "Low load: 0.0% of the targets for 1h0m0s; fewer replicas would be too few"},
		{"the last one goes", policy(func(s *Scaling) { s.Min = 0 }), 1, quiet(1, time.Hour), ready(1, Sample{}), 0, "low_load", "Low load: 0.0% of the targets for 1h0m0s"},
		{"no longer quiet", policy(), 3, quiet(3, time.Hour), ready(3, Sample{CPU: 40}), 3, "", "The load is 57% of the targets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWindow()
			if tt.sample != (Sample{}) || tt.name == "the last one goes" {
				tt.sample.At = noon
				w.Add(tt.sample)
			}
			d, _ := Decide(tt.policy, w, tt.current, tt.mem, noon)
			got := Decision{Replicas: d.Replicas, Changed: d.Changed, Trigger: d.Trigger, Reason: d.Reason}
			want := Decision{Replicas: tt.want, Changed: tt.want != tt.current, Trigger: tt.trigger, Reason: tt.reason}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Decide (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecideFactors(t *testing.T) {
	w := NewWindow()
	w.Add(Sample{At: noon, CPU: 35, Memory: 60, RPS: 100, P95: 50 * time.Millisecond, Connections: 10, Ready: 2, Total: 2})
	d, _ := Decide(policy(), w, 2, ScaleMemory{}, noon)
	want := map[string]float64{"cpu": 0.5, "memory": 0.8, "rps": 1, "latency": 0.2, "connections": 0.05}
	if diff := cmp.Diff(want, d.Factors); diff != "" || d.Trigger != "rps_high" {
		t.Errorf("trigger %q, factors (-want +got):\n%s", d.Trigger, diff)
	}
}

// TestDecideForgets has samples from before a change: they were shared among fewer.
func TestDecideForgets(t *testing.T) {
	w := NewWindow()
	w.Add(Sample{At: noon.Add(-40 * time.Second), CPU: 100, Ready: 1, Total: 1})
	w.Add(Sample{At: noon, CPU: 50, Ready: 2, Total: 2})
	p := policy(func(s *Scaling) { s.Cooldown = 0 })
	for changed, want := range map[time.Duration]int{-time.Hour: 3, -30 * time.Second: 2} {
		d, _ := Decide(p, w, 2, ScaleMemory{Seen: noon.Add(-10 * time.Second), Replicas: 2, Changed: noon.Add(changed)}, noon)
		if d.Replicas != want {
			t.Errorf("changed %s ago: %+v, want %d", -changed, d, want)
		}
	}
}

// TestDecideNeedsTheQuiet interrupts it, by load, by a lack of samples and by a
// clock that is set back.
func TestDecideNeedsTheQuiet(t *testing.T) {
	for name, at := range map[string]func(i int) (Sample, time.Duration){
		"load":      func(i int) (Sample, time.Duration) { return Sample{CPU: 40, Ready: 3, Total: 3}, 0 },
		"no sample": func(i int) (Sample, time.Duration) { return Sample{}, 0 },
		"the clock": func(i int) (Sample, time.Duration) { return Sample{CPU: 7, Ready: 3, Total: 3}, -time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			w, mem, now := NewWindow(), ScaleMemory{}, noon
			p := policy(func(s *Scaling) { s.Window = 10 * time.Second })
			quiet := 0
			for i := range 60 {
				s, shift := Sample{CPU: 7, Ready: 3, Total: 3}, time.Duration(0)
				if i == 5 {
					s, shift = at(i)
				}
				now = now.Add(30*time.Second + shift)
				if s != (Sample{}) {
					s.At = now
					w.Add(s)
				}
				var d Decision
				if d, mem = Decide(p, w, 3, mem, now); d.Changed {
					quiet = i
					break
				}
			}
			if quiet < 15 || quiet > 17 {
				t.Errorf("one scales in at look %d, want 5 minutes after number 5", quiet)
			}
		})
	}
}

// load is what apps are simulated with: so many replicas' worth at the targets.
func (a *simulated) sample(need float64, now time.Time) Sample {
	n := float64(max(a.replicas, 1))
	return Sample{At: now, RPS: need * 50, CPU: min(need/n*70, 100), Connections: need * 30, Ready: a.replicas, Total: a.replicas}
}

type simulated struct {
	replicas int
	changes  []int
}

func (a *simulated) run(p Scaling, need func(i int) float64, looks int) {
	w, mem, now := NewWindow(), ScaleMemory{}, noon
	for i := range looks {
		now = now.Add(10 * time.Second)
		w.Add(a.sample(need(i), now))
		var d Decision
		d, mem = Decide(p, w, a.replicas, mem, now)
		if d.Changed {
			a.changes = append(a.changes, d.Replicas-a.replicas)
			a.replicas = d.Replicas
		}
	}
}

// TestDecideSettles has a constant load: the number of replicas goes one way, and
// then stays, where the load is below the upper threshold.
func TestDecideSettles(t *testing.T) {
	seeds(t, 200, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		in := rnd.Float64() * 90
		p := policy(func(s *Scaling) {
			s.Min, s.Max = rnd.IntN(3), 3+rnd.IntN(40)
			s.InPct, s.OutPct = in, in+1+rnd.Float64()*(119-in)
			s.OutStep, s.InStep = rnd.IntN(4), rnd.IntN(4)
			s.Cooldown = time.Duration(rnd.IntN(120)) * time.Second
			s.Stabilization = time.Duration(rnd.IntN(120)) * time.Second
			s.Window = time.Duration(1+rnd.IntN(60)) * time.Second
		})
		need := rnd.Float64() * 30
		a := simulated{replicas: max(p.Min, rnd.IntN(p.Max+1))}
		from := a.replicas
		a.run(p, func(int) float64 { return need }, 3000)
		out, in2 := 0, 0
		for _, by := range a.changes {
			if by > 0 {
				out++
			} else {
				in2++
			}
		}
		if out > 0 && in2 > 0 {
			t.Errorf("a constant load of %.2f replicas, from %d: %v", need, from, a.changes)
		}
		if a.replicas < p.Min || a.replicas > p.Max {
			t.Errorf("%d replicas are outside %d to %d", a.replicas, p.Min, p.Max)
		}
		if n := float64(a.replicas); need/n > p.OutPct/100*1.0001 && a.replicas < p.Max {
			t.Errorf("%d replicas are too few for %.2f of them", a.replicas, need)
		}
		settled := simulated{replicas: a.replicas}
		settled.run(p, func(int) float64 { return need }, 300)
		if len(settled.changes) > 0 {
			t.Errorf("then %v", settled.changes)
		}
	})
}

// TestDecideIsMonotone has two loads of which one is larger, in the same
// situation.
func TestDecideIsMonotone(t *testing.T) {
	seeds(t, 500, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		p := policy(func(s *Scaling) {
			s.Min, s.Max, s.OutStep, s.InStep = rnd.IntN(3), 3+rnd.IntN(20), rnd.IntN(4), rnd.IntN(4)
		})
		current := p.Min + rnd.IntN(p.Max-p.Min+1)
		mem := ScaleMemory{Seen: noon, Replicas: current, Quiet: noon.Add(-time.Duration(rnd.IntN(600)) * time.Second)}
		if rnd.IntN(2) == 0 {
			mem.Changed = noon.Add(-time.Duration(rnd.IntN(600)) * time.Second)
		}
		little := Sample{
			At: noon, CPU: rnd.Float64() * 100, Memory: rnd.Float64() * 100, RPS: rnd.Float64() * 500,
			P95: time.Duration(rnd.IntN(500)) * time.Millisecond, Connections: rnd.Float64() * 500, Ready: rnd.IntN(current + 1), Total: current,
		}
		much := little
		much.CPU *= 1 + rnd.Float64()
		much.Memory *= 1 + rnd.Float64()
		much.RPS *= 1 + rnd.Float64()
		much.Connections *= 1 + rnd.Float64()
		much.P95 *= time.Duration(1 + rnd.IntN(2))
		var got [2]int
		for i, s := range []Sample{little, much} {
			w := NewWindow()
			w.Add(s)
			d, _ := Decide(p, w, current, mem, noon)
			got[i] = d.Replicas
			if d.Replicas < p.Min || d.Replicas > p.Max {
				t.Errorf("%d replicas are outside %d to %d", d.Replicas, p.Min, p.Max)
			}
			if d.Changed != (d.Replicas != current) || d.Reason == "" || d.Changed && d.Trigger == "" {
				t.Errorf("%+v with %d replicas now", d, current)
			}
		}
		if got[0] > got[1] {
			t.Errorf("%d replicas for %+v, and %d for %+v", got[0], little, got[1], much)
		}
	})
}

// TestDecideLeavesItsMemoryAlone decides twice upon the same memory.
func TestDecideLeavesItsMemoryAlone(t *testing.T) {
	w := NewWindow()
	w.Add(Sample{At: noon, CPU: 7, Ready: 5, Total: 5})
	mem := ScaleMemory{Seen: noon, Replicas: 5, Quiet: noon.Add(-time.Hour), Least: []Least{{noon.Add(-time.Minute), 4}, {noon.Add(-30 * time.Second), 3}}}
	p := policy()
	one, after := Decide(p, w, 5, mem, noon)
	two, _ := Decide(p, w, 5, mem, noon)
	if !cmp.Equal(one, two) || one.Replicas != 4 || len(after.Least) != 3 {
		t.Errorf("Decide = %+v, then %+v; least %v", one, two, after.Least)
	}
	if !strings.HasPrefix(one.Reason, "Low load") {
		t.Errorf("reason = %q", one.Reason)
	}
}

// TestScaleMemoryIsBounded looks for hours, with less load each time.
func TestScaleMemoryIsBounded(t *testing.T) {
	w, mem, now := NewWindow(), ScaleMemory{}, noon
	p := policy(func(s *Scaling) { s.Max, s.Stabilization = 1000, 24*time.Hour })
	for i := range 5000 {
		now = now.Add(10 * time.Second)
		w.Add(Sample{At: now, CPU: 20 - float64(i)/250, Ready: 1000, Total: 1000})
		_, mem = Decide(p, w, 1000, mem, now)
	}
	if len(mem.Least) > 1001 {
		t.Errorf("%d recommendations are kept", len(mem.Least))
	}
}

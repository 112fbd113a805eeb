package app

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

func TestWindowMean(t *testing.T) {
	w := NewWindow()
	if got := w.Mean(noon); got != (Sample{}) {
		t.Errorf("Mean of nothing = %+v", got)
	}
	w.Add(Sample{At: noon.Add(-time.Hour), CPU: 1000})
	w.Add(Sample{At: noon.Add(-20 * time.Second), CPU: 77.7, Memory: 50, RPS: 100, P95: 89 * time.Millisecond, Connections: 10, Errors: 1, Ready: 1, Total: 2, MilliCPU: 100, MemoryBytes: 1 << 20})
	w.Add(Sample{At: noon.Add(-10 * time.Second), CPU: 79.7, Memory: 60, RPS: 200, P95: 91 * time.Millisecond, Connections: 20, Errors: 0, Ready: 3, Total: 3, MilliCPU: 200, MemoryBytes: 3 << 20})
	want := Sample{At: noon.Add(-10 * time.Second), CPU: 78.7, Memory: 55, RPS: 150, P95: 91 * time.Millisecond, Connections: 15, Errors: 0.5, Ready: 3, Total: 3, MilliCPU: 150, MemoryBytes: 2 << 20}
	if diff := cmp.Diff(want, w.Mean(noon.Add(-time.Minute))); diff != "" {
		t.Errorf("Mean (-want +got):\n%s", diff)
	}
	if got := w.Mean(noon.Add(-15 * time.Second)).CPU; got != 79.7 {
		t.Errorf("Mean of the last sample has CPU %v, want 79.7", got)
	}
	if got := w.Mean(noon); got != (Sample{}) {
		t.Errorf("Mean since after the last sample = %+v, want none", got)
	}
}

func TestWindowP95(t *testing.T) {
	ms := time.Millisecond
	type part struct {
		rps float64
		p95 time.Duration
	}
	for name, tt := range map[string]struct {
		parts []part
		want  time.Duration
	}{
		"nothing":                       {nil, 0},
		"one":                           {[]part{{1, 120 * ms}}, 120 * ms},
		"one without requests":          {[]part{{0, 120 * ms}}, 120 * ms},
		"the slowest of few":            {[]part{{10, 100 * ms}, {10, 300 * ms}, {10, 200 * ms}}, 300 * ms},
		"a slow moment of few requests": {[]part{{100, 100 * ms}, {100, 120 * ms}, {4, 3000 * ms}}, 120 * ms},
		"a slow moment of many":         {[]part{{100, 100 * ms}, {100, 120 * ms}, {40, 3000 * ms}}, 3000 * ms},
		"moments without any":           {[]part{{100, 100 * ms}, {0, 0}, {0, 0}}, 100 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWindow()
			for i, p := range tt.parts {
				w.Add(Sample{At: noon.Add(time.Duration(i) * 10 * time.Second), RPS: p.rps, P95: p.p95})
			}
			if got := w.Mean(noon).P95; got != tt.want {
				t.Errorf("P95 = %s, want %s", got, tt.want)
			}
		})
	}
}

// TestWindowP95Bound has requests of which all is known: what the window says is
// exceeded by at most a tenth of them.
func TestWindowP95Bound(t *testing.T) {
	seeds(t, 50, func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		w := NewWindow()
		var all []float64
		for i := range 1 + rnd.IntN(20) {
			slow := math.Exp(rnd.NormFloat64() * 2)
			var some []float64
			for range 20 * (1 + rnd.IntN(20)) {
				some = append(some, slow*rnd.ExpFloat64())
			}
			p95 := nth(some, 0.95)
			w.Add(Sample{At: noon.Add(time.Duration(i) * 10 * time.Second), RPS: float64(len(some)), P95: time.Duration(p95 * float64(time.Second))})
			all = append(all, some...)
		}
		got := w.Mean(noon).P95.Seconds()
		over := 0
		for _, v := range all {
			if v > got*1.001 {
				over++
			}
		}
		if float64(over) > 0.1*float64(len(all)) {
			t.Errorf("%d of %d requests took longer than %.3f s", over, len(all), got)
		}
	})
}

func nth(values []float64, q float64) float64 {
	best := math.Inf(1)
	for _, v := range values {
		below := 0
		for _, o := range values {
			if o <= v {
				below++
			}
		}
		if float64(below) >= q*float64(len(values)) {
			best = min(best, v)
		}
	}
	return best
}

func TestWindowPoints(t *testing.T) {
	w := NewWindow()
	begin := time.Date(2024, 1, 13, 0, 0, 0, 0, time.UTC)
	for at := begin; at.Before(noon); at = at.Add(10 * time.Second) {
		w.Add(Sample{At: at, CPU: float64(at.Hour()), RPS: float64(at.Minute()), Ready: at.Hour(), Total: 24})
	}
	points := func(n int, interval time.Duration) (got []string) {
		for _, p := range w.Points(n, interval) {
			got = append(got, p.At.Format("02 15:04:05")+" "+time.Duration(p.CPU*float64(time.Second)).String())
		}
		return got
	}
	for _, tt := range []struct {
		n        int
		interval time.Duration
		want     []string
	}{
		{0, time.Hour, nil},
		{-1, time.Hour, nil},
		{2, 10 * time.Second, []string{"15 11:59:40 11s", "15 11:59:50 11s"}},
		{2, 0, []string{"15 11:59:40 11s", "15 11:59:50 11s"}},
		{2, time.Minute, []string{"15 11:58:00 11s", "15 11:59:00 11s"}},
		{3, 5 * time.Minute, []string{"15 11:45:00 11s", "15 11:50:00 11s", "15 11:55:00 11s"}},
		{3, time.Hour, []string{"15 09:00:00 9s", "15 10:00:00 10s", "15 11:00:00 11s"}},
		{2, 24 * time.Hour, []string{"14 00:00:00 11.5s", "15 00:00:00 5.5s"}},
	} {
		if diff := cmp.Diff(tt.want, points(tt.n, tt.interval)); diff != "" {
			t.Errorf("Points(%d, %s) (-want +got):\n%s", tt.n, tt.interval, diff)
		}
	}
	if got := w.Points(1, time.Hour)[0]; got.RPS != 29.5 || got.Ready != 11 || got.Total != 24 {
		t.Errorf("an hour is %+v", got)
	}
	if n := len(w.Points(10_000, 10*time.Second)); n < 360 || n > fineMost {
		t.Errorf("%d points of 10 s are kept, want an hour's", n)
	}
	if n := len(w.Points(10_000, 5*time.Minute)); n < 576 || n > coarseMost {
		t.Errorf("%d points of 5 min are kept, want two days'", n)
	}
}

func TestWindowGapsAndClocks(t *testing.T) {
	w := NewWindow()
	for _, after := range []time.Duration{0, time.Second, 2 * time.Hour, 50 * time.Hour} {
		w.Add(Sample{At: noon.Add(after), CPU: after.Hours(), Ready: 1 << 20, Total: -1, RPS: math.NaN(), Errors: math.Inf(1), Memory: -5})
	}
	if got := w.Points(10, time.Hour); len(got) != 3 || got[0].CPU > 0.001 || got[1].CPU != 2 || got[2].CPU != 50 {
		t.Errorf("with gaps: %+v", got)
	}
	if got := w.Mean(noon.Add(50 * time.Hour)); got.RPS != 0 || got.Memory != 0 || math.IsInf(got.Errors, 0) || got.Ready != math.MaxUint16 || got.Total != 0 {
		t.Errorf("of what are no numbers: %+v", got)
	}
	w.Add(Sample{At: noon.Add(time.Hour), CPU: 1}) // set back
	if got := w.Points(10, time.Hour); len(got) != 2 || got[1].CPU != 1 {
		t.Errorf("after the clock was set back: %+v", got)
	}
	w.Add(Sample{At: time.Time{}})
	if got := w.Points(10, time.Hour); len(got) != 1 {
		t.Errorf("after the clock was lost: %+v", got)
	}
}

// TestWindowIsSmall fills one to the brim: there may be thousands of apps.
func TestWindowIsSmall(t *testing.T) {
	w := NewWindow()
	for i := range 20_000 {
		w.Add(Sample{At: noon.Add(time.Duration(i) * 10 * time.Second)})
	}
	if size := uintptr(cap(w.fine.bins)+cap(w.coarse.bins)) * unsafe.Sizeof(bin{}); size > 52<<10 {
		t.Errorf("a full window takes %d bytes", size)
	}
}

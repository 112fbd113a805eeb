package proxy

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestBucketsAreNarrow(t *testing.T) {
	last := -1
	for d := 50 * time.Microsecond; d < 60*time.Second; d += d/100 + 1000 {
		i := bucket(d)
		if i < last || i >= buckets {
			t.Fatalf("%v is in bucket %d after %d", d, i, last)
		}
		last = i
		top, bottom := upper(i), time.Duration(0)
		if i > 0 {
			bottom = upper(i - 1)
		}
		if us := d.Truncate(time.Microsecond); us < bottom || us >= top {
			t.Fatalf("%v is in bucket %d, which is %v to %v", d, i, bottom, top)
		}
		if wide := float64(top-bottom) / float64(bottom); wide > 0.0701 {
			t.Errorf("bucket %d is %v to %v: %.3f wide", i, bottom, top, wide)
		}
	}
	for _, d := range []time.Duration{-1, 0, time.Microsecond, time.Hour} {
		if i := bucket(d); i < 0 || i >= buckets {
			t.Errorf("%v is in bucket %d", d, i)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var r recorder
	var all []time.Duration
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		d := time.Duration(rnd.ExpFloat64() * float64(20*time.Millisecond))
		all = append(all, d)
		r.record(d)
	}
	slices.Sort(all)
	h := r.read()
	if h.Count() != 20_000 {
		t.Errorf("count %d", h.Count())
	}
	for _, q := range []float64{0.5, 0.9, 0.95, 0.99, 0.999} {
		exact := all[int(q*float64(len(all)))]
		if got := h.Quantile(q); got < exact*95/100 || got > exact*105/100 {
			t.Errorf("quantile %g is %v, want %v", q, got, exact)
		}
	}
	var exact time.Duration
	for _, d := range all {
		exact += d
	}
	if got := h.Sum(); got < exact*97/100 || got > exact*103/100 || h.Mean() != got/20_000 {
		t.Errorf("sum %v, mean %v, want %v and %v", got, h.Mean(), exact, exact/20_000)
	}
	if (Histogram{}).Mean() != 0 || (Histogram{}).Quantile(0.5) != 0 || (Histogram{}).Count() != 0 {
		t.Error("an empty histogram has something")
	}
	var one recorder
	one.record(time.Second)
	for _, q := range []float64{0, 0.5, 1} {
		if got := one.read().Quantile(q); got < 970*time.Millisecond || got > 1070*time.Millisecond {
			t.Errorf("quantile %g of one second is %v", q, got)
		}
	}
}

// TestSumNeverFalls: one more is never lost in the rounding of a mean, or Prometheus would see a restart.
func TestSumNeverFalls(t *testing.T) {
	var r recorder
	r.n[bucket(10*time.Millisecond)].Store(1e9 + 7)
	for range 10 {
		before := r.read().Sum()
		r.record(3 * time.Microsecond)
		if after := r.read().Sum(); after <= before {
			t.Fatalf("%v after %v", after, before)
		}
	}
}

func TestWindow(t *testing.T) {
	var r recorder
	for range 100 {
		r.record(time.Millisecond)
	}
	before := r.read()
	for range 50 {
		r.record(100 * time.Millisecond)
	}
	r.record(10 * time.Microsecond)
	after := r.read()
	w := after.Sub(before)
	if w.Count() != 51 || before.Count() != 100 || after.Count() != 151 {
		t.Errorf("window has %d, before %d, after %d", w.Count(), before.Count(), after.Count())
	}
	if got := w.Quantile(0.5); got < 95*time.Millisecond || got > 107*time.Millisecond {
		t.Errorf("median of the window is %v", got)
	}
	if got := before.Sub(after); got.Count() != before.Count() {
		t.Errorf("after a reset the window has %d", got.Count())
	}
	if after.Sub(Histogram{}).Count() != 151 || after.Sub(after).Count() != 0 || (Histogram{}).Sub(after).Count() != 0 {
		t.Error("Sub of nothing, or of all")
	}
}

func TestManyRecord(t *testing.T) {
	var r recorder
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				r.record(time.Duration(i) * time.Millisecond)
				if i%100 == 0 {
					r.read().Quantile(0.95)
				}
			}
		})
	}
	wg.Wait()
	if n := r.read().Count(); n != 4000 {
		t.Errorf("count %d", n)
	}
}

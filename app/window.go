package app

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Window has what was measured of an app: in steps of ten seconds for an hour,
// and in steps of five minutes for two days. It takes 48 bytes a step, 45 KiB
// when it is full.
type Window struct {
	fine, coarse track
}

// What is kept. An eighth more than is promised: so much goes at a time.
const (
	fineStep   = 10 * time.Second
	coarseStep = 5 * time.Minute
	fineMost   = int(time.Hour/fineStep) * 9 / 8
	coarseMost = int(48*time.Hour/coarseStep) * 9 / 8
)

// NewWindow is an empty one.
func NewWindow() *Window {
	return &Window{
		fine:   track{step: int64(fineStep / time.Second), most: fineMost},
		coarse: track{step: int64(coarseStep / time.Second), most: coarseMost},
	}
}

// Add takes a sample in. Samples come in the order of time; if the clock was set
// back, those that are later than s are forgotten.
func (w *Window) Add(s Sample) {
	w.fine.add(s)
	w.coarse.add(s)
}

// Mean is what was measured since then, in steps of ten seconds: means, and of
// Ready and Total what the newest sample says. Its time is that of the newest
// sample, zero if there is none.
//
// P95 is the least of the samples' own latencies that is not exceeded in those
// with 95 % of the requests. So a moment with few requests does not count,
// however slow they were, and at most one request in ten took longer: in 95 of
// a hundred requests at most one in twenty, and of the others nothing is said.
// The quantile of all requests cannot be had from quantiles of some.
func (w *Window) Mean(since time.Time) Sample {
	bins := w.fine.bins
	i := len(bins)
	for i > 0 && int64(bins[i-1].at) >= since.Unix() {
		i--
	}
	return merge(bins[i:])
}

// Points are the newest n intervals in which something was measured, oldest
// first, each a Mean with the time of its beginning. An interval of less than
// five minutes reaches back an hour, a longer one two days.
func (w *Window) Points(n int, interval time.Duration) []Sample {
	from := &w.fine
	if interval >= coarseStep {
		from = &w.coarse
	}
	step := max(int64(interval/time.Second), from.step)
	var points []Sample
	for end := len(from.bins); end > 0 && len(points) < n; {
		begin := from.bins[end-1].start() / step * step
		first := end - 1
		for first > 0 && from.bins[first-1].start() >= begin {
			first--
		}
		p := merge(from.bins[first:end])
		p.At = time.Unix(begin, 0).UTC()
		points = append(points, p)
		end = first
	}
	slices.Reverse(points)
	return points
}

// track has bins of equal length; those in which nothing was measured are left out.
type track struct {
	step int64 // seconds
	most int
	bins []bin // oldest first
}

// bin is what was measured in a step: means, but for the newest ready and total.
type bin struct {
	slot         uint32 // seconds since 1970 of its beginning
	at           uint32 // and of the newest sample
	n            uint32 // samples
	ready, total uint16

	cpu, memory, rps, p95 float32 // p95 in seconds, weighed with requests
	connections, errors   float32
	milliCPU, bytes       float32
}

func (b *bin) start() int64 { return int64(b.slot) }

func (t *track) add(s Sample) {
	at := min(max(s.At.Unix(), 0), math.MaxUint32)
	slot := uint32(at / t.step * t.step)
	for len(t.bins) > 0 && t.bins[len(t.bins)-1].slot > slot {
		t.bins = t.bins[:len(t.bins)-1]
	}
	if len(t.bins) == 0 || t.bins[len(t.bins)-1].slot != slot {
		t.push(bin{slot: slot})
	}
	t.bins[len(t.bins)-1].add(s, uint32(at))
}

func (t *track) push(b bin) {
	if len(t.bins) == t.most {
		t.bins = slices.Delete(t.bins, 0, t.most/9)
	}
	if len(t.bins) == cap(t.bins) {
		grown := make([]bin, len(t.bins), min(max(2*len(t.bins), 8), t.most))
		copy(grown, t.bins)
		t.bins = grown
	}
	t.bins = append(t.bins, b)
}

func (b *bin) add(s Sample, at uint32) {
	b.at = at
	b.n++
	b.ready, b.total = uint16(min(max(s.Ready, 0), math.MaxUint16)), uint16(min(max(s.Total, 0), math.MaxUint16))
	for _, f := range []struct {
		mean *float32
		v    float64
	}{
		{&b.cpu, s.CPU},
		{&b.memory, s.Memory},
		{&b.rps, s.RPS},
		{&b.connections, s.Connections},
		{&b.errors, s.Errors},
		{&b.milliCPU, float64(s.MilliCPU)},
		{&b.bytes, float64(s.MemoryBytes)},
	} {
		*f.mean += (measured(f.v) - *f.mean) / float32(b.n)
	}
	if p95 := measured(s.P95.Seconds()); p95 > 0 {
		share := float32(1) // of the requests so far that are in s
		if all := b.rps * float32(b.n); all > 0 && b.p95 > 0 {
			share = min(measured(s.RPS)/all, 1)
		}
		b.p95 += (p95 - b.p95) * share
	}
}

// measured makes a number of what may not be one.
func measured(v float64) float32 {
	if !(v > 0) {
		return 0
	}
	return float32(min(v, math.MaxFloat32/1e9))
}

// merge is the mean of bins.
func merge(bins []bin) Sample {
	if len(bins) == 0 {
		return Sample{}
	}
	var n, cpu, memory, rps, connections, errors, milliCPU, bytes float64
	for i := range bins {
		b := &bins[i]
		w := float64(b.n)
		n += w
		cpu += w * float64(b.cpu)
		memory += w * float64(b.memory)
		rps += w * float64(b.rps)
		connections += w * float64(b.connections)
		errors += w * float64(b.errors)
		milliCPU += w * float64(b.milliCPU)
		bytes += w * float64(b.bytes)
	}
	last := &bins[len(bins)-1]
	return Sample{
		At: time.Unix(int64(last.at), 0).UTC(), Ready: int(last.ready), Total: int(last.total),
		CPU: rounded(cpu / n), Memory: rounded(memory / n), RPS: rounded(rps / n),
		Connections: rounded(connections / n), Errors: rounded(errors / n),
		MilliCPU: int64(math.Round(milliCPU / n)), MemoryBytes: int64(math.Round(bytes / n)),
		P95: slowest(bins),
	}
}

// rounded undoes what float32 does to 78.1.
func rounded(v float64) float64 { return math.Round(v*1e4) / 1e4 }

// slowest is the P95 of a Mean.
func slowest(bins []bin) time.Duration {
	type part struct{ p95, requests float64 }
	var parts []part
	all := 0.0
	for i := range bins {
		if b := &bins[i]; b.p95 > 0 {
			requests := max(float64(b.rps)*float64(b.n), 1e-6)
			parts = append(parts, part{float64(b.p95), requests})
			all += requests
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.p95, b.p95) })
	sum := 0.0
	for _, p := range parts {
		if sum += p.requests; sum >= 0.95*all {
			return time.Duration(p.p95 * float64(time.Second)).Round(time.Microsecond)
		}
	}
	return 0
}

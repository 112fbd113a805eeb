package proxy

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Durations are counted in buckets: 16 to each power of two of microseconds
// from 32 µs on, so that a bucket is between 3 and 6 % wide, up to 67 s.
const (
	subBits = 4
	minBits = 5 // below 32 µs buckets are 2 µs wide
	maxBits = 26
	buckets = (maxBits - minBits + 1) << subBits
)

// bucket is where a duration is counted.
func bucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	n := bits.Len64(us)
	if n <= minBits {
		return int(us >> (minBits - subBits))
	}
	if n > maxBits {
		return buckets - 1
	}
	shift := n - 1 - subBits
	return (n-minBits)<<subBits + int(us>>shift) - 1<<subBits
}

// upper is where a bucket ends.
func upper(i int) time.Duration {
	octave, sub := i>>subBits, i&(1<<subBits-1)
	if octave == 0 {
		return time.Duration(sub+1) << (minBits - subBits) * time.Microsecond
	}
	return time.Duration(1<<subBits+sub+1) << octave * time.Microsecond
}

// recorder counts durations; many may record at once.
type recorder struct{ n [buckets]atomic.Uint64 }

func (r *recorder) record(d time.Duration) { r.n[bucket(d)].Add(1) }

// read is what has been recorded so far.
func (r *recorder) read() Histogram {
	h := Histogram{}
	for i := range r.n {
		n := r.n[i].Load()
		if n == 0 {
			continue
		}
		if h.counts == nil {
			h.first = i
		}
		for len(h.counts) < i-h.first {
			h.counts = append(h.counts, 0)
		}
		h.counts = append(h.counts, n)
	}
	return h
}

// Histogram is how many durations of which length there were. Its zero value
// is empty; it never changes.
type Histogram struct {
	first  int      // bucket of counts[0]
	counts []uint64 // up to the last that is not empty
}

// Count is how many durations were recorded.
func (h Histogram) Count() uint64 {
	var n uint64
	for _, c := range h.counts {
		n += c
	}
	return n
}

// Sub is what came after older. An older one that has more, because the app
// was gone in between, counts as empty.
func (h Histogram) Sub(older Histogram) Histogram {
	d := Histogram{first: h.first, counts: make([]uint64, len(h.counts))}
	copy(d.counts, h.counts)
	for i, c := range older.counts {
		at := older.first + i - h.first
		if c == 0 {
			continue
		}
		if at < 0 || at >= len(d.counts) || c > d.counts[at] {
			return h
		}
		d.counts[at] -= c
	}
	return d
}

// Quantile is the duration that a part q of all did not exceed, within 6 %;
// 0 if there are none.
func (h Histogram) Quantile(q float64) time.Duration {
	total := h.Count()
	if total == 0 {
		return 0
	}
	rank := uint64(q*float64(total) + 0.5)
	rank = min(max(rank, 1), total)
	for i, c := range h.counts {
		if rank <= c {
			top := upper(h.first + i)
			var bottom time.Duration
			if h.first+i > 0 {
				bottom = upper(h.first + i - 1)
			}
			return bottom + time.Duration(float64(top-bottom)*(float64(rank)-0.5)/float64(c))
		}
		rank -= c
	}
	return upper(buckets - 1)
}

// Sum is all durations together, within 3 %. Of a recorder it never falls from
// one reading to the next.
func (h Histogram) Sum() time.Duration {
	var sum time.Duration
	for i, c := range h.counts {
		mid := upper(h.first + i)
		if at := h.first + i; at > 0 {
			mid = (mid + upper(at-1)) / 2
		}
		sum += mid * time.Duration(c)
	}
	return sum
}

// Mean is the mean duration, within 3 %; 0 if there are none.
func (h Histogram) Mean() time.Duration { return h.Sum() / time.Duration(max(h.Count(), 1)) }

// Below is how many durations were no longer than d, within 6 % of d.
func (h Histogram) Below(d time.Duration) (n uint64) {
	for i, c := range h.counts {
		if upper(h.first+i) > d+d/16 {
			break
		}
		n += c
	}
	return n
}

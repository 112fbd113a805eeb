package mount

import (
	"context"
	"sync"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/cache"
)

// ahead finds files that are read from front to back, and has their next chunks fetched.
type ahead struct {
	mu   sync.Mutex // guards runs
	runs map[uint32]*run
}

// run is how far a file was read in order. It starts anywhere.
type run struct {
	next  int // the chunk that would go on with it
	long  int // chunks so far
	asked int // chunks before this one were asked for
}

const (
	// maxAhead bytes: at 10 ms to the store, enough for 800 MB/s.
	maxAhead = 8 << 20
	// maxRuns: more files than these are hardly read at once, and forgetting a run costs a round trip or two.
	maxRuns = 256
)

func newAhead() *ahead { return &ahead{runs: map[uint32]*run{}} }

// read notes that chunks first to last of a file are read, and asks for those after them: half as many as were read in order,
// so what is fetched in vain is at most half of what was not.
func (a *ahead) read(ctx context.Context, v *cache.View, n *flist.Node, node uint32, first, last int) {
	if len(n.Chunks) < 3 {
		return
	}
	from, to := a.note(node, first, last, len(n.Chunks), max(1, maxAhead/int(n.ChunkSize)))
	if from >= to {
		return
	}
	wants := make([]cache.Want, 0, to-from)
	for i := from; i < to; i++ {
		wants = append(wants, cache.Want{Ref: n.Chunks[i], Size: n.ChunkLen(i)})
	}
	v.Ahead(ctx, wants)
}

// note says which chunks to ask for: at most most of a file's count.
func (a *ahead) note(node uint32, first, last, count, most int) (from, to int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.runs[node]
	switch {
	case r == nil || first > r.next || last < r.next-most:
		if r == nil && len(a.runs) >= maxRuns {
			for old := range a.runs { // any
				delete(a.runs, old)
				break
			}
		}
		r = &run{next: last + 1, long: last - first + 1, asked: last + 1}
		a.runs[node] = r
	case last >= r.next:
		r.long += last + 1 - r.next
		r.next = last + 1
	default:
		return 0, 0 // the same chunk again, or one that another thread was faster with
	}
	from = max(r.asked, r.next)
	to = min(r.next+min(r.long/2, most), count)
	r.asked = max(r.asked, to)
	if r.next == count {
		delete(a.runs, node)
	}
	return from, to
}

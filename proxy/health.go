package proxy

import (
	"sync/atomic"
	"time"
)

// A replica that fails three times in a row within five seconds gets nothing
// for five seconds: what nginx does with max_fails=3 fail_timeout=5s. Then it
// is tried again; if that fails, it rests twice as long, up to a minute.
const (
	maxFails   = 3
	failWindow = 5 * time.Second
	firstRest  = 5 * time.Second
	maxRest    = time.Minute
)

// ejection is what is known of the failures of a replica.
type ejection struct {
	fails int
	first int64         // when the first of them was
	rest  time.Duration // the last one; 0: has answered since
}

// fail counts a failure and says whether that was one too many.
func (e *ejection) fail(now int64) bool {
	if e.fails == 0 || now-e.first > int64(failWindow) {
		e.fails, e.first = 0, now
	}
	e.fails++
	return e.fails >= maxFails || e.rest > 0
}

// eject is how long it rests now.
func (e *ejection) eject() time.Duration {
	e.fails = 0
	e.rest = min(max(2*e.rest, firstRest), maxRest)
	return e.rest
}

// health is a replica's ejection, and what of it is read at each request.
type health struct {
	ejection              // guarded by app.ejecting
	marred   atomic.Bool  // there is something to forget
	until    atomic.Int64 // when it may be chosen again
}

func (h *health) ejectedAt(now int64) bool { return h.until.Load() > now }

// worked forgets failures.
func (r *replica) worked() {
	if !r.marred.Load() {
		return
	}
	r.app.ejecting.Lock()
	defer r.app.ejecting.Unlock()
	r.ejection = ejection{}
	r.until.Store(0)
	r.marred.Store(false)
}

// failed counts a failure. It is how long the replica is left out from now
// on, if it is: never so that fewer than half of the app's would remain.
func (r *replica) failed(now int64) (time.Duration, bool) {
	r.errors.Add(1)
	r.app.ejecting.Lock()
	defer r.app.ejecting.Unlock()
	r.marred.Store(true)
	if r.ejectedAt(now) || !r.fail(now) {
		return 0, false
	}
	all, out := 0, 1
	for _, other := range r.app.now.Load().replicas {
		if other.draining.Load() {
			continue
		}
		all++
		if other != r && other.ejectedAt(now) {
			out++
		}
	}
	if 2*out > all {
		return 0, false
	}
	rest := r.eject()
	r.until.Store(now + int64(rest))
	r.app.ejections.Add(1)
	return rest, true
}

// budget bounds retries: each request earns a fifth of one, and some may be
// made in a row, so that an app with few requests has them too.
type budget struct{ spent atomic.Int64 }

const (
	retryCost  = 5
	maxInARow  = 100
	maxRetries = 2 // of one request
)

// earn is called for each request.
func (b *budget) earn() {
	if b.spent.Load() > 0 {
		b.spent.Add(-1)
	}
}

// take takes one retry, if there is one.
func (b *budget) take() bool {
	if b.spent.Add(retryCost) <= maxInARow*retryCost {
		return true
	}
	b.spent.Add(-retryCost)
	return false
}

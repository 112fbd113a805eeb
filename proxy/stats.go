package proxy

import (
	"sync/atomic"
	"time"
)

// AppStats are counters of an app since New, or since it came back; Active
// alone is of this moment. A connection of a stream, and a client of a UDP
// one, counts as a request.
type AppStats struct {
	Requests uint64
	Errors   uint64 // answered with 5xx, cut off, or nobody could be reached
	Active   int64  // under way
	// Answers are those by HTTP, by the first digit of their status, from 1xx
	// to 5xx; of what was cut off, too.
	Answers   [5]uint64
	Retries   uint64 // tries at another backend
	Ejections uint64 // how often a backend was left out
	// Latency is the time from a request's head to its answer's, tries
	// included; of a connection, until a backend had accepted it.
	Latency  Histogram
	BytesIn  uint64 // from clients: bodies of requests, all of streams
	BytesOut uint64 // to them
	Backends map[string]BackendStats
}

// BackendStats are the same of one replica. A request that was tried at two
// counts at both.
type BackendStats struct {
	Requests, Errors  uint64
	Active            int64
	Latency           Histogram
	BytesIn, BytesOut uint64
	Ejected           bool // left out after failures, for now
}

// tally is what is counted of an app, and of each replica.
type tally struct {
	requests, errors, in, out atomic.Uint64
	active                    atomic.Int64
	latency                   recorder
}

func (t *tally) begin() {
	t.requests.Add(1)
	t.active.Add(1)
}

func (t *tally) end() { t.active.Add(-1) }

func (t *tally) moved(in, out int64) {
	if in > 0 {
		t.in.Add(uint64(in))
	}
	if out > 0 {
		t.out.Add(uint64(out))
	}
}

func (a *app) answered(status int, took time.Duration) {
	a.latency.record(took)
	a.answers[min(max(status/100, 1), len(a.answers))-1].Add(1)
	if status >= 500 {
		a.errors.Add(1)
	}
}

// Len is how many apps there are routes for.
func (p *Proxy) Len() int { return p.table.Load().apps.len() }

// Stats are the counters of all apps of the present routes, by name.
func (p *Proxy) Stats() map[string]AppStats {
	now := p.now()
	t := p.table.Load()
	all := make(map[string]AppStats, t.apps.len())
	for a := range t.apps.all() {
		s := AppStats{
			Requests: a.requests.Load(), Errors: a.errors.Load(), Active: a.active.Load(), Latency: a.latency.read(),
			BytesIn: a.in.Load(), BytesOut: a.out.Load(), Backends: map[string]BackendStats{},
			Retries: a.retries.Load(), Ejections: a.ejections.Load(),
		}
		for i := range s.Answers {
			s.Answers[i] = a.answers[i].Load()
		}
		for _, r := range a.now.Load().replicas {
			s.Backends[r.id] = BackendStats{
				Requests: r.requests.Load(), Errors: r.errors.Load(), Active: r.active.Load(), Latency: r.latency.read(),
				BytesIn: r.in.Load(), BytesOut: r.out.Load(), Ejected: r.ejectedAt(now),
			}
		}
		all[a.name] = s
	}
	return all
}

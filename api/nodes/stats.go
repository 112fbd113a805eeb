package nodes

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/node/inventory"
)

// samplePace is how often the machine is sampled for /stats. A sample takes
// about a millisecond; counters are told per second, so the pace shows only in
// how short a peak max still sees.
const samplePace = 10 * time.Second

// periods are the windows of Zero-OS's statistics, in seconds, by their key on the wire.
var periods = map[string]int64{"300": 300, "3600": 3600}

// window sums up one metric since Start.
type window struct {
	Avg   float64 `json:"avg"`
	Count int     `json:"count"`
	Max   float64 `json:"max"`
	Start int64   `json:"start"` // seconds since 1970, a multiple of the period
	Total float64 `json:"total"`
}

// metric is an entry of the answer, and the counter it comes from.
type metric struct {
	Current map[string]window `json:"current"`

	last   float64
	lastAt time.Time
}

// add takes a sample into the windows of its time.
func (m *metric) add(value float64, now time.Time) {
	for key, period := range periods {
		start := now.Unix() - now.Unix()%period
		w := m.Current[key]
		if w.Count == 0 || w.Start != start {
			w = window{Start: start, Max: value}
		}
		w.Count++
		w.Total += value
		w.Max = max(w.Max, value)
		w.Avg = w.Total / float64(w.Count)
		m.Current[key] = w
	}
}

// sampler keeps the metrics of the machine. A device that has gone keeps its
// figures until their hour is over.
type sampler struct {
	mu   sync.Mutex // guards all below
	keys map[string]*metric
	at   time.Time // of the newest sample
}

// add takes a sample of everything. The first one of a counter has no rate yet.
func (s *sampler) add(stats map[string]inventory.Stat, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = now
	for key, stat := range stats {
		m := s.keys[key]
		if m == nil {
			m = &metric{Current: map[string]window{}}
			s.keys[key] = m
		}
		elapsed := now.Sub(m.lastAt).Seconds()
		switch {
		case !stat.Counter:
			m.add(stat.Value, now)
		case !m.lastAt.IsZero() && elapsed > 0 && stat.Value >= m.last: // else it has started anew
			m.add((stat.Value-m.last)/elapsed, now)
		}
		m.last, m.lastAt = stat.Value, now
	}
	for key, m := range s.keys {
		if now.Sub(m.lastAt) > time.Hour {
			delete(s.keys, key)
		}
	}
}

// snapshot copies what there is.
func (s *sampler) snapshot() map[string]metric {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]metric, len(s.keys))
	for key, m := range s.keys {
		out[key] = metric{Current: maps.Clone(m.Current)}
	}
	return out
}

func (s *sampler) age(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Sub(s.at)
}

// Run samples the machine for /stats until ctx is done.
func (d *Dialect) Run(ctx context.Context) error {
	tick := time.NewTicker(samplePace)
	defer tick.Stop()
	broken := false
	for {
		stats, err := d.node.Inventory().Stats()
		if err == nil {
			d.stats.add(stats, time.Now())
		}
		if err != nil && !broken { // told once, not every ten seconds
			d.log.WarnContext(ctx, "the machine cannot be sampled", "error", err)
		}
		broken = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// nodeStats answers what Run has seen; without Run it samples itself.
func (d *Dialect) nodeStats(w http.ResponseWriter, _ *http.Request) error {
	if now := time.Now(); d.stats.age(now) > 2*samplePace {
		stats, err := d.node.Inventory().Stats()
		if err != nil {
			return err
		}
		d.stats.add(stats, now)
	}
	api.JSON(w, http.StatusOK, d.stats.snapshot())
	return nil
}

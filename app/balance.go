package app

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Route is an app as the balancer sees it.
type Route struct {
	App      string
	Spec     *Spec // nil: there are none for it
	Backends []Backend
}

// Backend is a replica as the balancer sees it.
type Backend struct {
	ID       string
	Ports    map[uint16]netip.AddrPort // container port → where it is reached
	Draining bool                      // gets nothing new
}

// Traffic is what the balancer counted of an app since its start.
type Traffic struct {
	Requests, Errors uint64
	Active           int64
	Latency          Latencies
	Answers          [5]uint64                 // by HTTP, from 1xx to 5xx
	Retries          uint64                    // tries at another replica
	Ejections        uint64                    // how often a replica was left out for a while
	Replicas         map[string]ReplicaTraffic // by launch id
}

// ReplicaTraffic is the part of one replica.
type ReplicaTraffic struct {
	Requests, Errors uint64
	Active           int64
	Latency          Latencies
	Ejected          bool // it answers badly and is left out for a while
}

// Latencies tell how long answers took.
type Latencies interface {
	Since(older Latencies) Latencies // what came after a former value of the same; nil: all
	Quantile(q float64) time.Duration
	Mean() time.Duration
	Sum() time.Duration // of all; never falls
	Count() uint64
	Below(d time.Duration) uint64 // how many took no longer
}

// balance tells the balancer of the apps whose routes may be others than it
// knows. The caller holds edit.
func (e *Engine) balance() {
	changed := e.changedRoutes()
	if len(changed) == 0 {
		return
	}
	refused, err := e.reroute(changed)
	if err != nil {
		e.cfg.Log.Error("routes are not as apps want them", "error", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range changed {
		if refused[r.App] {
			e.routes[r.App] = struct{}{} // it is tried again
		} else if rec := e.apps[r.App]; rec != nil {
			rec.routed = r.Backends
		}
	}
	e.announce()
}

// changedRoutes are those of which the balancer has not been told yet.
func (e *Engine) changedRoutes() (changed []Route) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(e.routes)) {
		r := Route{App: name}
		if rec := e.apps[name]; rec != nil && len(rec.app.Spec().Ports) > 0 {
			r.Spec, r.Backends = rec.app.Spec().without(rec.app.Lost), e.backends(rec)
		}
		changed = append(changed, r)
	}
	clear(e.routes)
	return changed
}

// reroute tells the balancer of all at once; if it refuses that, of each by
// itself, so that one that clashes leaves the others alone.
func (e *Engine) reroute(changed []Route) (refused map[string]bool, err error) {
	err = e.cfg.Balancer.Update(changed)
	if err == nil || errors.Is(err, errs.Unavailable) {
		return nil, err
	}
	refused = map[string]bool{}
	var all []error
	for i, r := range changed {
		err := e.cfg.Balancer.Update(changed[i : i+1])
		refused[r.App] = err != nil && !errors.Is(err, errs.Unavailable)
		all = append(all, err)
	}
	return refused, errors.Join(all...)
}

// serves says that requests go to a replica that is well: if it has ports, as
// the balancer was told last. So who sees an app up can reach it. The caller holds mu.
func (e *Engine) serves(rec *record, r *Replica) bool {
	if e.liveness[r.Host] == Lost {
		return false
	}
	if len(rec.app.Spec().Ports) == 0 || len(r.Ports) == 0 {
		return r.Ready()
	}
	i, ok := slices.BinarySearchFunc(rec.routed, r.ID, func(b Backend, id string) int { return strings.Compare(b.ID, id) })
	return ok && !rec.routed[i].Draining && r.Phase == Running && !r.Well.IsZero()
}

// backends are where requests for an app may go, by id. If no replica is well, those
// that run are better than none: what is too busy to answer checks answers some
// requests still, and a host that is out of touch may be well. The caller holds mu.
func (e *Engine) backends(rec *record) (all []Backend) {
	var unwell []Backend
	ready := 0
	for _, id := range slices.Sorted(maps.Keys(rec.reps)) {
		r := e.replicas[id]
		if r.Phase != Running || len(r.Ports) == 0 || r.Standby {
			continue
		}
		b := Backend{ID: id, Ports: r.Ports, Draining: !r.Stopped.IsZero()}
		switch {
		case b.Draining:
			all = append(all, b)
		case r.Ready() && e.liveness[r.Host] != Lost:
			ready++
			all = append(all, b)
		case r.Ready() || r.Seen.Health == "unhealthy":
			unwell = append(unwell, b)
		}
	}
	if ready == 0 {
		all = append(all, unwell...)
		slices.SortFunc(all, func(x, y Backend) int { return strings.Compare(x.ID, y.ID) })
	}
	return all
}

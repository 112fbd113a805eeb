// Package apptest has an engine with hosts that do as they are told, for tests
// of packages that call the engine.
package apptest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Fleet is an engine that runs, its hosts and its store. It belongs into a
// bubble of testing/synctest.
type Fleet struct {
	*app.Engine
	Store *Store
	Hosts []*Host

	t    testing.TB
	stop func()
}

// New runs an engine with hosts of these names, each with four CPUs and 4 GiB
// of memory.
func New(t testing.TB, hosts ...string) *Fleet {
	t.Helper()
	f := &Fleet{t: t, Store: &Store{}}
	for _, id := range hosts {
		f.Hosts = append(f.Hosts, &Host{fleet: f, id: id, poke: make(chan struct{}, 1), have: map[string]*app.Container{}})
	}
	f.run()
	t.Cleanup(func() { f.stop() })
	return f
}

// Restart has another engine go on with what the store has.
func (f *Fleet) Restart() {
	f.t.Helper()
	f.stop()
	f.run()
}

func (f *Fleet) run() {
	f.t.Helper()
	e, err := app.New(app.Config{
		Store: f.Store, Balancer: idle{}, Nudge: f.nudge,
		Secret: func(name, key string) (string, error) { return name + "/" + key, nil },
	})
	if err == nil {
		err = e.Load(f.t.Context())
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.Engine = e
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.t.Context()))
	var wg sync.WaitGroup
	f.stop = func() { cancel(); wg.Wait() }
	for _, h := range f.Hosts {
		about := app.Host{ID: h.id, Name: h.id, Addr: "127.0.0.1", Facts: app.Facts{MilliCPU: 4000, Memory: 4 << 30}}
		if _, err := e.RegisterHost(ctx, about, "token of "+h.id); err != nil {
			f.t.Fatal(err)
		}
		wg.Go(func() { h.run(ctx, e) })
	}
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			f.t.Error(err)
		}
	})
}

func (f *Fleet) nudge(id string) {
	for _, h := range f.Hosts {
		if h.id == id {
			select {
			case h.poke <- struct{}{}:
			default:
			}
		}
	}
}

// Host has no containers, and says that it has.
type Host struct {
	fleet *Fleet
	id    string
	poke  chan struct{}

	mu     sync.Mutex // guards all below
	seq    uint64
	have   map[string]*app.Container // by launch
	refuse string
	gone   bool
}

// Refuse has launches fail from now on, for that reason; empty: not any more.
func (h *Host) Refuse(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = why
}

// Cut has the host say nothing any more.
func (h *Host) Cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
}

func (h *Host) run(ctx context.Context, e *app.Engine) {
	for ctx.Err() == nil {
		wait := 20 * time.Second
		if h.report(ctx, e) {
			wait = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-h.poke:
		case <-time.After(wait):
		}
	}
}

// report reports, does as it is told, and says whether there is news now.
func (h *Host) report(ctx context.Context, e *app.Engine) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return false
	}
	h.seq++
	r := app.Report{Boot: "boot", Seq: h.seq}
	for _, id := range slices.Sorted(maps.Keys(h.have)) {
		r.Containers = append(r.Containers, *h.have[id])
	}
	o, err := e.Report(ctx, h.id, r)
	if err != nil {
		return false
	}
	for _, l := range o.Launch {
		if h.have[l.Replica.ID] == nil {
			h.have[l.Replica.ID] = h.launch(l)
		}
	}
	for _, s := range o.Stop {
		delete(h.have, s.Launch)
	}
	for _, id := range o.Start {
		h.have[id].State = "running"
	}
	return len(o.Launch)+len(o.Stop)+len(o.Start) > 0
}

func (h *Host) launch(l app.Launch) *app.Container {
	c := &app.Container{Launch: l.Replica.ID, App: l.Replica.App, Name: l.Replica.Name(), State: "running", Started: time.Now(), Ports: map[uint16]netip.AddrPort{}}
	for i, p := range l.Spec.Ports {
		c.Ports[p.Container] = netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", 20000+100*len(h.have)+i))
	}
	switch {
	case h.refuse != "":
		c.State, c.Message = "absent", h.refuse
	case l.Replica.Standby:
		c.State = "standby"
	}
	return c
}

// Store keeps things in memory.
type Store struct {
	mu     sync.Mutex // guards all below
	state  app.State
	events []app.Event
	fail   func(app.Change) error
}

// Fail has f decide about changes from now on.
func (s *Store) Fail(f func(app.Change) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Load implements app.Store.
func (s *Store) Load(context.Context) (app.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := app.State{Apps: slices.Clone(s.state.Apps), Hosts: slices.Clone(s.state.Hosts), Settings: maps.Clone(s.state.Settings)}
	for _, r := range s.state.Replicas {
		r.Seen, r.Well = app.Container{}, time.Time{} // are not durable
		st.Replicas = append(st.Replicas, r)
	}
	return st, nil
}

// Commit implements app.Store.
func (s *Store) Commit(_ context.Context, c app.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(c); err != nil {
			return errs.E(errs.Unavailable, "%w", err)
		}
	}
	put(&s.state.Apps, c.Apps, c.DropApps, func(a app.App) string { return a.Name })
	put(&s.state.Replicas, c.Replicas, c.DropReplicas, func(r app.Replica) string { return r.ID })
	put(&s.state.Hosts, c.Hosts, c.DropHosts, func(h app.Host) string { return h.ID })
	if s.state.Settings == nil {
		s.state.Settings = map[string][]byte{}
	}
	maps.Copy(s.state.Settings, c.Settings)
	for i := range c.Events {
		c.Events[i].ID = int64(len(s.events) + 1)
		s.events = append(s.events, c.Events[i])
	}
	return nil
}

// put changes a list whose elements have keys.
func put[T any](list *[]T, add []T, drop []string, key func(T) string) {
	*list = slices.DeleteFunc(slices.Clone(*list), func(old T) bool {
		return slices.Contains(drop, key(old)) || slices.ContainsFunc(add, func(one T) bool { return key(one) == key(old) })
	})
	for _, one := range add {
		if !slices.Contains(drop, key(one)) {
			*list = append(*list, one)
		}
	}
}

// Events implements app.Store.
func (s *Store) Events(_ context.Context, q app.EventQuery) (out []app.Event, n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range slices.Backward(s.events) {
		if (q.App == "" || e.App == q.App) && (q.Type == "" || e.Type == q.Type) {
			out = append(out, e)
		}
	}
	return out, len(out), nil
}

// idle is a balancer that nobody asks for anything.
type idle struct{}

func (idle) Update([]app.Route) error        { return nil }
func (idle) Check(string, *app.Spec) error   { return nil }
func (idle) Traffic() map[string]app.Traffic { return nil }

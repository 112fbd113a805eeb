package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/errs"
)

// memory is a Store that forgets when the test ends.
type memory struct {
	mu     sync.Mutex
	st     map[string]any
	events []Event
	full   bool                 // nothing can be written
	before func(c Change) error // called before a commit
	writes int
}

func (m *memory) Load(context.Context) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{Settings: map[string][]byte{}}
	for _, k := range slices.Sorted(maps.Keys(m.st)) {
		switch v := m.st[k].(type) {
		case App:
			s.Apps = append(s.Apps, v)
		case Replica:
			v.Seen, v.Well = Container{}, time.Time{}
			s.Replicas = append(s.Replicas, v)
		case Host:
			v.Report, v.Seen = Report{}, time.Time{}
			s.Hosts = append(s.Hosts, v)
		case []byte:
			s.Settings[k[1:]] = v
		}
	}
	return s, nil
}

func (m *memory) Commit(_ context.Context, c Change) error {
	m.mu.Lock()
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(c); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errs.E(errs.Unavailable, "the disk is full")
	}
	m.writes++
	for _, a := range c.Apps {
		m.st["a"+a.Name] = a
	}
	for _, r := range c.Replicas {
		m.st["r"+r.ID] = r
	}
	for _, h := range c.Hosts {
		m.st["h"+h.ID] = h
	}
	for k, v := range c.Settings {
		m.st["s"+k] = v
	}
	for _, id := range c.DropApps {
		delete(m.st, "a"+id)
	}
	for _, id := range c.DropReplicas {
		delete(m.st, "r"+id)
	}
	for _, id := range c.DropHosts {
		delete(m.st, "h"+id)
	}
	for i := range c.Events {
		c.Events[i].ID = int64(len(m.events) + 1)
		m.events = append(m.events, c.Events[i])
	}
	return nil
}

func (m *memory) Events(_ context.Context, q EventQuery) (out []Event, n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range slices.Backward(m.events) {
		if (q.App == "" || e.App == q.App) && (q.Type == "" || e.Type == q.Type) {
			out = append(out, e)
		}
	}
	return out, len(out), nil
}

// idleBalancer has no requests.
type idleBalancer struct {
	mu     sync.Mutex
	routes map[string]Route
	told   int // of so many routes in all
}

func (b *idleBalancer) Update(changed []Route) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes = b.with(changed)
	b.told += len(changed)
	return nil
}

// with are the routes after an update. The caller holds mu.
func (b *idleBalancer) with(changed []Route) map[string]Route {
	all := map[string]Route{}
	maps.Copy(all, b.routes)
	for _, r := range changed {
		if all[r.App] = r; r.Spec == nil {
			delete(all, r.App)
		}
	}
	return all
}

func (*idleBalancer) Check(string, *Spec) error   { return nil }
func (*idleBalancer) Traffic() map[string]Traffic { return nil }

func (b *idleBalancer) backends(app string) (ready, draining int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.routes {
		for _, be := range r.Backends {
			switch {
			case r.App != app:
			case be.Draining:
				draining++
			default:
				ready++
			}
		}
	}
	return ready, draining
}

// rig is an engine with hosts that do what they are told.
type rig struct {
	*Engine
	t     *testing.T
	store *memory
	lb    *idleBalancer
	cfg   Config // what is not the rig's to say
	hosts map[string]*fakeHost
	stop  func()
}

// rigBoot is the boot of the rig's own hosts; tests that play a host have others.
const rigBoot = "rig"

type fakeHost struct {
	rig   *rig
	id    string
	poke  chan struct{}
	mu    sync.Mutex // guards all below
	off   bool       // the cable is pulled
	seq   uint64
	have  map[string]*Container
	seen  map[string]int // launch orders carried out, by id
	refus string         // why launches fail
	made  func(*Container)
}

func newRig(t *testing.T, store *memory, hosts ...string) *rig {
	return newRigWith(t, Config{}, store, hosts...)
}

func newRigWith(t *testing.T, cfg Config, store *memory, hosts ...string) *rig {
	r := &rig{t: t, store: store, lb: &idleBalancer{}, cfg: cfg, hosts: map[string]*fakeHost{}}
	r.run(hosts...)
	return r
}

// run starts an engine on the store, and the hosts.
func (r *rig) run(hosts ...string) {
	cfg := r.cfg
	cfg.Store = r.store
	if cfg.Balancer == nil {
		cfg.Balancer = r.lb
	}
	cfg.Nudge = func(id string) {
		if h := r.hosts[id]; h != nil {
			select {
			case h.poke <- struct{}{}:
			default:
			}
		}
	}
	e, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := e.Load(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.Engine = e
	ctx, cancel := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	for _, id := range hosts {
		if r.hosts[id] == nil {
			r.hosts[id] = &fakeHost{rig: r, id: id, poke: make(chan struct{}, 1), have: map[string]*Container{}, seen: map[string]int{}}
		}
	}
	for _, id := range hosts {
		_, err := e.RegisterHost(ctx, Host{ID: id, Name: id, Addr: "127.0.0.1", Facts: Facts{MilliCPU: 4000, Memory: 4 << 30}}, "token-"+id)
		if err != nil {
			r.t.Fatal(err)
		}
		wg.Go(func() { r.hosts[id].run(ctx) })
	}
	wg.Go(func() {
		if err := e.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	r.stop = func() { cancel(); wg.Wait() }
}

func (h *fakeHost) run(ctx context.Context) {
	for ctx.Err() == nil {
		again := h.report(ctx)
		wait := 20 * time.Second
		if again {
			wait = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-h.poke:
		case <-time.After(wait):
		}
	}
}

// report reports, obeys, and says whether there is news now.
func (h *fakeHost) report(ctx context.Context) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.off {
		return false
	}
	h.seq++
	rep := Report{Boot: rigBoot, Seq: h.seq}
	for _, id := range slices.Sorted(maps.Keys(h.have)) {
		rep.Containers = append(rep.Containers, *h.have[id])
	}
	o, err := h.rig.Report(ctx, h.id, rep)
	if err != nil {
		h.rig.t.Error(err)
		return false
	}
	for _, l := range o.Launch {
		if h.have[l.Replica.ID] != nil {
			continue
		}
		h.seen[l.Replica.ID]++
		c := &Container{Launch: l.Replica.ID, App: l.Replica.App, Name: l.Replica.Name(), State: "running", Started: time.Now(), Digest: "sha256:1"}
		c.Ports = map[uint16]netip.AddrPort{80: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", 20000+len(h.seen)))}
		if l.Replica.Standby {
			c.State = "standby"
		}
		if h.refus != "" {
			c.State, c.Message = "absent", h.refus
		}
		if h.made != nil {
			h.made(c)
		}
		h.have[c.Launch] = c
	}
	for _, s := range o.Stop {
		delete(h.have, s.Launch)
	}
	for _, id := range o.Start {
		h.have[id].State = "running"
	}
	return len(o.Launch)+len(o.Stop)+len(o.Start) > 0
}

func (h *fakeHost) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *fakeHost) ids() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.have))
}

func webSpec(replicas int) Spec {
	return Spec{
		Name: "web", Kind: Service, Replicas: replicas, Container: buoy.CreateRequest{Flist: "img:1", NICs: []buoy.NIC{{Type: "default"}}},
		Ports:   []Port{{Container: 80, Proto: "http"}},
		Scaling: Scaling{Mode: Manual, Max: 100, OutPct: 80, InPct: 30, Window: time.Minute}, Drain: 30 * time.Second,
		Rollout: Rollout{MaxSurge: 1, Deadline: 5 * time.Minute, Revert: true}, Placement: Placement{Patience: 5 * time.Minute},
	}
}

// until waits, in the time of the bubble.
func (r *rig) until(what string, ok func(v View) bool) View {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Minute)
	defer cancel()
	v, err := r.Await(ctx, "web", ok)
	if err != nil {
		r.t.Fatalf("%s: %v\n%+v", what, err, v)
	}
	return v
}

func ready(n int) func(View) bool {
	return func(v View) bool { return v.Ready == n && v.Current == n && len(v.Replicas) == n && v.Status == Up }
}

func (r *rig) apply(s Spec) {
	r.t.Helper()
	if _, err := r.Apply(r.t.Context(), s, nil, "apps"); err != nil {
		r.t.Fatal(err)
	}
}

func TestEngineLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2", "h3")
		defer func() { r.stop() }()
		ctx := t.Context()
		began := time.Now()
		r.apply(webSpec(3))
		r.until("three run", ready(3))
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("three replicas took %s: hosts are not told at once", took)
		}
		for id, h := range r.hosts {
			if len(h.ids()) != 1 {
				t.Errorf("%s has %v", id, h.ids())
			}
		}
		if from, err := r.Scale(ctx, "web", 6, "more", true); err != nil || from != 3 {
			t.Fatal(from, err)
		}
		if _, err := r.Scale(ctx, "web", 5, "less", true); !errors.Is(err, ErrScaling) || errs.KindOf(err) != errs.Conflict {
			t.Errorf("scaling while it scales: %v", err)
		}
		r.until("six run", ready(6))
		if _, err := r.Scale(ctx, "web", 1000, "far too many", true); !errors.Is(err, ErrLimits) {
			t.Errorf("beyond the limit: %v", err)
		}
		time.Sleep(time.Second) // virtual
		if n, _ := r.lb.backends("web"); n != 6 {
			t.Errorf("%d backends", n)
		}
		// A new revision, and never fewer than six.
		next := webSpec(6)
		next.Container.Flist = "img:2"
		r.apply(next)
		v := r.until("revision 2", func(v View) bool {
			if v.Ready < 6 {
				t.Fatalf("%d are ready", v.Ready)
			}
			return v.App.Rollout.Done && ready(6)(v)
		})
		if v.App.Rollout.Target != 2 || v.App.Revision(2).Digest == "" {
			t.Errorf("%+v", v.App.Rollout)
		}
		r.apply(next) // the same again
		if v, _ := r.App("web"); len(v.App.Revisions) != 2 {
			t.Errorf("%d revisions", len(v.App.Revisions))
		}
		// The controller may be away for a week.
		r.stop()
		time.Sleep(7 * 24 * time.Hour)
		before := r.allIDs()
		r.run("h1", "h2", "h3")
		r.until("as before", ready(6))
		time.Sleep(time.Hour)
		if after := r.allIDs(); !slices.Equal(before, after) {
			t.Errorf("containers were %v and are %v", before, after)
		}
		removed, err := r.Remove(ctx, "web", false)
		if err != nil || removed.Containers != 6 || len(r.allIDs()) != 0 {
			t.Errorf("%+v, %v, left %v", removed, err, r.allIDs())
		}
		if _, err := r.App("web"); errs.KindOf(err) != errs.NotFound {
			t.Error(err)
		}
		for _, h := range r.hosts {
			for id, n := range h.seen {
				if n != 1 {
					t.Errorf("%s was launched %d times", id, n)
				}
			}
		}
	})
}

func (r *rig) allIDs() (all []string) {
	for _, h := range r.hosts {
		all = append(all, h.ids()...)
	}
	slices.Sort(all)
	return all
}

// TestEngineHostLost: what a lost host ran is placed elsewhere; what it still
// runs when it returns stays, and the newest go.
func TestEngineHostLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2", "h3")
		defer r.stop()
		r.apply(webSpec(6))
		r.until("six run", ready(6))
		h1 := r.hosts["h1"]
		old := h1.ids()
		h1.set(func() { h1.off = true })
		time.Sleep(2 * time.Minute)
		if v, _ := r.App("web"); v.Ready != 4 || v.Status != Degraded || len(v.Replicas) != 6 {
			t.Errorf("before the patience is over: %+v", v)
		}
		if n, _ := r.lb.backends("web"); n != 4 {
			t.Errorf("%d backends", n)
		}
		r.until("replaced", func(v View) bool { return v.Ready == 6 })
		h1.set(func() { h1.off = false })
		r.until("surplus gone", ready(6))
		if now := h1.ids(); !slices.Equal(old, now) {
			t.Errorf("h1 had %v and has %v", old, now)
		}
		// Drained, it is emptied.
		if err := r.SetHostMode(t.Context(), "h1", Drain, "user", "a new disk"); err != nil {
			t.Fatal(err)
		}
		r.until("drained", func(v View) bool {
			if v.Ready < 6 {
				t.Fatalf("%d are ready", v.Ready)
			}
			return len(h1.ids()) == 0 && ready(6)(v)
		})
	})
}

// TestEngineFullDisk: nothing that cannot be kept is done, and nothing is lost.
func TestEngineFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{st: map[string]any{}}
		r := newRig(t, store, "h1")
		defer r.stop()
		r.apply(webSpec(2))
		r.until("two run", ready(2))
		full := func(b bool) {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.full = b
		}
		full(true)
		if _, err := r.Scale(t.Context(), "web", 4, "more", true); errs.KindOf(err) != errs.Unavailable || !errors.Is(err, ErrStore) {
			t.Errorf("with a full disk: %v", err)
		}
		h := r.hosts["h1"]
		h.set(func() { h.have = map[string]*Container{} })
		time.Sleep(10 * time.Minute)
		if len(h.ids()) != 0 {
			t.Errorf("launched and not kept: %v", h.ids())
		}
		full(false)
		r.until("two run again", ready(2))
	})
}

// TestEngineRefused: launches that fail are tried elsewhere and ever more slowly.
func TestEngineRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer r.stop()
		for _, h := range r.hosts {
			h.set(func() { h.refus = "no such image" })
		}
		r.apply(webSpec(2))
		time.Sleep(10 * time.Minute)
		v, _ := r.App("web")
		if v.Status != Failing || v.Reason != "Failed" || v.Message == "" {
			t.Errorf("%s %s %s", v.Status, v.Reason, v.Message)
		}
		tries := 0
		for _, h := range r.hosts {
			h.set(func() { tries += len(h.seen); h.refus = "" })
		}
		if tries < 4 || tries > 60 {
			t.Errorf("%d tries in 10 minutes", tries)
		}
		r.until("cured", ready(2))
	})
}

// TestEngineStale: a report that is older than the last one changes nothing.
func TestEngineStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		r.apply(webSpec(2))
		r.until("two run", ready(2))
		if _, err := r.Report(t.Context(), "h1", Report{Boot: rigBoot, Seq: 1}); err != nil {
			t.Fatal(err)
		}
		o, err := r.Report(t.Context(), "h1", Report{Boot: rigBoot, Seq: 1 << 40, Same: 12345})
		if err != nil || !o.Full {
			t.Errorf("%+v, %v", o, err)
		}
		if v, _ := r.App("web"); !ready(2)(v) {
			t.Errorf("%+v", v)
		}
	})
}

// TestEngineApplyKeeps: what was set by other means than the manifest stays,
// unless the manifest says something new of it.
func TestEngineApplyKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		r.apply(webSpec(2))
		r.until("two run", ready(2))
		if _, err := r.Scale(t.Context(), "web", 4, "more", true); err != nil {
			t.Fatal(err)
		}
		r.until("four run", ready(4))
		next := webSpec(2)
		next.Container.Flist = "img:2"
		r.apply(next)
		r.until("still four", func(v View) bool { return v.App.Rollout.Done && v.App.Rollout.Target == 2 && ready(4)(v) })
		next.Replicas, next.Container.Flist = 3, "img:3"
		next.Scaling.Max = 50
		r.apply(next)
		if v := r.until("three", ready(3)); v.App.Scaling.Max != 50 {
			t.Errorf("%+v", v.App.Scaling)
		}
	})
}

// TestEngineRemoveLasts: an app that cannot be removed yet is removed when it can
// be, also by another engine, and not if somebody wants it after all.
func TestEngineRemoveLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer func() { r.stop() }()
		h1 := r.hosts["h1"]
		gone := func() bool {
			_, err := r.App("web")
			return errs.KindOf(err) == errs.NotFound
		}
		remove := func() {
			t.Helper()
			h1.set(func() { h1.off = true })
			time.Sleep(2 * time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := r.Remove(ctx, "web", false); errs.KindOf(err) != errs.Unavailable {
				t.Fatalf("removed although h1 is away: %v", err)
			}
			if v, err := r.App("web"); err != nil || v.Reason != "Removing" {
				t.Errorf("%s %s, %v", v.Reason, v.Message, err)
			}
		}
		r.apply(webSpec(4))
		r.until("four run", ready(4))
		remove()
		r.stop()
		h1.set(func() { h1.off = false })
		r.run("h1", "h2")
		time.Sleep(time.Minute)
		if !gone() || len(r.allIDs()) > 0 {
			t.Fatalf("gone: %v, left: %v", gone(), r.allIDs())
		}
		r.apply(webSpec(4))
		r.until("four run", ready(4))
		remove()
		h1.set(func() { h1.off = false })
		r.apply(webSpec(4))
		r.until("wanted after all", ready(4))
	})
}

// TestEngineLinkLost: a host whose tunnel closes, and that says nothing, gets
// nothing new within seconds.
func TestEngineLinkLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		h1 := r.hosts["h1"]
		liveness := func() Liveness {
			h, err := r.Host("h1")
			if err != nil {
				t.Fatal(err)
			}
			return h.Liveness
		}
		r.Linked("h1", true)
		r.Linked("h1", false)
		r.Linked("h1", true)
		time.Sleep(10 * time.Second)
		if l := liveness(); l != Alive {
			t.Errorf("with another tunnel it is %s", l)
		}
		h1.set(func() { h1.off = true })
		r.Linked("h1", false)
		time.Sleep(6 * time.Second)
		if l := liveness(); l != Silent {
			t.Errorf("without a tunnel it is %s", l)
		}
		h1.set(func() { h1.off = false })
		h1.poke <- struct{}{}
		time.Sleep(time.Second)
		if l := liveness(); l != Alive {
			t.Errorf("it reports and is %s", l)
		}
	})
}

package app

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestPlanDaemon: whatever happens, each host that takes one has one of the
// target's, and never two; a rollout leaves as many serving as it may.
func TestPlanDaemon(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			spec := testSpec(0)
			spec.Kind, spec.Rollout.MaxSurge, spec.Rollout.MaxUnavailable = Daemon, 0, 1
			f := newFleet(t, seed, spec)
			for step := range 200 {
				h := fmt.Sprint("h", f.rnd.IntN(4))
				p := f.hosts[h]
				switch f.rnd.IntN(20) {
				case 0:
					f.revise(spec)
					f.sick[len(f.app.Revisions)] = f.rnd.IntN(4) == 0
				case 1:
					p.Liveness = []Liveness{Alive, Alive, Silent, Lost}[f.rnd.IntN(4)]
				case 2:
					p.Mode = []HostMode{Continue, Drain, Pause}[f.rnd.IntN(3)]
				case 3:
					f.app.Started = f.rnd.IntN(3) > 0
				case 4:
					f.hosts[fmt.Sprint("j", step)] = Place{Mode: Continue, Liveness: Alive, Seen: f.now}
				}
				f.hosts[h] = p
				f.step(f.rnd.IntN(4) == 0)
				f.planDaemon()
			}
			f.app.Started = true
			for h, p := range f.hosts {
				p.Liveness, p.Mode, p.Seen = Alive, Continue, f.now
				f.hosts[h] = p
			}
			lost := f.hosts["h3"]
			lost.Liveness = Lost
			f.hosts["h3"] = lost
			f.revise(spec)
			for range 600 {
				f.step(false)
				f.planDaemon()
			}
			if n := f.ready(); n != len(f.hosts)-1 || !f.app.Rollout.Done {
				t.Errorf("%d of %d hosts have one: %+v", n, len(f.hosts), f.app.Rollout)
			}
			for _, r := range f.reps {
				if r.Host != "h3" && (!r.Living() || r.Revision != f.app.Rollout.Target) {
					t.Errorf("left: %+v", r)
				}
			}
		})
	}
}

// planDaemon is plan, where hosts are chosen as Place would.
func (f *fleet) planDaemon() {
	f.t.Helper()
	has, before, away := map[string]bool{}, f.ready(), 0
	for _, r := range f.reps {
		has[r.Host] = true
	}
	var targets, free []string
	for _, h := range slices.Sorted(mapKeys(f.hosts)) {
		p := f.hosts[h]
		if p.Mode == Drain {
			before = 0 // it may go down
		}
		open := p.Mode == Continue && p.Liveness == Alive
		if (open || has[h]) && p.Mode != Drain {
			targets = append(targets, h)
		}
		if open && !has[h] {
			free = append(free, h)
		}
	}
	steps := Plan(Situation{App: &f.app, Replicas: f.reps, Hosts: f.hosts, Targets: targets, Fails: f.fails, Now: f.now})
	f.carryOut(&steps)
	for _, r := range f.reps {
		if f.hosts[r.Host].Liveness == Lost && !r.Living() {
			away++
		}
	}
	if after := f.ready(); f.app.Started && after < before && after < len(targets)-away-1 {
		f.t.Fatalf("%d were ready, now %d are, of %d", before, after, len(targets)-away)
	}
	for _, w := range steps.Launch {
		if w.N > len(free) {
			f.t.Fatalf("%d are to be launched on %v", w.N, free)
		}
		for _, h := range free[:w.N] {
			f.n++
			f.reps = append(f.reps, Replica{ID: fmt.Sprint("l", f.n), App: "web", Index: f.n, Revision: w.Revision, Host: h, Created: f.now, Phase: Ordered})
		}
		free = free[w.N:]
	}
}

// TestDaemonHosts: hosts that join get one; one that is lost is not waited for,
// and neither is a place that a rollout is about to free called missing.
func TestDaemonHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2", "h3")
		defer r.stop()
		s := webSpec(0)
		s.Kind, s.Scaling, s.Rollout.MaxSurge, s.Rollout.MaxUnavailable = Daemon, Scaling{}, 0, 1
		r.apply(s)
		r.until("three run", ready(3))
		h3 := r.hosts["h3"]
		h3.set(func() { h3.off = true })
		time.Sleep(10 * time.Minute)
		r.until("two run", func(v View) bool { return v.Ready == 2 && v.Missing == 0 && v.Status == Up })
		s.Container.Flist = "img:2"
		r.apply(s)
		r.until("rolled out", func(v View) bool { return v.App.Rollout.Done && v.App.Rollout.Target == 2 && v.Ready == 2 })
		h3.set(func() { h3.off = false })
		v := r.until("three run", ready(3))
		for _, one := range v.Replicas {
			if one.Revision != 2 {
				t.Errorf("%+v", one)
			}
		}
		events, _, err := r.Events(t.Context(), EventQuery{App: "web", Type: Trouble})
		if err != nil {
			t.Error(err)
		}
		for _, e := range events {
			if e.Details["missing"] != nil {
				t.Error(e.Message)
			}
		}
	})
}

package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// bg runs f until the rig is stopped.
func (r *rig) bg(f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	stop := r.stop
	r.stop = func() { <-done; stop() }
}

// TestStoppedBeforeLaunch: a replica that its host has never had is gone once
// the host has heard that it is not wanted, though that is no news to the host.
func TestStoppedBeforeLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bareRig(t, "h1")
		defer r.stop()
		r.say("h1", Report{Boot: "1", Seq: 1})
		r.apply(webSpec(1))
		think()
		if _, err := r.Stop(t.Context(), "web", false); err != nil {
			t.Fatal(err)
		}
		think()
		if _, err := r.Orders("h1"); err != nil { // somebody looks
			t.Fatal(err)
		}
		if o := r.say("h1", Report{Boot: "1", Seq: 2, Same: 1}); len(o.Stop) != 1 {
			t.Fatalf("%+v", o)
		}
		r.say("h1", Report{Boot: "1", Seq: 3, Same: 1})
		if v, _ := r.App("web"); len(v.Replicas) > 0 {
			t.Errorf("left: %+v", v.Replicas)
		}
	})
}

// TestSameOfNewBoot: a host whose first report after a restart is one that the
// controller cannot read is listened to afterwards.
func TestSameOfNewBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bareRig(t, "h1")
		defer r.stop()
		r.apply(webSpec(1))
		think()
		ids := launched(r.say("h1", Report{Boot: "1", Seq: 5000}))
		if o := r.say("h1", Report{Boot: "2", Seq: 2, Same: 1}); !o.Full {
			t.Fatalf("%+v", o)
		}
		r.say("h1", Report{Boot: "2", Seq: 3, Containers: runs(ids...)})
		if v, _ := r.App("web"); !ready(1)(v) {
			t.Errorf("%+v", v)
		}
	})
}

func named(name string, s Spec) Spec {
	s.Name = name
	return s
}

// TestRoomFreed: what no host took is placed when another app leaves, and when
// a host has more to give.
func TestRoomFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		big := webSpec(2)
		big.Container.Limits.Memory = 2 << 30
		r.apply(named("other", big))
		time.Sleep(time.Minute)
		r.apply(big)
		r.until("no room", func(v View) bool { return v.Missing == 2 && v.Reason == "Unplaced" })
		if _, err := r.Scale(t.Context(), "other", 1, "", true); err != nil {
			t.Fatal(err)
		}
		r.until("room for one", func(v View) bool { return v.Missing == 1 && v.Ready == 1 })
		if _, err := r.Remove(t.Context(), "other", false); err != nil {
			t.Fatal(err)
		}
		r.until("room", ready(2))
	})
}

// TestAwait: who waits learns of what changes without anybody's decision.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer r.stop()
		s := webSpec(2)
		s.Container.Limits.Memory = 3 << 30
		r.apply(s)
		r.until("two run", ready(2))
		h1 := r.hosts["h1"]
		h1.set(func() { h1.off = true })
		r.until("h1 is lost", func(v View) bool { return v.Ready == 1 })
		h1.set(func() { h1.off = false })
		r.until("h1 is back", ready(2))
		if _, err := r.Scale(t.Context(), "web", 3, "", true); err != nil {
			t.Fatal(err)
		}
		r.until("no room", func(v View) bool { return v.Missing == 1 })
		if _, err := r.Scale(t.Context(), "web", 2, "", true); err != nil {
			t.Fatal(err)
		}
		r.until("no need of it", func(v View) bool { return v.Missing == 0 && v.Status == Up })
	})
}

// TestFullDiskCountsOnce: a failure that cannot be written down is one failure.
func TestFullDiskCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{st: map[string]any{}}
		r := newRig(t, store, "h1")
		defer r.stop()
		r.apply(webSpec(3))
		r.until("three run", func(v View) bool { return v.App.Rollout.Done && ready(3)(v) })
		h := r.hosts["h1"]
		h.set(func() {
			h.made = func(c *Container) { c.State, c.ExitCode, c.Finished = "halted", 1, time.Now() }
		})
		// From the first failure of revision 2 on nothing can be planned.
		store.set(func(c Change) error {
			for _, e := range c.Events {
				if e.Type == Trouble {
					return errs.E(errs.Unavailable, "the disk is full")
				}
			}
			return nil
		})
		next := webSpec(3)
		next.Container.Flist = "img:2"
		next.Rollout.Deadline = 0
		r.apply(next)
		time.Sleep(4 * time.Second)
		r.mu.RLock()
		if f := r.apps["web"].fails; f.InRow > 1 {
			t.Errorf("%d failures of one replica", f.InRow)
		}
		r.mu.RUnlock()
		h.set(func() { h.made = nil })
		store.set(nil)
		r.until("rolled out", func(v View) bool { return v.App.Rollout.Done && v.App.Rollout.Target == 2 && ready(3)(v) })
	})
}

func (m *memory) set(before func(c Change) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

// TestHostSaysMeanwhile: what a host says while something is decided about it
// is not forgotten.
func TestHostSaysMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bareRig(t, "h1")
		defer r.stop()
		seq := uint64(1)
		r.say("h1", Report{Boot: "1", Seq: seq})
		meanwhile := func(f func() error) {
			t.Helper()
			r.store.set(func(Change) error {
				seq++
				r.Linked("h1", seq%2 == 0)
				_, err := r.Report(t.Context(), "h1", Report{Boot: "1", Seq: seq})
				return err
			})
			if err := f(); err != nil {
				t.Fatal(err)
			}
			r.store.set(nil)
			if h, _ := r.Host("h1"); h.Report.Seq != seq || h.Linked != (seq%2 == 0) {
				t.Errorf("report %d of %d; linked: %v", h.Report.Seq, seq, h.Linked)
			}
		}
		meanwhile(func() error { return r.SetHostMode(t.Context(), "h1", Pause, "user", "") })
		meanwhile(func() error {
			_, err := r.RegisterHost(t.Context(), Host{ID: "h1", Name: "h1"}, "another token")
			return err
		})
	})
}

// TestForgottenAndBack: placement counts what is on a host that was forgotten
// and has registered again before anything else happened.
func TestForgottenAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		s := webSpec(2)
		s.Container.Limits.Memory = 1 << 30
		r.apply(s)
		r.until("two run", ready(2))
		h := r.hosts["h1"]
		h.set(func() { h.off = true })
		time.Sleep(3 * time.Minute)
		if err := r.ForgetHost(t.Context(), "h1"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.RegisterHost(t.Context(), Host{ID: "h1", Name: "h1", Addr: "127.0.0.1", Facts: Facts{MilliCPU: 4000, Memory: 4 << 30}}, "token-h1"); err != nil {
			t.Fatal(err)
		}
		h.set(func() { h.off = false })
		r.until("two run", ready(2))
		if _, err := r.Scale(t.Context(), "web", 6, "", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if v, _ := r.App("web"); v.Ready != 4 || v.Missing != 2 {
			t.Errorf("%d ready and %d without a place on a host for four", v.Ready, v.Missing)
		}
	})
}

// TestSetScalingBelow: the policy may allow fewer replicas than the manifest
// began with.
func TestSetScalingBelow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		r.apply(webSpec(6))
		r.until("six run", ready(6))
		s := webSpec(6).Scaling
		s.Max = 4
		if _, err := r.SetScaling(t.Context(), "web", s); err != nil {
			t.Fatal(err)
		}
		r.until("four run", ready(4))
	})
}

// TestScaleUnhealthy: replicas that are too busy to be healthy do not keep
// others from coming.
func TestScaleUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		r.apply(webSpec(2))
		r.until("two run", ready(2))
		h := r.hosts["h1"]
		h.set(func() {
			for _, c := range h.have {
				c.Health = "unhealthy"
			}
		})
		r.until("none is well", func(v View) bool { return v.Ready == 0 })
		if _, err := r.Scale(t.Context(), "web", 4, "", true); err != nil {
			t.Error(err)
		}
		r.until("two more", func(v View) bool { return v.Ready == 2 })
	})
}

// TestScaledToNone: a revision for no replicas does not fail for want of time.
func TestScaledToNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		r.apply(webSpec(2))
		r.until("two run", ready(2))
		if _, err := r.Scale(t.Context(), "web", 0, "", true); err != nil {
			t.Fatal(err)
		}
		r.until("none", ready(0))
		next := webSpec(2)
		next.Container.Flist = "img:2"
		r.apply(next)
		time.Sleep(time.Hour)
		if _, err := r.Scale(t.Context(), "web", 2, "", true); err != nil {
			t.Fatal(err)
		}
		v := r.until("two run", ready(2))
		if v.App.Rollout.Target != 2 || v.App.Revision(2).Failed != "" {
			t.Errorf("%+v", v.App.Rollout)
		}
	})
}

// TestRolloutControllerAway: a rollout has not run out of time while there was
// no controller.
func TestRolloutControllerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer func() { r.stop() }()
		r.apply(webSpec(6))
		r.until("six run", ready(6))
		next := webSpec(6)
		next.Container.Flist = "img:2"
		r.apply(next)
		r.until("some", func(v View) bool { return v.App.Rollout.Ready == 2 })
		r.stop()
		time.Sleep(7 * 24 * time.Hour)
		r.run("h1", "h2")
		v := r.until("rolled out", func(v View) bool { return v.App.Rollout.Done && ready(6)(v) })
		if v.App.Rollout.Target != 2 || v.App.Revision(2).Failed != "" {
			t.Errorf("%+v", v.App.Rollout)
		}
	})
}

// TestPausedHost: what a host had not begun when it was paused runs elsewhere.
func TestPausedHost(t *testing.T) {
	for _, mode := range []HostMode{Pause, Drain} {
		for _, kind := range []Kind{Service, Job} {
			t.Run(fmt.Sprint(kind, " ", mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
					defer r.stop()
					for _, h := range r.hosts {
						h.set(func() { h.off = true })
					}
					s := webSpec(2)
					if kind == Job {
						s = jobSpec(2, 2, 0)
					}
					r.apply(s)
					think()
					if err := r.SetHostMode(t.Context(), "h1", mode, "user", ""); err != nil {
						t.Fatal(err)
					}
					r.hosts["h2"].set(func() { r.hosts["h2"].off = false })
					r.until("two run on h2", func(v View) bool { return v.Ready == 2 && len(r.hosts["h2"].ids()) == 2 })
				})
			})
		}
	}
}

// TestRemoveStarted: who removes an app that somebody else starts again learns
// it, and the app runs.
func TestRemoveStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		r.apply(webSpec(2))
		r.until("two run", ready(2))
		h1 := r.hosts["h1"]
		h1.set(func() { h1.off = true }) // so that it cannot be removed at once
		r.bg(func() {
			time.Sleep(time.Second)
			r.apply(webSpec(2))
			h1.set(func() { h1.off = false })
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		if _, err := r.Remove(ctx, "web", false); errs.KindOf(err) != errs.Conflict || time.Since(began) > time.Minute {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		r.until("two run", ready(2))
	})
}

// TestAnyCommitFails: whichever commit fails, all goes on after it, and nothing
// is launched twice.
func TestAnyCommitFails(t *testing.T) {
	for nth := range 40 {
		t.Run(fmt.Sprint(nth), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &memory{st: map[string]any{}}
				r := newRig(t, store, "h1", "h2", "h3")
				defer r.stop()
				var n atomic.Int32
				store.set(func(Change) error {
					if n.Add(1)%41 == int32(nth) {
						return errs.E(errs.Unavailable, "no room")
					}
					return nil
				})
				do := func(f func() error) {
					t.Helper()
					for {
						err := f()
						if err == nil {
							return
						}
						if !errors.Is(err, ErrStore) {
							t.Fatal(err)
						}
						time.Sleep(time.Second)
					}
				}
				ctx := t.Context()
				apply := func(s Spec) {
					t.Helper()
					do(func() error { _, err := r.Apply(ctx, s, nil, "apps"); return err })
				}
				s := webSpec(5)
				s.Container.Limits.Memory = 1 << 30
				apply(s)
				r.until("five run", ready(5))
				do(func() error { return r.SetHostMode(ctx, "h2", Drain, "user", "") })
				s.Container.Flist = "img:2"
				apply(s)
				r.until("rolled out", func(v View) bool { return v.App.Rollout.Done && ready(5)(v) && len(r.hosts["h2"].ids()) == 0 })
				do(func() error { return r.SetHostMode(ctx, "h2", Continue, "user", "") })
				do(func() error { _, err := r.Scale(ctx, "web", 12, "", true); return err })
				r.until("twelve run", ready(12))
				do(func() error { _, err := r.Scale(ctx, "web", 1, "", true); return err })
				v := r.until("one runs", ready(1))
				time.Sleep(time.Minute)
				if !slices.Equal(r.allIDs(), idsOf(v)) {
					t.Errorf("hosts have %v, the engine %v", r.allIDs(), idsOf(v))
				}
				r.once()
				r.edit.Lock()
				defer r.edit.Unlock()
				for _, site := range r.cluster.sites {
					want := 0
					for id := range r.onHost[site.ID] {
						want++
						if _, ok := r.counts[id]; !ok {
							t.Errorf("%s is not counted", id)
						}
					}
					if site.apps["web"] != want || len(r.counts) != 1 || site.free.Memory != 4<<30-int64(want)<<30 {
						t.Errorf("%s: %d of %d are counted, %d bytes are free", site.ID, site.apps["web"], want, site.free.Memory)
					}
				}
			})
		})
	}
}

// TestManyEvents: who watches and reads is not dropped because much happens at once.
func TestManyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer func() { r.stop() }()
		events, stop := r.Subscribe()
		placed := 0
		r.bg(func() {
			for e := range events {
				if e.Replica != "" {
					placed++
				}
			}
		})
		s := webSpec(1000)
		s.Scaling.Max = 1000
		r.apply(s)
		r.until("a thousand run", ready(1000))
		stop()
		synctest.Wait()
		if placed < 1000 {
			t.Errorf("%d events of a thousand replicas", placed)
		}
	})
}

// TestPreview: it says that nothing would change only if nothing would.
func TestPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		actions := func(s Spec) int {
			t.Helper()
			d, err := r.Preview(s)
			if err != nil {
				t.Fatal(err)
			}
			return len(d.Actions)
		}
		first, second := webSpec(2), webSpec(2)
		second.Container.Flist = "img:2"
		if actions(first) == 0 {
			t.Error("a new app is nothing")
		}
		r.apply(first)
		r.until("two run", ready(2))
		r.apply(second)
		r.until("rolled out", func(v View) bool { return v.App.Rollout.Done && ready(2)(v) })
		if n := actions(second); n > 0 {
			t.Errorf("%d actions for the same", n)
		}
		refuse := func(s *Spec) error { return errs.E(errs.Forbidden, "not %s", s.Container.Flist) }
		if v, err := r.Rollback(t.Context(), "web", 0, refuse); errs.KindOf(err) != errs.Forbidden || !strings.Contains(err.Error(), first.Container.Flist) {
			t.Errorf("back to what may not be: revision %d, %v", v.App.Rollout.Target, err)
		}
		if n := actions(second); n > 0 {
			t.Errorf("%d actions after a way back that was refused", n)
		}
		if _, err := r.Rollback(t.Context(), "web", 1, nil); err != nil {
			t.Fatal(err)
		}
		if actions(second) == 0 {
			t.Error("forward again is nothing")
		}
		r.apply(second)
		if _, err := r.Stop(t.Context(), "web", false); err != nil {
			t.Fatal(err)
		}
		if actions(second) == 0 {
			t.Error("to start is nothing")
		}
	})
}

// watchedBalancer calls back before it does as it is told.
type watchedBalancer struct {
	idleBalancer
	before atomic.Pointer[func(b *idleBalancer)]
}

func (b *watchedBalancer) Update(changed []Route) error {
	if before := b.before.Load(); before != nil {
		(*before)(&b.idleBalancer)
	}
	return b.idleBalancer.Update(changed)
}

// TestUpIsReachable: a replica is not told to be ready before requests go to it.
func TestUpIsReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lb := &watchedBalancer{}
		r := newRigWith(t, Config{Balancer: lb}, &memory{st: map[string]any{}}, "h1")
		defer func() { r.stop() }()
		runs := false
		compare := func(b *idleBalancer) {
			v, err := r.App("web")
			if err != nil {
				return // it is not there yet
			}
			to, _ := b.backends("web")
			runs = runs || v.Current > to
			if v.Ready > to {
				t.Errorf("%d replicas are ready and requests go to %d", v.Ready, to)
			}
		}
		lb.before.Store(&compare)
		r.apply(webSpec(2))
		r.until("it is up", ready(2))
		if !runs {
			t.Error("the balancer was never behind")
		}
	})
}

package app

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRolled: of canaries it is said how many are ready of how many, and then of
// all; and what was measured speaks of the replicas that there are now.
func TestRolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer r.stop()
		rolled := func(v View, ready, wanted int) {
			t.Helper()
			if n, of := v.Rolled(); n != ready || of != wanted {
				t.Errorf("%d of %d, want %d of %d: %+v", n, of, ready, wanted, v.App.Rollout)
			}
		}
		r.apply(webSpec(3))
		v := r.until("three run", ready(3))
		if v.Sample.Ready != 3 || v.Sample.Total != 3 {
			t.Errorf("at once: %+v", v.Sample)
		}
		rolled(r.until("done", func(v View) bool { return v.App.Rollout.Done }), 3, 3)
		s := webSpec(3)
		s.Container.Flist = "img:2"
		s.Rollout.Canary = 2
		r.apply(s)
		rolled(r.until("revised", func(v View) bool { return v.App.Rollout.Target == 2 }), 0, 2)
		rolled(r.until("one canary", func(v View) bool { return v.App.Rollout.Ready == 1 }), 1, 2)
		v = r.until("canaries", func(v View) bool { return v.App.Rollout.Ready == 2 })
		rolled(v, 2, 2)
		if v.Reason != "Canary" || v.Message != "revision 2 is on canaries until it is promoted: 2 of 2 ready" {
			t.Errorf("%s: %s", v.Reason, v.Message)
		}
		if _, err := r.Promote(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		v = r.until("promoted", func(v View) bool { return !v.App.Rollout.Canary })
		rolled(v, 2, 3)
		if v.Message != "revision 2 is rolled out: 2 of 3 ready" {
			t.Errorf("%s: %s", v.Reason, v.Message)
		}
		rolled(r.until("all", func(v View) bool { return v.App.Rollout.Done && ready(3)(v) }), 3, 3)
	})
}

// TestHostFree: what is said to be free on a host is what placement goes by.
func TestHostFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bareRigWith(t, Config{}, "h1")
		defer r.stop()
		free := func(when string, milliCPU int64) {
			t.Helper()
			think()
			r.edit.Lock()
			placement := r.cluster.byID["h1"].free
			r.edit.Unlock()
			h, err := r.Host("h1")
			if err != nil || h.Free != placement || h.Free.MilliCPU != milliCPU {
				t.Errorf("%s: %+v, placement has %+v, want %d; %v", when, h.Free, placement, milliCPU, err)
			}
		}
		h, err := r.Host("h1")
		if err != nil {
			t.Fatal(err)
		}
		all := h.Facts.MilliCPU
		free("empty", all)
		r.say("h1", Report{Boot: "1", Seq: 1, Others: Reserved{MilliCPU: 100}, CPU: 90})
		free("others", all-100)
		s := jobSpec(2, 2, 0)
		s.Container.Limits.MilliCPU, s.Container.Limits.Memory = 200, 64<<20
		r.apply(s)
		free("ordered", all-500)
		o := r.say("h1", Report{Boot: "1", Seq: 2, Others: Reserved{MilliCPU: 100}})
		c := runs(launched(o)...)
		r.say("h1", Report{Boot: "1", Seq: 3, Others: Reserved{MilliCPU: 100}, Containers: c})
		free("running", all-500)
		c[0].State, c[0].Finished = "halted", time.Now()
		r.say("h1", Report{Boot: "1", Seq: 4, Others: Reserved{MilliCPU: 100}, Containers: c})
		free("one has ended", all-300)
	})
}

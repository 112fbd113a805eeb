package app

import (
	"testing"
	"testing/synctest"
	"time"
)

func jobSpec(completions, parallelism, retries int) Spec {
	s := webSpec(0)
	s.Kind, s.Scaling, s.Rollout, s.Ports = Job, Scaling{}, Rollout{}, nil
	s.Job = JobSpec{Completions: completions, Parallelism: parallelism, Retries: retries}
	return s
}

// ends has containers end as soon as they are made.
func ends(code int) func(c *Container) {
	return func(c *Container) { c.State, c.Finished, c.ExitCode = "halted", time.Now(), code }
}

func completed(v View) bool { return v.Status == Completed }

// TestJobStaysDone: what becomes of the containers and hosts of a run does not
// undo it.
func TestJobStaysDone(t *testing.T) {
	for what, undo := range map[string]func(r *rig){
		"containers deleted": func(r *rig) { r.hosts["h1"].set(func() { clear(r.hosts["h1"].have) }) },
		"containers absent": func(r *rig) {
			r.hosts["h1"].set(func() {
				for _, c := range r.hosts["h1"].have {
					*c = Container{Launch: c.Launch, App: c.App, State: "absent", Message: "deleted by hand"}
				}
			})
		},
		"host terminated": func(r *rig) {
			if err := r.SetHostMode(r.t.Context(), "h1", Terminate, "user", ""); err != nil {
				r.t.Error(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
				defer func() { r.stop() }()
				for _, h := range r.hosts {
					h.set(func() { h.made = ends(0) })
				}
				r.apply(jobSpec(6, 2, 0))
				r.until("done", completed)
				undo(r)
				time.Sleep(time.Hour)
				r.stop()
				r.run("h2")
				time.Sleep(time.Hour)
				n := 0
				for _, h := range r.hosts {
					h.set(func() { n += len(h.seen) })
				}
				if v, _ := r.App("web"); n != 6 || !completed(v) {
					t.Errorf("%d launches; %s %s", n, v.Status, v.Message)
				}
			})
		})
	}
}

// TestJobHostForgotten: what has succeeded in a run that goes on counts without
// its host.
func TestJobHostForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer r.stop()
		r.hosts["h1"].set(func() { r.hosts["h1"].made = ends(0) })
		r.apply(jobSpec(4, 4, 0))
		time.Sleep(time.Minute) // two have ended, and two run
		if err := r.SetHostMode(t.Context(), "h1", Terminate, "user", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := len(r.hosts["h2"].ids()); n != 2 {
			t.Errorf("%d on h2", n)
		}
		h2 := r.hosts["h2"]
		h2.set(func() {
			for _, c := range h2.have {
				ends(0)(c)
			}
		})
		r.until("done", completed)
	})
}

// TestJobRoom: what has ended takes no room.
func TestJobRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		r.hosts["h1"].set(func() { r.hosts["h1"].made = ends(0) })
		s := jobSpec(5, 2, 0)
		s.Container.Limits.Memory = 3 << 29
		r.apply(s)
		r.until("done", completed)
	})
}

// TestJobRefused: a launch that comes to nothing is a failure like others, and
// the next one comes later with each.
func TestJobRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		h := r.hosts["h1"]
		h.set(func() { h.refus = "no such image" })
		r.apply(jobSpec(1, 1, 1000))
		time.Sleep(10 * time.Minute)
		h.set(func() {
			if n := len(h.seen); n < 4 || n > 20 {
				t.Errorf("%d launches in ten minutes", n)
			}
		})
	})
}

// TestJobControllerAway: a job that ended in time while the controller was away
// has succeeded.
func TestJobControllerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer func() { r.stop() }()
		s := jobSpec(1, 1, 0)
		s.Job.Timeout = 10 * time.Minute
		r.apply(s)
		time.Sleep(time.Minute)
		r.stop()
		h := r.hosts["h1"]
		h.set(func() {
			for _, c := range h.have {
				ends(0)(c)
			}
			h.off = true
		})
		time.Sleep(time.Hour)
		r.runLate("h1")
		r.until("done", completed)
	})
}

// runLate is run, where hosts are known and report a little later.
func (r *rig) runLate(hosts ...string) {
	r.run()
	r.bg(func() {
		time.Sleep(10 * time.Second)
		for _, id := range hosts {
			h := r.hosts[id]
			h.set(func() { h.off = false })
			h.report(r.t.Context())
		}
	})
}

// TestClockSetBack: what was written down by a clock that was years ahead does
// not keep a cron from running, nor a replica from going.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{st: map[string]any{}}
		r := newRig(t, store, "h1")
		defer func() { r.stop() }()
		s := webSpec(0)
		s.Kind, s.Scaling, s.Rollout, s.Job = Cron, Scaling{}, Rollout{}, JobSpec{Schedule: "*/5 * * * *", Completions: 1, Parallelism: 1}
		r.hosts["h1"].set(func() { r.hosts["h1"].made = ends(0) })
		r.apply(s)
		r.until("the first run", func(v View) bool { return v.App.Run == 1 && !v.App.Tally.Over.IsZero() })
		r.stop()
		a, ok := store.st["aweb"].(App)
		if !ok {
			t.Fatal("the app is not kept")
		}
		const ahead = 20 * 365 * 24 * time.Hour
		a.RunAt, a.Tally.Over, a.Updated = a.RunAt.Add(ahead), a.Tally.Over.Add(ahead), a.Updated.Add(ahead)
		store.st["aweb"] = a
		began := time.Now()
		r.run("h1")
		r.until("the second run", func(v View) bool { return v.App.Run == 2 })
		if took := time.Since(began); took > 6*time.Minute {
			t.Errorf("the next run began after %s", took)
		}
	})
}

// TestCronStartedAgain: a cron that was stopped goes on with the next time, not
// with those that have passed.
func TestCronStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1")
		defer r.stop()
		s := webSpec(0)
		s.Kind, s.Scaling, s.Rollout, s.Job = Cron, Scaling{}, Rollout{}, JobSpec{Schedule: "0 3 * * *", Completions: 1, Parallelism: 1}
		r.hosts["h1"].set(func() { r.hosts["h1"].made = ends(0) })
		r.apply(s)
		time.Sleep(36 * time.Hour)
		if _, err := r.Stop(t.Context(), "web", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * 24 * time.Hour)
		if _, err := r.Start(t.Context(), "web", -1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		v, _ := r.App("web")
		time.Sleep(15 * time.Hour)
		if later, _ := r.App("web"); v.App.Run != 2 || later.App.Run != 3 {
			t.Errorf("%d runs after an hour, %d after 16", v.App.Run, later.App.Run)
		}
	})
}

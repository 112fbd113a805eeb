package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// bareRig is an engine with hosts that the test plays itself.
func bareRig(t *testing.T, hosts ...string) *rig { return bareRigWith(t, Config{}, hosts...) }

func bareRigWith(t *testing.T, cfg Config, hosts ...string) *rig {
	r := newRigWith(t, cfg, &memory{st: map[string]any{}}, hosts...)
	for _, h := range r.hosts {
		h.set(func() { h.off = true })
	}
	return r
}

// think lets the engine do what there is to do.
func think() { time.Sleep(2 * batch) }

// say reports as a host.
func (r *rig) say(host string, rep Report) Orders {
	r.t.Helper()
	o, err := r.Report(r.t.Context(), host, rep)
	if err != nil {
		r.t.Fatal(err)
	}
	think()
	return o
}

func launched(o Orders) (ids []string) {
	for _, l := range o.Launch {
		ids = append(ids, l.Replica.ID)
	}
	return ids
}

func runs(ids ...string) (all []Container) {
	for _, id := range ids {
		all = append(all, Container{Launch: id, App: "web", Name: "c-" + id, State: "running"})
	}
	return all
}

// TestBadDayReplays: the same report twice, and reports that come out of order
// or from before a restart, start nothing twice and end nothing.
func TestBadDayReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bareRig(t, "h1")
		defer r.stop()
		r.apply(webSpec(2))
		think()
		first := launched(r.say("h1", Report{Boot: "1", Seq: 1}))
		if len(first) != 2 {
			t.Fatalf("ordered %v", first)
		}
		if again := launched(r.say("h1", Report{Boot: "1", Seq: 1})); !slices.Equal(first, again) {
			t.Errorf("the same report twice: %v and then %v", first, again)
		}
		both := Report{Boot: "1", Seq: 3, Containers: runs(first...)}
		r.say("h1", both)
		r.say("h1", Report{Boot: "1", Seq: 2, Containers: runs(first[0])}) // overtaken
		r.say("h1", both)
		r.say("h1", Report{Boot: "1", Seq: 1})
		if v, _ := r.App("web"); !ready(2)(v) {
			t.Errorf("after late reports: %+v", v)
		}
		// The agent starts anew. What it sent before arrives only now.
		r.say("h1", Report{Boot: "2", Seq: 1, Containers: runs(first...)})
		for _, late := range []Report{{Boot: "1", Seq: 4}, {Boot: "1", Seq: 1}, {Boot: "1", Seq: 9, Same: 3}} {
			o, err := r.Report(t.Context(), "h1", late)
			if errs.KindOf(err) != errs.Conflict || len(o.Launch)+len(o.Stop) > 0 {
				t.Errorf("a report of a boot that is over: %+v, %v", o, err)
			}
		}
		think()
		if o := r.say("h1", Report{Boot: "2", Seq: 2, Same: 1}); len(o.Launch)+len(o.Stop) > 0 || o.Full {
			t.Errorf("%+v", o)
		}
		if v, _ := r.App("web"); !ready(2)(v) || !slices.Equal(first, idsOf(v)) {
			t.Errorf("after a restart of the agent: %+v", v)
		}
	})
}

func idsOf(v View) (ids []string) {
	for _, r := range v.Replicas {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

// TestBadDayTwins: of two agents that call themselves by one id the later one
// is the host. The other is told so, and gets no orders.
func TestBadDayTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bareRig(t, "h1")
		defer r.stop()
		r.apply(webSpec(3))
		think()
		r.say("h1", Report{Boot: "a", Seq: 1})
		orders := launched(r.say("h1", Report{Boot: "b", Seq: 1}))
		for n := uint64(2); n < 30; n++ {
			if _, err := r.Report(t.Context(), "h1", Report{Boot: "a", Seq: n}); errs.KindOf(err) != errs.Conflict {
				t.Fatalf("the first agent: %v", err)
			}
			if _, err := r.RegisterHost(t.Context(), Host{ID: "h1", Report: Report{Boot: "a"}}, "a token"); errs.KindOf(err) != errs.Conflict {
				t.Fatalf("the first agent registers again: %v", err)
			}
			o := r.say("h1", Report{Boot: "b", Seq: n, Containers: runs(orders...)})
			if len(o.Launch)+len(o.Stop) > 0 {
				t.Fatalf("the second agent is told to %+v", o)
			}
			time.Sleep(10 * time.Second)
		}
		if v, _ := r.App("web"); !ready(3)(v) {
			t.Errorf("%+v", v)
		}
		if h, ok := r.HostByToken("token-h1"); !ok || h.Report.Boot != "b" {
			t.Errorf("%+v, %v", h, ok)
		}
	})
}

// TestBadDayAgentDied: a launch that was called off before its agent, which
// has died, could say anything of it is soon over for the next agent.
func TestBadDayAgentDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bareRig(t, "h1")
		defer r.stop()
		r.apply(webSpec(1))
		think()
		r.say("h1", Report{Boot: "1", Seq: 5000})
		if _, err := r.Stop(t.Context(), "web", false); err != nil {
			t.Fatal(err)
		}
		think()
		if o := r.say("h1", Report{Boot: "1", Seq: 5001}); len(o.Stop) != 1 {
			t.Fatalf("%+v", o)
		}
		for n := range uint64(3) {
			r.say("h1", Report{Boot: "2", Seq: 1 + n})
		}
		if v, _ := r.App("web"); len(v.Replicas) > 0 {
			t.Errorf("left: %+v", v.Replicas)
		}
	})
}

// TestBadDayClocks: a host whose clock is a year off does all that others do.
func TestBadDayClocks(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, off := range []time.Duration{-year, year} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := bareRig(t, "h1")
				defer r.stop()
				s := webSpec(0)
				s.Kind, s.Scaling, s.Ports = Job, Scaling{}, nil
				s.Job = JobSpec{Completions: 1, Parallelism: 1, Retries: 3}
				r.apply(s)
				began, seq := time.Now(), uint64(0)
				done := map[string]Container{}
				for len(done) < 3 && time.Since(began) < time.Hour {
					seq++
					rep := Report{Boot: "1", Seq: seq, Time: time.Now().Add(off)}
					for _, c := range done {
						rep.Containers = append(rep.Containers, c)
					}
					for _, id := range launched(r.say("h1", rep)) { // fails
						done[id] = Container{
							Launch: id, App: "web", Name: id, State: "halted", ExitCode: 1, Started: time.Now().Add(off), Finished: time.Now().Add(off + time.Second),
						}
					}
					time.Sleep(time.Second)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("three failures of a job took %s", took)
				}
				v, _ := r.App("web")
				for _, x := range v.Replicas {
					if x.Phase == Failed && (x.Finished.Before(began) || x.Finished.After(time.Now()) || x.Started.Before(began) || x.Started.After(time.Now())) {
						t.Errorf("%s ran from %s to %s; it is %s", x.Name(), x.Started, x.Finished, time.Now())
					}
				}
				// What it says again and again is no news.
				writes := r.store.written()
				for range 10 {
					seq++
					rep := Report{Boot: "1", Seq: seq, Time: time.Now().Add(off)}
					for _, c := range done {
						rep.Containers = append(rep.Containers, c)
					}
					r.say("h1", rep)
				}
				if n := r.store.written() - writes; n > 2 {
					t.Errorf("%d writes of ten reports with nothing new", n)
				}
				if h, err := r.Host("h1"); err != nil || h.Liveness != Alive {
					t.Errorf("%s, %v", h.Liveness, err)
				}
			})
		})
	}
}

func (m *memory) written() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// TestBadDayController: the controller dies at any moment while it scales; the
// next one brings about what was wanted, and no launch happens twice.
func TestBadDayController(t *testing.T) {
	for _, after := range []time.Duration{0, 10 * time.Millisecond, 25 * time.Millisecond, 60 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2", "h3")
				defer func() { r.stop() }()
				r.apply(webSpec(1))
				r.until("one runs", ready(1))
				if _, err := r.Scale(t.Context(), "web", 20, "more", true); err != nil {
					t.Fatal(err)
				}
				time.Sleep(after)
				r.stop()
				r.run("h1", "h2", "h3")
				v := r.until("twenty run", ready(20))
				time.Sleep(10 * time.Minute)
				if all := r.allIDs(); !slices.Equal(all, idsOf(v)) {
					t.Errorf("hosts have %v, the engine %v", all, idsOf(v))
				}
				r.once()
			})
		})
	}
}

// once says what was launched more than once.
func (r *rig) once() {
	r.t.Helper()
	for host, h := range r.hosts {
		h.set(func() {
			for id, n := range h.seen {
				if n != 1 {
					r.t.Errorf("%s was launched %d times on %s", id, n, host)
				}
			}
		})
	}
}

// TestBadDayForgotten: a controller that has lost its store takes hosts in again
// and leaves alone what runs there; once the app is applied again, there is no more
// of it than is wanted.
func TestBadDayForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer func() { r.stop() }()
		r.apply(webSpec(4))
		r.until("four run", ready(4))
		before := r.allIDs()
		r.stop()
		r.store = &memory{st: map[string]any{}}
		r.run("h1", "h2")
		time.Sleep(10 * time.Minute)
		if now := r.allIDs(); !slices.Equal(before, now) {
			t.Errorf("hosts had %v and have %v", before, now)
		}
		r.apply(webSpec(2))
		v := r.until("two run", ready(2))
		time.Sleep(time.Minute)
		if now := r.allIDs(); !slices.Equal(now, idsOf(v)) {
			t.Errorf("hosts have %v, the engine %v", now, idsOf(v))
		}
		r.once()
	})
}

// TestBadDayFullDisk: with a store that can keep nothing, no order goes out that
// it does not know of; later all goes on.
func TestBadDayFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}}, "h1", "h2")
		defer r.stop()
		r.apply(webSpec(2))
		r.until("two run", ready(2))
		before := r.allIDs()
		full := func(b bool) {
			r.store.mu.Lock()
			defer r.store.mu.Unlock()
			r.store.full = b
		}
		full(true)
		ctx := context.WithoutCancel(t.Context())
		other := webSpec(1)
		other.Name = "other"
		for what, f := range map[string]func() error{
			"apply": func() error { _, err := r.Apply(ctx, other, nil, "apps"); return err },
			"stop":  func() error { _, err := r.Stop(ctx, "web", true); return err },
			"scale": func() error { _, err := r.Scale(ctx, "web", 3, "", true); return err },
			"drain": func() error { return r.SetHostMode(ctx, "h1", Drain, "user", "") },
			"join":  func() error { _, err := r.RegisterHost(ctx, Host{ID: "h3"}, "t"); return err },
			"alert": func() error { return r.Alert(ctx, "h1", "hot", 90) },
			"settings": func() error {
				c := r.Config()
				c.MaxScales++
				return r.SetConfig(ctx, c)
			},
		} {
			if err := f(); !errors.Is(err, ErrStore) || errs.KindOf(err) != errs.Unavailable {
				t.Errorf("%s: %v", what, err)
			}
		}
		time.Sleep(10 * time.Minute)
		if v, _ := r.App("web"); !ready(2)(v) || !slices.Equal(before, r.allIDs()) {
			t.Errorf("meanwhile %+v", v)
		}
		health := func(state string) {
			h := r.hosts["h1"]
			h.set(func() {
				for _, c := range h.have {
					c.Health = state
				}
			})
			time.Sleep(time.Minute)
		}
		health("unhealthy")
		if n, _ := r.lb.backends("web"); n != 1 {
			t.Errorf("%d get requests, one of which is not well", n)
		}
		health("healthy")
		if n, _ := r.lb.backends("web"); n != 2 {
			t.Errorf("%d get requests", n)
		}
		full(false)
		r.apply(other)
		if _, err := r.Scale(ctx, "web", 3, "", true); err != nil {
			t.Error(err)
		}
		r.until("three run", ready(3))
		r.once()
	})
}

// TestBadDaySecret: replicas whose secret is not there wait for it; the status
// says so, and one event for each thing that is wrong.
func TestBadDaySecret(t *testing.T) {
	for _, kind := range []Kind{Service, Job} {
		t.Run(string(kind), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { secretMissing(t, kind) }) })
	}
}

func secretMissing(t *testing.T, kind Kind) {
	var mu sync.Mutex // guards secret and broken
	secret, broken := "", errs.E(errs.NotFound, `there is no secret "db"`)
	r := bareRigWith(t, Config{Secret: func(string, string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		return secret, broken
	}}, "h1")
	defer r.stop()
	s := webSpec(2)
	if kind == Job {
		s = jobSpec(2, 2, 0)
	}
	s.Env = []EnvVar{{Name: "PASSWORD", Secret: "db"}}
	r.apply(s)
	think()
	seq := uint64(0)
	say := func(c ...Container) Orders {
		t.Helper()
		seq++
		o := r.say("h1", Report{Boot: "1", Seq: seq, Containers: c})
		think()
		return o
	}
	held := func(events int, why string) {
		t.Helper()
		for range 3 { // passes
			if o := say(); len(o.Launch) > 0 {
				t.Errorf("%+v", o)
			}
		}
		if v, err := r.App("web"); err != nil || v.Status != Failing || v.Reason != "NotLaunched" || v.Message != "replicas are not launched: environment variable PASSWORD: "+why {
			t.Errorf("%s %s: %s; %v", v.Status, v.Reason, v.Message, err)
		}
		all, n, err := r.Events(t.Context(), EventQuery{App: "web", Type: Trouble})
		if err != nil || n != events || all[0].Message != "Replicas are not launched: environment variable PASSWORD: "+why || all[0].Replica == "" || all[0].Host != "h1" {
			t.Errorf("%+v, want %d; %v", all, events, err)
		}
	}
	held(1, `there is no secret "db"`)
	mu.Lock()
	broken = errs.E(errs.Internal, "permission denied")
	mu.Unlock()
	held(2, "permission denied")
	mu.Lock()
	secret, broken = "hush", nil
	mu.Unlock()
	o := say()
	if len(o.Launch) != 2 || len(o.Launch[0].Env) != 0 || !slices.Equal(o.Launch[0].Secrets, []buoy.Secret{{Env: "PASSWORD", Value: "hush"}}) {
		t.Fatalf("%+v", o)
	}
	say(runs(launched(o)...)...)
	if v, err := r.App("web"); err != nil || v.Ready != 2 || v.Status != Up || v.Reason != "" {
		t.Errorf("%s %s: %s; %v", v.Status, v.Reason, v.Message, err)
	}
}

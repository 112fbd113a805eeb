package app

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// fleet is a small world that Plan's steps are carried out in.
type fleet struct {
	t     *testing.T
	rnd   *rand.Rand
	now   time.Time
	app   App
	reps  []Replica
	hosts map[string]Place
	fails Fails
	n     int
	bad   map[int]bool // revisions whose replicas fail
	sick  map[int]bool // and those whose replicas never are well
}

func newFleet(t *testing.T, seed uint64, spec Spec) *fleet {
	f := &fleet{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		hosts: map[string]Place{}, bad: map[int]bool{}, sick: map[int]bool{},
	}
	f.app = App{Name: "web", Started: true, Replicas: spec.Replicas, Scaling: spec.Scaling, Revisions: []Revision{{N: 1, Spec: spec}}, Rollout: Progress{Target: 1, Since: f.now}}
	for i := range 4 {
		f.hosts[fmt.Sprint("h", i)] = Place{Mode: Continue, Liveness: Alive, Seen: f.now}
	}
	return f
}

func testSpec(replicas int) Spec {
	return Spec{
		Name: "web", Kind: Service, Replicas: replicas, Container: buoy.CreateRequest{Flist: "img"}, Scaling: Scaling{Mode: Manual, Max: 100},
		Rollout: Rollout{MaxSurge: 1, Deadline: 5 * time.Minute, Revert: true}, Placement: Placement{Patience: time.Minute},
	}
}

// revise is what Engine.Apply does.
func (f *fleet) revise(spec Spec) {
	n := f.app.Revisions[len(f.app.Revisions)-1].N + 1
	prev := f.app.Rollout.Target
	if !f.app.Rollout.Done && f.app.Rollout.Previous > 0 && !good(&f.app, prev) {
		prev = f.app.Rollout.Previous
	}
	f.app.Revisions = append(slices.Clone(f.app.Revisions), Revision{N: n, Spec: spec})
	f.app.Rollout = Progress{Target: n, Previous: prev, Since: f.now, Canary: spec.Rollout.Canary > 0 && f.app.Started}
}

// plan plans and carries out, and says whether there was something to do.
func (f *fleet) plan() bool {
	f.t.Helper()
	before := f.ready()
	steps := Plan(Situation{App: &f.app, Replicas: f.reps, Hosts: f.hosts, Fails: f.fails, Now: f.now})
	f.carryOut(&steps)
	for _, w := range steps.Launch {
		for range w.N {
			f.launch(w)
		}
	}
	f.check(before)
	return !steps.Empty()
}

func (f *fleet) carryOut(steps *Steps) {
	f.fails = steps.Fails
	if steps.App != nil {
		f.app = *steps.App
	}
	for _, r := range steps.Put {
		f.reps[slices.IndexFunc(f.reps, func(o Replica) bool { return o.ID == r.ID })] = r
	}
	f.reps = slices.DeleteFunc(f.reps, func(r Replica) bool { return slices.Contains(steps.Drop, r.ID) })
}

func (f *fleet) launch(w Wish) {
	var open []string
	for _, h := range slices.Sorted(mapKeys(f.hosts)) {
		if p := f.hosts[h]; p.Mode == Continue && p.Liveness == Alive {
			open = append(open, h)
		}
	}
	if len(open) == 0 {
		return
	}
	f.n++
	f.reps = append(f.reps, Replica{
		ID: fmt.Sprint("l", f.n), App: "web", Index: f.n, Revision: w.Revision, Host: open[f.rnd.IntN(len(open))], Standby: w.Standby, Run: w.Run, Created: f.now, Phase: Ordered,
	})
}

func (f *fleet) ready() (n int) {
	for _, r := range f.reps {
		if r.Ready() && f.hosts[r.Host].Liveness != Lost {
			n++
		}
	}
	return n
}

func (f *fleet) living() (runners, standbys int) {
	for _, r := range f.reps {
		switch {
		case !r.Living():
		case r.Standby:
			standbys++
		default:
			runners++
		}
	}
	return runners, standbys
}

// check holds what must always be true after a plan.
func (f *fleet) check(before int) {
	f.t.Helper()
	if !f.app.Started {
		return
	}
	spec := f.app.Spec()
	want := f.app.Replicas
	runners, _ := f.living()
	if spec.Kind == Service && runners > max(want+spec.Rollout.MaxSurge, 0) && f.ready() == before && !f.returned() {
		f.t.Fatalf("%d replicas live, %d are wanted and %d more may be", runners, want, spec.Rollout.MaxSurge)
	}
	least := want - spec.Rollout.MaxUnavailable
	if after := f.ready(); after < before && after < least {
		f.t.Fatalf("%d were ready, now %d are, and at least %d must be", before, after, least)
	}
}

// returned says that there may be a surplus that nobody decided on.
func (f *fleet) returned() bool {
	_, ok := f.hosts["h0"]
	return ok
}

// step lets a second or so pass: hosts do what they are told.
func (f *fleet) step(failing bool) {
	f.now = f.now.Add(time.Duration(1+f.rnd.IntN(3)) * time.Second)
	for h, p := range f.hosts {
		if p.Liveness == Alive {
			p.Seen = f.now
			f.hosts[h] = p
		}
	}
	for i := range f.reps {
		r := &f.reps[i]
		if f.hosts[r.Host].Liveness != Alive || f.rnd.IntN(3) == 0 {
			continue
		}
		takes := f.hosts[r.Host].Mode == Continue
		switch {
		case !r.Stopped.IsZero():
			r.Phase, r.Well = Gone, time.Time{}
		case !takes && (r.Phase == Ordered || r.Phase == Waiting):
		case f.sick[r.Revision]:
			r.Phase, r.Well = Running, time.Time{}
		case f.bad[r.Revision] || failing && f.rnd.IntN(20) == 0:
			r.Phase, r.Well, r.Message = Failed, time.Time{}, "exited with code 1"
		case r.Phase == Ordered:
			r.Phase = Starting
		case r.Phase == Starting && r.Standby:
			r.Phase = Waiting
		case r.Phase == Starting, r.Phase == Waiting && !r.Standby:
			r.Phase, r.Well = Running, f.now
		}
	}
}

// rest lets time pass until nothing is left to do.
func (f *fleet) rest() {
	f.t.Helper()
	quiet := 0
	for range 3000 {
		f.step(false)
		if f.plan() {
			quiet = 0
		} else {
			quiet++
		}
		if quiet > 30 && f.fails.Until.Before(f.now) {
			return
		}
	}
	f.t.Fatalf("there is no end to it: %d launches, %+v", f.n, f.app.Rollout)
}

func (f *fleet) settle() {
	f.t.Helper()
	f.rest()
	for _, r := range f.reps {
		if !r.Living() {
			if f.hosts[r.Host].Liveness == Lost {
				continue
			}
			f.t.Fatalf("replica %s is left as %+v", r.ID, r)
		}
		if r.Revision != f.app.Rollout.Target {
			f.t.Fatalf("replica %s is at revision %d, not %d: %+v", r.ID, r.Revision, f.app.Rollout.Target, f.app.Rollout)
		}
	}
	want := f.app.Replicas
	if !f.app.Started {
		want = 0
	}
	if n, _ := f.living(); n != want || f.ready() != want {
		f.t.Fatalf("%d live and %d are ready, %d are wanted: %+v", n, f.ready(), want, f.app.Rollout)
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestPlanConverges: whatever happens, an app ends as it is wanted once things
// stop happening.
func TestPlanConverges(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			spec := testSpec(5)
			f := newFleet(t, seed, spec)
			spec.Rollout.MaxSurge, spec.Rollout.MaxUnavailable = f.rnd.IntN(3), f.rnd.IntN(3)
			if spec.Rollout.MaxSurge+spec.Rollout.MaxUnavailable == 0 {
				spec.Rollout.MaxSurge = 1
			}
			spec.Rollout.Canary = max(0, f.rnd.IntN(5)-2)
			spec.Rollout.Healthy = time.Duration(f.rnd.IntN(2)*5) * time.Second
			f.app.Revisions[0].Spec = spec
			f.app.Scaling.Standby = f.rnd.IntN(3)
			for range 150 {
				switch f.rnd.IntN(20) {
				case 0:
					f.app.Replicas = f.rnd.IntN(8)
				case 1:
					f.revise(spec)
				case 2:
					h := fmt.Sprint("h", f.rnd.IntN(4))
					p := f.hosts[h]
					p.Liveness = []Liveness{Alive, Alive, Silent, Lost}[f.rnd.IntN(4)]
					f.hosts[h] = p
				case 3:
					h := fmt.Sprint("h", 1+f.rnd.IntN(3))
					p := f.hosts[h]
					p.Mode = []HostMode{Continue, Drain, Pause}[f.rnd.IntN(3)]
					f.hosts[h] = p
				case 4:
					f.app.Started = f.rnd.IntN(3) > 0
				case 5:
					f.app.Rollout.Paused = f.rnd.IntN(4) == 0 && !f.app.Rollout.Done
				}
				f.step(f.rnd.IntN(4) == 0)
				f.plan()
			}
			for h, p := range f.hosts {
				p.Liveness, p.Mode, p.Seen = Alive, Continue, f.now
				f.hosts[h] = p
			}
			// Held up, it has its number all the same, and nothing where it cannot stay.
			if f.rnd.IntN(2) == 0 {
				f.app.Rollout.Paused = false
			}
			f.app.Rollout.Since = f.now
			p := f.hosts["h2"]
			p.Mode = Drain
			f.hosts["h2"] = p
			f.rest()
			f.held(spec)
			p.Mode = Continue
			f.hosts["h2"] = p
			f.app.Rollout.Paused, f.app.Rollout.Canary, f.app.Rollout.Since = false, false, f.now
			f.settle()
		})
	}
}

// held is what must be true at rest, also of rollouts that are held up.
func (f *fleet) held(spec Spec) {
	f.t.Helper()
	want := f.app.Replicas
	if !f.app.Started {
		want = 0
	}
	if n, _ := f.living(); n != want || f.ready() != want {
		f.t.Fatalf("%d live and %d are ready, %d are wanted: %+v", n, f.ready(), want, f.app.Rollout)
	}
	at := map[int]int{}
	for _, r := range f.reps {
		if r.Living() && f.hosts[r.Host].Mode == Drain {
			f.t.Fatalf("%s is still on a host that is drained: %+v", r.ID, f.app.Rollout)
		}
		if !r.Standby {
			at[r.Revision]++
		}
	}
	if g := f.app.Rollout; g.Canary && !g.Paused && at[g.Target] != min(want, spec.Rollout.Canary) {
		f.t.Fatalf("%d of %d are canaries: %+v", at[g.Target], want, g)
	}
}

// TestPlanReverts: a revision whose replicas fail is given up for the last good
// one, and those that serve go on meanwhile.
func TestPlanReverts(t *testing.T) {
	f := newFleet(t, 7, testSpec(3))
	f.settle()
	f.bad[2] = true
	f.revise(testSpec(3))
	f.settle()
	if g := f.app.Rollout; g.Target != 1 || f.app.Revision(2).Failed == "" || !strings.Contains(g.Message, "Revision 2 failed and revision 1 is back: ") {
		t.Errorf("rollout is %+v, revision 2 failed: %q", g, f.app.Revision(2).Failed)
	}
	// One that never gets well fails by its deadline.
	f.revise(testSpec(3))
	for range 500 {
		f.now = f.now.Add(time.Second)
		for i := range f.reps {
			if r := &f.reps[i]; r.Revision == 3 {
				r.Message = "exited with code 3"
			}
		}
		f.plan()
	}
	f.settle()
	if g := f.app.Rollout; g.Target != 1 || !strings.HasSuffix(f.app.Revision(3).Failed, ": exited with code 3") {
		t.Errorf("rollout is %+v, revision 3 failed: %q", g, f.app.Revision(3).Failed)
	}
}

// TestPlanReturn: a lost host's replicas are replaced after the app's patience;
// when it returns the newest go.
func TestPlanReturn(t *testing.T) {
	f := newFleet(t, 3, testSpec(6))
	f.settle()
	lost := map[string]bool{}
	for _, r := range f.reps {
		if r.Host == "h1" {
			lost[r.ID] = true
		}
	}
	if len(lost) == 0 {
		t.Fatal("nothing is on h1")
	}
	p := f.hosts["h1"]
	p.Liveness = Lost
	f.hosts["h1"] = p
	for range 20 {
		f.step(false)
		f.plan()
	}
	if n, _ := f.living(); n != 6 || f.n != 6 {
		t.Fatalf("%d live and %d were launched before the patience is over", n, f.n)
	}
	for range 60 {
		f.step(false)
		f.plan()
	}
	if f.ready() != 6 || f.n != 6+len(lost) {
		t.Fatalf("%d are ready and %d were launched", f.ready(), f.n)
	}
	p.Liveness, p.Seen = Alive, f.now
	f.hosts["h1"] = p
	f.settle()
	for _, r := range f.reps {
		delete(lost, r.ID)
		if r.Created.After(f.reps[0].Created) && len(f.reps) != 6 {
			t.Errorf("%+v", r)
		}
	}
	if len(lost) > 0 {
		t.Errorf("the older ones were stopped: %v", lost)
	}
}

// TestPlanStandby: scaling out runs what stands by, and refills.
func TestPlanStandby(t *testing.T) {
	f := newFleet(t, 5, testSpec(2))
	f.app.Scaling.Standby = 2
	f.settle()
	if _, s := f.living(); s != 2 {
		t.Fatalf("%d stand by", s)
	}
	f.app.Replicas = 4
	f.plan()
	if n, s := f.living(); n != 4 || s != 2 || f.n != 6 {
		t.Fatalf("%d run, %d stand by and %d were launched", n, s, f.n)
	}
	for _, r := range f.reps[:4] {
		if r.Standby {
			t.Errorf("%s was there and stands by still", r.ID)
		}
	}
	f.settle()
}

// TestPlanCanary: canaries run alone until they are promoted.
func TestPlanCanary(t *testing.T) {
	f := newFleet(t, 5, testSpec(4))
	f.settle()
	spec := testSpec(4)
	spec.Rollout.Canary = 1
	f.revise(spec)
	for range 600 { // longer than the deadline: nobody is in a hurry
		f.step(false)
		f.plan()
	}
	at := map[int]int{}
	for _, r := range f.reps {
		at[r.Revision]++
	}
	if at[1] != 3 || at[2] != 1 || f.app.Rollout.Done {
		t.Fatalf("replicas by revision: %v; %+v", at, f.app.Rollout)
	}
	f.app.Rollout.Canary, f.app.Rollout.Since = false, f.now
	f.settle()
}

// TestPlanJob: a job succeeds as often as wanted, with so many at a time, and
// is given up after its retries.
func TestPlanJob(t *testing.T) {
	spec := testSpec(0)
	spec.Kind, spec.Job = Job, JobSpec{Completions: 5, Parallelism: 2, Retries: 2}
	for _, failing := range []bool{false, true} {
		f := newFleet(t, 9, spec)
		f.app.Run, f.app.RunAt = 1, f.now
		for range 200 {
			f.now = f.now.Add(10 * time.Second)
			f.plan()
			for i := range f.reps {
				r := &f.reps[i]
				switch {
				case !r.Stopped.IsZero():
					r.Phase = Gone
				case r.Phase == Ordered:
					r.Phase = Running
				case r.Phase == Running:
					r.Phase, r.Finished = Ended, f.now
					if failing {
						r.Phase = Failed
					}
				}
			}
			if n, _ := f.living(); n > 2 {
				t.Fatalf("%d at a time", n)
			}
		}
		st := runState(&f.app, &spec, f.reps, f.now)
		if !st.Over || failing != (st.Why != "") || !failing && f.n != 5 || failing && f.n != 3 && f.n != 4 {
			t.Errorf("failing %v: %+v after %d launches, %q", failing, st, f.n, f.app.Rollout.Message)
		}
	}
}

// TestPlanCron: a run begins when it is time, and none while one is under way.
func TestPlanCron(t *testing.T) {
	spec := testSpec(0)
	spec.Kind, spec.Job = Cron, JobSpec{Schedule: "*/5 * * * *", Completions: 1, Parallelism: 1}
	f := newFleet(t, 9, spec)
	f.app.Updated = f.now
	for range 100 {
		f.now = f.now.Add(10 * time.Second)
		f.plan()
		for i := range f.reps {
			switch r := &f.reps[i]; {
			case !r.Stopped.IsZero():
				r.Phase = Gone
			case r.Phase == Ordered:
				r.Phase, r.Finished = Ended, f.now
			}
		}
	}
	if f.app.Run != 3 || f.n != 3 || len(f.reps) != 1 {
		t.Errorf("%d runs and %d launches in 1000 s, %d records", f.app.Run, f.n, len(f.reps))
	}
}

// TestPlanSick: replicas that never served do not keep better ones from coming.
func TestPlanSick(t *testing.T) {
	for _, roll := range []Rollout{{MaxSurge: 1}, {MaxUnavailable: 1}, {MaxSurge: 2, MaxUnavailable: 2}} {
		f := newFleet(t, 2, testSpec(4))
		f.sick[1] = true
		f.rest()
		spec := testSpec(4)
		spec.Rollout = roll
		f.revise(spec)
		f.settle()
	}
}

// TestPlanHealthy: an old replica that serves is not stopped because it has not
// served for long.
func TestPlanHealthy(t *testing.T) {
	spec := testSpec(3)
	spec.Rollout = Rollout{MaxSurge: 1, Healthy: time.Minute}
	f := newFleet(t, 4, spec)
	for f.ready() < 3 {
		f.step(false)
		f.plan()
	}
	f.revise(spec)
	for !f.app.Rollout.Done {
		f.step(false)
		f.plan()
		if n := f.ready(); n < 3 {
			t.Fatalf("%d serve", n)
		}
	}
}

// TestPlanAnew: failures of one revision are not held against the next one.
func TestPlanAnew(t *testing.T) {
	f := newFleet(t, 6, testSpec(3))
	f.settle()
	f.bad[2] = true
	spec := testSpec(3)
	spec.Rollout.Revert = false
	f.revise(spec)
	for range 600 {
		f.step(false)
		f.plan()
	}
	f.revise(testSpec(3))
	before := f.now
	for f.app.Rollout.Ready == 0 {
		f.step(false)
		f.plan()
	}
	if took := f.now.Sub(before); took > time.Minute {
		t.Errorf("the first replica of a good revision took %s", took)
	}
	f.settle()
	if f.app.Rollout.Target != 3 {
		t.Errorf("%+v", f.app.Rollout)
	}
}

// TestPlanAllCanaries: an app with no more replicas than canaries waits for its
// promotion, and a moment of weakness then is not the end.
func TestPlanAllCanaries(t *testing.T) {
	f := newFleet(t, 5, testSpec(2))
	f.settle()
	spec := testSpec(2)
	spec.Rollout.Canary = 3
	f.revise(spec)
	for range 600 {
		f.step(false)
		f.plan()
	}
	for i := range f.reps {
		f.reps[i].Well = time.Time{}
	}
	f.plan()
	if g := f.app.Rollout; g.Target != 2 || !g.Canary {
		t.Fatalf("%+v", g)
	}
	for i := range f.reps {
		f.reps[i].Well = f.now
	}
	f.app.Rollout.Canary, f.app.Rollout.Since = false, f.now
	f.settle()
}

// TestPlanPins: a host that has another image than it is told is not asked again
// and again.
func TestPlanPins(t *testing.T) {
	f := newFleet(t, 8, testSpec(4))
	for range 200 {
		f.step(false)
		for i := range f.reps {
			if r := &f.reps[i]; r.Phase == Running {
				r.Digest = "sha256:of " + r.Host
			}
		}
		f.plan()
	}
	if f.n > 8 {
		t.Errorf("%d launches of four replicas", f.n)
	}
	f.settle()
}

// TestPlanCronLeavesOut: a run that is not over in time costs the runs that it
// kept from beginning.
func TestPlanCronLeavesOut(t *testing.T) {
	spec := testSpec(0)
	spec.Kind, spec.Job = Cron, JobSpec{Schedule: "*/5 * * * *", Completions: 1, Parallelism: 1}
	f := newFleet(t, 9, spec)
	f.app.Updated = f.now
	var began []string
	for range 300 {
		run := f.app.Run
		f.now = f.now.Add(10 * time.Second)
		f.plan()
		if f.app.Run != run {
			began = append(began, f.now.Format("15:04"))
		}
		for i := range f.reps {
			switch r := &f.reps[i]; {
			case !r.Stopped.IsZero():
				r.Phase = Gone
			case r.Phase == Ordered:
				r.Phase = Running
			case r.Phase == Running && f.now.Sub(r.Created) > 7*time.Minute:
				r.Phase, r.Finished = Ended, f.now
			}
		}
	}
	if want := []string{"00:05", "00:15", "00:25", "00:35", "00:45"}; !slices.Equal(began, want) {
		t.Errorf("runs began at %v, not %v", began, want)
	}
}

// TestPlanCrashLoop: a revision whose replicas end again and again is given up
// before its deadline; one that only takes its time is not.
func TestPlanCrashLoop(t *testing.T) {
	for restarts, want := range map[int]int{crashLoop - 1: 2, crashLoop: 1} {
		f := newFleet(t, 11, testSpec(2))
		f.settle()
		f.revise(testSpec(2))
		f.plan()
		for i := range f.reps {
			if r := &f.reps[i]; r.Revision == 2 {
				r.Phase, r.Restarts, r.Message = Starting, restarts, "exited with code 3"
			}
		}
		f.now = f.now.Add(time.Minute)
		f.plan()
		if g := f.app.Rollout; g.Target != want {
			t.Errorf("after %d restarts the target is revision %d: %s", restarts, g.Target, g.Message)
		}
	}
}

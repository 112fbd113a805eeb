package app

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// App is an app and how it is doing; NotFound.
func (e *Engine) App(name string) (View, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	rec := e.apps[name]
	if rec == nil {
		return View{}, noApp(name)
	}
	return e.view(rec), nil
}

// Apps are all of them, by name. Each is as it was at a time; reports come in
// between them.
func (e *Engine) Apps() []View {
	names := e.names()
	out := make([]View, 0, len(names))
	for _, name := range names {
		if v, err := e.App(name); err == nil { // else it is gone by now
			out = append(out, v)
		}
	}
	return out
}

// names are those of all apps, in order.
func (e *Engine) names() []string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return slices.Sorted(maps.Keys(e.apps))
}

// view is an app as others may see it. The caller holds mu.
func (e *Engine) view(rec *record) View {
	v := e.brief(rec)
	spec := rec.app.Spec()
	v.Replicas = slices.Grow(v.Replicas, len(rec.reps))
	for id := range rec.reps {
		v.Replicas = append(v.Replicas, *e.replicas[id])
	}
	slices.SortFunc(v.Replicas, func(x, y Replica) int {
		return cmp.Or(cmp.Compare(x.Index, y.Index), x.Created.Compare(y.Created))
	})
	v.Desired = e.desired(rec, spec, v.Replicas)
	v.Status, v.Reason, v.Message = judge(rec, &v, spec, e.cfg.Now())
	return v
}

// status is that of view, for who has many to look at. The caller holds mu.
func (e *Engine) status(rec *record) Status {
	spec := rec.app.Spec()
	if spec.Kind != Service {
		return e.view(rec).Status
	}
	v := e.brief(rec)
	v.Desired = e.desired(rec, spec, nil)
	s, _, _ := judge(rec, &v, spec, e.cfg.Now())
	return s
}

// brief is a view with replicas counted and not listed. The caller holds mu.
func (e *Engine) brief(rec *record) View {
	v := View{App: *rec.app, Sample: rec.sample, Unplaced: rec.why, Missing: rec.missing, Held: rec.held}
	for id := range rec.reps {
		r := e.replicas[id]
		switch {
		case !r.Living() && r.Phase != Running || r.Phase == Gone:
		case r.Standby:
			if r.Phase == Waiting {
				v.Standby++
			}
		case r.Phase == Running && r.Away.IsZero():
			v.Current++
			if e.serves(rec, r) {
				v.Ready++
			}
		}
	}
	v.Sample.Ready, v.Sample.Total = v.Ready, v.Current
	return v
}

// desired is how many replicas should run.
func (e *Engine) desired(rec *record, spec *Spec, reps []Replica) int {
	a := rec.app
	switch {
	case !a.Started:
		return 0
	case spec.Kind == Service:
		return a.Replicas
	case spec.Kind == Daemon:
		n := rec.missing
		for i := range reps {
			if reps[i].Living() {
				n++
			}
		}
		return n
	}
	if a.RunAt.IsZero() {
		return 0
	}
	st := runState(a, spec, reps, e.cfg.Now())
	if st.Over {
		return 0
	}
	return min(spec.Job.Parallelism, spec.Job.Completions-st.Succeeded)
}

// judge says in a word and a sentence how an app is doing.
func judge(rec *record, v *View, spec *Spec, now time.Time) (s Status, reason, message string) {
	a := rec.app
	if spec.Kind == Job || spec.Kind == Cron {
		return judgeJob(a, v, spec, now)
	}
	if !a.Started {
		if a.Removing != "" {
			return Down, "Removing", fmt.Sprintf("it is being removed, with %s left on hosts", several(len(v.Replicas), "replica"))
		}
		if v.Current > 0 {
			return Down, "Stopping", "stopping " + several(v.Current, "replica")
		}
		return Down, "", ""
	}
	reason, message = trouble(rec, v)
	switch {
	case v.Ready >= v.Desired && rec.missing == 0:
		return Up, reason, message
	case v.Ready > 0:
		return Degraded, cmp.Or(reason, "NotReady"), cmp.Or(message, fmt.Sprintf("%d of %s ready", v.Ready, several(v.Desired, "replica")))
	case rec.missing > 0 || rec.held != "" || rec.fails.InRow > 0 || a.Rollout.Done:
		return Failing, cmp.Or(reason, "NotReady"), cmp.Or(message, "no replica is ready")
	}
	return Pending, cmp.Or(reason, "Starting"), cmp.Or(message, "no replica is ready yet")
}

// trouble is what keeps an app from being as it should be.
func trouble(rec *record, v *View) (reason, message string) {
	switch {
	case rec.missing > 0:
		return "Unplaced", noRoom(rec.missing, rec.why)
	case rec.held != "":
		return notLaunched, "replicas are not launched: " + rec.held
	case rec.fails.InRow > 0 && v.Ready < v.Desired:
		return "Failed", "a replica failed: " + rec.fails.Last
	case !rec.app.Rollout.Done && rec.app.Rollout.Previous > 0:
		g := rec.app.Rollout
		ready, wanted := v.Rolled()
		switch {
		case g.Paused:
			return "Paused", fmt.Sprintf("the rollout of revision %d is paused", g.Target)
		case g.Canary:
			return "Canary", fmt.Sprintf("revision %d is on canaries until it is promoted: %d of %d ready", g.Target, ready, wanted)
		}
		return "RollingOut", fmt.Sprintf("revision %d is rolled out: %d of %d ready", g.Target, ready, wanted)
	case len(rec.app.Lost) > 0:
		message = "it goes without a route: " + rec.app.Lost[0].Why
		if n := len(rec.app.Lost) - 1; n > 0 {
			message += "; and " + several(n, "more route")
		}
		return "RouteLost", message
	}
	for i := range v.Replicas {
		switch r := &v.Replicas[i]; {
		case !r.Living():
		case r.Seen.CheckErr != "" && r.Well.IsZero():
			return "Unhealthy", fmt.Sprintf("replica %s: %s", r.Name(), r.Seen.CheckErr)
		}
	}
	return "", ""
}

func judgeJob(a *App, v *View, spec *Spec, now time.Time) (s Status, reason, message string) {
	switch {
	case !a.Started:
		return Down, "", ""
	case a.RunAt.IsZero():
		return Up, "Scheduled", "it waits for its first run"
	}
	st := runState(a, spec, v.Replicas, now)
	over := !a.Tally.Over.IsZero() // and noted: what hears of it finds its event
	switch {
	case over && st.Why != "":
		return Failing, "Failed", fmt.Sprintf("run %d failed: %s", a.Run, st.Why)
	case over && spec.Kind == Cron:
		return Up, "Scheduled", fmt.Sprintf("run %d succeeded; it waits for the next one", a.Run)
	case over:
		return Completed, "", fmt.Sprintf("run %d succeeded", a.Run)
	case v.Missing > 0:
		return Failing, "Unplaced", noRoom(v.Missing, v.Unplaced)
	case v.Held != "":
		return Failing, notLaunched, "replicas are not launched: " + v.Held
	}
	return Up, "", fmt.Sprintf("run %d: %d of %d have succeeded", a.Run, st.Succeeded, spec.Job.Completions)
}

// Traffic is what the balancer has counted of each app, a moment ago.
func (e *Engine) Traffic() map[string]Traffic {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.traffic
}

// Totals are sums over the fleet.
func (e *Engine) Totals() Totals {
	e.mu.RLock()
	defer e.mu.RUnlock()
	t := Totals{Apps: map[Status]int{}, Hosts: map[Liveness]int{}, Assigned: len(e.replicas)}
	for _, r := range e.replicas {
		if r.Phase == Running {
			t.Replicas++
		}
	}
	for id := range e.hosts {
		t.Hosts[e.liveness[id]]++
	}
	var errors uint64
	var seconds float64
	for name, rec := range e.apps {
		t.Apps[e.status(rec)]++
		t.RPS += rec.sample.RPS
		tr := e.traffic[name]
		t.Requests += tr.Requests
		errors += tr.Errors
		if tr.Latency != nil {
			seconds += tr.Latency.Mean().Seconds() * float64(tr.Requests)
		}
	}
	if t.Requests > 0 {
		t.ErrorPct = 100 * float64(errors) / float64(t.Requests)
		t.MeanMillis = 1000 * seconds / float64(t.Requests)
	}
	return t
}

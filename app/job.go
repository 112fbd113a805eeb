package app

import (
	"fmt"
	"slices"
	"time"

	"github.com/robfig/cron/v3"
)

// RunState is how the present run of a job stands.
type RunState struct {
	Succeeded, Failed, Active int
	Over                      bool
	Why                       string // it has failed; empty: it has not
}

// runState counts the replicas of a run.
func runState(a *App, s *Spec, reps []Replica, now time.Time) RunState {
	st := RunState{Succeeded: a.Tally.Succeeded, Failed: a.Tally.Failed}
	if !a.Tally.Over.IsZero() {
		st.Over, st.Why = true, a.Tally.Why
		return st
	}
	for i := range reps {
		r := &reps[i]
		switch {
		case r.Run != a.Run:
		case r.Phase == Ended:
			st.Succeeded++
		case r.Phase == Failed, r.Phase != Gone && !r.Away.IsZero():
			st.Failed++
		case r.Living():
			st.Active++
		}
	}
	due := deadline(a, s)
	switch {
	case a.RunAt.IsZero():
	case st.Succeeded >= s.Job.Completions:
		st.Over = true
	case st.Failed > s.Job.Retries:
		st.Over, st.Why = true, several(st.Failed, "replica")+" failed"
	case !due.IsZero() && !now.Before(due):
		st.Over, st.Why = true, fmt.Sprintf("it took longer than %s", s.Job.Timeout)
	}
	return st
}

// job has the replicas of a run succeed, and begins runs of cron.
func (p *planner) job() {
	st := runState(&p.app, p.spec, p.reps, p.Now)
	if !p.app.Started {
		p.stopRun("the app is stopped", -1)
		return
	}
	p.stopRun("a later run has begun", p.app.Run)
	if st.Over && (st.Why == "" || !p.unsure()) {
		p.endRun(st)
	}
	if p.spec.Kind == Cron {
		st = p.tick(st)
	}
	if st.Over || p.app.RunAt.IsZero() {
		return
	}
	for i := range p.reps { // its host has not begun it, and will not
		if r := &p.reps[i]; r.Living() && r.Phase == Ordered && p.Hosts[r.Host].Mode != Continue {
			p.stop(r, "its host takes nothing new")
			st.Active--
		}
	}
	if due := deadline(&p.app, p.spec); !due.IsZero() {
		p.at(due)
	}
	n := min(p.spec.Job.Parallelism, p.spec.Job.Completions-st.Succeeded) - st.Active
	if due := p.slower(st.Failed); n > 0 && p.Now.Before(due) {
		p.at(due)
		return
	}
	p.launch(n, p.app.Rollout.Target, false)
}

// slower is when the next replica of a run is launched: later with each failure.
func (p *planner) slower(failed int) time.Time {
	var last time.Time
	for i := range p.reps {
		r := &p.reps[i]
		if r.Run != p.app.Run || r.Phase != Failed {
			continue
		}
		for _, at := range []time.Time{r.Created, r.Finished} { // it need not have begun
			if at.After(last) {
				last = at
			}
		}
	}
	if last.IsZero() {
		return last
	}
	return last.Add(min(failsWait<<min(failed-1, 16), failsMost))
}

// unsure says that a replica of the run may be over since its host was heard of.
func (p *planner) unsure() bool {
	return slices.ContainsFunc(p.reps, func(r Replica) bool {
		return r.Run == p.app.Run && r.Living() && p.Hosts[r.Host].Liveness == Silent
	})
}

// stopRun stops what runs of runs other than keep.
func (p *planner) stopRun(why string, keep int) {
	for i := range p.reps {
		r := &p.reps[i]
		if r.Stopped.IsZero() && r.Run != keep && (r.Living() || keep >= 0) {
			p.stop(r, why)
		}
	}
}

// endRun notes that a run is over, once.
func (p *planner) endRun(st RunState) {
	for i := range p.reps {
		if r := &p.reps[i]; r.Run == p.app.Run && r.Living() {
			p.stop(r, "the run is over")
		}
	}
	if !p.app.Tally.Over.IsZero() {
		return
	}
	p.app.Tally = Tally{Succeeded: st.Succeeded, Failed: st.Failed, Over: p.Now, Why: st.Why}
	message := fmt.Sprintf("Run %d succeeded", p.app.Run)
	if st.Why != "" {
		message = fmt.Sprintf("Run %d failed: %s", p.app.Run, st.Why)
	}
	p.app.Rollout.Message = message
	p.edited = true
	typ := Life
	if st.Why != "" {
		typ = Trouble
	}
	p.event(typ, nil, map[string]any{"run": p.app.Run, "succeeded": st.Succeeded, "failed": st.Failed}, "%s", message)
}

// tick begins the next run of cron when its time has come. A run that is not
// over when the next one should begin is not disturbed: that one is left out,
// and so are those before the app was started again.
func (p *planner) tick(st RunState) RunState {
	schedule, err := cron.ParseStandard(p.spec.Job.Schedule)
	if err != nil {
		return st // Validate has refused it
	}
	last := p.app.RunAt
	if last.IsZero() {
		last = p.app.Updated
	}
	if over := p.app.Tally.Over; over.After(last) {
		last = over
	}
	due := schedule.Next(last.UTC())
	if p.Now.Before(due) {
		p.at(due)
		return st
	}
	p.at(schedule.Next(p.Now.UTC()))
	if !p.app.RunAt.IsZero() && p.app.Tally.Over.IsZero() {
		return st
	}
	p.app.Run++
	p.app.RunAt, p.app.Tally, p.edited = p.Now, Tally{}, true
	p.app.Rollout.Message = ""
	p.event(Life, nil, map[string]any{"run": p.app.Run}, "Run %d begins", p.app.Run)
	p.stopRun("a later run has begun", p.app.Run)
	return runState(&p.app, p.spec, p.reps, p.Now)
}

package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"time"
)

// The paces of the loop.
const (
	lookPace   = time.Second           // at hosts, and at what is due
	samplePace = 5 * time.Second       // at traffic and use
	batch      = 20 * time.Millisecond // reports of so long are answered by one look
	storeRetry = 2 * time.Second       // after the store has failed
)

// Run keeps apps as they are wanted until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	look := time.NewTicker(lookPace)
	defer look.Stop()
	sample := time.NewTicker(samplePace)
	defer sample.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			e.look(ctx)
		case <-sample.C:
			e.measure(ctx)
		case <-e.wake:
		}
		if err := e.work(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Log.Error("decisions cannot be kept, so nothing new is done; what runs runs on", "error", err)
			if !pause(ctx, storeRetry) {
				return nil
			}
			e.kick()
			continue
		}
		// A storm of reports is answered in bunches; a single one at once.
		if len(e.wake) > 0 && !pause(ctx, batch) {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// look notices hosts that fell silent and apps whose time has come.
func (e *Engine) look(ctx context.Context) {
	for _, id := range e.lookAtHosts() {
		if err := e.ForgetHost(ctx, id); err != nil {
			e.cfg.Log.Warn("terminated host is not forgotten", "host", id, "error", err)
		}
	}
}

// count asks the balancer what it has counted.
func (e *Engine) count() map[string]Traffic {
	now := e.cfg.Now()
	traffic := e.cfg.Balancer.Traffic()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.traffic, e.counted = traffic, now
	return traffic
}

// forgetAfter is how long a host that was terminated is told so.
const forgetAfter = 24 * time.Hour

// lookAtHosts is look, and says which hosts may be forgotten.
func (e *Engine) lookAtHosts() (forget []string) {
	now := e.cfg.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, h := range e.hosts {
		if !h.Terminated.IsZero() && now.Sub(h.Terminated) > forgetAfter {
			forget = append(forget, id)
		}
		was, is := e.liveness[id], e.livenessOf(h, now)
		if was == is || is == Alive {
			continue
		}
		e.liveness[id] = is
		e.stale[id] = struct{}{}
		e.markAll(id)
	}
	for name, rec := range e.apps {
		if !rec.next.IsZero() && !now.Before(rec.next) {
			e.mark(name)
		}
	}
	return forget
}

// livenessOf is how well a host is in touch: one missed report may be late, and
// three are no accident.
func (e *Engine) livenessOf(h *Host, now time.Time) Liveness {
	switch away := now.Sub(h.Seen); {
	case away > 3*e.cfg.Interval:
		return Lost
	case away > 2*e.cfg.Interval:
		return Silent
	}
	return Alive
}

// work does all that is to be done now.
func (e *Engine) work(ctx context.Context) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	e.refreshCluster()
	if err := e.save(ctx); err != nil {
		return err
	}
	nudged := map[string]struct{}{}
	for {
		names, draining := e.takeDirty()
		if len(names) == 0 {
			break
		}
		if draining {
			e.count()
		}
		if err := e.planAll(ctx, names, nudged); err != nil {
			e.mu.Lock()
			for _, n := range names {
				e.mark(n)
			}
			e.mu.Unlock()
			return err
		}
	}
	e.balance()
	for h := range nudged {
		e.cfg.Nudge(h)
	}
	return nil
}

// takeDirty are the apps to plan; draining says that some have replicas that
// are stopped once nothing is under way to them.
func (e *Engine) takeDirty() (names []string, draining bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	names = slices.Sorted(maps.Keys(e.dirty))
	clear(e.dirty)
	for _, name := range names {
		rec := e.apps[name]
		if draining || rec == nil {
			continue
		}
		for id := range rec.reps {
			draining = draining || !e.replicas[id].Stopped.IsZero()
		}
	}
	return names, draining
}

// refreshCluster tells placement what has changed about hosts.
func (e *Engine) refreshCluster() {
	e.mu.Lock()
	ids := slices.Collect(maps.Keys(e.stale))
	clear(e.stale)
	ids = slices.DeleteFunc(ids, func(id string) bool { return e.hosts[id] == nil })
	e.mu.Unlock()
	for _, id := range ids {
		e.cluster.Set(e.nodeOf(id))
	}
}

// save keeps what hosts have said of replicas.
func (e *Engine) save(ctx context.Context) error {
	e.mu.Lock()
	var put []Replica
	for id := range e.unsaved {
		if r := e.replicas[id]; r != nil && r.Phase != Gone {
			put = append(put, *r)
		}
	}
	clear(e.unsaved)
	e.mu.Unlock()
	if len(put) == 0 {
		return nil
	}
	err := e.cfg.Store.Commit(ctx, Change{Replicas: put})
	if err != nil {
		e.mu.Lock()
		for _, r := range put {
			e.unsaved[r.ID] = struct{}{}
		}
		e.mu.Unlock()
	}
	return err
}

// planAll plans apps and carries the steps out, in few commits.
func (e *Engine) planAll(ctx context.Context, names []string, nudged map[string]struct{}) error {
	const most = 2000 // replicas in a commit
	var c Change
	for i, name := range names {
		e.planOne(name, &c)
		if n := len(c.Replicas) + len(c.DropReplicas); n == 0 && len(c.Apps)+len(c.Events) == 0 || n < most && i < len(names)-1 {
			continue
		}
		if err := e.commit(ctx, c); err != nil {
			e.ungrant(c)
			return err
		}
		for _, r := range c.Replicas {
			nudged[r.Host] = struct{}{}
		}
		c = Change{}
	}
	return nil
}

// ungrant gives back what placement took for replicas that did not come to be.
func (e *Engine) ungrant(c Change) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, r := range c.Replicas {
		if rec := e.apps[r.App]; e.replicas[r.ID] == nil && rec != nil {
			if rev := rec.app.Revision(r.Revision); rev != nil {
				e.cluster.Give(r.Host, &rev.Spec)
			}
		}
	}
}

// planOne adds the steps of an app to c.
func (e *Engine) planOne(name string, c *Change) {
	s, ok := e.situation(name)
	if !ok {
		return
	}
	steps := Plan(s)
	var why []WhyNot
	missing := 0
	for _, w := range steps.Launch {
		made, not := e.grant(&s, &steps, w)
		c.Replicas = append(c.Replicas, made...)
		if n := w.N - len(made); n > 0 {
			missing += n
			why = not
		}
		for i := range made {
			r := &made[i]
			s.Replicas = append(s.Replicas, *r)
			c.Events = append(c.Events, Event{
				Time: s.Now.UTC(), Type: Life, App: name, Host: r.Host, Replica: r.ID, Message: "Replica " + r.Name() + " is placed on host " + r.Host,
				Details: map[string]any{"revision": r.Revision, "standby": r.Standby},
			})
		}
	}
	noteVolumes(&s, &steps)
	c.Replicas = append(c.Replicas, steps.Put...)
	c.DropReplicas = append(c.DropReplicas, steps.Drop...)
	c.Events = append(c.Events, steps.Events...)
	if steps.App != nil {
		c.Apps = append(c.Apps, *steps.App)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	rec := e.apps[name]
	if rec == nil {
		return
	}
	rec.fails, rec.next = steps.Fails, steps.Next
	if missing > 0 && rec.missing == 0 {
		c.Events = append(c.Events, Event{
			Time: s.Now.UTC(), Type: Trouble, App: name, Message: noRoom(missing, why), Details: map[string]any{"missing": missing},
		})
	}
	rec.missing, rec.why = missing, why
	if len(steps.Put) > 0 { // drains are over some time
		e.soon(rec, s.Now.Add(settle))
	}
	for _, r := range s.Replicas {
		if !r.Stopped.IsZero() && r.Phase != Gone {
			e.soon(rec, s.Now.Add(lookPace))
			if e.drained(&r, rec) {
				e.cfg.Nudge(r.Host)
			}
		}
	}
}

// noteVolumes notes on which hosts replicas with volumes are placed.
func noteVolumes(s *Situation, steps *Steps) {
	if len(volumesOf(s.App)) == 0 {
		return
	}
	for i := range s.Replicas {
		a := s.App
		if steps.App != nil {
			a = steps.App
		}
		if host := s.Replicas[i].Host; !slices.Contains(a.VolumeHosts, host) {
			next := *a
			next.VolumeHosts = append(slices.Clone(a.VolumeHosts), host)
			steps.App = &next
		}
	}
}

// soon has an app planned again at a time at the latest. The caller holds mu.
func (e *Engine) soon(rec *record, at time.Time) {
	if rec.next.IsZero() || at.Before(rec.next) {
		rec.next = at
	}
}

func noRoom(n int, why []WhyNot) string {
	s := "No host takes a replica"
	if n > 1 {
		s = "No host takes the last replicas"
	}
	if len(why) > 0 {
		s += ": " + cmp.Or(why[0].Name, why[0].Host, "the fleet") + ": " + why[0].Reason
	}
	return s
}

// situation is what Plan needs to know of an app.
func (e *Engine) situation(name string) (Situation, bool) {
	now := e.cfg.Now()
	e.mu.RLock()
	rec := e.apps[name]
	if rec == nil {
		e.mu.RUnlock()
		return Situation{}, false
	}
	s := Situation{App: rec.app, Hosts: map[string]Place{}, Fails: rec.fails, Now: now}
	for id := range rec.reps {
		r := *e.replicas[id]
		s.Replicas = append(s.Replicas, r)
		if h := e.hosts[r.Host]; h != nil && h.Terminated.IsZero() {
			s.Hosts[r.Host] = Place{Mode: h.Mode, Liveness: e.liveness[r.Host], Seen: h.Seen}
		}
	}
	e.mu.RUnlock()
	if spec := s.App.Spec(); spec.Kind == Daemon {
		s.Targets = len(e.cluster.Eligible(spec))
	}
	return s, true
}

// grant chooses hosts for the replicas of a wish and makes them.
func (e *Engine) grant(s *Situation, steps *Steps, w Wish) (made []Replica, why []WhyNot) {
	rev := s.App.Revision(w.Revision)
	if steps.App != nil {
		rev = steps.App.Revision(w.Revision)
	}
	if rev == nil {
		return nil, nil
	}
	avoid := map[string]bool{}
	for h, at := range steps.Fails.Hosts {
		avoid[h] = s.Now.Sub(at) < failsForget
	}
	for i := range s.Replicas {
		if r := &s.Replicas[i]; r.Move != "" && r.Living() { // another one in its place, elsewhere
			avoid[r.Host] = true
		}
	}
	hosts, why := e.cluster.Place(&rev.Spec, w.N, avoid)
	used := map[int]bool{}
	for i := range s.Replicas {
		used[s.Replicas[i].Index] = true
	}
	index := 1
	for _, h := range hosts {
		for used[index] {
			index++
		}
		used[index] = true
		made = append(made, Replica{
			ID: strings.ToLower(rand.Text()[:20]), App: s.App.Name, Index: index, Revision: rev.N, Host: h, Run: w.Run,
			Created: s.Now.UTC(), Standby: w.Standby, Phase: Ordered,
		})
	}
	return made, why
}

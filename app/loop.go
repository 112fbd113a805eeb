package app

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// The paces of the loop.
const (
	lookPace   = time.Second           // at hosts, and at what is due
	samplePace = 5 * time.Second       // at traffic and use
	batch      = 20 * time.Millisecond // reports of so long are answered by one look
	storeRetry = 2 * time.Second       // after the store has failed
	buryPace   = 2 * time.Second       // at apps that are to be removed
)

// Run keeps apps as they are wanted until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	look := time.NewTicker(lookPace)
	defer look.Stop()
	sample := time.NewTicker(samplePace)
	defer sample.Stop()
	var burials sync.WaitGroup
	defer burials.Wait()
	burials.Go(func() {
		for pause(ctx, buryPace) {
			e.buryAll(ctx)
		}
	})
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
		began := time.Now()
		if err := e.work(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Log.Error("decisions cannot be kept, so nothing new is done; what runs runs on", "error", err)
			if !pause(ctx, storeRetry) {
				return nil
			}
			e.kick()
			continue
		}
		// A storm of reports is answered in bunches, the larger the longer one
		// takes; a single one at once.
		if len(e.wake) > 0 && !pause(ctx, min(max(batch, time.Since(began)), lookPace)) {
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

// linkLost is how long a host whose tunnel has closed may take to report or to
// open another one.
const linkLost = 3 * time.Second

// livenessOf is how well a host is in touch: one missed report may be late, and
// three are no accident. A tunnel that closed and stays so says more, sooner.
func (e *Engine) livenessOf(h *Host, now time.Time) Liveness {
	switch away := now.Sub(h.Seen); {
	case away > 3*e.cfg.Interval:
		return Lost
	case away > 2*e.cfg.Interval:
		return Silent
	case !h.Closed.IsZero() && !h.Seen.After(h.Closed) && now.Sub(h.Closed) > linkLost:
		return Silent
	}
	return Alive
}

// work does all that is to be done now.
func (e *Engine) work(ctx context.Context) error {
	e.edit.Lock()
	defer e.edit.Unlock()
	e.refreshCluster()
	nudged := map[string]struct{}{}
	err := e.decide(ctx, nudged)
	e.balance() // also where nothing can be kept: what is not well gets no requests
	for h := range nudged {
		e.cfg.Nudge(h)
	}
	return err
}

// decide plans what is to be planned, and adds the hosts that have new orders.
func (e *Engine) decide(ctx context.Context, nudged map[string]struct{}) error {
	if err := e.save(ctx); err != nil {
		return err
	}
	for {
		names, draining := e.takeDirty()
		if len(names) == 0 {
			return nil
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
}

// takeDirty are the apps to plan; draining says that some have replicas that
// are stopped once nothing is under way to them.
func (e *Engine) takeDirty() (names []string, draining bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.room {
		e.room = false
		for name, rec := range e.apps {
			if rec.missing > 0 {
				e.mark(name)
			}
		}
	}
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
	defer e.mu.Unlock()
	for _, id := range ids {
		if e.hosts[id] != nil {
			e.cluster.Set(e.siteOf(id))
			e.room = true
		}
	}
}

// save keeps what hosts have said of replicas.
func (e *Engine) save(ctx context.Context) error {
	e.mu.Lock()
	var put []Replica
	for id := range e.unsaved {
		r := e.replicas[id]
		if r == nil {
			continue
		}
		e.reckon(r)
		if r.Phase != Gone {
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
	var ps []planned
	for i, name := range names {
		p, ok := e.planOne(name, &c)
		if ok {
			ps = append(ps, p)
		}
		n := len(c.Replicas) + len(c.DropReplicas)
		if n < most && !p.routes && i < len(names)-1 {
			continue
		}
		if n+len(c.Apps)+len(c.Events) > 0 {
			if err := e.commit(ctx, c); err != nil {
				e.ungrant(c)
				return err
			}
		}
		e.note(ps)
		for _, r := range c.Replicas {
			nudged[r.Host] = struct{}{}
		}
		c, ps = Change{}, nil
	}
	return nil
}

// ungrant gives back what placement took for replicas that did not come to be.
func (e *Engine) ungrant(c Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range c.Replicas {
		if r := &c.Replicas[i]; e.replicas[r.ID] == nil {
			e.reckon(r)
		}
	}
}

// reckon has placement count a replica as long as it takes anything of its host.
// The caller holds edit and mu.
func (e *Engine) reckon(r *Replica) {
	rev := e.revisionOf(r)
	if rev == nil {
		return
	}
	_, counts := e.counts[r.ID]
	switch there := e.replicas[r.ID] != nil && e.hosts[r.Host] != nil && r.takes(&rev.Spec); {
	case there && !counts:
		e.counts[r.ID] = struct{}{}
		e.cluster.Take(r.Host, &rev.Spec)
	case !there && counts:
		delete(e.counts, r.ID)
		e.cluster.Give(r.Host, &rev.Spec)
		e.room = true
	}
}

// revisionOf is what a replica runs, or nil. The caller holds mu.
func (e *Engine) revisionOf(r *Replica) *Revision {
	if rec := e.apps[r.App]; rec != nil {
		return rec.app.Revision(r.Revision)
	}
	return nil
}

// planned is what a plan says beside what is durable.
type planned struct {
	name    string
	at      time.Time
	fails   Fails
	held    string
	next    time.Time
	missing int
	why     []WhyNot
	made    bool // replicas were placed
	routes  bool // are others: the next app's are checked beside these
}

// planOne adds the steps of an app to c.
func (e *Engine) planOne(name string, c *Change) (planned, bool) {
	s, before, ok := e.situation(name)
	if !ok {
		return planned{}, false
	}
	steps := Plan(s)
	p := planned{name: name, at: s.Now, fails: steps.Fails, held: steps.Held, next: steps.Next}
	for _, w := range steps.Launch {
		made, why := e.grant(&s, &steps, w)
		c.Replicas = append(c.Replicas, made...)
		p.made = p.made || len(made) > 0
		if n := w.N - len(made); n > 0 {
			p.missing += n
			p.why = why
		}
		for i := range made {
			r := &made[i]
			s.Replicas = append(s.Replicas, *r)
			c.Events = append(c.Events, Event{
				Time: s.Now.UTC(), Type: Life, App: name, Host: r.Host, Replica: r.ID, Message: "Replica " + r.Name() + " is placed on host " + e.cluster.called(r.Host),
				Details: map[string]any{"revision": r.Revision, "standby": r.Standby},
			})
		}
	}
	noteVolumes(&s, &steps)
	p.routes = e.yield(&s, &steps)
	c.Replicas = append(c.Replicas, steps.Put...)
	c.DropReplicas = append(c.DropReplicas, steps.Drop...)
	c.Events = append(c.Events, steps.Events...)
	if steps.App != nil {
		c.Apps = append(c.Apps, *steps.App)
	}
	if p.missing > 0 && before == 0 {
		c.Events = append(c.Events, Event{
			Time: s.Now.UTC(), Type: Trouble, App: name, Message: noRoom(p.missing, p.why), Details: map[string]any{"missing": p.missing},
		})
	}
	if len(steps.Put) > 0 { // drains are over some time
		p.soon(s.Now.Add(settle))
	}
	return p, true
}

// soon has the app planned again at a time at the latest.
func (p *planned) soon(at time.Time) {
	if p.next.IsZero() || at.Before(p.next) {
		p.next = at
	}
}

// note keeps what plans say beside what is durable, once that is.
func (e *Engine) note(ps []planned) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range ps {
		p := &ps[i]
		rec := e.apps[p.name]
		if rec == nil {
			continue
		}
		for id := range rec.reps {
			r := e.replicas[id]
			if r.Stopped.IsZero() || r.Phase == Gone || e.liveness[r.Host] != Alive {
				continue
			}
			p.soon(p.at.Add(lookPace))
			if e.drained(r, rec) {
				e.cfg.Nudge(r.Host)
			}
		}
		if rec.missing != p.missing || rec.fails.InRow != p.fails.InRow || rec.held != p.held {
			e.announce()
		}
		e.room = e.room || p.made
		rec.fails, rec.held, rec.next, rec.missing, rec.why = p.fails, p.held, p.next, p.missing, p.why
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

func noRoom(n int, why []WhyNot) string {
	s := "No host takes " + several(n, "replica")
	if len(why) > 0 {
		s += ": " + why[0].String()
	}
	return s
}

// situation is what Plan needs to know of an app, and how many replicas no host
// took the last time.
func (e *Engine) situation(name string) (s Situation, missing int, ok bool) {
	now := e.cfg.Now()
	e.mu.RLock()
	rec := e.apps[name]
	if rec == nil {
		e.mu.RUnlock()
		return Situation{}, 0, false
	}
	missing = rec.missing
	s = Situation{App: rec.app, Hosts: map[string]Place{}, Fails: rec.fails, Held: rec.held, Now: now}
	for id := range rec.reps {
		r := *e.replicas[id]
		s.Replicas = append(s.Replicas, r)
		switch h := e.hosts[r.Host]; {
		case h == nil:
		case !h.Terminated.IsZero():
			s.Hosts[r.Host] = Place{Name: h.Name, Gone: true}
		default:
			s.Hosts[r.Host] = Place{Name: h.Name, Mode: h.Mode, Liveness: e.liveness[r.Host], Seen: h.Seen}
		}
	}
	e.mu.RUnlock()
	if spec := s.App.Spec(); spec.Kind == Daemon {
		s.Targets = e.cluster.Eligible(spec)
	}
	return s, missing, true
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
		id := strings.ToLower(rand.Text()[:20])
		e.counts[id] = struct{}{}
		made = append(made, Replica{
			ID: id, App: s.App.Name, Index: index, Revision: rev.N, Host: h, Run: w.Run,
			Created: s.Now.UTC(), Standby: w.Standby, Phase: Ordered,
		})
	}
	return made, why
}

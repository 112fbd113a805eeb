package app

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Balancer spreads requests over replicas and measures them.
type Balancer interface {
	// Update makes the routes of these apps be these and leaves all others as
	// they are; Conflict if two apps clash, and then nothing has changed.
	// Unavailable: a port cannot be opened, and all else is done.
	Update(changed []Route) error
	// Check says what is wrong with the routes of an app beside those there are.
	Check(app string, spec *Spec) error
	// Traffic is what was measured of each app since the start.
	Traffic() map[string]Traffic
}

// Config is what an Engine is made of.
type Config struct {
	Store    Store    // required
	Balancer Balancer // required
	Log      *slog.Logger

	// Nudge is called, and must not wait, when a host has new orders.
	Nudge func(host string)
	// Secret is the value of a secret; NotFound. Default: there are none.
	Secret func(name, key string) (string, error)
	// DropVolumes removes volumes from a host, as far as they are there and
	// nobody names them, and says how many it has removed.
	DropVolumes func(ctx context.Context, host string, names []string) (int, error)
	// CheckHealth has a host check a replica now.
	CheckHealth func(ctx context.Context, r Replica) error

	Interval time.Duration    // hosts report at least so often; default 30 s
	Now      func() time.Time // default time.Now
}

// Engine keeps apps running. Its methods may be called by anybody at any time
// between Load and the end of Run; errors have kinds of errs.
type Engine struct {
	cfg Config

	// edit is held by whoever changes what is durable, from reading what it
	// decides upon to the end of the commit. It guards cluster and counts, too.
	edit    sync.Mutex
	cluster *Cluster
	counts  map[string]struct{} // replicas that cluster has taken

	burying sync.Mutex // held while an app's last traces are removed

	mu       sync.RWMutex // guards all below; nothing slow under it
	apps     map[string]*record
	replicas map[string]*Replica            // by launch id; a value is replaced, not changed
	onHost   map[string]map[string]struct{} // launch ids by host
	hosts    map[string]*Host               // a value is replaced, not changed
	tokens   map[string]string              // host by hash of its token
	liveness map[string]Liveness
	reported map[string]*hostReports
	settings map[string][]byte
	config   Settings
	dirty    map[string]struct{} // apps to plan
	stale    map[string]struct{} // hosts that placement does not know as they are
	unsaved  map[string]struct{} // replicas of which the store does not know all
	traffic  map[string]Traffic  // as the balancer counted it
	counted  time.Time           // when that was
	changed  chan struct{}       // closed and replaced when anything did
	watchers map[chan *Event]struct{}
	routes   map[string]struct{} // apps whose routes may be others than the balancer knows
	room     bool                // may be where there was none

	wake chan struct{} // a token when there is work for the loop
}

// record is an app and what is remembered of it.
type record struct {
	app     *App // a value is replaced, not changed
	reps    map[string]struct{}
	fails   Fails
	held    string // why replicas are not launched
	missing int    // replicas that no host takes
	why     []WhyNot
	next    time.Time // when to plan again
	routed  []Backend // those that the balancer was told of last, by id
	window  *Window
	memory  ScaleMemory
	traffic Traffic // at the last sample
	sampled time.Time
	sample  Sample
	decided time.Time // by the autoscaler
}

// hostReports is what is needed to read the next report of a host.
type hostReports struct {
	stopped map[string]uint64 // orders to stop replicas it never had: the report of this boot that they answered
	former  []string          // boots before the present one, oldest first
}

// New checks cfg. Load comes next.
func New(cfg Config) (*Engine, error) {
	if cfg.Store == nil || cfg.Balancer == nil {
		return nil, errors.New("new app engine: Store and Balancer are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Nudge == nil {
		cfg.Nudge = func(string) {}
	}
	if cfg.Secret == nil {
		cfg.Secret = func(name, _ string) (string, error) { return "", errs.E(errs.NotFound, "there is no secret %q", name) }
	}
	if cfg.DropVolumes == nil {
		cfg.DropVolumes = func(context.Context, string, []string) (int, error) { return 0, nil }
	}
	if cfg.CheckHealth == nil {
		cfg.CheckHealth = func(context.Context, Replica) error { return nil }
	}
	if cfg.Interval == 0 {
		cfg.Interval = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Engine{
		cfg: cfg, apps: map[string]*record{}, replicas: map[string]*Replica{}, onHost: map[string]map[string]struct{}{},
		hosts: map[string]*Host{}, tokens: map[string]string{}, liveness: map[string]Liveness{}, reported: map[string]*hostReports{},
		settings: map[string][]byte{}, config: DefaultSettings(), dirty: map[string]struct{}{}, routes: map[string]struct{}{}, stale: map[string]struct{}{}, unsaved: map[string]struct{}{}, changed: make(chan struct{}),
		watchers: map[chan *Event]struct{}{}, wake: make(chan struct{}, 1), cluster: NewCluster(nil), counts: map[string]struct{}{},
	}, nil
}

// Load reads the store. It comes before everything else.
func (e *Engine) Load(ctx context.Context) error {
	if err := e.load(ctx); err != nil {
		return err
	}
	return e.settleRoutes(ctx)
}

func (e *Engine) load(ctx context.Context) error {
	st, err := e.cfg.Store.Load(ctx)
	if err != nil {
		return err
	}
	e.edit.Lock()
	defer e.edit.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.Copy(e.settings, st.Settings)
	if err := e.loadConfig(); err != nil {
		return err
	}
	now := e.cfg.Now()
	for _, h := range st.Hosts {
		h.Seen = now // it has the usual time to report
		e.putHost(&h)
		e.liveness[h.ID] = Silent
	}
	for _, a := range st.Apps {
		a.resume(now)
		e.putApp(&a)
	}
	for _, r := range st.Replicas {
		r.Created, r.Stopped, r.Away, r.ToldAt = atMost(r.Created, now), atMost(r.Stopped, now), atMost(r.Away, now), atMost(r.ToldAt, now)
		if r.Phase == Running && r.Stopped.IsZero() {
			r.Well = now // as far as we know; its host soon says
		}
		e.putReplica(&r)
	}
	for id := range e.hosts {
		e.cluster.Set(e.siteOf(id))
	}
	for _, r := range e.replicas {
		e.reckon(r)
	}
	return nil
}

// resume has an app go on after a time without a controller, in which no rollout
// could make progress, and on a clock that may have been set back.
func (a *App) resume(now time.Time) {
	if !a.Rollout.Done {
		a.Rollout.Since = now
	}
	a.Updated, a.RunAt, a.Scaled.At, a.Tally.Over = atMost(a.Updated, now), atMost(a.RunAt, now), atMost(a.Scaled.At, now), atMost(a.Tally.Over, now)
}

// atMost is t, unless that cannot have been yet.
func atMost(t, now time.Time) time.Time {
	if t.After(now.Add(clockSkew)) {
		return now
	}
	return t
}

// putApp, putReplica and putHost bring what is durable into memory. The caller holds mu.
func (e *Engine) putApp(a *App) {
	rec := e.apps[a.Name]
	if rec == nil {
		rec = &record{
			reps: map[string]struct{}{}, window: NewWindow(),
			memory: ScaleMemory{Seen: a.Scaled.At, Replicas: a.Replicas, Changed: a.Scaled.At},
		}
		e.apps[a.Name] = rec
	}
	rec.app = a
	e.mark(a.Name)
}

func (e *Engine) putReplica(r *Replica) {
	e.replicas[r.ID] = r
	if rec := e.apps[r.App]; rec != nil {
		rec.reps[r.ID] = struct{}{}
	}
	if e.onHost[r.Host] == nil {
		e.onHost[r.Host] = map[string]struct{}{}
	}
	e.onHost[r.Host][r.ID] = struct{}{}
	e.mark(r.App)
}

func (e *Engine) putHost(h *Host) {
	if old := e.hosts[h.ID]; old != nil && old.TokenHash != h.TokenHash {
		delete(e.tokens, old.TokenHash)
	}
	e.hosts[h.ID] = h
	if h.TokenHash != "" {
		e.tokens[h.TokenHash] = h.ID
	}
}

// mark has the loop look at an app. The caller holds mu.
func (e *Engine) mark(app string) {
	e.dirty[app] = struct{}{}
	e.routes[app] = struct{}{}
	e.kick()
}

func (e *Engine) kick() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// announce wakes whoever waits for a change. The caller holds mu.
func (e *Engine) announce() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// commit makes a change durable and then true in memory. The caller holds edit.
func (e *Engine) commit(ctx context.Context, c Change) error {
	if err := e.cfg.Store.Commit(ctx, c); err != nil {
		return errs.E(errs.Unavailable, "%w: %w", ErrStore, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range c.Apps {
		e.putApp(&c.Apps[i])
	}
	for i := range c.Hosts {
		e.mergeHost(&c.Hosts[i])
	}
	for i := range c.Replicas {
		e.mergeReplica(&c.Replicas[i])
	}
	for _, id := range c.DropReplicas {
		e.dropReplica(id)
	}
	for _, name := range c.DropApps {
		delete(e.apps, name)
		delete(e.dirty, name)
		e.routes[name] = struct{}{}
	}
	for _, id := range c.DropHosts {
		e.dropHost(id)
	}
	for k, v := range c.Settings {
		if v == nil {
			delete(e.settings, k)
		} else {
			e.settings[k] = v
		}
	}
	if len(c.Apps)+len(c.DropApps) > 0 {
		e.markLosers()
	}
	e.tell(c.Events)
	e.announce()
	return nil
}

// mergeReplica takes over what was decided about a replica; what its host has
// said meanwhile stays. The caller holds mu.
func (e *Engine) mergeReplica(r *Replica) {
	if now := e.replicas[r.ID]; now != nil {
		merged := *now
		merged.Standby, merged.Move, merged.Stopped, merged.Kill, merged.Why, merged.Away = r.Standby, r.Move, r.Stopped, r.Kill, r.Why, r.Away
		merged.Told, merged.ToldAt = r.Told, r.ToldAt
		r = &merged
	}
	e.putReplica(r)
	e.reckon(r)
}

// mergeHost takes over what was decided about a host, or what it is; what it
// has said meanwhile stays, unless it is a new one. The caller holds mu.
func (e *Engine) mergeHost(h *Host) {
	if now := e.hosts[h.ID]; now != nil {
		h.Linked, h.Closed = now.Linked, now.Closed
		if now.Terminated.IsZero() {
			h.Report = now.Report
		}
		if now.Seen.After(h.Seen) {
			h.Seen = now.Seen
		}
	}
	e.putHost(h)
}

func (e *Engine) dropReplica(id string) {
	r := e.replicas[id]
	if r == nil {
		return
	}
	delete(e.replicas, id)
	delete(e.onHost[r.Host], id)
	if reports := e.reported[r.Host]; reports != nil {
		delete(reports.stopped, id)
	}
	if rec := e.apps[r.App]; rec != nil {
		delete(rec.reps, id)
	}
	e.reckon(r)
	e.mark(r.App)
}

func (e *Engine) dropHost(id string) {
	if h := e.hosts[id]; h != nil {
		delete(e.tokens, h.TokenHash)
	}
	delete(e.hosts, id)
	delete(e.liveness, id)
	delete(e.reported, id)
	e.cluster.Remove(id)
	for r := range e.onHost[id] {
		delete(e.counts, r)
		e.mark(e.replicas[r].App)
	}
}

// tell hands events to who watches. Who is too slow is dropped, and learns it
// by the closed channel. The caller holds mu.
func (e *Engine) tell(events []Event) {
	for i := range events {
		for ch := range e.watchers {
			select {
			case ch <- &events[i]:
			default:
				delete(e.watchers, ch)
				close(ch)
			}
		}
	}
}

// Subscribe gives the events from now on, which nobody may change. The channel
// is closed when the subscriber is too slow, or after stop.
func (e *Engine) Subscribe() (events <-chan *Event, stop func()) {
	ch := make(chan *Event, 4096) // more than a commit has: an app may get 1000 replicas at once
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers[ch] = struct{}{}
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if _, ok := e.watchers[ch]; ok {
			delete(e.watchers, ch)
			close(ch)
		}
	}
}

// Events are those that match, newest first, and how many there are.
func (e *Engine) Events(ctx context.Context, q EventQuery) ([]Event, int, error) {
	return e.cfg.Store.Events(ctx, q)
}

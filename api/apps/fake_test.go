package apps

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/system"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

var _ Engine = (*app.Engine)(nil)

var day = time.Date(2024, 1, 15, 8, 0, 0, 0, time.UTC)

// fakeEngine keeps apps in memory. Their replicas are well at once, as far as
// there is room, and gone at once.
type fakeEngine struct {
	mu       sync.Mutex // guards all
	apps     map[string]*app.View
	settings app.Settings
	events   []app.Event
	watchers map[chan *app.Event]bool
	changed  chan struct{}
	did      []string
	launches int

	room  int   // for so many replicas of each app
	stuck bool  // replicas are not getting ready, nor do they end unless they are killed
	fail  error // of the next call that may fail
}

func newFake() *fakeEngine {
	return &fakeEngine{
		apps: map[string]*app.View{}, settings: app.DefaultSettings(), watchers: map[chan *app.Event]bool{}, changed: make(chan struct{}), room: 100,
	}
}

// note says what was done, and fails if that is wanted. The caller holds mu.
func (f *fakeEngine) note(format string, args ...any) error {
	f.did = append(f.did, fmt.Sprintf(format, args...))
	err := f.fail
	f.fail = nil
	return err
}

func (f *fakeEngine) done() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	did := strings.Join(f.did, "; ")
	f.did = nil
	return did
}

// get finds an app. The caller holds mu.
func (f *fakeEngine) get(name string) (*app.View, error) {
	if v := f.apps[name]; v != nil {
		return v, nil
	}
	return nil, errs.E(errs.NotFound, "there is no app %q", name)
}

// tell makes an event known, and that something has changed. The caller holds mu.
func (f *fakeEngine) tell(e app.Event) {
	e.ID, e.Time = int64(len(f.events)+1), day.Add(time.Duration(len(f.events))*time.Minute)
	f.events = append(f.events, e)
	for ch := range f.watchers {
		select {
		case ch <- &e:
		default:
			delete(f.watchers, ch)
			close(ch)
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeEngine) App(name string) (app.View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.get(name)
	if err != nil {
		return app.View{}, err
	}
	return f.copy(v), nil
}

func (f *fakeEngine) copy(v *app.View) app.View {
	c := *v
	c.Replicas = slices.Clone(v.Replicas)
	c.App.Revisions = slices.Clone(v.App.Revisions)
	return c
}

func (f *fakeEngine) Apps() []app.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []app.View
	for _, name := range slices.Sorted(maps.Keys(f.apps)) {
		out = append(out, f.copy(f.apps[name]))
	}
	return out
}

func (f *fakeEngine) Create(_ context.Context, spec app.Spec, source json.RawMessage, origin string) (app.App, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note("create %s %s", spec.Name, origin); err != nil {
		return app.App{}, err
	}
	if f.apps[spec.Name] != nil {
		return app.App{}, errs.E(errs.Exists, "app %q exists already", spec.Name)
	}
	return f.create(spec, source, origin).App, nil
}

func (f *fakeEngine) create(spec app.Spec, source json.RawMessage, origin string) *app.View {
	v := &app.View{Status: app.Down, App: app.App{
		Name: spec.Name, Origin: origin, Created: day, Updated: day, Scaling: spec.Scaling, Replicas: max(1, spec.Scaling.Min),
		Revisions: []app.Revision{{N: 1, Spec: spec, Source: source, Created: day}}, Rollout: app.Progress{Target: 1, Since: day},
	}}
	v.Sample = app.Sample{
		At: day, CPU: 45.2, Memory: 62.1, RPS: 127.5, P95: 89 * time.Millisecond, Connections: 234, MilliCPU: 456, MemoryBytes: 256 << 20,
	}
	f.apps[spec.Name] = v
	f.tell(app.Event{Type: app.Configured, App: spec.Name, Message: "App registered"})
	return v
}

// settle makes the replicas what is wanted. The caller holds mu.
func (f *fakeEngine) settle(v *app.View) {
	want := 0
	if v.App.Started {
		want = v.App.Replicas
	}
	v.Desired, v.Missing, v.Unplaced = want, max(0, want-f.room), nil
	want -= v.Missing
	if f.stuck && want < len(v.Replicas) {
		want = len(v.Replicas)
	}
	v.Replicas = v.Replicas[:min(want, len(v.Replicas))]
	for len(v.Replicas) < want {
		v.Replicas = append(v.Replicas, f.replica(v, len(v.Replicas)+1))
	}
	v.Current, v.Ready = 0, 0
	for i := range v.Replicas {
		if v.Replicas[i].Phase == app.Running {
			v.Current++
		}
		if v.Replicas[i].Ready() {
			v.Ready++
		}
	}
	v.Sample.Ready, v.Sample.Total = v.Ready, v.Current
	if v.Missing > 0 {
		v.Unplaced = []app.WhyNot{{Host: "h1", Name: "edge-1", Reason: "it has 100 MiB of memory free, and 200 MiB are needed"}}
	}
	switch {
	case !v.App.Started:
		v.Status = app.Down
	case v.Ready >= v.Desired:
		v.Status = app.Up
	case v.Ready > 0:
		v.Status = app.Degraded
	case v.Missing > 0:
		v.Status = app.Failing
	default:
		v.Status = app.Pending
	}
}

func (f *fakeEngine) replica(v *app.View, index int) app.Replica {
	f.launches++
	r := app.Replica{
		ID: fmt.Sprintf("launch%d", f.launches), App: v.App.Name, Index: index, Revision: v.App.Rollout.Target, Host: "h1", Created: day,
		Phase: app.Running, Address: "172.20.0.5", Started: day.Add(time.Hour), Well: day.Add(time.Hour),
		Ports: map[uint16]netip.AddrPort{80: netip.MustParseAddrPort("10.0.0.2:20080")},
		Seen: app.Container{
			ID: fmt.Sprintf("abc123def456%04d", f.launches), Name: fmt.Sprintf("%s-%d-x1", v.App.Name, index), Health: "healthy", Checked: day,
			Response: 45 * time.Millisecond, CPU: 15.2, Memory: 64 << 20,
		},
	}
	if f.stuck {
		r.Phase, r.Well, r.Message, r.Seen = app.Starting, time.Time{}, "exec /bin/no: no such file", app.Container{}
	}
	return r
}

// edit changes an app.
func (f *fakeEngine) edit(name, did string, change func(v *app.View) error) (app.View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note("%s", did); err != nil {
		return app.View{}, err
	}
	v, err := f.get(name)
	if err != nil {
		return app.View{}, err
	}
	if err := change(v); err != nil {
		return app.View{}, err
	}
	f.settle(v)
	f.tell(app.Event{Type: app.Life, App: name, Message: did})
	return f.copy(v), nil
}

func (f *fakeEngine) Update(_ context.Context, spec app.Spec, source json.RawMessage) (app.View, error) {
	return f.edit(spec.Name, "update "+spec.Name, func(v *app.View) error { return f.revise(v, spec, source) })
}

func (f *fakeEngine) revise(v *app.View, spec app.Spec, source json.RawMessage) error {
	if spec.Container.Flist == v.App.Spec().Container.Flist {
		return nil
	}
	n := len(v.App.Revisions) + 1
	v.App.Revisions = append(v.App.Revisions, app.Revision{N: n, Spec: spec, Source: source, Created: day})
	v.App.Rollout = app.Progress{Target: n, Previous: n - 1, Since: day}
	v.App.Updated = v.App.Updated.Add(time.Minute)
	return nil
}

func (f *fakeEngine) Apply(ctx context.Context, spec app.Spec, source json.RawMessage, origin string) (app.View, error) {
	f.mu.Lock()
	if f.apps[spec.Name] == nil {
		f.create(spec, source, origin)
	}
	f.mu.Unlock()
	return f.edit(spec.Name, "apply "+spec.Name, func(v *app.View) error {
		v.App.Started = true
		return f.revise(v, spec, source)
	})
}

func (f *fakeEngine) Preview(spec app.Spec) (app.Diff, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := app.Diff{Actions: []string{"start 1 replica of revision 1"}}
	if v := f.apps[spec.Name]; v != nil {
		d.Old = v.App.Spec()
	}
	return d, nil
}

func (f *fakeEngine) Remove(_ context.Context, name string, keepData bool) (app.Removed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note("remove %s keep=%v", name, keepData); err != nil {
		return app.Removed{}, err
	}
	v, err := f.get(name)
	if err != nil {
		return app.Removed{}, err
	}
	delete(f.apps, name)
	f.tell(app.Event{Type: app.Life, App: name, Message: "App removed"})
	removed := app.Removed{Containers: len(v.Replicas), Volumes: 1}
	if keepData {
		removed.Volumes = 0
	}
	return removed, nil
}

func (f *fakeEngine) Start(_ context.Context, name string, replicas int) (app.View, error) {
	return f.edit(name, fmt.Sprintf("start %s %d", name, replicas), func(v *app.View) error {
		if replicas >= 0 {
			v.App.Replicas = replicas
		}
		v.App.Started = true
		return nil
	})
}

func (f *fakeEngine) Stop(_ context.Context, name string, force bool) (app.View, error) {
	return f.edit(name, fmt.Sprintf("stop %s force=%v", name, force), func(v *app.View) error {
		v.App.Started = false
		if force {
			v.Replicas = nil
		}
		return nil
	})
}

func (f *fakeEngine) Await(ctx context.Context, name string, done func(app.View) bool) (app.View, error) {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		v, err := f.App(name)
		if err != nil || done(v) {
			return v, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v, errs.E(errs.Unavailable, "app %q: %w", name, context.Cause(ctx))
		}
	}
}

func (f *fakeEngine) Scale(_ context.Context, name string, replicas int, reason string, person bool) (from int, err error) {
	_, err = f.edit(name, fmt.Sprintf("scale %s %d", name, replicas), func(v *app.View) error {
		from = v.App.Replicas
		if replicas > v.App.Scaling.Max {
			return errs.E(errs.Conflict, "app %q may have at most %d replicas: %w", name, v.App.Scaling.Max, app.ErrLimits)
		}
		v.App.Replicas = replicas
		v.App.Scaled = app.ScaleEvent{At: day.Add(75 * time.Minute), From: from, To: replicas, Reason: reason, Person: person}
		f.tell(app.Event{Type: app.Rescale, App: name, Message: fmt.Sprintf("Scaled from %d to %d replicas", from, replicas), Details: map[string]any{
			"previous_replicas": from, "new_replicas": replicas,
		}})
		return nil
	})
	return from, err
}

func (f *fakeEngine) SetScaling(_ context.Context, name string, s app.Scaling) (old app.Scaling, err error) {
	_, err = f.edit(name, "policy "+name, func(v *app.View) error {
		if s.Min > s.Max {
			return app.Problems{{Path: "scaling.minReplicas", Text: fmt.Sprintf("is %d, and maxReplicas %d", s.Min, s.Max)}}
		}
		old = v.App.Scaling
		v.App.Scaling = s
		return nil
	})
	return old, err
}

func (f *fakeEngine) Simulate(name string, s app.Sample) (app.Decision, error) {
	v, err := f.App(name)
	if err != nil {
		return app.Decision{}, err
	}
	d := app.Decision{Replicas: v.App.Replicas, Reason: "all is well", Factors: map[string]float64{"cpu": s.CPU / 70}}
	if s.CPU > 70 {
		d.Changed, d.Replicas, d.Reason = true, d.Replicas+1, "cpu is high"
	}
	return d, nil
}

func (f *fakeEngine) Rollback(_ context.Context, name string, revision int, may func(*app.Spec) error) (app.View, error) {
	return f.edit(name, fmt.Sprintf("rollback %s %d", name, revision), func(v *app.View) error {
		if v.App.Revision(max(1, revision)) == nil {
			return errs.E(errs.NotFound, "app %q has no revision %d", name, revision)
		}
		if err := may(&v.App.Revision(max(1, revision)).Spec); err != nil {
			return err
		}
		v.App.Rollout.Target = max(1, revision)
		return nil
	})
}

func (f *fakeEngine) PauseRollout(_ context.Context, name string) (app.View, error) {
	return f.edit(name, "pause "+name, func(v *app.View) error { v.App.Rollout.Paused = true; return nil })
}

func (f *fakeEngine) ResumeRollout(_ context.Context, name string) (app.View, error) {
	return f.edit(name, "resume "+name, func(v *app.View) error { v.App.Rollout.Paused = false; return nil })
}

func (f *fakeEngine) Promote(_ context.Context, name string) (app.View, error) {
	return f.edit(name, "promote "+name, func(*app.View) error { return errs.E(errs.Conflict, "app %q has no canaries", name) })
}

func (f *fakeEngine) Explain(name string) (app.Explanation, error) {
	return app.Explanation{App: name, Hosts: []app.WhyNot{{Host: "h1", Name: "edge-1", Score: 0.75}, {Host: "h2", Name: "edge-2", Reason: "it is lost"}}}, nil
}

func (f *fakeEngine) Rebalance(_ context.Context, name string, preview bool) ([]app.Move, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != "" {
		if _, err := f.get(name); err != nil {
			return nil, err
		}
	}
	return []app.Move{{App: "my-app", Replica: "launch1", From: "h1", To: "h2", Reason: "h1 is full"}}, f.note("rebalance %q preview=%v", name, preview)
}

func (f *fakeEngine) History(name string, points int, interval time.Duration) ([]app.Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []app.Sample{
		{At: day, CPU: 42.1, Memory: 58.9, RPS: 115.2, P95: 92 * time.Millisecond, Ready: 3, Total: 3},
		{At: day.Add(interval), CPU: 43.1},
	}[max(0, 2-points):], f.note("history %s %d %v", name, points, interval)
}

func (f *fakeEngine) Traffic() map[string]app.Traffic {
	return map[string]app.Traffic{"my-app": {
		Requests: 10, Errors: 2, Active: 3, Latency: allAt(20 * time.Millisecond),
		Answers: [5]uint64{1: 7, 4: 1}, Retries: 4, Ejections: 5,
		Replicas: map[string]app.ReplicaTraffic{"launch1": {Requests: 7, Errors: 1, Latency: allAt(20 * time.Millisecond), Ejected: true}},
	}}
}

// allAt are ten answers that took as long.
type allAt time.Duration

func (a allAt) Since(app.Latencies) app.Latencies { return a }
func (a allAt) Quantile(float64) time.Duration    { return time.Duration(a) }
func (a allAt) Mean() time.Duration               { return time.Duration(a) }
func (a allAt) Sum() time.Duration                { return 10 * time.Duration(a) }
func (a allAt) Count() uint64                     { return 10 }
func (a allAt) Below(d time.Duration) uint64 {
	if d < time.Duration(a) {
		return 0
	}
	return 10
}

func (f *fakeEngine) CheckHealth(_ context.Context, name string) (app.View, error) {
	return f.edit(name, "check "+name, func(*app.View) error { return nil })
}

func (f *fakeEngine) Events(_ context.Context, q app.EventQuery) ([]app.Event, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []app.Event
	for _, e := range f.events {
		if (q.App == "" || e.App == q.App) && (q.Type == "" || e.Type == q.Type) && !e.Time.Before(q.Since) {
			list = append(list, e)
		}
	}
	slices.Reverse(list)
	err := f.fail
	f.fail = nil
	return list[:min(len(list), q.Limit)], len(list), err
}

func (f *fakeEngine) Subscribe() (<-chan *app.Event, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan *app.Event, 4)
	f.watchers[ch] = true
	return ch, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, ch)
	}
}

func (f *fakeEngine) Hosts() []app.HostView {
	const gib = 1 << 30
	h := app.Host{
		ID: "h1", Name: "edge-1", Facts: app.Facts{MilliCPU: 4000, Memory: 32 * gib},
		Report: app.Report{CPU: 35.2, MemoryUsed: 12.5 * gib, DiskTotal: 100 * gib, DiskFree: 54.75 * gib, Total: 18},
	}
	lost := app.Host{ID: "h2", Facts: app.Facts{MilliCPU: 4000, Memory: 32 * gib}}
	return []app.HostView{{Host: h, Liveness: app.Alive}, {Host: lost, Liveness: app.Lost}}
}

func (f *fakeEngine) Totals() app.Totals {
	t := app.Totals{
		Apps: map[app.Status]int{}, Hosts: map[app.Liveness]int{app.Alive: 1, app.Lost: 1}, RPS: 342.1, Requests: 1587432, ErrorPct: 0.12, MeanMillis: 95,
	}
	for _, v := range f.Apps() {
		t.Apps[v.Status]++
		t.Replicas += v.Current
	}
	return t
}

func (f *fakeEngine) Config() app.Settings {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settings
}

func (f *fakeEngine) SetConfig(_ context.Context, s app.Settings) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settings = s
	return f.note("configure")
}

// fakeLogs are the lines of each replica, by its name. Followers get more as it comes.
type fakeLogs struct {
	mu      sync.Mutex // guards all
	lines   map[string][]LogLine
	broken  map[string]error
	changed chan struct{}
	queries []string
}

func newLogs() *fakeLogs {
	return &fakeLogs{lines: map[string][]LogLine{}, broken: map[string]error{}, changed: make(chan struct{})}
}

// write adds a line, so many seconds after the day's begin.
func (f *fakeLogs) write(name string, at int, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines[name] = append(f.lines[name], LogLine{Time: day.Add(time.Duration(at) * time.Second), Stream: "stdout", Text: text})
	close(f.changed)
	f.changed = make(chan struct{})
}

// fail has the log of a replica be out of reach, or not any more.
func (f *fakeLogs) fail(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[name] = err
	close(f.changed)
	f.changed = make(chan struct{})
}

// asked is how often logs were asked for.
func (f *fakeLogs) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queries)
}

func (f *fakeLogs) read(ctx context.Context, r app.Replica, q LogQuery, each func(LogLine) error) error {
	name := r.Name()
	f.mu.Lock()
	f.queries = append(f.queries, fmt.Sprintf("%s tail=%d follow=%v", name, q.Tail, q.Follow))
	lines, changed, err := f.lines[name], f.changed, f.broken[name]
	f.mu.Unlock()
	if err != nil {
		return err
	}
	next := len(lines)
	lines = slices.DeleteFunc(slices.Clone(lines), func(l LogLine) bool { return l.Time.Before(q.Since) })
	if q.Tail < 0 {
		lines = nil
	} else if q.Tail > 0 {
		lines = lines[max(0, len(lines)-q.Tail):]
	}
	for {
		for _, l := range lines {
			if err := each(l); err != nil {
				return err
			}
		}
		if !q.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
		lines, changed, err = f.lines[name][next:], f.changed, f.broken[name]
		next = len(f.lines[name])
		f.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// fixture is a server before a fake engine.
type fixture struct {
	engine *fakeEngine
	logs   *fakeLogs
	d      *Dialect
	server *api.Server
}

// serve makes a fixture; change may alter the configuration.
func serve(t *testing.T, change func(*Config)) fixture {
	t.Helper()
	f := fixture{engine: newFake(), logs: newLogs()}
	cfg := Config{
		Engine: f.engine, Logs: f.logs.read, Node: "controller-1", Hostname: "controller-1.local", Balanced: func() int { return 5 },
		Listen: Listen{Host: "0.0.0.0", Port: 8000, Workers: 4}, Database: Database{Host: "localhost", Name: "controller.db", PoolSize: 10},
		Limits: Limits{PerHour: 1_000_000, PerMinute: -1},
		Events: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a stream of events")) }),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if f.d, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	sys, err := system.New(system.Config{
		Health:     func() system.Health { return system.Health{Ready: true, Node: "controller-1"} },
		Containers: func() map[string]int { return nil },
		Controller: func(ctx context.Context) any { return f.d.Health(ctx) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.server, err = api.New(api.Config{Dialects: []api.Dialect{f.d, sys}}); err != nil {
		t.Fatal(err)
	}
	return f
}

// ask sends one request; a body of "" is none.
func (f fixture) ask(method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if body != "" {
		r = httptest.NewRequest(method, path, strings.NewReader(body))
	}
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	return w
}

// nginx is the document's registration.
const nginxApp = `{"apiVersion":"v1","kind":"App","metadata":{"name":"my-app","labels":{"app":"my-app","version":"v1"}},
"spec":{"type":"http","image":"nginx:alpine","ports":[{"containerPort":80,"protocol":"HTTP"}]}}`

// running is a fixture where my-app runs with so many replicas.
func running(t *testing.T, replicas int) fixture {
	t.Helper()
	f := serve(t, nil)
	if w := f.ask("POST", "/api/v1/apps/register", nginxApp); w.Code != http.StatusCreated {
		t.Fatalf("register = %d %s", w.Code, w.Body)
	}
	if w := f.ask("POST", "/api/v1/apps/my-app/start", fmt.Sprintf(`{"replicas":%d}`, replicas)); w.Code != http.StatusOK {
		t.Fatalf("start = %d %s", w.Code, w.Body)
	}
	f.engine.done()
	return f
}

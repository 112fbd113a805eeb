package hosts

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

const (
	joinToken = "join-me"
	launch1   = "k7qd5m2hzv3x9w1c8r6t4b0n2y"
)

// fakeEngine keeps hosts in memory and notes what was done to it.
type fakeEngine struct {
	mu       sync.Mutex // guards all
	hosts    map[string]app.Host
	tokens   map[string]string // of hosts, to their ids
	orders   map[string]app.Orders
	replicas map[string]app.Replica
	specs    map[string]app.Spec
	did      []string
	fail     error // of the next call that may fail
	logs     func(w io.Writer) error
}

// newFake has a host, node1, with token "token1" and one replica of the app web on it.
func newFake() *fakeEngine {
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	return &fakeEngine{
		hosts: map[string]app.Host{"node1": {
			ID: "node1", Name: "edge-7", Addr: "10.0.0.7", Mode: app.Continue, Registered: at, Changed: at, Seen: at,
			Facts:  app.Facts{MilliCPU: 4000, Memory: 8 << 30, GPUs: []app.GPU{{Model: "T4"}}},
			Report: app.Report{At: at, Boot: "b1", Seq: 4, CPU: 25, MemoryFree: 6 << 30, GPUsFree: 1, Containers: []app.Container{{Launch: launch1, Name: "web-1-k7qd", State: "running"}}},
		}},
		tokens:   map[string]string{"token1": "node1"},
		orders:   map[string]app.Orders{},
		replicas: map[string]app.Replica{launch1: {ID: launch1, App: "web", Index: 1, Revision: 2, Host: "node1", Created: at, Started: at, Phase: app.Running}},
		specs:    map[string]app.Spec{"web": {Name: "web", Kind: app.Service, Container: buoy.CreateRequest{Flist: "docker.io/library/nginx:1.27"}}},
	}
}

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

func (f *fakeEngine) RegisterHost(_ context.Context, h app.Host, token string) (app.Host, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.ID = cmp.Or(h.ID, "made1")
	h.Mode, h.Registered, h.Seen = app.Continue, time.Now(), time.Now()
	if old, ok := f.hosts[h.ID]; ok {
		h.Mode, h.Registered, h.Report, h.Seen = old.Mode, old.Registered, old.Report, old.Seen
	}
	h.Changed = time.Now()
	if err := f.note("register %s %s %s", h.ID, h.Name, h.Addr); err != nil {
		return h, err
	}
	for t, id := range f.tokens {
		if id == h.ID {
			delete(f.tokens, t)
		}
	}
	f.hosts[h.ID], f.tokens[token] = h, h.ID
	return h, nil
}

func (f *fakeEngine) HostByToken(token string) (app.Host, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.tokens[token]
	return f.hosts[id], ok
}

func (f *fakeEngine) Report(_ context.Context, id string, r app.Report) (app.Orders, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.note("report %s %d containers", id, len(r.Containers)); err != nil {
		return app.Orders{}, err
	}
	h := f.hosts[id]
	r.At = time.Now()
	h.Report, h.Seen = r, r.At
	f.hosts[id] = h
	o := f.orders[id]
	o.Mode = h.Mode
	return o, nil
}

func (f *fakeEngine) Orders(id string) (app.Orders, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.orders[id]
	o.Mode = f.hosts[id].Mode
	return o, nil
}

func (f *fakeEngine) Host(id string) (app.HostView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[id]
	if !ok {
		return app.HostView{}, errs.E(errs.NotFound, "host %q is not known", id)
	}
	free := app.Resources{MilliCPU: h.Facts.MilliCPU, Memory: h.Facts.Memory, GPUs: len(h.Facts.GPUs)}
	return app.HostView{Host: h, Liveness: app.Alive, Replicas: 1, Free: free}, nil
}

func (f *fakeEngine) Hosts() (out []app.HostView) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hosts {
		out = append(out, app.HostView{Host: h, Liveness: app.Alive, Replicas: 1})
	}
	slices.SortFunc(out, func(a, b app.HostView) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (f *fakeEngine) SetHostMode(_ context.Context, id string, m app.HostMode, reason, detail string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hosts[id]
	if !ok {
		return errs.E(errs.NotFound, "host %q is not known", id)
	}
	if h.Mode == app.Terminate && (m != h.Mode || reason != h.Reason || detail != h.Detail) {
		return errs.E(errs.Conflict, "host %q is terminated; it has to register again", id)
	}
	h.Mode, h.Reason, h.Detail = m, reason, detail
	f.hosts[id] = h
	return f.note("%s %s %s %q", m, id, reason, detail)
}

func (f *fakeEngine) Alert(_ context.Context, id, kind string, value float64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.note("alert %s %s %v", id, kind, value)
}

func (f *fakeEngine) ReplicaByLaunch(id string) (app.Replica, app.Spec, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.replicas[id]
	if !ok {
		return app.Replica{}, app.Spec{}, errs.E(errs.NotFound, "there is no launch %q", id)
	}
	return r, f.specs[r.App], nil
}

func (f *fakeEngine) App(name string) (app.View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.specs[name]
	if !ok {
		return app.View{}, errs.E(errs.NotFound, "app %q does not exist", name)
	}
	v := app.View{App: app.App{Name: s.Name}}
	for _, r := range f.replicas {
		if r.App == name {
			v.Replicas = append(v.Replicas, r)
		}
	}
	return v, nil
}

func (f *fakeEngine) change(id string, how func(r *app.Replica)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.replicas[id]
	how(&r)
	f.replicas[id] = r
}

// Serve is the tunnel.
func (f *fakeEngine) Serve(w http.ResponseWriter, _ *http.Request, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.note("tunnel %s", id)
	w.WriteHeader(http.StatusSwitchingProtocols)
}

func (f *fakeEngine) log(_ context.Context, host, container string, w io.Writer) error {
	f.mu.Lock()
	err := f.note("logs %s %s", host, container)
	f.mu.Unlock()
	if err != nil || f.logs == nil {
		return err
	}
	return f.logs(w)
}

// server makes a server of the dialect and a fake engine.
func server(t testing.TB, change ...func(*Config)) (*fakeEngine, *api.Server) {
	t.Helper()
	f := newFake()
	cfg := Config{Engine: f, Tunnels: f, Join: func(token string) bool { return token == joinToken }, Logs: f.log, URL: "http://controller:8080"}
	for _, c := range change {
		c(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{Dialects: []api.Dialect{d}})
	if err != nil {
		t.Fatal(err)
	}
	return f, s
}

// ask sends a request, by default to the unix socket, and as JSON. Headers are
// "Key: value".
func ask(s http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := local(httptest.NewRequest(method, path, strings.NewReader(body)))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		key, value, _ := strings.Cut(h, ": ")
		switch key {
		case "Remote": // by TCP, from there
			r.RemoteAddr = value
			r.Host = "127.0.0.1"
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 168, 1, 9), Port: 443}))
		default:
			r.Header.Set(key, value)
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// local makes r one that came by the unix socket.
func local(r *http.Request) *http.Request {
	r.RemoteAddr = "@"
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.UnixAddr{Net: "unix"}))
}

func token(t string) string { return "Authorization: Bearer " + t }

// into reads an answer that must have that status.
func into[T any](t testing.TB, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var v T
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return v
}

// join registers a host and returns its token.
func join(t testing.TB, s http.Handler, id string) string {
	t.Helper()
	got := into[hostapi.RegisterResponse](t, ask(s, "POST", "/host/register", `{"info":{"hostID":"`+id+`","ips":[],"numCPU":2}}`, token(joinToken)), 201)
	return got.HostToken
}

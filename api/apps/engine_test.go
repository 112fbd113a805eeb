package apps

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/transcript"
	"github.com/buoy-edge/buoy/store/sqlite"
)

// noBalancer has no requests.
type noBalancer struct{}

func (noBalancer) Update([]app.Route) error        { return nil }
func (noBalancer) Check(string, *app.Spec) error   { return nil }
func (noBalancer) Traffic() map[string]app.Traffic { return nil }

// obey is a host that does at once what it is told.
func obey(ctx context.Context, t *testing.T, e *app.Engine, id string, poke <-chan struct{}) {
	have := map[string]app.Container{}
	for seq := uint64(1); ; seq++ {
		rep := app.Report{Boot: "b", Seq: seq, Total: len(have)}
		for _, c := range have {
			rep.Containers = append(rep.Containers, c)
		}
		o, err := e.Report(ctx, id, rep)
		if err != nil {
			t.Error(err)
			return
		}
		for _, l := range o.Launch {
			have[l.Replica.ID] = app.Container{
				Launch: l.Replica.ID, App: l.Replica.App, Name: l.Replica.Name(), ID: "c" + l.Replica.ID, State: "running", Health: "healthy",
				Address: "172.20.0.5", Started: time.Now(), Digest: "sha256:1", Response: 45 * time.Millisecond, Checked: time.Now(),
				Ports: map[uint16]netip.AddrPort{80: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", 20000+seq))},
			}
		}
		for _, s := range o.Stop {
			delete(have, s.Launch)
		}
		wait := 10 * time.Second
		if len(o.Launch)+len(o.Stop) > 0 {
			wait = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-poke:
		case <-time.After(wait):
		}
	}
}

// TestSeedOnEngine plays the seed document's requests against the engine, its
// store and two hosts that obey.
func TestSeedOnEngine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "controller.db")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		store, err := sqlite.Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		pokes := map[string]chan struct{}{"h1": make(chan struct{}, 1), "h2": make(chan struct{}, 1)}
		e, err := app.New(app.Config{Store: store, Balancer: noBalancer{}, Nudge: func(id string) {
			select {
			case pokes[id] <- struct{}{}:
			default:
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Load(ctx); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := e.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		for id, poke := range pokes {
			h := app.Host{ID: id, Name: id, Addr: "127.0.0.1", Facts: app.Facts{MilliCPU: 8000, Memory: 8 << 30}}
			if _, err := e.RegisterHost(ctx, h, "token-"+id); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { obey(ctx, t, e, id, poke) })
		}
		defer func() {
			stop()
			wg.Wait()
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()

		f := serve(t, func(c *Config) {
			c.Engine = e
			c.Logs = func(_ context.Context, _ app.Replica, _ LogQuery, f func(LogLine) error) error {
				return f(LogLine{Time: time.Now(), Stream: "stdout", Text: "a line"})
			}
		})
		steps, err := transcript.Read("testdata/seed002.txtar", "since=2024-", "since=1999-") // the bubble's clock begins in 2000
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range steps {
			if step.Header.Get("Note-Needs") == "traffic" {
				time.Sleep(11 * time.Minute)
			}
			got := f.ask(step.Method, step.Path, step.Body)
			if err := step.Check(got.Code, got.Header(), got.Body.Bytes()); err != nil {
				t.Errorf("%s: %v", step.Name, err)
			}
		}
		crowd(t, f)
	})
}

// crowd asks for more than fits, and then for less again.
func crowd(t *testing.T, f fixture) {
	big := strings.Replace(nginxApp, `"ports"`, `"resources":{"memory":"3Gi"},"ports"`, 1)
	for _, tt := range []struct {
		path, body string
		status     int
		answer     string
	}{
		{"register", big, 201, `"status":"registered"`},
		{"my-app/start", `{"replicas":2,"wait":true}`, 200, `"replicas":2,"status":"running"`},
		{"my-app/scale", `{"replicas":9}`, 503, `"code":"INSUFFICIENT_RESOURCES"`},
		{"my-app/scale", `{"replicas":8,"wait":true}`, 503, `"hosts":[{"host":"h`},
		{"my-app/start", ``, 503, `replicas of \"my-app\": host h`},
		{"my-app/scale", `{"replicas":1,"wait":true}`, 200, `"current_replicas":1,`},
	} {
		w := f.ask("POST", "/api/v1/apps/"+tt.path, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
			t.Errorf("%s %s = %d %s, want %d %s", tt.path, tt.body, w.Code, w.Body, tt.status, tt.answer)
		}
	}
}

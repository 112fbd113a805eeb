package services

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// hasty has something happen before a change.
type hasty struct {
	Engine
	before func() error
}

func (h *hasty) hurry() error {
	f := h.before
	h.before = nil
	if f == nil {
		return nil
	}
	return f()
}

func (h *hasty) Create(ctx context.Context, spec app.Spec, source json.RawMessage, origin string) (app.App, error) {
	if err := h.hurry(); err != nil {
		return app.App{}, err
	}
	return h.Engine.Create(ctx, spec, source, origin)
}

func (h *hasty) Update(ctx context.Context, spec app.Spec, source json.RawMessage) (app.View, error) {
	if err := h.hurry(); err != nil {
		return app.View{}, err
	}
	return h.Engine.Update(ctx, spec, source)
}

func (h *hasty) Await(ctx context.Context, name string, done func(app.View) bool) (app.View, error) {
	if err := h.hurry(); err != nil {
		return app.View{}, err
	}
	return h.Engine.Await(ctx, name, done)
}

// TestScale does so synchronously: what is answered is so.
func TestScale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1", "h2")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1","ports":[80]}`)
		s.must(t, "POST", "/service", `{"name":"other","image":"nginx:1"}`)
		s.must(t, "POST", "/service/other/scale", `{"number":1}`) // has the same image and is not counted
		for _, tt := range []struct{ number, status string }{
			{`3`, `3`}, {`"3"`, `3`}, {`3.7`, `3`}, {`1`, `1`}, {`" +5 "`, `5`}, {`-2`, `0`}, {`2e0`, `2`}, {`0`, `0`}, {`"-7"`, `0`}, {`-0.5`, `0`}, {`4`, `4`},
		} {
			s.must(t, "POST", "/service/web/scale", `{"compute":"local","number":`+tt.number+`}`)
			want := `{"running_resources":` + tt.status + "}\n"
			if w := s.ask("GET", "/service/web/status", ""); w.Body.String() != want {
				t.Errorf("after %s: %s, want %s", tt.number, w.Body, want)
			}
		}
		if w := s.ask("GET", "/service/other/status", ""); w.Body.String() != `{"running_resources":1}`+"\n" {
			t.Errorf("the other one: %s", w.Body)
		}
	})
}

// TestScaleWhileScaling waits its turn.
func TestScaleWhileScaling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
		s.must(t, "POST", "/service/web/scale", `{"number":1}`)
		if _, err := s.Scale(t.Context(), "web", 4, "somebody else", true); err != nil {
			t.Fatal(err)
		}
		s.must(t, "POST", "/service/web/scale", `{"number":2}`)
		if v, err := s.App("web"); err != nil || v.Current != 2 || v.App.Replicas != 2 {
			t.Errorf("%d of %d run, %v", v.Current, v.App.Replicas, err)
		}
	})
}

// TestCrowded says why hosts take no more, and what is there runs.
func TestCrowded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1", "h2")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1","ports":["80:80"]}`)
		began := time.Now()
		w := s.ask("POST", "/service/web/scale", `{"number":3}`)
		for _, want := range []string{"2 of 3 containers of", "host h1: port 80/tcp", "host h2: port 80/tcp"} {
			if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%d %s, want %s", w.Code, w.Body, want)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("that was known after %s", took)
		}
		if w := s.ask("GET", "/service/web/status", ""); w.Body.String() != `{"running_resources":2}`+"\n" {
			t.Errorf("status %s", w.Body)
		}
		s.must(t, "POST", "/service/web/scale", `{"number":1}`)
		empty := newSite(t)
		empty.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
		if w := empty.ask("POST", "/service/web/scale", `{"number":1}`); w.Code != 503 || !strings.Contains(w.Body.String(), "there is no host") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestSlow ends after a minute and says what is not there.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
		s.Hosts[0].Refuse("there is no program nginx")
		began := time.Now()
		w := s.ask("POST", "/service/web/scale", `{"number":2}`)
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "0 of 2 containers") || !strings.Contains(w.Body.String(), "no program nginx") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("that took %s", took)
		}
		s.Hosts[0].Refuse("")
		time.Sleep(10 * time.Minute) // of the bubble: attempts become rare
		s.must(t, "POST", "/service/web/scale", `{"number":2}`)
		s.Hosts[0].Cut()
		if w := s.ask("POST", "/service/web/scale", `{"number":0}`); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "2 containers of \\\"web\\\" still run") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestOthers decide otherwise while a client waits.
func TestOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
		e := &hasty{Engine: s.Engine}
		d, err := New(Config{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		e.before = func() error { _, err := s.Stop(t.Context(), "web", false); return err }
		if err := d.scaleTo(t.Context(), "web", 3); err == nil || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("scale to 3, stopped meanwhile: %v", err)
		}
		e.before = func() error { _, err := s.Start(t.Context(), "web", 1); return err }
		if err := d.scaleTo(t.Context(), "web", 0); err == nil || !strings.Contains(err.Error(), "somebody else") {
			t.Errorf("scale to 0, started meanwhile: %v", err)
		}
	})
}

// TestLostHost is not counted once its containers have been given up.
func TestLostHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1", "h2")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
		s.must(t, "POST", "/service/web/scale", `{"number":2}`)
		s.Hosts[0].Cut()
		time.Sleep(10 * time.Minute) // of the bubble
		if w := s.ask("GET", "/service/web/status", ""); w.Body.String() != `{"running_resources":2}`+"\n" {
			t.Errorf("status %s", w.Body)
		}
		s.must(t, "POST", "/service/web/scale", `{"number":2}`)
	})
}

// TestKinds whose replicas are not counted cannot be scaled.
func TestKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		spec, err := fresh("agent")
		if err != nil {
			t.Fatal(err)
		}
		spec.Kind, spec.Container.Flist, spec.Rollout.MaxUnavailable = app.Daemon, "agent:1", 1
		if _, err := s.Apply(t.Context(), spec, nil, "apps"); err != nil {
			t.Fatal(err)
		}
		if w := s.ask("POST", "/service/agent/scale", `{"number":1}`); w.Code != 409 || !strings.Contains(w.Body.String(), "is a daemon") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		s.must(t, "PUT", "/service/agent", `{"image":"agent:2"}`)
		if v, err := s.App("agent"); err != nil || v.App.Spec().Kind != app.Daemon {
			t.Errorf("it is a %s, %v", v.App.Spec().Kind, err)
		}
	})
}

// TestGone has a client go away while it waits, and the server end.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
		s.Hosts[0].Refuse("slow")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := httptest.NewRequest("POST", "/service/web/scale", strings.NewReader(`{"number":1}`)).WithContext(ctx)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, r)
		if w.Body.Len() != 0 {
			t.Errorf("nobody is told %s", w.Body)
		}
	})
}

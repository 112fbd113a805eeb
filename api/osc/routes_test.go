package osc

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/app"
)

const (
	typeJSON = "Content-Type: application/json"
	forShop  = headerName + ": shop"
	one      = `{"name":"shop","compute":{"containers":[{"name":"web","image":"web:1"}]}}`
	two      = `{"name":"shop","compute":{"containers":[{"name":"web","image":"web:1"},{"name":"db","image":"db:1"}]}}`
)

// web is an app of another dialect.
func web(t *testing.T, s *site) app.Spec {
	t.Helper()
	_, all, err := parts([]byte(`{"name":"web","compute":{"containers":[{"name":"x","image":"nginx:1"}]}}`), "")
	if err != nil {
		t.Fatal(err)
	}
	spec := all[0].spec
	spec.Annotations = nil
	if _, err := s.Create(t.Context(), spec, json.RawMessage(`{"kind":"App"}`), "apps"); err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestRoutes has a line for what each route says to good and to bad input. The
// service shop is registered before each, and so is the app web of another dialect.
func TestRoutes(t *testing.T) {
	big := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, tt := range []struct {
		method, path, body string
		headers            []string
		status             int
		answer             string // part of the body; "": it is empty
	}{
		{"GET", "/osc/health", "", nil, 200, "ready"},
		{"POST", "/osc/health", "", nil, 405, "takes GET"},
		{"GET", "/osc/services", "", nil, 200, "shop\nweb\n"},
		{"GET", "/osc/services", "", []string{"Accept: text/html, */*"}, 200, "shop\nweb\n"},
		{"GET", "/osc/services", "", []string{"Accept: application/json"}, 200, `["shop","web"]`},
		{"GET", "/osc/nothing", "", nil, 404, "there is nothing"},

		{"POST", "/osc/register", strings.Replace(one, "shop", "other", 1), []string{typeJSON}, 200, ""},
		{"POST", "/osc/register", strings.Replace(one, "shop", "other", 1), nil, 200, ""},
		{"POST", "/osc/register", one, []string{typeJSON}, 200, ""},
		{"POST", "/osc/register", one, []string{"Content-Type: text/plain"}, 415, `must be application/json`},
		{"POST", "/osc/register", "", []string{typeJSON}, 400, `"problems":[{"path":"the descriptor","message":"is empty`},
		{"POST", "/osc/register", `{"name":"x","compute":{"vm":[{}]},"flavour":1}`, []string{typeJSON}, 400, `{"path":"flavour","message":"is not known here"}`},
		{"POST", "/osc/register", `{"name":"x","compute":{"vm":[{}]}}`, []string{typeJSON}, 400, `{"error":"compute.vm asks for virtual machines`},
		{"POST", "/osc/register", big, []string{typeJSON}, 413, "larger than 1048576 bytes"},
		{"POST", "/osc/register", strings.Replace(one, "shop", "web", 1), []string{typeJSON}, 409, `app \"web\" exists already and was not registered here`},
		{"POST", "/osc/register", `{"name":"we","compute":{"containers":[{"name":"b","image":"x"},{"name":"c","image":"x"}]}}`, []string{typeJSON}, 200, ""},
		{"GET", "/osc/register/shop", "", nil, 200, two + "\n"},
		{"GET", "/osc/register/web", "", nil, 404, "has no descriptor"},
		{"GET", "/osc/register/none", "", nil, 404, `there is no service \"none\"`},

		{"POST", "/osc/register/fetch", "", nil, 400, "header ocl is missing"},
		{"POST", "/osc/register/fetch", "", []string{"ocl: http://example.org/one.json"}, 200, ""},
		{"POST", "/osc/register/fetch", "ignored", []string{"ocl: http://example.org/one.json", "Content-Type: text/plain"}, 200, ""},
		{"POST", "/osc/register/fetch", "", []string{"ocl: http://example.org/page.html"}, 400, "the descriptor is no JSON"},
		{"POST", "/osc/register/fetch", "", []string{"ocl: http://example.org/none"}, 502, "fetch http://example.org/none: the answer is 404 Not Found"},
		{"POST", "/osc/register/fetch", "", []string{"ocl: file:///etc/passwd"}, 400, "must begin with http:// or https://"},

		{"POST", "/osc/start", "", []string{forShop}, 200, ""},
		{"POST", "/osc/start", "", []string{"MANAGEDSERVICENAME: shop"}, 200, ""},
		{"POST", "/osc/start", "anything", []string{forShop, "Content-Type: text/plain"}, 200, ""},
		{"POST", "/osc/start/shop", "", nil, 200, ""},
		{"POST", "/osc/start/web", "", nil, 200, ""},
		{"POST", "/osc/start", "", nil, 400, "header managedServiceName is missing"},
		{"POST", "/osc/start", "", []string{"managedServiceName: none"}, 404, `there is no service \"none\"`},
		{"POST", "/osc/start/shop-db", "", nil, 404, `there is no service \"shop-db\"`}, // a part of one
		{"POST", "/osc/start/a%2Fb", "", nil, 404, `there is no service \"a/b\"`},
		{"POST", "/osc/stop", "", []string{forShop}, 200, ""},
		{"POST", "/osc/stop/shop", "", nil, 200, ""},
		{"POST", "/osc/stop", "", nil, 400, "header managedServiceName is missing"},
		{"POST", "/osc/stop/none", "", nil, 404, `there is no service`},

		{"POST", "/osc/update", one, []string{forShop, typeJSON}, 200, ""},
		{"PUT", "/osc/update", one, []string{forShop, typeJSON}, 200, ""},
		{"POST", "/osc/update/shop", one, []string{typeJSON}, 200, ""},
		{"PUT", "/osc/update/shop", strings.Replace(one, "shop", "of-another-name", 1), []string{typeJSON}, 200, ""},
		{"POST", "/osc/update/web", one, []string{typeJSON}, 200, ""},
		{"POST", "/osc/update", one, []string{typeJSON}, 400, "header managedServiceName is missing"},
		{"POST", "/osc/update/none", one, []string{typeJSON}, 404, "there is no service"},
		{"POST", "/osc/update/none", "{", []string{typeJSON}, 404, "there is no service"},
		{"POST", "/osc/update/shop", "{", []string{typeJSON}, 400, "the descriptor is no JSON"},
		{"POST", "/osc/update/shop", one, []string{"Content-Type: text/yaml"}, 415, "must be application/json"},
		{"POST", "/osc/update/fetch", "", []string{forShop, "ocl: http://example.org/one.json"}, 200, ""},
		{"PUT", "/osc/update/fetch", "", []string{forShop, "ocl: http://example.org/one.json"}, 200, ""},
		{"POST", "/osc/update/fetch/shop", "", []string{"ocl: http://example.org/one.json"}, 200, ""},
		{"POST", "/osc/update/fetch", "", []string{"ocl: http://example.org/one.json"}, 400, "header managedServiceName is missing"},
		{"POST", "/osc/update/fetch", "", []string{forShop}, 400, "header ocl is missing"},
		{"POST", "/osc/update/fetch/none", "", []string{"ocl: http://example.org/none"}, 404, "there is no service"},

		{"POST", "/osc/unregister/shop", "", nil, 200, ""},
		{"POST", "/osc/unregister", "", []string{forShop}, 200, ""},
		{"POST", "/osc/unregister", "", nil, 400, "header managedServiceName is missing"},
		{"POST", "/osc/unregister/none", "", nil, 404, "there is no service"},
		{"GET", "/osc/services/state/shop", "", nil, 200, `[{"state":"inactive","resources":[]}]`},
		{"GET", "/osc/services/state/none", "", nil, 404, "there is no service"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, "h1")
			s.reach(pages())
			s.must(t, "POST", "/osc/register", two, typeJSON)
			web(t, s)
			w := s.ask(tt.method, tt.path, tt.body, tt.headers...)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) || (tt.answer == "") != (w.Body.Len() == 0) {
				t.Errorf("%s %s %v %.80s = %d %s, want %d %s", tt.method, tt.path, tt.headers, tt.body, w.Code, w.Body, tt.status, tt.answer)
			}
		})
	}
}

// TestState shows what runs.
func TestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/osc/register", two, typeJSON)
		s.must(t, "POST", "/osc/start/shop", "")
		var got []stateObject
		if err := json.Unmarshal(s.ask("GET", "/osc/services/state/shop", "").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].State != "active" || len(got[0].Resources) != 2 {
			t.Fatalf("%+v", got)
		}
		r := got[0].Resources[1]
		r.ID = ""
		if want := (resourceObject{Name: "shop-web-1", Type: "container", State: "active", Properties: resourceProperties{App: "shop-web", Image: "web:1", Host: "h1"}}); r != want {
			t.Errorf("%+v, want %+v", r, want)
		}
	})
}

// TestCannotRun says why a service does not run, and has it go on.
func TestCannotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/osc/register", `{"name":"big","compute":{"containers":[{"name":"x","image":"x:1","memory":"100Gi"}]}}`, typeJSON)
		if w := s.ask("POST", "/osc/start/big", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `1 of 1 replicas of \"big\" fit nowhere`) || !strings.Contains(w.Body.String(), "host h1: memory") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		s.must(t, "POST", "/osc/stop/big", "")
		s.must(t, "POST", "/osc/register", one, typeJSON)
		s.Hosts[0].Refuse("there is no program x")
		began := time.Now()
		if w := s.ask("POST", "/osc/start/shop", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "0 of 1 replicas") || !strings.Contains(w.Body.String(), "no program x") || time.Since(began) != time.Minute {
			t.Errorf("%d %s after %s", w.Code, w.Body, time.Since(began))
		}
		if w := s.ask("GET", "/osc/services/state/shop", ""); !strings.Contains(w.Body.String(), `"state":"error"`) && !strings.Contains(w.Body.String(), `"state":"starting"`) {
			t.Errorf("state %s", w.Body)
		}
		s.Hosts[0].Refuse("")
		time.Sleep(10 * time.Minute) // of the bubble: attempts become rare
		s.must(t, "POST", "/osc/start/shop", "")
		s.Hosts[0].Cut()
		if w := s.ask("POST", "/osc/stop/shop", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "1 replicas of \\\"shop\\\" are not gone after 1m0s") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestPath is configurable, and nothing is answered elsewhere.
func TestPath(t *testing.T) {
	for _, path := range []string{"osc", "/osc/", "/a{b}", "/", "/a b"} {
		if _, err := New(Config{Engine: &app.Engine{}, Path: path}); err == nil {
			t.Errorf("path %q is fine", path)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no engine is fine")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.serve(t, Config{Engine: s.Engine, Path: "/edge/osc"})
		if w := s.ask("GET", "/edge/osc/health", ""); w.Body.String() != "ready" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w := s.ask("GET", "/osc/health", ""); w.Code != 404 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestGone has a client go away while it waits.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/osc/register", one, typeJSON)
		s.Hosts[0].Refuse("slow")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, httptest.NewRequest("POST", "/osc/start/shop", nil).WithContext(ctx))
		if w.Body.Len() != 0 {
			t.Errorf("nobody is told %s", w.Body)
		}
	})
}

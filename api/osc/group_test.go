package osc

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// pages are what there is to fetch.
func pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /one.json", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(one)) })
	mux.HandleFunc("GET /page.html", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) })
	return mux
}

// summary is all apps: name, image, revision, whether it is started, and how
// many are wanted.
func (s *site) summary() string {
	var all []string
	for _, v := range s.Apps() {
		started := ""
		if v.App.Started {
			started = " started"
		}
		all = append(all, fmt.Sprintf("%s=%s r%d%s x%d", v.App.Name, v.App.Spec().Container.Flist, v.App.Rollout.Target, started, v.App.Replicas))
	}
	return strings.Join(all, ", ")
}

func (s *site) expect(t *testing.T, what, want string) {
	t.Helper()
	if got := s.summary(); got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// TestService has apps come, change and go with the containers of a service.
func TestService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1", "h2")
		s.must(t, "POST", "/osc/register", two, typeJSON)
		s.expect(t, "registered", "shop-db=db:1 r1 x0, shop-web=web:1 r1 x0")
		s.must(t, "POST", "/osc/start/shop", "")
		s.expect(t, "started", "shop-db=db:1 r1 started x1, shop-web=web:1 r1 started x1")
		s.must(t, "POST", "/osc/register", two, typeJSON)
		s.expect(t, "registered again", "shop-db=db:1 r1 started x1, shop-web=web:1 r1 started x1")
		if _, err := s.Scale(t.Context(), "shop-web", 3, "a person", true); err != nil {
			t.Fatal(err)
		}
		next := `{"name":"ignored","compute":{"containers":[{"name":"web","image":"web:2"},{"name":"cache","image":"cache:1","replicas":2}]}}`
		time.Sleep(time.Minute) // of the bubble
		s.must(t, "PUT", "/osc/update", next, forShop, typeJSON)
		s.expect(t, "updated", "shop-cache=cache:1 r1 started x2, shop-web=web:2 r2 started x3")
		if w := s.ask("GET", "/osc/register/shop", ""); w.Body.String() != next+"\n" {
			t.Errorf("the descriptor is %s", w.Body)
		}
		time.Sleep(time.Minute)
		s.must(t, "POST", "/osc/update/shop", one, typeJSON)
		s.expect(t, "one container", "shop=web:1 r1 started x1")
		s.must(t, "POST", "/osc/stop/shop", "")
		s.must(t, "POST", "/osc/update/shop", two, typeJSON)
		s.expect(t, "two again, stopped", "shop-db=db:1 r1 x0, shop-web=web:1 r1 x0")
		s.must(t, "POST", "/osc/unregister/shop", "")
		s.expect(t, "unregistered", "")
		if w := s.ask("GET", "/osc/services", ""); w.Code != 200 || w.Body.Len() != 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// TestPersists has descriptors and services survive a restart.
func TestPersists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/osc/register", two, typeJSON)
		s.Restart()
		s.serve(t, Config{Engine: s.Engine})
		if w := s.ask("GET", "/osc/services", ""); w.Body.String() != "shop\n" {
			t.Errorf("services %q", w.Body)
		}
		if w := s.ask("GET", "/osc/register/shop", ""); w.Body.String() != two+"\n" {
			t.Errorf("descriptor %s", w.Body)
		}
		s.must(t, "POST", "/osc/start/shop", "")
		s.expect(t, "started after all", "shop-db=db:1 r1 started x1, shop-web=web:1 r1 started x1")
	})
}

// TestAllOrNothing has the second app of a service fail in each way.
func TestAllOrNothing(t *testing.T) {
	failing := func(name string) func(app.Change) error {
		return func(c app.Change) error {
			for _, a := range c.Apps {
				if a.Name == name {
					return errors.New("the disk is full")
				}
			}
			return nil
		}
	}
	const cache = `{"name":"shop","compute":{"containers":[{"name":"web","image":"web:2","replicas":4},{"name":"db","image":"db:2"},{"name":"cache","image":"cache:1"},{"name":"log","image":"log:1"}]}}`
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.Store.Fail(failing("shop-db"))
		if w := s.ask("POST", "/osc/register", two, typeJSON); w.Code != 503 || !strings.Contains(w.Body.String(), "the disk is full") {
			t.Errorf("register: %d %s", w.Code, w.Body)
		}
		s.expect(t, "after a registration that failed", "")
		s.Store.Fail(nil)
		s.must(t, "POST", "/osc/register", two, typeJSON)
		s.must(t, "POST", "/osc/start/shop", "")
		const before = "shop-db=db:1 r1 started x1, shop-web=web:1 r1 started x1"
		for _, name := range []string{"shop-log", "shop-db"} { // is new, is there
			replicas := len(launches(t, s))
			s.Store.Fail(failing(name))
			if w := s.ask("POST", "/osc/update/shop", cache, typeJSON); w.Code != 503 || !strings.Contains(w.Body.String(), "the disk is full") {
				t.Errorf("update: %d %s", w.Code, w.Body)
			}
			s.Store.Fail(nil)
			s.expect(t, "after an update that failed at "+name, before)
			if w := s.ask("GET", "/osc/register/shop", ""); w.Body.String() != two+"\n" {
				t.Errorf("the descriptor is %s", w.Body)
			}
			time.Sleep(time.Minute)
			if got := len(launches(t, s)); got != replicas {
				t.Errorf("%s: %d replicas, and were %d", name, got, replicas)
			}
		}
		// Only the descriptor is another one.
		s.Store.Fail(failing("shop-db"))
		other := strings.Replace(two, `"compute"`, `"category":"x","compute"`, 1)
		if w := s.ask("POST", "/osc/update/shop", strings.Replace(other, "db:1", "db:2", 1), typeJSON); w.Code != 503 {
			t.Errorf("update: %d %s", w.Code, w.Body)
		}
		s.Store.Fail(nil)
		if w := s.ask("GET", "/osc/register/shop", ""); w.Body.String() != two+"\n" {
			t.Errorf("the descriptor is %s", w.Body)
		}
		// Starting is all or nothing, too.
		s.must(t, "POST", "/osc/stop/shop", "")
		s.Store.Fail(failing("shop-web"))
		if w := s.ask("POST", "/osc/start/shop", ""); w.Code != 503 {
			t.Errorf("start: %d %s", w.Code, w.Body)
		}
		s.Store.Fail(nil)
		s.expect(t, "after a start that failed", "shop-db=db:1 r1 x1, shop-web=web:1 r1 x1")
	})
}

// launches are the ids of all replicas that live.
func launches(t *testing.T, s *site) (ids []string) {
	t.Helper()
	for _, v := range s.Apps() {
		for _, r := range v.Replicas {
			if r.Living() {
				ids = append(ids, r.ID)
			}
		}
	}
	return ids
}

// TestForeign apps are services, and are not taken for parts of others.
func TestForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		spec := web(t, s)
		spec.Name = "shop-db"
		if _, err := s.Create(t.Context(), spec, nil, "apps"); err != nil {
			t.Fatal(err)
		}
		if w := s.ask("POST", "/osc/register", two, typeJSON); w.Code != 409 || !strings.Contains(w.Body.String(), `app \"shop-db\" exists already, of service \"shop-db\" and not of \"shop\"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		s.expect(t, "refused", "shop-db=nginx:1 r1 x0, web=nginx:1 r1 x0")
		s.must(t, "POST", "/osc/start/web", "")
		s.must(t, "POST", "/osc/unregister/shop-db", "")
		// An app of the name of a service that has several is another thing.
		s.must(t, "POST", "/osc/register", two, typeJSON)
		spec.Name = "shop"
		if _, err := s.Create(t.Context(), spec, nil, "apps"); err != nil {
			t.Fatal(err)
		}
		if w := s.ask("GET", "/osc/services", ""); w.Body.String() != "shop\nweb\n" {
			t.Errorf("services %q", w.Body)
		}
		s.must(t, "POST", "/osc/start/shop", "")
		s.expect(t, "started", "shop=nginx:1 r1 x0, shop-db=db:1 r1 started x1, shop-web=web:1 r1 started x1, web=nginx:1 r1 started x1")
		s.must(t, "POST", "/osc/update/web", two, typeJSON)
		s.expect(t, "an app became a service", "shop=nginx:1 r1 x0, shop-db=db:1 r1 started x1, shop-web=web:1 r1 started x1, web-db=db:1 r1 started x1, web-web=web:1 r1 started x1")
	})
}

// TestPolicy that another dialect has given an app stays, and bounds the replicas.
func TestPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/osc/register", one, typeJSON)
		v, err := s.App("shop")
		if err != nil {
			t.Fatal(err)
		}
		policy := v.App.Scaling
		policy.Max = 2
		if _, err := s.SetScaling(t.Context(), "shop", policy); err != nil {
			t.Fatal(err)
		}
		three := strings.Replace(one, `"image"`, `"replicas":3,"image"`, 1)
		if w := s.ask("POST", "/osc/update/shop", three, typeJSON); w.Code != 400 || !strings.Contains(w.Body.String(), `"path":"compute.containers[0].replicas","message":"is 3; it must be 0 to scaling.maxReplicas, which is 2"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		s.must(t, "POST", "/osc/update/shop", strings.Replace(three, "3", "2", 1), typeJSON)
		if v, err := s.App("shop"); err != nil || v.App.Scaling != policy || v.App.Replicas != 2 {
			t.Errorf("%+v %d %v", v.App.Scaling, v.App.Replicas, err)
		}
	})
}

package services

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// TestBadInput has a line for each thing that is refused. Nothing changes.
func TestBadInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
		before := s.ask("GET", "/service", "").Body.String()
		for _, tt := range []struct {
			method, path, body string
			status             int
			answer             string // part of the sentence
		}{
			{"POST", "/service", ``, 400, `the body is empty`},
			{"POST", "/service", `{}`, 400, `"image\" is missing`},
			{"POST", "/service", `null`, 400, `the body is null`},
			{"POST", "/service", `[]`, 400, `must be an object, not a list`},
			{"POST", "/service", `{`, 400, `ends in the middle`},
			{"POST", "/service", `{"name":"web"}`, 400, `"image\" is missing`},
			{"POST", "/service", `{"image":"nginx:2"}`, 400, `"name\" is missing`},
			{"POST", "/service", `{"image":"nginx:2","name":""}`, 400, `"name\" is missing`},
			{"POST", "/service", `{"image":"nginx:2","name":7}`, 400, `"name\" must be text`},
			{"POST", "/service", `{"image":"nginx:2","name":"a/b"}`, 400, `name is \"a/b\"; it must be of letters, digits, dashes and underscores`},
			{"POST", "/service", `{"image":"nginx:2","name":"` + strings.Repeat("a", 54) + `"}`, 400, `name has 54 characters`},
			{"POST", "/service", `{"name":"web","image":"nginx:2","port":["80"]}`, 400, `there is no field \"port\" here`},
			{"POST", "/service", `{"name":"web","image":"` + strings.Repeat("a", 1<<20) + `:1"}`, 413, `larger than 1048576 bytes`},
			{"PUT", "/service/web", `{}`, 400, `"image\" is missing`},
			{"PUT", "/service/web", `{"image":7}`, 400, `field \"image\" must be text, not a number`},
			{"PUT", "/service/web", `{"image":"nginx"}`, 400, `is \"nginx\", which says no version`},
			{"PUT", "/service/web", `{"image":"docker://nginx"}`, 400, `says no version`},
			{"PUT", "/service/web", `{"image":"localhost:5000/nginx"}`, 400, `says no version`},
			{"PUT", "/service/web", `{"image":"nginx:"}`, 400, `says no version`},
			{"PUT", "/service/web", `{"image":"ng inx:2"}`, 400, `image is \"ng inx:2\"; it must have no blanks`},
			{"PUT", "/service/web", `{"image":"nginx:2","command":7}`, 400, `field \"command\" must be text or a list of texts, not the number 7`},
			{"PUT", "/service/web", `{"image":"nginx:2","command":[1]}`, 400, `field \"command\" must be text or a list of texts, not a list`},
			{"PUT", "/service/web", `{"image":"nginx:2","command":"sh -c 'x"}`, 400, `whose quotes do not end`},
			{"PUT", "/service/web", `{"image":"nginx:2","environment":["A=1"]}`, 400, `field \"environment\" must be an object, not a list`},
			{"PUT", "/service/web", `{"image":"nginx:2","environment":{"A":{}}}`, 400, `field \"environment`},
			{"PUT", "/service/web", `{"image":"nginx:2","environment":{"A":null}}`, 400, `has no value for \"A\"`},
			{"PUT", "/service/web", `{"image":"nginx:2","environment":{"":"x"}}`, 400, `environment has a variable called \"\"`},
			{"PUT", "/service/web", `{"image":"nginx:2","environment":{"A=B":"x"}}`, 400, `a name has no '='`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":"80"}`, 400, `field \"ports\" must be a list, not text`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":[{}]}`, 400, `field \"ports\" must be text or a number, not an object`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":["80",""]}`, 400, `ports[1] is \"\"; it must be the port`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":[null]}`, 400, `ports[0] is \"\"`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":["0"]}`, 400, `ports[0] is \"0\"`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":[65536]}`, 400, `ports[0] is \"65536\"`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":[80.5]}`, 400, `ports[0] is \"80.5\"`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":["127.0.0.1:80:80"]}`, 400, `ports[0]`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":["80/sctp"]}`, 400, `ports[0]`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":["80",80]}`, 400, `ports[1] is 80 a second time`},
			{"PUT", "/service/web", `{"image":"nginx:2","ports":["80:1","80:2"]}`, 400, `ports[1] is 80 a second time`},
			{"GET", "/service/none", ``, 404, `there is no app \"none\"`},
			{"GET", "/service/none/status", ``, 404, `there is no app`},
			{"POST", "/service/none/scale", `{"number":1}`, 404, `there is no app`},
			{"GET", "/service/a%2Fb", ``, 404, `there is no app \"a/b\"`},
			{"POST", "/service/web/scale", ``, 400, `the body`},
			{"POST", "/service/web/scale", `{}`, 400, `"number\" is missing`},
			{"POST", "/service/web/scale", `{"number":null}`, 400, `"number\" is null`},
			{"POST", "/service/web/scale", `{"number":[3]}`, 400, `"number\" is [3]`},
			{"POST", "/service/web/scale", `{"number":{}}`, 400, `"number\" is {}`},
			{"POST", "/service/web/scale", `{"number":true}`, 400, `"number\" is true`},
			{"POST", "/service/web/scale", `{"number":"three"}`, 400, `it must be a number of containers`},
			{"POST", "/service/web/scale", `{"number":"3.7"}`, 400, `it must be a number of containers`},
			{"POST", "/service/web/scale", `{"number":""}`, 400, `it must be a number of containers`},
			{"POST", "/service/web/scale", `{"number":1001}`, 409, `0 to 1000 replicas, not 1001`},
			{"POST", "/service/web/scale", `{"number":1e400}`, 409, `0 to 1000 replicas`},
			{"POST", "/service/web/scale", `{"number":"99999999999999999999999"}`, 409, `0 to 1000 replicas`},
			{"DELETE", "/service/web", ``, 405, `takes GET and PUT`},
			{"GET", "/service/web/scale", ``, 405, `takes POST`},
		} {
			w := s.ask(tt.method, tt.path, tt.body)
			var e struct{ Error string }
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) || json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Error == "" {
				t.Errorf("%s %s %.80s = %d %s, want %d %s", tt.method, tt.path, tt.body, w.Code, w.Body, tt.status, tt.answer)
			}
		}
		if after := s.ask("GET", "/service", "").Body.String(); after != before {
			t.Errorf("the services are %s, and were %s", after, before)
		}
	})
}

// TestContentType is JSON, or it is refused, as by the original.
func TestContentType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		for typ, want := range map[string]int{
			"application/json": 200, "Application/JSON; charset=utf-8": 200,
			"": 400, "text/plain": 400, "application/x-www-form-urlencoded": 400, "application/jsonx": 400, ";": 400,
		} {
			for _, one := range []struct{ method, path, body string }{
				{"POST", "/service", `{"name":"web","image":"nginx:1"}`},
				{"PUT", "/service/web", `{"image":"nginx:1"}`},
				{"POST", "/service/web/scale", `{"number":0}`},
			} {
				if one.path == "/service/web/scale" {
					s.must(t, "PUT", "/service/web", `{"image":"nginx:1"}`)
				}
				r := httptest.NewRequest(one.method, one.path, strings.NewReader(one.body))
				r.Header.Set("Content-Type", typ)
				w := httptest.NewRecorder()
				s.server.ServeHTTP(w, r)
				if w.Code != want {
					t.Errorf("%s %s of type %q = %d %s, want %d", one.method, one.path, typ, w.Code, w.Body, want)
				}
			}
		}
	})
}

// TestDefinitions are written and read again, and mean what they should.
func TestDefinitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		for _, tt := range []struct {
			body, shown string
			check       func(spec *app.Spec) any
			want        any
		}{
			{`{"image":"nginx:1","name":["ignored"]}`, `{"name":"x","image":"nginx:1","command":null,"environment":null,"ports":null}`, nil, nil},
			{`{"image":"localhost:5000/a/b:1"}`, `"image":"localhost:5000/a/b:1"`, nil, nil},
			{`{"image":"nginx@sha256:` + strings.Repeat("0", 64) + `"}`, `"image":"nginx@sha256:`, nil, nil},
			{`{"image":"/srv/x.flist"}`, `"image":"/srv/x.flist"`, nil, nil},
			{`{"image":"https://example.org/x.flist"}`, `"image":"https://example.org/x.flist"`, nil, nil},
			{`{"image":"hub:user/name"}`, `"image":"hub:user/name"`, nil, nil},
			{`{"image":"i:1","command":"sh -c 'echo \"a b\"'"}`, `"command":"sh -c 'echo \"a b\"'"`, func(s *app.Spec) any { return s.Container.Command }, []string{"sh", "-c", `echo "a b"`}},
			{`{"image":"i:1","command":["sh","-c","x y"]}`, `"command":["sh","-c","x y"]`, func(s *app.Spec) any { return s.Container.Command }, []string{"sh", "-c", "x y"}},
			{`{"image":"i:1","command":""}`, `"command":null`, func(s *app.Spec) any { return len(s.Container.Command) }, 0},
			{`{"image":"i:1","command":[]}`, `"command":null`, nil, nil},
			{`{"image":"i:1","environment":{"B":1,"A":"x=y","C":true,"D":""}}`, `"environment":{"A":"x=y","B":"1","C":"true","D":""}`, func(s *app.Spec) any { return s.Container.Env }, []string{"A=x=y", "B=1", "C=true", "D="}},
			{`{"image":"i:1","environment":{}}`, `"environment":null`, nil, nil},
			{
				`{"image":"i:1","ports":[8080,"8443:443","53/udp"]}`, `"ports":["8080","8443:443","53/udp"]`, func(s *app.Spec) any { return s.Ports },
				[]app.Port{{Container: 8080, Proto: "http"}, {Container: 443, Host: 8443, Proto: "tcp"}, {Container: 53, Proto: "udp"}},
			},
			{`{"image":"i:1","ports":["53/udp","80"]}`, `"ports":["53/udp","80"]`, func(s *app.Spec) any { return s.Ports }, []app.Port{{Container: 53, Proto: "udp"}, {Container: 80, Proto: "http"}}},
			{`{"image":"i:1","ports":["1883/tcp","80","81/http","82/h2c"]}`, `"ports":["1883/tcp","80","81/http","82/h2c"]`, func(s *app.Spec) any { return s.Ports[:2] }, []app.Port{{Container: 1883, Proto: "tcp"}, {Container: 80, Proto: "tcp"}}},
			{`{"image":"i:1","ports":["80/http","81/tcp"]}`, `"ports":["80","81"]`, nil, nil},
			{`{"image":"i:1","ports":["80:80"]}`, `"ports":["80:80"]`, func(s *app.Spec) any { return []int{s.Rollout.MaxUnavailable, s.Rollout.MaxSurge} }, []int{1, 0}},
			{`{"image":"i:1","ports":["80"]}`, `"ports":["80"]`, func(s *app.Spec) any { return []int{s.Rollout.MaxUnavailable, s.Rollout.MaxSurge} }, []int{0, 1}},
			{`{"image":"i:1","ports":[]}`, `"ports":null`, func(s *app.Spec) any {
				return []any{s.Kind, s.Scaling.Mode, s.Scaling.Min, s.Scaling.Max, s.Container.Restart, s.Container.NICs[0].Type, s.Container.Health == nil}
			}, []any{app.Service, app.Manual, 0, 1000, "always", "default", true}},
		} {
			s.must(t, "PUT", "/service/x", tt.body)
			if w := s.ask("GET", "/service/x", ""); !strings.Contains(w.Body.String(), tt.shown) {
				t.Errorf("%s is shown as %s, want %s", tt.body, w.Body, tt.shown)
			}
			v, err := s.App("x")
			if err != nil {
				t.Fatal(err)
			}
			if tt.check != nil {
				if diff := cmp.Diff(tt.want, tt.check(v.App.Spec())); diff != "" {
					t.Errorf("%s: -want +got\n%s", tt.body, diff)
				}
			}
			// What is shown can be put again, and changes nothing.
			s.must(t, "PUT", "/service/x", s.ask("GET", "/service/x", "").Body.String())
			if again, err := s.App("x"); err != nil || again.App.Rollout.Target != v.App.Rollout.Target {
				t.Errorf("%s: what is shown is revision %d, and was %d (%v)", tt.body, again.App.Rollout.Target, v.App.Rollout.Target, err)
			}
		}
	})
}

// TestApps of other dialects are services too, and keep what definitions have
// no words for.
func TestApps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		spec, err := fresh("shop")
		if err != nil {
			t.Fatal(err)
		}
		spec.Container.Flist, spec.Container.Entrypoint, spec.Container.Command = "shop", []string{"/bin/shop"}, []string{"--fast"}
		spec.Container.Env = []string{"A=1"}
		spec.Env = []app.EnvVar{{Name: "B", Value: "2"}, {Name: "PASSWORD", Secret: "db"}, {Name: "IP", Field: "instance.ip"}}
		spec.Container.Limits.Memory = 64 << 20
		spec.Ports = []app.Port{{Name: "web", Container: 80, Proto: "http"}, {Container: 25, Proto: "tcp", Listen: 2525}}
		spec.Replicas = 2
		if _, err := s.Apply(t.Context(), spec, json.RawMessage(`{"kind":"App"}`), "apps"); err != nil {
			t.Fatal(err)
		}
		shown := `{"name":"shop","image":"shop","command":["/bin/shop","--fast"],"environment":{"A":"1","B":"2"},"ports":["80","25"]}`
		if w := s.ask("GET", "/service/shop", ""); w.Body.String() != shown+"\n" {
			t.Errorf("the app is shown as %s, want %s", w.Body, shown)
		}
		policy := spec.Scaling
		policy.Max = 7
		if _, err := s.SetScaling(t.Context(), "shop", policy); err != nil {
			t.Fatal(err)
		}
		s.must(t, "POST", "/service/shop/scale", `{"number":3}`)
		s.must(t, "PUT", "/service/shop", strings.Replace(shown, `"shop","command"`, `"shop:2","command"`, 1))
		v, err := s.App("shop")
		if err != nil {
			t.Fatal(err)
		}
		want := spec
		want.Container.Flist, want.Container.Env, want.Env = "shop:2", []string{"A=1", "B=2"}, spec.Env[1:]
		want.Scaling, want.Replicas = policy, 0
		if diff := cmp.Diff(want, *v.App.Spec()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if v.App.Replicas != 3 || v.App.Origin != "apps" {
			t.Errorf("%d replicas of origin %q", v.App.Replicas, v.App.Origin)
		}
		s.must(t, "POST", "/service/shop/scale", `{"number":3}`) // once the new revision runs
		if w := s.ask("GET", "/service/shop/status", ""); w.Body.String() != `{"running_resources":3}`+"\n" {
			t.Errorf("status %s", w.Body)
		}
	})
}

// TestPersists has definitions survive a restart.
func TestPersists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1","command":"sleep 1","ports":[80]}`)
		s.must(t, "POST", "/service/web/scale", `{"number":2}`)
		before := s.ask("GET", "/service", "").Body.String()
		time.Sleep(time.Second) // of the bubble
		s.Restart()
		s.serve(t)
		if after := s.ask("GET", "/service", "").Body.String(); after != before {
			t.Errorf("the services are %s, and were %s", after, before)
		}
		if w := s.ask("GET", "/service/web/status", ""); w.Body.String() != `{"running_resources":2}`+"\n" {
			t.Errorf("status %s", w.Body)
		}
	})
}

// TestStore refuses, and the client is told.
func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.Store.Fail(func(app.Change) error { return errors.New("the disk is full") })
		w := s.ask("POST", "/service", `{"name":"web","image":"nginx:1"}`)
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "the disk is full") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		s.Store.Fail(nil)
		s.must(t, "POST", "/service", `{"name":"web","image":"nginx:1"}`)
	})
}

// TestRaces have another dialect make and remove apps meanwhile.
func TestRaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		e := &hasty{Engine: s.Engine}
		d, err := New(Config{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		def := definition{Image: "nginx:1"}
		e.before = func() error { return errs.E(errs.Exists, "somebody was faster") }
		if err := d.define(t.Context(), "web", def); err != nil {
			t.Error(err)
		}
		def.Image = "nginx:2"
		e.before = func() error { return errs.E(errs.NotFound, "somebody was faster") }
		if err := d.define(t.Context(), "web", def); err != nil {
			t.Error(err)
		}
		if v, err := s.App("web"); err != nil || v.App.Spec().Container.Flist != "nginx:2" {
			t.Errorf("%+v, %v", v.App, err)
		}
	})
}

// FuzzDefinition has definitions either refused as Invalid, or shown as what
// means the same.
func FuzzDefinition(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a","image":"nginx:1","command":"sh -c 'x'","environment":{"A":"1","B":2},"ports":["8080",81,"82:82","53/udp"]}`,
		`{"image":"nginx:1","command":["a"],"ports":["1/tcp","2/h2c"]}`, `{"image":"nginx"}`, `{"image":"x:1","ports":[[1]],"environment":{"":null}}`, `[`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		read := func(body string) (app.Spec, error) {
			r := httptest.NewRequest("PUT", "/service/x", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			def, err := decode(httptest.NewRecorder(), r)
			if err != nil {
				return app.Spec{}, err
			}
			spec, err := fresh("x")
			if err != nil {
				t.Fatal(err)
			}
			return spec, def.apply(&spec)
		}
		spec, err := read(body)
		if err == nil {
			err = spec.Validate()
		}
		if err != nil {
			if !errors.Is(err, errs.Invalid) {
				t.Fatalf("%q: %v is not Invalid", body, err)
			}
			return
		}
		shown, err := json.Marshal(serviceOf(&app.App{Name: "x", Revisions: []app.Revision{{N: 1, Spec: spec}}}))
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(string(shown))
		if err != nil {
			t.Fatalf("%q is shown as %s: %v", body, shown, err)
		}
		if diff := cmp.Diff(spec, again); diff != "" {
			t.Fatalf("%q is shown as %s: -first +again\n%s", body, shown, diff)
		}
	})
}

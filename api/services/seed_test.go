package services

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/apptest"
	"github.com/buoy-edge/buoy/internal/transcript"
)

var _ Engine = (*app.Engine)(nil)

// site is a controller that speaks this dialect alone.
type site struct {
	*apptest.Fleet
	server *api.Server
}

func newSite(t *testing.T, hosts ...string) *site {
	t.Helper()
	s := &site{Fleet: apptest.New(t, hosts...)}
	s.serve(t)
	return s
}

func (s *site) serve(t *testing.T) {
	t.Helper()
	d, err := New(Config{Engine: s.Engine})
	if err != nil {
		t.Fatal(err)
	}
	if s.server, err = api.New(api.Config{Dialects: []api.Dialect{d}}); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request, a body as JSON.
func (s *site) ask(method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.server.ServeHTTP(w, r)
	return w
}

// must is ask for what works and answers nothing.
func (s *site) must(t *testing.T, method, path, body string) {
	t.Helper()
	if w := s.ask(method, path, body); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Fatalf("%s %s %s = %d %s", method, path, body, w.Code, w.Body)
	}
}

// TestSeed plays the seed document's requests; package test/live plays them
// against a real controller.
func TestSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1", "h2")
		steps, err := transcript.Read("testdata/seed003.txtar", "IMAGE-A", "tutum/hello-world:latest", "IMAGE-B", "panamax/hello-world-php:latest")
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range steps {
			r := httptest.NewRequest(step.Method, step.Path, strings.NewReader(step.Body))
			r.Header = step.Header
			w := httptest.NewRecorder()
			s.server.ServeHTTP(w, r)
			if err := step.Check(w.Code, w.Header(), w.Body.Bytes()); err != nil {
				t.Errorf("%s: %v", step.Name, err)
			}
		}
	})
}

// TestWords are the document's answers, word by word.
func TestWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		s.must(t, "POST", "/service", `{"name":"myServiceB","image":"docker_image:tag","ports":["5000","5001"]}`)
		s.must(t, "POST", "/service", `{"name":"myServiceA","image":"docker_image:tag","command":"command","environment":{"ENV_VARIABLE_B":"value","ENV_VARIABLE_A":"value"},"ports":["8080"]}`)
		a := `{"name":"myServiceA","image":"docker_image:tag","command":"command","environment":{"ENV_VARIABLE_A":"value","ENV_VARIABLE_B":"value"},"ports":["8080"]}`
		b := `{"name":"myServiceB","image":"docker_image:tag","command":null,"environment":null,"ports":["5000","5001"]}`
		for path, want := range map[string]string{
			"/service":                   `{"myServiceA":` + a + `,"myServiceB":` + b + `}`,
			"/service/myServiceA":        a,
			"/service/myServiceB":        b,
			"/service/myServiceB/status": `{"running_resources":0}`,
		} {
			if w := s.ask("GET", path, ""); w.Code != 200 || w.Body.String() != want+"\n" {
				t.Errorf("GET %s = %d %s, want %s", path, w.Code, w.Body, want)
			}
		}
	})
}

package osc

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
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
	dialect *Dialect
	server  *api.Server
}

func newSite(t *testing.T, hosts ...string) *site {
	t.Helper()
	s := &site{Fleet: apptest.New(t, hosts...)}
	s.serve(t, Config{Engine: s.Engine})
	return s
}

func (s *site) serve(t *testing.T, cfg Config) {
	t.Helper()
	var err error
	if s.dialect, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if s.server, err = api.New(api.Config{Dialects: []api.Dialect{s.dialect}}); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request with headers, "Name: value".
func (s *site) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.server.ServeHTTP(w, r)
	return w
}

// must is ask for what works and answers nothing.
func (s *site) must(t *testing.T, method, path, body string, headers ...string) {
	t.Helper()
	if w := s.ask(method, path, body, headers...); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Fatalf("%s %s = %d %s", method, path, w.Code, w.Body)
	}
}

// reach has the fetcher of the dialect ask h, in the same process, for whatever
// it is to fetch. What it may dial is for TestFetch.
func (s *site) reach(h http.Handler) {
	s.dialect.fetcher.Transport = inProcess{h}
}

type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result(), nil
}

// files serves what the seed's fetches find.
func files(t *testing.T, replace *strings.Replacer) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	for _, name := range []string{"ocl.json", "my-new-ocl.json"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(replace.Replace(string(text)))) })
	}
	return mux
}

// play plays the steps of the seed document.
func (s *site) play(t *testing.T, words ...string) {
	t.Helper()
	steps, err := transcript.Read("testdata/seed000.txtar", words...)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		r := httptest.NewRequest(step.Method, step.Path, strings.NewReader(step.Body))
		r.Header = step.Header
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, r)
		body := w.Body.Bytes()
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			var want string
			if err := json.Unmarshal([]byte(step.Shape()), &want); err != nil || string(body) != want {
				t.Errorf("%s: %q, want %q (%v)", step.Name, body, want, err)
			}
			body, _ = json.Marshal(string(body))
		}
		if err := step.Check(w.Code, w.Header(), body); err != nil {
			t.Errorf("%s: %v", step.Name, err)
		}
	}
}

// TestSeed plays the seed document's requests; package test/live plays them
// against a real controller.
func TestSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "h1")
		words := []string{"IMAGE-A", "one:1", "IMAGE-B", "two:1"}
		s.reach(files(t, strings.NewReplacer(words...)))
		if w := s.ask("GET", "/osc/services", ""); w.Code != 200 || w.Body.Len() != 0 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("without any: %d %q", w.Code, w.Body)
		}
		s.play(t, words...)
	})
}

// TestSeedByNetwork fetches from a real server, which has to be allowed.
func TestSeedByNetwork(t *testing.T) {
	words := []string{"IMAGE-A", "one:1", "IMAGE-B", "two:1"}
	web := httptest.NewServer(files(t, strings.NewReplacer(words...)))
	defer web.Close()
	at := netip.MustParseAddrPort(web.Listener.Addr().(*net.TCPAddr).String())
	s := &site{Fleet: apptest.New(t, "h1")}
	s.serve(t, Config{Engine: s.Engine, Allow: []netip.Prefix{netip.PrefixFrom(at.Addr(), at.Addr().BitLen())}})
	s.play(t, append(words, "http://foo.bar", web.URL)...)
}

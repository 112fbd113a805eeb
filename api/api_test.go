package api

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
)

// routes is a dialect made of a function.
type routes func(r chi.Router)

func (f routes) Routes(r chi.Router) { f(r) }

// newServer has /ok, /panic, /late and POST /change.
func newServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Dialects = append(cfg.Dialects, routes(func(r chi.Router) {
		ok := func(w http.ResponseWriter, _ *http.Request) { JSON(w, 200, "<ok>") }
		r.Get("/ok", ok)
		r.Get("/things/{name}", ok)
		r.Put("/things/{name}", ok)
		r.Post("/change", ok)
		r.Get("/panic", func(http.ResponseWriter, *http.Request) { panic("BUG: secret") })
		r.Get("/late", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			panic("BUG: secret")
		})
	}))
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		status       int
		body, allow  string
	}{
		{"GET", "/ok", 200, "\"<ok>\"\n", ""},
		{"HEAD", "/ok", 200, "", ""},
		{"GET", "/none", 404, `{"error":"there is nothing at /none"}`, ""},
		{"GET", "/things/a/b", 404, `{"error":`, ""},
		{"DELETE", "/things/a", 405, `{"error":"/things/a takes GET and PUT, not DELETE"}`, "GET, PUT"},
		{"BREW", "/ok", 405, `{"error":`, "GET"},
		{"POST", "/ok", 405, `{"error":"/ok takes GET, not POST"}`, "GET"},
		{"GET", "/panic", 500, `{"error":"internal error; see the log of buoyd, request id `, ""},
	} {
		var seen []Observation
		s := newServer(t, Config{Observe: func(o Observation) { seen = append(seen, o) }})
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.status || !strings.HasPrefix(w.Body.String(), tt.body) || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s = %d %v %s", tt.method, tt.path, w.Code, w.Header(), w.Body)
		}
		if w.Header().Get("X-Request-Id") == "" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s has headers %v", tt.method, tt.path, w.Header())
		}
		if len(seen) != 1 || seen[0].Status != tt.status || seen[0].Method != tt.method {
			t.Errorf("%s %s is observed as %+v", tt.method, tt.path, seen)
		}
	}
}

func TestRouteIsObserved(t *testing.T) {
	var seen []string
	s := newServer(t, Config{Observe: func(o Observation) { seen = append(seen, o.Route) }})
	for _, path := range []string{"/things/a", "/things/b", "/none"} {
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	if got := strings.Join(seen, " "); got != "/things/{name} /things/{name} " {
		t.Errorf("routes = %q", got)
	}
}

func TestPanicIsLoggedOnce(t *testing.T) {
	for _, path := range []string{"/panic", "/late"} {
		var log bytes.Buffer
		srv := httptest.NewServer(newServer(t, Config{Log: slog.New(slog.NewJSONHandler(&log, nil))}))
		res, err := http.Get(srv.URL + path)
		if err == nil {
			res.Body.Close()
		}
		if late := path == "/late"; late != (err != nil) {
			t.Errorf("%s: error %v", path, err)
		}
		srv.Close() // waits for the handler, which has the log
		if n := strings.Count(log.String(), "BUG: secret"); n != 1 {
			t.Errorf("%s is logged %d times: %s", path, n, log.String())
		}
	}
}

func TestRequestID(t *testing.T) {
	s := newServer(t, Config{})
	for sent, taken := range map[string]bool{"a-1.b_C": true, "": false, "a b": false, strings.Repeat("x", 65): false, "a\"": false} {
		r := httptest.NewRequest("GET", "/ok", nil)
		r.Header.Set("X-Request-Id", sent)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if got := w.Header().Get("X-Request-Id"); (got == sent) != taken || got == "" {
			t.Errorf("id %q became %q", sent, got)
		}
	}
}

func TestHost(t *testing.T) {
	s := newServer(t, Config{Hosts: []string{"box.example"}})
	tcp, unix := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UnixAddr{Name: "/x", Net: "unix"}
	for _, tt := range []struct {
		door   net.Addr
		host   string
		status int
	}{
		{tcp, "127.0.0.1:8080", 200},
		{tcp, "127.9.9.9", 200},
		{tcp, "localhost:1", 200},
		{tcp, "LocalHost.", 200},
		{tcp, "[::1]:80", 200},
		{tcp, "[::1]", 200},
		{tcp, "box.example:80", 200},
		{tcp, "", 200},
		{tcp, "evil.example", 403},
		{tcp, "localhost.evil.example:80", 403},
		{tcp, "10.0.0.1", 403},
		{tcp, "0.0.0.0:80", 403},
		{unix, "evil.example", 200},
	} {
		r := httptest.NewRequest("GET", "/ok", nil)
		r.Host = tt.host
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tt.door))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s host %q = %d %s, want %d", tt.door.Network(), tt.host, w.Code, w.Body, tt.status)
		}
	}
}

func TestOrigin(t *testing.T) {
	s := newServer(t, Config{})
	for _, tt := range []struct {
		origin, site string
		status       int
	}{
		{"", "", 200},
		{"http://127.0.0.1:8080", "", 200},
		{"", "same-origin", 200},
		{"http://evil.example", "", 403},
		{"", "cross-site", 403},
	} {
		r := httptest.NewRequest("POST", "http://127.0.0.1:8080/change", nil)
		if tt.origin != "" {
			r.Header.Set("Origin", tt.origin)
		}
		if tt.site != "" {
			r.Header.Set("Sec-Fetch-Site", tt.site)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("origin %q site %q = %d %s, want %d", tt.origin, tt.site, w.Code, w.Body, tt.status)
		}
	}
}

func TestNewNeedsDialects(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("New without dialects worked")
	}
}

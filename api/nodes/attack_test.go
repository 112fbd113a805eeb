package nodes

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// evilFleet has one other node, which notes what it is asked and answers like
// somebody who wants more.
type evilFleet struct{ asked []*http.Request }

func (*evilFleet) Nodes() []RemoteNode { return nil }

func (f *evilFleet) Transport(id string) (http.RoundTripper, error) {
	if id != "evil" {
		return nil, errs.E(errs.NotFound, "node %q is not known here", id)
	}
	return f, nil
}

func (f *evilFleet) RoundTrip(r *http.Request) (*http.Response, error) {
	f.asked = append(f.asked, r)
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{
			"Content-Type": {"text/html"}, "Set-Cookie": {"a=b"}, "X-Request-Id": {"mine"}, "X-Content-Type-Options": {"sniff"}, "Content-Security-Policy": {"default-src *"},
		},
		Body: io.NopCloser(strings.NewReader("<script>fetch('/nodes')</script>")),
	}, nil
}

// TestEvilNode: what another node answers has no power in a browser that asks
// the controller, and gets no credentials of who asks.
func TestEvilNode(t *testing.T) {
	var f evilFleet
	d, err := New(Config{Node: newFake(), Fleet: &f})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{Dialects: []api.Dialect{d}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer secret")
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		r.Header.Set("X-Request-Id", "yours")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	h := ask("GET", "/nodes/evil/info").Result().Header
	for key, want := range map[string]string{
		"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff", "X-Request-Id": "yours", "Set-Cookie": "",
	} {
		if got := strings.Join(h.Values(key), ","); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := f.asked[0].Header; got.Get("Authorization") != "" || got.Get("X-Forwarded-For") != "" {
		t.Errorf("handed on: %v", got)
	}
	f.asked = nil
	for _, path := range []string{
		"/nodes/evil/../../agent/poke", "/nodes/evil/%2e%2e/%2e%2e/agent/poke", "/nodes//evil/info", "/nodes/evil%2f..%2finfo", "/nodes/x/../evil/info",
		"/nodes/evil/agent/poke", "/nodes/..%2fevil/info", "//nodes/evil/info", "/nodes/evil%00/info", "/nodes/EVIL/info",
	} {
		for _, method := range []string{"GET", "POST", "CONNECT"} {
			if w := ask(method, path); w.Code < 400 || len(f.asked) > 0 {
				t.Errorf("%s %s: %d, handed on %d", method, path, w.Code, len(f.asked))
				f.asked = nil
			}
		}
	}
}

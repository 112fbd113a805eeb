package api

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
)

// A part of a path is unescaped once, whether chi has routed by what was sent or not.
func TestParam(t *testing.T) {
	var got string
	r := chi.NewRouter()
	r.Get("/x/{name}/y", func(_ http.ResponseWriter, r *http.Request) { got = Param(r, "name") + Param(r, "other") })
	for path, want := range map[string]string{
		"/x/web/y": "web", "/x/a%20b/y": "a b", "/x/a%2Fb/y": "a/b", "/x/a%2520b/y": "a%20b", "/x/a%2Fb%2520/y": "a/b%20", "/x/%2e%2e%2f/y": "../",
	} {
		got = "no route"
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		if got != want {
			t.Errorf("the name in %s is %q, want %q", path, got, want)
		}
	}
}

func TestTime(t *testing.T) {
	now := time.Unix(1000, 0)
	for text, want := range map[string]time.Time{
		"": {}, "1970-01-01T00:00:05Z": time.Unix(5, 0), "1970-01-01T01:00:05.5+01:00": time.Unix(5, 5e8),
		"12.5": time.Unix(12, 5e8), "10m": time.Unix(400, 0), "0": time.Unix(0, 0),
	} {
		got, err := Time(url.Values{"since": {text}}, "since", now)
		if err != nil || !got.Equal(want) {
			t.Errorf("since=%s is %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-5", "-5m", "NaN", "1e300", "yesterday"} {
		if got, err := Time(url.Values{"since": {text}}, "since", now); err == nil {
			t.Errorf("since=%s is %v, want an error", text, got)
		}
	}
}

func TestFlag(t *testing.T) {
	for query, want := range map[string]bool{"": false, "f": true, "f=": true, "f=1": true, "f=false": false, "g=true": false} {
		q, _ := url.ParseQuery(query)
		if got, err := Flag(q, "f"); err != nil || got != want {
			t.Errorf("%q is %v, %v", query, got, err)
		}
	}
	if _, err := Flag(url.Values{"f": {"maybe"}}, "f"); err == nil {
		t.Error("maybe is true or false")
	}
}

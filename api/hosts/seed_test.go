package hosts

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/transcript"
)

// TestSeed plays the seed document's requests against a fake engine.
func TestSeed(t *testing.T) {
	f, s := server(t)
	_, limited := server(t, func(c *Config) { c.Engine, c.RateLimit = f, 1 })
	f.replicas[launch1] = app.Replica{ID: launch1, App: "web", Index: 1, Revision: 1, Host: "seed-host", Phase: app.Running}
	learnt := map[string]string{}
	for _, word := range []string{"HOST-TOKEN", "INSTANCE-ID", "INSTANCE-TOKEN"} {
		learnt[word] = word
	}
	steps, err := transcript.Read("testdata/seed004.txtar", "JOIN-TOKEN", joinToken, "LAUNCH-ID", launch1)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		t.Run(step.Name, func(t *testing.T) {
			var pairs []string
			for word, value := range learnt {
				pairs = append(pairs, word, value)
			}
			r := request(step, strings.NewReplacer(pairs...))
			got := httptest.NewRecorder()
			if step.Header.Get("Note-Flood") != "" {
				for n := 0; got.Code != http.StatusTooManyRequests && n < 100; n++ {
					got = httptest.NewRecorder()
					limited.ServeHTTP(got, r)
				}
			} else {
				s.ServeHTTP(got, r)
			}
			if err := step.Check(got.Code, got.Header(), got.Body.Bytes()); err != nil {
				t.Error(err)
			}
			learn(t, learnt, got.Body.Bytes())
		})
	}
	a := into[hostapi.HostAction](t, ask(s, "POST", "/host/seed-host/updatestatus", `{}`, token(learnt["HOST-TOKEN"])), 200)
	if a.Mode != hostapi.Terminate {
		t.Errorf("in the end the host is told to %q", a.Mode)
	}
	want := "register seed-host seed 127.0.0.1; report seed-host 0 containers; report seed-host 0 containers; " +
		`drain seed-host user "maintenance"; report seed-host 0 containers; continue seed-host user ""; report seed-host 0 containers; ` +
		`terminate seed-host user ""; report seed-host 0 containers`
	if got := f.done(); got != want {
		t.Errorf("the engine did\n%s, want\n%s", got, want)
	}
}

// request is that of a step, at the unix socket.
func request(step transcript.Step, words *strings.Replacer) *http.Request {
	r := local(httptest.NewRequest(step.Method, words.Replace(step.Path), strings.NewReader(words.Replace(step.Body))))
	if step.Header.Get("Note-Slow") != "" { // what a connection says whose time is up
		r.Body = io.NopCloser(iotest.ErrReader(os.ErrDeadlineExceeded))
	}
	for key := range step.Header {
		if !strings.HasPrefix(key, "Note-") {
			r.Header.Set(key, words.Replace(step.Header.Get(key)))
		}
	}
	return r
}

// learn takes the words out of an answer that later steps need.
func learn(t *testing.T, words map[string]string, body []byte) {
	t.Helper()
	var answer map[string]any
	if len(body) == 0 {
		return
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	for key, word := range map[string]string{"hostToken": "HOST-TOKEN", "engineInstanceID": "INSTANCE-ID", "engineInstanceToken": "INSTANCE-TOKEN"} {
		if value, ok := answer[key].(string); ok {
			words[word] = value
		}
	}
}

package system

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/access"
	"github.com/buoy-edge/buoy/api/apps"
	"github.com/buoy-edge/buoy/api/auth"
	apievents "github.com/buoy-edge/buoy/api/events"
	"github.com/buoy-edge/buoy/api/hosts"
	"github.com/buoy-edge/buoy/api/nodes"
	"github.com/buoy-edge/buoy/api/osc"
	"github.com/buoy-edge/buoy/api/services"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/testapi"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/events"
)

// someNode is enough of a node to register routes.
type someNode struct{ nodes.Node }

func (someNode) Info() node.Info { return node.Info{ID: "525400123456"} }

// someEngine is enough of an engine to register routes.
type someEngine struct{ apps.Engine }

// newServer has every dialect.
func newServer(t *testing.T) *api.Server {
	t.Helper()
	d, err := New(Config{
		Health:     func() Health { return Health{Ready: true, Node: "525400123456"} },
		Containers: func() map[string]int { return map[string]int{"running": 3, "halted": 1} },
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := nodes.New(nodes.Config{Node: someNode{}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := apps.New(apps.Config{
		Engine: someEngine{},
		Logs:   func(context.Context, app.Replica, apps.LogQuery, func(apps.LogLine) error) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := hosts.New(hosts.Config{
		Engine: struct{ hosts.Engine }{}, Tunnels: struct{ hosts.Tunnels }{}, Join: func(string) bool { return false },
		Logs: func(context.Context, string, string, io.Writer) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := services.New(services.Config{Engine: struct{ services.Engine }{}})
	if err != nil {
		t.Fatal(err)
	}
	o, err := osc.New(osc.Config{Engine: struct{ osc.Engine }{}})
	if err != nil {
		t.Fatal(err)
	}
	log, err := events.Open(events.Config{Dir: t.TempDir(), Source: "/nodes/525400123456"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := apievents.New(apievents.Config{Log: log, Webhooks: struct{ apievents.Webhooks }{}, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.OpenTokens(filepath.Join(t.TempDir(), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := access.New(access.Config{Tokens: tokens, Audit: filepath.Join(t.TempDir(), "audit.log")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{Dialects: []api.Dialect{n, a, h, v, o, e, c, d}, Observe: d.Observe})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, s http.Handler, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != 200 {
		t.Fatalf("GET %s = %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

func TestSystem(t *testing.T) {
	s := newServer(t)
	for path, want := range map[string]string{
		"/health":       `^{"status":"ok","ready":true,"node":"525400123456","version":".+","uptime":[0-9.e-]+}`,
		"/version":      `^{"version":".+","go":"go.+","os":"linux","arch":".+"}`,
		"/openapi.yaml": `^openapi: 3\.1\.0`,
	} {
		if got := get(t, s, path); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s = %s, want %s", path, got, want)
		}
	}
}

// TestHealthOfController has the fields of both, its own before ours.
func TestHealthOfController(t *testing.T) {
	d, err := New(Config{
		Health:     func() Health { return Health{Ready: true, Node: "525400123456"} },
		Containers: func() map[string]int { return nil },
		Controller: func(context.Context) any { return map[string]any{"status": "healthy", "uptime_seconds": 7} },
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{Dialects: []api.Dialect{d}})
	if err != nil {
		t.Fatal(err)
	}
	want := `^{"node":"525400123456","ready":true,"status":"healthy","uptime":[0-9.e-]+,"uptime_seconds":7,"version":".+"}`
	if got := get(t, s, "/health"); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("/health = %s, want %s", got, want)
	}
}

func TestMetrics(t *testing.T) {
	s := newServer(t)
	get(t, s, "/nodes/525400123456")
	for _, path := range []string{"/nodes/a/mem", "/nodes/b/mem", "/none1", "/none2"} {
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("BREW", path, nil))
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	got := get(t, s, "/metrics")
	for _, want := range []string{
		`buoy_api_requests_total{code="200",method="GET",route="/nodes/{nodeid}"} 1`,
		`buoy_api_requests_total{code="404",method="GET",route="/nodes/{nodeid}/mem"} 2`,
		`buoy_api_requests_total{code="404",method="GET",route="none"} 2`,
		`method="other"`,
		`buoy_api_request_duration_seconds_count{method="GET",route="/nodes/{nodeid}"} 1`,
		`buoy_containers{status="running"} 3`,
		`buoy_build_info{go="go`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("metrics lack %s:\n%s", want, got)
		}
	}
	if strings.Contains(got, "none1") || strings.Contains(got, "BREW") {
		t.Errorf("a client can make series:\n%s", got)
	}
}

// TestDocs: the reference has every operation and schema, all its links lead
// somewhere, and it needs nothing from elsewhere.
func TestDocs(t *testing.T) {
	s := newServer(t)
	page := get(t, s, "/docs")
	doc, _ := parse(t)
	var missing []string
	for _, item := range doc.Paths {
		for _, op := range item {
			if op, ok := op.(map[string]any); ok && !strings.Contains(page, fmt.Sprintf("<details id=%q>", op["operationId"])) {
				missing = append(missing, fmt.Sprint(op["operationId"]))
			}
		}
	}
	for name := range doc.Components["schemas"] {
		if !strings.Contains(page, fmt.Sprintf("<h3 id=%q>", "schema-"+name)) {
			missing = append(missing, name)
		}
	}
	for _, link := range regexp.MustCompile(`href="#([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, fmt.Sprintf("id=%q", link[1])) {
			missing = append(missing, link[0])
		}
	}
	if len(missing) > 0 {
		t.Errorf("missing: %q", missing)
	}
	if found := regexp.MustCompile(`<script|src=|href="https?:|url\(|@import`).FindString(page); found != "" {
		t.Errorf("it loads %s", found)
	}
}

// TestDocuments: they are told once, small.
func TestDocuments(t *testing.T) {
	s := newServer(t)
	var tree map[string]any
	if err := json.Unmarshal([]byte(get(t, s, "/openapi.json")), &tree); err != nil || tree["openapi"] != "3.1.0" {
		t.Errorf("%v, %v", tree["openapi"], err)
	}
	for _, path := range []string{"/docs", "/openapi.json"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := io.ReadAll(z); err != nil || string(raw) != get(t, s, path) {
			t.Errorf("%s packed is another: %v", path, err)
		}
		r.Header.Set("If-None-Match", w.Header().Get("ETag"))
		again := httptest.NewRecorder()
		s.ServeHTTP(again, r)
		if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("%s again: %d, %d bytes", path, again.Code, again.Body.Len())
		}
	}
}

// unread is a client that asks and does not read.
type unread struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (u *unread) SetWriteDeadline(t time.Time) error { u.until = t; return nil }

func (u *unread) Write([]byte) (int, error) {
	time.Sleep(time.Until(u.until))
	return 0, os.ErrDeadlineExceeded
}

func (u *unread) FlushError() error { return os.ErrDeadlineExceeded }

// TestDocumentsInTurn: however many ask and do not read, few documents are in
// memory, and who reads has his in the end.
func TestDocumentsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		var clients sync.WaitGroup
		for range 3 * maxDocuments {
			clients.Go(func() {
				s.ServeHTTP(&unread{ResponseRecorder: httptest.NewRecorder()}, httptest.NewRequest("GET", "/openapi.yaml", nil))
			})
		}
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		clients.Go(func() {
			s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, "GET", "/docs", nil))
		})
		synctest.Wait()
		cancel()
		begin := time.Now()
		clients.Wait()
		if took := time.Since(begin); took != 3*documentTime {
			t.Errorf("all had their turn after %s", took)
		}
		get(t, s, "/docs")
	})
}

type document struct {
	Paths      map[string]map[string]any `yaml:"paths"`
	Components map[string]map[string]any `yaml:"components"`
}

func parse(t *testing.T) (document, any) {
	t.Helper()
	var d document
	if err := yaml.Unmarshal(openapi, &d); err != nil {
		t.Fatal(err)
	}
	var raw any
	if err := yaml.Unmarshal(openapi, &raw); err != nil {
		t.Fatal(err)
	}
	return d, raw
}

// TestEveryRouteIsDescribed and no other.
func TestEveryRouteIsDescribed(t *testing.T) {
	doc, _ := parse(t)
	var described, registered []string
	for path, item := range doc.Paths {
		for method := range item {
			if method != "parameters" {
				described = append(described, strings.ToUpper(method)+" "+path)
			}
		}
	}
	err := chi.Walk(newServer(t).Routes(), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		registered = append(registered, method+" "+route)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(described)
	slices.Sort(registered)
	if diff := cmp.Diff(registered, described); diff != "" {
		t.Errorf("-registered +described\n%s", diff)
	}
}

// TestDocument checks what each operation must have, the references and the examples.
func TestDocument(t *testing.T) {
	doc, raw := parse(t)
	schemas, err := testapi.Read("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	walk(raw, "", func(at string, m map[string]any) {
		if ref, ok := m["$ref"].(string); ok {
			used[ref] = true
			if resolve(doc, ref) == nil {
				t.Errorf("%s: %s leads nowhere", at, ref)
			}
		}
		if example, ok := m["example"]; ok && m["schema"] != nil {
			values := []any{example}
			if lines, ok := example.(string); ok && strings.HasSuffix(at, "ndjson") {
				values = nil
				for line := range strings.Lines(lines) {
					values = append(values, json.RawMessage(line))
				}
			}
			for _, v := range values {
				if err := schemas.Fits("#"+at+"/schema", jsonOf(t, v)); err != nil {
					t.Errorf("%s: the example does not fit: %v", at, err)
				}
			}
		}
	})
	for kind, group := range doc.Components {
		for name := range group {
			if ref := "#/components/" + kind + "/" + name; !used[ref] {
				t.Errorf("%s is used nowhere", ref)
			}
		}
	}
	ids := map[string]bool{}
	for path, item := range doc.Paths {
		for method, op := range item {
			op, ok := op.(map[string]any)
			if !ok {
				continue // parameters
			}
			id, _ := op["operationId"].(string)
			if id == "" || ids[id] || op["summary"] == nil || op["tags"] == nil || op["responses"] == nil {
				t.Errorf("%s %s lacks an id of its own, tags, a summary or responses", method, path)
			}
			ids[id] = true
		}
	}
}

// walk calls f with each object of the document.
func walk(v any, at string, f func(at string, m map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		f(at, v)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			walk(v[key], at+"/"+testapi.Key(key), f)
		}
	case []any:
		for i, item := range v {
			walk(item, fmt.Sprintf("%s/%d", at, i), f)
		}
	}
}

func resolve(doc document, ref string) any {
	parts := strings.Split(ref, "/")
	if len(parts) != 4 || parts[0] != "#" || parts[1] != "components" {
		return nil
	}
	return doc.Components[parts[2]][parts[3]]
}

// jsonOf is a value of YAML as JSON has it.
func jsonOf(t *testing.T, v any) (out any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err == nil {
		out, err = jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

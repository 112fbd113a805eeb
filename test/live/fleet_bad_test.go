package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// joined adds a node to a fleet.
func (f *fleet) joined(id string, args ...string) *daemon {
	f.t.Helper()
	n := newDaemon(f.t, append([]string{
		"--node-id", id, "--report-interval", "1s", "--controller", "http://" + f.addr, "--join-token", "@" + filepath.Join(f.data(), "join-token"),
		"--port-range", portRange(f.t),
	}, args...)...)
	f.nodes = append(f.nodes, n)
	f.await(id+" is there", func() bool { h := f.host(id); return h.Liveness == "alive" && h.Linked })
	return n
}

// host is one of the hosts, or none.
func (f *fleet) host(id string) host {
	for _, h := range f.hosts() {
		if h.HostID == id {
			return h
		}
	}
	return host{}
}

// on has an app run on these hosts alone.
func on(hosts ...string) map[string]any {
	return map[string]any{"patience": "4s", "constraints": []any{map[string]any{"attribute": "id", "op": "in", "values": hosts}}}
}

// refusal is an answer that says what is wrong.
type refusal struct {
	Error, Details, Code string
	Problems             []struct{ Path, Message string }
	Hosts                []struct{ Name, Reason string }
}

// ask sends a request, and gives status and body.
func (f *fleet) ask(method, path string, body any) (int, refusal) {
	f.t.Helper()
	text, ok := body.(string)
	if !ok && body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			f.t.Fatal(err)
		}
		text = string(raw)
	}
	status, _, answer := f.raw(method, path, text)
	var r refusal
	if status >= 400 && json.Unmarshal([]byte(answer), &r) != nil {
		r.Details = answer
	}
	return status, r
}

// must is ask for what works.
func (f *fleet) must(method, path string, body any) {
	f.t.Helper()
	if status, r := f.ask(method, path, body); status/100 != 2 {
		f.t.Fatalf("%s %s: %d %+v", method, path, status, r)
	}
}

// launched counts how often the hosts have launched each launch id.
func (f *fleet) launched() map[string]int {
	n := map[string]int{}
	for _, d := range f.nodes {
		for line := range strings.Lines(d.log.String()) {
			if _, rest, ok := strings.Cut(line, "msg=launched launch="); ok {
				n[strings.Fields(rest)[0]]++
			}
		}
	}
	return n
}

// once says that no launch has happened twice, and that hosts have exactly the
// containers that the controller knows of the app.
func (f *fleet) once(name string) {
	f.t.Helper()
	for id, n := range f.launched() {
		if n > 1 {
			f.t.Errorf("%s was launched %d times", id, n)
		}
	}
	var here, known []string
	for _, d := range f.nodes {
		for _, c := range d.list() {
			one, err := d.client.Container(f.t.Context(), c.Name)
			if err != nil {
				f.t.Fatal(err)
			}
			if one.Labels["buoy.app"] == name {
				here = append(here, one.Labels["buoy.launch"])
			}
		}
	}
	for _, c := range f.state(name).Containers {
		known = append(known, c.ID)
	}
	slices.Sort(here)
	slices.Sort(known)
	if !slices.Equal(here, known) {
		f.t.Errorf("hosts have %d containers of %s: %v; the controller knows %d: %v", len(here), name, here, len(known), known)
	}
}

// TestFleetUnknown: what is not there is said not to be, by each route.
func TestFleetUnknown(t *testing.T) {
	f := newFleet(t, 1)
	for _, route := range []string{
		"GET ", "DELETE ", "POST /start", "POST /stop", "POST /scale {\"replicas\": 1}", "GET /spec", "GET /revisions", "GET /metrics", "GET /events", "GET /logs",
		"GET /scaling", "PUT /scaling {\"max_replicas\": 1}", "POST /simulate {\"rps\": 1}", "GET /health", "POST /health/check", "GET /explain",
		"POST /rebalance", "POST /rollback", "POST /rollout/pause", "POST /rollout/resume", "POST /rollout/promote",
	} {
		parts := strings.SplitN(route, " ", 3)
		body := ""
		if len(parts) == 3 {
			body = parts[2]
		}
		status, r := f.ask(parts[0], "/api/v1/apps/nobody"+parts[1], body)
		if status != http.StatusNotFound || r.Code != "APP_NOT_FOUND" || !strings.Contains(r.Details, "nobody") {
			t.Errorf("%s: %d %+v", route, status, r)
		}
	}
	for route, body := range map[string]string{
		"DELETE /apps/nobody": "", "POST /apps/nobody/up": "", "POST /apps/nobody/down": "", "GET /apps/nobody/status": "", "GET /apps/nobody/raw": "",
		"GET /service/nobody": "", "GET /service/nobody/status": "", "POST /service/nobody/scale": `{"number": 1}`,
		"GET /osc/register/nobody": "", "POST /osc/start/nobody": "", "POST /osc/stop/nobody": "",
		"GET /host/nobody/detail": "", "GET /host/nobody/status": "", "POST /host/nobody/drain": "{}", "POST /host/nobody/terminate": "{}",
		"GET /engine/nobody/instances": "", "GET /engine/nobody/launches": "", "GET /engine/instance/nobody/detail": "",
		"POST /engine/instance/register": `{"launchID": "nobody"}`, "GET /nodes/nobody/containers": "",
	} {
		method, path, _ := strings.Cut(route, " ")
		if status, _, text := f.raw(method, path, body); status != http.StatusNotFound || !strings.Contains(text, "nobody") {
			t.Errorf("%s: %d %s", route, status, text)
		}
	}
}

// TestFleetInvalid: all that is wrong with a manifest is said at once, each with
// its path; and nothing of it is done.
func TestFleetInvalid(t *testing.T) {
	f := newFleet(t, 1)
	bad := map[string]any{
		"apiVersion": "v1", "kind": "App", "metadata": map[string]any{"name": "no good"},
		"spec": map[string]any{
			"image": image(t), "colour": "blue", "ports": []any{map[string]any{"containerPort": 70000}},
			"resources": map[string]any{"memory": "much"}, "volumes": []any{map[string]any{"name": "v", "mountPath": "here"}},
			"healthCheck": map[string]any{"periodSeconds": -1}, "rollout": map[string]any{"canary": "a few"},
		},
		"scaling": map[string]any{"minReplicas": 3, "maxReplicas": 2},
	}
	for _, path := range []string{"/api/v1/apps/register", "/api/v1/apps/apply", "/api/v1/apps/plan"} {
		status, r := f.ask(http.MethodPost, path, bad)
		if status != http.StatusBadRequest || r.Code != "INVALID_SPEC" {
			t.Errorf("%s: %d %+v", path, status, r)
		}
		var paths []string
		for _, p := range r.Problems {
			paths = append(paths, p.Path)
		}
		for _, want := range []string{
			"metadata.name", "spec.colour", "spec.ports[0].containerPort", "spec.resources.memory", "spec.volumes[0].mountPath",
			"spec.healthCheck.periodSeconds", "spec.rollout.canary",
		} {
			if !slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(p, want) }) {
				t.Errorf("%s: nothing is said of %s, but of %v", path, want, paths)
			}
		}
	}
	// What is well formed and makes no sense.
	status, r := f.ask(http.MethodPost, "/api/v1/apps/apply", manifest(t, "web", map[string]any{
		"scaling":     map[string]any{"minReplicas": 3, "maxReplicas": 2},
		"environment": []any{map[string]any{"name": "A", "source": "sdk", "key": "weather"}},
		"placement":   map[string]any{"constraints": []any{map[string]any{"attribute": "mood", "value": "x"}}},
	}))
	var paths []string
	for _, p := range r.Problems {
		paths = append(paths, p.Path)
	}
	want := []string{"scaling.minReplicas", "spec.environment[0]", "spec.placement.constraints[0].attribute"}
	slices.Sort(paths)
	if status != http.StatusBadRequest || !slices.Equal(paths, want) {
		t.Errorf("%d, problems of %v; want %v", status, paths, want)
	}
	var all struct{ Total int }
	if err := f.client.Do(t.Context(), http.MethodGet, "/api/v1/apps", nil, &all); err != nil || all.Total != 0 {
		t.Errorf("there are %d apps, %v", all.Total, err)
	}
}

// TestFleetScaleRefused: beyond the limits, while scaling, and where there is no room.
func TestFleetScaleRefused(t *testing.T) {
	f := newFleet(t, 1)
	m := manifest(t, "web", map[string]any{
		"scaling":     map[string]any{"mode": "manual", "minReplicas": 1, "maxReplicas": 4},
		"healthCheck": map[string]any{"command": []any{"test", "-e", "/tmp/well"}, "periodSeconds": 1, "initialDelaySeconds": 3600},
	})
	f.apply(m)
	f.await("one runs", func() bool { return f.state("web").Replicas.Current == 1 })
	for body, want := range map[string]string{
		`{"replicas": 5}`: "409 SCALING_LIMITS", `{"replicas": -1}`: "400 VALIDATION_ERROR", `{}`: "400 VALIDATION_ERROR", `{"replicas": "many"}`: "400 VALIDATION_ERROR",
		`{"replicas": 2}`: "409 SCALING_IN_PROGRESS", // the one that there is is not well yet
	} {
		status, r := f.ask(http.MethodPost, "/api/v1/apps/web/scale", body)
		if got := fmt.Sprint(status, " ", r.Code); got != want {
			t.Errorf("%s: %s, want %s: %+v", body, got, want, r)
		}
	}
	if status, r := f.ask(http.MethodPost, "/api/v1/apps/web/start", `{"replicas": 9}`); status != http.StatusConflict || r.Code != "SCALING_LIMITS" {
		t.Errorf("start: %d %+v", status, r)
	}
	c := f.list()[0].Name
	f.exec(c, "/bin/touch", "/tmp/well")
	f.up("web", 1)
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 2}`)
	if status, r := f.ask(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 3}`); status != http.StatusConflict || r.Code != "SCALING_IN_PROGRESS" {
		t.Errorf("while it scales: %d %+v", status, r)
	}
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 2}`) // the same is fine

	// Three of a half of the memory do not fit.
	mem, err := f.client.Memory(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	f.apply(manifest(t, "big", map[string]any{"resources": map[string]any{"memory": mem.Total * 2 / 5}}))
	f.up("big", 1)
	status, r := f.ask(http.MethodPost, "/api/v1/apps/big/scale", `{"replicas": 3}`)
	if status != http.StatusServiceUnavailable || r.Code != "INSUFFICIENT_RESOURCES" || len(r.Hosts) != 1 || !strings.Contains(r.Hosts[0].Reason, "memory") {
		t.Errorf("%d %+v", status, r)
	}
	f.must(http.MethodPost, "/api/v1/apps/big/scale", `{"replicas": 1, "wait": true, "timeout": 20}`)
	f.up("big", 1)
	f.once("big")
}

// replayer is a proxy before a controller that repeats all orders to launch
// that it has ever seen, with each answer, and keeps what hosts report.
type replayer struct {
	*httptest.Server
	mu       sync.Mutex // guards all below
	orders   map[string]json.RawMessage
	repeated int // after they were carried out
	reports  []*http.Request
	bodies   [][]byte
}

func newReplayer(t *testing.T, controller string) *replayer {
	to, err := url.Parse("http://" + controller)
	if err != nil {
		t.Fatal(err)
	}
	r := &replayer{orders: map[string]json.RawMessage{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.Out.Header.Del("Prefer") // each answer has a body
			if strings.HasSuffix(p.In.URL.Path, "/updatestatus") {
				r.keep(p.Out)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			if !strings.HasSuffix(resp.Request.URL.Path, "/updatestatus") || resp.StatusCode != http.StatusOK {
				return nil
			}
			return r.repeat(resp)
		},
	}
	r.Server = httptest.NewServer(proxy)
	t.Cleanup(r.Close)
	return r
}

func (r *replayer) keep(req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // and so it fails
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports, r.bodies = append(r.reports, req.Clone(context.WithoutCancel(req.Context()))), append(r.bodies, body)
}

func (r *replayer) repeat(resp *http.Response) error {
	var answer map[string]json.RawMessage
	var launches []json.RawMessage
	if err := errors.Join(json.NewDecoder(resp.Body).Decode(&answer), json.Unmarshal(answer["launchContainer"], &launches)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh := map[string]bool{}
	for _, l := range launches {
		var id struct{ LaunchID string }
		if err := json.Unmarshal(l, &id); err != nil {
			return err
		}
		fresh[id.LaunchID] = true
		r.orders[id.LaunchID] = l
	}
	for id, l := range r.orders {
		if !fresh[id] {
			r.repeated++
			launches = append(launches, l)
		}
	}
	raw, err := json.Marshal(launches)
	if err != nil {
		return err
	}
	answer["launchContainer"] = raw
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	resp.Header.Set("Content-Length", fmt.Sprint(len(text)))
	return nil
}

func (r *replayer) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.repeated
}

// TestFleetReplays: orders that come again and again, also long after they were
// carried out and taken back, launch nothing twice; reports that come again
// change nothing.
func TestFleetReplays(t *testing.T) {
	f := newFleet(t, 1)
	proxy := newReplayer(t, f.addr)
	n2 := f.joined("n2", "--controller", proxy.URL)
	f.apply(manifest(t, "web", map[string]any{"replicas": 3, "placement": on("n2")}))
	f.up("web", 3)
	before := pidsOf(n2)
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 1, "wait": true}`)
	seen := proxy.count()
	f.await("orders are repeated that were taken back", func() bool { return proxy.count() > seen+5 })
	n2.kill() // and its agent forgets what it did
	n2.start()
	seen = proxy.count()
	f.await("orders are repeated to the next agent", func() bool { return proxy.count() > seen+5 })
	f.up("web", 1)
	f.once("web")

	proxy.mu.Lock()
	reports, bodies := slices.Clone(proxy.reports), slices.Clone(proxy.bodies)
	proxy.mu.Unlock()
	conflicts := 0
	for i, r := range reports {
		r.Body, r.RequestURI = io.NopCloser(bytes.NewReader(bodies[i])), ""
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		switch resp.StatusCode {
		case http.StatusOK, http.StatusNoContent, http.StatusUnauthorized: // its token is void
		case http.StatusConflict:
			conflicts++
		default:
			t.Errorf("a report of old: %d %s", resp.StatusCode, text)
		}
	}
	f.up("web", 1)
	f.once("web")
	for name, pid := range pidsOf(n2) {
		if before[name] != pid {
			t.Errorf("%s was process %d and is %d", name, before[name], pid)
		}
	}
	t.Logf("%d orders were repeated, %d reports, of which %d are of an agent that has died", proxy.count(), len(reports), conflicts)
}

// TestFleetHugeReport: a host with ten thousand containers is heard as others
// are, and disturbs nobody.
func TestFleetHugeReport(t *testing.T) {
	f := newFleet(t, 1)
	f.apply(manifest(t, "web", map[string]any{"replicas": 2, "placement": on("n1")}))
	f.up("web", 2)
	before := pidsOf(f.daemon)
	token, err := os.ReadFile(filepath.Join(f.data(), "join-token"))
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		Boot            string           `json:"boot"`
		Sequence        int              `json:"sequence"`
		NumContainers   int              `json:"numContainers"`
		ContainerStatus []map[string]any `json:"containerStatus"`
	}
	status.Boot, status.NumContainers = "b", 10_000
	for i := range 10_000 {
		of := "web" // which knows nothing of it
		if i%2 > 0 {
			of = "somebody-else"
		}
		status.ContainerStatus = append(status.ContainerStatus, map[string]any{
			"dockerContainerId": fmt.Sprint("c", i), "launchID": fmt.Sprint("launch-of-a-container-", i), "engineID": of, "state": "running",
			"health": map[string]any{"status": "healthy", "lastCheck": "2026-01-01T00:00:00Z"}, "ports": map[string]string{"80": fmt.Sprint(":", 10000+i)},
			"address": "10.1.2.3", "digest": "sha256:" + strings.Repeat("0", 64), "started": "2026-01-01T00:00:00Z", "CPUUtilization": 0.5, "memoryUsed": 1 << 20,
		})
	}
	req := bearer("Bearer " + strings.TrimSpace(string(token)))
	var joined struct{ HostID, HostToken string }
	req.post(f, "/host/register", map[string]any{"info": map[string]any{"hostID": "huge", "numCPU": 64, "memory": 1 << 38, "ips": []string{}}}, &joined)
	req = bearer("Bearer " + joined.HostToken)
	var orders struct{ LaunchContainer, TerminateContainer []any }
	for n := range 4 {
		status.Sequence = n + 1
		req.post(f, "/host/huge/updatestatus", status, &orders)
		if len(orders.TerminateContainer) != 5000 || len(orders.LaunchContainer) != 0 {
			t.Errorf("ordered are %d ends and %d launches", len(orders.TerminateContainer), len(orders.LaunchContainer))
		}
	}
	f.up("web", 2)
	if h := f.host("huge"); h.Liveness != "alive" {
		t.Errorf("%+v", h)
	}
	if after := pidsOf(f.daemon); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("processes were %v and are %v", before, after)
	}
}

// TestFleetTwins: of two agents with one id the later one is the host; the other
// one is told so, and does not take its place by registering again.
func TestFleetTwins(t *testing.T) {
	f := newFleet(t, 1)
	token, err := os.ReadFile(filepath.Join(f.data(), "join-token"))
	if err != nil {
		t.Fatal(err)
	}
	join := bearer("Bearer " + strings.TrimSpace(string(token)))
	as := func(boot string) map[string]any {
		return map[string]any{"info": map[string]any{"hostID": "twin", "ips": []string{}}, "status": map[string]any{"boot": boot, "sequence": 1, "containerStatus": []any{}}}
	}
	var first, second struct{ HostToken string }
	join.post(f, "/host/register", as("a"), &first)
	join.post(f, "/host/register", as("b"), &second)
	if status, text := bearer("Bearer "+first.HostToken).try(f, "/host/twin/updatestatus", map[string]any{"boot": "a", "sequence": 2}); status != http.StatusUnauthorized {
		t.Errorf("the first one reports: %d %s", status, text)
	}
	if status, text := join.try(f, "/host/register", as("a")); status != http.StatusConflict || !strings.Contains(text, "two agents") {
		t.Errorf("the first one registers again: %d %s", status, text)
	}
	var orders struct{ Mode string }
	bearer("Bearer "+second.HostToken).post(f, "/host/twin/updatestatus", map[string]any{"boot": "b", "sequence": 2}, &orders)
	if orders.Mode != "continue" {
		t.Errorf("the second one is told to %q", orders.Mode)
	}
}

// bearer is the Authorization of a host.
type bearer string

func (h bearer) post(f *fleet, path string, body, answer any) {
	f.t.Helper()
	if status, text := h.try(f, path, body); status/100 != 2 || json.Unmarshal([]byte(text), answer) != nil {
		f.t.Fatalf("POST %s: %d %.300s", path, status, text)
	}
}

func (h bearer) try(f *fleet, path string, body any) (status int, text string) {
	f.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, "http://"+f.addr+path, bytes.NewReader(raw))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", string(h))
	req.Header.Set("Content-Type", "application/json")
	resp, err := f.http.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// TestFleetFullDisk: where the controller can keep nothing it says so, and
// nothing new is done; what runs is served. When there is room all goes on.
func TestFleetFullDisk(t *testing.T) {
	f := &fleet{web: freeAddr(t)}
	f.daemon = newInstance(t, "--node-id", "n1", "--report-interval", "1s", "--http", f.web, "--port-range", portRange(t))
	if err := os.MkdirAll(f.data(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", f.data(), "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(f.data(), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f.nodes = []*daemon{f.daemon}
	f.start()
	f.joined("n2")
	f.apply(manifest(t, "web", map[string]any{"replicas": 3}))
	f.up("web", 3)

	fill := filepath.Join(f.data(), "fill")
	f.fill(fill)
	limit := 10
	f.await("it says that it cannot keep anything", func() bool {
		limit++
		status, r := f.ask(http.MethodPut, "/api/v1/apps/web/scaling", map[string]any{"max_replicas": limit})
		return status == http.StatusInternalServerError && r.Code == "DATABASE_ERROR"
	})
	if status, r := f.ask(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 6}`); r.Code != "DATABASE_ERROR" {
		t.Errorf("scale: %d %+v", status, r)
	}
	if status, r := f.ask(http.MethodPost, "/api/v1/apps/apply", manifest(t, "other", nil)); r.Code != "DATABASE_ERROR" {
		t.Errorf("apply: %d %+v", status, r)
	}
	stop := f.load("web", 2)
	f.await("hosts report", func() bool { return f.host("n2").Liveness == "alive" && f.host("n1").Liveness == "alive" })
	if n, failures := stop(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), n, failures[:min(3, len(failures))])
	}
	f.killAndStart() // it starts with a full disk, too
	f.up("web", 3)
	f.await("all answer", func() bool { return len(f.answering("web", 20, 0)) == 3 })

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	f.await("it goes on", func() bool {
		status, _ := f.ask(http.MethodPost, "/api/v1/apps/apply", manifest(t, "other", nil))
		return status == http.StatusOK
	})
	f.up("other", 1)
	f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 5}`)
	f.up("web", 5)
	f.once("web")
	f.once("other")
}

// fill writes a file until the disk is full.
func (f *fleet) fill(path string) {
	f.t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = file.Write(block)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		f.t.Fatal(err)
	}
}

// TestFleetControllerDies: kill -9 of the controller at any moment of scaling
// leaves exactly as many as are wanted, each launched once.
func TestFleetControllerDies(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	f.apply(manifest(t, "web", nil))
	f.up("web", 1)
	for round := range 3 {
		moment := rand.IntN(18)
		t.Logf("round %d: killed when %d are there", round, moment)
		f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 20}`)
		n2 := f.nodes[1]
		f.await("some are there", func() bool { return len(n2.list())*2 >= moment })
		f.kill()
		f.start()
		f.up("web", 20)
		f.once("web")
		f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 1}`)
		f.up("web", 1)
		f.once("web")
	}
}

// TestFleetAgentDies: likewise of a node.
func TestFleetAgentDies(t *testing.T) {
	f := newFleet(t, 2)
	n2 := f.nodes[1]
	f.apply(manifest(t, "web", map[string]any{"placement": on("n2")}))
	f.up("web", 1)
	for round := range 3 {
		moment := 1 + rand.IntN(11)
		t.Logf("round %d: killed when %d are there", round, moment)
		f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 12}`)
		f.await("some are there", func() bool { return len(n2.list()) >= moment })
		n2.kill()
		n2.start()
		f.up("web", 12)
		f.once("web")
		f.must(http.MethodPost, "/api/v1/apps/web/scale", `{"replicas": 1}`)
		f.up("web", 1)
		f.once("web")
	}
}

// TestFleetControllerForgets: a controller that has lost all that it had takes
// the hosts in again by the join token. What runs on them runs on until the app
// is applied again, and then there is just what is wanted.
func TestFleetControllerForgets(t *testing.T) {
	f := newFleet(t, 3)
	app := manifest(t, "web", map[string]any{"replicas": 4, "placement": on("n2", "n3")})
	f.apply(app)
	f.up("web", 4)
	before := []map[string]int{pidsOf(f.nodes[1]), pidsOf(f.nodes[2])}
	f.kill()
	if err := os.RemoveAll(f.data()); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.await("all hosts are there again", func() bool {
		return !slices.ContainsFunc([]string{"n1", "n2", "n3"}, func(id string) bool { h := f.host(id); return h.Liveness != "alive" || !h.Linked })
	})
	if status, r := f.ask(http.MethodGet, "/api/v1/apps/web", nil); status != http.StatusNotFound {
		t.Errorf("it is known: %d %+v", status, r)
	}
	if after := []map[string]int{pidsOf(f.nodes[1]), pidsOf(f.nodes[2])}; fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("processes were %v and are %v", before, after)
	}
	f.apply(app)
	f.up("web", 4)
	f.await("nothing else is left", func() bool { return len(f.nodes[1].list())+len(f.nodes[2].list()) == 4 })
	f.once("web")
}

// TestFleetCutOff: a node that is cut off for longer than anybody waits keeps
// all that it runs, and what has been placed elsewhere goes when it is back.
func TestFleetCutOff(t *testing.T) {
	f := newFleet(t, 2)
	n2 := f.nodes[1]
	f.apply(manifest(t, "web", map[string]any{"replicas": 4}))
	patient := on("n2")
	patient["patience"] = "forever"
	f.apply(manifest(t, "patient", map[string]any{"replicas": 2, "placement": patient}))
	f.up("web", 4)
	f.up("patient", 2)
	before := pidsOf(n2)
	if err := n2.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.await("n2 is lost", func() bool { return f.host("n2").Liveness == "lost" })
	f.await("four run elsewhere", func() bool {
		here := 0
		for _, c := range f.state("web").Containers {
			if c.Host == "n1" && c.Health == "healthy" {
				here++
			}
		}
		return here == 4
	})
	if s := f.state("patient"); s.Replicas.Current != 2 || s.Replicas.Healthy != 0 {
		t.Errorf("patient: %+v", s.Replicas)
	}
	if err := n2.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f.up("web", 4)
	f.up("patient", 2)
	if after := pidsOf(n2); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("n2's processes were %v and are %v", before, after)
	}
	f.once("web")
	f.once("patient")
}

package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// fleet is a controller, which is a node too, and more nodes, all on this
// machine, each with its own data, run directory, bridge and id.
type fleet struct {
	*daemon           // the controller, n1
	nodes   []*daemon // all, the controller first
	web     string    // where the balancer answers HTTP
}

// newFleet starts one; nodes are lost after three seconds.
func newFleet(t *testing.T, nodes int, args ...string) *fleet {
	t.Helper()
	f := &fleet{web: freeAddr(t)}
	f.daemon = newDaemon(t, append([]string{"--node-id", "n1", "--report-interval", "1s", "--http", f.web, "--port-range", portRange(t)}, args...)...)
	f.nodes = []*daemon{f.daemon}
	for i := 2; i <= nodes; i++ {
		f.nodes = append(f.nodes, newDaemon(t, "--node-id", fmt.Sprint("n", i), "--report-interval", "1s",
			"--controller", "http://"+f.addr, "--join-token", "@"+filepath.Join(f.data(), "join-token"),
			"--label", fmt.Sprint("zone=z", i), "--port-range", portRange(t)))
	}
	t.Cleanup(func() {
		var events json.RawMessage
		if t.Failed() && f.client.Do(context.WithoutCancel(t.Context()), http.MethodGet, "/api/v1/apps/web/events?limit=30", nil, &events) == nil {
			t.Logf("events: %s", events)
		}
	})
	f.await("all nodes are there", func() bool {
		alive := 0
		for _, h := range f.hosts() {
			if h.Liveness == "alive" && h.Linked {
				alive++
			}
		}
		return alive == nodes
	})
	return f
}

// host is what GET /hosts says of a host.
type host struct {
	HostID     string `json:"hostID"`
	Liveness   string `json:"liveness"`
	NumEngines int    `json:"numEngines"`
	Mode       string `json:"mode"`
	Linked     bool   `json:"linked"`
}

func (f *fleet) hosts() []host {
	var all struct{ Result []host }
	if err := f.client.Do(f.t.Context(), http.MethodGet, "/hosts", nil, &all); err != nil {
		return nil
	}
	return all.Result
}

// manifest is an app whose replicas answer with their name.
func manifest(t testing.TB, name string, more map[string]any) map[string]any {
	spec := map[string]any{
		"type": "http", "image": image(t), "ports": []any{map[string]any{"containerPort": 8000, "protocol": "HTTP"}},
		"command": []any{"/bin/sh", "-c", `mkdir -p /tmp/w && echo "$REPLICA $NODE $VERSION" > /tmp/w/index.html && exec httpd -f -p 8000 -h /tmp/w`},
		"environment": []any{
			map[string]any{"name": "REPLICA", "source": "sdk", "key": "instance.name"},
			map[string]any{"name": "NODE", "source": "sdk", "key": "host.id"},
			map[string]any{"name": "VERSION", "value": "1"},
		},
		"termination": map[string]any{"drainSeconds": 5, "terminationGracePeriodSeconds": 1},
		"healthCheck": map[string]any{"path": "/", "periodSeconds": 1, "timeoutSeconds": 2},
		"placement":   map[string]any{"patience": "4s"},
	}
	m := map[string]any{"apiVersion": "v1", "kind": "App", "metadata": map[string]any{"name": name}, "spec": spec}
	for k, v := range more {
		if k == "scaling" {
			m[k] = v
		} else {
			spec[k] = v
		}
	}
	return m
}

func (f *fleet) apply(m map[string]any) {
	f.t.Helper()
	if err := f.client.Do(f.t.Context(), http.MethodPost, "/api/v1/apps/apply", m, nil); err != nil {
		f.t.Fatal(err)
	}
}

// appState is what GET /api/v1/apps/{name} says, as far as tests care.
type appState struct {
	Status     string
	Message    string
	Replicas   struct{ Current, Desired, Healthy int }
	Metrics    struct{ RPS float64 }
	Containers []struct {
		ID, Name, Host, Status, Health string
	}
}

func (f *fleet) state(name string) (s appState) {
	f.t.Helper()
	if err := f.client.Do(f.t.Context(), http.MethodGet, "/api/v1/apps/"+name, nil, &s); err != nil {
		f.t.Fatal(err)
	}
	return s
}

// up waits until all of n replicas are healthy, and no other is left.
func (f *fleet) up(name string, n int) {
	f.t.Helper()
	f.await(fmt.Sprintf("%d of %s run", n, name), func() bool {
		s := f.state(name)
		there := 0
		for _, c := range s.Containers {
			if c.Status != "standby" {
				there++
			}
		}
		return s.Status == "running" && s.Replicas.Healthy == n && s.Replicas.Current == n && there == n
	})
}

// get asks an app through the balancer.
func (f *fleet) get(name string) (status int, body string) {
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "http://"+f.web+"/", nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Host = name
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// answering are the nodes, or whatever word it is, that n requests are answered by.
func (f *fleet) answering(name string, n, word int) []string {
	seen := map[string]bool{}
	for range n {
		if status, body := f.get(name); status == http.StatusOK {
			seen[strings.Fields(body)[word]] = true
		}
	}
	var out []string
	for k := range seen {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// pidsOf are the processes of a node's containers, by name.
func pidsOf(d *daemon) map[string]int {
	pids := map[string]int{}
	for _, c := range d.list() {
		one, err := d.client.Container(d.t.Context(), c.Name)
		if err == nil && one.PID > 0 {
			pids[c.Name] = one.PID
		}
	}
	return pids
}

func TestFleet(t *testing.T) {
	f := newFleet(t, 3)
	f.apply(manifest(t, "web", map[string]any{"replicas": 6}))
	f.up("web", 6)
	if got := f.answering("web", 60, 1); !slices.Equal(got, []string{"n1", "n2", "n3"}) {
		t.Errorf("answered by %v", got)
	}
	if got := f.answering("web", 60, 0); len(got) != 6 {
		t.Errorf("answered by %v", got)
	}
	f.measured(120, 6)

	// The controller answers for the nodes as they do themselves.
	nodes, err := f.client.Nodes(t.Context())
	if err != nil || len(nodes) != 3 || nodes[0].ID != "n1" {
		t.Fatalf("nodes are %v, %v", nodes, err)
	}
	far := f.client.On("n3")
	list, err := far.Containers(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("containers of n3: %v, %v", list, err)
	}
	id, err := far.Exec(t.Context(), list[0].Name, buoy.Command{Name: "/bin/sh", Args: []string{"-c", "echo far away"}})
	if err != nil {
		t.Fatal(err)
	}
	if j, err := far.WaitJob(t.Context(), list[0].Name, id); err != nil || !strings.Contains(j.Stdout, "far away") {
		t.Errorf("exec on n3: %+v, %v", j, err)
	}

	// kill -9 of a node's daemon, and of the controller: nothing restarts.
	before := []map[string]int{}
	for _, d := range f.nodes {
		before = append(before, pidsOf(d))
	}
	for _, i := range []int{1, 0} {
		f.nodes[i].kill()
		f.nodes[i].start()
	}
	f.up("web", 6)
	f.await("all answer", func() bool { return len(f.answering("web", 30, 1)) == 3 })
	for i, d := range f.nodes {
		d.await("all have been adopted", func() bool { return len(pidsOf(d)) == len(before[i]) })
		if after := pidsOf(d); fmt.Sprint(after) != fmt.Sprint(before[i]) {
			t.Errorf("%s: processes were %v and are %v", nodes[i].ID, before[i], after)
		}
	}
	if err := f.client.Do(t.Context(), http.MethodDelete, "/api/v1/apps/web", nil, nil); err != nil {
		t.Error(err)
	}
	for _, d := range f.nodes {
		if left := d.list(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// measured waits until the metrics, as Prometheus reads them, say that an app,
// the only one, has answered so many requests well, each by one of its replicas.
func (f *fleet) measured(requests float64, replicas int) {
	f.t.Helper()
	f.await("the answers are in the metrics", func() bool {
		_, _, body := f.raw(http.MethodGet, "/metrics", "")
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		if err != nil {
			f.t.Fatal(err)
		}
		answers := map[string]float64{}
		for _, m := range families["buoy_app_responses_total"].GetMetric() {
			answers[m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
		}
		timed := func(name string) (n float64) {
			for _, m := range families[name].GetMetric() {
				n += float64(m.GetHistogram().GetSampleCount())
			}
			return n
		}
		return answers["2xx"] == requests && answers["4xx"]+answers["5xx"] == 0 && timed("buoy_app_request_duration_seconds") == requests &&
			timed("buoy_replica_request_duration_seconds") == requests && len(families["buoy_replica_request_duration_seconds"].GetMetric()) == replicas
	})
}

// TestFleetHostLost: a host that is cut off keeps all running; its replicas are
// placed elsewhere; when it returns the newest go.
func TestFleetHostLost(t *testing.T) {
	f := newFleet(t, 3)
	f.apply(manifest(t, "web", map[string]any{"replicas": 6}))
	f.up("web", 6)
	n3 := f.nodes[2]
	before := pidsOf(n3)
	n3.kill()
	f.await("two replicas cannot be asked for their logs", func() bool {
		l, err := f.client.AppLogs(t.Context(), "web", buoy.AppLogOptions{})
		return err == nil && len(l.Unavailable) == 2 && l.Unavailable[0].Error == `node "n3" is not connected`
	})
	f.await("n3's replicas are elsewhere", func() bool {
		s := f.state("web")
		here := 0
		for _, c := range s.Containers {
			if c.Host != "n3" && c.Health == "healthy" {
				here++
			}
		}
		return here == 6
	})
	if got := f.answering("web", 40, 1); !slices.Equal(got, []string{"n1", "n2"}) {
		t.Errorf("answered by %v", got)
	}
	n3.start()
	f.up("web", 6)
	if after := pidsOf(n3); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("n3's processes were %v and are %v", before, after)
	}
}

// load sends requests until stop is called, and says how many failed and how.
func (f *fleet) load(name string, clients int) (stop func() (n int64, failures []string)) {
	var wg sync.WaitGroup
	var sent atomic.Int64
	var mu sync.Mutex
	var failures []string
	done := make(chan struct{})
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				status, body := f.get(name)
				sent.Add(1)
				if status != http.StatusOK {
					mu.Lock()
					failures = append(failures, fmt.Sprint(status, " ", body))
					mu.Unlock()
				}
			}
		})
	}
	return func() (int64, []string) {
		close(done)
		wg.Wait()
		return sent.Load(), failures
	}
}

// TestFleetRollout: a new revision comes without a request failing, and one
// that does not get well goes again.
func TestFleetRollout(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	m := manifest(t, "web", map[string]any{"replicas": 4})
	f.apply(m)
	f.up("web", 4)
	stop := f.load("web", 4)
	version := func(v string) {
		env := m["spec"].(map[string]any)["environment"].([]any)
		env[2].(map[string]any)["value"] = v
		f.apply(m)
	}
	version("2")
	f.await("revision 2 runs", func() bool { return slices.Equal(f.answering("web", 20, 2), []string{"2"}) })
	f.up("web", 4)
	n, failures := stop()
	if len(failures) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), n, failures[:min(3, len(failures))])
	}
	m["spec"].(map[string]any)["rollout"] = map[string]any{"progressDeadlineSeconds": 10, "autoRevert": true, "maxSurge": 1}
	m["spec"].(map[string]any)["healthCheck"].(map[string]any)["path"] = "/nothing-there"
	stop = f.load("web", 2)
	version("3")
	f.await("revision 3 is given up", func() bool {
		var events struct{ Events []struct{ Message string } }
		if err := f.client.Do(t.Context(), http.MethodGet, "/api/v1/apps/web/events?type=error", nil, &events); err != nil {
			return false
		}
		return slices.ContainsFunc(events.Events, func(e struct{ Message string }) bool {
			return strings.Contains(e.Message, "Revision 3 failed and revision 2 is back")
		})
	})
	f.up("web", 4)
	if n, failures := stop(); len(failures) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), n, failures[:min(3, len(failures))])
	}
	if got := f.answering("web", 20, 2); !slices.Equal(got, []string{"2"}) {
		t.Errorf("versions are %v", got)
	}
}

// TestFleetScales: load brings more replicas, those that stand by first; quiet
// brings them down to the least.
func TestFleetScales(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	often := map[string]any{"scaling": map[string]any{"default_check_interval": 5}}
	if err := f.client.Do(t.Context(), http.MethodPut, "/api/v1/config", often, nil); err != nil {
		t.Fatal(err)
	}
	// A replica that is busy is not to be taken for one that is stuck.
	patient := map[string]any{"path": "/", "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 10}
	f.apply(manifest(t, "web", map[string]any{"standby": 1, "healthCheck": patient, "scaling": map[string]any{
		"mode": "auto", "minReplicas": 1, "maxReplicas": 3, "targetRPSPerReplica": 20, "windowSeconds": 5, "cooldownSeconds": 1, "stabilizationWindowSeconds": 5,
		"maxP95LatencyMs": 30000, "maxCPUPercent": 100, "maxMemoryPercent": 100,
	}}))
	f.up("web", 1)
	stop := f.load("web", 4)
	f.await("it is scaled out", func() bool { return f.state("web").Replicas.Healthy == 3 })
	if n, failures := stop(); len(failures) > 0 {
		t.Errorf("%d of %d requests failed: %s", len(failures), n, failures[:min(3, len(failures))])
	}
	f.await("it is quiet, in the steps that the autoscaler looks at", func() bool {
		var m struct{ History []struct{ RPS float64 } }
		err := f.client.Do(t.Context(), http.MethodGet, "/api/v1/apps/web/metrics?history=2&interval=10s", nil, &m)
		return err == nil && len(m.History) == 2 && m.History[0].RPS+m.History[1].RPS == 0
	})
	f.await("it is scaled in", func() bool { return f.state("web").Replicas.Current < 3 })
	f.await("it is scaled in to the least", func() bool { return f.state("web").Replicas.Current == 1 })
}

// post sends raw bytes.
func (f *fleet) post(path, contentType, body string) (int, string) {
	f.t.Helper()
	resp, err := f.http.Post("http://"+f.addr+path, contentType, bytes.NewReader([]byte(body)))
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestFleetLogs: lines come with the stream they were written to, long ones whole.
func TestFleetLogs(t *testing.T) {
	f := newFleet(t, 1)
	f.apply(map[string]any{"apiVersion": "v1", "kind": "Job", "metadata": map[string]any{"name": "say"}, "spec": map[string]any{
		"image": image(t), "command": []any{"/bin/sh", "-c", `echo out; echo err >&2; head -c 300000 /dev/zero | tr '\0' x; echo`},
	}})
	f.await("all is in the log", func() bool {
		l, err := f.client.AppLogs(t.Context(), "say", buoy.AppLogOptions{})
		streams, longest := map[string]string{}, 0
		for _, line := range l.Lines {
			streams[line.Message] = line.Stream
			longest = max(longest, len(line.Message))
		}
		return err == nil && streams["out"] == "stdout" && streams["err"] == "stderr" && longest == 300_000 && len(l.Lines) == 3
	})
}

// TestFleetRefuses: what no host takes is refused or waits, with the reason of
// each host.
func TestFleetRefuses(t *testing.T) {
	f := newFleet(t, 2)
	m := manifest(t, "big", map[string]any{"resources": map[string]any{"memory": "900Gi"}})
	f.apply(m)
	var why struct{ Hosts []struct{ Reason string } }
	if err := f.client.Do(t.Context(), http.MethodGet, "/api/v1/apps/big/explain", nil, &why); err != nil {
		t.Fatal(err)
	}
	if len(why.Hosts) != 2 || !strings.Contains(why.Hosts[0].Reason, "memory: 900 GiB wanted") {
		t.Errorf("%+v", why)
	}
	f.await("it says so", func() bool { s := f.state("big"); return s.Status == "error" })
	status, body := f.post("/api/v1/apps/big/start", "application/json", `{"wait": true, "timeout": 1}`)
	var e struct{ Code string }
	if json.Unmarshal([]byte(body), &e) != nil || status != http.StatusServiceUnavailable || e.Code != "INSUFFICIENT_RESOURCES" {
		t.Errorf("start of what no host takes: %d %s", status, body)
	}
}

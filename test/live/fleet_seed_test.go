package live

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/buoy-edge/buoy/internal/transcript"
)

// webImage is the reference of an image in a registry whose containers run on,
// answer at port 80 and write a line each second.
func (d *daemon) webImage(tag string) string {
	d.t.Helper()
	t, ok := d.t.(*testing.T)
	if !ok {
		d.t.Fatal("a registry needs a test")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layerOf(t, map[string]string{
		"bin/busybox": string(busybox), "bin/sleep": string(busybox), "www/index.html": "hello\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.Config(img, v1.Config{
		Env: []string{"PATH=/bin"},
		Cmd: []string{"/bin/busybox", "sh", "-c", `while echo "INFO up"; do sleep 1; done & exec busybox httpd -f -p 80 -h /www`},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(startRegistry(t)+"/web:"+tag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	d.await("the registry takes the image", func() bool { return remote.Write(ref, img) == nil })
	return ref.String()
}

// play sends the request of a step, and nothing but it.
func (d *daemon) play(s transcript.Step, words *strings.Replacer) (int, http.Header, []byte) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), s.Method, "http://"+d.addr+words.Replace(s.Path), strings.NewReader(words.Replace(s.Body)))
	if err != nil {
		d.t.Fatal(err)
	}
	for key, values := range s.Header {
		if !strings.HasPrefix(key, "Note-") {
			req.Header.Set(key, words.Replace(values[0]))
		}
	}
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

// TestSeedApps plays every request of the Orchestry document, its WebSockets too.
func TestSeedApps(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	steps, err := transcript.Read("../../api/apps/testdata/seed002.txtar", "nginx:alpine", f.webImage("1"))
	if err != nil {
		t.Fatal(err)
	}
	var logs, metrics, events <-chan map[string]any
	for _, s := range steps {
		if s.Header.Get("Note-Needs") != "" {
			f.await(s.Name+" can be answered", func() bool {
				status, header, body := f.play(s, strings.NewReplacer())
				return s.Check(status, header, body) == nil
			})
		}
		t.Run(s.Name, func(t *testing.T) {
			status, header, body := f.play(s, strings.NewReplacer())
			if err := s.Check(status, header, body); err != nil {
				t.Error(err)
			}
		})
		if strings.HasPrefix(s.Name, "4 ") { // from here on it runs
			logs, metrics, events = f.socket("/api/v1/apps/my-app/logs/stream"), f.socket("/api/v1/apps/my-app/metrics/stream"), f.socket("/api/v1/events/stream")
		}
	}
	for _, tt := range []struct {
		name     string
		messages <-chan map[string]any
		keys     []string
	}{
		{"logs", logs, []string{"timestamp", "container", "message"}},
		{"metrics", metrics, []string{"cpu_percent", "memory_percent"}},
		{"events", events, []string{"type", "app_name", "message"}},
	} {
		message, ok := <-tt.messages
		if !ok {
			t.Errorf("%s: the WebSocket has ended without a message", tt.name)
		}
		for _, key := range tt.keys {
			if _, ok := message[key]; !ok {
				t.Errorf("%s: there is no %q in %v", tt.name, key, message)
			}
		}
	}
}

// socket reads what a WebSocket sends until it, or the test, ends.
func (d *daemon) socket(path string) <-chan map[string]any {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	c, _, err := websocket.Dial(ctx, "ws://"+d.addr+path, nil) //nolint:bodyclose // it has none
	if err != nil {
		cancel()
		d.t.Fatal(err)
	}
	messages := make(chan map[string]any, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(messages)
		for {
			_, text, err := c.Read(ctx)
			if err != nil {
				return
			}
			var m map[string]any
			if err := json.Unmarshal(text, &m); err != nil {
				d.t.Errorf("%s sends %s: %v", path, text, err)
				return
			}
			select {
			case messages <- m:
			default: // the first one is enough
			}
		}
	}()
	d.t.Cleanup(func() {
		cancel()
		<-done
		_ = c.CloseNow()
	})
	return messages
}

// TestSeedHosts plays every request of the aiWARE document.
func TestSeedHosts(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	token, err := os.ReadFile(f.data() + "/join-token")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := transcript.Read("../../api/hosts/testdata/seed004.txtar", "JOIN-TOKEN", strings.TrimSpace(string(token)))
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]string{}
	replacer := func() *strings.Replacer {
		var pairs []string
		for word, value := range words {
			pairs = append(pairs, word, value)
		}
		return strings.NewReplacer(pairs...)
	}
	var slow func() (int, http.Header, []byte)
	var late transcript.Step
	for _, s := range steps {
		if strings.HasPrefix(s.Name, "8 ") {
			words["LAUNCH-ID"] = f.launchOnSeedHost(words["HOST-TOKEN"])
		}
		if s.Header.Get("Note-Slow") != "" {
			slow, late = f.playSlowly(s, replacer()), s
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			status, header, body := f.play(s, replacer())
			for n := 0; s.Header.Get("Note-Flood") != "" && status != http.StatusTooManyRequests && n < 2000; n++ { // a window ends in between, maybe
				status, header, body = f.play(s, replacer())
			}
			if err := s.Check(status, header, body); err != nil {
				t.Error(err)
			}
			var answer map[string]any
			if json.Unmarshal(body, &answer) != nil {
				return // it has none
			}
			for key, word := range map[string]string{"hostToken": "HOST-TOKEN", "engineInstanceID": "INSTANCE-ID", "engineInstanceToken": "INSTANCE-TOKEN"} {
				if value, ok := answer[key].(string); ok {
					words[word] = value
				}
			}
		})
	}
	t.Run(late.Name, func(t *testing.T) {
		status, header, body := slow()
		if err := late.Check(status, header, body); err != nil {
			t.Error(err)
		}
	})
}

// launchOnSeedHost has an app placed on the host that the test plays, takes the
// order as that host, and reports that it was carried out.
func (f *fleet) launchOnSeedHost(token string) (launch string) {
	f.t.Helper()
	f.apply(manifest(f.t, "web", map[string]any{"placement": map[string]any{
		"constraints": []any{map[string]any{"attribute": "id", "op": "=", "values": []any{"seed-host"}}},
	}}))
	var orders struct {
		LaunchContainer []struct {
			LaunchID string `json:"launchId"`
			EngineID string `json:"engineId"`
		}
	}
	f.await("seed-host is ordered to launch", func() bool {
		status, text := f.report("seed-host", token, `{"containerStatus": []}`)
		if status != http.StatusOK || json.Unmarshal([]byte(text), &orders) != nil {
			f.t.Fatalf("report: %d %s", status, text)
		}
		return len(orders.LaunchContainer) == 1
	})
	launch = orders.LaunchContainer[0].LaunchID
	status, text := f.report("seed-host", token, fmt.Sprintf(
		`{"containerStatus": [{"dockerContainerId": "c1", "engineID": "web", "launchID": %q, "state": "running", "health": {"status": "healthy"}}]}`, launch))
	if status != http.StatusOK {
		f.t.Fatalf("report: %d %s", status, text)
	}
	f.up("web", 1)
	return launch
}

// report reports as a host.
func (f *fleet) report(id, token, status string) (int, string) {
	f.t.Helper()
	code, _, body := f.play(transcript.Step{
		Method: http.MethodPost, Path: "/host/" + id + "/updatestatus", Body: status,
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + token}},
	}, strings.NewReplacer())
	return code, string(body)
}

// playSlowly sends half of a request and gives the answer when it has come.
func (d *daemon) playSlowly(s transcript.Step, words *strings.Replacer) (answer func() (int, http.Header, []byte)) {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	body := words.Replace(s.Body)
	_, err = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		s.Method, words.Replace(s.Path), d.addr, words.Replace(s.Header.Get("Authorization")), s.Header.Get("Content-Type"), len(body), body[:len(body)/2])
	if err != nil {
		d.t.Fatal(err)
	}
	return func() (int, http.Header, []byte) {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			d.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			d.t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, text
	}
}

// TestSeedServices plays every request of the Genisys document. Its ports are
// those of containers; two of its services on a host must not want the same.
func TestSeedServices(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	a := f.webImage("a")
	steps, err := transcript.Read("../../api/services/testdata/seed003.txtar", "IMAGE-A", a, "IMAGE-B", a)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		t.Run(s.Name, func(t *testing.T) {
			status, header, body := f.play(s, strings.NewReplacer())
			if err := s.Check(status, header, body); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSeedOSC plays every request of the OSC document. Descriptors are fetched
// from a server on loopback, which has to be allowed.
func TestSeedOSC(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, "--osc-fetch", "127.0.0.0/8")
	words := []string{"IMAGE-A", f.webImage("a"), "IMAGE-B", f.webImage("b")}
	web := http.NewServeMux()
	for _, name := range []string{"ocl.json", "my-new-ocl.json"} {
		text, err := os.ReadFile("../../api/osc/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		web.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = strings.NewReplacer(words...).WriteString(w, string(text)) // fails when the client has gone
		})
	}
	server := httptest.NewServer(web)
	t.Cleanup(server.Close)
	steps, err := transcript.Read("../../api/osc/testdata/seed000.txtar", append(words, "http://foo.bar", server.URL)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		t.Run(s.Name, func(t *testing.T) {
			status, header, body := f.play(s, strings.NewReplacer())
			if strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
				var want string
				if err := json.Unmarshal([]byte(s.Shape()), &want); err != nil || string(body) != want {
					t.Errorf("%q, want %q (%v)", body, want, err)
				}
				body, _ = json.Marshal(string(body)) // a text always can be
			}
			if err := s.Check(status, header, body); err != nil {
				t.Error(err)
			}
		})
	}
	// Without that flag the same is refused.
	status, _, text := newFleet(t, 1).play(steps[2], strings.NewReplacer())
	if status/100 != 4 || !strings.Contains(string(text), "127.0.0.1") {
		t.Errorf("a fetch from loopback: %d %s", status, text)
	}
}

// TestSeedViews: what one dialect has created all of them list, and may change.
func TestSeedViews(t *testing.T) {
	f := newFleet(t, 1)
	img := image(t)
	f.apply(manifest(t, "one", nil))
	for _, r := range []transcript.Step{
		{Path: "/service", Body: fmt.Sprintf(`{"name": "two", "image": %q, "command": "sleep 1000"}`, img)},
		{Path: "/service/two/scale", Body: `{"number": 2}`},
		{Path: "/osc/register", Body: fmt.Sprintf(`{"name": "three", "compute": {"containers": [{"name": "main", "image": %q, "command": ["sleep", "1000"]}]}}`, img)},
		{Path: "/osc/start", Header: http.Header{"Managedservicename": {"three"}}},
	} {
		r.Method = http.MethodPost
		if r.Header == nil {
			r.Header = http.Header{"Content-Type": {"application/json"}}
		}
		if status, _, text := f.play(r, strings.NewReplacer()); status != http.StatusOK {
			t.Fatalf("POST %s: %d %s", r.Path, status, text)
		}
	}
	f.up("one", 1)
	f.up("two", 2)
	f.up("three", 1)
	f.views("one", "three", "two")
	f.await("the host has told of all containers", func() bool { return f.hosts()[0].NumEngines == 4 })

	// Each is stopped, scaled and removed by another dialect than its own.
	for _, r := range []transcript.Step{
		{Method: http.MethodPost, Path: "/service/one/scale", Body: `{"number": 2}`},
		{Method: http.MethodPost, Path: "/osc/stop", Header: http.Header{"Managedservicename": {"two"}}},
		{Method: http.MethodPost, Path: "/api/v1/apps/three/scale", Body: `{"replicas": 3, "wait": true}`},
		{Method: http.MethodDelete, Path: "/api/v1/apps/two"},
	} {
		if r.Header == nil {
			r.Header = http.Header{"Content-Type": {"application/json"}}
		}
		if status, _, text := f.play(r, strings.NewReplacer()); status != http.StatusOK {
			t.Errorf("%s %s: %d %s", r.Method, r.Path, status, text)
		}
	}
	f.up("one", 2)
	f.up("three", 3)
	f.views("one", "three")
}

// views compares the apps that each dialect lists.
func (f *fleet) views(want ...string) {
	f.t.Helper()
	for path, names := range map[string]func(body []byte) []string{
		"/api/v1/apps": func(body []byte) (names []string) {
			var all struct{ Apps []struct{ Name string } }
			if err := json.Unmarshal(body, &all); err != nil {
				f.t.Error(err)
			}
			for _, a := range all.Apps {
				names = append(names, a.Name)
			}
			return names
		},
		"/service": func(body []byte) []string {
			all := map[string]any{}
			if err := json.Unmarshal(body, &all); err != nil {
				f.t.Error(err)
			}
			return slices.Sorted(maps.Keys(all))
		},
		"/osc/services": func(body []byte) []string { return strings.Fields(string(body)) },
	} {
		status, _, body := f.play(transcript.Step{Method: http.MethodGet, Path: path}, strings.NewReplacer())
		if got := names(body); status != http.StatusOK || !slices.Equal(got, want) {
			f.t.Errorf("GET %s: %d, %v; want %v", path, status, got, want)
		}
	}
	out, err := exec.Command(filepath.Join(bin(f.t), "buoy"), "--addr", "http://"+f.addr, "app", "ls").CombinedOutput()
	if err != nil || slices.ContainsFunc(want, func(name string) bool { return !strings.Contains(string(out), name) }) {
		f.t.Errorf("buoy app ls: %v\n%s", err, out)
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// newYear is when things of fakes happen.
var newYear = time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)

// fakeNode speaks as much of buoyd's REST as the scripts need. It runs no
// programs: a container's command says what is to seem to happen.
//
//	say TEXT     writes TEXT to stdout    exit N   ends with N
//	err TEXT     writes TEXT to stderr    wait     runs until it is stopped
type fakeNode struct {
	mu         sync.Mutex // guards all below
	ids        []string
	token      string
	containers map[string]*fakeContainer
	images     []string
	jobs       int
	apps       map[string]*fakeApp
	webhooks   map[string]buoy.Webhook
	asked      []string
	changed    chan struct{} // closed and renewed at each change
	cuts       int
}

type fakeContainer struct {
	create map[string]any
	state  string
	exit   *int
	log    []fakeLine
	ignore bool // it ignores the stop signal
}

type fakeLine struct {
	at           time.Time
	stream, text string
}

func newFakeNode() *fakeNode {
	return &fakeNode{
		ids:        []string{"525400123456"},
		containers: map[string]*fakeContainer{},
		images:     []string{"docker.io/library/alpine:latest"},
		webhooks:   map[string]buoy.Webhook{},
		apps:       map[string]*fakeApp{},
		changed:    make(chan struct{}),
	}
}

// serve listens on a socket and on loopback.
func (f *fakeNode) serve(socket string) (tcp string, closeAll func(), err error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", nil, err
	}
	unix := httptest.NewUnstartedServer(f.handler())
	unix.Listener.Close()
	unix.Listener = listener
	unix.Start()
	loop := httptest.NewServer(f.handler())
	return loop.URL, func() {
		f.cutLogs()
		unix.CloseClientConnections()
		unix.Close()
		loop.Close()
	}, nil
}

func (f *fakeNode) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeNode) cutLogs() { f.set(func() { f.cuts++ }) }

func (f *fakeNode) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func (f *fakeNode) state(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[name]; c != nil {
		return c.state
	}
	return "absent"
}

func (f *fakeNode) write(name, stream, text string) {
	f.set(func() { f.containers[name].say(stream, text+"\n") })
}

func (c *fakeContainer) say(stream, text string) {
	c.log = append(c.log, fakeLine{time.Now(), stream, text})
}

func (c *fakeContainer) end(code int) { c.state, c.exit = "halted", &code }

func (f *fakeNode) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"status": "ok", "ready": true})
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]string{"version": "v9.9.9", "go": "go1", "os": "linux", "arch": "arm64"})
	})
	mux.HandleFunc("GET /nodes", f.nodes)
	new(fakeUpgrades).serve(mux)
	mux.HandleFunc("GET /nodes/{node}/doctor", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []map[string]string{
			{"check": "overlay", "status": "ok", "found": "there"},
			{"check": "8021q", "status": "warning", "found": "the kernel has none", "cost": "no VLANs", "mend": "modprobe 8021q"},
			{"check": "cgroups", "status": "failure", "found": "none"},
		})
	})
	const c = "/nodes/{node}/containers"
	mux.HandleFunc("GET "+c, f.list)
	mux.HandleFunc("POST "+c, f.create)
	mux.HandleFunc("GET "+c+"/{name}", f.on(f.get))
	mux.HandleFunc("DELETE "+c+"/{name}", f.remove)
	mux.HandleFunc("POST "+c+"/{name}/{verb}", f.on(f.verb))
	mux.HandleFunc("GET "+c+"/{name}/logs", f.on(f.logs))
	mux.HandleFunc("GET "+c+"/{name}/processes", f.on(processesOf))
	mux.HandleFunc("GET /nodes/{node}/stats/containers", f.stats)
	mux.HandleFunc("POST "+c+"/{name}/jobs", f.on(f.exec))
	mux.HandleFunc("GET "+c+"/{name}/exec", f.execSession)
	mux.HandleFunc("GET "+c+"/{name}/attach", f.attach)
	mux.HandleFunc("POST "+c+"/{name}/kill", f.on(f.kill))
	mux.HandleFunc("GET /nodes/{node}/images", f.listImages)
	mux.HandleFunc("GET /nodes/{node}/images/df", imageUsage)
	mux.HandleFunc("PUT /nodes/{node}/images/pin", f.pinImage)
	mux.HandleFunc("DELETE /nodes/{node}/images/pin", f.pinImage)
	mux.HandleFunc("GET /nodes/{node}/images/export", f.exportImage)
	mux.HandleFunc("POST /nodes/{node}/images/import", f.importImage)
	mux.HandleFunc("POST /nodes/{node}/images", f.pull)
	mux.HandleFunc("DELETE /nodes/{node}/images", f.removeImage)
	mux.HandleFunc("POST /nodes/{node}/logins", login)
	mux.HandleFunc("DELETE /nodes/{node}/logins", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	listRoutes(mux)
	f.fileRoutes(mux)
	f.appRoutes(mux)
	f.eventRoutes(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		f.mu.Lock()
		f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)))
		token := f.token
		f.mu.Unlock()
		if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			fail(w, 401, "this needs a token")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, sentence string) {
	answer(w, status, map[string]string{"error": sentence})
}

func (f *fakeNode) nodes(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []map[string]string{}
	for _, id := range f.ids {
		list = append(list, map[string]string{"hostname": "core0node", "id": id, "status": "running", "ipaddress": "10.0.0.2", "version": "v9.9.9"})
	}
	answer(w, 200, list)
}

// on finds the container of a request; the lock is held while h runs.
func (f *fakeNode) on(h func(http.ResponseWriter, *http.Request, *fakeContainer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		c := f.containers[r.PathValue("name")]
		if c == nil {
			fail(w, 404, fmt.Sprintf("container %q does not exist", r.PathValue("name")))
			return
		}
		h(w, r, c)
	}
}

func (c *fakeContainer) object() map[string]any {
	status := "running"
	if c.state == "halted" {
		status = "halted"
	}
	o := map[string]any{
		"name": c.create["name"], "id": c.create["name"], "hostname": c.create["name"], "flist": c.create["flist"],
		"status": status, "state": c.state, "ports": c.create["ports"], "reason": "", "message": "",
		"nics": []any{}, "filesystems": []any{}, "initprocesses": []any{}, "hostNetworking": false,
		"created": time.Now().Add(-5 * time.Minute), "extra": "kept",
	}
	if c.state == "halted" {
		o["reason"] = "Exited"
	}
	if c.exit != nil {
		o["exitCode"] = *c.exit
	}
	if labels, ok := c.create["labels"]; ok {
		o["labels"] = labels
	}
	for _, key := range []string{"tty", "stdin"} {
		o[key] = c.create[key] == true
	}
	return o
}

func (f *fakeNode) list(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	names, list := []string{}, []any{}
	for name := range f.containers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		list = append(list, f.containers[name].object())
	}
	answer(w, 200, list)
}

func (f *fakeNode) get(w http.ResponseWriter, _ *http.Request, c *fakeContainer) {
	answer(w, 200, c.object())
}

func (f *fakeNode) create(w http.ResponseWriter, r *http.Request) {
	var create map[string]any
	_ = json.NewDecoder(r.Body).Decode(&create)
	name, _ := create["name"].(string)
	f.mu.Lock()
	taken := f.containers[name] != nil
	f.mu.Unlock()
	if taken {
		fail(w, 409, fmt.Sprintf("container %q exists already on this node", name))
		return
	}
	if ports := fmt.Sprint(create["ports"]); strings.Contains(ports, "666:") {
		fail(w, 409, "port 666/tcp is already published by container old")
		return
	}
	c := &fakeContainer{create: create, state: "running"}
	if create["standby"] == true {
		c.state = "standby"
	}
	command, _ := create["command"].([]any)
	for i := 0; i < len(command); i++ {
		word := command[i].(string)
		next := func() string { i++; return command[i].(string) }
		switch word {
		case "say":
			c.say("stdout", next())
		case "err":
			c.say("stderr", next())
		case "exit":
			code, _ := strconv.Atoi(next())
			c.end(code)
		case "wait":
		case "stubborn":
			c.ignore = true
		case "/etc/passwd":
			fail(w, 400, `start: exec: "/etc/passwd": permission denied`)
			return
		default:
			fail(w, 400, fmt.Sprintf("start: exec: %q: executable file not found in $PATH", word))
			return
		}
	}
	f.set(func() { f.containers[name] = c })
	w.Header().Set("Location", "/nodes/525400123456/containers/"+name)
	w.WriteHeader(204)
}

func (f *fakeNode) remove(w http.ResponseWriter, r *http.Request) {
	f.set(func() { delete(f.containers, r.PathValue("name")) })
	w.WriteHeader(204)
}

func (f *fakeNode) verb(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	switch r.PathValue("verb") {
	case "stop":
		if !c.ignore {
			c.end(143)
		}
	case "start", "restart":
		c.state, c.exit = "running", nil
	default:
		fail(w, 404, "there is nothing here")
		return
	}
	close(f.changed)
	f.changed = make(chan struct{})
	w.WriteHeader(204)
}

func (f *fakeNode) kill(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	if c.state == "halted" {
		fail(w, 409, fmt.Sprintf("container %q is halted, not running", r.PathValue("name")))
		return
	}
	c.end(137)
	close(f.changed)
	f.changed = make(chan struct{})
	w.WriteHeader(204)
}

// logs is called with the lock held and gives it up while it waits.
func (f *fakeNode) logs(w http.ResponseWriter, r *http.Request, c *fakeContainer) {
	q := r.URL.Query()
	since, _ := time.Parse(time.RFC3339Nano, q.Get("since"))
	lines, cuts := 0, f.cuts
	w.WriteHeader(200)
	if tail, err := strconv.Atoi(q.Get("tail")); err == nil {
		lines = max(0, len(c.log)-tail)
	}
	if id, ok := strings.CutPrefix(q.Get("after"), "1-"); ok {
		lines, _ = strconv.Atoi(id)
	}
	for {
		for i, line := range c.log[lines:] {
			if line.at.Before(since) || q.Get("stream") != "" && line.stream != q.Get("stream") {
				continue
			}
			if q.Get("format") == "ndjson" {
				_ = json.NewEncoder(w).Encode(map[string]any{
					"id": fmt.Sprint("1-", lines+i+1), "time": line.at, "stream": line.stream,
					"text": strings.TrimSuffix(line.text, "\n"), "partial": !strings.HasSuffix(line.text, "\n"),
				})
				continue
			}
			if q.Get("timestamps") == "true" {
				_, _ = io.WriteString(w, "2026-11-21T08:00:00.000000000Z ")
			}
			_, _ = io.WriteString(w, line.text)
		}
		lines = len(c.log)
		_ = http.NewResponseController(w).Flush()
		if q.Get("follow") != "true" || c.state == "halted" {
			return
		}
		if f.cuts != cuts {
			f.mu.Unlock()
			defer f.mu.Lock() // on's defer wants to unlock it
			panic(http.ErrAbortHandler)
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		f.mu.Lock()
		if r.Context().Err() != nil {
			return
		}
	}
}

func (f *fakeNode) listImages(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []any{}
	for _, ref := range f.images {
		list = append(list, imageObject(ref))
	}
	answer(w, 200, list)
}

func imageObject(ref string) map[string]any {
	return map[string]any{
		"ref": ref, "digest": "sha256:0123456789abcdef0123456789abcdef", "size": 3 << 20, "layers": 1,
		"pulled": time.Now().Add(-49 * time.Hour),
	}
}

func (f *fakeNode) pull(w http.ResponseWriter, r *http.Request) {
	var body struct{ Ref string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	ref := normalRef(body.Ref)
	if strings.Contains(ref, "nosuch") {
		fail(w, 404, fmt.Sprintf("image %q: the registry does not have it", ref))
		return
	}
	w.WriteHeader(200)
	lines := json.NewEncoder(w)
	_ = lines.Encode(map[string]any{"ref": ref, "phase": "resolve", "total": -1})
	_ = lines.Encode(map[string]any{"ref": ref, "blob": "sha256:1", "phase": "download", "done": 10, "total": 20})
	if strings.Contains(ref, "broken") {
		_ = lines.Encode(map[string]string{"error": "layer sha256:1: digest does not match"})
		return
	}
	f.set(func() { f.images = append(f.images, ref) })
	_ = lines.Encode(map[string]any{"image": imageObject(ref)})
}

func (f *fakeNode) removeImage(w http.ResponseWriter, r *http.Request) {
	ref := normalRef(r.URL.Query().Get("ref"))
	f.mu.Lock()
	for name, c := range f.containers {
		if image, _ := c.create["flist"].(string); normalRef(image) == ref && r.URL.Query().Get("force") != "true" {
			defer f.mu.Unlock()
			fail(w, 409, fmt.Sprintf("container %q starts from image %q: remove the container first, or force the removal", name, ref))
			return
		}
	}
	f.mu.Unlock()
	f.set(func() { f.images = slices.DeleteFunc(f.images, func(have string) bool { return have == ref }) })
	w.WriteHeader(204)
}

func login(w http.ResponseWriter, r *http.Request) {
	var body struct{ Registry, Password string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	if body.Password != "secret" {
		fail(w, 400, fmt.Sprintf("registry %s does not take this user and password", body.Registry))
		return
	}
	w.WriteHeader(204)
}

func imageUsage(w http.ResponseWriter, _ *http.Request) {
	part := map[string]any{"count": 2, "bytes": 5 << 20}
	answer(w, 200, map[string]any{
		"total": 100 << 30, "free": 40 << 30, "reserve": 256 << 20, "gcHigh": 85, "gcLow": 80, "reclaimable": 7 << 20,
		"layers": part, "flists": part, "chunks": part, "partial": part,
		"images": []any{map[string]any{"ref": "docker.io/library/alpine:latest", "size": 3 << 20, "shared": 1 << 20, "reclaimable": 2 << 20, "inUse": true, "pinned": true, "used": time.Now()}},
	})
}

func (f *fakeNode) pinImage(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Query().Get("ref"), "nosuch") {
		fail(w, 404, "image \"nosuch\" is not on this node")
		return
	}
	w.WriteHeader(204)
}

func (f *fakeNode) exportImage(w http.ResponseWriter, r *http.Request) {
	switch ref := r.URL.Query().Get("ref"); {
	case strings.Contains(ref, "nosuch"):
		fail(w, 404, "image \"nosuch\" is not on this node")
	case strings.Contains(ref, "broken"):
		_, _ = w.Write([]byte("half"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		_, _ = w.Write([]byte("archive of " + ref))
	}
}

func (f *fakeNode) importImage(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	ref := r.URL.Query().Get("ref")
	if ref == "" {
		ref, _ = strings.CutPrefix(string(data), "archive of ")
	}
	o := imageObject(ref)
	o["signedBy"] = r.URL.Query().Get("signature")
	answer(w, 201, o)
}

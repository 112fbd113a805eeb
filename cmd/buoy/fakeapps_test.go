package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// fakeApp is an app of the fake controller. Its manifest's first lines say how
// it does:
//
//	# slow N     it is as wanted when it was asked for N times
//	# stuck      a replica finds no host
//	# reverts    the revision is given up
//	# canary     the revision waits to be promoted
type fakeApp struct {
	revision, replicas int
	stopped            bool
	slow               int
	stuck, reverts     bool
	canary             bool
}

func (f *fakeNode) appRoutes(mux *http.ServeMux) {
	const a = "/api/v1/apps"
	mux.HandleFunc("GET "+a, f.listApps)
	mux.HandleFunc("POST "+a+"/apply", f.applyApps)
	mux.HandleFunc("POST "+a+"/plan", f.planApps)
	mux.HandleFunc("POST "+a+"/rebalance", f.rebalance)
	mux.HandleFunc("GET "+a+"/{app}", f.onApp(f.getApp))
	mux.HandleFunc("DELETE "+a+"/{app}", f.onApp(func(w http.ResponseWriter, r *http.Request, _ *fakeApp) {
		delete(f.apps, r.PathValue("app"))
		answer(w, 200, map[string]any{"containers_removed": 2, "volumes_removed": 1})
	}))
	mux.HandleFunc("POST "+a+"/{app}/{verb}", f.onApp(f.appVerb))
	mux.HandleFunc("POST "+a+"/{app}/rollout/{verb}", f.onApp(func(w http.ResponseWriter, _ *http.Request, _ *fakeApp) { answer(w, 200, map[string]any{}) }))
	mux.HandleFunc("POST "+a+"/{app}/health/check", f.onApp(func(w http.ResponseWriter, _ *http.Request, _ *fakeApp) {
		answer(w, 200, map[string]any{"containers_checked": 1})
	}))
	for path, text := range map[string]string{
		"spec":      `{"apiVersion":"v1","kind":"App","metadata":{"name":"web"},"spec":{"image":"nginx:1","args":["1","true","a: b"],"replicas":2}}`,
		"explain":   `{"app_name":"web","missing":1,"hosts":[{"host":"h1","name":"alpha","fits":true,"score":0.75},{"host":"h2","name":"","fits":false,"reason":"has 1.0 GiB of memory free, 2.0 GiB are wanted"}]}`,
		"revisions": `{"revisions":[{"revision":3,"image":"nginx:3","failed":"1 replica did not become healthy"},{"revision":2,"image":"nginx:2","current":true,"good":true},{"revision":1,"image":"nginx:1","good":true}]}`,
		"metrics":   `{"app_name":"web","timestamp":"2026-11-21T08:00:00Z","current":{"cpu_percent":45.2,"memory_percent":62.1,"rps":127.5,"latency_p95_ms":89,"active_connections":234,"healthy_replicas":3,"total_replicas":3},"history":[{"timestamp":"2026-11-21T07:55:00Z","cpu_percent":42.1,"rps":115.2}]}`,
		"health":    `{"app_name":"web","overall_health":"degraded","healthy_replicas":1,"total_replicas":2,"containers":[{"name":"web-1","health":"healthy","response_time_ms":45,"last_check":null},{"name":"web-2","health":"unhealthy","consecutive_failures":2,"last_error":"Connection refused"}]}`,
		"scaling":   `{"app_name":"web","mode":"auto","policy":{"min_replicas":1,"max_replicas":5,"target_rps_per_replica":50,"max_p95_latency_ms":250,"max_cpu_percent":0,"max_memory_percent":75,"scale_out_threshold_pct":80,"scale_in_threshold_pct":30,"window_seconds":60,"cooldown_seconds":180,"max_scale_out_step":2,"max_scale_in_step":1},"last_scaling_event":{"timestamp":"2024-01-15T09:15:00Z","from_replicas":2,"to_replicas":3,"reason":"High CPU usage: 78.5%"}}`,
	} {
		mux.HandleFunc("GET "+a+"/{app}/"+path, f.onApp(func(w http.ResponseWriter, _ *http.Request, _ *fakeApp) { _, _ = io.WriteString(w, text) }))
	}
	mux.HandleFunc("PUT "+a+"/{app}/scaling", f.onApp(func(w http.ResponseWriter, _ *http.Request, _ *fakeApp) { answer(w, 200, map[string]any{}) }))
	mux.HandleFunc("GET "+a+"/{app}/logs", f.appLogs)
	mux.HandleFunc("GET "+a+"/{app}/events", f.onApp(func(w http.ResponseWriter, _ *http.Request, _ *fakeApp) {
		answer(w, 200, map[string]any{"events": []any{appEvent(2, "scaling", "Scaled from 1 to 2"), appEvent(1, "lifecycle", "App started")}})
	}))
	mux.HandleFunc("GET /api/v1/events/stream", func(w http.ResponseWriter, r *http.Request) {
		sendAll(w, r, appEvent(2, "scaling", "Scaled from 1 to 2"), appEvent(3, "health", "Replica web-2 is unhealthy"))
	})
	mux.HandleFunc("GET /hosts", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"count": 2, "result": []any{fakeHost("h1", "alpha", "continue"), fakeHost("h2", "beta", "drain")}})
	})
	mux.HandleFunc("GET /host/{id}/detail", func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, fakeHost(r.PathValue("id"), "alpha", "continue"))
	})
	mux.HandleFunc("POST /host/{id}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("verb") == "terminate" {
			answer(w, 409, map[string]any{"ErrorId": "1", "ErrorDescription": "Conflict", "ErrorDetail": "host h1 is terminating already"})
			return
		}
		answer(w, 200, map[string]any{"success": true, "count": 1})
	})
}

func fakeHost(id, name, mode string) map[string]any {
	h := map[string]any{
		"hostID": id, "name": name, "address": "192.0.2.1", "mode": mode, "liveness": "alive", "numEngines": 2, "numCPU": 8, "vcpuAvailable": 6144, "memory": 32 << 30,
		"free":   map[string]any{"milliCPU": 2500, "memory": 8 << 30},
		"labels": map[string]string{"zone": "a", "disk": "ssd"}, "ips": []string{}, "lastUpdateDateTime": time.Now(),
	}
	if mode == "drain" {
		model := map[string]any{"model": "H200"}
		h["drainDetail"], h["numGPU"], h["gpus"] = "a new fan", 2, []any{model, model}
		h["free"].(map[string]any)["gpus"] = 1
	}
	return h
}

func appEvent(id int, kind, message string) map[string]any {
	return map[string]any{"id": id, "type": kind, "message": message, "timestamp": "2026-11-21T08:00:00Z", "app_name": "web"}
}

// sendAll is a WebSocket that sends messages and closes.
func sendAll(w http.ResponseWriter, r *http.Request, messages ...any) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	for _, m := range messages {
		_ = wsjson.Write(r.Context(), c, m)
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
}

func (f *fakeNode) appLogs(w http.ResponseWriter, r *http.Request) {
	line := func(second int, stream, container, text string) map[string]any {
		return map[string]any{"timestamp": fmt.Sprintf("2026-11-21T08:00:%02dZ", second), "container": container, "stream": stream, "message": text, "level": "INFO"}
	}
	missing := map[string]any{"unavailable": []any{map[string]string{"container": "web-3", "error": `node "h3" is not connected`}}}
	if r.URL.Query().Get("follow") == "true" {
		sendAll(w, r, line(1, "stdout", "web-1", "one"), missing, line(2, "stderr", "web-2", "two"))
		return
	}
	answer(w, 200, map[string]any{"logs": []any{line(2, "stderr", "web-2", "two"), line(1, "stdout", "web-1", "one")}, "unavailable": missing["unavailable"]})
}

func failApp(w http.ResponseWriter, status int, code, title, details string, more map[string]any) {
	o := map[string]any{"error": title, "details": details, "code": code}
	maps.Copy(o, more)
	answer(w, status, o)
}

// onApp finds the app of a request; the lock is held while h runs.
func (f *fakeNode) onApp(h func(http.ResponseWriter, *http.Request, *fakeApp)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		a := f.apps[r.PathValue("app")]
		if a == nil {
			failApp(w, 404, "APP_NOT_FOUND", "Application not found", fmt.Sprintf("Application '%s' does not exist", r.PathValue("app")), nil)
			return
		}
		h(w, r, a)
	}
}

// names are those of the apps of a manifest: its lines "name: NAME".
func names(text string) (all []string) {
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "name: "); ok {
			all = append(all, name)
		}
	}
	return all
}

// broken answers to a manifest with "broken" in it.
func broken(w http.ResponseWriter, text string) bool {
	if !strings.Contains(text, "broken") {
		return false
	}
	failApp(w, 400, "INVALID_SPEC", "Invalid application specification", "it is all wrong", map[string]any{"problems": []any{
		map[string]string{"path": "spec.imagee", "message": `is not known here; did you mean "image"? (line 5)`},
		map[string]string{"path": "spec.replicas", "message": "is -1; it must be 0 to 1000 (line 6)"},
	}})
	return true
}

func (f *fakeNode) applyApps(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	text := string(body)
	if broken(w, text) {
		return
	}
	if strings.Contains(text, "# full") {
		failApp(w, 503, "INSUFFICIENT_RESOURCES", "Not enough system resources", "no host has room for web", map[string]any{"hosts": []any{
			map[string]string{"host": "h2", "name": "beta", "reason": "it is draining"}, map[string]string{"host": "h1", "name": "alpha", "reason": "1 of 1 replicas are there"},
		}})
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	done := []any{}
	for _, name := range names(text) {
		a, action := f.apps[name], "updated"
		if a == nil {
			a, action = &fakeApp{replicas: 2}, "created"
			f.apps[name] = a
		}
		a.revision++
		a.stuck, a.reverts = strings.Contains(text, "# stuck"), strings.Contains(text, "# reverts")
		a.canary = strings.Contains(text, "# canary")
		if strings.Contains(text, "# slow") {
			a.slow = 3
		}
		done = append(done, map[string]any{"app_name": name, "action": action, "revision": a.revision, "status": "starting", "notes": []string{"spec.volumes[0].size is not enforced"}})
	}
	answer(w, 200, map[string]any{"apps": done})
}

func (f *fakeNode) planApps(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if broken(w, string(body)) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	plans := []any{}
	for _, name := range names(string(body)) {
		p := map[string]any{"app_name": name, "new": f.apps[name] == nil, "changes": []any{}, "actions": []string{}}
		if f.apps[name] == nil {
			p["actions"] = []string{"start 2 replicas"}
		} else if strings.Contains(string(body), "# new image") {
			p["changes"] = []any{
				map[string]any{"path": "spec.image", "old": "nginx:1", "new": "nginx:2"}, map[string]any{"path": "spec.user", "new": "www"}, map[string]any{"path": "spec.init", "old": true},
			}
			p["actions"] = []string{"start 1 replica of revision 2 beside 1"}
		}
		plans = append(plans, p)
	}
	answer(w, 200, map[string]any{"apps": plans})
}

func (f *fakeNode) rebalance(w http.ResponseWriter, _ *http.Request) {
	answer(w, 200, map[string]any{"moves": []any{map[string]any{"app_name": "web", "replica": "web-1", "from": "h1", "to": "h2", "reason": "beta is emptier"}}})
}

func (a *fakeApp) object(name string) map[string]any {
	o := map[string]any{
		"name": name, "kind": "service", "origin": "apps", "mode": "manual", "status": "running", "image": "nginx:1", "created_at": time.Now().Add(-5 * time.Minute), "message": "",
		"replicas": map[string]int{"current": a.replicas, "desired": a.replicas, "healthy": a.replicas, "ready": a.replicas, "standby": 1}, "last_scaled_at": nil,
		"rollout": map[string]any{"revision": a.revision, "previous": a.revision - 1, "done": true}, "metrics": map[string]any{"cpu_percent": 12.5, "rps": 3.25},
	}
	containers := []any{}
	for i := range a.replicas {
		containers = append(containers, map[string]any{
			"id": "x", "name": fmt.Sprintf("%s-%d", name, i+1), "host": fmt.Sprintf("h%d", i+1), "status": "running", "health": "healthy",
			"endpoints": []string{fmt.Sprintf("192.0.2.1:3000%d", i)}, "revision": a.revision, "started_at": time.Now().Add(-3 * time.Minute),
		})
	}
	o["containers"] = containers
	switch {
	case a.stopped:
		o["status"], o["containers"] = "stopped", []any{}
	case a.slow > 0:
		a.slow--
		o["status"] = "starting"
		o["rollout"].(map[string]any)["done"] = false
	case a.stuck:
		o["status"], o["message"] = "error", "1 replica finds no host"
		o["replicas"] = map[string]int{"desired": 2, "healthy": 1, "missing": 1}
		o["unplaced"] = []any{map[string]string{"host": "h1", "name": "alpha", "reason": "it is full"}}
		containers[0].(map[string]any)["status"], containers[0].(map[string]any)["message"] = "failed", "exit code 3"
	case a.canary:
		o["rollout"] = map[string]any{"revision": a.revision, "canary": true, "ready": 1, "wanted": 1}
	case a.reverts:
		o["rollout"] = map[string]any{"revision": a.revision - 1, "done": true, "message": "revision 2 failed: no replica became healthy"}
	}
	return o
}

func (f *fakeNode) listApps(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []any{}
	for _, name := range slices.Sorted(maps.Keys(f.apps)) {
		all = append(all, f.apps[name].object(name))
	}
	answer(w, 200, map[string]any{"apps": all, "total": len(all)})
}

func (f *fakeNode) getApp(w http.ResponseWriter, r *http.Request, a *fakeApp) {
	answer(w, 200, a.object(r.PathValue("app")))
}

func (f *fakeNode) appVerb(w http.ResponseWriter, r *http.Request, a *fakeApp) {
	was := a.replicas
	switch r.PathValue("verb") {
	case "start":
		a.stopped = false
	case "stop":
		a.stopped = true
	case "scale":
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Sscanf(string(body), `{"replicas":%d`, &a.replicas)
		if a.replicas > 100 {
			a.replicas = was
			failApp(w, 409, "SCALING_LIMITS", "Outside the limits of the application", `app "web" may have 1 to 100 replicas, not 101`, nil)
			return
		}
	case "rebalance":
		answer(w, 200, map[string]any{"moves": []any{}})
		return
	}
	answer(w, 200, map[string]any{"previous_replicas": was, "rollout": map[string]any{"revision": a.revision}})
}

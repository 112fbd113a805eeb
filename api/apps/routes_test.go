package apps

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// TestRoutes has a line for what each route says to good and to bad input. The
// app my-app runs with 2 replicas before each.
func TestRoutes(t *testing.T) {
	const my, gone = "/api/v1/apps/my-app", "/api/v1/apps/nobody"
	other := strings.ReplaceAll(nginxApp, "my-app", "other")
	newer := strings.Replace(nginxApp, "nginx:alpine", "nginx:1.27", 1)
	for _, tt := range []struct {
		method, path, body string
		status             int
		answer             string // part of the body
		did                string // what reached the engine
	}{
		{"POST", "/api/v1/apps/register", other, 201, `"app_name":"other","status":"registered"`, "create other apps"},
		{"POST", "/api/v1/apps/register", nginxApp, 409, `"code":"APP_ALREADY_EXISTS"`, "create my-app apps"},
		{"POST", "/api/v1/apps/register", "", 400, `"code":"INVALID_SPEC"`, ""},
		{"POST", "/api/v1/apps/register", "{", 400, `"code":"INVALID_SPEC"`, ""},
		{"POST", "/api/v1/apps/register", "[1]", 400, `"code":"INVALID_SPEC"`, ""},
		{"POST", "/api/v1/apps/register", `{"apiVersion":"v2","kind":"App","metadata":{"name":"-"},"spec":{"image":"x","ports":[{"containerPort":70000}]}}`, 400, `{"path":"spec.ports[0].containerPort","message":"`, ""},
		{"POST", "/api/v1/apps/register", other + "\n---\n" + nginxApp, 400, `there are 2 applications in the body`, ""},
		{"POST", "/api/v1/apps/register", strings.Repeat(" ", 1<<20) + "{}", 413, `"code":"BODY_TOO_LARGE"`, ""},
		{"GET", "/api/v1/apps/register", "", 404, `"code":"APP_NOT_FOUND"`, ""}, // an app of that name could be

		{"POST", "/api/v1/apps/apply", other + "\n---\n" + nginxApp, 200, `"apps":[{"app_name":"other","action":"created","revision":1,"status":"running"},{"app_name":"my-app","action":"unchanged","revision":1`, "apply other; apply my-app"},
		{"POST", "/api/v1/apps/apply", newer, 200, `"action":"updated","revision":2`, "apply my-app"},
		{"POST", "/api/v1/apps/apply", "kind: App", 400, `"code":"INVALID_SPEC"`, ""},
		{"POST", "/api/v1/apps/plan", newer, 200, `{"apps":[{"app_name":"my-app","new":false,"changes":[{"path":"spec.image","old":"nginx:alpine","new":"nginx:1.27"}],"actions":["start 1 replica of revision 1"]}]}`, ""},
		{"POST", "/api/v1/apps/plan", "kind: App", 400, `"problems":[{"path":"`, ""},
		{"GET", "/api/v1/schema", "", 200, `"$schema"`, ""},

		{"GET", "/api/v1/apps?status=stopped", "", 200, `{"apps":[],"total":1,"running":1,`, ""},
		{"GET", "/api/v1/apps?status=degraded", "", 200, `{"apps":[],"total":1,`, ""},
		{"GET", "/api/v1/apps?status=sleeping", "", 400, `parameter status is \"sleeping\"`, ""},
		{"GET", "/api/v1/apps?format=xml", "", 400, `parameter format is \"xml\"`, ""},
		{"GET", gone, "", 404, `"details":"Application 'nobody' does not exist","code":"APP_NOT_FOUND"`, ""},
		{"GET", "/api/v1/apps/a%2Fb", "", 404, `"details":"Application 'a/b' does not exist"`, ""},
		{"GET", "/api/v1/apps/my%2Dapp", "", 200, `"name":"my-app"`, ""},

		{"POST", my + "/start", "", 200, `"replicas":2,"status":"running"`, "start my-app -1"},
		{"POST", my + "/start", `{}`, 200, `"replicas":2`, "start my-app -1"},
		{"POST", my + "/start", `{"replicas":0}`, 400, `"code":"VALIDATION_ERROR"`, ""},
		{"POST", my + "/start", `{"replicas":"3"}`, 400, `field \"replicas\" must be a whole number, not text`, ""},
		{"POST", my + "/start", `{"replicas":1.5}`, 400, `field \"replicas\"`, ""},
		{"POST", my + "/start", `{"timeout":-1}`, 400, `field \"timeout\" is -1; it must be a number from 0 to 3600`, ""},
		{"POST", my + "/start", `{"timeout":1e99}`, 400, `field \"timeout\"`, ""},
		{"POST", my + "/start", `{"count":3}`, 400, `there is no field \"count\" here`, ""},
		{"POST", my + "/start", `[]`, 400, `"code":"VALIDATION_ERROR"`, ""},
		{"POST", my + "/start", `{"replicas":101}`, 503, `"code":"INSUFFICIENT_RESOURCES"`, "start my-app 101"},
		{"POST", my + "/start", `{"replicas":101,"wait":true}`, 503, `"hosts":[{"host":"h1","name":"edge-1","reason":"it has 100 MiB of memory free, and 200 MiB are needed"}]`, "start my-app 101"},
		{"POST", gone + "/start", "", 404, `"code":"APP_NOT_FOUND"`, "start nobody -1"},
		{"POST", my + "/stop", "", 200, `"status":"stopped"`, "stop my-app force=false"},
		{"POST", my + "/stop", `{"force":true}`, 200, `"status":"stopped"`, "stop my-app force=true"},
		{"POST", my + "/stop", `{"force":1}`, 400, `field \"force\" must be true or false`, ""},
		{"POST", gone + "/stop", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"POST", my + "/stop", `{"timeout":9999}`, 400, `field \"timeout\"`, ""},
		{"POST", my + "/scale", `{"replicas":3}`, 200, `"previous_replicas":2,"current_replicas":3,"scaling_time":`, "scale my-app 3"},
		{"POST", my + "/scale", `{"replicas":0,"wait":true}`, 200, `"current_replicas":0`, "scale my-app 0"},
		{"POST", my + "/scale", "", 400, `the body is empty`, ""},
		{"POST", my + "/scale", `{}`, 400, `field \"replicas\" must be a number of replicas`, ""},
		{"POST", my + "/scale", `{"replicas":-1}`, 400, `field \"replicas\"`, ""},
		{"POST", my + "/scale", `{"replicas":4000}`, 409, `"code":"SCALING_LIMITS"`, "scale my-app 4000"},
		{"POST", gone + "/scale", `{"replicas":3}`, 404, `"code":"APP_NOT_FOUND"`, "scale nobody 3"},
		{"DELETE", my, "", 200, `"containers_removed":2,"volumes_removed":1`, "stop my-app force=false; remove my-app keep=false"},
		{"DELETE", my + "?force&keep_data=true", "", 200, `"containers_removed":2,"volumes_removed":0`, "remove my-app keep=true"},
		{"DELETE", my + "?force=perhaps", "", 400, `parameter force is \"perhaps\"`, ""},
		{"DELETE", my + "?keep_data=2", "", 400, `parameter keep_data`, ""},
		{"DELETE", gone, "", 404, `"code":"APP_NOT_FOUND"`, ""},

		{"GET", gone + "/spec", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"GET", my + "/revisions", "", 200, `"revisions":[{"revision":1,"image":"nginx:alpine",`, ""},
		{"GET", gone + "/revisions", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"GET", my + "/metrics?history=0", "", 200, `"history":[]`, ""},
		{"GET", my + "/metrics?history=2&interval=1d", "", 200, `"history":[{"timestamp":"2024-01-16T08:00:00Z","cpu_percent":43.1,`, "history my-app 2 24h0m0s"},
		{"GET", my + "/metrics?history=x", "", 400, `parameter history`, ""},
		{"GET", my + "/metrics?history=1001", "", 400, `parameter history is \"1001\"; it must be a number from 0 to 1000`, ""},
		{"GET", my + "/metrics?interval=5", "", 400, `parameter interval`, ""},
		{"GET", my + "/metrics?interval=-5m", "", 400, `parameter interval`, ""},
		{"GET", my + "/metrics?interval=9999999d", "", 400, `parameter interval`, ""},
		{"GET", gone + "/metrics", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"GET", my + "/events?limit=1", "", 200, `"total":2,"has_more":true`, ""},
		{"GET", my + "/events?type=config", "", 200, `"events":[{"id":1,"type":"config","message":"App registered","timestamp":"2024-01-15T08:00:00.000Z","details":{},"app_name":"my-app"}],"total":1,"has_more":false`, ""},
		{"GET", my + "/events?since=2024-01-15T08:01:00", "", 200, `"total":1,`, ""},
		{"GET", my + "/events?since=2024-01-15T10:01:00+02:00", "", 200, `"total":1,`, ""},
		{"GET", my + "/events?since=1d", "", 200, `"events":[],"total":0,`, ""},
		{"GET", my + "/events?since=yesterday", "", 400, `parameter since is \"yesterday\"`, ""},
		{"GET", my + "/events?since=NaN", "", 400, `parameter since`, ""},
		{"GET", my + "/events?type=party", "", 400, `parameter type is \"party\"`, ""},
		{"GET", my + "/events?limit=0", "", 400, `parameter limit`, ""},
		{"GET", my + "/events?limit=1001", "", 400, `parameter limit`, ""},
		{"GET", gone + "/events", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"GET", my + "/logs", "", 200, `{"app_name":"my-app","logs":[],"total_lines":0,"has_more":false}`, ""},
		{"GET", my + "/logs?tail=-1", "", 400, `parameter tail`, ""},
		{"GET", my + "/logs?container=my-app-9", "", 404, `"details":"application \"my-app\" has no container \"my-app-9\", but: my-app-1, my-app-2","code":"NOT_FOUND"`, ""},
		{"GET", my + "/logs?follow=true", "", 426, `"code":"UPGRADE_REQUIRED"`, ""},
		{"GET", my + "/logs?follow=x", "", 400, `parameter follow`, ""},
		{"GET", my + "/logs/stream", "", 426, `"code":"UPGRADE_REQUIRED"`, ""},
		{"GET", my + "/metrics/stream?interval=0s", "", 400, `parameter interval`, ""},
		{"GET", my + "/metrics/stream", "", 426, `"code":"UPGRADE_REQUIRED"`, ""},
		{"GET", "/api/v1/events/stream", "", 426, `"code":"UPGRADE_REQUIRED"`, ""},
		{"GET", "/api/v1/events/stream?type=x", "", 400, `parameter type`, ""},
		{"GET", gone + "/logs", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"GET", gone + "/logs/stream", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"GET", gone + "/metrics/stream", "", 404, `"code":"APP_NOT_FOUND"`, ""},

		{"GET", gone + "/scaling", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"PUT", my + "/scaling", `{"max_replicas":7}`, 200, `"new_policy":{"min_replicas":1,"max_replicas":7,"target_rps_per_replica":50,"max_p95_latency_ms":250,`, "policy my-app"},
		{"PUT", my + "/scaling", `{"mode":"auto","max_p95_latency_ms":1.5,"window_seconds":0.5}`, 200, `"max_p95_latency_ms":1.5,`, "policy my-app"},
		{"PUT", my + "/scaling", `{"min_replicas":8,"max_replicas":7}`, 400, `"code":"VALIDATION_ERROR"`, "policy my-app"},
		{"PUT", my + "/scaling", `{"min_replicas":8,"max_replicas":7}`, 400, `"problems":[{"path":"min_replicas","message":"is 8, and maxReplicas 7"}]`, "policy my-app"},
		{"PUT", my + "/scaling", `{"mode":"magic"}`, 400, `field \"mode\" is \"magic\"`, ""},
		{"PUT", my + "/scaling", `{"window_seconds":1e300}`, 400, `field \"window_seconds\"`, ""},
		{"PUT", my + "/scaling", `{"max_p95_latency_ms":-1}`, 400, `field \"max_p95_latency_ms\"`, ""},
		{"PUT", my + "/scaling", `{"minReplicas":1}`, 400, `there is no field \"minReplicas\" here`, ""},
		{"PUT", my + "/scaling", "", 400, `the body is empty`, ""},
		{"PUT", gone + "/scaling", `{"max_replicas":7}`, 404, `"code":"APP_NOT_FOUND"`, ""},
		{"POST", my + "/simulate", `{"cpu_percent":90}`, 200, `{"app_name":"my-app","evaluation":{"should_scale":true,"target_replicas":3,"reason":"cpu is high","scale_factors":{"cpu":1.29}}}`, ""},
		{"POST", my + "/simulate", `{"rps":-1}`, 400, `-1 is no load`, ""},
		{"POST", my + "/simulate", `{"latency_p95_ms":1e12}`, 400, `field \"latency_p95_ms\"`, ""},
		{"POST", gone + "/simulate", `{"rps":1}`, 404, `"code":"APP_NOT_FOUND"`, ""},

		{"GET", gone + "/health", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"POST", my + "/health/check", "", 200, `"containers_checked":2,"healthy":2,"unhealthy":0`, "check my-app"},
		{"POST", gone + "/health/check", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"GET", my + "/explain", "", 200, `{"app_name":"my-app","missing":0,"hosts":[{"host":"h1","name":"edge-1","fits":true,"reason":"","score":0.75},{"host":"h2","name":"edge-2","fits":false,"reason":"it is lost","score":0}]}`, ""},
		{"GET", gone + "/explain", "", 404, `"code":"APP_NOT_FOUND"`, ""},
		{"POST", my + "/rollback", "", 200, `"rollout":{"revision":1,`, "rollback my-app 0"},
		{"POST", my + "/rollback", `{"revision":7}`, 404, `"details":"app \"my-app\" has no revision 7","code":"NOT_FOUND"`, "rollback my-app 7"},
		{"POST", my + "/rollback", `{"revision":-7}`, 400, `field \"revision\"`, ""},
		{"POST", gone + "/rollback", "", 404, `"code":"APP_NOT_FOUND"`, "rollback nobody 0"},
		{"POST", my + "/rollout/pause", "", 200, `"message":"Rollout paused","app_name":"my-app","status":"running","rollout":{"revision":1,"previous":0,"since":"2024-01-15T08:00:00Z","done":false,"paused":true,"canary":false,"ready":0,"wanted":2,"message":""}`, "pause my-app"},
		{"POST", my + "/rollout/resume", "", 200, `"paused":false`, "resume my-app"},
		{"POST", my + "/rollout/promote", "", 409, `"code":"CONFLICT"`, "promote my-app"},
		{"POST", gone + "/rollout/pause", "", 404, `"code":"APP_NOT_FOUND"`, "pause nobody"},
		{"POST", my + "/rebalance", `{"preview":true}`, 200, `"preview":true,"moves":[{"app_name":"my-app","replica":"launch1","from":"h1","to":"h2","reason":"h1 is full"}]`, `rebalance "my-app" preview=true`},
		{"POST", "/api/v1/apps/rebalance", "", 200, `"preview":false,"moves":[{`, `rebalance "" preview=false`},
		{"POST", gone + "/rebalance", "", 404, `"code":"APP_NOT_FOUND"`, ""},

		{"PUT", "/api/v1/config", `{"scaling":{"default_check_interval":45,"default_cooldown":300},"health":{"default_check_interval":15}}`, 200, `"restart_required":false,"updated":["health.default_check_interval","scaling.default_check_interval","scaling.default_cooldown"],"config":{`, "configure"},
		{"PUT", "/api/v1/config", `{"health":{"default_timeout":0.5,"default_failure_threshold":2}}`, 200, `"health":{"default_check_interval":10,"default_timeout":0.5,"default_failure_threshold":2}`, "configure"},
		{"PUT", "/api/v1/config", `{}`, 200, `"updated":[]`, "configure"},
		{"PUT", "/api/v1/config", `{"database":{"host":"x"},"version":"2","jobs":{},"scaling":{"x":1,"default_cooldown":"300","max_concurrent_scales":1.5},"health":7}`, 400, `"problems":[{"path":"database","message":"is read-only; it is set where buoyd is started"},{"path":"health","message":"must be an object"},{"path":"jobs","message":"is not known; there are scaling and health"},{"path":"scaling.default_cooldown","message":"is \"300\"; it must be a number"},{"path":"scaling.max_concurrent_scales","message":"is 1.5; it must be a whole number from 1 to 10000"},{"path":"scaling.x","message":"is not known"},{"path":"version",`, ""},
		{"PUT", "/api/v1/config", `{"scaling":null}`, 400, `"code":"VALIDATION_ERROR"`, ""},
		{"PUT", "/api/v1/config", `{"scaling":{"default_cooldown":null}}`, 400, `"path":"scaling.default_cooldown","message":"is null; it must be a number"`, ""},
		{"PUT", "/api/v1/config", `{"scaling":{"default_check_interval":0}}`, 400, `it must be a number from 1 to 3600`, ""},
		{"PUT", "/api/v1/config", `[]`, 400, `"code":"VALIDATION_ERROR"`, ""},

		{"GET", "/api/v1/none", "", 404, `{"error":"Not found","details":"there is nothing at /api/v1/none","code":"NOT_FOUND","timestamp":"`, ""},
		{"GET", "/api/v1", "", 404, `"code":"NOT_FOUND"`, ""},
		{"GET", my + "/none", "", 404, `"code":"NOT_FOUND"`, ""},
		{"PATCH", my, "", 405, `"details":"/api/v1/apps/my-app takes GET and DELETE, not PATCH","code":"METHOD_NOT_ALLOWED"`, ""},
		{"GET", my + "/start", "", 405, `takes POST, not GET`, ""},
		{"HEAD", my, "", 200, ``, ""},
	} {
		t.Run(fmt.Sprintf("%s %s %.60s", tt.method, tt.path, tt.body), func(t *testing.T) {
			f := running(t, 2)
			w := f.ask(tt.method, tt.path, tt.body)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
				t.Errorf("= %d %s, want %d %s", w.Code, w.Body, tt.status, tt.answer)
			}
			if did := f.engine.done(); did != tt.did {
				t.Errorf("the engine did %q, want %q", did, tt.did)
			}
			if w.Code >= 400 {
				checkError(t, w)
			}
		})
	}
}

// checkError wants the document's fields in an error.
func checkError(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var o errorObject
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if _, err := time.Parse(time.RFC3339, o.Timestamp); err != nil || o.Error == "" || o.Code == "" || answers[o.Code].status != w.Code {
		t.Errorf("the error is %+v", o)
	}
}

// TestAliases has the paths of Orchestry's code.
func TestAliases(t *testing.T) {
	other := strings.ReplaceAll(nginxApp, "my-app", "other")
	newer := strings.Replace(nginxApp, "nginx:alpine", "nginx:1.27", 1)
	for _, tt := range []struct {
		method, path, body string
		status             int
		answer, did        string
	}{
		{"POST", "/apps/register", other, 200, `{"status":"registered","app":"other","message":"App registered successfully"}`, "create other apps"},
		{"POST", "/apps/register", newer, 200, `{"status":"registered","app":"my-app","message":"App updated successfully"}`, "create my-app apps; update my-app"},
		{"POST", "/apps/register", "{}", 400, `"code":"INVALID_SPEC"`, ""},
		{"GET", "/apps", "", 200, `{"apps":[{"name":"my-app","status":"running",`, ""},
		{"POST", "/apps/my-app/up", "", 200, `{"status":"started","app":"my-app","replicas":2,"adopted":2,"started":0}`, "start my-app -1"},
		{"POST", "/apps/nobody/up", "", 404, `"detail":"Application 'nobody' does not exist"`, ""},
		{"POST", "/apps/my-app/down", "", 200, `{"status":"stopped","app":"my-app","containers_stopped":2}`, "stop my-app force=false"},
		{"POST", "/apps/my-app/scale", `{"replicas":3}`, 200, `{"status":"scaled","app":"my-app","replicas":3}`, "scale my-app 3"},
		{"POST", "/apps/my-app/scale", `{"replicas":2}`, 200, `{"status":"no_change","app":"my-app","replicas":2}`, "scale my-app 2"},
		{"POST", "/apps/my-app/scale", `{"replicas":101}`, 400, `a number from 0 to 100`, ""},
		{"DELETE", "/apps/my-app", "", 200, `{"status":"deleted","app":"my-app","message":"App deleted successfully"}`, "stop my-app force=false; remove my-app keep=false"},
		{"GET", "/apps/my-app/status", "", 200, `{"app":"my-app","status":"running","replicas":2,"ready_replicas":2,"instances":[{"container_id":"abc123def456","ip":"172.20.0.5","port":80,"state":"ready","cpu_percent":15.2,"memory_percent":0,"failures":0},`, ""},
		{"GET", "/apps/my-app/status", "", 200, `],"mode":"manual"}`, ""},
		{"GET", "/apps/my-app/raw", "", 200, `{"name":"my-app","raw":{"apiVersion":"v1",`, ""},
		{"GET", "/apps/my-app/raw", "", 200, `"parsed":{"apiVersion":"v1",`, ""},
		{"GET", "/apps/my-app/metrics", "", 200, `{"app":"my-app","metrics":{"cpu_percent":45.2,`, ""},
		{"GET", "/apps/my-app/metrics", "", 200, `"scaling_history":[]`, ""},
		{"GET", "/events?app=my-app&limit=1", "", 200, `{"events":[{"id":2,"app_name":"my-app","event_type":"lifecycle","message":"start my-app 2","timestamp":"2024-01-15T08:01:00.000Z","details":{}}]}`, ""},
		{"GET", "/events?limit=x", "", 400, `parameter limit`, ""},
		{"GET", "/events?follow", "", 200, "a stream of events", ""},
		{"GET", "/events?type=image", "", 200, "a stream of events", ""},
		{"GET", "/apps/my-app/logs?lines=2", "", 200, `{"app":"my-app","total_containers":2,"logs":[]}`, ""},
		{"POST", "/apps/my-app/policy", `{"policy":{"maxReplicas":9}}`, 200, `{"status":"updated","app":"my-app","policy":{"minReplicas":1,"maxReplicas":9,"targetRPSPerReplica":50,`, "policy my-app"},
		{"POST", "/apps/my-app/policy", `{"policy":{"max_replicas":9}}`, 400, `there is no field \"max_replicas\" here`, ""},
		{"POST", "/apps/my-app/policy", `{}`, 400, `field \"policy\" is missing`, ""},
		{"POST", "/apps/my-app/simulateMetrics", `{"cpuPercent":90}`, 200, `"evaluation":{"should_scale":true,"target_replicas":3,"reason":"cpu is high","scale_factors":{"cpu":1.29}},"action":"would scale to 3 replicas"}`, ""},
		{"POST", "/apps/my-app/simulateMetrics", `{"rps":9,"p95LatencyMs":12,"evaluate":false}`, 200, `"latency_p95_ms":12,"active_connections":0,"errors_per_second":0},"evaluation":null,"action":"none"}`, ""},
	} {
		f := running(t, 2)
		w := f.ask(tt.method, tt.path, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
			t.Errorf("%s %s = %d %s, want %d %s", tt.method, tt.path, w.Code, w.Body, tt.status, tt.answer)
		}
		if did := f.engine.done(); did != tt.did {
			t.Errorf("%s %s: the engine did %q, want %q", tt.method, tt.path, did, tt.did)
		}
	}
}

func TestScaleHistoryOfAliases(t *testing.T) {
	f := running(t, 2)
	f.ask("POST", "/apps/my-app/scale", `{"replicas":3}`)
	want := `"scaling_history":[{"id":3,"app_name":"my-app","from_replicas":2,"to_replicas":3,"trigger_reason":"Scaled from 2 to 3 replicas","metrics_snapshot":{`
	if w := f.ask("GET", "/apps/my-app/metrics", ""); !strings.Contains(w.Body.String(), want) {
		t.Errorf("metrics = %s, want %s", w.Body, want)
	}
}

// TestErrors are the codes of what the engine may say.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		code   code
		text   string // part of the details
	}{
		{errs.E(errs.Conflict, "on its way: %w", app.ErrScaling), 409, scaling, "on its way"},
		{errs.E(errs.Conflict, "at most 5: %w", app.ErrLimits), 409, outsideLimits, "at most 5"},
		{errs.E(errs.Unavailable, "full: %w", app.ErrUnplaced), 503, noRoom, "full"},
		{errs.E(errs.Unavailable, "write: %w", app.ErrStore), 500, databaseError, "write: the controller's store"},
		{app.Problems{{Path: "spec.image", Text: "is missing"}, {Path: "spec.ports", Text: "is empty"}}, 400, invalidSpec, "spec.image is missing; spec.ports is empty"},
		{errs.E(errs.Invalid, "wrong"), 400, invalid, "wrong"},
		{errs.E(errs.Exists, "there"), 409, appExists, "there"},
		{errs.E(errs.Conflict, "busy"), 409, conflict, "busy"},
		{errs.E(errs.Unavailable, "away"), 503, unavailable, "away"},
		{errors.New("secret"), 500, internal, "internal error; see the log of buoyd"},
	} {
		f := running(t, 1)
		f.engine.fail = tt.err
		w := f.ask("POST", "/api/v1/apps/my-app/scale", `{"replicas":2}`)
		var o errorObject
		if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil {
			t.Fatal(err)
		}
		if w.Code != tt.status || o.Code != tt.code || !strings.Contains(o.Details, tt.text) || strings.Contains(o.Details, "secret") {
			t.Errorf("%v = %d %s", tt.err, w.Code, w.Body)
		}
	}
}

// TestDatabaseError is one of the store where events are asked for.
func TestDatabaseError(t *testing.T) {
	f := running(t, 1)
	f.engine.fail = errs.E(errs.Unavailable, "disk is full")
	if w := f.ask("GET", "/api/v1/apps/my-app/events", ""); w.Code != 500 || !strings.Contains(w.Body.String(), `"details":"disk is full","code":"DATABASE_ERROR"`) {
		t.Errorf("events = %d %s", w.Code, w.Body)
	}
	f.engine.fail = errs.E(errs.Unavailable, "disk is full")
	if w := f.ask("GET", "/health", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"degraded"`) || !strings.Contains(w.Body.String(), `"database":{"status":"unhealthy"`) {
		t.Errorf("health = %d %s", w.Code, w.Body)
	}
}

// TestWait ends when its time is up, and says what is missing.
func TestWait(t *testing.T) {
	f := running(t, 1)
	f.engine.mu.Lock()
	f.engine.stuck = true
	f.engine.mu.Unlock()
	w := f.ask("POST", "/api/v1/apps/my-app/scale", `{"replicas":2,"wait":true,"timeout":0.01}`)
	if w.Code != 500 || !strings.Contains(w.Body.String(), `my-app-2: exec /bin/no: no such file`) || !strings.Contains(w.Body.String(), `"code":"DOCKER_ERROR"`) {
		t.Errorf("scale = %d %s", w.Code, w.Body)
	}
	f.engine.mu.Lock()
	f.engine.apps["my-app"].Replicas[1].Message = ""
	f.engine.mu.Unlock()
	w = f.ask("POST", "/api/v1/apps/my-app/start", `{"wait":true,"timeout":0.01}`)
	if w.Code != 503 || !strings.Contains(w.Body.String(), `ready after 10ms: 1 of 2 replicas; they go on"`) || !strings.Contains(w.Body.String(), `"code":"TIMEOUT"`) {
		t.Errorf("start = %d %s", w.Code, w.Body)
	}
	f.engine.mu.Lock()
	f.engine.apps["my-app"].Reason, f.engine.apps["my-app"].Message = "Failed", "the last replica that failed: no such image"
	f.engine.mu.Unlock()
	w = f.ask("POST", "/api/v1/apps/my-app/start", `{"wait":true,"timeout":0.01}`)
	if w.Code != 500 || !strings.Contains(w.Body.String(), `the last replica that failed: no such image"`) || !strings.Contains(w.Body.String(), `"code":"DOCKER_ERROR"`) {
		t.Errorf("start of one that fails again and again = %d %s", w.Code, w.Body)
	}
	f.engine.done()
	// A stop kills what does not end in time.
	w = f.ask("POST", "/api/v1/apps/my-app/stop", `{"timeout":0.01}`)
	if want := "stop my-app force=false; stop my-app force=true"; w.Code != 200 || f.engine.done() != want {
		t.Errorf("stop = %d %s", w.Code, w.Body)
	}
}

// TestNotReady answers questions, and refuses changes for a moment.
func TestNotReady(t *testing.T) {
	f := serve(t, func(c *Config) { c.Ready = func() bool { return false } })
	for _, tt := range []struct {
		method, path string
		status       int
		answer       string
	}{
		{"GET", "/api/v1/apps", 200, `"apps":[]`},
		{"POST", "/api/v1/apps/register", 503, `{"error":"No leader elected, cluster not ready","code":"CLUSTER_NOT_READY","timestamp":"`},
		{"POST", "/apps/x/up", 503, `"code":"CLUSTER_NOT_READY"`},
		{"GET", "/cluster/leader", 503, `{"error":"No leader elected","code":"NO_LEADER","timestamp":"`},
		{"GET", "/cluster/status", 200, `"is_leader":false,"leader_id":null,`},
		{"GET", "/cluster/health", 200, `{"status":"degraded","clustering":"disabled",`},
		{"GET", "/health", 200, `"status":"degraded"`},
	} {
		if w := f.ask(tt.method, tt.path, ""); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
			t.Errorf("%s %s = %d %s, want %d %s", tt.method, tt.path, w.Code, w.Body, tt.status, tt.answer)
		}
	}
}

func TestNewNeeds(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Engine and Logs are required") {
		t.Errorf("New = %v", err)
	}
}

// TestForeignSpec shows in our words what another dialect has taken in.
func TestForeignSpec(t *testing.T) {
	f := running(t, 1)
	f.engine.mu.Lock()
	f.engine.apps["my-app"].App.Origin = "services"
	f.engine.apps["my-app"].App.Revisions[0].Source = json.RawMessage(`{"scaling":"x"}`)
	f.engine.mu.Unlock()
	if w := f.ask("GET", "/api/v1/apps/my-app/spec", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"image":"nginx:alpine"`) {
		t.Errorf("spec = %d %s", w.Code, w.Body)
	}
}

package apps

import (
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/transcript"
)

// TestSeed plays the seed document's requests against a fake engine; package
// test/live plays them against a real one.
func TestSeed(t *testing.T) {
	f := serve(t, nil)
	f.logs.write("my-app-1", 10, "INFO Request processed successfully")
	f.logs.write("my-app-2", 15, "[WARN] High memory usage detected")
	steps, err := transcript.Read("testdata/seed002.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		t.Run(step.Name, func(t *testing.T) {
			got := f.ask(step.Method, step.Path, step.Body)
			if err := step.Check(got.Code, got.Header(), got.Body.Bytes()); err != nil {
				t.Error(err)
			}
		})
	}
	want := "create my-app apps; create my-app apps; start my-app 3; scale my-app 5; history my-app 10 5m0s; policy my-app; check my-app; " +
		"configure; stop my-app force=false; remove my-app keep=false"
	if got := f.engine.done(); got != want {
		t.Errorf("the engine did %q, want %q", got, want)
	}
}

// TestWords are values of the document that are said as it says them.
func TestWords(t *testing.T) {
	f := running(t, 3)
	for _, tt := range []struct{ path, want string }{
		{"/api/v1/apps/my-app", `{"name":"my-app","status":"running","replicas":{"current":3,"desired":3,"healthy":3,`},
		{"/api/v1/apps/my-app", `"metrics":{"cpu_percent":45.2,"memory_percent":62.1,"rps":127.5,"latency_p95_ms":89,"active_connections":234,`},
		{"/api/v1/apps/my-app", `"created_at":"2024-01-15T08:00:00Z","updated_at":"2024-01-15T08:00:00Z","last_scaled_at":null`},
		{"/api/v1/apps/my-app", `"name":"my-app-1","ip":"172.20.0.5","port":80,"status":"running","health":"healthy","started_at":"2024-01-15T09:00:00Z"`},
		{"/api/v1/apps", `{"apps":[{"name":"my-app","status":"running","replicas":{"current":3,"desired":3,`},
		{"/api/v1/apps", `"total":1,"running":1,"stopped":0,"error":0`},
		{"/api/v1/apps/my-app/metrics", `"current":{"cpu_percent":45.2,`},
		{"/api/v1/apps/my-app/metrics", `"healthy_replicas":3,"total_replicas":3}`},
		{"/api/v1/apps/my-app/spec", `"scaling":{"mode":"manual","minReplicas":`},
		{"/api/v1/apps/my-app/scaling", `"last_scaling_event":null`},
		{"/api/v1/apps/my-app/health", `{"app_name":"my-app","overall_health":"healthy","healthy_replicas":3,"total_replicas":3,`},
		{"/api/v1/apps/my-app/health", `"health_check_config":{"path":"","port":80,"protocol":"NONE","period_seconds":10,"timeout_seconds":5,"failure_threshold":3,`},
		{"/api/v1/metrics", `"system":{"cpu_percent":35.2,"memory_used_gb":12.5,"memory_total_gb":32,"disk_used_gb":45.25,"disk_total_gb":100,"containers_running":3,"containers_total":18,`},
		{"/api/v1/metrics", `{"name":"my-app","cpu_percent":45.2,"memory_mb":256,"replicas":3,"rps":127.5}`},
		{"/api/v1/metrics", `"network":{"requests_per_second":342.1,"total_requests":1587432,"error_rate_percent":0.12,"avg_response_time_ms":95}`},
		{"/api/v1/config", `"scaling":{"default_check_interval":10,"default_cooldown":180,"max_concurrent_scales":3},"health":{"default_check_interval":10,"default_timeout":5,"default_failure_threshold":3}`},
		{"/health", `"status":"healthy"`},
		{"/health", `"ready":true`},
		{"/health", `"applications":{"total":1,"running":1,"stopped":0,"error":0,"starting":0}`},
		{"/cluster/status", `"leader_id":"controller-1","cluster_size":1`},
	} {
		if w := f.ask("GET", tt.path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("GET %s = %d %s, want %s", tt.path, w.Code, w.Body, tt.want)
		}
	}
}

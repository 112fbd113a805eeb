package main

import (
	"errors"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]int64{"1": 1000, "0.5": 500, ".5": 500, "0.001": 1, "500m": 500, "2.2500": 2250, "0": 0} {
		if got, err := parseCPUs(text); got != want || err != nil {
			t.Errorf("parseCPUs(%s) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "x", "0.0001", "1e9", "NaN", "m", "99999999999999999999"} {
		if got, err := parseCPUs(text); err == nil {
			t.Errorf("parseCPUs(%q) = %d, want an error", text, got)
		}
	}
}

func TestNormalRef(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                     "docker.io/library/nginx:latest",
		"docker://nginx:1":          "docker.io/library/nginx:1",
		"me/app":                    "docker.io/me/app:latest",
		"index.docker.io/nginx":     "docker.io/library/nginx:latest",
		"localhost/app":             "localhost/app:latest",
		"host:5000/app":             "host:5000/app:latest",
		"host:5000/a/b@sha256:00":   "host:5000/a/b@sha256:00",
		"https://x.org/rootfs.tar":  "https://x.org/rootfs.tar",
		"quay.io/prometheus/node:2": "quay.io/prometheus/node:2",
	} {
		if got := normalRef(ref); got != want {
			t.Errorf("normalRef(%s) = %s, want %s", ref, got, want)
		}
	}
}

func TestStartErrorCode(t *testing.T) {
	for text, want := range map[string]int{
		`exec: "x": executable file not found in $PATH`:    exitNotFound,
		`exec /bin/x: no such file or directory`:           exitNotFound,
		`exec: "/etc": is a directory`:                     exitNotExecutable,
		`exec /x: exec format error`:                       exitNotExecutable,
		`command "x" not found in the image`:               exitNotFound,
		`command "x" is not executable: exec format error`: exitNotExecutable,
		`command "x" is not executable: is a directory`:    exitNotExecutable,
		`mount /data: permission denied`:                   exitOurs,
		`rootfs /x: no such file or directory`:             exitOurs,
		`exec: out of luck`:                                exitOurs,
	} {
		if got := (&startError{errors.New(text)}).code(); got != want {
			t.Errorf("%s: code %d, want %d", text, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"10m":                  now.Add(-10 * time.Minute),
		"1795248000":           time.Unix(1795248000, 0),
		"2026-11-20":           time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC),
		"2026-11-20T10:00:00Z": time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC),
		"2026-11-20 10:00:00":  time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC),
	} {
		if got, err := parseTime(text, now); !got.Equal(want) || err != nil {
			t.Errorf("parseTime(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 47 * time.Hour: "47h", 48 * time.Hour: "2d"} {
		if got := ago(d); got != want {
			t.Errorf("ago(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestStateText(t *testing.T) {
	health := func(status string) *buoy.HealthState { return &buoy.HealthState{Status: status} }
	for _, tt := range []struct {
		one  buoy.ContainerSummary
		want string
	}{
		{buoy.ContainerSummary{State: "running"}, "running"},
		{buoy.ContainerSummary{State: "running", Health: health("healthy")}, "running (healthy)"},
		{buoy.ContainerSummary{State: "running", Reason: "Unhealthy", Health: health("unhealthy")}, "running (unhealthy)"},
		{buoy.ContainerSummary{State: "running", Health: health("unknown")}, "running (health: unknown)"},
		{buoy.ContainerSummary{State: "restarting", Reason: "Unhealthy", Health: health("unknown")}, "restarting (Unhealthy)"},
		{buoy.ContainerSummary{State: "standby", Health: health("unknown")}, "standby"},
		{buoy.ContainerSummary{Status: "halted", Reason: "Exited"}, "halted (Exited)"},
	} {
		if got := stateText(tt.one); got != tt.want {
			t.Errorf("%+v = %s, want %s", tt.one, got, tt.want)
		}
	}
}

// TestAboutNodes: what is said of a node is not taken for a container's absence.
func TestAboutNodes(t *testing.T) {
	node := &buoy.Error{Status: 404, Message: `node "zz" is not known here: this is node "525400123456"`}
	if err := about(errNoContainer, node); errors.Is(err, errNoContainer) || err.Error() != node.Message {
		t.Errorf("about = %v", err)
	}
	if err := about(errNoContainer, &buoy.Error{Status: 404, Message: `container "zz"`}); !errors.Is(err, errNoContainer) || err.Error() != `container "zz" was not found` {
		t.Errorf("about = %v", err)
	}
}

func TestTelling(t *testing.T) {
	names := telling(map[string]string{"a": "vm", "b": "vm", "c": "edge"})
	if got := named(names, "a") + named(names, "b") + named(names, "c"); got != "abedge" {
		t.Errorf("named %q", got)
	}
}

func TestCanariesWell(t *testing.T) {
	canary := func(status, health string) buoy.AppReplica {
		return buoy.AppReplica{Revision: 2, Status: status, Health: health}
	}
	for name, tt := range map[string]struct {
		replicas []buoy.AppReplica
		want     bool
	}{
		"none yet": {[]buoy.AppReplica{{Revision: 1, Status: "running", Health: "healthy"}}, false},
		"starting": {[]buoy.AppReplica{canary("running", "healthy"), canary("starting", "unknown")}, false},
		"well":     {[]buoy.AppReplica{{Revision: 1, Status: "stopping"}, canary("running", "healthy")}, true},
	} {
		a := buoy.App{AppSummary: buoy.AppSummary{Status: "running"}, Containers: tt.replicas, Rollout: buoy.Rollout{Revision: 2, Canary: true}}
		if got := canariesWell(&a); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

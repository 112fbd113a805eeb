package storetest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// moment has nanoseconds, which a store must not lose.
var moment = time.Date(2026, 11, 30, 12, 0, 0, 123_456_789, time.UTC)

func anApp(name string) app.App {
	spec := app.Spec{
		Name: name, Kind: app.Service, Labels: map[string]string{"tier": "front"}, Annotations: map[string]string{"note": "a <b> & \"c\" \u2028 ü"},
		Container: buoy.CreateRequest{
			Flist: "docker.io/library/nginx:1.27", Env: []string{"A=1"}, NICs: []buoy.NIC{{Type: "default"}},
			Limits: buoy.Limits{MilliCPU: 500, Memory: 64 << 20},
		},
		Env:     []app.EnvVar{{Name: "IP", Field: "instance.ip"}, {Name: "KEY", Secret: "s", Key: "k"}},
		Ports:   []app.Port{{Name: "http", Container: 80, Proto: "http", Host: 8080, Listen: 443, SendProxy: true}},
		GPUs:    2,
		Scaling: app.Scaling{Mode: app.Auto, Min: 1, Max: 9, RPS: 12.5, P95: time.Second, OutPct: 80, InPct: 30, Window: time.Minute},
		Drain:   5 * time.Second,
		Placement: app.Placement{
			Constraints: []app.Constraint{{Attribute: "arch", Op: "=", Values: []string{"amd64"}}},
			Affinity:    []app.Affinity{{App: "db", Weight: -50}, {Constraint: &app.Constraint{Attribute: "label.zone", Op: "exists"}, Weight: 1, Required: true}},
			Spread:      "label.zone", Strategy: app.BinPack, MaxPerHost: 3, Patience: -1,
		},
		Rollout: app.Rollout{MaxUnavailable: 1, MaxSurge: 2, Canary: 1, Deadline: time.Hour, Revert: true, Healthy: time.Minute},
		Expose:  app.Expose{Rules: []app.Rule{{Host: "a.example", Path: "/x"}}, Balance: "leastconn"},
		Job:     app.JobSpec{Schedule: "@daily", Completions: 1, Parallelism: 2, Retries: 3, Timeout: time.Hour},
	}
	return app.App{
		Name: name, Origin: "apps", Created: moment, Updated: moment.Add(time.Hour), Started: true, Replicas: 3, Scaling: spec.Scaling,
		Revisions: []app.Revision{
			{N: 1, Spec: spec, Source: json.RawMessage(`{"z":1,"a":[1.50,null]}`), Created: moment, Digest: "sha256:1", Good: true},
			{N: 2, Spec: spec, Created: moment.Add(time.Minute), Failed: "it did not start"},
		},
		Rollout: app.Progress{Target: 2, Previous: 1, Since: moment, Paused: true, Message: "paused by a person"},
		Scaled:  app.ScaleEvent{At: moment, From: 1, To: 3, Reason: "busy", Person: true},
		Run:     7, RunAt: moment,
	}
}

func aReplica(id string) app.Replica {
	return app.Replica{
		ID: id, App: "web", Index: 3, Revision: 2, Host: "host-1", Run: 7, Created: moment, Standby: true,
		Stopped: moment.Add(time.Hour), Kill: true, Why: "scaled in", Phase: app.Running,
		Ports:   map[uint16]netip.AddrPort{80: netip.MustParseAddrPort("192.0.2.1:32768"), 53: netip.MustParseAddrPort("[2001:db8::1]:5353")},
		Address: "172.18.0.2", Digest: "sha256:1", Started: moment, Finished: moment.Add(time.Minute), ExitCode: 137,
		Reason: "OOMKilled", Message: "it used more than 64 MiB", Restarts: 4, Away: moment,
	}
}

func aHost(id string) app.Host {
	return app.Host{
		ID: id, Name: "edge-1", Labels: map[string]string{"zone": "north"}, Addr: "192.0.2.1", TokenHash: "ab12",
		Facts: app.Facts{
			Arch: "amd64", OS: "Debian GNU/Linux 12", Kernel: "6.1", Version: "0.9", MilliCPU: 8000, Memory: 1 << 40,
			GPUs: []app.GPU{{UUID: "GPU-1", Model: "L4", Memory: 24 << 30}}, Addrs: []string{"192.0.2.1"}, AgentLabel: "x",
		},
		Mode: app.Drain, Reason: "repair", Detail: "a fan", Registered: moment, Changed: moment.Add(time.Second), Terminated: moment.Add(time.Hour),
	}
}

func anEvent(n int) app.Event {
	return app.Event{Time: moment.Add(time.Duration(n) * time.Second), Type: app.Life, App: "web", Message: fmt.Sprintf("number %d", n)}
}

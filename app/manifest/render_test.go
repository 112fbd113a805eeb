package manifest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestOf: whatever Spec there is, the manifest written of it means it, and is
// valid by the schema.
func TestOf(t *testing.T) {
	valids := 0
	for seed := range uint64(2000) {
		g := gen{rand.New(rand.NewPCG(seed, 7))}
		spec := g.spec()
		if spec.Validate() != nil {
			continue
		}
		valids++
		text, err := manifest.Of(spec)
		if err != nil {
			t.Fatal(err)
		}
		apps, err := manifest.Parse(text)
		if err != nil {
			t.Fatalf("seed %d: %v, of %s", seed, err, text)
		}
		if diff := cmp.Diff(spec, apps[0].Spec); diff != "" {
			t.Fatalf("seed %d: %s\nof %s", seed, diff, text)
		}
		if valids%20 == 0 {
			valid(t, string(text))
		}
	}
	if valids < 500 {
		t.Errorf("only %d specs were valid", valids)
	}
}

// gen makes specs.
type gen struct{ *rand.Rand }

func (g gen) maybe() bool { return g.IntN(3) == 0 }

func pick[T any](g gen, of ...T) T { return of[g.IntN(len(of))] }

func (g gen) span() time.Duration {
	return pick(g, 0, time.Second, 90*time.Second, 250*time.Millisecond, 1234567*time.Nanosecond, time.Hour)
}

func (g gen) dict() map[string]string {
	if !g.maybe() {
		return nil
	}
	return map[string]string{"a/b.c": pick(g, "", "1", "true", "null", "x: y\n\"'"), "d": "ü"}
}

func (g gen) texts(of ...string) []string {
	if !g.maybe() {
		return nil
	}
	return []string{pick(g, of...), pick(g, of...)}
}

func (g gen) spec() app.Spec {
	s := app.Spec{
		Name: pick(g, "web", "a", "A-1"), Kind: pick(g, app.Service, app.Service, app.Daemon, app.Job, app.Cron),
		Labels: g.dict(), Annotations: g.dict(), Container: g.container(), GPUs: g.IntN(3),
		Drain: g.span(), Placement: g.placement(), Scaling: app.Scaling{
			Mode: app.Manual, Min: 1, Max: 100, RPS: 50, P95: 250 * time.Millisecond, CPU: 70, Memory: 75, Connections: 100,
			OutPct: 80, InPct: 30, Window: time.Minute, Cooldown: 3 * time.Minute, Stabilization: 5 * time.Minute, OutStep: 2, InStep: 1,
		},
		Rollout: app.Rollout{MaxUnavailable: g.IntN(2), MaxSurge: 1, Deadline: pick(g, 0, time.Hour), Revert: g.maybe(), Healthy: pick(g, 0, time.Second)},
	}
	if s.GPUs > 0 && g.maybe() {
		s.Container.GPUs = &buoy.GPURequest{Count: s.GPUs, Model: pick(g, "", "A100"), Memory: pick(g, int64(0), 40<<30), Vendor: pick(g, "", "amd"), Capabilities: g.texts("compute", "video")}
		if g.maybe() {
			s.Container.GPUs.Count, s.Container.GPUs.Devices = 0, []string{"GPU-1", "2"}[:s.GPUs]
		}
	}
	for i := range g.IntN(3) {
		proto := pick(g, "http", "h2c", "tcp", "udp")
		p := app.Port{Name: pick(g, "", fmt.Sprint("p", i)), Container: uint16(80 + i), Proto: proto}
		if g.maybe() && !s.Container.HostNetworking {
			p.Host = uint16(8080 + i)
		}
		if proto == "tcp" {
			p.Listen, p.SendProxy = uint16(g.IntN(2)*(5000+i)), g.maybe()
		}
		s.Ports = append(s.Ports, p)
	}
	if g.maybe() {
		s.Env = []app.EnvVar{{Name: "F", Field: "app.name"}, {Name: "S", Secret: "db", Key: pick(g, "", "k")}}
	}
	if g.maybe() {
		s.Expose = app.Expose{Rules: []app.Rule{{Host: "a.b", Path: pick(g, "", "/x")}, {Path: "/y"}}, Balance: pick(g, "", "sticky")}
	}
	switch s.Kind {
	case app.Service:
		s.Replicas = g.IntN(4)
		if g.maybe() {
			s.Scaling = app.Scaling{
				Mode: pick(g, app.Auto, app.Manual), Min: g.IntN(3), Max: 3 + g.IntN(5), RPS: pick(g, 0, 12.5), P95: g.span(), CPU: pick(g, 0.0, 33.3), Memory: 1, Connections: 1e6,
				OutPct: 90, InPct: 10.5, Window: time.Minute, Cooldown: g.span(), Stabilization: g.span(), OutStep: g.IntN(3), InStep: g.IntN(3), Standby: g.IntN(3),
			}
		}
	case app.Daemon:
	case app.Job, app.Cron:
		s.Rollout = app.Rollout{MaxSurge: 1, Deadline: 5 * time.Minute, Revert: true}
		if slices.ContainsFunc(s.Ports, func(p app.Port) bool { return p.Host != 0 || s.Container.HostNetworking }) {
			s.Rollout.MaxUnavailable, s.Rollout.MaxSurge = 1, 0
		}
	}
	switch s.Kind {
	case app.Service, app.Daemon:
	case app.Job:
		s.Job = app.JobSpec{Completions: 1 + g.IntN(5), Parallelism: 1 + g.IntN(5), Retries: g.IntN(5), Timeout: g.span()}
	case app.Cron:
		s.Job = app.JobSpec{Schedule: pick(g, "@daily", "*/5 * * * 1-5"), Completions: 1, Parallelism: 1, Retries: g.IntN(5)}
	}
	return s
}

func (g gen) placement() app.Placement {
	p := app.Placement{Spread: pick(g, "", "host", "label.zone"), Strategy: pick(g, "", app.SpreadOut, app.BinPack), MaxPerHost: g.IntN(3), Patience: pick(g, g.span(), -1, -time.Second)}
	c := func() app.Constraint {
		return pick(
			g,
			app.Constraint{Attribute: "label.a", Op: "=", Values: []string{pick(g, "", "x", "1")}}, app.Constraint{Attribute: "arch", Op: "in", Values: []string{"a", "b,c"}},
			app.Constraint{Attribute: "name", Op: "not in", Values: []string{"a"}}, app.Constraint{Attribute: "label.b", Op: "exists"},
			app.Constraint{Attribute: "label.n", Op: ">=", Values: []string{"4"}}, app.Constraint{Attribute: "gpu.model", Op: "~", Values: []string{"^a|b$"}},
		)
	}
	for range g.IntN(3) {
		p.Constraints = append(p.Constraints, c())
	}
	if g.maybe() {
		p.Affinity = []app.Affinity{{App: "db", Weight: -5}, {Constraint: new(c()), Weight: g.IntN(100), Required: true}}
	}
	return p
}

func (g gen) container() buoy.CreateRequest {
	c := buoy.CreateRequest{
		Hostname: pick(g, "", "h"), Flist: pick(g, "nginx:1", "/srv/rootfs"), Storage: pick(g, "", "dir:/x"), Lazy: pick(g, "", "auto", "never"),
		DNS: g.texts("1.1.1.1", "::1"), Filesystems: g.texts("a:b"), Command: g.texts("", "-x", "1", "true"), Entrypoint: g.texts("/bin/a", "b"),
		Pwd: pick(g, "", "/srv"), User: pick(g, "", "0", "a:b"), Init: g.maybe(), Sysctls: pick(g, nil, map[string]string{"net.core.somaxconn": "1"}), ShmSize: pick(g, int64(0), 1, 64<<20),
		ReadOnly: g.maybe(), Privileged: g.maybe(), CapAdd: g.texts("ALL"), CapDrop: g.texts("CHOWN"), NewPrivileges: g.maybe(), Unconfined: g.maybe(),
		Restart: pick(g, "", "no", "always", "on-failure", "on-failure:7", "unless-stopped"), StopSignal: pick(g, "", "SIGINT", "9"), StopGrace: g.IntN(90), Keep: g.maybe(), Labels: g.dict(),
		Limits: buoy.Limits{MilliCPU: pick(g, int64(0), 10, 1500, 2000), CPUShares: pick(g, uint64(0), 2), CPUSet: pick(g, "", "0-1"), Memory: pick(g, int64(0), 64<<20, 64<<20+1), PIDs: pick(g, int64(0), -1, 7)},
	}
	if c.Limits.Memory > 0 {
		c.Limits.Swap = pick(g, int64(0), -1, 1<<30, 3)
	}
	switch g.IntN(4) {
	case 0:
		c.HostNetworking = true
	case 1:
	case 2:
		c.NICs = []buoy.NIC{{Type: "default"}, {Type: "vlan", ID: "7", Name: "e", HWAddr: "02:00:00:00:00:01", Config: &buoy.NICConfig{CIDR: "10.0.0.1/8", Rate: &buoy.Rate{In: 5}, Routes: []buoy.Route{{To: "a", Via: "b"}}, Port: 4789}}}
	default:
		c.NICs = []buoy.NIC{{Type: "default"}}
	}
	if g.maybe() {
		c.Env = []string{"A=1", "B=", "C=x=y \n"}
	}
	if g.maybe() {
		c.Mounts = []buoy.Mount{
			{Type: "bind", Source: "/srv", Target: "/a", ReadOnly: g.maybe()},
			{Type: "tmpfs", Target: "/b", Size: pick(g, int64(0), 5)},
			{Type: "volume", Source: pick(g, "web.data", "data", "a.b"), Target: "/c"},
		}
	}
	if g.maybe() {
		c.Devices = []buoy.Device{{Path: "/dev/a"}, {Path: "/dev/b", Target: "/dev/c", Permissions: "r"}}
		c.Ulimits = []buoy.Ulimit{{Name: "nofile", Soft: 1, Hard: 1<<64 - 1}}
		c.InitProcesses = []buoy.InitProcess{{Name: "/x", Args: []string{"a"}, Environment: []string{"A=b"}, Stdin: "in"}}
	}
	if g.maybe() {
		h := buoy.HealthCheck{Type: pick(g, "http", "tcp", "exec"), InitialDelay: float64(g.IntN(3)), Period: pick(g, 0, 0.25, 10), Timeout: pick(g, 0.0, 3), FailureThreshold: g.IntN(3), SuccessThreshold: g.IntN(3), Restart: g.maybe(), Drain: float64(g.IntN(40))}
		switch h.Type {
		case "http":
			h.Port, h.Path, h.Scheme, h.Method, h.Body = 8080, pick(g, "", "/", "/a?b"), pick(g, "", "https"), pick(g, "", "POST"), pick(g, "", "x")
			if g.maybe() {
				h.Headers, h.Statuses = []buoy.HealthHeader{{Name: "A", Value: "1"}}, []int{200, 204}
			}
		case "tcp":
			h.Port = 9
		default:
			h.Command = []string{"ok", "1"}
		}
		c.Health = &h
	}
	return c
}

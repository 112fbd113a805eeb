package manifest

import (
	"slices"
	"time"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// The defaults of a policy, which are the document's, but for the most replicas
// that a person may want.
func defaultScaling(mode app.ScaleMode) app.Scaling {
	s := app.Scaling{
		Mode: mode, Min: 1, Max: 5,
		RPS: 50, P95: 250 * time.Millisecond, CPU: 70, Memory: 75, Connections: 100, OutPct: 80, InPct: 30,
		Window: 60 * time.Second, Cooldown: 180 * time.Second, Stabilization: 300 * time.Second, OutStep: 2, InStep: 1,
	}
	if mode == app.Manual {
		s.Max = 100
	}
	return s
}

func (s *scaling) policy() app.Scaling {
	if s == nil {
		return defaultScaling(app.Manual)
	}
	mode := app.ScaleMode(s.Mode)
	if mode == "" {
		mode = app.Auto
	}
	out := defaultScaling(mode)
	set(&out.Min, s.Min)
	if s.Min != nil && s.Max == nil {
		out.Max = max(out.Max, out.Min)
	}
	set(&out.Max, s.Max)
	set(&out.RPS, s.RPS)
	set(&out.CPU, s.CPU)
	set(&out.Memory, s.Memory)
	set(&out.Connections, s.Connections)
	set(&out.OutPct, s.Out)
	set(&out.InPct, s.In)
	set(&out.OutStep, s.OutStep)
	set(&out.InStep, s.InStep)
	set(&out.Standby, s.Standby)
	set(&out.P95, (*time.Duration)(s.P95))
	set(&out.Window, (*time.Duration)(s.Window))
	set(&out.Cooldown, (*time.Duration)(s.Cooldown))
	set(&out.Stabilization, (*time.Duration)(s.Stabilization))
	return out
}

// set gives into the value, if there is one.
func set[T any](into, value *T) {
	if value != nil {
		*into = *value
	}
}

// rules are those of an app. One that is alone on its host, because it is a daemon or
// has ports of the host, makes room for the next first.
func (r *rollout) rules(spec *app.Spec) app.Rollout {
	out := app.Rollout{MaxSurge: 1, Deadline: 300 * time.Second, Revert: true}
	hostPort := func(p app.Port) bool { return p.Host != 0 || spec.Container.HostNetworking }
	if spec.Kind == app.Daemon || slices.ContainsFunc(spec.Ports, hostPort) {
		out.MaxUnavailable, out.MaxSurge = 1, 0
	}
	if r == nil {
		return out
	}
	set(&out.MaxUnavailable, r.MaxUnavailable)
	set(&out.MaxSurge, r.MaxSurge)
	set(&out.Deadline, (*time.Duration)(r.Deadline))
	set(&out.Revert, r.Revert)
	out.Canary, out.Healthy = r.Canary, time.Duration(r.Healthy)
	return out
}

func (p *placement) rules() app.Placement {
	out := app.Placement{Patience: 5 * time.Minute}
	if p == nil {
		return out
	}
	set(&out.Patience, (*time.Duration)(p.Patience))
	out.Spread, out.Strategy, out.MaxPerHost = p.Spread, app.Strategy(p.Strategy), p.MaxPerHost
	for _, c := range p.Constraints {
		out.Constraints = append(out.Constraints, c.out())
	}
	for _, a := range p.Affinity {
		one := app.Affinity{App: a.App, Weight: a.Weight, Required: a.Required}
		if a.Constraint != nil {
			c := a.Constraint.out()
			one.Constraint = &c
		}
		out.Affinity = append(out.Affinity, one)
	}
	return out
}

func (e *expose) rules(d *decoder) app.Expose {
	if e == nil {
		return app.Expose{}
	}
	out := app.Expose{Balance: e.Balance}
	add := func(r app.Rule, rule, host, path string) {
		at := index("expose.rules", len(out.Rules))
		d.paths[at], d.paths[below(at, "host")], d.paths[below(at, "path")] = rule, host, path
		out.Rules = append(out.Rules, r)
	}
	if e.Host != "" {
		add(app.Rule{Host: e.Host, Path: e.Path}, "expose.host", "expose.host", "expose.path")
	}
	for i, host := range e.Hosts {
		at := index("expose.hosts", i)
		add(app.Rule{Host: host, Path: e.Path}, at, at, "expose.path")
	}
	if len(out.Rules) == 0 && e.Path != "" {
		add(app.Rule{Path: e.Path}, "expose.path", "expose.path", "expose.path")
	}
	for i, r := range e.Rules {
		at := index("expose.rules", i)
		add(app.Rule(r), at, below(at, "host"), below(at, "path"))
	}
	return out
}

func (j *job) spec() app.JobSpec {
	out := app.JobSpec{Completions: 1, Parallelism: 1, Retries: 6}
	if j == nil {
		return out
	}
	set(&out.Completions, j.Completions)
	set(&out.Parallelism, j.Parallelism)
	set(&out.Retries, j.Retries)
	set(&out.Timeout, (*time.Duration)(j.Timeout))
	return out
}

// check is what the node does, of a container of spec. What the kind of check has no
// use for Spec.Validate refuses.
func (h *healthCheck) check(d *decoder, spec app.Spec) *buoy.HealthCheck {
	if h == nil {
		return nil
	}
	out := &buoy.HealthCheck{
		Type: "http", Method: h.Method, Body: h.Body, Statuses: h.Statuses, Command: strs(h.Command),
		InitialDelay: 30, FailureThreshold: h.FailureThreshold, SuccessThreshold: h.SuccessThreshold,
		Restart: restarts(spec), Drain: spec.Drain.Seconds(),
	}
	for _, one := range h.Headers {
		out.Headers = append(out.Headers, buoy.HealthHeader{Name: one.Name, Value: string(one.Value)})
	}
	for into, value := range map[*float64]*seconds{&out.InitialDelay: h.InitialDelay, &out.Period: h.Period, &out.Timeout: h.Timeout, &out.Drain: h.Drain} {
		if value != nil {
			*into = time.Duration(*value).Seconds()
		}
	}
	set(&out.Restart, h.Restart)
	switch {
	case h.Protocol == "EXEC" || h.Protocol == "" && len(h.Command) > 0:
		out.Type = "exec"
	case h.Protocol == "TCP":
		out.Type = "tcp"
	case h.Protocol == "HTTPS":
		out.Scheme = "https"
		fallthrough
	default:
		out.Path = "/health"
	}
	set(&out.Path, h.Path)
	if out.Type != "exec" || h.Port != nil {
		out.Port = h.port(d, spec.Ports)
	}
	return out
}

// restarts says whether hosts start a replica again that has ended.
func restarts(spec app.Spec) bool {
	switch spec.Container.Restart {
	case "":
		return spec.Kind != app.Job && spec.Kind != app.Cron
	default:
		return spec.Container.Restart != "no"
	}
}

func (h *healthCheck) port(d *decoder, ports []app.Port) uint16 {
	switch {
	case h.Port == nil && len(ports) == 0:
		d.problem("healthCheck.port", "is missing: the app has no ports").With = []string{"spec.ports", "healthCheck.protocol", "healthCheck.command"}
		return 0
	case h.Port == nil:
		return ports[0].Container
	case h.Port.name == "":
		return h.Port.number
	}
	var names []string
	for i, p := range ports {
		if p.Name == h.Port.name {
			return p.Container
		}
		names = append(names, below(index("spec.ports", i), "name"))
	}
	if len(ports) == 0 {
		names = []string{"spec.ports"}
	}
	d.problem("healthCheck.port", "is %q, and no port of the app has that name", brief(h.Port.name)).With = names
	return 0
}

package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Of is a manifest that means spec: Parse makes the same Spec of it.
func Of(spec app.Spec) (json.RawMessage, error) {
	m := document{
		APIVersion: "v1", Kind: "App",
		Metadata: metadata{Name: spec.Name, Labels: asWords(spec.Labels), Annotations: asWords(spec.Annotations)},
		Spec:     specOf(spec),
		sections: sections{
			Health: healthOf(spec.Container.Health), Placement: placementOf(spec.Placement), Rollout: rolloutOf(spec.Rollout), Expose: exposeOf(spec.Expose),
			Termination: &termination{Drain: new(seconds(spec.Drain)), Grace: new(seconds(time.Duration(spec.Container.StopGrace) * time.Second)), StopSignal: spec.Container.StopSignal},
		},
	}
	for name, kind := range kinds {
		if kind == spec.Kind && name != "Worker" {
			m.Kind = name
		}
	}
	if spec.Kind == app.Service && spec.Scaling != defaultScaling(app.Manual) {
		m.Scaling = scalingOf(spec.Scaling)
	}
	if spec.Kind == app.Job || spec.Kind == app.Cron {
		j := spec.Job
		m.Rollout = nil
		m.Job = &job{Completions: &j.Completions, Parallelism: &j.Parallelism, Retries: &j.Retries, Timeout: new(seconds(j.Timeout))}
	}
	out, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write a manifest of app %s: %w", spec.Name, err)
	}
	return out, nil
}

func asWords(in map[string]string) map[string]word {
	out := make(map[string]word, len(in))
	for k, v := range in {
		out[k] = word(v)
	}
	return out
}

func specOf(s app.Spec) spec {
	c := s.Container
	out := spec{
		Image: c.Flist, Storage: c.Storage, Lazy: c.Lazy, Command: c.Entrypoint, Args: c.Command,
		WorkingDir: c.Pwd, User: word(c.User), Hostname: c.Hostname, Env: envOf(s), Volumes: volumesOf(s),
		Resources: resources{
			CPU: cpu(c.Limits.MilliCPU), Memory: byteSize(c.Limits.Memory), GPUs: s.GPUs, Swap: swap(c.Limits.Swap), PIDs: pids(c.Limits.PIDs),
			CPUShares: c.Limits.CPUShares, CPUSet: c.Limits.CPUSet,
		},
		Replicas: s.Replicas, Schedule: s.Job.Schedule, RestartPolicy: restartPolicy(c.Restart), Init: c.Init,
		NICs: nicsOf(c), HostNetwork: c.HostNetworking, DNS: c.DNS, Filesystems: c.Filesystems,
		Sysctls: asWords(c.Sysctls), ShmSize: byteSize(c.ShmSize), Labels: asWords(c.Labels),
		Logs: logLimits{MaxSize: byteSize(c.Logs.MaxSize), MaxFiles: c.Logs.MaxFiles}, TTY: c.TTY, Stdin: c.Stdin,
		ReadOnly: c.ReadOnly, Keep: c.Keep, Privileged: c.Privileged, CapAdd: c.CapAdd, CapDrop: c.CapDrop,
		NewPrivileges: c.NewPrivileges, Unconfined: c.Unconfined, UserNS: c.UserNS,
	}
	if g := c.GPUs; g != nil {
		out.Resources.GPU = &gpuKind{Model: g.Model, Memory: byteSize(g.Memory), Vendor: g.Vendor, Devices: g.Devices, Capabilities: g.Capabilities}
	}
	for _, f := range s.Secrets {
		out.Secrets = append(out.Secrets, secretFile{Path: f.Path, secretKeyRef: secretKeyRef{Name: f.Secret, Key: f.Key}})
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, port{Container: p.Container, Protocol: strings.ToUpper(p.Proto), Name: p.Name, Host: p.Host, Listen: p.Listen, SendProxy: p.SendProxy})
	}
	for _, p := range c.InitProcesses {
		out.InitProcesses = append(out.InitProcesses, initProcess{Name: p.Name, Args: p.Args, Pwd: p.Pwd, Environment: p.Environment, Stdin: p.Stdin})
	}
	for _, v := range c.Devices {
		out.Devices = append(out.Devices, device(v))
	}
	for _, u := range c.Ulimits {
		out.Ulimits = append(out.Ulimits, ulimit(u))
	}
	return out
}

func envOf(s app.Spec) envList {
	var out envList
	for _, text := range s.Container.Env {
		name, value, _ := strings.Cut(text, "=")
		out = append(out, envVar{Name: name, Value: new(word(value))})
	}
	for _, v := range s.Env {
		one := envVar{Name: v.Name}
		switch {
		case v.Field != "":
			one.origin = origin{Source: "sdk", Key: v.Field}
		case v.Secret != "":
			one.origin = origin{Source: "secret", Key: v.Secret, Field: v.Key}
		default:
			one.Value = new(word(v.Value))
		}
		out = append(out, one)
	}
	return out
}

func volumesOf(s app.Spec) []volume {
	var out []volume
	for _, m := range s.Container.Mounts {
		v := volume{MountPath: m.Target, ReadOnly: m.ReadOnly}
		switch m.Type {
		case "bind":
			v.HostPath = hostPath(m.Source)
		case "tmpfs":
			v.Tmpfs = &memory{memoryFields: memoryFields{Size: byteSize(m.Size)}}
		default:
			var own bool
			if v.Name, own = strings.CutPrefix(m.Source, volumeName(s.Name, "")); !own {
				v.Shared = true
			}
		}
		out = append(out, v)
	}
	return out
}

func nicsOf(c buoy.CreateRequest) *[]nic {
	if c.HostNetworking && len(c.NICs) == 0 {
		return nil
	}
	if len(c.NICs) == 1 {
		if n := c.NICs[0]; n.Type == "default" && n.ID == "" && n.Name == "" && n.HWAddr == "" && n.Config == nil && !c.HostNetworking {
			return nil
		}
	}
	out := []nic{}
	for _, n := range c.NICs {
		one := nic{Type: n.Type, ID: word(n.ID), Name: n.Name, HWAddr: n.HWAddr}
		if n.Config != nil {
			config := nicConfig(*n.Config)
			one.Config = &config
		}
		out = append(out, one)
	}
	return &out
}

func scalingOf(s app.Scaling) *scaling {
	return &scaling{
		Mode: string(s.Mode), Min: &s.Min, Max: &s.Max, RPS: &s.RPS, P95: new(millis(s.P95)), CPU: &s.CPU, Memory: &s.Memory, Connections: &s.Connections,
		Out: &s.OutPct, In: &s.InPct, Window: new(seconds(s.Window)), Cooldown: new(seconds(s.Cooldown)), Stabilization: new(seconds(s.Stabilization)),
		OutStep: &s.OutStep, InStep: &s.InStep, Standby: &s.Standby,
	}
}

func rolloutOf(r app.Rollout) *rollout {
	return &rollout{MaxUnavailable: &r.MaxUnavailable, MaxSurge: &r.MaxSurge, Canary: r.Canary, Deadline: new(seconds(r.Deadline)), Revert: &r.Revert, Healthy: seconds(r.Healthy)}
}

func placementOf(p app.Placement) *placement {
	out := &placement{Spread: p.Spread, Strategy: string(p.Strategy), MaxPerHost: p.MaxPerHost, Patience: new(patience(p.Patience))}
	for _, c := range p.Constraints {
		out.Constraints = append(out.Constraints, *constraintOf(c))
	}
	for _, a := range p.Affinity {
		one := affinity{App: a.App, Weight: a.Weight, Required: a.Required}
		if a.Constraint != nil {
			one.Constraint = constraintOf(*a.Constraint)
		}
		out.Affinity = append(out.Affinity, one)
	}
	return out
}

func constraintOf(c app.Constraint) *constraint {
	return &constraint{Attribute: c.Attribute, Op: c.Op, Values: c.Values}
}

func exposeOf(e app.Expose) *expose {
	if len(e.Rules) == 0 && e.Balance == "" {
		return nil
	}
	out := &expose{Balance: e.Balance}
	for _, r := range e.Rules {
		out.Rules = append(out.Rules, rule(r))
	}
	return out
}

func healthOf(h *buoy.HealthCheck) *healthCheck {
	if h == nil {
		return nil
	}
	out := &healthCheck{
		Protocol: strings.ToUpper(h.Type), Method: h.Method, Body: h.Body, Statuses: h.Statuses, Command: h.Command,
		FailureThreshold: h.FailureThreshold, SuccessThreshold: h.SuccessThreshold, Restart: &h.Restart,
		InitialDelay: secondsOf(h.InitialDelay), Drain: secondsOf(h.Drain),
	}
	if h.Period != 0 {
		out.Period = secondsOf(h.Period)
	}
	if h.Timeout != 0 {
		out.Timeout = secondsOf(h.Timeout)
	}
	if h.Port != 0 && h.Type != "exec" {
		out.Port = &portRef{number: h.Port}
	}
	for _, one := range h.Headers {
		out.Headers = append(out.Headers, healthHeader{Name: one.Name, Value: word(one.Value)})
	}
	if h.Type == "http" {
		out.Path = &h.Path
		if h.Scheme == "https" {
			out.Protocol = "HTTPS"
		}
	}
	return out
}

func secondsOf(f float64) *seconds { return new(seconds(math.Round(f * float64(time.Second)))) }

package osc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
	"github.com/buoy-edge/buoy/internal/errs"
)

// annotation has the service that an app is a part of.
const annotation = "osc.service"

// part is a container of a service and the app that it becomes.
type part struct {
	spec   app.Spec
	source json.RawMessage
	paths  map[string]string // how the descriptor calls what a manifest calls otherwise
}

// origin is kept with each app of a service.
type origin struct {
	Service string          `json:"service"`
	OCL     json.RawMessage `json:"ocl,omitempty"` // as it was given; with the first one alone
}

// parts are what a service consists of. Their error is app.Problems: all that
// is wrong with the descriptor.
func parts(raw []byte, service string) (name string, all []part, err error) {
	c, err := read(raw)
	if err != nil {
		return "", nil, err
	}
	if service == "" {
		service = c.desc.Name
	}
	named, secured := map[string]bool{}, map[int]bool{}
	for i := range c.desc.Compute.Containers {
		one := &c.desc.Compute.Containers[i]
		path := fmt.Sprintf("compute.containers[%d]", i)
		if named[one.Name] {
			c.add(path+".name", "is %q a second time", one.Name)
		}
		named[one.Name] = true
		groups := c.refs(path+".security", one.Security, "network.security")
		for _, g := range groups {
			if !secured[g] {
				c.enforce(g)
			}
			secured[g] = true
		}
		all = append(all, c.part(one, groups, service, path))
	}
	if len(c.problems) > 0 {
		return "", nil, c.problems
	}
	for i := range all {
		from := origin{Service: service}
		if i == 0 {
			var b bytes.Buffer
			if err := json.Compact(&b, raw); err != nil {
				return "", nil, errs.E(errs.Invalid, "the descriptor is no JSON: %w", err)
			}
			from.OCL = b.Bytes()
		}
		if all[i].source, err = json.Marshal(from); err != nil {
			return "", nil, err
		}
	}
	return service, all, nil
}

// builder makes a manifest of a container: so both have the same defaults, and
// the same is wrong with them.
type builder struct {
	*checker
	one     *container
	service string
	path    string // of the container
	groups  []int  // of security
	paths   map[string]string
	spec    map[string]any

	published []map[string]any // ports
	found     bool             // one of them is not of UDP
}

func (c *checker) part(one *container, groups []int, service, path string) part {
	b := builder{checker: c, one: one, service: service, path: path, groups: groups, spec: map[string]any{
		"image": one.Image, "command": one.Command, "args": one.Args, "restartPolicy": "Always",
	}}
	name, named := service, "name"
	if len(c.desc.Compute.Containers) > 1 {
		name, named = service+"-"+one.Name, path+".name"
	}
	b.paths = map[string]string{"metadata.name": named, "spec.env": path + ".environments", "spec.resources": path, "spec.nics": path + ".subnet", "spec": path, "": path}
	if one.Replicas > 0 {
		b.spec["replicas"] = one.Replicas
	}
	before := len(c.problems)
	b.environment()
	b.resources()
	b.volumes()
	b.networks()
	document := map[string]any{
		"apiVersion": "v1", "kind": "App", "spec": b.spec,
		"metadata": map[string]any{"name": "x", "annotations": map[string]string{annotation: service}},
		"scaling":  map[string]any{"mode": "manual", "minReplicas": 0, "maxReplicas": 1000},
	}
	switch {
	case len(c.problems) > before: // the rest is looked at without what may be wrong for the same reason
		delete(b.spec, "ports")
		delete(b.spec, "nics")
	case one.Health != nil:
		document["healthCheck"] = json.RawMessage(one.Health)
	}
	p := part{paths: b.paths}
	text, err := json.Marshal(document)
	if err != nil {
		c.add(path, "cannot be written as a manifest: %v", err)
		return p
	}
	apps, err := manifest.Parse(text)
	if err == nil {
		p.spec = apps[0].Spec
		p.spec.Name = name
		err = p.spec.Validate()
	}
	if err != nil {
		c.problems = append(c.problems, p.problems(err)...)
		return p
	}
	return p
}

// problems are those of a spec, as the descriptor calls its fields.
func (p *part) problems(err error) app.Problems {
	problems, ok := errors.AsType[app.Problems](err)
	if !ok {
		return app.Problems{{Path: "compute.containers", Text: err.Error()}}
	}
	out := make(app.Problems, len(problems))
	for i, one := range problems {
		out[i] = app.Problem{Path: p.called(one.Path), Text: one.Text}
	}
	return out
}

// called is how the descriptor calls what a manifest calls path.
func (p *part) called(path string) string {
	for known := path; ; known = known[:max(strings.LastIndexAny(known, ".["), 0)] {
		ocl, ok := p.paths[known]
		switch {
		case ok && known == "" && path != "":
			return ocl + "." + path
		case ok || known == "":
			return ocl + path[len(known):]
		}
	}
}

func (b *builder) environment() {
	var env []map[string]string
	for i, kv := range b.one.Environments {
		name, value, ok := strings.Cut(string(kv), "=")
		at := fmt.Sprintf("%s.environments[%d]", b.path, i)
		if !ok || name == "" {
			b.add(at, "is %q; it must be NAME=VALUE", kv)
			continue
		}
		b.paths[fmt.Sprintf("spec.env[%d]", len(env))] = at
		env = append(env, map[string]string{"name": name, "value": value})
	}
	b.spec["env"] = env
}

func (b *builder) resources() {
	r := map[string]json.RawMessage{}
	if b.one.CPU != nil {
		r["cpu"] = json.RawMessage(b.one.CPU)
	}
	if b.one.Memory != nil {
		r["memory"] = json.RawMessage(b.one.Memory)
	}
	b.spec["resources"] = r
}

// volumes are the storage of the service: containers of one service on one host
// that mount the same have the same.
func (b *builder) volumes() {
	var all []map[string]any
	for i, raw := range b.one.Storage {
		path := fmt.Sprintf("%s.storage[%d]", b.path, i)
		m, ref := mounted{}, path
		if raw[0] == '"' {
			_ = json.Unmarshal(raw, &m.Ref) // is text
		} else {
			ref += ".ref"
			if err := manifest.Decode(raw, &m); err != nil {
				one := part{paths: map[string]string{"": path}}
				b.problems = append(b.problems, one.problems(err)...)
				continue
			}
		}
		at, ok := b.ref(ref, m.Ref, "storage")
		if !ok {
			continue
		}
		name := b.desc.Storage[at].Name
		if name == "" {
			b.add(fmt.Sprintf("storage[%d].name", at), "is missing, and %s mounts it", path)
			continue
		}
		if m.MountPath == "" {
			m.MountPath = "/mnt/" + name
		}
		b.paths[fmt.Sprintf("spec.volumes[%d]", len(all))] = path
		b.paths[fmt.Sprintf("spec.volumes[%d].name", len(all))] = fmt.Sprintf("storage[%d].name", at)
		all = append(all, map[string]any{"name": b.service + "." + name, "shared": true, "mountPath": m.MountPath, "readOnly": m.ReadOnly})
	}
	b.spec["volumes"] = all
}

// networks are NICs and published ports.
func (b *builder) networks() {
	b.ports()
	subnets := b.refs(b.path+".subnet", b.one.Subnet, "network.subnet")
	var nics []any
	if len(b.one.Subnet) == 0 || len(b.published) > 0 { // ports are published through it
		nics = append(nics, map[string]string{"type": "default"})
	}
	for _, at := range subnets {
		path := fmt.Sprintf("network.subnet[%d].nic", at)
		nic := b.desc.Network.Subnet[at].NIC
		if nic == nil {
			b.add(path, `is missing: hosts have to know how they are connected to the subnet, like {"type":"vlan","id":"100","config":{"dhcp":true}}; see docs/osc.md`)
			continue
		}
		b.paths[fmt.Sprintf("spec.nics[%d]", len(nics))] = path
		nics = append(nics, json.RawMessage(nic))
	}
	b.spec["nics"] = nics
}

// ports are those that are named, or else those that rules open.
func (b *builder) ports() {
	secured, rules := len(b.groups) > 0, firewall{}
	if secured {
		rules = b.firewall(b.groups)
	}
	for i, text := range b.one.Ports {
		path := fmt.Sprintf("%s.ports[%d]", b.path, i)
		p, ok := manifest.ParsePort(string(text))
		switch transport := transport(p); {
		case !ok:
			b.add(path, "is %q; it must be a port, like 80, 8080:80 or 53/udp", text)
		case secured && !rules.opens(transport, p.Container):
			b.add(path, "is %d/%s, which no rule of the container's security groups allows", p.Container, transport)
		default:
			b.publish(p, path)
		}
	}
	if secured && len(b.one.Ports) == 0 {
		all, ok := rules.all()
		if !ok {
			b.add(b.path+".ports", "is missing: the rules allow more than %d ports, and not all can be published", maxPorts)
		}
		for _, o := range all {
			b.publish(o, b.path+".security")
		}
	}
	b.publicly()
	b.spec["ports"] = b.published
}

// publish adds a port. The first one that is not of UDP speaks HTTP unless it
// says otherwise: there the balancer finds the app by its name.
func (b *builder) publish(p app.Port, path string) {
	if p.Proto == "" {
		p.Proto = "http"
		if b.found {
			p.Proto = "tcp"
		}
	}
	b.found = b.found || p.Proto != "udp"
	one := map[string]any{"containerPort": p.Container, "protocol": strings.ToUpper(p.Proto)}
	if p.Host != 0 {
		one["hostPort"] = p.Host
	}
	for _, field := range []string{"", ".containerPort", ".hostPort"} {
		b.paths[fmt.Sprintf("spec.ports[%d]%s", len(b.published), field)] = path
	}
	b.published = append(b.published, one)
}

func transport(p app.Port) string {
	if p.Proto == "udp" {
		return "udp"
	}
	return "tcp"
}

// publicly may say no more than what is so.
func (b *builder) publicly() {
	switch public := b.one.Publicly; {
	case public == nil:
	case *public && len(b.published) == 0:
		b.add(b.path+".publicly", "is true, and the container has no port that anybody could reach")
	case !*public && len(b.published) > 0:
		b.add(b.path+".publicly", "is false, and hosts publish ports for everybody: leave out the ports, or publicly")
	}
}

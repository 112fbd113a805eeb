package manifest

import (
	"strings"
	"time"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// kinds are those of manifests.
var kinds = map[string]app.Kind{"App": app.Service, "Worker": app.Service, "Job": app.Job, "CronJob": app.Cron, "Daemon": app.Daemon}

// spec is what the manifest means. What it says against itself is told to d;
// what is wrong with the result as such, app.Spec.Validate finds.
func (m *document) spec(d *decoder) app.Spec {
	s := &m.Spec
	in := m.joined(d)
	kind := kinds[m.Kind]
	if kind == "" { // it was not read
		kind = app.Service
	}
	out := app.Spec{
		Name: m.Metadata.Name, Kind: kind, Labels: texts(m.Metadata.Labels), Annotations: texts(m.Metadata.Annotations),
		Container: m.container(d, in), Replicas: s.Replicas,
		Ports:     m.ports(d),
		Scaling:   in.Scaling.policy(),
		Drain:     30 * time.Second,
		Placement: in.Placement.rules(),
		Expose:    in.Expose.rules(d),
	}
	if in.Termination != nil && in.Termination.Drain != nil {
		out.Drain = time.Duration(*in.Termination.Drain)
	}
	out.GPUs, out.Container.GPUs = s.Resources.gpus(d)
	out.Container.Env, out.Env = s.Env.split(d)
	for _, f := range s.Secrets {
		out.Secrets = append(out.Secrets, app.SecretFile{Path: f.Path, Secret: f.Name, Key: f.Key})
	}
	out.Container.Health = in.Health.check(d, out)
	out.Rollout = in.Rollout.rules(&out)
	m.counts(d, in, &out)
	return out
}

// gpus is how many there are to be, and which, if that is said.
func (r *resources) gpus(d *decoder) (n int, which *buoy.GPURequest) {
	k := r.GPU
	if k == nil {
		return r.GPUs, nil
	}
	n = r.GPUs
	which = &buoy.GPURequest{Count: n, Vendor: k.Vendor, Model: k.Model, Memory: int64(k.Memory), Devices: strs(k.Devices), Capabilities: strs(k.Capabilities)}
	if len(k.Devices) > 0 {
		if n != 0 && n != len(k.Devices) {
			d.problem("spec.resources.gpus", "is %d, and gpu.devices names %d: leave the number out", n, len(k.Devices))
		}
		which.Count, n = 0, len(k.Devices)
	}
	if n == 0 {
		d.problem("spec.resources.gpus", "is missing: gpu says which, and not how many").With = []string{"spec.resources.gpu"}
	}
	return n, which
}

// joined are the sections, wherever they stand.
func (m *document) joined(d *decoder) sections {
	in := m.sections
	join(d, "scaling", &in.Scaling, m.Spec.Scaling)
	join(d, "healthCheck", &in.Health, m.Spec.Health)
	join(d, "termination", &in.Termination, m.Spec.Termination)
	join(d, "placement", &in.Placement, m.Spec.Placement)
	join(d, "rollout", &in.Rollout, m.Spec.Rollout)
	join(d, "expose", &in.Expose, m.Spec.Expose)
	join(d, "job", &in.Job, m.Spec.Job)
	return in
}

func join[T any](d *decoder, name string, one **T, other *T) {
	switch {
	case *one == nil:
		*one = other
	case other != nil:
		d.problem(name, "is in spec, too: keep one of them")
	}
}

// counts is how many replicas there are, by kind.
func (m *document) counts(d *decoder, in sections, out *app.Spec) {
	s := &m.Spec
	if s.Standby != nil {
		if in.Scaling != nil && in.Scaling.Standby != nil && *in.Scaling.Standby != *s.Standby {
			d.problem("spec.standby", "is %d, and scaling.standby %d: keep one of them", *s.Standby, *in.Scaling.Standby)
		}
		out.Scaling.Standby = *s.Standby
	}
	not := func(said bool, path, format string, args ...any) {
		if said {
			d.problem(path, format, args...).With = []string{"kind"}
		}
	}
	jobs := out.Kind == app.Job || out.Kind == app.Cron
	if jobs {
		out.Job = in.Job.spec()
		out.Job.Schedule = s.Schedule
	}
	not(!jobs && in.Job != nil, "job", "is for kind Job and CronJob alone")
	not(out.Kind == app.Cron && s.Schedule == "", "spec.schedule", "is missing: a CronJob says when it runs")
	not(out.Kind != app.Cron && s.Schedule != "", "spec.schedule", "is for kind CronJob alone")
	not(jobs && in.Rollout != nil, "rollout", "has no meaning: a run of a %s is not replaced", m.Kind)
	if out.Kind == app.Service {
		return
	}
	why := "a Daemon has one replica on each host that fits"
	if jobs {
		why = "a " + m.Kind + " has job.completions and job.parallelism"
	}
	not(s.Replicas != 0, "spec.replicas", "has no meaning: %s", why)
	not(s.Standby != nil && *s.Standby != 0, "spec.standby", "has no meaning: %s", why)
	not(in.Scaling != nil, "scaling", "has no meaning: %s", why)
}

// protocols of ports.
var protocols = map[string]string{"HTTP": "http", "H2C": "h2c", "GRPC": "h2c", "TCP": "tcp", "UDP": "udp"}

func (m *document) ports(d *decoder) []app.Port {
	s := &m.Spec
	worker := s.Type == "worker" || m.Kind == "Worker"
	switch {
	case worker && len(s.Ports) > 0:
		d.problem("spec.ports", "are there, and a worker has none").With = []string{"kind"}
	case m.Kind == "Worker" && s.Type != "" && s.Type != "worker":
		d.problem("spec.type", "is %q, and a Worker has no ports", s.Type).With = []string{"kind"}
	case !worker && s.Type != "" && len(s.Ports) == 0:
		d.problem("spec.ports", "is missing: an app of type %s has at least one", s.Type).With = []string{"kind"}
	}
	var ports []app.Port
	for _, p := range s.Ports {
		proto := protocols[p.Protocol]
		if proto == "" {
			proto = protocols[strings.ToUpper(s.Type)]
		}
		if proto == "" {
			proto = "http"
		}
		ports = append(ports, app.Port{Name: p.Name, Container: p.Container, Proto: proto, Host: p.Host, Listen: p.Listen, SendProxy: p.SendProxy})
	}
	return ports
}

func texts(in map[string]word) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[k] = string(v)
	}
	return out
}

// strs is a list of words, nil if there are none.
func strs(in words) []string {
	if len(in) == 0 {
		return nil
	}
	return in
}

// container is each replica, as a node is told of it.
func (m *document) container(d *decoder, in sections) buoy.CreateRequest {
	s := &m.Spec
	c := buoy.CreateRequest{
		Hostname: s.Hostname, Flist: s.Image, Storage: s.Storage, Lazy: s.Lazy,
		NICs: m.nics(d), HostNetworking: s.HostNetwork, DNS: strs(s.DNS), Filesystems: strs(s.Filesystems),
		Entrypoint: strs(s.Command), Command: strs(s.Args), Pwd: s.WorkingDir, User: string(s.User), Init: s.Init,
		Mounts: m.mounts(d), Sysctls: texts(s.Sysctls), ShmSize: int64(s.ShmSize),
		Limits: buoy.Limits{
			MilliCPU: int64(s.Resources.CPU), CPUShares: s.Resources.CPUShares, CPUSet: s.Resources.CPUSet,
			Memory: int64(s.Resources.Memory), Swap: int64(s.Resources.Swap), PIDs: int64(s.Resources.PIDs),
		},
		ReadOnly: s.ReadOnly, Privileged: s.Privileged, CapAdd: strs(s.CapAdd), CapDrop: strs(s.CapDrop),
		NewPrivileges: s.NewPrivileges, Unconfined: s.Unconfined, UserNS: s.UserNS,
		TTY: s.TTY, Stdin: s.Stdin, Logs: buoy.LogLimits{MaxSize: int64(s.Logs.MaxSize), MaxFiles: s.Logs.MaxFiles},
		Restart: string(s.RestartPolicy), StopGrace: 30, Keep: s.Keep, Labels: texts(s.Labels),
	}
	for _, p := range s.InitProcesses {
		c.InitProcesses = append(c.InitProcesses, buoy.InitProcess{Name: p.Name, Args: strs(p.Args), Pwd: p.Pwd, Environment: strs(p.Environment), Stdin: p.Stdin})
	}
	for _, v := range s.Devices {
		c.Devices = append(c.Devices, buoy.Device(v))
	}
	for _, u := range s.Ulimits {
		c.Ulimits = append(c.Ulimits, buoy.Ulimit(u))
	}
	if t := in.Termination; t != nil {
		c.StopSignal = t.StopSignal
		if t.Grace != nil {
			c.StopGrace = int(time.Duration(*t.Grace) / time.Second)
			if time.Duration(*t.Grace)%time.Second != 0 {
				d.problem("termination.terminationGracePeriodSeconds", "is %v; it must be whole seconds", time.Duration(*t.Grace))
			}
		}
	}
	return c
}

func (m *document) nics(d *decoder) []buoy.NIC {
	s := &m.Spec
	if s.HostNetwork && s.NICs != nil && len(*s.NICs) > 0 {
		d.problem("spec.nics", "are there, and with hostNetwork an app has none of its own: keep one of them").With = []string{"spec.nics"}
	}
	switch {
	case s.NICs == nil && s.HostNetwork:
		return nil
	case s.NICs == nil:
		return []buoy.NIC{{Type: "default"}}
	}
	var nics []buoy.NIC
	for _, n := range *s.NICs {
		one := buoy.NIC{Type: n.Type, ID: string(n.ID), Name: n.Name, HWAddr: n.HWAddr}
		if n.Config != nil {
			config := buoy.NICConfig(*n.Config)
			one.Config = &config
		}
		nics = append(nics, one)
	}
	return nics
}

// maxVolumeName is the longest name that a node takes for a volume.
const maxVolumeName = 63

// volumeName is what hosts call a volume of an app. Names of apps have no dots,
// so that no two apps can mean the same one.
func volumeName(app, volume string) string { return app + "." + volume }

func (m *document) mounts(d *decoder) []buoy.Mount {
	var mounts []buoy.Mount
	for i, v := range m.Spec.Volumes {
		field := func(name string) string { return below(index("spec.volumes", i), name) }
		mount := buoy.Mount{Type: "volume", Target: v.MountPath, ReadOnly: v.ReadOnly}
		tmpfs := v.Tmpfs
		if tmpfs.none() {
			tmpfs = v.EmptyDir
		}
		said := 0
		for _, there := range []bool{v.Name != "", v.HostPath != "", !v.EmptyDir.none(), !v.Tmpfs.none()} {
			if there {
				said++
			}
		}
		switch {
		case said > 1:
			d.problem(field(""), "is several things at a time: keep one of name, hostPath, emptyDir and tmpfs")
			continue
		case said == 0:
			d.problem(field("name"), "is missing: a volume has one, or hostPath, or tmpfs").With = []string{field("hostPath"), field("emptyDir"), field("tmpfs")}
		case v.HostPath != "":
			mount.Type, mount.Source = "bind", string(v.HostPath)
		case v.Name == "":
			mount.Type, mount.Size = "tmpfs", int64(max(v.Size, tmpfs.Size))
			if v.Size != 0 && tmpfs.Size != 0 {
				d.problem(field("size"), "is there, and memory has a size of its own: keep one of them")
			}
		case v.Shared:
			mount.Source = v.Name
		default:
			mount.Source = volumeName(m.Metadata.Name, v.Name)
		}
		if len(mount.Source) > maxVolumeName && mount.Type == "volume" {
			d.problem(field("name"), "makes %q, which is longer than the %d letters that volumes have", mount.Source, maxVolumeName)
		}
		if v.Shared && v.Name == "" {
			d.problem(field("shared"), "is for volumes that have a name").With = []string{field("name")}
		}
		if mount.Type != "tmpfs" && v.Size != 0 {
			d.note(field("size"), "is not enforced: only tmpfs is bounded")
		}
		if v.StorageClass != "" {
			d.note(field("storageClass"), "is not used: there is one kind of volume")
		}
		d.paths[index("spec.volumes", len(mounts))] = field("")
		mounts = append(mounts, mount)
	}
	return mounts
}

package manifest

import (
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// composeService is a service of a Compose file.
type composeService struct {
	name, path string

	Image       string        `json:"image" need:"images are not built here"`
	Platform    string        `json:"platform" pattern:"^linux/[a-z0-9]+(/v[0-9]+)?$" form:"like linux/amd64 or linux/arm/v7"`
	PullPolicy  string        `json:"pull_policy" oneof:"missing,if_not_present"`
	Command     shellWords    `json:"command"`
	Entrypoint  shellWords    `json:"entrypoint"`
	Environment composeEnv    `json:"environment"`
	User        word          `json:"user"`
	WorkingDir  string        `json:"working_dir"`
	Hostname    string        `json:"hostname"`
	Labels      listOrDict    `json:"labels"`
	Annotations listOrDict    `json:"annotations"`
	DependsOn   composeAny    `json:"depends_on"`
	Restart     string        `json:"restart"`
	Init        bool          `json:"init"`
	TTY         bool          `json:"tty"`
	StdinOpen   bool          `json:"stdin_open"`
	Logging     composeLog    `json:"logging"`
	StopSignal  word          `json:"stop_signal"`
	StopGrace   *composeTime  `json:"stop_grace_period"`
	Health      *composeCheck `json:"healthcheck"`

	Ports       []composePort     `json:"ports"`
	Expose      words             `json:"expose"`
	Networks    composeNetworks   `json:"networks"`
	NetworkMode string            `json:"network_mode" oneof:"host,none,bridge,default"`
	DNS         oneOrMore         `json:"dns"`
	Volumes     []composeMount    `json:"volumes"`
	Tmpfs       oneOrMore         `json:"tmpfs"`
	Devices     []device          `json:"devices"`
	GPUs        composeGPUs       `json:"gpus"`
	ShmSize     byteSize          `json:"shm_size"`
	Ulimits     map[string]limits `json:"ulimits"`
	Sysctls     listOrDict        `json:"sysctls"`

	ReadOnly    bool  `json:"read_only"`
	Privileged  bool  `json:"privileged"`
	CapAdd      words `json:"cap_add"`
	CapDrop     words `json:"cap_drop"`
	SecurityOpt words `json:"security_opt"`

	Deploy    composeDeploy `json:"deploy"`
	Scale     *int          `json:"scale" min:"0" max:"1000"`
	CPUs      cpu           `json:"cpus"`
	CPUShares uint64        `json:"cpu_shares"`
	CPUSet    string        `json:"cpuset"`
	MemLimit  byteSize      `json:"mem_limit"`
	PIDsLimit int64         `json:"pids_limit"`
}

// limits is a ulimit: one number, or two.
type limits struct{ soft, hard uint64 }

func (l *limits) decode(d *decoder, n *node, path string) {
	switch n.kind {
	case number:
		d.into(&l.soft, n, path)
		l.hard = l.soft
		return
	case object:
	default:
		d.mismatch(n, path, "a number, or an object with soft and hard")
		return
	}
	var both struct {
		Soft uint64 `json:"soft" need:"ulimits have both"`
		Hard uint64 `json:"hard" need:"ulimits have both"`
	}
	d.into(&both, n, path)
	l.soft, l.hard = both.Soft, both.Hard
}

// spec is what the service means.
func (s *composeService) spec(d *decoder, file *composeFile) app.Spec {
	out := app.Spec{
		Name: s.name, Kind: app.Service, Labels: s.Deploy.Labels, Annotations: s.Annotations,
		Container: s.container(d, file, s.path),
		Ports:     s.ports(d, s.path),
		Scaling:   defaultScaling(app.Manual), Drain: 30 * time.Second,
		Placement: (*placement)(nil).rules(),
	}
	s.Deploy.apply(d, &out, below(s.path, "deploy"))
	s.GPUs.reserve(d, &out, below(s.path, "gpus"))
	out.Rollout = s.Deploy.rollout(&out)
	s.replicas(d, &out)
	if _, arch, ok := strings.Cut(s.Platform, "/"); ok {
		arch, _, _ = strings.Cut(arch, "/")
		out.Placement.Constraints = append(out.Placement.Constraints, app.Constraint{Attribute: "arch", Op: "=", Values: []string{arch}})
	}
	out.Container.Health = s.Health.check(d, below(s.path, "healthcheck"), out)
	if s.DependsOn {
		d.note(below(s.path, "depends_on"), "is not waited for: apps start side by side, and are started again until what they need is there")
	}
	return out
}

func (s *composeService) replicas(d *decoder, out *app.Spec) {
	n, path := s.Scale, below(s.path, "scale")
	if more := s.Deploy.Replicas; more != nil {
		if n != nil && *n != *more {
			d.problem(path, "is %d, and deploy.replicas %d: keep one of them", *n, *more)
		}
		n, path = more, below(s.path, "deploy.replicas")
	}
	switch {
	case n == nil:
	case out.Kind != app.Service && *n != 1:
		d.problem(path, "has no meaning: a global service has one replica on each host that fits")
	case *n == 0:
		d.problem(path, "is 0; stop the app instead, or leave the service out")
	case out.Kind == app.Service && *n != 1:
		out.Replicas = *n
		out.Scaling.Max = max(out.Scaling.Max, *n)
	}
}

func (s *composeService) container(d *decoder, file *composeFile, path string) buoy.CreateRequest {
	c := buoy.CreateRequest{
		Flist: s.Image, Command: strs(words(s.Command)), Entrypoint: strs(words(s.Entrypoint)), Env: s.Environment.pairs, Pwd: s.WorkingDir, User: string(s.User),
		Hostname: s.Hostname, Labels: s.Labels, Init: s.Init, TTY: s.TTY, Stdin: s.StdinOpen, Logs: s.Logging.limits(d, below(path, "logging.options")), StopSignal: string(s.StopSignal), StopGrace: 10,
		DNS: strs(words(s.DNS)), ShmSize: int64(s.ShmSize), Sysctls: s.Sysctls, ReadOnly: s.ReadOnly, Privileged: s.Privileged,
		CapAdd: strs(s.CapAdd), CapDrop: strs(s.CapDrop), Mounts: s.mounts(d, file, path),
		Limits: buoy.Limits{MilliCPU: int64(s.CPUs), CPUShares: s.CPUShares, CPUSet: s.CPUSet, Memory: int64(s.MemLimit), PIDs: s.PIDsLimit},
	}
	switch s.NetworkMode {
	case "host":
		c.HostNetworking = true
	case "none":
	default:
		c.NICs = []buoy.NIC{{Type: "default"}}
	}
	if s.NetworkMode != "" && s.Networks.given {
		d.problem(below(path, "networks"), "are there, and so is network_mode: keep one of them")
	}
	if s.StopGrace != nil {
		c.StopGrace = int((time.Duration(*s.StopGrace) + time.Second - 1) / time.Second)
	}
	for _, v := range s.Devices {
		c.Devices = append(c.Devices, buoy.Device(v))
	}
	for _, name := range sortedKeys(s.Ulimits) {
		c.Ulimits = append(c.Ulimits, buoy.Ulimit{Name: name, Soft: s.Ulimits[name].soft, Hard: s.Ulimits[name].hard})
	}
	for i, opt := range s.SecurityOpt {
		switch strings.Replace(opt, "=", ":", 1) {
		case "no-new-privileges", "no-new-privileges:true": // as it is anyway
		case "no-new-privileges:false":
			c.NewPrivileges = true
		case "seccomp:unconfined":
			c.Unconfined = true
		default:
			d.problem(index(below(path, "security_opt"), i), "is %q; it must be no-new-privileges:true or seccomp:unconfined", brief(opt))
		}
	}
	c.Restart = s.restart(d, path)
	return c
}

// composeLog is how output is kept. Drivers that keep it in files are all ours.
type composeLog struct {
	Driver  string `json:"driver" oneof:"json-file,local"`
	Options struct {
		MaxSize  byteSize `json:"max-size" min:"262144"`
		MaxFiles word     `json:"max-file"`
	} `json:"options"`
}

func (l *composeLog) limits(d *decoder, path string) buoy.LogLimits {
	out := buoy.LogLimits{MaxSize: int64(l.Options.MaxSize)}
	if text := string(l.Options.MaxFiles); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n == 0 {
			d.problem(below(path, "max-file"), "is %q; it must be 1 to 100", brief(text))
		}
		out.MaxFiles = n
	}
	return out
}

// restart is the policy of a node.
func (s *composeService) restart(d *decoder, path string) string {
	verb, n, counted := strings.Cut(s.Restart, ":")
	_, err := strconv.ParseUint(n, 10, 31)
	switch s.Restart {
	case "", "no", "always", "unless-stopped", "on-failure":
	default:
		if verb != "on-failure" || !counted || err != nil {
			d.problem(below(path, "restart"), "is %q; it must be no, always, unless-stopped or on-failure[:N]", brief(s.Restart))
		}
	}
	if p := s.Deploy.Restart; p != nil { // as Compose has it, it is the one that counts
		return p.policy(d, below(path, "deploy.restart_policy"))
	}
	return s.Restart
}

// composeCheck is a health check.
type composeCheck struct {
	Test        composeTest  `json:"test"`
	Interval    *composeTime `json:"interval"`
	Timeout     *composeTime `json:"timeout"`
	Retries     int          `json:"retries" min:"0" max:"1000"`
	StartPeriod *composeTime `json:"start_period"`
	Disable     bool         `json:"disable"`
}

// check is what the node does. Compose's defaults are others than ours.
func (h *composeCheck) check(d *decoder, path string, spec app.Spec) *buoy.HealthCheck {
	if h == nil || h.Disable || h.Test.none {
		return nil
	}
	if len(h.Test.command) == 0 {
		d.problem(below(path, "test"), "is missing: checks of images are not known here").With = []string{below(path, "test")}
		return nil
	}
	out := &buoy.HealthCheck{
		Type: "exec", Command: h.Test.command, Period: 30, Timeout: 30, FailureThreshold: h.Retries,
		Restart: restarts(spec), Drain: spec.Drain.Seconds(),
	}
	for into, value := range map[*float64]*composeTime{&out.Period: h.Interval, &out.Timeout: h.Timeout, &out.InitialDelay: h.StartPeriod} {
		if value != nil && *value != 0 { // 0 is the default
			*into = time.Duration(*value).Seconds()
		}
	}
	return out
}

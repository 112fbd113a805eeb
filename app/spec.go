package app

import (
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Kind says how an app lives.
type Kind string

// The kinds.
const (
	Service Kind = "service" // replicas that run on
	Daemon  Kind = "daemon"  // one on each host that fits
	Job     Kind = "job"     // replicas that come to an end
	Cron    Kind = "cron"    // a job, again and again
)

// Spec is what somebody wants to run. Durations are in nanoseconds on disk;
// people write manifests (app/manifest), not this.
type Spec struct {
	Name        string            `json:"name"`
	Kind        Kind              `json:"kind"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`

	// Container is each replica in the words of POST /nodes/{id}/containers.
	// Name, Ports and Standby are not set here: the engine and the fields below
	// say them. Restart is "always" if it is empty, of a job "no". Limits are also what a host must have free.
	Container buoy.CreateRequest `json:"container"`
	Env       []EnvVar           `json:"env,omitempty"` // besides Container.Env: what is known at the launch
	Secrets   []SecretFile       `json:"secrets,omitempty"`
	Ports     []Port             `json:"ports,omitempty"`
	GPUs      int                `json:"gpus,omitempty"` // whole devices

	Replicas  int       `json:"replicas,omitempty"` // of a service when it is first started; 0: Scaling.Min
	Scaling   Scaling   `json:"scaling"`
	Drain     Duration  `json:"drain"` // from leaving the balancer to the stop signal; Container.StopGrace follows
	Placement Placement `json:"placement,omitzero"`
	Rollout   Rollout   `json:"rollout,omitzero"`
	Expose    Expose    `json:"expose,omitzero"`
	Job       JobSpec   `json:"job,omitzero"`
}

// Duration is a time.Duration.
type Duration = time.Duration

// EnvVar is an environment variable whose value is known at the launch. One of
// Value, Field and Secret is set.
type EnvVar struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Field  string `json:"field,omitempty"`  // "instance.ip", "app.replicas" and the like: see fieldsOfLaunch
	Secret string `json:"secret,omitempty"` // name of a secret of the controller
	Key    string `json:"key,omitempty"`    // in the secret
}

// SecretFile is a secret of the controller that replicas have as a file in memory.
type SecretFile struct {
	Path   string `json:"path"`
	Secret string `json:"secret"`
	Key    string `json:"key,omitempty"` // in the secret
}

// Port is a port that replicas listen at. Hosts publish it at one of theirs.
type Port struct {
	Name      string `json:"name,omitempty"`
	Container uint16 `json:"container"`
	Proto     string `json:"proto"`            // "http", "h2c", "tcp", "udp"
	Host      uint16 `json:"host,omitempty"`   // the port of the host; 0: any that is free
	Listen    uint16 `json:"listen,omitempty"` // the balancer listens here for tcp and udp; 0: not at all
	SendProxy bool   `json:"sendProxy,omitempty"`
}

// ScaleMode says who scales.
type ScaleMode string

// The modes.
const (
	Auto   ScaleMode = "auto"
	Manual ScaleMode = "manual"
)

// Scaling is a policy. A target of zero is not looked at.
type Scaling struct {
	Mode          ScaleMode `json:"mode"`
	Min           int       `json:"min"`
	Max           int       `json:"max"`
	RPS           float64   `json:"rps"`               // wanted of each replica, requests a second
	P95           Duration  `json:"p95"`               // wanted latency
	CPU           float64   `json:"cpu"`               // percent of what replicas may use
	Memory        float64   `json:"memory"`            // percent of what replicas may use
	Connections   float64   `json:"connections"`       // wanted of each replica
	OutPct        float64   `json:"outPct"`            // of a target, from where one scales out
	InPct         float64   `json:"inPct"`             // of all targets, below which one scales in
	Window        Duration  `json:"window"`            // over which samples are averaged
	Cooldown      Duration  `json:"cooldown"`          // between two changes
	Stabilization Duration  `json:"stabilization"`     // how long it must have been quiet before one scales in
	OutStep       int       `json:"outStep,omitempty"` // at most so many more at a time; 0: any
	InStep        int       `json:"inStep,omitempty"`  // at most so many fewer at a time; 0: one
	Standby       int       `json:"standby,omitempty"` // replicas kept created and not run
}

// Placement says where replicas may be, and where they had better be.
type Placement struct {
	Constraints []Constraint `json:"constraints,omitempty"` // all must hold
	Affinity    []Affinity   `json:"affinity,omitempty"`
	Spread      string       `json:"spread,omitempty"`   // host attribute whose values get equal shares, such as "label.zone"; "host": hosts themselves
	Strategy    Strategy     `json:"strategy,omitempty"` // default Spread
	MaxPerHost  int          `json:"maxPerHost,omitempty"`
	Patience    Duration     `json:"patience"` // how long a lost host is waited for before its replicas are placed elsewhere; negative: for ever
}

// Strategy says which of the hosts that fit is the best.
type Strategy string

// The strategies.
const (
	SpreadOut Strategy = "spread"  // the emptiest
	BinPack   Strategy = "binpack" // the fullest
)

// Constraint is a condition on a host: Attribute Op Value. Attributes are
// "id", "name", "arch", "os", "label.KEY" and "gpu.model".
type Constraint struct {
	Attribute string   `json:"attribute"`
	Op        string   `json:"op"` // "=", "!=", "in", "not in", "exists", "not exists", "<", "<=", ">", ">=" (numbers), "~" (regular expression)
	Values    []string `json:"values,omitempty"`
}

// Affinity draws replicas to hosts, or keeps them away. One of App and
// Constraint is set.
type Affinity struct {
	App        string      `json:"app,omitempty"` // hosts with replicas of that app, which may be this one
	Constraint *Constraint `json:"constraint,omitempty"`
	Weight     int         `json:"weight"` // -100 to 100; negative keeps away
	Required   bool        `json:"required,omitempty"`
}

// Rollout says how replicas are brought to a new revision.
type Rollout struct {
	MaxUnavailable int      `json:"maxUnavailable"`    // replicas fewer than wanted meanwhile
	MaxSurge       int      `json:"maxSurge"`          // and more
	Canary         int      `json:"canary,omitempty"`  // so many first, then wait for a person
	Deadline       Duration `json:"deadline"`          // without progress, the revision has failed
	Revert         bool     `json:"revert"`            // then go back to the last good one
	Healthy        Duration `json:"healthy,omitempty"` // how long a new replica must have been well before the next
}

// Expose says how the balancer finds the app.
type Expose struct {
	Rules   []Rule `json:"rules,omitempty"`   // none: the host name that is the app's, see proxy in docs
	Balance string `json:"balance,omitempty"` // "roundrobin" (default), "leastconn", "sticky"
}

// Rule is a host name and a path that lead to the app.
type Rule struct {
	Host string `json:"host,omitempty"`
	Path string `json:"path,omitempty"`
}

// JobSpec is about jobs and cron.
type JobSpec struct {
	Schedule    string   `json:"schedule,omitempty"` // of cron: five fields, or @daily and the like; UTC
	Completions int      `json:"completions"`        // replicas that must succeed
	Parallelism int      `json:"parallelism"`        // at a time
	Retries     int      `json:"retries"`            // failures before the run is given up
	Timeout     Duration `json:"timeout,omitempty"`  // of a run
}

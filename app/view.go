package app

import (
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Status is how an app is doing, in one word.
type Status string

// The states of apps.
const (
	Down      Status = "stopped"   // nobody wants it to run
	Pending   Status = "starting"  // it has not been up since it was started
	Up        Status = "running"   // all its replicas are ready
	Degraded  Status = "degraded"  // some are
	Failing   Status = "error"     // none is, or some cannot be placed
	Completed Status = "completed" // a job that has succeeded
)

// View is an app and how it is doing.
type View struct {
	App     App
	Status  Status
	Reason  string // a word, empty while all is well
	Message string // a sentence

	Desired int // replicas that are wanted to run
	Current int // that run
	Ready   int // and are well
	Standby int // that stand by

	Replicas []Replica // living and leaving, by index
	Sample   Sample    // of the last few seconds; Ready and Total are of now
	Unplaced []WhyNot  // for the replicas that no host takes, each host's reason
	Missing  int       // how many no host takes
	Held     string    // why those that a host takes are not launched
}

// Rolled is how many replicas are ready at the target of the rollout, and how
// many are wanted there: while canaries try it, they alone.
func (v *View) Rolled() (ready, wanted int) {
	g, spec := &v.App.Rollout, v.App.Spec()
	if g.Done || spec.Kind == Job || spec.Kind == Cron {
		return v.Ready, v.Desired
	}
	wanted = v.Desired
	if g.Canary {
		wanted = min(wanted, spec.Rollout.Canary)
	}
	return min(g.Ready, wanted), wanted
}

// Sample is what was measured of an app over a moment.
type Sample struct {
	At          time.Time     `json:"at"`
	CPU         float64       `json:"cpu"`    // percent of what its replicas may use, of one CPU each if there is no limit
	Memory      float64       `json:"memory"` // percent of what its replicas may use, of their hosts' if there is no limit
	RPS         float64       `json:"rps"`
	P95         time.Duration `json:"p95"`
	Connections float64       `json:"connections"`
	Errors      float64       `json:"errors"` // answers of 5xx, a second
	Ready       int           `json:"ready"`
	Total       int           `json:"total"`
	MilliCPU    int64         `json:"milliCPU"`    // used by all its replicas
	MemoryBytes int64         `json:"memoryBytes"` // used by all its replicas
}

// WhyNot is why a host does not take a replica.
type WhyNot struct {
	Host   string // id
	Name   string
	Reason string // a sentence; empty: it fits
	Score  float64
}

// Explanation is where the next replica of an app would go, and why.
type Explanation struct {
	App   string
	Hosts []WhyNot // those that fit first, best first
}

// Diff is what applying a spec would do.
type Diff struct {
	Old     *Spec    // what the app is now; nil: there is none yet
	Actions []string // sentences: "replace 3 replicas of revision 4 by revision 5 …"; none: nothing would change
}

// Move is a replica that rebalancing takes elsewhere.
type Move struct {
	App, Replica string
	From, To     string // hosts
	Reason       string
}

// Removed is what removing an app took away.
type Removed struct{ Containers, Volumes int }

// HostView is a host and how it is doing.
type HostView struct {
	Host
	Liveness Liveness
	Replicas int       // assigned to it
	Free     Resources // that no replica and nobody else has reserved; below zero: more was given than there is now
}

// Orders are what a host is to do, until a report shows that it is done.
type Orders struct {
	Mode   HostMode
	Launch []Launch
	Stop   []StopOrder
	Start  []string // launch ids of replicas that stand by and are to run
	Pull   []string // images that will be needed
	Full   bool     // the next report must have all containers
}

// Launch is a replica that its host has not got yet.
type Launch struct {
	Replica Replica
	Spec    Spec
	Digest  string   // of the image, if it is pinned
	Env     []string // Spec.Env with its values, "KEY=value", but for secrets
	Secrets []buoy.Secret
}

// StopOrder is a replica, or a container nobody knows, that is to go.
type StopOrder struct {
	Launch    string
	Container string // its name on the host, if the host has said it
	Force     bool   // without stop signal and grace
}

// Totals are sums over the fleet.
type Totals struct {
	Apps       map[Status]int
	Replicas   int // that run
	Assigned   int
	Hosts      map[Liveness]int
	RPS        float64
	Requests   uint64
	ErrorPct   float64 // of answers, since the start
	MeanMillis float64 // of answers, since the start
}

// Settings are defaults that may be changed while the controller runs.
type Settings struct {
	ScaleInterval    time.Duration `json:"scaleInterval"` // between two looks of the autoscaler at an app
	ScaleCooldown    time.Duration `json:"scaleCooldown"` // of apps that say nothing
	MaxScales        int           `json:"maxScales"`     // apps that scale at a time
	HealthInterval   time.Duration `json:"healthInterval"`
	HealthTimeout    time.Duration `json:"healthTimeout"`
	FailureThreshold int           `json:"failureThreshold"`
}

// DefaultSettings are those of the document.
func DefaultSettings() Settings {
	return Settings{
		ScaleInterval: 10 * time.Second, ScaleCooldown: 180 * time.Second, MaxScales: 3,
		HealthInterval: 10 * time.Second, HealthTimeout: 5 * time.Second, FailureThreshold: 3,
	}
}

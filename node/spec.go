package node

import (
	"net/netip"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/probe"
)

// Spec is the desired state of one container, as kept in the node's database.
type Spec struct {
	Name    string `json:"name"`
	Image   string `json:"image"`             // reference that images understands: OCI, archive, directory, flist
	Storage string `json:"storage,omitempty"` // chunk store of an flist, asked before the flist's own
	Lazy    Lazy   `json:"lazy,omitempty"`    // how an flist is used; empty: as the node's configuration says

	// Run has what was asked for; what it leaves empty comes from the image.
	Run        container.Spec `json:"run"`
	Entrypoint []string       `json:"entrypoint,omitzero"` // replaces the image's; Run.Args follow it

	NICs           []netcfg.NIC  `json:"nics,omitempty"`
	HostNetworking bool          `json:"hostNetworking,omitempty"`
	Ports          []netcfg.Port `json:"ports,omitempty"`
	DNS            []string      `json:"dns,omitempty"`
	Filesystems    []string      `json:"filesystems,omitempty"` // "pool:fs", seen at /fs/pool/fs
	GPUs           *gpu.Wish     `json:"gpus,omitempty"`
	CDI            []string      `json:"cdi,omitempty"` // devices that specs of CDI describe, vendor.com/class=name

	Secrets       []Secret          `json:"secrets,omitempty"`
	InitProcesses []InitProcess     `json:"initProcesses,omitempty"`
	Restart       container.Restart `json:"restart,omitzero"`
	Health        *probe.Check      `json:"health,omitempty"`
	Keep          bool              `json:"keep,omitempty"`    // the writable layer survives stop
	Standby       bool              `json:"standby,omitempty"` // created, not exec'd until Start
	Labels        map[string]string `json:"labels,omitempty"`
}

// Lazy says when the content of an flist comes to the node.
type Lazy string

// The ways.
const (
	LazyAuto   Lazy = "auto"   // starts at once; all of it is fetched meanwhile, and later starts need no mount
	LazyAlways Lazy = "always" // what is read comes when it is read
	LazyNever  Lazy = "never"  // all of it comes before the start
)

// Fetch is how far a lazily mounted flist has come.
type Fetch struct {
	Done, Total int64 // bytes
	Complete    bool
	Path, Error string // of the last read that failed
	Failed      time.Time
}

// InitProcess is a job that runs each time its container starts.
type InitProcess struct {
	Args  []string `json:"args"`
	Env   []string `json:"env,omitempty"`
	Cwd   string   `json:"cwd,omitempty"`
	Stdin string   `json:"stdin,omitempty"`
}

// Status is what a container is doing.
type Status string

// The states.
const (
	Creating   Status = "creating"
	Standby    Status = "standby"
	Running    Status = "running"
	Stopping   Status = "stopping"
	Restarting Status = "restarting" // waits for its next try
	Halted     Status = "halted"     // stopped, ended or could not be started: Reason says which
	Deleting   Status = "deleting"
)

// Container is a container and what is known of it.
type Container struct {
	Spec    Spec
	Status  Status
	Reason  string // one word: "Stopped", "Exited", "OOMKilled", "StartFailed", "Lost", "Rebooted", "Unhealthy", "GPULost"
	Message string // a sentence for a person

	Digest   string       // of the image it runs
	Fetch    *Fetch       // of an flist that it runs from lazily
	Health   *probe.State // nil: it is not checked
	PID      int
	NICs     []NICState // in the order of the spec
	GPUs     []gpu.Hold // that it holds: as long as it is to run, or does
	Created  time.Time
	Started  time.Time
	Finished time.Time
	ExitCode int
	OOM      bool
	Restarts int
}

// NICState is a NIC as the container has it.
type NICState struct {
	Name  string // of the interface
	Addrs []netip.Prefix
	Up    bool // the container runs with it
}

// Address is that of the NIC that ports lead to, the first with one otherwise.
func (c Container) Address() string {
	if i := mainNIC(c.Spec.NICs, c.NICs); i >= 0 {
		return c.NICs[i].Addrs[0].String()
	}
	return ""
}

// mainNIC is the index of the NIC that a container is reached at: of type
// default, or the first with an address; -1: there is none.
func mainNIC(nics []netcfg.NIC, states []NICState) int {
	found := -1
	for i, s := range states {
		if len(s.Addrs) > 0 && (found < 0 || nics[i].Type == netcfg.NICDefault) {
			found = i
		}
	}
	return found
}

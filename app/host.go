package app

import (
	"net/netip"
	"time"
)

// Host is a node as the controller sees it. What is in Report is not durable.
type Host struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels,omitempty"`
	Addr       string            `json:"addr"`      // where its published ports are reached, an IP address
	TokenHash  string            `json:"tokenHash"` // SHA-256 of its token, in hexadecimal
	Facts      Facts             `json:"facts"`
	Mode       HostMode          `json:"mode"`
	Reason     string            `json:"reason,omitempty"` // of the mode: a word
	Detail     string            `json:"detail,omitempty"` // and a sentence
	Registered time.Time         `json:"registered"`
	Changed    time.Time         `json:"changed"` // Mode or Facts
	Terminated time.Time         `json:"terminated,omitzero"`

	Report Report    `json:"-"`
	Seen   time.Time `json:"-"` // when the last report came, by the controller's clock
	Linked bool      `json:"-"` // its tunnel is open
	Closed time.Time `json:"-"` // when its tunnel was, if it is not open
}

// HostMode is what a host is told to do.
type HostMode string

// The modes, in the words of the host protocol.
const (
	Continue  HostMode = "continue"
	Drain     HostMode = "drain"     // nothing new; what runs is moved elsewhere
	Pause     HostMode = "pause"     // nothing new; what runs stays
	Terminate HostMode = "terminate" // as drain, and then the host is forgotten
)

// Facts are what does not change while a host runs.
type Facts struct {
	Arch         string   `json:"arch,omitempty"` // "amd64"
	OS           string   `json:"os,omitempty"`   // "Debian GNU/Linux 12"
	Kernel       string   `json:"kernel,omitempty"`
	Version      string   `json:"version,omitempty"` // of buoyd
	MilliCPU     int64    `json:"milliCPU"`
	Memory       int64    `json:"memory"` // bytes
	GPUs         []GPU    `json:"gpus,omitempty"`
	Addrs        []string `json:"addrs,omitempty"`
	AgentLabel   string   `json:"agentLabel,omitempty"`
	ServerTypeID string   `json:"serverTypeID,omitempty"`
	RunModes     string   `json:"runModes,omitempty"`
}

// GPU is a graphics card.
type GPU struct {
	UUID   string `json:"uuid,omitempty"`
	Model  string `json:"model"`
	Memory int64  `json:"memory,omitempty"` // bytes
}

// Report is what a host said last of itself.
type Report struct {
	Boot       string      // id of its boot; another one begins Seq anew
	Seq        uint64      // counts up; an older one is stale
	Time       time.Time   // by its own clock
	At         time.Time   // when it came, by the controller's; zero: none has
	CPU        float64     // percent used, 0 to 100
	MemoryUsed int64       // bytes
	MemoryFree int64       // available
	DiskFree   int64       // below buoyd's data
	DiskTotal  int64       // of the same file system
	RootFree   int64       // of /
	GPUsFree   int         // not given to any container
	Others     Reserved    // containers that are not ours to place
	Containers []Container // replicas of ours, running or not
	Same       uint64      // not 0: Containers are those of the report with this Seq, and left out
	Total      int         // containers of any kind
}

// Reserved is what containers may use.
type Reserved struct {
	MilliCPU int64
	Memory   int64
	GPUs     int
}

// Container is a replica as its host sees it.
type Container struct {
	Launch    string // id of the launch, which is the replica's
	App       string // whose it is, as the host was told
	Name      string // on its host
	ID        string // of the container, for who asks for one
	State     string // "creating", "standby", "running", "stopping", "restarting", "halted"
	Health    string // "", "unknown", "healthy", "unhealthy"
	Failures  int    // checks in a row
	Checked   time.Time
	Response  time.Duration // of the last check
	CheckErr  string
	Ports     map[uint16]netip.AddrPort // container port → where it is published
	Address   string                    // of the container itself
	Started   time.Time
	Finished  time.Time
	ExitCode  int
	Reason    string
	Message   string
	Restarts  int
	Digest    string
	CPU       float64 // percent of one CPU
	Memory    int64   // bytes, working set
	OOM       bool
	Throttled float64 // percent of periods
}

// Liveness is how well a host is in touch.
type Liveness string

// The states of a host.
const (
	Alive  Liveness = "alive"  // reports in time
	Silent Liveness = "silent" // has missed reports: nothing new is placed there
	Lost   Liveness = "lost"   // for longer than lostAfter: apps may lose patience
)

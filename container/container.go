// Package container runs processes in root filesystems on this machine.
//
// A Spec says what to run; Bundle turns it into an OCI runtime spec; Runtime
// hands that to buoy-shim, which starts and keeps it. The package is given a
// root filesystem and a network namespace and knows neither images nor NICs.
package container

import (
	"os"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// Spec is what runs in a container, apart from its root filesystem and
// network. The zero value of each field is the default.
type Spec struct {
	Args     []string `json:"args,omitzero"`  // empty: buoy-init alone is PID 1; nil: the image may know
	Env      []string `json:"env,omitempty"`  // "KEY=value"
	Cwd      string   `json:"cwd,omitempty"`  // default "/"
	User     string   `json:"user,omitempty"` // as an image spells it: name, uid, name:group, uid:gid
	Hostname string   `json:"hostname,omitempty"`
	Init     bool     `json:"init,omitempty"` // buoy-init is PID 1 and Args its child

	TTY       bool `json:"tty,omitempty"`       // it has a terminal
	Stdin     bool `json:"stdin,omitempty"`     // who is attached may write to its stdin or terminal; else stdin is empty
	StdinOnce bool `json:"stdinOnce,omitempty"` // stdin ends with that of the first who is attached

	Mounts  []Mount  `json:"mounts,omitempty"`
	Devices []Device `json:"devices,omitempty"`
	Groups  []uint32 `json:"groups,omitempty"` // of its processes, besides their user's
	Hooks   []Hook   `json:"hooks,omitempty"`

	Libraries map[string]string `json:"libraries,omitempty"` // that its loader is to know, by name: their paths inside

	Limits  Limits            `json:"limits,omitzero"`
	Ulimits []Ulimit          `json:"ulimits,omitempty"`
	Sysctls map[string]string `json:"sysctls,omitempty"`

	ReadOnly        bool     `json:"readOnly,omitempty"`   // root filesystem
	Privileged      bool     `json:"privileged,omitempty"` // all capabilities and devices, no seccomp, no masks
	NewPrivileges   bool     `json:"newPrivileges,omitempty"`
	CapAdd          []string `json:"capAdd,omitempty"` // "NET_ADMIN", "CAP_NET_ADMIN" or "ALL"
	CapDrop         []string `json:"capDrop,omitempty"`
	Unconfined      bool     `json:"unconfined,omitempty"` // no seccomp profile
	UserNS          bool     `json:"userns,omitempty"`     // root inside is nobody outside
	OOMScoreAdj     int      `json:"oomScoreAdj,omitempty"`
	ShmSize         int64    `json:"shmSize,omitempty"` // bytes, default 64 MiB
	StopSignal      string   `json:"stopSignal,omitempty"`
	StopGraceMillis int64    `json:"stopGraceMillis,omitempty"` // default 10 s

	Logs LogLimits `json:"logs,omitzero"`
}

// LogLimits bound the log of a container.
type LogLimits struct {
	MaxSize  int64 `json:"maxSize,omitempty"`  // bytes of a file, default 10 MiB
	MaxFiles int   `json:"maxFiles,omitempty"` // default 3
}

// MountType is what a Mount mounts.
type MountType string

// The mount types.
const (
	Bind   MountType = "bind"   // Source is a path on the host
	Tmpfs  MountType = "tmpfs"  // Size bounds it
	Volume MountType = "volume" // Source names a directory that the node keeps; it makes it a Bind
)

// Mount is a file system that the container sees at Target.
type Mount struct {
	Type     MountType `json:"type"`
	Source   string    `json:"source,omitempty"`
	Target   string    `json:"target"`
	ReadOnly bool      `json:"readOnly,omitempty"`
	Size     int64     `json:"size,omitempty"` // bytes, tmpfs only; 0: half of memory
	Mode     uint32    `json:"mode,omitempty"` // tmpfs only; 0: 01777

	Options []string `json:"options,omitempty"` // bind only: more of mount(8)'s, as nosuid
}

// Device is a device node of the host that the container may use.
type Device struct {
	Path        string `json:"path"`
	Target      string `json:"target,omitempty"`      // default Path
	Permissions string `json:"permissions,omitempty"` // default "rwm"; "none": the node is there and cannot be used

	// Of the node in the container; nil: as the host's.
	Mode     *os.FileMode `json:"mode,omitempty"`
	UID, GID *uint32      `json:",omitempty"`
}

// Hook is a program of the host that is run when the container starts, as the
// OCI runtime specification has it.
type Hook struct {
	When    string   `json:"when"` // prestart, createRuntime, createContainer or startContainer
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"` // with its name
	Env     []string `json:"env,omitempty"`
	Timeout int      `json:"timeout,omitempty"` // seconds, default and most 30
}

// Limits bound what the container may use; zero is no limit.
type Limits struct {
	MilliCPU  int64  `json:"milliCPU,omitempty"`  // 1000 is one CPU
	CPUShares uint64 `json:"cpuShares,omitempty"` // relative weight, 2–262144
	CPUSet    string `json:"cpuset,omitempty"`    // "0-3,7"
	Memory    int64  `json:"memory,omitempty"`    // bytes
	Swap      int64  `json:"swap,omitempty"`      // bytes of swap on top of Memory; 0: none when Memory is set; -1: unlimited
	PIDs      int64  `json:"pids,omitempty"`      // 0: 4096, -1: unlimited
}

// Ulimit is a resource limit of a process (setrlimit).
type Ulimit struct {
	Name string `json:"name"` // "nofile"
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Command is one more process for a running container.
type Command struct {
	Args  []string
	Env   []string // added to the container's
	Cwd   string   // default the container's
	User  string   // default the container's
	Stdin []byte

	// Of one that has a client, see Runtime.Exec.
	TTY           bool
	Width, Height uint16 // of the terminal
	Open          bool   // it has a stdin, until that is closed
}

// JobState is where a job is in its life, in the words of Zero-OS.
type JobState string

// The job states.
const (
	JobRunning JobState = "running"
	JobSuccess JobState = "SUCCESS"
	JobError   JobState = "ERROR"
	JobKilled  JobState = "KILLED"
)

// Job is a command started in a container through the API.
type Job struct {
	ID        string
	Container string
	Args      []string
	State     JobState
	Started   time.Time
	Process   shimapi.Process
	Exit      *shimapi.Exit // nil while it runs
}

// Output is what a job wrote, bounded; Truncated says that more was written.
type Output struct {
	Stdout, Stderr string
	Truncated      bool
}

// JobOf translates what the shim knows of a job.
func JobOf(container string, j shimapi.Job) Job {
	job := Job{ID: j.Job, Container: container, Args: j.Args, Started: j.Started, Process: j.Process, Exit: j.Exit, State: JobRunning}
	switch {
	case j.Exit == nil:
	case j.Exit.Signal != 0 || j.Exit.Lost:
		job.State = JobKilled
	case j.Exit.Code == 0:
		job.State = JobSuccess
	default:
		job.State = JobError
	}
	return job
}

package nodes

import (
	"time"
)

// createContainer is the body of POST /containers: Zero-OS's fields in both
// spellings (keys match in any case, so initprocesses is initProcesses), then ours.
type createContainer struct {
	ID             string       `json:"id"` // of April 2017, the later name
	Name           string       `json:"name"`
	Hostname       string       `json:"hostname"`
	Flist          string       `json:"flist"`
	Storage        string       `json:"storage"`
	NICs           []nic        `json:"nics"`
	Filesystems    []string     `json:"filesystems"`
	HostNetworking bool         `json:"hostNetworking"`
	InitProcesses  []coreSystem `json:"initProcesses"`
	Ports          []string     `json:"ports"`

	Image         string            `json:"image"`      // flist by another name
	Lazy          string            `json:"lazy"`       // of an flist: auto, always or never
	Command       []string          `json:"command"`    // after the entrypoint
	Entrypoint    []string          `json:"entrypoint"` // in place of the image's
	Env           []string          `json:"env"`
	Environment   []string          `json:"environment"`
	Secrets       []secret          `json:"secrets"`
	Pwd           string            `json:"pwd"`
	User          string            `json:"user"`
	Mounts        []mount           `json:"mounts"`
	Devices       []device          `json:"devices"`
	GPUs          *gpuWish          `json:"gpus"`
	Limits        limits            `json:"limits"`
	Ulimits       []ulimit          `json:"ulimits"`
	Sysctls       map[string]string `json:"sysctls"`
	ReadOnly      bool              `json:"readOnly"`
	Privileged    bool              `json:"privileged"`
	CapAdd        []string          `json:"capAdd"`
	CapDrop       []string          `json:"capDrop"`
	NewPrivileges bool              `json:"newPrivileges"`
	Unconfined    bool              `json:"unconfined"`
	UserNS        bool              `json:"userns"`
	Init          bool              `json:"init"`
	TTY           bool              `json:"tty"`
	Stdin         bool              `json:"stdin"`
	StdinOnce     bool              `json:"stdinOnce"`
	Health        *healthCheck      `json:"health"`
	Restart       string            `json:"restart"`
	StopSignal    string            `json:"stopSignal"`
	StopGrace     float64           `json:"stopGrace"` // seconds
	Keep          bool              `json:"keep"`
	Standby       bool              `json:"standby"`
	Labels        map[string]string `json:"labels"`
	DNS           []string          `json:"dns"`
	ShmSize       size              `json:"shmSize"`
	Logs          logLimits         `json:"logs"`
}

// secret is a value in the environment, or in a file that the container's user
// alone may read. No answer has the value.
type secret struct {
	Env   string `json:"env,omitempty"`
	Path  string `json:"path,omitempty"`
	Value string `json:"value,omitempty"`
}

// logLimits bound a container's log.
type logLimits struct {
	MaxSize  size `json:"maxSize"`
	MaxFiles int  `json:"maxFiles"`
}

// containerItem is a line of the list of containers.
type containerItem struct {
	Flist    string            `json:"flist"`
	Hostname string            `json:"hostname"`
	ID       string            `json:"id"` // the name, as of April 2017
	Status   string            `json:"status"`
	Name     string            `json:"name"`
	State    string            `json:"state"` // from here on ours
	Reason   string            `json:"reason"`
	Message  string            `json:"message"`
	Image    string            `json:"image"`
	Created  time.Time         `json:"created,omitzero"`
	Ports    []string          `json:"ports"`
	Labels   map[string]string `json:"labels,omitempty"`
	Health   *healthState      `json:"health,omitempty"`
}

// containerObject is a container.
type containerObject struct {
	NICs           []nic        `json:"nics"`
	Filesystems    []string     `json:"filesystems"`
	Flist          string       `json:"flist"`
	HostNetworking bool         `json:"hostNetworking"`
	Hostname       string       `json:"hostname"`
	InitProcesses  []coreSystem `json:"initprocesses"` // lower-case p, unlike in the request
	Ports          []string     `json:"ports"`
	Status         string       `json:"status"` // running or halted
	Storage        string       `json:"storage"`
	ID             string       `json:"id"`
	Name           string       `json:"name"`

	// Ours.
	State     string            `json:"state"` // as the node says it: creating, running, restarting, …
	Reason    string            `json:"reason"`
	Message   string            `json:"message"`
	Image     string            `json:"image"`
	Digest    string            `json:"digest"`
	PID       int               `json:"pid"` // on the node; 0: it does not run
	Address   string            `json:"address"`
	Created   time.Time         `json:"created,omitzero"`
	Started   time.Time         `json:"started,omitzero"`
	Finished  time.Time         `json:"finished,omitzero"`
	ExitCode  *int              `json:"exitCode,omitempty"` // of the last run, when it has ended
	OOMKilled bool              `json:"oomKilled"`
	Restarts  int               `json:"restarts"`
	Restart   string            `json:"restart"`
	Labels    map[string]string `json:"labels"`
	Command   []string          `json:"command"`
	Secrets   []secret          `json:"secrets,omitempty"` // without values
	Limits    limits            `json:"limits"`
	GPUs      []gpuHold         `json:"gpus,omitempty"` // that it holds
	TTY       bool              `json:"tty,omitempty"`
	Stdin     bool              `json:"stdin,omitempty"`
	Lazy      string            `json:"lazy,omitempty"`   // of an flist, as asked for
	Fetch     *fetch            `json:"fetch,omitempty"`  // of an flist that is mounted lazily
	Health    *healthState      `json:"health,omitempty"` // of a container that is checked
}

// fetch is how far an flist has come that a container runs from.
type fetch struct {
	Done     int64     `json:"done"`  // bytes of the image that are on this node
	Total    int64     `json:"total"` // of all of it
	Complete bool      `json:"complete"`
	Path     string    `json:"path,omitempty"` // of the last read that failed
	Error    string    `json:"error,omitempty"`
	Failed   time.Time `json:"failed,omitzero"`
}

type mount struct {
	Type     string `json:"type"` // bind, volume or tmpfs
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly"`
	Size     size   `json:"size"`
}

// device is a device node, or of CDI.
type device struct {
	Path        string `json:"path"` // or vendor.com/class=name
	Target      string `json:"target"`
	Permissions string `json:"permissions"`
}

type limits struct {
	MilliCPU  int64  `json:"milliCPU,omitempty"`
	CPUShares uint64 `json:"cpuShares,omitempty"`
	CPUSet    string `json:"cpuset,omitempty"`
	Memory    size   `json:"memory,omitempty"`
	Swap      size   `json:"swap,omitempty"`
	PIDs      int64  `json:"pids,omitempty"`
}

type ulimit struct {
	Name string `json:"name"`
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

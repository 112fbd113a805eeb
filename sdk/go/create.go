package buoy

// CreateRequest describes a container to make. The zero value of each field
// is the default; only Name and Flist are required.
type CreateRequest struct {
	Name     string `json:"name"`               // letters, digits, dots, dashes, underscores
	Hostname string `json:"hostname,omitempty"` // default Name
	// Flist is an OCI reference ("docker.io/library/nginx:1.27", "oci:DIR"),
	// an flist, or a rootfs archive or directory, by path on the node or URL.
	Flist   string `json:"flist"`
	Storage string `json:"storage,omitempty"` // chunk store of an flist, asked before its own
	Lazy    string `json:"lazy,omitempty"`    // of an flist: "auto", "always", "never"; default as the node is set

	NICs           []NIC         `json:"nics"` // none: only loopback
	HostNetworking bool          `json:"hostNetworking,omitempty"`
	Ports          []string      `json:"ports,omitempty"` // "8080:80", "127.0.0.1:5353:53/udp"
	DNS            []string      `json:"dns,omitempty"`
	Filesystems    []string      `json:"filesystems,omitempty"` // "pool:fs", seen at /fs/pool/fs
	InitProcesses  []InitProcess `json:"initProcesses,omitempty"`

	Command    []string `json:"command,omitempty"`    // after the entrypoint; replaces the image's
	Entrypoint []string `json:"entrypoint,omitempty"` // replaces the image's, and its command
	Env        []string `json:"env,omitempty"`        // "KEY=value", added to the image's
	Secrets    []Secret `json:"secrets,omitempty"`
	Pwd        string   `json:"pwd,omitempty"`
	User       string   `json:"user,omitempty"` // name, uid, name:group or uid:gid
	Init       bool     `json:"init,omitempty"` // buoy-init is PID 1 and reaps

	TTY       bool `json:"tty,omitempty"`       // it has a terminal
	Stdin     bool `json:"stdin,omitempty"`     // who is attached may write to its stdin or terminal
	StdinOnce bool `json:"stdinOnce,omitempty"` // stdin ends with that of the first who is attached

	Mounts  []Mount           `json:"mounts,omitempty"`
	Devices []Device          `json:"devices,omitempty"`
	GPUs    *GPURequest       `json:"gpus,omitempty"` // nil: none
	Limits  Limits            `json:"limits,omitzero"`
	Ulimits []Ulimit          `json:"ulimits,omitempty"`
	Sysctls map[string]string `json:"sysctls,omitempty"`
	ShmSize int64             `json:"shmSize,omitempty"` // bytes, default 64 MiB
	Logs    LogLimits         `json:"logs,omitzero"`

	ReadOnly      bool     `json:"readOnly,omitempty"` // root file system
	Privileged    bool     `json:"privileged,omitempty"`
	CapAdd        []string `json:"capAdd,omitempty"`
	CapDrop       []string `json:"capDrop,omitempty"`
	NewPrivileges bool     `json:"newPrivileges,omitempty"` // setuid programs work
	Unconfined    bool     `json:"unconfined,omitempty"`    // no seccomp profile
	UserNS        bool     `json:"userns,omitempty"`        // root inside is nobody outside

	Health     *HealthCheck      `json:"health,omitempty"`  // nil: it is not checked
	Restart    string            `json:"restart,omitempty"` // "no", "on-failure[:N]", "always", "unless-stopped"
	StopSignal string            `json:"stopSignal,omitempty"`
	StopGrace  int               `json:"stopGrace,omitempty"` // seconds, default 10
	Keep       bool              `json:"keep,omitempty"`      // the writable layer survives Stop
	Standby    bool              `json:"standby,omitempty"`   // created, not run until Start
	Labels     map[string]string `json:"labels,omitempty"`
}

// Secret is a value that no answer has, in the environment or in a file. One of
// Env and Path is set.
type Secret struct {
	Env   string `json:"env,omitempty"`  // name of the variable
	Path  string `json:"path,omitempty"` // of the file, in memory, that the container's user alone may read
	Value string `json:"value,omitempty"`
}

// InitProcess is a command that runs each time its container starts.
type InitProcess struct {
	Name        string   `json:"name"`
	Pwd         string   `json:"pwd,omitempty"`
	Args        []string `json:"args,omitempty"`
	Environment []string `json:"environment,omitempty"`
	Stdin       string   `json:"stdin,omitempty"`
}

// Mount is a file system that the container sees at Target.
type Mount struct {
	Type     string `json:"type"`             // "bind": Source is a path on the node; "tmpfs"
	Source   string `json:"source,omitempty"` // bind only
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Size     int64  `json:"size,omitempty"` // bytes, tmpfs only
}

// GPURequest asks for GPUs: Count that are as the rest of it says, or Devices.
type GPURequest struct {
	Count   int      `json:"count,omitempty"`   // AllGPUs: all there are; 0: one, or Devices
	Devices []string `json:"devices,omitempty"` // by UUID, its beginning, index or PCI address

	Vendor  string `json:"vendor,omitempty"`  // "nvidia", "amd" or "intel"; default the first of these that the node has
	Model   string `json:"model,omitempty"`   // a part of the model's name
	Memory  int64  `json:"memory,omitempty"`  // bytes each has at least
	Profile string `json:"profile,omitempty"` // MIG instances of this profile, instead of whole GPUs
	Slices  int    `json:"slices,omitempty"`  // each is shared: so many take turns
	Share   int64  `json:"share,omitempty"`   // each is shared: bytes of its memory

	// Capabilities are "compute", "utility", "video", "graphics", "display", "ngx"
	// or "all"; default what the image says.
	Capabilities []string `json:"capabilities,omitempty"`
}

// AllGPUs is the Count of all GPUs.
const AllGPUs = -1

// GPUHold is a GPU that a container has.
type GPUHold struct {
	UUID   string `json:"uuid"`
	PCI    string `json:"pci,omitempty"`
	Model  string `json:"model,omitempty"`
	Slices int    `json:"slices,omitempty"` // it takes turns with so many
	Share  int64  `json:"share,omitempty"`  // bytes of its memory
}

// Device is a device of the machine that the container may use.
type Device struct {
	Path        string `json:"path"`                  // of its node, or vendor.com/class=name of a CDI spec, alone
	Target      string `json:"target,omitempty"`      // default Path
	Permissions string `json:"permissions,omitempty"` // default "rwm"
}

// Limits bound what a container may use; zero is no limit of its own.
type Limits struct {
	MilliCPU  int64  `json:"milliCPU,omitempty"`  // 1000 is one CPU
	CPUShares uint64 `json:"cpuShares,omitempty"` // relative weight
	CPUSet    string `json:"cpuset,omitempty"`    // "0-3,7"
	Memory    int64  `json:"memory,omitempty"`    // bytes
	Swap      int64  `json:"swap,omitempty"`      // bytes on top of Memory
	PIDs      int64  `json:"pids,omitempty"`      // -1: unlimited
}

// Ulimit is a resource limit of the processes.
type Ulimit struct {
	Name string `json:"name"` // "nofile"
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// LogLimits bound the log of a container.
type LogLimits struct {
	MaxSize  int64 `json:"maxSize,omitempty"`  // bytes of a file, default 10 MiB, 256 KiB at least
	MaxFiles int   `json:"maxFiles,omitempty"` // default 3, 100 at most
}

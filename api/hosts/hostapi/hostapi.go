// Package hostapi has the messages between a host and its controller: those of
// Veritone's aiWARE Edge, with what it lacks added. Field names are theirs,
// with their uneven case; ours are marked. Lists are never null.
package hostapi

import (
	"encoding/json"
	"time"
)

// Mode is what a host, or an engine instance, is told to do.
type Mode string

// The modes of hosts.
const (
	Continue  Mode = "continue"
	Drain     Mode = "drain"
	Pause     Mode = "pause"
	Terminate Mode = "terminate"
)

// HostDetail are the facts of a host; GET …/detail answers it, POST /host/register brings it.
type HostDetail struct {
	HostID                  string   `json:"hostID,omitempty"`
	AgentCommitID           string   `json:"agentCommitID,omitempty"`
	AgentLabel              string   `json:"agentLabel,omitempty"`
	AgentVersionNumber      string   `json:"agentVersionNumber,omitempty"`
	CloudProviderInstanceID string   `json:"cloudProviderInstanceID,omitempty"`
	DockerHostID            string   `json:"dockerHostID,omitempty"`
	IPs                     []string `json:"ips"`
	Memory                  int64    `json:"memory"` // bytes
	NumCPU                  int      `json:"numCPU"`
	VCPUAvailable           int64    `json:"vcpuAvailable"` // 1024 is one CPU
	NumGPU                  int      `json:"numGPU"`
	GPUAvailable            int      `json:"gpuAvailable"`
	GPUType                 string   `json:"gpu_type,omitempty"`
	NumEngines              int      `json:"numEngines"`
	RunModes                string   `json:"runModes,omitempty"`
	ServerTypeID            string   `json:"serverTypeID,omitempty"`
	ServerTypeName          string   `json:"serverTypeName,omitempty"`
	IsActive                bool     `json:"isActive"`
	IsEngine                bool     `json:"isEngine"`
	IsController            bool     `json:"isController"`

	Drain               bool       `json:"drain"`
	DrainReason         string     `json:"drainReason,omitempty"`
	DrainDetail         string     `json:"drainDetail,omitempty"`
	ExpirationDateTime  *time.Time `json:"expirationDateTime,omitempty"`
	TerminationDateTime *time.Time `json:"terminationDateTime,omitempty"`
	TerminationReason   string     `json:"terminationReason,omitempty"`
	TerminationDetail   string     `json:"terminationDetail,omitempty"`
	CreatedDateTime     *time.Time `json:"createdDateTime,omitempty"`
	ModifiedDateTime    *time.Time `json:"modifiedDateTime,omitempty"`
	LastUpdateDateTime  *time.Time `json:"lastUpdateDateTime,omitempty"`

	// Ours.
	Name     string            `json:"name,omitempty"` // host name
	Labels   map[string]string `json:"labels,omitempty"`
	Address  string            `json:"address,omitempty"` // where its published ports are reached; default: where it calls from
	Arch     string            `json:"arch,omitempty"`
	OS       string            `json:"os,omitempty"`
	Kernel   string            `json:"kernel,omitempty"`
	GPUs     []GPU             `json:"gpus,omitempty"`
	Mode     Mode              `json:"mode,omitempty"`     // in answers
	Liveness string            `json:"liveness,omitempty"` // in answers: "alive", "silent", "lost"
	Linked   bool              `json:"linked,omitempty"`   // in answers: its tunnel is open
	Free     *Free             `json:"free,omitempty"`     // in answers
}

// Free is what replicas may still reserve of a host. Ours.
type Free struct {
	MilliCPU int64 `json:"milliCPU"`
	Memory   int64 `json:"memory"` // bytes
	GPUs     int   `json:"gpus"`
}

// GPU is a graphics card. Ours.
type GPU struct {
	UUID   string `json:"uuid,omitempty"`
	Model  string `json:"model"`
	Memory int64  `json:"memory,omitempty"` // bytes
}

// RegisterRequest is the body of POST /host/register.
type RegisterRequest struct {
	Info         HostDetail      `json:"info"`
	LaunchConfig json.RawMessage `json:"launchConfig,omitempty"` // taken and not used
	Status       *HostStatus     `json:"status,omitempty"`
}

// RegisterResponse is its answer, 201.
type RegisterResponse struct {
	HostID           string           `json:"hostID"`
	HostToken        string           `json:"hostToken"`
	Status           HostAction       `json:"status"`
	Mount            []HostMount      `json:"mount"`
	ConfigProperties ConfigProperties `json:"configProperties"`
}

// HostMount is a network file system; we have none to give.
type HostMount struct{}

// ConfigProperties are settings for the host.
type ConfigProperties struct {
	LocalCacheDirectory      string     `json:"localCacheDirectory"`
	VeritoneDockerRegistries []Registry `json:"veritoneDockerRegistries"`
	ReportIntervalSeconds    float64    `json:"reportIntervalSeconds"` // ours: at least so often, also when nothing changes
}

// Registry is a registry of images; we have none to give.
type Registry struct{}

// HostStatus is the report, the body of POST /host/{id}/updatestatus.
type HostStatus struct {
	HostID                 string            `json:"hostID,omitempty"`
	CPUUtilized            float64           `json:"CPUUtilized"` // percent, 0 to 100
	NumCPU                 int               `json:"numCPU"`
	VCPUAvailable          int64             `json:"vCPUAvailable"`   // CPUs × free share × 1024
	MemoryAvailable        int64             `json:"memoryAvailable"` // bytes
	MemoryUsed             int64             `json:"memoryUsed"`
	DiskAvailableRoot      int64             `json:"diskAvailableRoot"`
	DiskAvailableOptAiware int64             `json:"diskAvailableOptAiware"` // below buoyd's data
	NumGPU                 int               `json:"numGPU"`
	GPUAvailable           int               `json:"GPUAvailable"`
	NumContainers          int               `json:"numContainers"`
	NumEngineInstances     int               `json:"numEngineInstances"`
	EngineToolkitVersion   string            `json:"engineToolkitVersion,omitempty"`
	ContainerStatus        []ContainerStatus `json:"containerStatus"`

	// Ours.
	Boot      string    `json:"boot,omitempty"` // id of the boot; another one begins sequence anew
	Sequence  uint64    `json:"sequence,omitempty"`
	Time      time.Time `json:"time,omitzero"` // by the host's clock
	DiskTotal int64     `json:"diskTotal,omitempty"`
	Others    Reserved  `json:"others,omitzero"` // what containers may use that no controller has launched
	// Same: nothing of containerStatus has changed since the report with this
	// sequence, which the controller has answered. It is empty then. A
	// controller that does not know that report says so (HostAction.full).
	Same uint64 `json:"same,omitempty"`
}

// Reserved is what containers may use. Ours.
type Reserved struct {
	MilliCPU int64 `json:"milliCPU,omitempty"`
	Memory   int64 `json:"memory,omitempty"`
	GPUs     int   `json:"gpus,omitempty"`
}

// ContainerStatus is a container that a launch order made, whatever became of it.
type ContainerStatus struct {
	DockerContainerID string  `json:"dockerContainerId"` // our name of the container
	EngineID          string  `json:"engineID,omitempty"`
	EngineInstanceID  string  `json:"engineInstanceID,omitempty"`
	LaunchID          string  `json:"launchID"`
	CPUUtilization    float64 `json:"CPUUtilization"` // percent of one CPU
	MemoryUsed        int64   `json:"memoryUsed"`
	MemoryAvailable   int64   `json:"memoryAvailable,omitempty"`
	DiskAvailableRoot int64   `json:"diskAvailableRoot,omitempty"`
	NumGPU            int     `json:"numGPU,omitempty"`

	// Ours.
	State     string            `json:"state"` // of the node: "creating", "standby", "running", "stopping", "restarting", "halted"; "absent": it could not be made
	Reason    string            `json:"reason,omitempty"`
	Message   string            `json:"message,omitempty"`
	Health    *Health           `json:"health,omitempty"`
	Ports     map[string]string `json:"ports,omitempty"` // "80": "10.0.0.7:20004"
	Address   string            `json:"address,omitempty"`
	Digest    string            `json:"digest,omitempty"`
	Started   time.Time         `json:"started,omitzero"`
	Finished  time.Time         `json:"finished,omitzero"`
	ExitCode  *int              `json:"exitCode,omitempty"`
	OOM       bool              `json:"oomKilled,omitempty"`
	Restarts  int               `json:"restarts,omitempty"`
	Throttled float64           `json:"throttled,omitempty"` // percent of periods
}

// Health is the state of a health check. Ours.
type Health struct {
	Status       string    `json:"status"`
	Failures     int       `json:"failures,omitempty"`
	LastCheck    time.Time `json:"lastCheck,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
	ResponseTime float64   `json:"responseTime,omitempty"` // seconds
}

// HostAction is what the controller answers a report: the orders. An order is
// repeated until a report shows that it was carried out.
type HostAction struct {
	Mode                   Mode                 `json:"mode"`
	LaunchContainer        []LaunchContainer    `json:"launchContainer"`
	TerminateContainer     []TerminateContainer `json:"terminateContainer"`
	PullDockerImages       []PullImage          `json:"pullDockerImages"`
	Registries             []Registry           `json:"registries"`
	Mount                  []HostMount          `json:"mount"`
	AgentProxyEnabled      bool                 `json:"agentProxyEnabled"`
	LaunchNodeRedContainer []struct{}           `json:"launchNodeRedContainer"`
	TerminateNodeRed       []struct{}           `json:"terminateNodeRedContainer"`

	// Ours.
	StartContainer []StartContainer `json:"startContainer"` // standby containers that are to run
	Full           bool             `json:"full,omitempty"` // the next report must have all containers
}

// LaunchContainer is an order to make a container. Its key is LaunchID: a host
// carries it out once, however often it is told, and never after an order to
// terminate it.
type LaunchContainer struct {
	LaunchID        string          `json:"launchId"`
	EngineID        string          `json:"engineId"` // the app
	BuildID         string          `json:"buildId"`  // the app's revision
	Name            string          `json:"name"`     // of the container
	DockerImage     string          `json:"dockerImage"`
	ContainerType   string          `json:"containerType"` // "engine" or "service"
	ContainerConfig ContainerConfig `json:"containerConfig"`
	Env             []KeyValue      `json:"env"`
	IsGPU           bool            `json:"isGPU"`
	GPUType         string          `json:"gpuType"` // "none" or "cuda"
	Runtime         string          `json:"runtime"`
	RuntimeTTL      int64           `json:"runtimeTTL"` // seconds, 0: none
	SoftMinMemory   int64           `json:"softMinMemory"`
	SoftMinVCPU     int64           `json:"softMinvCPU"` // 1024 is one CPU

	// Ours.
	// Container is all of it, as POST /nodes/{id}/containers takes it, but for
	// Ports. A host that understands it needs nothing of the above but the ids.
	Container json.RawMessage `json:"container,omitempty"`
	Ports     []LaunchPort    `json:"ports,omitempty"`
	Digest    string          `json:"digest,omitempty"` // of the image, if it is known
	GPUs      int             `json:"gpus,omitempty"`   // whole devices
}

// LaunchPort is a port of a container to publish. Ours.
type LaunchPort struct {
	Container uint16 `json:"container"`
	UDP       bool   `json:"udp,omitempty"`
	Host      uint16 `json:"host,omitempty"` // 0: the host takes any that is free
}

// ContainerConfig is how the container is started.
type ContainerConfig struct {
	CommandLine []string `json:"commandLine"`
}

// KeyValue is an environment variable.
type KeyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// TerminateContainer is an order to stop a container and forget it.
type TerminateContainer struct {
	DockerContainerID string `json:"dockerContainerId"`

	// Ours.
	LaunchID string `json:"launchId,omitempty"`
	Force    bool   `json:"force,omitempty"` // without stop signal and grace
}

// StartContainer is an order to run what stands by. Ours.
type StartContainer struct {
	LaunchID string `json:"launchId"`
}

// PullImage is an order to have an image ready.
type PullImage struct {
	BuildID     string `json:"buildID"`
	DockerImage string `json:"dockerImage"`
	EngineID    string `json:"engineID"`
}

// OperationResponse answers operations.
type OperationResponse struct {
	Success bool       `json:"success"`
	Count   int        `json:"count"`
	Error   *ErrorBody `json:"error"` // null: what fails is answered with a status and an ErrorBody
}

// Reason is the body of drain, pause, resume and terminate.
type Reason struct {
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// ErrorBody is what goes with a status of 400 and more.
// It has both spellings, of the document and of the OpenAPI, with the same values.
type ErrorBody struct {
	ErrorID          string `json:"ErrorId"`          // a word: "conflict"
	ErrorDescription string `json:"ErrorDescription"` // what kind of error that is
	ErrorDetail      string `json:"ErrorDetail"`      // what is wrong, with the ids

	ID          string `json:"id"`
	Description string `json:"description"`
	Detail      string `json:"detail"`
}

// Tunnel is the value of the Upgrade header of GET /host/{id}/tunnel, ours: a
// connection that carries the host's API to the controller, multiplexed by
// yamux with the host as its server. Poke is a path there: POST makes the host
// report at once.
const (
	Tunnel = "buoy-tunnel"
	Poke   = "/agent/poke"
)

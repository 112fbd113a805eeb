package buoy

import (
	"context"
	"net/http"
)

// NodeGPUs are the GPUs of a node.
type NodeGPUs struct {
	Driver  string    `json:"driver"`  // version of NVIDIA's; empty: none is loaded
	CUDA    string    `json:"cuda"`    // the newest version that it takes
	Trouble string    `json:"trouble"` // why NVIDIA's library says less than it should; empty: nothing is wrong
	GPUs    []NodeGPU `json:"gpus"`
	Links   []GPULink `json:"links"`
}

// NodeGPU is a GPU of a node, or an instance of one that is divided (MIG). What
// it does not tell is nil.
type NodeGPU struct {
	UUID         string       `json:"uuid"`
	Index        *int         `json:"index,omitempty"`
	Vendor       string       `json:"vendor"` // "nvidia", "amd" or "intel"
	Model        string       `json:"model"`
	PCI          string       `json:"pci"`
	NUMANode     *int         `json:"numaNode,omitempty"`
	Memory       int64        `json:"memory"`       // bytes; 0: unknown
	KernelDriver string       `json:"kernelDriver"` // as "nvidia", "amdgpu" or "vfio-pci"
	Nodes        []string     `json:"nodes"`        // below /dev
	MIG          bool         `json:"mig"`          // its instances are given out in its place
	Instance     *GPUInstance `json:"instance,omitempty"`
	State        string       `json:"state"`      // "ok", "broken" (it is not given out) or "lost" (it fell off the bus, too)
	Message      string       `json:"message"`    // why it is not ok
	Containers   []string     `json:"containers"` // that hold it, or a share of it

	Utilization        *int64       `json:"utilization,omitempty"` // percent, like the next three
	MemoryUtilization  *int64       `json:"memoryUtilization,omitempty"`
	EncoderUtilization *int64       `json:"encoderUtilization,omitempty"`
	DecoderUtilization *int64       `json:"decoderUtilization,omitempty"`
	MemoryUsed         *int64       `json:"memoryUsed,omitempty"` // bytes
	MemoryFree         *int64       `json:"memoryFree,omitempty"`
	Temperature        *int64       `json:"temperature,omitempty"` // °C
	MemoryTemperature  *int64       `json:"memoryTemperature,omitempty"`
	Power              *float64     `json:"power,omitempty"` // W
	PowerLimit         *float64     `json:"powerLimit,omitempty"`
	Energy             *float64     `json:"energy,omitempty"`  // J since the driver was loaded
	SMClock            *int64       `json:"smClock,omitempty"` // MHz
	MemoryClock        *int64       `json:"memoryClock,omitempty"`
	PCIeReplays        *int64       `json:"pcieReplays,omitempty"`
	ECC                *GPUECC      `json:"ecc,omitempty"`
	XID                int64        `json:"xid,omitempty"` // the last error that the driver told
	Processes          []GPUProcess `json:"processes"`
}

// GPUInstance is what makes a part of a GPU.
type GPUInstance struct {
	Parent  string `json:"parent"`  // UUID
	Profile string `json:"profile"` // as 1g.5gb
	GPU     int    `json:"gpuInstance"`
	Compute int    `json:"computeInstance"`
}

// GPUECC counts errors of memory: since the driver was loaded, and in the life of the GPU.
type GPUECC struct {
	Corrected        int64 `json:"corrected"`
	Uncorrected      int64 `json:"uncorrected"`
	CorrectedTotal   int64 `json:"correctedTotal"`
	UncorrectedTotal int64 `json:"uncorrectedTotal"`
}

// GPUProcess is a program that uses a GPU.
type GPUProcess struct {
	PID       int    `json:"pid"`       // as the node numbers it
	Container string `json:"container"` // empty: it is in none of the node's
	Memory    *int64 `json:"memory,omitempty"`
	Instance  string `json:"instance,omitempty"` // UUID of the one it uses
	Type      string `json:"type"`               // "compute" or "graphics"
}

// GPULink is how two GPUs reach each other.
type GPULink struct {
	GPUs     [2]string `json:"gpus"`
	NVLinks  int       `json:"nvlinks"`
	Distance string    `json:"distance"` // over PCIe, as nvidia-smi topo has it: "PIX", "PXB", "PHB", "NODE" or "SYS"
}

// GPUs are those of the node, as they are at the moment.
func (c *Client) GPUs(ctx context.Context) (NodeGPUs, error) {
	var all NodeGPUs
	return all, c.Do(ctx, http.MethodGet, "/nodes/{node}/gpus", nil, &all)
}

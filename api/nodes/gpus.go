package nodes

import (
	"fmt"
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/gpu"
)

// The objects of GPUs, all ours.

type gpusObject struct {
	Driver  string      `json:"driver"` // of NVIDIA
	CUDA    string      `json:"cuda"`
	Trouble string      `json:"trouble"` // why there is less to say than should be
	GPUs    []gpuObject `json:"gpus"`
	Links   []gpuLink   `json:"links"`
}

type gpuObject struct {
	UUID         string       `json:"uuid"`
	Index        *int         `json:"index,omitempty"`
	Vendor       string       `json:"vendor"`
	Model        string       `json:"model"`
	PCI          string       `json:"pci"`
	NUMANode     *int         `json:"numaNode,omitempty"`
	Memory       int64        `json:"memory"` // bytes; 0: unknown
	KernelDriver string       `json:"kernelDriver"`
	Nodes        []string     `json:"nodes"` // below /dev
	MIG          bool         `json:"mig"`   // it is divided, and its instances are given out
	Instance     *gpuInstance `json:"instance,omitempty"`
	State        string       `json:"state"`      // "ok", "broken" or "lost"
	Message      string       `json:"message"`    // why it is not ok
	Containers   []string     `json:"containers"` // that hold it, or a share
	gpuFigures
}

type gpuInstance struct {
	Parent  string `json:"parent"`
	Profile string `json:"profile"`
	GPU     int    `json:"gpuInstance"`
	Compute int    `json:"computeInstance"`
}

// gpuFigures are how it is at the moment. What it does not tell is left out.
type gpuFigures struct {
	Utilization       *int64       `json:"utilization,omitempty"`       // percent
	MemoryUtilization *int64       `json:"memoryUtilization,omitempty"` // percent of time that it was read or written
	Encoder           *int64       `json:"encoderUtilization,omitempty"`
	Decoder           *int64       `json:"decoderUtilization,omitempty"`
	MemoryUsed        *int64       `json:"memoryUsed,omitempty"` // bytes
	MemoryFree        *int64       `json:"memoryFree,omitempty"`
	Temperature       *int64       `json:"temperature,omitempty"` // °C
	MemoryTemperature *int64       `json:"memoryTemperature,omitempty"`
	Power             *float64     `json:"power,omitempty"` // W
	PowerLimit        *float64     `json:"powerLimit,omitempty"`
	Energy            *float64     `json:"energy,omitempty"`  // J since the driver was loaded
	SMClock           *int64       `json:"smClock,omitempty"` // MHz
	MemoryClock       *int64       `json:"memoryClock,omitempty"`
	PCIeReplays       *int64       `json:"pcieReplays,omitempty"`
	ECC               *gpuECC      `json:"ecc,omitempty"`
	XID               int64        `json:"xid,omitempty"` // the last error
	Processes         []gpuProcess `json:"processes"`
}

type gpuECC struct {
	Corrected        int64 `json:"corrected"` // since the driver was loaded
	Uncorrected      int64 `json:"uncorrected"`
	CorrectedTotal   int64 `json:"correctedTotal"` // in its life
	UncorrectedTotal int64 `json:"uncorrectedTotal"`
}

type gpuProcess struct {
	PID       int    `json:"pid"`              // as the node numbers it
	Container string `json:"container"`        // "": none of ours
	Memory    *int64 `json:"memory,omitempty"` // bytes
	Instance  string `json:"instance,omitempty"`
	Type      string `json:"type"` // "compute" or "graphics"
}

type gpuLink struct {
	GPUs     [2]string `json:"gpus"` // UUIDs
	NVLinks  int       `json:"nvlinks"`
	Distance string    `json:"distance"` // as nvidia-smi topo has it: PIX, PXB, PHB, NODE or SYS
}

func (d *Dialect) listGPUs(w http.ResponseWriter, r *http.Request) error {
	m, held := d.node.GPUs()
	all, err := d.figures(r.Context())
	if err != nil {
		if r.Context().Err() != nil {
			return err
		}
		if m.Trouble == "" {
			m.Trouble = err.Error()
		}
	}
	api.JSON(w, http.StatusOK, gpusOut(m, held, all, d.node.ContainersOf))
	return nil
}

func gpusOut(m gpu.Machine, held []gpu.Held, figures []gpu.Figures, containersOf func([]int) map[int]string) gpusObject {
	out := gpusObject{Driver: m.Driver, CUDA: m.CUDA, Trouble: m.Trouble, GPUs: each(m.Devices, gpuOut), Links: each(m.Links, linkOut)}
	for _, h := range held {
		d, err := m.Find(h.Hold)
		if err != nil && d.UUID == "" {
			continue // it is not there any more
		}
		for i := range out.GPUs {
			if out.GPUs[i].UUID == d.UUID {
				out.GPUs[i].Containers = append(out.GPUs[i].Containers, h.Owner)
			}
		}
	}
	var pids []int
	for _, f := range figures {
		for _, p := range f.Processes {
			pids = append(pids, p.PID)
		}
	}
	containers := containersOf(pids)
	for i := range out.GPUs {
		g := &out.GPUs[i]
		g.Processes = []gpuProcess{}
		for _, f := range figures {
			if f.UUID == g.UUID {
				g.gpuFigures = figuresOut(f, containers)
			}
		}
	}
	return out
}

func gpuOut(d gpu.Device) gpuObject {
	o := gpuObject{
		UUID: d.UUID, Index: known(d.Index), Vendor: d.Vendor, Model: d.Model, PCI: d.PCI, NUMANode: known(d.NUMANode), Memory: d.Memory,
		KernelDriver: d.Kernel, Nodes: []string{}, Containers: []string{}, MIG: d.Divided, State: "ok", Message: d.Broken,
	}
	if d.Minor >= 0 {
		o.Nodes = append(o.Nodes, fmt.Sprintf("nvidia%d", d.Minor))
	}
	for _, n := range d.DRM {
		o.Nodes = append(o.Nodes, "dri/"+n)
	}
	if d.Instance != nil {
		o.Instance = new(gpuInstance(*d.Instance))
	}
	switch {
	case d.Lost:
		o.State = "lost"
	case d.Broken != "":
		o.State = "broken"
	}
	return o
}

func known(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}

func figuresOut(f gpu.Figures, containers map[int]string) gpuFigures {
	thousandth := func(n *int64) *float64 {
		if n == nil {
			return nil
		}
		return new(float64(*n) / 1000)
	}
	o := gpuFigures{
		Utilization: f.Utilization, MemoryUtilization: f.MemoryActivity, Encoder: f.Encoder, Decoder: f.Decoder,
		MemoryUsed: f.MemoryUsed, MemoryFree: f.MemoryFree, Temperature: f.Temperature, MemoryTemperature: f.MemoryTemperature,
		Power: thousandth(f.Power), PowerLimit: thousandth(f.PowerLimit), Energy: thousandth(f.Energy), SMClock: f.SMClock, MemoryClock: f.MemoryClock,
		PCIeReplays: f.PCIeReplays, XID: f.XID,
	}
	if f.ECC != nil {
		o.ECC = new(gpuECC(*f.ECC))
	}
	o.Processes = each(f.Processes, func(p gpu.Process) gpuProcess {
		kind := "compute"
		if p.Graphics {
			kind = "graphics"
		}
		return gpuProcess{PID: p.PID, Container: containers[p.PID], Memory: p.Memory, Instance: p.Instance, Type: kind}
	})
	return o
}

func linkOut(l gpu.Link) gpuLink {
	return gpuLink{GPUs: [2]string{l.A, l.B}, NVLinks: l.NVLinks, Distance: l.Distance.String()}
}

// Package gpu knows the GPUs of a machine, shares them out, and says what a
// container needs to use those that it was given.
package gpu

// Device is a GPU, or an instance of one that is divided (MIG).
type Device struct {
	UUID     string // as the driver has it: GPU-…, of an instance MIG-…; its PCI address where no driver says one
	Index    int    // as the driver numbers GPUs, of an instance that of its GPU; -1: unknown
	Vendor   string // NVIDIA, AMD or Intel
	Model    string // as NVIDIA A100-SXM4-40GB
	PCI      string // address, as 0000:3b:00.0
	NUMANode int    // -1: unknown, or the machine has one only
	Memory   int64  // bytes; 0: unknown
	Minor    int    // of its device node (nvidiaN), of an instance that of its GPU; -1: unknown

	Divided  bool      // in MIG mode: its instances are given out, and it is not
	Instance *Instance // of an instance

	Kernel string   // the driver in the kernel that has it, as nvidia or vfio-pci; "": none
	DRM    []string // its nodes below /dev/dri, as card0 and renderD128

	Broken string // why it cannot be given out, in a sentence; "": it can
	Lost   bool   // it is broken since it fell off the bus: what uses it has lost it
}

// The vendors.
const (
	NVIDIA = "nvidia"
	AMD    = "amd"
	Intel  = "intel"
)

// Instance is what makes a part of a GPU.
type Instance struct {
	Parent  string // UUID of the GPU
	Profile string // as 1g.5gb
	GPU     int    // ids that the driver gave the GPU instance
	Compute int    // and the compute instance
}

// Link is how two GPUs reach each other.
type Link struct {
	A, B string // UUIDs
	// NVLinks is how many there are between the two.
	NVLinks int
	// Distance is what PCIe traffic crosses, as nvidia-smi topo has it.
	Distance Distance
}

// Distance is how far apart two devices are on PCIe, nearest first.
type Distance int

// The distances.
const (
	SameBoard    Distance = iota // PIX of one board
	OneSwitch                    // PIX
	Switches                     // PXB
	HostBridge                   // PHB
	SameNUMANode                 // NODE
	System                       // SYS: between NUMA nodes
)

// String is what nvidia-smi topo calls it.
func (d Distance) String() string {
	switch d {
	case SameBoard, OneSwitch:
		return "PIX"
	case Switches:
		return "PXB"
	case HostBridge:
		return "PHB"
	case SameNUMANode:
		return "NODE"
	case System:
	}
	return "SYS"
}

// Machine is what GPUs there are, and what uses them.
type Machine struct {
	Driver string // version of the kernel module; "": none
	CUDA   string // the newest version that the driver takes, as 12.4; "": unknown
	// Trouble is what keeps the driver's library from saying more, in a
	// sentence; Devices are what the kernel alone says then.
	Trouble string
	Devices []Device
	Links   []Link
}

// Whole are the GPUs that can be given out: not those that are divided, nor
// instances of them.
func (m Machine) Whole() (all []Device) {
	for _, d := range m.Devices {
		if d.Broken == "" && !d.Divided && d.Instance == nil {
			all = append(all, d)
		}
	}
	return all
}

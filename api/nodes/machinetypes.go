package nodes

import (
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/inventory"
)

// The objects of the node, fields in the seed document's order.

type nodeObject struct {
	Hostname  string `json:"hostname"`
	ID        string `json:"id"`
	Status    string `json:"status"` // "running", or "halted" when it does not report
	IPAddress string `json:"ipaddress"`
	Version   string `json:"version"`
	// Controller is where this node reports to (ours): a URL, "self" for a controller; none: it is on its own.
	Controller string `json:"controller,omitempty"`
}

type memInfo struct {
	Active      int64   `json:"active"`
	Available   int64   `json:"available"`
	Buffers     int64   `json:"buffers"`
	Cached      int64   `json:"cached"`
	Free        int64   `json:"free"`
	Inactive    int64   `json:"inactive"`
	Total       int64   `json:"total"`
	Used        int64   `json:"used"`
	UsedPercent float64 `json:"usedPercent"`
	Wired       int64   `json:"wired"`
}

type cpuInfo struct {
	CacheSize int      `json:"cacheSize"`
	Cores     int      `json:"cores"`
	Family    string   `json:"family"`
	Flags     []string `json:"flags"`
	MHz       float64  `json:"mhz"`
	Model     string   `json:"model"` // ours
}

type diskInfo struct {
	Device     string          `json:"device"`
	Size       int64           `json:"size"` // GiB
	Type       string          `json:"type"`
	Partitions []partitionInfo `json:"partitions"`
	Bytes      int64           `json:"bytes"`           // ours
	Model      string          `json:"model,omitempty"` // ours
}

type partitionInfo struct {
	Name     string `json:"name"`
	Size     int64  `json:"size"` // GiB
	PartUUID string `json:"partuuid"`
	Label    string `json:"label"`
	FSType   string `json:"fstype"`
	Bytes    int64  `json:"bytes"` // ours
}

type nicInfo struct {
	Name         string   `json:"name"`
	Addrs        []string `json:"addrs"`
	Flags        []string `json:"flags"`
	HardwareAddr string   `json:"hardwareaddr"`
	MTU          int      `json:"mtu"`

	Kind       string   `json:"kind"` // ours, as is the rest: "bridge", "veth", …; "" for hardware
	Statistics nicStats `json:"statistics"`
}

// nicStats counts since the interface was made.
type nicStats struct {
	RXBytes   uint64 `json:"rxBytes"`
	RXPackets uint64 `json:"rxPackets"`
	RXErrors  uint64 `json:"rxErrors"`
	RXDropped uint64 `json:"rxDropped"`
	TXBytes   uint64 `json:"txBytes"`
	TXPackets uint64 `json:"txPackets"`
	TXErrors  uint64 `json:"txErrors"`
	TXDropped uint64 `json:"txDropped"`
}

type nodeMount struct {
	Device     string `json:"device"`
	FSType     string `json:"fstype"`
	Mountpoint string `json:"mountpoint"`
	Opts       string `json:"opts"`
}

type osInfo struct {
	BootTime             int64  `json:"bootTime"`
	Hostname             string `json:"hostname"`
	OS                   string `json:"os"`
	Platform             string `json:"platform"`
	PlatformFamily       string `json:"platformFamily"`
	PlatformVersion      string `json:"platformVersion"`
	Procs                int    `json:"procs"`
	Uptime               int64  `json:"uptime"`
	VirtualizationRole   string `json:"virtualizationRole"`
	VirtualizationSystem string `json:"virtualizationSystem"`
	Arch                 string `json:"arch"`          // ours
	KernelVersion        string `json:"kernelVersion"` // ours
	Cgroups              string `json:"cgroups"`       // ours: "v1", "v2", "hybrid"
}

// nodeInfo is osInfo of a node. The fields of its own are ours.
type nodeInfo struct {
	osInfo
	GPUs      int    `json:"gpus"`      // that work
	GPUDriver string `json:"gpuDriver"` // version of NVIDIA's
}

type coreState struct {
	CPU  float64 `json:"cpu"` // percent of one processor
	RSS  int64   `json:"rss"`
	Swap int64   `json:"swap"`
	VMS  int64   `json:"vms"`
}

type process struct {
	Cmdline string   `json:"cmdline"`
	CPU     cpuTimes `json:"cpu"`
	PID     int      `json:"pid"`
	RSS     int64    `json:"rss"`
	Swap    int64    `json:"swap"`
	VMS     int64    `json:"vms"`
}

// cpuTimes are seconds. The kernel tells two of them for a process.
type cpuTimes struct {
	GuestNice float64 `json:"guestnice"`
	Idle      float64 `json:"idle"`
	IOWait    float64 `json:"iowait"`
	IRQ       float64 `json:"irq"`
	Nice      float64 `json:"nice"`
	SoftIRQ   float64 `json:"softirq"`
	Steal     float64 `json:"steal"`
	Stolen    float64 `json:"stolen"`
	System    float64 `json:"system"`
	User      float64 `json:"user"`
}

type nodeReboot struct {
	Force bool `json:"force"`
}

func nodeOut(i node.Info) nodeObject {
	n := nodeObject{Hostname: i.Hostname, ID: i.ID, Status: "running", Version: i.Version}
	if i.Addr.IsValid() {
		n.IPAddress = i.Addr.String()
	}
	return n
}

func memoryOut(m inventory.Memory) memInfo {
	return memInfo{
		Active: m.Active, Available: m.Available, Buffers: m.Buffers, Cached: m.Cached, Free: m.Free,
		Inactive: m.Inactive, Total: m.Total, Used: m.Used, UsedPercent: m.UsedPercent, Wired: m.Wired,
	}
}

func cpuOut(c inventory.CPU) cpuInfo {
	return cpuInfo{
		CacheSize: c.CacheSize, Cores: c.Cores, Family: c.Family, Flags: some(c.Flags), MHz: c.MHz, Model: c.Model,
	}
}

func diskOut(d inventory.Disk) diskInfo {
	return diskInfo{
		Device: d.Device, Size: d.Size >> 30, Type: string(d.Type), Bytes: d.Size, Model: d.Model,
		Partitions: each(d.Partitions, func(p inventory.Partition) partitionInfo {
			return partitionInfo{
				Name: p.Name, Size: p.Size >> 30, PartUUID: p.PartUUID, Label: p.Label, FSType: p.FSType, Bytes: p.Size,
			}
		}),
	}
}

func nicInfoOut(n inventory.NIC) nicInfo {
	return nicInfo{
		Name: n.Name, Addrs: some(n.Addrs), Flags: some(n.Flags), HardwareAddr: n.HardwareAddr, MTU: n.MTU, Kind: n.Kind,
		Statistics: nicStats{
			RXBytes: n.RXBytes, RXPackets: n.RXPackets, RXErrors: n.RXErrors, RXDropped: n.RXDropped,
			TXBytes: n.TXBytes, TXPackets: n.TXPackets, TXErrors: n.TXErrors, TXDropped: n.TXDropped,
		},
	}
}

func mountOut(m inventory.Mount) nodeMount {
	return nodeMount{Device: m.Device, FSType: m.FSType, Mountpoint: m.Mountpoint, Opts: m.Opts}
}

func osOut(o inventory.OS) osInfo {
	return osInfo{
		BootTime: o.BootTime, Hostname: o.Hostname, OS: o.OS, Platform: o.Platform,
		PlatformFamily: o.PlatformFamily, PlatformVersion: o.PlatformVersion, Procs: o.Procs, Uptime: o.Uptime,
		VirtualizationRole: o.VirtualizationRole, VirtualizationSystem: o.VirtualizationSystem,
		Arch: o.Arch, KernelVersion: o.KernelVersion, Cgroups: o.Cgroups,
	}
}

func stateOut(s inventory.State) coreState {
	return coreState{CPU: s.CPU, RSS: s.RSS, Swap: s.Swap, VMS: s.VMS}
}

func processOut(p inventory.Process) process {
	return process{
		Cmdline: p.Cmdline, CPU: cpuTimes{System: p.System, User: p.User},
		PID: p.PID, RSS: p.RSS, Swap: p.Swap, VMS: p.VMS,
	}
}

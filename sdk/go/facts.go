package buoy

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
)

// Memory is how much memory there is, in bytes.
type Memory struct {
	Active      uint64  `json:"active"`
	Available   uint64  `json:"available"`
	Buffers     uint64  `json:"buffers"`
	Cached      uint64  `json:"cached"`
	Free        uint64  `json:"free"`
	Inactive    uint64  `json:"inactive"`
	Total       uint64  `json:"total"`
	Used        uint64  `json:"used"`
	UsedPercent float64 `json:"usedPercent"`
	Wired       uint64  `json:"wired"`
}

// CPU is one processor.
type CPU struct {
	CacheSize int      `json:"cacheSize"`
	Cores     int      `json:"cores"`
	Family    string   `json:"family"`
	Flags     []string `json:"flags"`
	MHz       float64  `json:"mhz"`
	Model     string   `json:"model"`
}

// Disk is a block device. Size is in GiB.
type Disk struct {
	Device     string      `json:"device"`
	Size       int64       `json:"size"`
	Type       string      `json:"type"` // "ssd", "nvme", "hdd" or "archive"
	Partitions []Partition `json:"partitions"`
	Bytes      int64       `json:"bytes"` // the size again
	Model      string      `json:"model"`
}

// Partition is a part of a Disk. Size is in GiB.
type Partition struct {
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	PartUUID string `json:"partuuid"`
	Label    string `json:"label"`
	FSType   string `json:"fstype"`
	Bytes    int64  `json:"bytes"` // the size again
}

// Mounted is a mounted file system of a node.
type Mounted struct {
	Device     string `json:"device"`
	Mountpoint string `json:"mountpoint"`
	FSType     string `json:"fstype"`
	Opts       string `json:"opts"`
}

// Interface is a network interface as the kernel has it.
type Interface struct {
	Name         string   `json:"name"`
	Addrs        []string `json:"addrs"`
	Flags        []string `json:"flags"`
	HardwareAddr string   `json:"hardwareaddr"`
	MTU          int      `json:"mtu"`

	Kind       string          `json:"kind"` // "bridge", "veth", …; empty for hardware
	Statistics InterfaceCounts `json:"statistics"`
}

// InterfaceCounts count since the interface was made.
type InterfaceCounts struct {
	RXBytes   uint64 `json:"rxBytes"`
	RXPackets uint64 `json:"rxPackets"`
	RXErrors  uint64 `json:"rxErrors"`
	RXDropped uint64 `json:"rxDropped"`
	TXBytes   uint64 `json:"txBytes"`
	TXPackets uint64 `json:"txPackets"`
	TXErrors  uint64 `json:"txErrors"`
	TXDropped uint64 `json:"txDropped"`
}

// OS is the operating system.
type OS struct {
	BootTime             uint64 `json:"bootTime"`
	Hostname             string `json:"hostname"`
	OS                   string `json:"os"`
	Platform             string `json:"platform"`
	PlatformFamily       string `json:"platformFamily"`
	PlatformVersion      string `json:"platformVersion"`
	Procs                uint64 `json:"procs"`
	Uptime               uint64 `json:"uptime"`
	VirtualizationRole   string `json:"virtualizationRole"`
	VirtualizationSystem string `json:"virtualizationSystem"`
	Arch                 string `json:"arch"`
	KernelVersion        string `json:"kernelVersion"`
	Cgroups              string `json:"cgroups"`             // "v2", "v1" or "hybrid"
	GPUs                 int    `json:"gpus,omitempty"`      // of a node: those that work
	GPUDriver            string `json:"gpuDriver,omitempty"` // of a node: version of NVIDIA's
}

// State is what is being used: CPU in percent, the rest in bytes.
type State struct {
	CPU  float64 `json:"cpu"`
	RSS  uint64  `json:"rss"`
	VMS  uint64  `json:"vms"`
	Swap uint64  `json:"swap"`
}

// Stat is one measured value, by length of the time window in seconds.
type Stat struct {
	Current map[string]Sample `json:"current"`
}

// Sample is a value over a time window.
type Sample struct {
	Avg   float64 `json:"avg"`
	Count float64 `json:"count"`
	Max   float64 `json:"max"`
	Start float64 `json:"start"`
	Total float64 `json:"total"`
}

// Process is what the kernel lists. Sizes are in bytes.
type Process struct {
	PID     int      `json:"pid"`
	Cmdline string   `json:"cmdline"`
	CPU     CPUTimes `json:"cpu"`
	RSS     uint64   `json:"rss"`
	VMS     uint64   `json:"vms"`
	Swap    uint64   `json:"swap"`
}

// CPUTimes is CPU time in seconds.
type CPUTimes struct {
	User      float64 `json:"user"`
	System    float64 `json:"system"`
	Idle      float64 `json:"idle"`
	Nice      float64 `json:"nice"`
	IOWait    float64 `json:"iowait"`
	IRQ       float64 `json:"irq"`
	SoftIRQ   float64 `json:"softirq"`
	Steal     float64 `json:"steal"`
	Stolen    float64 `json:"stolen"`
	GuestNice float64 `json:"guestnice"`
}

// Memory asks for the memory of a container, or of the node if the name is empty.
func (c *Client) Memory(ctx context.Context, container string) (Memory, error) {
	var raw json.RawMessage
	if err := c.Do(ctx, http.MethodGet, scopePath(container, "mem"), nil, &raw); err != nil {
		return Memory{}, err
	}
	var list []Memory // the April 2017 API answers a list of one, the final one an object
	if json.Unmarshal(raw, &list) == nil && len(list) == 1 {
		return list[0], nil
	}
	var one Memory
	return one, json.Unmarshal(raw, &one)
}

// CPUs asks for the processors of a container, or of the node if the name is empty.
func (c *Client) CPUs(ctx context.Context, container string) ([]CPU, error) {
	var cpus []CPU
	return cpus, c.Do(ctx, http.MethodGet, scopePath(container, "cpus"), nil, &cpus)
}

// Interfaces asks for the network interfaces of a container, or of the node
// if the name is empty.
func (c *Client) Interfaces(ctx context.Context, container string) ([]Interface, error) {
	var nics []Interface
	return nics, c.Do(ctx, http.MethodGet, scopePath(container, "nics"), nil, &nics)
}

// OS asks for the operating system of a container, or of the node if the name is empty.
func (c *Client) OS(ctx context.Context, container string) (OS, error) {
	var o OS
	return o, c.Do(ctx, http.MethodGet, scopePath(container, "info"), nil, &o)
}

// State asks what a container uses, or the node if the name is empty.
func (c *Client) State(ctx context.Context, container string) (State, error) {
	var s State
	return s, c.Do(ctx, http.MethodGet, scopePath(container, "state"), nil, &s)
}

// Ping asks whether a container is alive, or the node if the name is empty.
func (c *Client) Ping(ctx context.Context, container string) (bool, error) {
	var alive bool
	return alive, c.Do(ctx, http.MethodPost, scopePath(container, "ping"), nil, &alive)
}

// Disks asks for the node's disks.
func (c *Client) Disks(ctx context.Context) ([]Disk, error) {
	var disks []Disk
	return disks, c.Do(ctx, http.MethodGet, "/nodes/{node}/disks", nil, &disks)
}

// Mounts asks for the node's mounted file systems.
func (c *Client) Mounts(ctx context.Context) ([]Mounted, error) {
	var mounts []Mounted
	return mounts, c.Do(ctx, http.MethodGet, "/nodes/{node}/mounts", nil, &mounts)
}

// Stats asks for the node's measurements, by "metric/device".
func (c *Client) Stats(ctx context.Context) (map[string]Stat, error) {
	var stats map[string]Stat
	return stats, c.Do(ctx, http.MethodGet, "/nodes/{node}/stats", nil, &stats)
}

// Processes lists the processes of a container, with the pids they have
// inside, or of the node if the name is empty.
func (c *Client) Processes(ctx context.Context, container string) ([]Process, error) {
	var procs []Process
	return procs, c.Do(ctx, http.MethodGet, scopePath(container, "processes"), nil, &procs)
}

// Process describes one process of a container, or of the node if the name is empty.
func (c *Client) Process(ctx context.Context, container string, pid int) (Process, error) {
	var p Process
	return p, c.Do(ctx, http.MethodGet, scopePath(container, "processes", strconv.Itoa(pid)), nil, &p)
}

// SignalProcess sends a signal to a process of a container.
func (c *Client) SignalProcess(ctx context.Context, container string, pid, signal int) error {
	return c.Do(ctx, http.MethodPost, containerPath(container, "processes", strconv.Itoa(pid)), processSignal{signal}, nil)
}

// KillProcess ends a process of a container, or of the node if the name is
// empty: politely, then not. One that is gone already is fine.
func (c *Client) KillProcess(ctx context.Context, container string, pid int) error {
	return c.Do(ctx, http.MethodDelete, scopePath(container, "processes", strconv.Itoa(pid)), nil, nil)
}

type processSignal struct {
	Signal int `json:"signal"`
}

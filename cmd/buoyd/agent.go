package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/agent"
)

// machine is what a node runs on, as its agent reports it.
type machine struct{ node *node.Node }

// Facts implements agent.Machine.
func (m machine) Facts(context.Context) (d hostapi.HostDetail, err error) {
	fs := m.node.Inventory()
	cpus, err := fs.CPUs()
	if err != nil {
		return d, err
	}
	memory, err := fs.Memory()
	if err != nil {
		return d, err
	}
	os, err := fs.OS()
	if err != nil {
		return d, err
	}
	cards := m.cards()
	d = hostapi.HostDetail{
		NumGPU: len(cards), GPUs: cards, Name: os.Hostname, Arch: os.Arch, Kernel: os.KernelVersion, OS: strings.TrimSpace(os.Platform + " " + os.PlatformVersion),
		NumCPU: len(cpus), VCPUAvailable: int64(len(cpus)) * 1024, Memory: memory.Total, IPs: m.addresses(),
	}
	if len(cards) > 0 {
		d.GPUType = cards[0].Model
	}
	for _, owners := range m.GPUs() {
		if len(owners) == 0 {
			d.GPUAvailable++
		}
	}
	return d, nil
}

// addresses are those that others may reach the machine at.
func (m machine) addresses() []string {
	ips := []string{}
	nics, err := m.node.Inventory().NICs()
	if err != nil {
		return ips // for people only
	}
	for _, nic := range nics {
		for _, text := range nic.Addrs {
			if p, err := netip.ParsePrefix(text); err == nil && p.Addr().IsGlobalUnicast() && len(ips) < maxAddresses {
				ips = append(ips, p.Addr().String())
			}
		}
	}
	return ips
}

// maxAddresses bounds what a host says of its addresses: each bridge has one.
const maxAddresses = 64

// Figures implements agent.Machine.
func (m machine) Figures(context.Context) (f agent.Figures, err error) {
	fs := m.node.Inventory()
	if f.CPUBusy, f.CPUTotal, err = fs.CPUTime(); err != nil {
		return f, err
	}
	cpus, err := fs.CPUs()
	if err != nil {
		return f, err
	}
	memory, err := fs.Memory()
	if err != nil {
		return f, err
	}
	f.NumCPU, f.MemoryUsed, f.MemoryAvailable = len(cpus), memory.Used, memory.Available
	var root unix.Statfs_t
	if err := unix.Statfs("/", &root); err != nil {
		return f, fmt.Errorf("ask for room in /: %w", err)
	}
	f.RootFree = int64(root.Bavail) * root.Bsize
	f.DataFree, f.DataTotal, err = m.node.Room()
	return f, err
}

// cards are the GPUs that can be given out whole.
func (m machine) cards() (all []hostapi.GPU) {
	now, _ := m.node.GPUs()
	owners := gpu.Owners(now, nil)
	for _, d := range now.Devices {
		if _, ok := owners[d.UUID]; ok {
			all = append(all, hostapi.GPU{UUID: d.UUID, Model: d.Model, Memory: d.Memory})
		}
	}
	return all
}

// GPUs implements agent.Machine.
func (m machine) GPUs() map[string][]string { return gpu.Owners(m.node.GPUs()) }

// Usage implements agent.Machine.
func (m machine) Usage(context.Context) (map[string]agent.Usage, error) {
	s, err := m.node.Sample(time.Second)
	if err != nil {
		return nil, err
	}
	out := make(map[string]agent.Usage, len(s.Containers))
	for _, u := range s.Containers {
		out[u.Name] = agent.Usage{CPU: u.CPU.Total, Memory: int64(u.Memory.WorkingSet), Periods: u.CPU.Periods, Throttled: u.CPU.Throttled}
	}
	return out, nil
}

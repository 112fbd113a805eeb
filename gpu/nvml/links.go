//go:build linux && cgo

package nvml

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/buoy-edge/buoy/gpu"
)

// peer is a GPU that others may reach.
type peer struct {
	nvml.Device
	uuid, pci string
}

// links are how the GPUs reach each other.
func (l *Library) links(all []peer) (links []gpu.Link) {
	direct := make([]map[string]int, len(all)) // number of links, by PCI address of the other end
	switched := make([]int, len(all))          // of those that end at an NVSwitch, which reaches all GPUs
	if len(all) > 1 {
		for n, p := range all {
			direct[n], switched[n] = l.nvlinks(p)
		}
	}
	for i, a := range all {
		for n, b := range all[i+1:] {
			j := i + 1 + n
			level, ok := ask(&query{l: l}, "nvmlDeviceGetTopologyCommonAncestor", func() (nvml.GpuTopologyLevel, nvml.Return) {
				return a.GetTopologyCommonAncestor(b.Device)
			})
			nv := max(direct[i][b.pci], min(switched[i], switched[j]))
			if ok || nv > 0 {
				links = append(links, gpu.Link{A: a.uuid, B: b.uuid, NVLinks: nv, Distance: distance(level, ok)})
			}
		}
	}
	return links
}

// distance is what NVML says in our words; the farthest if it says nothing that
// we know.
func distance(level nvml.GpuTopologyLevel, ok bool) gpu.Distance {
	d, known := map[nvml.GpuTopologyLevel]gpu.Distance{
		nvml.TOPOLOGY_INTERNAL: gpu.SameBoard, nvml.TOPOLOGY_SINGLE: gpu.OneSwitch, nvml.TOPOLOGY_MULTIPLE: gpu.Switches,
		nvml.TOPOLOGY_HOSTBRIDGE: gpu.HostBridge, nvml.TOPOLOGY_NODE: gpu.SameNUMANode, nvml.TOPOLOGY_SYSTEM: gpu.System,
	}[level]
	if !ok || !known {
		return gpu.System
	}
	return d
}

// nvlinks counts the links of a GPU that are up.
func (l *Library) nvlinks(p peer) (direct map[string]int, switched int) {
	q := &query{l: l}
	direct = map[string]int{}
	for n := range nvml.NVLINK_MAX_LINKS {
		state, ok := ask(q, "nvmlDeviceGetNvLinkState", func() (nvml.EnableState, nvml.Return) { return p.GetNvLinkState(n) })
		if !ok || state != nvml.FEATURE_ENABLED {
			continue
		}
		kind, ok := ask(q, "nvmlDeviceGetNvLinkRemoteDeviceType", func() (nvml.IntNvLinkDeviceType, nvml.Return) { return p.GetNvLinkRemoteDeviceType(n) })
		if ok && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH {
			switched++
			continue
		}
		if pci, ok := ask(q, "nvmlDeviceGetNvLinkRemotePciInfo_v2", func() (nvml.PciInfo, nvml.Return) { return p.GetNvLinkRemotePciInfo(n) }); ok {
			direct[address(pci)]++
		}
	}
	return direct, switched
}

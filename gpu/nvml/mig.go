//go:build linux && cgo

package nvml

import (
	"fmt"
	"math"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/buoy-edge/buoy/gpu"
)

// divided says whether a GPU is in MIG mode, and gives its instances.
func divided(q *query, h nvml.Device) (mode bool, parts []nvml.Device) {
	current, ok := ask(q, "nvmlDeviceGetMigMode", first(h.GetMigMode))
	if !ok || current != nvml.DEVICE_MIG_ENABLE {
		return false, nil
	}
	count, _ := ask(q, "nvmlDeviceGetMaxMigDeviceCount", h.GetMaxMigDeviceCount)
	for n := range max(min(count, maxDevices), 0) {
		part, ok := ask(q, "nvmlDeviceGetMigDeviceHandleByIndex", func() (nvml.Device, nvml.Return) { return h.GetMigDeviceHandleByIndex(n) })
		if ok { // else no instance has that number
			parts = append(parts, part)
		}
	}
	return true, parts
}

// instance is a part of a GPU.
func instance(q *query, part nvml.Device, of gpu.Device) gpu.Device {
	d := of
	d.Divided, d.Memory = false, 0
	d.UUID, _ = ask(q, "nvmlDeviceGetUUID", part.GetUUID)
	in := &gpu.Instance{Parent: of.UUID}
	var ok bool
	if in.GPU, in.Compute, ok = ids(q, part); !ok {
		d.Broken = "the NVIDIA driver does not say which instance it is"
	}
	a, ok := ask(q, "nvmlDeviceGetAttributes_v2", part.GetAttributes)
	if ok {
		in.Profile = profile(a)
	}
	if total, _, _ := memory(q, part); total != nil {
		d.Memory = *total
	} else if a.MemorySizeMB < math.MaxInt64>>20 {
		d.Memory = int64(a.MemorySizeMB) << 20
	}
	if name, ok := ask(q, "nvmlDeviceGetName", part.GetName); ok {
		if _, p, ok := strings.Cut(name, " MIG "); ok {
			in.Profile = p
		}
	}
	d.Instance = in
	return d
}

// ids are those of the GPU instance and the compute instance that a part is.
func ids(q *query, part nvml.Device) (onGPU, compute int, ok bool) {
	onGPU, okG := ask(q, "nvmlDeviceGetGpuInstanceId", part.GetGpuInstanceId)
	compute, okC := ask(q, "nvmlDeviceGetComputeInstanceId", part.GetComputeInstanceId)
	return onGPU, compute, okG && okC
}

// profile is what NVIDIA calls an instance of this size, as 1g.5gb.
func profile(a nvml.DeviceAttributes) string {
	size := fmt.Sprintf("%dg.%dgb", a.GpuInstanceSliceCount, (a.MemorySizeMB+1023)/1024)
	if c := a.ComputeInstanceSliceCount; c != a.GpuInstanceSliceCount {
		size = fmt.Sprintf("%dc.%s", c, size)
	}
	return size
}

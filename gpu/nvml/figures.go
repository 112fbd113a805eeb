//go:build linux && cgo

package nvml

import (
	"encoding/binary"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/buoy-edge/buoy/gpu"
)

// Figures are those of all GPUs that say how they are, and of their instances.
func (l *Library) Figures() ([]gpu.Figures, error) {
	handles, why, err := l.handles()
	if err != nil {
		return nil, err
	}
	all := []gpu.Figures{}
	for n, h := range handles {
		if why[n].Broken == "" {
			all = append(all, l.figures(h)...)
		}
	}
	return all, nil
}

func (l *Library) figures(h nvml.Device) []gpu.Figures {
	q := &query{l: l}
	uuid, ok := ask(q, "nvmlDeviceGetUUID", h.GetUUID)
	if !ok {
		return nil
	}
	f := gpu.Figures{
		UUID: uuid,
		Temperature: number(q, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) {
			return h.GetTemperature(nvml.TEMPERATURE_GPU)
		}),
		MemoryTemperature: memoryTemperature(q, h),
		Power:             number(q, "nvmlDeviceGetPowerUsage", h.GetPowerUsage),
		PowerLimit:        number(q, "nvmlDeviceGetEnforcedPowerLimit", h.GetEnforcedPowerLimit),
		Energy:            number(q, "nvmlDeviceGetTotalEnergyConsumption", h.GetTotalEnergyConsumption),
		SMClock:           number(q, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return h.GetClockInfo(nvml.CLOCK_SM) }),
		MemoryClock:       number(q, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return h.GetClockInfo(nvml.CLOCK_MEM) }),
		PCIeReplays:       number(q, "nvmlDeviceGetPcieReplayCounter", h.GetPcieReplayCounter),
		Encoder:           number(q, "nvmlDeviceGetEncoderUtilization", first(h.GetEncoderUtilization)),
		Decoder:           number(q, "nvmlDeviceGetDecoderUtilization", first(h.GetDecoderUtilization)),
		ECC:               ecc(q, h),
	}
	if u, ok := ask(q, "nvmlDeviceGetUtilizationRates", h.GetUtilizationRates); ok {
		f.Utilization, f.MemoryActivity = new(int64(u.Gpu)), new(int64(u.Memory))
	}
	_, f.MemoryUsed, f.MemoryFree = memory(q, h)
	_, parts := divided(q, h)
	type slot struct{ onGPU, compute uint32 }
	instances := map[slot]string{} // UUIDs
	var all []gpu.Figures
	for _, part := range parts {
		uuid, ok := ask(q, "nvmlDeviceGetUUID", part.GetUUID)
		onGPU, compute, known := ids(q, part)
		if ok && known {
			instances[slot{uint32(onGPU), uint32(compute)}] = uuid
			one := gpu.Figures{UUID: uuid}
			_, one.MemoryUsed, one.MemoryFree = memory(q, part)
			all = append(all, one)
		}
	}
	f.Processes = processes(q, h, func(p nvml.ProcessInfo) string { return instances[slot{p.GpuInstanceId, p.ComputeInstanceId}] })
	return append([]gpu.Figures{f}, all...)
}

func first[T any](call func() (T, T, nvml.Return)) func() (T, nvml.Return) {
	return func() (T, nvml.Return) {
		v, _, ret := call()
		return v, ret
	}
}

// memoryTemperature is that of HBM, which has its own sensor.
func memoryTemperature(q *query, h nvml.Device) *int64 {
	v, ok := ask(q, "nvmlDeviceGetFieldValues", func() (nvml.FieldValue, nvml.Return) {
		fields := []nvml.FieldValue{{FieldId: nvml.FI_DEV_MEMORY_TEMP}}
		ret := h.GetFieldValues(fields)
		if ret == nvml.SUCCESS {
			ret = nvml.Return(fields[0].NvmlReturn)
		}
		return fields[0], ret
	})
	if n := binary.NativeEndian.Uint32(v.Value[:]); ok && n > 0 { // 0: there is none
		return new(int64(n))
	}
	return nil
}

func ecc(q *query, h nvml.Device) *gpu.ECC {
	var counts [4]int64
	for n, which := range []struct {
		kind   nvml.MemoryErrorType
		period nvml.EccCounterType
	}{
		{nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC},
		{nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC},
		{nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.AGGREGATE_ECC},
		{nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.AGGREGATE_ECC},
	} {
		c, ok := ask(q, "nvmlDeviceGetTotalEccErrors", func() (uint64, nvml.Return) { return h.GetTotalEccErrors(which.kind, which.period) })
		if !ok || c > math.MaxInt64 {
			return nil
		}
		counts[n] = int64(c)
	}
	return &gpu.ECC{Corrected: counts[0], Uncorrected: counts[1], CorrectedTotal: counts[2], UncorrectedTotal: counts[3]}
}

// processes are what uses a GPU; in says which instance of it.
func processes(q *query, h nvml.Device, in func(nvml.ProcessInfo) string) (all []gpu.Process) {
	add := func(list []nvml.ProcessInfo, graphics bool) {
		for _, p := range list {
			if p.Pid > 0 && p.Pid <= math.MaxInt32 {
				all = append(all, gpu.Process{PID: int(p.Pid), Graphics: graphics, Memory: sized(p.UsedGpuMemory), Instance: in(p)})
			}
		}
	}
	computing, _ := ask(q, "nvmlDeviceGetComputeRunningProcesses", h.GetComputeRunningProcesses)
	add(computing, false)
	drawing, _ := ask(q, "nvmlDeviceGetGraphicsRunningProcesses", h.GetGraphicsRunningProcesses)
	add(drawing, true)
	return all
}

package system

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/internal/prometheus"
)

// GPUs are those of the machine; *gpu.Inventory does it.
type GPUs interface {
	Machine() gpu.Machine
	Figures(ctx context.Context) ([]gpu.Figures, error)
}

// gpuLabels are those that dcgm-exporter has. MIG's are empty for a whole GPU.
var gpuLabels = []string{"gpu", "UUID", "pci_bus_id", "device", "modelName", "GPU_I_PROFILE", "GPU_I_ID", "Hostname", "DCGM_FI_DRIVER_VERSION"}

// gpuSeries are its metrics that NVML has figures for, in its units.
var gpuSeries = []struct {
	name, help string
	kind       prometheus.Kind
	value      func(f *gpu.Figures) *int64
	unit       float64
}{
	{"DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.SMClock }, 1},
	{"DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.MemoryClock }, 1},
	{"DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.MemoryTemperature }, 1},
	{"DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.Temperature }, 1},
	{"DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.Power }, 1000},
	{"DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "Enforced power limit (in W).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.PowerLimit }, 1000},
	{"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", prometheus.Counter, func(f *gpu.Figures) *int64 { return f.Energy }, 1},
	{"DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", prometheus.Counter, func(f *gpu.Figures) *int64 { return f.PCIeReplays }, 1},
	{"DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.Utilization }, 1},
	{"DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.MemoryActivity }, 1},
	{"DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.Encoder }, 1},
	{"DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.Decoder }, 1},
	{"DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.MemoryFree }, 1 << 20},
	{"DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", prometheus.Gauge, func(f *gpu.Figures) *int64 { return f.MemoryUsed }, 1 << 20},
	{"DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors.", prometheus.Counter, ecc(func(e *gpu.ECC) *int64 { return &e.Corrected }), 1},
	{"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors.", prometheus.Counter, ecc(func(e *gpu.ECC) *int64 { return &e.Uncorrected }), 1},
	{"DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "Total number of single-bit persistent ECC errors.", prometheus.Counter, ecc(func(e *gpu.ECC) *int64 { return &e.CorrectedTotal }), 1},
	{"DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "Total number of double-bit persistent ECC errors.", prometheus.Counter, ecc(func(e *gpu.ECC) *int64 { return &e.UncorrectedTotal }), 1},
}

func ecc(value func(*gpu.ECC) *int64) func(*gpu.Figures) *int64 {
	return func(f *gpu.Figures) *int64 {
		if f.ECC == nil {
			return nil
		}
		return value(f.ECC)
	}
}

// gpuPatience is how long a scrape waits for a driver that may hang: the rest of
// it is due within the 10 seconds that Prometheus waits.
const gpuPatience = 3 * time.Second

// ofGPUs adds what is known of GPUs. Those that tell nothing at the moment are
// counted all the same.
func ofGPUs(ctx context.Context, page *prometheus.Page, gpus GPUs) {
	m := gpus.Machine()
	if len(m.Devices) == 0 {
		return
	}
	states := map[string]float64{}
	for _, d := range m.Devices {
		switch {
		case d.Instance != nil:
		case d.Lost:
			states["lost"]++
		case d.Broken != "":
			states["broken"]++
		default:
			states["ok"]++
		}
	}
	count := page.Metric(prometheus.Gauge, "buoy_gpus", "GPUs of the machine by state; those that are broken or lost are not given out.", "state")
	for _, state := range []string{"ok", "broken", "lost"} {
		count.Add(states[state], state)
	}
	ctx, cancel := context.WithTimeout(ctx, gpuPatience)
	defer cancel()
	all, err := gpus.Figures(ctx)
	if err != nil {
		return // the next scrape may be luckier; that they are missing is to be seen
	}
	for _, s := range gpuSeries {
		metric := page.Metric(s.kind, s.name, s.help, gpuLabels...)
		each(m, all, func(f *gpu.Figures, labels []string) {
			if v := s.value(f); v != nil {
				metric.Add(float64(*v)/s.unit, labels...)
			}
		})
	}
	xids := page.Metric(prometheus.Gauge, "DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", gpuLabels...)
	each(m, all, func(f *gpu.Figures, labels []string) {
		if strings.HasPrefix(f.UUID, "GPU-") {
			xids.Add(float64(f.XID), labels...)
		}
	})
}

func each(m gpu.Machine, all []gpu.Figures, tell func(f *gpu.Figures, labels []string)) {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	for i := range all {
		for _, d := range m.Devices {
			if d.UUID == all[i].UUID {
				tell(&all[i], labelsOfGPU(d, host, m.Driver))
			}
		}
	}
}

func labelsOfGPU(d gpu.Device, host, driver string) []string {
	device, uuid, profile, id := "", d.UUID, "", ""
	if d.Minor >= 0 {
		device = fmt.Sprintf("nvidia%d", d.Minor)
	}
	if d.Instance != nil {
		uuid, profile, id = d.Instance.Parent, d.Instance.Profile, strconv.Itoa(d.Instance.GPU)
	}
	if d.Vendor != gpu.NVIDIA {
		driver = ""
	}
	index := ""
	if d.Index >= 0 {
		index = strconv.Itoa(d.Index)
	}
	return []string{index, uuid, strings.ToUpper("0000" + d.PCI), device, d.Model, profile, id, host, driver}
}

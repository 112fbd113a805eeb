package system

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/gpu"
)

type fakeGPUs struct{ err error }

func (fakeGPUs) Machine() gpu.Machine {
	a := gpu.Device{UUID: "GPU-0", Vendor: gpu.NVIDIA, Model: "NVIDIA A100", PCI: "0000:3b:00.0"}
	part := a
	part.UUID, part.Instance = "MIG-0", &gpu.Instance{Parent: "GPU-0", Profile: "1g.5gb", GPU: 7}
	b := gpu.Device{UUID: "GPU-1", Index: 1, Minor: 1, Vendor: gpu.NVIDIA, Broken: "off", Lost: true}
	return gpu.Machine{Driver: "550", Devices: []gpu.Device{a, part, b, {UUID: "0000:41:00.0", Index: -1, Minor: -1, Vendor: gpu.AMD, Model: "AMD", PCI: "0000:41:00.0"}}}
}

func (f fakeGPUs) Figures(context.Context) ([]gpu.Figures, error) {
	return []gpu.Figures{
		{UUID: "GPU-0", Utilization: new(int64(42)), Power: new(int64(61500)), MemoryUsed: new(int64(3 << 20)), ECC: &gpu.ECC{Uncorrected: 2}, XID: 31},
		{UUID: "MIG-0", MemoryUsed: new(int64(1 << 20))},
		{UUID: "0000:41:00.0", Utilization: new(int64(7))},
		{UUID: "GPU-of-another-time", Utilization: new(int64(9))},
	}, f.err
}

func TestGPUMetrics(t *testing.T) {
	scrape := func(g GPUs) map[string]*dto.MetricFamily {
		d, err := New(Config{Health: func() Health { return Health{} }, Containers: func() map[string]int { return nil }, GPUs: g})
		if err != nil {
			t.Fatal(err)
		}
		s, err := api.New(api.Config{Dialects: []api.Dialect{d}})
		if err != nil {
			t.Fatal(err)
		}
		return scraped(t, s)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	families := scrape(fakeGPUs{})
	value := func(name, labels string) float64 {
		t.Helper()
		for _, m := range families[name].GetMetric() {
			var all []string
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" {
					all = append(all, l.GetName()+"="+l.GetValue())
				}
			}
			if strings.Join(all, " ") == labels {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		t.Errorf("there is no %s{%s}: %v", name, labels, families[name])
		return 0
	}
	of0 := "gpu=0 UUID=GPU-0 pci_bus_id=00000000:3B:00.0 device=nvidia0 modelName=NVIDIA A100 "
	end := "Hostname=" + host + " DCGM_FI_DRIVER_VERSION=550"
	for _, want := range []struct {
		name, labels string
		value        float64
	}{
		{"DCGM_FI_DEV_GPU_UTIL", of0 + end, 42},
		{"DCGM_FI_DEV_POWER_USAGE", of0 + end, 61.5},
		{"DCGM_FI_DEV_FB_USED", of0 + end, 3},
		{"DCGM_FI_DEV_FB_USED", of0 + "GPU_I_PROFILE=1g.5gb GPU_I_ID=7 " + end, 1},
		{"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", of0 + end, 2},
		{"DCGM_FI_DEV_XID_ERRORS", of0 + end, 31},
		{"DCGM_FI_DEV_GPU_UTIL", "UUID=0000:41:00.0 pci_bus_id=00000000:41:00.0 modelName=AMD Hostname=" + host, 7},
		{"buoy_gpus", "state=ok", 2},
		{"buoy_gpus", "state=lost", 1},
		{"buoy_gpus", "state=broken", 0},
	} {
		if got := value(want.name, want.labels); got != want.value {
			t.Errorf("%s{%s} is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	if n := len(families["DCGM_FI_DEV_GPU_UTIL"].GetMetric()); n != 2 || families["DCGM_FI_DEV_GPU_TEMP"] != nil || families["DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"].GetType() != dto.MetricType_COUNTER {
		t.Errorf("%d have a utilization", n)
	}
	families = scrape(fakeGPUs{errors.New("no answer")})
	if value("buoy_gpus", "state=ok") != 2 || families["DCGM_FI_DEV_GPU_UTIL"] != nil {
		t.Error("without figures")
	}
}

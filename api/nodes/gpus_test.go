package nodes

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/internal/errs"
)

// divided is a machine with a GPU that is divided and one that is lost.
func divided() gpu.Machine {
	a := gpu.Device{
		UUID: "GPU-0", Vendor: gpu.NVIDIA, Model: "NVIDIA A100-SXM4-40GB", PCI: "0000:3b:00.0", NUMANode: 1, Memory: 40 << 30,
		Kernel: "nvidia", DRM: []string{"card1"}, Divided: true,
	}
	part := a
	part.UUID, part.Divided, part.Memory = "MIG-0", false, 5<<30
	part.Instance = &gpu.Instance{Parent: "GPU-0", Profile: "1g.5gb", GPU: 7}
	amd := gpu.Device{UUID: "0000:41:00.0", Index: -1, Vendor: gpu.AMD, Model: "AMD Instinct MI300X", PCI: "0000:41:00.0", NUMANode: -1, Minor: -1, Broken: "it is not on the PCI bus any more", Lost: true}
	return gpu.Machine{Driver: "550.54.15", CUDA: "12.4", Devices: []gpu.Device{a, part, amd}, Links: []gpu.Link{{A: "GPU-0", B: "0000:41:00.0", Distance: gpu.System}}}
}

func figures(context.Context) ([]gpu.Figures, error) {
	return []gpu.Figures{{
		UUID: "GPU-0", Utilization: new(int64(0)), MemoryUsed: new(int64(1 << 30)), Temperature: new(int64(-3)), Power: new(int64(61500)),
		ECC: &gpu.ECC{Corrected: 1}, XID: 31,
		Processes: []gpu.Process{{PID: 77, Memory: new(int64(5)), Instance: "MIG-0"}, {PID: 78, Graphics: true}},
	}}, nil
}

func TestGPUs(t *testing.T) {
	get := func(path string, figures func(context.Context) ([]gpu.Figures, error)) string {
		t.Helper()
		f := newFake()
		f.machine, f.held = divided(), []gpu.Held{{Owner: "web", Hold: gpu.Hold{UUID: "MIG-0"}}, {Owner: "old", Hold: gpu.Hold{UUID: "GPU-gone"}}, {Owner: "x", Hold: gpu.Hold{UUID: "0000:41:00.0"}}}
		d, err := New(Config{Node: f, Figures: figures})
		if err != nil {
			t.Fatal(err)
		}
		s, err := api.New(api.Config{Dialects: []api.Dialect{d}})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", here+path, nil))
		if w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	want := strings.Join(strings.Fields(`{"driver":"550.54.15","cuda":"12.4","trouble":"","gpus":[
		{"uuid":"GPU-0","index":0,"vendor":"nvidia","model":"NVIDIA_A100-SXM4-40GB","pci":"0000:3b:00.0","numaNode":1,"memory":42949672960,
		"kernelDriver":"nvidia","nodes":["nvidia0","dri/card1"],"mig":true,"state":"ok","message":"","containers":[],"utilization":0,"memoryUsed":1073741824,"temperature":-3,"power":61.5,
		"ecc":{"corrected":1,"uncorrected":0,"correctedTotal":0,"uncorrectedTotal":0},"xid":31,
		"processes":[{"pid":77,"container":"web","memory":5,"instance":"MIG-0","type":"compute"},{"pid":78,"container":"","type":"graphics"}]},
		{"uuid":"MIG-0","index":0,"vendor":"nvidia","model":"NVIDIA_A100-SXM4-40GB","pci":"0000:3b:00.0","numaNode":1,"memory":5368709120,
		"kernelDriver":"nvidia","nodes":["nvidia0","dri/card1"],"mig":false,"instance":{"parent":"GPU-0","profile":"1g.5gb","gpuInstance":7,"computeInstance":0},
		"state":"ok","message":"","containers":["web"],"processes":[]},
		{"uuid":"0000:41:00.0","vendor":"amd","model":"AMD_Instinct_MI300X","pci":"0000:41:00.0","memory":0,"kernelDriver":"","nodes":[],"mig":false,
		"state":"lost","message":"it_is_not_on_the_PCI_bus_any_more","containers":["x"],"processes":[]}],
		"links":[{"gpus":["GPU-0","0000:41:00.0"],"nvlinks":0,"distance":"SYS"}]}`), "")
	if d := cmp.Diff(want+"\n", strings.ReplaceAll(get("/gpus", figures), " ", "_")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := get("/gpus", func(context.Context) ([]gpu.Figures, error) { return nil, errs.E(errs.Unavailable, "no answer") }); !strings.Contains(got, `"trouble":"no answer","gpus":[{"uuid":"GPU-0"`) {
		t.Errorf("without figures: %s", got)
	}
	if got := get("/info", nil); !strings.Contains(got, `"gpus":0,"gpuDriver":"550.54.15"`) {
		t.Errorf("info: %s", got)
	}
}

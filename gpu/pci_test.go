package gpu

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestScan reads a machine that has some of everything.
func TestScan(t *testing.T) {
	root := os.DirFS(tree(t, join(
		pciCard("pci0000:00/0000:00:02.0", "8086:3e92", "i915", map[string]string{"class": "0x030000", "drm/card0/dev": "", "drm/renderD128/dev": "", "drm/by-path/x": ""}),
		pciCard("pci0000:00/0000:00:01.0/0000:01:00.0", "10de:2330", "vfio-pci", nil),
		pciCard("pci0000:00/0000:00:03.0/0000:04:00.0/0000:05:08.0/0000:06:00.0", "10de:ffff", "nvidia", map[string]string{"numa_node": "1"}),
		pciCard("pci0000:00/0000:00:03.0/0000:04:00.0/0000:05:09.0/0000:07:00.0", "10de:20b0", "nvidia", map[string]string{"numa_node": "1"}),
		pciCard("pci0000:40/0000:40:01.0/0000:41:00.0", "1002:74a1", "amdgpu", map[string]string{
			"class": "0x120000", "numa_node": "1", "mem_info_vram_total": "206141652992", "mem_info_vram_used": "298721280",
			"gpu_busy_percent": "17", "mem_busy_percent": "-1", "hwmon/hwmon7/temp1_input": "41000", "hwmon/hwmon7/power1_average": "132000000", "hwmon/hwmon7/power1_cap": "750000000",
		}),
		pciCard("pci0000:40/0000:40:02.0", "1002:1638", "", map[string]string{"class": "0x030000", "product_name": "Board\x1b[0m", "mem_info_vram_total": "many"}),
		// No GPUs: an NPU, a sound card, an NVSwitch, another vendor's, and a name that is no address.
		pciCard("pci0000:40/0000:40:03.0", "8086:7d1d", "intel_vpu", map[string]string{"class": "0x120000"}),
		pciCard("pci0000:40/0000:40:04.0", "10de:228e", "snd_hda_intel", map[string]string{"class": "0x040300"}),
		pciCard("pci0000:40/0000:40:05.0", "10de:1af1", "nvidia-nvswitch", map[string]string{"class": "0x068000"}),
		pciCard("pci0000:40/0000:40:06.0", "1a03:2000", "ast", map[string]string{"class": "0x030000"}),
		pciCard("pci0000:40/else", "10de:2330", "nvidia", nil),
		map[string]string{
			"proc/driver/nvidia/gpus/0000:06:00.0/information": "Model: \t\t NVIDIA Secret 9\nIRQ:   \t\t 16\nGPU UUID: \t GPU-0a1b2c3d-0000-1111-2222-333344445555\nBus Location: \t 0000:06:00.0\nDevice Minor: \t 3\nGPU Excluded:\t No",
			"proc/driver/nvidia/gpus/0000:07:00.0/information": "Model: \t\t \nGPU UUID: \t GPU-????????-????-????-????-????????????\nDevice Minor: \t -1\nGPU Excluded:\t Yes",
			"sys/module/nvidia/version":                        "535.1",
		},
	)))
	want := []Device{
		{UUID: "0000:00:02.0", Vendor: Intel, Model: "Intel UHD Graphics 630", PCI: "0000:00:02.0", NUMANode: -1, Kernel: "i915", DRM: []string{"card0", "renderD128"}, Index: -1, Minor: -1},
		{UUID: "0000:01:00.0", Vendor: NVIDIA, Model: "NVIDIA H100 SXM5 80GB", PCI: "0000:01:00.0", NUMANode: -1, Kernel: "vfio-pci", Index: -1, Minor: -1},
		{UUID: "GPU-0a1b2c3d-0000-1111-2222-333344445555", Vendor: NVIDIA, Model: "NVIDIA Secret 9", PCI: "0000:06:00.0", NUMANode: 1, Kernel: "nvidia", Index: -1, Minor: 3},
		{
			UUID: "0000:07:00.0", Vendor: NVIDIA, Model: "NVIDIA A100 SXM4 40GB", PCI: "0000:07:00.0", NUMANode: 1, Kernel: "nvidia", Index: -1, Minor: -1,
			Broken: "it is excluded from use by the driver's option NVreg_ExcludedGpus",
		},
		{UUID: "0000:40:02.0", Vendor: AMD, Model: "Board[0m", PCI: "0000:40:02.0", NUMANode: -1, Index: -1, Minor: -1},
		{UUID: "0000:41:00.0", Vendor: AMD, Model: "AMD Instinct MI300X", PCI: "0000:41:00.0", NUMANode: 1, Memory: 206141652992, Kernel: "amdgpu", Index: -1, Minor: -1},
	}
	got := scan(root)
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("scan (-want +got):\n%s", d)
	}
	if v, loaded := driver(root); v != "535.1" || !loaded {
		t.Errorf("driver %q, %v", v, loaded)
	}
	figures := Figures{
		UUID: "0000:41:00.0", Utilization: new(int64(17)), MemoryUsed: new(int64(298721280)), MemoryFree: new(int64(206141652992 - 298721280)),
		Temperature: new(int64(41)), Power: new(int64(132000)), PowerLimit: new(int64(750000)),
	}
	if d := cmp.Diff(figures, pciFigures(root, got[5])); d != "" {
		t.Errorf("figures (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Figures{UUID: "0000:00:02.0"}, pciFigures(root, got[0])); d != "" {
		t.Errorf("figures of one that tells none (-want +got):\n%s", d)
	}

	distances := map[string]Distance{}
	for _, l := range pciLinks(root, got) {
		distances[l.A[len(l.A)-7:]+" "+l.B[len(l.B)-7:]] = l.Distance
	}
	for pair, want := range map[string]Distance{
		"4445555 07:00.0": OneSwitch, "00:02.0 01:00.0": HostBridge, "01:00.0 4445555": HostBridge,
		"07:00.0 41:00.0": SameNUMANode, "00:02.0 41:00.0": System, "40:02.0 41:00.0": HostBridge,
	} {
		if got, ok := distances[pair]; !ok || got != want {
			t.Errorf("%s are %d apart, want %d (%v)", pair, got, want, distances)
		}
	}
}

func TestApart(t *testing.T) {
	root, port, up := "pci0000:3a", "0000:3a:00.0", "0000:3b:00.0"
	for _, c := range []struct {
		a, b         []string
		numaA, numaB int
		want         Distance
	}{
		{[]string{root, port, up, "0000:3c:00.0", "0000:3d:00.0"}, []string{root, port, up, "0000:3c:01.0", "0000:3e:00.0"}, 0, 0, OneSwitch},
		{[]string{root, port, up, "d1", "up2", "d2", "gpu"}, []string{root, port, up, "d3", "gpu2"}, 0, 0, Switches},
		{[]string{root, port, "gpu"}, []string{root, "0000:3a:01.0", "gpu2"}, 0, 0, HostBridge},
		{[]string{root, port, "gpu"}, []string{"pci0000:5d", "p", "gpu2"}, 0, 0, SameNUMANode},
		{[]string{root, port, "gpu"}, []string{"pci0000:5d", "p", "gpu2"}, 0, 1, System},
		{[]string{root, port, "gpu", "0"}, []string{root, port, "gpu", "1"}, 0, 0, OneSwitch},
	} {
		if got := apart(c.a, c.b, c.numaA, c.numaB); got != c.want {
			t.Errorf("apart(%v, %v) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestScanNothing(t *testing.T) {
	root := os.DirFS(t.TempDir())
	if all := scan(root); all != nil {
		t.Errorf("%+v", all)
	}
	if _, loaded := driver(root); loaded {
		t.Error("a driver")
	}
}

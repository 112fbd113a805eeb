package node

import (
	"os"
	"testing"

	"github.com/buoy-edge/buoy/gpu"
)

func TestGPUEvents(t *testing.T) {
	n, _ := newNode(t)
	h := listen(t, n)
	d := gpu.Device{UUID: "GPU-1", PCI: "0000:3b:00.0", Model: "NVIDIA L4"}
	n.GPUChanged(t.Context(), gpu.Change{Kind: gpu.Failed, Device: d, XID: gpu.XID{UUID: d.UUID, Code: 13}})
	if all := h.wants("error", "gpu.error gpus/GPU-1"); all[0].Data.Message != "XID 13: graphics engine exception; a program on it is likely at fault" || all[0].Data.Attributes["xid"] != "13" {
		t.Errorf("%+v", all[0].Data)
	}
	d.Broken, d.Lost = "off the bus", true
	n.GPUChanged(t.Context(), gpu.Change{Kind: gpu.Lost, Device: d})
	if all := h.wants("lost", "gpu.lost gpus/GPU-1"); all[0].Data.Message != "off the bus" || all[0].Data.Attributes["pci"] != d.PCI || all[0].Data.Attributes["model"] != d.Model {
		t.Errorf("%+v", all[0].Data)
	}
	d.Broken, d.Lost = "", false
	n.GPUChanged(t.Context(), gpu.Change{Kind: gpu.Recovered, Device: d})
	h.wants("back", "gpu.recovered gpus/GPU-1")
	if names := n.ContainersOf([]int{os.Getpid(), 1 << 30}); len(names) != 0 {
		t.Errorf("this test runs in %v", names)
	}
}

func TestContainerIn(t *testing.T) {
	cgroups := map[string]string{"/buoy/web@": "web", "/buoy/w@": "w"}
	for _, c := range []struct{ lines, want string }{
		{"0::/buoy/web@\n", "web"},
		{"0::/buoy/web@/app/worker\n", "web"},
		{"12:pids:/user.slice\n3:memory:/buoy/w@\n0::/\n", "w"},
		{"0::/buoy/web@x\n", ""},
		{"0::/buoy/web\n", ""},
		{"0::/other/buoy/web@\n", ""},
		{"0::/buoy\n", ""},
		{"0::/\n", ""},
		{"nonsense", ""},
		{"", ""},
	} {
		if got := containerIn([]byte(c.lines), cgroups); got != c.want {
			t.Errorf("containerIn(%q) = %q, want %q", c.lines, got, c.want)
		}
	}
}

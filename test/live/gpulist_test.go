package live

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestGPUList: what the node says of its GPUs, while the driver works, tells
// errors, loses one, hangs, and while buoyd is killed.
func TestGPUList(t *testing.T) {
	machine := newCards(t)
	d := newDaemon(t, "--gpu-root", machine.root)
	r := sh(t, "web", "sleep 1000")
	r.GPUs = &buoy.GPURequest{Count: 1}
	d.create(r)
	pid := d.awaitState("web", "running").PID
	uses := fmt.Sprintf("pid.0 %d", pid)
	machine.rules(uses)

	list := func() buoy.NodeGPUs {
		t.Helper()
		all, err := d.client.GPUs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	await := func(what string, is func(buoy.NodeGPUs) bool) {
		t.Helper()
		d.await(what, func() bool { return is(list()) })
	}
	await("the process of web", func(all buoy.NodeGPUs) bool { return len(all.GPUs) == 2 && len(all.GPUs[0].Processes) == 1 })
	all := list()
	first := all.GPUs[0]
	if all.Driver != gpuDriver || all.CUDA != "12.4" || all.Trouble != "" || len(all.Links) != 1 || all.Links[0].Distance != "PHB" {
		t.Errorf("%+v", all)
	}
	if first.UUID != gpu0 || first.State != "ok" || first.Model != "NVIDIA A100-SXM4-40GB" || *first.NUMANode != 0 || *first.Utilization != 42 || *first.Power != 61.5 || first.ECC.Uncorrected != 2 {
		t.Errorf("%+v", first)
	}
	if p := first.Processes[0]; p.PID != pid || p.Container != "web" || *p.Memory != 512<<20 {
		t.Errorf("%+v", p)
	}
	if len(first.Containers) != 1 || first.Containers[0] != "web" || len(all.GPUs[1].Containers) != 0 {
		t.Errorf("held by %v and %v", first.Containers, all.GPUs[1].Containers)
	}
	out, _, code := d.piped("", "gpus")
	if code != 0 || !strings.Contains(out, "web") || !strings.Contains(out, "1.0 GiB / 40.0 GiB") {
		t.Errorf("buoy gpus: %d\n%s", code, out)
	}
	_, _, metrics := d.raw("GET", "/metrics", "")
	for _, want := range []string{`DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="` + gpu0 + `",pci_bus_id="00000000:3B:00.0",device="nvidia0"`, `buoy_gpus{state="ok"} 2`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	out, _, _ = d.piped("", "doctor")
	if !strings.Contains(out, "2 × NVIDIA A100-SXM4-40GB; NVIDIA driver "+gpuDriver) {
		t.Errorf("doctor:\n%s", out)
	}

	machine.rules(uses, "xid 1 31 1")
	d.await("the error", func() bool { return len(d.events(buoy.NodeEventQuery{Types: []string{"gpu.error"}})) == 1 })
	machine.rules(uses, "lost.1 1", "xid 2 79 1")
	await("the loss", func(all buoy.NodeGPUs) bool { return len(all.GPUs) == 2 && all.GPUs[1].State == "lost" })
	d.await("two events more", func() bool { return len(d.events(buoy.NodeEventQuery{Types: []string{"gpu"}})) == 3 })
	told := d.events(buoy.NodeEventQuery{Types: []string{"gpu"}})
	for i, want := range []string{"gpu.error XID 31", "gpu.error XID 79", "gpu.lost XID 79"} {
		if got := told[i].Type + " " + told[i].Data.Message; !strings.HasPrefix(got, want) || told[i].Subject != "gpus/"+gpu1 || told[i].Data.Actor.Name != "GPU watch" {
			t.Errorf("event %d is %s of %s by %+v, want %s", i, got, told[i].Subject, told[i].Data.Actor, want)
		}
	}
	if _, _, metrics := d.raw("GET", "/metrics", ""); !strings.Contains(metrics, `buoy_gpus{state="lost"} 1`) {
		t.Error("metrics lack the lost one")
	}

	// The driver hangs: buoyd does not, and the container runs on.
	machine.rules(uses, "nvmlDeviceGetTemperature hang")
	before := time.Now()
	list()
	if took := time.Since(before); took > 12*time.Second {
		t.Errorf("the list took %s", took)
	}
	machine.rules(uses, "nvmlDeviceGetTemperature hang", "nvmlInit_v2 18")
	await("trouble", func(all buoy.NodeGPUs) bool { return strings.Contains(all.Trouble, "do not fit") })
	if all := list(); all.GPUs[0].UUID != gpu0 || all.GPUs[0].State != "broken" || all.GPUs[0].Message != all.Trouble {
		t.Errorf("with a driver that does not fit: %+v", all)
	}
	if out, _, _ := d.piped("", "doctor"); !strings.Contains(out, "WARN  gpus") || !strings.Contains(out, "do not fit") {
		t.Errorf("doctor:\n%s", out)
	}
	if c := d.awaitState("web", "running"); c.PID != pid {
		t.Errorf("web is another one now: %+v", c)
	}

	// buoy-gpu does not outlive its buoyd, and the next one knows all that again.
	machine.rules(uses)
	d.kill()
	d.await("the end of buoy-gpu", func() bool { return len(helpers(machine.root)) == 0 })
	d.start()
	await("both", func(all buoy.NodeGPUs) bool {
		return len(all.GPUs) == 2 && all.GPUs[1].State == "ok" && all.GPUs[0].Processes != nil && all.GPUs[0].Containers != nil
	})
	if len(helpers(machine.root)) != 1 {
		t.Errorf("%v run", helpers(machine.root))
	}
	d.stop()
	if left := helpers(machine.root); len(left) != 0 {
		t.Errorf("%v outlive buoyd", left)
	}
	d.start()
}

// helpers are the buoy-gpu of a root, by pid.
func helpers(root string) (pids []string) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, line := range lines {
		raw, err := os.ReadFile(line)
		if err == nil && strings.HasSuffix(string(raw), "/buoy-gpu\x00--root\x00"+root+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(line)))
		}
	}
	return pids
}

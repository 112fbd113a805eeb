package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

func TestInventory(t *testing.T) {
	r := newRig(t, "fake", twoA100(), "mig.1 1", "nvlinks.0 4", "nvlinks.1 4", "pid.0 77")
	testleak.Check(t)
	r.run()
	a := Device{
		UUID: gpu0, Index: 0, Vendor: NVIDIA, Model: "NVIDIA A100-SXM4-40GB", PCI: "0000:3b:00.0", NUMANode: 0, Memory: 40 << 30, Minor: 0,
		Kernel: "nvidia", DRM: []string{"card1", "renderD128"},
	}
	b := a
	b.UUID, b.Index, b.PCI, b.Minor, b.Divided, b.DRM = gpu1, 1, "0000:3c:00.0", 1, true, nil
	part := b
	part.UUID, part.Divided, part.Memory = "MIG-00000001-0000-0000-0000-000000000000", false, 4864<<20
	part.Instance = &Instance{Parent: gpu1, Profile: "1g.5gb", GPU: 7, Compute: 0}
	want := Machine{
		Driver: "550.54.15", CUDA: "12.4", Devices: []Device{a, b, part},
		Links: []Link{{A: gpu0, B: gpu1, NVLinks: 4, Distance: HostBridge}},
	}
	if d := cmp.Diff(want, r.Machine()); d != "" {
		t.Errorf("machine (-want +got):\n%s", d)
	}
	all, err := r.Figures(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("figures: %+v, %v", all, err)
	}
	want0 := Figures{
		UUID: gpu0, Utilization: new(int64(42)), MemoryActivity: new(int64(7)), MemoryUsed: new(int64(1 << 30)), MemoryFree: new(int64(39 << 30)),
		Temperature: new(int64(33)), Power: new(int64(61500)), PowerLimit: new(int64(400000)),
		ECC:       &ECC{Corrected: 1, Uncorrected: 2, CorrectedTotal: 3, UncorrectedTotal: 4},
		Processes: []Process{{PID: 77, Memory: new(int64(512 << 20))}},
	}
	if d := cmp.Diff(want0, all[0]); d != "" {
		t.Errorf("figures (-want +got):\n%s", d)
	}
	r.fail() // ends buoy-gpu, too, and leaves nothing
	if _, err := r.Figures(t.Context()); !errors.Is(err, errs.Unavailable) {
		t.Errorf("figures without Run: %v", err)
	}
}

// TestTrouble has the library say why it does not work.
func TestTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		folder string
		rules  []string
		want   string
	}{
		"no library":     {folder: "none", want: "the NVIDIA driver 550.54.15 is loaded, but its library libnvidia-ml.so.1 is not found: install that of the same version"},
		"mismatch":       {folder: "fake", rules: []string{"nvmlInit_v2 18", "library 12.560.35.03"}, want: "in the kernel and its library, version 560.35.03, do not fit: reboot"},
		"not loaded":     {folder: "fake", rules: []string{"nvmlInit_v2 9"}, want: "no GPU is bound to it"},
		"permission":     {folder: "fake", rules: []string{"nvmlInit_v2 4"}, want: "may not be opened: buoyd needs root"},
		"another":        {folder: "fake", rules: []string{"nvmlInit_v2 999"}, want: "does not start: Unknown Error (NVML error 999)"},
		"count":          {folder: "fake", rules: []string{"nvmlDeviceGetCount_v2 999"}, want: "count GPUs: Unknown Error"},
		"dies":           {folder: "fake", rules: []string{"nvmlDeviceGetName exit"}, want: "buoy-gpu ended, exit status 3: fake: nvmlDeviceGetName exits"},
		"no functions":   {folder: "empty", want: "symbol"},
		"never answers":  {folder: "fake", rules: []string{"nvmlInit_v2 hang"}, want: "does not answer within"},
		"hangs later on": {folder: "fake", rules: []string{"nvmlDeviceGetMemoryInfo hang"}, want: "does not answer within"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.folder, twoA100(), c.rules...)
			if strings.Contains(c.want, "within") {
				r.pace.first = 500 * time.Millisecond
			}
			testleak.Check(t)
			r.run()
			m := r.Machine()
			if !strings.Contains(m.Trouble, c.want) {
				t.Errorf("trouble is %q, want %q in it", m.Trouble, c.want)
			}
			if len(m.Devices) != 2 || m.Devices[0].PCI != "0000:3b:00.0" || m.Devices[0].Model != "NVIDIA A100 SXM4 40GB" || m.Devices[0].Broken != m.Trouble || m.Driver != "550.54.15" {
				t.Errorf("the kernel's view: %+v", m)
			}
			if all, err := r.Figures(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("figures: %v, %v", all, err)
			}
			if c.folder != "fake" {
				return
			}
			r.set() // mended: the next try finds it so
			m = r.await("an answer", func(m Machine) bool { return m.Trouble == "" })
			if device(m, gpu0).Memory != 40<<30 || device(m, gpu0).Broken != "" || len(m.Devices) != 2 {
				t.Errorf("mended: %+v", m)
			}
		})
	}
}

// TestFiguresHang has the library block when somebody asks for figures: he is
// answered, and the GPUs stay known.
func TestFiguresHang(t *testing.T) {
	r := newRig(t, "fake", twoA100(), "nvmlDeviceGetUtilizationRates hang")
	r.pace.figures = 300 * time.Millisecond
	r.run()
	if m := r.Machine(); m.Trouble != "" {
		t.Fatalf("before: %+v", m)
	}
	before := time.Now()
	if all, err := r.Figures(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("figures: %v, %v", all, err)
	}
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("figures took %s", took)
	}
	// It is asked for the machine again soon, and that works.
	m := r.await("an answer", func(m Machine) bool { return m.Trouble == "" })
	if device(m, gpu1).Index != 1 {
		t.Errorf("then: %+v", m)
	}
	select {
	case c := <-r.told:
		t.Errorf("told %+v", c)
	default:
	}
}

// TestKnownStayKnown: a driver that stops to answer takes no GPU away.
func TestKnownStayKnown(t *testing.T) {
	r := newRig(t, "fake", twoA100(), "mig.1 1")
	r.run()
	r.set("nvmlInit_v2 18", "nvmlDeviceGetCount_v2 18", "mig.1 1")
	m := r.await("trouble", func(m Machine) bool { return m.Trouble != "" })
	if len(m.Devices) != 3 || slices.ContainsFunc(m.Devices, func(d Device) bool { return d.Lost || d.Broken == "" }) || device(m, gpu0).Memory != 40<<30 {
		t.Errorf("with trouble: %+v", m)
	}
	r.set("mig.1 1")
	m = r.await("an answer", func(m Machine) bool { return m.Trouble == "" })
	if len(m.Devices) != 3 || slices.ContainsFunc(m.Devices, func(d Device) bool { return d.Lost || d.Broken != "" }) {
		t.Errorf("mended: %+v", m)
	}
}

func TestLost(t *testing.T) {
	r := newRig(t, "fake", twoA100())
	r.run()
	r.set("lost.1 1")
	if c := r.hear(Lost, gpu1); c.Device.Broken != "it has fallen off the bus, says the NVIDIA driver" || c.Device.PCI != "0000:3c:00.0" {
		t.Errorf("lost: %+v", c)
	}
	if m := r.Machine(); len(m.Devices) != 2 || !device(m, gpu1).Lost || device(m, gpu0).Lost || m.Trouble != "" {
		t.Errorf("with a lost one: %+v", m)
	}
	if all, err := r.Figures(t.Context()); err != nil || len(all) != 2 || all[0].Temperature == nil || all[1].Temperature != nil {
		t.Errorf("figures: %+v, %v", all, err)
	}
	r.set()
	r.hear(Recovered, gpu1)
	// A library that lists one GPU less, or none with that index.
	r.set("count 1")
	r.hear(Lost, gpu1)
	r.set("handle.1 15")
	r.await("the driver to say so", func(m Machine) bool { return strings.Contains(device(m, gpu1).Broken, "fallen off") })
	r.set()
	r.hear(Recovered, gpu1)
}

func TestGoneFromPCI(t *testing.T) {
	r := newRig(t, "fake", twoA100())
	r.run()
	link := filepath.Join(r.root, pciDevices, "0000:3c:00.0")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	r.set("count 1")
	if c := r.hear(Lost, gpu1); c.Device.Broken != gone {
		t.Errorf("lost: %+v", c)
	}
	put(t, r.root, map[string]string{pciDevices + "0000:3c:00.0": "-> ../../../devices/pci0000:3a/0000:3a:01.0/0000:3c:00.0"})
	r.set()
	r.hear(Recovered, gpu1)
}

func TestXID(t *testing.T) {
	r := newRig(t, "fake", twoA100())
	r.pace.tick, r.pace.lost = time.Hour, time.Hour // what follows is told by events alone
	r.run()
	r.set("xid 1 31 0")
	if c := r.hear(Failed, gpu0); c.XID.Code != 31 || !c.XID.Application() || c.XID.String() != "XID 31: memory page fault" {
		t.Errorf("told %+v", c)
	}
	r.set("xid 2 31 0") // again, at once: once is enough
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if seen, err := os.ReadFile(r.rules + ".seen"); err == nil && string(seen) == "2" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the second event was not told")
		}
	}
	r.set("xid 3 79 1")
	if c := r.hear(Failed, gpu1); c.XID.Code != 79 || c.XID.Application() {
		t.Errorf("told %+v", c)
	}
	if c := r.hear(Lost, gpu1); c.Device.Broken != "XID 79: GPU has fallen off the bus" {
		t.Errorf("told %+v", c)
	}
	all, err := r.Figures(t.Context())
	if err != nil || all[0].XID != 31 || all[1].XID != 79 {
		t.Errorf("figures: %+v, %v", all, err)
	}
	r.set("xid 4 12345 0")
	if c := r.hear(Failed, gpu0); c.XID.String() != "XID 12345" {
		t.Errorf("told %+v", c)
	}
}

// TestGarbage has the library say what no library should.
func TestGarbage(t *testing.T) {
	r := newRig(t, "fake", twoA100(),
		"name.0 \x1b[31mA\xff\xfe100\x07", "bus.0 0000:../../etc", "driver "+strings.Repeat("5", 5000),
		"uuid.1 "+gpu0, "name.1 "+strings.Repeat("x", 5000))
	r.run()
	m := r.Machine()
	if len(m.Devices) != 3 || m.Driver != strings.Repeat("5", 79) { // NVML's own buffers have 80 bytes
		t.Fatalf("%+v", m)
	}
	a := device(m, gpu0)
	if a.Model != "[31mA100" || a.PCI != "" || a.Broken != "" {
		t.Errorf("first: %+v", a)
	}
	for _, d := range m.Devices[1:] { // the kernel's view of both, as neither can be told to be which
		if d.UUID != d.PCI || d.Broken == "" {
			t.Errorf("another: %+v", d)
		}
	}
}

// TestAskedAllTheTime: who asks for figures again and again keeps nobody from
// looking whether the GPUs are there.
func TestAskedAllTheTime(t *testing.T) {
	r := newRig(t, "fake", twoA100())
	r.pace.tick, r.pace.fresh = 300*time.Millisecond, time.Hour
	r.run()
	r.set("lost.1 1")
	for end := time.Now().Add(20 * time.Second); !device(r.Machine(), gpu1).Lost; {
		if _, err := r.Figures(t.Context()); err != nil || time.Now().After(end) {
			t.Fatalf("not looked: %v", err)
		}
	}
}

// TestDriverRoot: the library of a driver that a container brings is below the
// root that has it.
func TestDriverRoot(t *testing.T) {
	r := newRig(t, "none", twoA100())
	dir, err := buoyGPU()
	if err != nil {
		t.Fatal(err)
	}
	put(t, r.root, map[string]string{"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": "-> " + dir + "/fake/libnvidia-ml.so.1"})
	r.run()
	if m := r.Machine(); m.Trouble != "" || device(m, gpu0).Memory != 40<<30 {
		t.Errorf("%+v", m)
	}
}

func TestNoDriver(t *testing.T) {
	files := join(
		pciCard("pci0000:00/0000:00:02.0", "8086:46a6", "i915", map[string]string{"class": "0x030000", "drm/card0/dev": "", "drm/renderD128/dev": ""}),
		pciCard("pci0000:00/0000:00:01.0/0000:01:00.0", "10de:27b8", "nouveau", nil),
	)
	r := newRig(t, "none", files)
	r.run()
	m := r.Machine()
	if len(m.Devices) != 2 || m.Trouble != "" || m.Driver != "" {
		t.Fatalf("%+v", m)
	}
	if d := device(m, "0000:00:02.0"); d.Broken != "" || d.Model != "Intel Iris Xe Graphics" || d.Vendor != Intel || !slices.Equal(d.DRM, []string{"card0", "renderD128"}) {
		t.Errorf("%+v", d)
	}
	if d := device(m, "0000:01:00.0"); d.Broken != "the kernel's driver nouveau has it, not NVIDIA's" || d.Model != "NVIDIA L4" {
		t.Errorf("%+v", d)
	}
	// The driver comes while we run.
	if err := os.RemoveAll(filepath.Join(r.root, pciDevices)); err != nil {
		t.Fatal(err)
	}
	r.set("count 1")
	dir, _ := buoyGPU()
	t.Setenv("LD_LIBRARY_PATH", filepath.Join(dir, "fake"))
	put(t, r.root, map[string]string{"sys/module/nvidia/version": "550.54.15"})
	r.await("the driver", func(m Machine) bool { return device(m, gpu0).Memory > 0 && m.Driver == "550.54.15" })
}

func TestNoProgram(t *testing.T) {
	m := Look(t.Context(), Config{Root: tree(t, twoA100())})
	if len(m.Devices) != 2 || !strings.Contains(m.Trouble, "not installed") {
		t.Errorf("%+v", m)
	}
	m = Look(t.Context(), Config{Program: "/nonexistent/buoy-gpu", Root: tree(t, twoA100())})
	if !strings.Contains(m.Trouble, "start buoy-gpu: ") {
		t.Errorf("%+v", m)
	}
	// A program that talks nonsense, and one that does not stop to talk.
	for script, want := range map[string]string{
		"echo '{'":                       "what is no message",
		"exec yes 'x'":                   "what is no message",
		"exec tr '\\0' x </dev/zero":     "says more than",
		"read q; echo '{\"ID\":1}'; cat": "does not say what it was asked",
	} {
		program := filepath.Join(t.TempDir(), "buoy-gpu")
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if m := Look(t.Context(), Config{Program: program, Root: tree(t, twoA100())}); !strings.Contains(m.Trouble, want) {
			t.Errorf("%s: trouble is %q, want %q", script, m.Trouble, want)
		}
	}
}

// TestBackOff: the pause doubles with each failure, up to a bound, and begins
// anew after a helper that was well for a while.
func TestBackOff(t *testing.T) {
	i := NewInventory(Config{})
	i.pace.pause, i.pace.maxPause = time.Second, 5*time.Second
	var got []time.Duration
	for range 5 {
		i.since = time.Now()
		i.fail(t.Context(), errors.New("it died"))
		got = append(got, i.pause)
	}
	i.since = time.Now().Add(-time.Minute)
	i.fail(t.Context(), errors.New("it died"))
	got = append(got, i.pause)
	want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second, time.Second}
	if !slices.Equal(got, want) {
		t.Errorf("pauses of %v, want %v", got, want)
	}
	if wait := time.Until(i.retry); wait <= 0 || wait > time.Second {
		t.Errorf("tried again in %s", wait)
	}
}

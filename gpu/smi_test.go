package gpu

import (
	"context"
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// smiLog is what we compare of what nvidia-smi -q -x prints.
type smiLog struct {
	Driver string   `xml:"driver_version"`
	CUDA   string   `xml:"cuda_version"`
	GPUs   []smiGPU `xml:"gpu"`
}

type smiGPU struct {
	Model string `xml:"product_name"`
	UUID  string `xml:"uuid"`
	Minor string `xml:"minor_number"`
	PCI   string `xml:"pci>pci_bus_id"`
	MIG   string `xml:"mig_mode>current_mig"`
	ECC   string `xml:"ecc_mode>current_ecc"`
	Parts []struct {
		GPU     string `xml:"gpu_instance_id"`
		Compute string `xml:"compute_instance_id"`
		Total   string `xml:"fb_memory_usage>total"`
	} `xml:"mig_devices>mig_device"`
	Total       string   `xml:"fb_memory_usage>total"`
	Used        string   `xml:"fb_memory_usage>used"`
	Temperature string   `xml:"temperature>gpu_temp"`
	MemoryTemp  string   `xml:"temperature>memory_temp"`
	Power       string   `xml:"gpu_power_readings>power_draw"`
	Limit       string   `xml:"gpu_power_readings>current_power_limit"`
	OldPower    string   `xml:"power_readings>power_draw"` // before driver 530
	OldLimit    string   `xml:"power_readings>enforced_power_limit"`
	SMClock     string   `xml:"clocks>sm_clock"`
	MemClock    string   `xml:"clocks>mem_clock"`
	PIDs        []string `xml:"processes>process_info>pid"`
}

// table is what the two say of each field. far is how far apart figures may be
// that change from one moment to the next.
type table struct {
	lines []string
	wrong int
}

func (r *table) same(field string, smi, ours any) {
	r.add(field, smi, ours, fmt.Sprint(smi) == fmt.Sprint(ours))
}

func (r *table) near(field, smi string, ours *int64, unit, far float64) {
	text, ok := "N/A", false
	theirs, err := strconv.ParseFloat(strings.Fields(smi + " x")[0], 64)
	if ours != nil {
		text = strconv.FormatFloat(float64(*ours)/unit, 'f', -1, 64)
		ok = err == nil && math.Abs(float64(*ours)/unit-theirs) <= far
	} else {
		ok = err != nil // [N/A], or a field that this nvidia-smi has not
	}
	r.add(field, smi, text, ok)
}

func (r *table) add(field string, smi, ours any, ok bool) {
	mark := "ok"
	if !ok {
		mark = "DIFFERS"
		r.wrong++
	}
	r.lines = append(r.lines, fmt.Sprintf("%-7s %-24s %-44v %v", mark, field, smi, ours))
}

// compare holds an inventory against what nvidia-smi has printed.
func compare(smi smiLog, m Machine, figures []Figures) table {
	var r table
	r.same("driver_version", smi.Driver, m.Driver)
	r.same("cuda_version", smi.CUDA, m.CUDA)
	var whole []Device
	for _, d := range m.Devices {
		if d.Vendor == NVIDIA && d.Instance == nil {
			whole = append(whole, d)
		}
	}
	r.same("GPUs", len(smi.GPUs), len(whole))
	for n, s := range smi.GPUs {
		i := slices.IndexFunc(whole, func(d Device) bool { return d.UUID == s.UUID })
		at := func(field string) string { return fmt.Sprintf("gpu[%d].%s", n, field) }
		if i < 0 {
			r.same(at("uuid"), s.UUID, "none like it")
			continue
		}
		d, f := whole[i], Figures{}
		if k := slices.IndexFunc(figures, func(f Figures) bool { return f.UUID == s.UUID }); k >= 0 {
			f = figures[k]
		}
		r.same(at("uuid"), s.UUID, d.UUID)
		r.same(at("product_name"), s.Model, d.Model)
		r.same(at("minor_number"), s.Minor, d.Minor)
		r.same(at("pci_bus_id"), s.PCI, strings.ToUpper("0000"+d.PCI))
		r.same(at("state"), "", d.Broken)
		r.same(at("current_mig"), s.MIG == "Enabled", d.Divided)
		r.same(at("current_ecc"), s.ECC == "Enabled", f.ECC != nil)
		r.near(at("total"), s.Total, &d.Memory, 1<<20, 1)
		r.near(at("used"), s.Used, f.MemoryUsed, 1<<20, 64)
		r.near(at("gpu_temp"), s.Temperature, f.Temperature, 1, 3)
		r.near(at("memory_temp"), s.MemoryTemp, f.MemoryTemperature, 1, 3)
		r.near(at("power_draw"), s.Power+s.OldPower, f.Power, 1000, 25)
		r.near(at("power_limit"), s.Limit+s.OldLimit, f.PowerLimit, 1000, 1)
		r.near(at("sm_clock"), s.SMClock, f.SMClock, 1, 2000) // it follows the load
		r.near(at("mem_clock"), s.MemClock, f.MemoryClock, 1, 2000)
		pids := []string{}
		for _, p := range f.Processes {
			pids = append(pids, strconv.Itoa(p.PID))
		}
		slices.Sort(pids)
		slices.Sort(s.PIDs)
		r.same(at("processes"), strings.Join(slices.Compact(s.PIDs), ","), strings.Join(slices.Compact(pids), ","))
		compareParts(&r, at, s, d, m)
	}
	return r
}

func compareParts(r *table, at func(string) string, s smiGPU, of Device, m Machine) {
	var parts []Device
	for _, d := range m.Devices {
		if d.Instance != nil && d.Instance.Parent == of.UUID {
			parts = append(parts, d)
		}
	}
	r.same(at("mig_devices"), len(s.Parts), len(parts))
	for n, p := range s.Parts[:min(len(s.Parts), len(parts))] {
		r.same(at(fmt.Sprintf("mig[%d]", n)), p.GPU+"/"+p.Compute, fmt.Sprintf("%d/%d", parts[n].Instance.GPU, parts[n].Instance.Compute))
		r.near(at(fmt.Sprintf("mig[%d].total", n)), p.Total, &parts[n].Memory, 1<<20, 1)
	}
}

// TestHardware holds the inventory of this machine against nvidia-smi, field by
// field; scripts/test-gpu runs it.
func TestHardware(t *testing.T) {
	if os.Getenv("BUOY_TEST_GPU") == "" {
		t.Skip("SKIPPED: needs an NVIDIA GPU with its driver, and BUOY_TEST_GPU=1 (make test-gpu sets it)")
	}
	dir, err := buoyGPU()
	if err != nil {
		t.Fatal(err)
	}
	i := NewInventory(Config{Program: dir + "/buoy-gpu"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := i.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	<-i.Ready()
	raw, err := exec.CommandContext(ctx, "nvidia-smi", "-q", "-x").Output()
	if err != nil {
		t.Fatal(err)
	}
	var smi smiLog
	if err := xml.Unmarshal(raw, &smi); err != nil {
		t.Fatal(err)
	}
	figures, err := i.Figures(ctx)
	if err != nil {
		t.Error(err)
	}
	r := compare(smi, i.Machine(), figures)
	t.Logf("%s\n%s", "        field                    nvidia-smi                                   buoy", strings.Join(r.lines, "\n"))
	if r.wrong > 0 || len(smi.GPUs) == 0 {
		t.Errorf("%d fields differ, of %d GPUs", r.wrong, len(smi.GPUs))
	}
	for _, l := range i.Machine().Links {
		t.Logf("link %s %s: %d NVLinks, %s (compare with nvidia-smi topo -m)", l.A, l.B, l.NVLinks, l.Distance)
	}
}

// TestCompare: the comparison finds nothing where the two agree, and each field
// that is made to differ. The file is written by hand after NVIDIA's document of
// the format, for the GPUs of the fake library.
func TestCompare(t *testing.T) {
	r := newRig(t, "fake", twoA100(), "mig.1 2", "pid.0 77")
	r.run()
	figures, err := r.Figures(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/nvidia-smi.xml")
	if err != nil {
		t.Fatal(err)
	}
	of := func(text string) table {
		var smi smiLog
		if err := xml.Unmarshal([]byte(text), &smi); err != nil {
			t.Fatal(err)
		}
		return compare(smi, r.Machine(), figures)
	}
	if got := of(string(raw)); got.wrong != 0 || len(got.lines) != 41 {
		t.Errorf("%d of %d differ:\n%s", got.wrong, len(got.lines), strings.Join(got.lines, "\n"))
	}
	for _, change := range [][2]string{
		{"<driver_version>550.54.15", "<driver_version>550.54.14"},
		{"<cuda_version>12.4", "<cuda_version>12.5"},
		{"<uuid>GPU-00000001", "<uuid>GPU-00000009"},
		{"<product_name>NVIDIA A100", "<product_name>NVIDIA A200"},
		{"<minor_number>0", "<minor_number>1"},
		{"00000000:3B:00.0</pci_bus_id>", "00000000:3C:00.0</pci_bus_id>"},
		{"<current_mig>Disabled", "<current_mig>Enabled"},
		{"<current_ecc>Enabled", "<current_ecc>Disabled"},
		{"<total>40960 MiB", "<total>81920 MiB"},
		{"<used>1024 MiB", "<used>2048 MiB"},
		{"<gpu_temp>33 C", "<gpu_temp>43 C"},
		{"<memory_temp>N/A", "<memory_temp>30 C"},
		{"<power_draw>61.50 W", "<power_draw>161.50 W"},
		{"<current_power_limit>400.00 W", "<current_power_limit>N/A"},
		{"<pid>77", "<pid>78"},
		{"<gpu_instance_id>8", "<gpu_instance_id>9"},
		{"<total>4864 MiB", "<total>9856 MiB"},
	} {
		if !strings.Contains(string(raw), change[0]) {
			t.Errorf("the file has no %s", change[0])
		}
		if got := of(strings.Replace(string(raw), change[0], change[1], 1)); got.wrong != 1 {
			t.Errorf("with %s, %d differ:\n%s", change[1], got.wrong, strings.Join(got.lines, "\n"))
		}
	}
}

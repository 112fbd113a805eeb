package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/node/doctor"
)

func TestGPUFindings(t *testing.T) {
	l4 := gpu.Device{Model: "NVIDIA L4", PCI: "0000:3b:00.0"}
	with := func(change func(*gpu.Device)) gpu.Device { d := l4; change(&d); return d }
	sick := with(func(d *gpu.Device) { d.Broken = "it needs a reset" })
	hung := with(func(d *gpu.Device) { d.Broken = "no answer" })
	part := with(func(d *gpu.Device) { d.Instance = &gpu.Instance{} })
	for _, c := range []struct {
		m    gpu.Machine
		want string
	}{
		{gpu.Machine{}, "ok: none"},
		{gpu.Machine{Driver: "550"}, "ok: none; NVIDIA driver 550"},
		{gpu.Machine{Devices: []gpu.Device{l4, part, l4, {Model: "Intel UHD"}}, Driver: "550"}, "ok: 2 × NVIDIA L4, 1 × Intel UHD; NVIDIA driver 550"},
		{gpu.Machine{Devices: []gpu.Device{l4, sick}, Driver: "550"}, "warning: NVIDIA L4 at 0000:3b:00.0: it needs a reset"},
		{gpu.Machine{Trouble: "no answer", Devices: []gpu.Device{hung, hung, sick}}, "warning: no answer\nwarning: NVIDIA L4 at 0000:3b:00.0: it needs a reset"},
	} {
		var got []string
		for _, f := range gpuFindings(c.m) {
			got = append(got, string(f.Status)+": "+f.Found)
			if f.Check != "gpus" || (f.Cost == "") != (f.Status == doctor.OK) {
				t.Errorf("%+v", f)
			}
		}
		if text := strings.Join(got, "\n"); text != c.want {
			t.Errorf("%+v: %q, want %q", c.m, text, c.want)
		}
	}
}

func TestCDIFindings(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.json": `{"cdiVersion":"0.5.0","kind":"vendor.com/nic","devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/null"}]}}]}`,
		"cut.json":  `{"cdiVersion":"0.5.0","kind":"ven`,
		"notes.txt": "not a spec",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := cdiFindings([]string{dir, filepath.Join(dir, "none")})
	if len(all) != 1 || all[0].Status != doctor.Warning || !strings.Contains(all[0].Found, "cut.json") || all[0].Cost == "" || all[0].Mend == "" {
		t.Errorf("%+v", all)
	}
}

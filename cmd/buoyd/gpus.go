package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/gpu/cdi"
	"github.com/buoy-edge/buoy/internal/programs"
	"github.com/buoy-edge/buoy/node/doctor"
)

// gpuConfig is how GPUs are looked for. Without buoy-gpu there is less to know
// of them.
func gpuConfig(cfg config, log *slog.Logger) gpu.Config {
	program, err := programs.Find("buoy-gpu")
	if err != nil {
		program = ""
	}
	return gpu.Config{Program: program, Root: cfg.gpuRoot, Log: log}
}

// gpuFindings say what is wrong with GPUs, or which there are.
func gpuFindings(m gpu.Machine) (all []doctor.Finding) {
	const check, cost = "gpus", "no container is given it"
	if m.Trouble != "" {
		all = append(all, doctor.Finding{Check: check, Status: doctor.Warning, Found: m.Trouble, Cost: "no container is given a GPU of NVIDIA's"})
	}
	count, order := map[string]int{}, []string{}
	for _, d := range m.Devices {
		switch {
		case d.Broken == m.Trouble && d.Broken != "" || d.Instance != nil:
		case d.Broken != "":
			all = append(all, doctor.Finding{Check: check, Status: doctor.Warning, Found: fmt.Sprintf("%s at %s: %s", d.Model, d.PCI, d.Broken), Cost: cost})
		default:
			if count[d.Model]++; count[d.Model] == 1 {
				order = append(order, d.Model)
			}
		}
	}
	if len(all) > 0 {
		return all
	}
	found := "none"
	if len(order) > 0 {
		for i, model := range order {
			order[i] = fmt.Sprintf("%d × %s", count[model], model)
		}
		found = strings.Join(order, ", ")
	}
	if m.Driver != "" {
		found += "; NVIDIA driver " + m.Driver
	}
	return []doctor.Finding{{Check: check, Status: doctor.OK, Found: found}}
}

// cdiFindings say which specs of devices cannot be used.
func cdiFindings(dirs []string) (all []doctor.Finding) {
	if dirs == nil {
		dirs = cdi.Dirs()
	}
	for _, err := range cdi.Read(dirs).Trouble() {
		all = append(all, doctor.Finding{
			Check: "devices", Status: doctor.Warning, Found: err.Error(), Cost: "no container is given what it describes",
			Mend: "have the program that made it make it anew, or correct or remove it",
		})
	}
	return all
}

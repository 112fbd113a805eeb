package main

import (
	"net/http"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// listRoutes are of what the node has besides containers and images.
func listRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /nodes/{node}/bridges", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []buoy.Bridge{{Name: "lab", HWAddr: "02:00:00:00:00:01", NetworkMode: "static", NAT: true, Setting: buoy.BridgeSetting{CIDR: "10.20.0.1/24"}, Status: "up"}})
	})
	for path, v := range map[string]any{
		"":        buoy.Node{ID: "525400123456", Hostname: "core0node", IPAddress: "10.0.0.2", Status: "running", Version: "v9.9.9", Controller: "http://10.0.0.1:9090"},
		"/info":   buoy.OS{KernelVersion: "6.12.0", Arch: "amd64", Platform: "debian", PlatformVersion: "13", Cgroups: "v2", GPUs: 2, GPUDriver: "550.54.15", Uptime: 3 * 3600},
		"/mem":    []buoy.Memory{{Total: 4 << 30, Available: 3 << 30}},
		"/cpus":   []buoy.CPU{{}, {}},
		"/logins": []buoy.RegistryLogin{{Registry: "docker.io", Username: "me"}},
	} {
		mux.HandleFunc("GET /nodes/{node}"+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, v) })
	}
	mux.HandleFunc("GET /nodes/{node}/gpus", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("node") == "bare" {
			answer(w, 200, buoy.NodeGPUs{GPUs: []buoy.NodeGPU{}, Links: []buoy.GPULink{}})
			return
		}
		l4 := buoy.NodeGPU{
			UUID: "GPU-0a", Index: new(0), Vendor: "nvidia", Model: "NVIDIA L4", PCI: "0000:3b:00.0", NUMANode: new(1), Memory: 24 << 30, KernelDriver: "nvidia", State: "ok",
			Utilization: new(int64(42)), MemoryUsed: new(int64(1 << 30)), Temperature: new(int64(51)), Power: new(61.5), PowerLimit: new(72.0),
			ECC: &buoy.GPUECC{Corrected: 3}, XID: 31, Containers: []string{"web", "idle"},
			Processes: []buoy.GPUProcess{{PID: 7, Container: "web"}, {PID: 8, Container: "db"}, {PID: 9, Container: "web"}, {PID: 10}},
		}
		part := buoy.NodeGPU{
			UUID: "MIG-1", Index: new(1), Vendor: "nvidia", Model: "NVIDIA A100", Memory: 5 << 30, State: "broken", Message: "the driver does not answer",
			Instance: &buoy.GPUInstance{Parent: "GPU-1", Profile: "1g.5gb"},
		}
		answer(w, 200, buoy.NodeGPUs{Driver: "550.54.15", Trouble: "the driver does not answer", GPUs: []buoy.NodeGPU{l4, part, {UUID: "0000:00:02.0", Vendor: "intel", Model: "Intel UHD", State: "ok"}}})
	})
	mux.HandleFunc("GET /nodes/{node}/volumes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []buoy.Volume{{Name: "data", Containers: []string{"web", "db"}}, {Name: "old", Containers: []string{}}})
	})
}

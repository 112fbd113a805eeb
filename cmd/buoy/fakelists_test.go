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
		"/info":   buoy.OS{KernelVersion: "6.12.0", Arch: "amd64", Platform: "debian", PlatformVersion: "13", Cgroups: "v2", Uptime: 3 * 3600},
		"/mem":    []buoy.Memory{{Total: 4 << 30, Available: 3 << 30}},
		"/cpus":   []buoy.CPU{{}, {}},
		"/logins": []buoy.RegistryLogin{{Registry: "docker.io", Username: "me"}},
	} {
		mux.HandleFunc("GET /nodes/{node}"+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, v) })
	}
	mux.HandleFunc("GET /nodes/{node}/volumes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []buoy.Volume{{Name: "data", Containers: []string{"web", "db"}}, {Name: "old", Containers: []string{}}})
	})
}

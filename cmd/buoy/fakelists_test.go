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
	mux.HandleFunc("GET /nodes/{node}/volumes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []buoy.Volume{{Name: "data", Containers: []string{"web", "db"}}, {Name: "old", Containers: []string{}}})
	})
}

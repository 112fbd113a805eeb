package main

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// stats has the same figures for each container that runs; a stream has two of
// them and then ends.
func (f *fakeNode) stats(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f.mu.Lock()
	var list buoy.StatsList
	for name, c := range f.containers {
		s := buoy.ContainerStats{Name: name, Image: "alpine", State: c.state}
		if c.state == "running" {
			s.Interval = 1
			s.CPU, s.Memory = &buoy.CPUUse{Percent: 12.5}, &buoy.MemoryUse{WorkingSet: 64 << 20, Limit: 256 << 20}
			s.PIDs, s.IO = &buoy.PIDUse{Current: 3}, &buoy.IOUse{ReadBytes: 2048}
			s.Networks = []buoy.NetworkUse{{Name: "eth0", InterfaceCounts: buoy.InterfaceCounts{RXBytes: 1 << 20, TXBytes: 512}}}
		} else if !q.Has("all") {
			continue
		}
		list.Containers = append(list.Containers, s)
	}
	f.mu.Unlock()
	slices.SortFunc(list.Containers, func(a, b buoy.ContainerStats) int { return strings.Compare(a.Name, b.Name) })
	times := 1
	if q.Has("stream") {
		times = 2
	}
	for range times {
		_ = json.NewEncoder(w).Encode(list)
	}
}

// processesOf are those of an image that names no command.
func processesOf(w http.ResponseWriter, _ *http.Request, c *fakeContainer) {
	if command, _ := c.create["command"].([]any); len(command) == 0 {
		_, _ = io.WriteString(w, `[{"pid":1,"cmdline":"buoy-init"}]`)
		return
	}
	_, _ = io.WriteString(w, `[{"pid":1,"cmdline":"sleep 9","rss":1048576,"cpu":{"user":1.5,"system":0.25}}]`)
}

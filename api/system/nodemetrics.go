package system

import (
	"cmp"
	"maps"
	"slices"

	"github.com/buoy-edge/buoy/internal/prometheus"
	"github.com/buoy-edge/buoy/node"
)

// ofNode adds what the node has measured.
func ofNode(page *prometheus.Page, f *node.Figures) {
	const gauge, counter = prometheus.Gauge, prometheus.Counter
	one := func(kind prometheus.Kind, name, help string, value float64) {
		page.Metric(kind, "buoy_"+name, help).Add(value)
	}
	counts := func(name, help, label string, values map[string]uint64) {
		m := page.Metric(counter, "buoy_"+name, help, label)
		for _, key := range slices.Sorted(maps.Keys(values)) {
			m.Add(float64(values[key]), key)
		}
	}
	one(gauge, "node_cpus", "Processors of the machine.", float64(f.CPUs))
	one(counter, "node_cpu_busy_seconds_total", "How long they were busy, together.", f.CPUBusy.Seconds())
	one(gauge, "node_load1", "Load average of one minute.", f.Load)
	one(gauge, "node_memory_size_bytes", "Memory of the machine.", float64(f.MemoryTotal))
	one(gauge, "node_memory_available_bytes", "Memory that programs can still get.", float64(f.MemoryAvailable))
	one(gauge, "node_data_size_bytes", "The file system with buoyd's data.", float64(f.DataTotal))
	one(gauge, "node_data_free_bytes", "What is free of it.", float64(f.DataFree))
	waits(page, f)
	devices(page, f)
	one(gauge, "images", "Images on the node.", float64(f.Images))
	one(gauge, "image_layers", "Their layers.", float64(f.Layers))
	one(gauge, "image_bytes", "What they take.", float64(f.ImageBytes))
	counts("image_pulls_total", "Images that came anew, and those that did not come.", "result", map[string]uint64{"ok": f.Pulled, "failed": f.PullsFailed})
	page.Metric(prometheus.Histogram, "buoy_container_start_duration_seconds", "How long starts took that went well, with the pull of an image that was not there.").
		Buckets(f.Starts.Count, f.Starts.Sum.Seconds(), f.Starts.Below)
	one(counter, "container_restarts_total", "Containers that were started again by policy, at boot, or by a restart.", float64(f.Restarted))
	counts("container_exits_total", "Runs that have ended.", "reason", f.Exits)
	counts("container_failures_total", "Starts and adoptions that failed.", "reason", f.Failures)
}

func waits(page *prometheus.Page, f *node.Figures) {
	m := page.Metric(prometheus.Counter, "buoy_node_pressure_seconds_total", "How long some or all tasks waited for a resource.", "resource", "tasks")
	tasks := map[bool]string{false: "some", true: "all"}
	for _, w := range slices.SortedFunc(maps.Keys(f.Waits), func(a, b node.Wait) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(tasks[a.All], tasks[b.All]))
	}) {
		m.Add(f.Waits[w].Seconds(), w.Resource, tasks[w.All])
	}
}

// devices adds what there is of each NIC and disk of the machine.
func devices(page *prometheus.Page, f *node.Figures) {
	nics := slices.Sorted(maps.Keys(f.Links))
	link := func(name, help string, value func(l node.Link) float64) {
		m := page.Metric(prometheus.Counter, "buoy_node_network_"+name, help, "interface")
		for _, nic := range nics {
			m.Add(value(f.Links[nic]), nic)
		}
	}
	link("receive_bytes_total", "Bytes that a NIC of the machine has received.", func(l node.Link) float64 { return l.RXBytes })
	link("receive_errors_total", "Errors of what it received.", func(l node.Link) float64 { return l.RXErrors })
	link("receive_dropped_total", "Packets that it received and dropped.", func(l node.Link) float64 { return l.RXDropped })
	link("transmit_bytes_total", "Bytes that it has sent.", func(l node.Link) float64 { return l.TXBytes })
	link("transmit_errors_total", "Errors of what it was to send.", func(l node.Link) float64 { return l.TXErrors })
	link("transmit_dropped_total", "Packets that it was to send and dropped.", func(l node.Link) float64 { return l.TXDropped })
	disks := slices.Sorted(maps.Keys(f.Disks))
	disk := func(name, help string, value func(d node.Disk) float64) {
		m := page.Metric(prometheus.Counter, "buoy_node_disk_"+name, help, "device")
		for _, device := range disks {
			m.Add(value(f.Disks[device]), device)
		}
	}
	disk("reads_total", "Reads from a disk.", func(d node.Disk) float64 { return d.Reads })
	disk("read_bytes_total", "Bytes that were read from it.", func(d node.Disk) float64 { return d.ReadBytes })
	disk("writes_total", "Writes to a disk.", func(d node.Disk) float64 { return d.Writes })
	disk("written_bytes_total", "Bytes that were written to it.", func(d node.Disk) float64 { return d.WriteBytes })
	disk("busy_seconds_total", "How long it had something to do.", func(d node.Disk) float64 { return d.Busy })
}

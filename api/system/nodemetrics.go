package system

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/buoy-edge/buoy/node"
)

// machine has the metrics of the node itself, of one scrape.
type machine struct {
	series  []nodeMetric
	figures node.Figures
}

// nodeMetric is a metric with a value for each of its label's.
type nodeMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	each func(f *node.Figures, tell func(value float64, labels ...string))
}

func ofNode(kind prometheus.ValueType, name, help string, each func(f *node.Figures, tell func(float64, ...string)), labels ...string) nodeMetric {
	return nodeMetric{prometheus.NewDesc("buoy_"+name, help, labels, nil), kind, each}
}

func nodeSeries() []nodeMetric {
	one := func(kind prometheus.ValueType, name, help string, value func(f *node.Figures) float64) nodeMetric {
		return ofNode(kind, name, help, func(f *node.Figures, tell func(float64, ...string)) { tell(value(f)) })
	}
	counts := func(name, help, label string, value func(f *node.Figures) map[string]uint64) nodeMetric {
		return ofNode(prometheus.CounterValue, name, help, func(f *node.Figures, tell func(float64, ...string)) {
			for key, n := range value(f) {
				tell(float64(n), key)
			}
		}, label)
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	all := []nodeMetric{
		one(gauge, "node_cpus", "Processors of the machine.", func(f *node.Figures) float64 { return float64(f.CPUs) }),
		one(counter, "node_cpu_busy_seconds_total", "How long they were busy, together.", func(f *node.Figures) float64 { return f.CPUBusy.Seconds() }),
		one(gauge, "node_load1", "Load average of one minute.", func(f *node.Figures) float64 { return f.Load }),
		one(gauge, "node_memory_size_bytes", "Memory of the machine.", func(f *node.Figures) float64 { return float64(f.MemoryTotal) }),
		one(gauge, "node_memory_available_bytes", "Memory that programs can still get.", func(f *node.Figures) float64 { return float64(f.MemoryAvailable) }),
		one(gauge, "node_data_size_bytes", "The file system with buoyd's data.", func(f *node.Figures) float64 { return float64(f.DataTotal) }),
		one(gauge, "node_data_free_bytes", "What is free of it.", func(f *node.Figures) float64 { return float64(f.DataFree) }),
		one(gauge, "images", "Images on the node.", func(f *node.Figures) float64 { return float64(f.Images) }),
		one(gauge, "image_layers", "Their layers.", func(f *node.Figures) float64 { return float64(f.Layers) }),
		one(gauge, "image_bytes", "What they take.", func(f *node.Figures) float64 { return float64(f.ImageBytes) }),
		ofNode(counter, "node_pressure_seconds_total", "How long some or all tasks waited for a resource.", func(f *node.Figures, tell func(float64, ...string)) {
			for w, d := range f.Waits {
				tasks := "some"
				if w.All {
					tasks = "all"
				}
				tell(d.Seconds(), w.Resource, tasks)
			}
		}, "resource", "tasks"),
		counts("image_pulls_total", "Images that came anew, and those that did not come.", "result", func(f *node.Figures) map[string]uint64 {
			return map[string]uint64{"ok": f.Pulled, "failed": f.PullsFailed}
		}),
		one(counter, "container_restarts_total", "Containers that were started again by policy, at boot, or by a restart.", func(f *node.Figures) float64 { return float64(f.Restarted) }),
		counts("container_exits_total", "Runs that have ended.", "reason", func(f *node.Figures) map[string]uint64 { return f.Exits }),
		counts("container_failures_total", "Starts and adoptions that failed.", "reason", func(f *node.Figures) map[string]uint64 { return f.Failures }),
	}
	return append(all, deviceSeries()...)
}

// deviceSeries are those of each NIC and disk of the machine.
func deviceSeries() (all []nodeMetric) {
	link := func(name, help string, value func(l node.Link) float64) {
		all = append(all, ofNode(prometheus.CounterValue, "node_network_"+name, help, func(f *node.Figures, tell func(float64, ...string)) {
			for nic, l := range f.Links {
				tell(value(l), nic)
			}
		}, "interface"))
	}
	link("receive_bytes_total", "Bytes that a NIC of the machine has received.", func(l node.Link) float64 { return l.RXBytes })
	link("receive_errors_total", "Errors of what it received.", func(l node.Link) float64 { return l.RXErrors })
	link("receive_dropped_total", "Packets that it received and dropped.", func(l node.Link) float64 { return l.RXDropped })
	link("transmit_bytes_total", "Bytes that it has sent.", func(l node.Link) float64 { return l.TXBytes })
	link("transmit_errors_total", "Errors of what it was to send.", func(l node.Link) float64 { return l.TXErrors })
	link("transmit_dropped_total", "Packets that it was to send and dropped.", func(l node.Link) float64 { return l.TXDropped })
	disk := func(name, help string, value func(d node.Disk) float64) {
		all = append(all, ofNode(prometheus.CounterValue, "node_disk_"+name, help, func(f *node.Figures, tell func(float64, ...string)) {
			for device, d := range f.Disks {
				tell(value(d), device)
			}
		}, "device"))
	}
	disk("reads_total", "Reads from a disk.", func(d node.Disk) float64 { return d.Reads })
	disk("read_bytes_total", "Bytes that were read from it.", func(d node.Disk) float64 { return d.ReadBytes })
	disk("writes_total", "Writes to a disk.", func(d node.Disk) float64 { return d.Writes })
	disk("written_bytes_total", "Bytes that were written to it.", func(d node.Disk) float64 { return d.WriteBytes })
	disk("busy_seconds_total", "How long it had something to do.", func(d node.Disk) float64 { return d.Busy })
	return all
}

// startsDesc describes the times of starts.
func startsDesc() *prometheus.Desc {
	return prometheus.NewDesc("buoy_container_start_duration_seconds", "How long starts took that went well, with the pull of an image that was not there.", nil, nil)
}

// Describe implements prometheus.Collector.
func (m machine) Describe(ch chan<- *prometheus.Desc) {
	ch <- startsDesc()
	for _, s := range m.series {
		ch <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (m machine) Collect(ch chan<- prometheus.Metric) {
	starts := m.figures.Starts
	ch <- prometheus.MustNewConstHistogram(startsDesc(), starts.Count, starts.Sum.Seconds(), starts.Below)
	for _, s := range m.series {
		s.each(&m.figures, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(s.desc, s.kind, value, labels...)
		})
	}
}

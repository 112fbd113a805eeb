package system

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/prometheus"
	"github.com/buoy-edge/buoy/node"
)

// family is a metric of containers. Names are cAdvisor's, which dashboards know.
type family struct {
	name, help string
	value      func(u *node.Usage) float64
	has        func(u *node.Usage) bool // nil: all have it
}

// kind is as Prometheus wants names to tell.
func (f family) kind() string {
	if strings.HasSuffix(f.name, "_total") {
		return "counter"
	}
	return "gauge"
}

func containerFamilies() []family {
	all := func(name, help string, value func(u *node.Usage) float64) family {
		return family{name: name, help: help, value: value}
	}
	return append([]family{
		all("start_time_seconds", "When its run began, since 1970.", func(u *node.Usage) float64 { return float64(u.Started.UnixMilli()) / 1000 }),
		all("cpu_usage_seconds_total", "Time on processors.", func(u *node.Usage) float64 { return u.CPU.Total.Seconds() }),
		all("cpu_user_seconds_total", "Of this, in programs.", func(u *node.Usage) float64 { return u.CPU.User.Seconds() }),
		all("cpu_system_seconds_total", "Of this, in the kernel.", func(u *node.Usage) float64 { return u.CPU.System.Seconds() }),
		all("cpu_cfs_periods_total", "Periods of its CPU limit.", func(u *node.Usage) float64 { return float64(u.CPU.Periods) }),
		all("cpu_cfs_throttled_periods_total", "Of these, those in which it was held up.", func(u *node.Usage) float64 { return float64(u.CPU.Throttled) }),
		all("cpu_cfs_throttled_seconds_total", "For how long it was held up.", func(u *node.Usage) float64 { return u.CPU.ThrottledTime.Seconds() }),
		all("memory_usage_bytes", "Memory, with page cache.", func(u *node.Usage) float64 { return float64(u.Memory.Usage) }),
		all("memory_working_set_bytes", "Memory without page cache that is not in use.", func(u *node.Usage) float64 { return float64(u.Memory.WorkingSet) }),
		all("memory_rss", "Memory of programs, in bytes.", func(u *node.Usage) float64 { return float64(u.Memory.RSS) }),
		all("memory_cache", "Page cache, in bytes.", func(u *node.Usage) float64 { return float64(u.Memory.Cache) }),
		all("memory_swap", "Swap, in bytes.", func(u *node.Usage) float64 { return float64(u.Memory.Swap) }),
		all("memory_max_usage_bytes", "The most that memory_usage_bytes was.", func(u *node.Usage) float64 { return float64(u.Memory.Peak) }),
		all("oom_events_total", "Processes that the kernel killed for memory.", func(u *node.Usage) float64 { return float64(u.Memory.OOMKills) }),
		all("processes", "Processes.", func(u *node.Usage) float64 { return float64(u.Processes) }),
		all("threads", "Threads.", func(u *node.Usage) float64 { return float64(u.Tasks) }),
		all("threads_max", "The most threads that it may have; 0: any number.", func(u *node.Usage) float64 { return float64(u.TaskLimit) }),
		all("fs_reads_bytes_total", "Read from block devices.", func(u *node.Usage) float64 { return float64(u.IO.ReadBytes) }),
		all("fs_writes_bytes_total", "Written to block devices.", func(u *node.Usage) float64 { return float64(u.IO.WriteBytes) }),
		all("fs_reads_total", "Reads from block devices.", func(u *node.Usage) float64 { return float64(u.IO.Reads) }),
		all("fs_writes_total", "Writes to block devices.", func(u *node.Usage) float64 { return float64(u.IO.Writes) }),
		all("spec_memory_limit_bytes", "Its limit of memory; 0: none.", func(u *node.Usage) float64 { return float64(u.Memory.Limit) }),
		{"spec_cpu_quota", "Microseconds of processors that it may use in a period.", func(u *node.Usage) float64 { return float64(u.Limits.MilliCPU) * cpuPeriod / 1000 }, limited},
		{"spec_cpu_period", "That period, in microseconds.", func(*node.Usage) float64 { return cpuPeriod }, limited},
	}, pressureFamilies()...)
}

// cpuPeriod is what quotas are reckoned in, cAdvisor's too; the kernel's may be another.
const cpuPeriod = 100000

func limited(u *node.Usage) bool { return u.Limits.MilliCPU > 0 }

func pressureFamilies() (all []family) {
	for _, resource := range []struct {
		name string
		of   func(u *node.Usage) container.Pressure
	}{
		{"cpu", func(u *node.Usage) container.Pressure { return u.Pressure.CPU }},
		{"memory", func(u *node.Usage) container.Pressure { return u.Pressure.Memory }},
		{"io", func(u *node.Usage) container.Pressure { return u.Pressure.IO }},
	} {
		known := func(u *node.Usage) bool { return u.Pressure.Known }
		all = append(all,
			family{
				"pressure_" + resource.name + "_waiting_seconds_total", "How long some task waited for " + resource.name + ".",
				func(u *node.Usage) float64 { return resource.of(u).Some.Total.Seconds() }, known,
			},
			family{
				"pressure_" + resource.name + "_stalled_seconds_total", "How long all tasks waited for " + resource.name + ".",
				func(u *node.Usage) float64 { return resource.of(u).Full.Total.Seconds() }, known,
			})
	}
	return all
}

// nicFamily is a metric of each NIC of a container.
type nicFamily struct {
	name, help string
	value      func(n *container.NICStats) uint64
}

func nicFamilies() []nicFamily {
	return []nicFamily{
		{"receive_bytes_total", "Bytes that came.", func(n *container.NICStats) uint64 { return n.RXBytes }},
		{"receive_packets_total", "Packets that came.", func(n *container.NICStats) uint64 { return n.RXPackets }},
		{"receive_errors_total", "Errors of what came.", func(n *container.NICStats) uint64 { return n.RXErrors }},
		{"receive_packets_dropped_total", "Packets that came and were dropped.", func(n *container.NICStats) uint64 { return n.RXDropped }},
		{"transmit_bytes_total", "Bytes that were sent.", func(n *container.NICStats) uint64 { return n.TXBytes }},
		{"transmit_packets_total", "Packets that were sent.", func(n *container.NICStats) uint64 { return n.TXPackets }},
		{"transmit_errors_total", "Errors of what was to be sent.", func(n *container.NICStats) uint64 { return n.TXErrors }},
		{"transmit_packets_dropped_total", "Packets that were to be sent and were dropped.", func(n *container.NICStats) uint64 { return n.TXDropped }},
	}
}

// expose writes what containers use as Prometheus reads it, metric by metric:
// there are some 40 series a container.
func expose(w io.Writer, s *node.Sample) error {
	labels := make([]string, len(s.Containers))
	for i := range s.Containers {
		labels[i] = labelsOf(&s.Containers[i])
	}
	var line []byte
	var out bytes.Buffer
	out.Grow(64 << 10)
	put := func(name, labels, nic string, value float64) {
		line = append(append(append(append(line[:0], "container_"...), name...), '{'), labels...)
		if nic != "" {
			line = append(append(append(line, `,interface="`...), prometheus.Escape(nic)...), `"} `...)
		} else {
			line = append(line, '}', ' ')
		}
		out.Write(append(strconv.AppendFloat(line, value, 'g', -1, 64), '\n'))
	}
	for _, f := range containerFamilies() {
		fmt.Fprintf(&out, "# HELP container_%s %s\n# TYPE container_%s %s\n", f.name, f.help, f.name, f.kind())
		for i := range s.Containers {
			if u := &s.Containers[i]; f.has == nil || f.has(u) {
				put(f.name, labels[i], "", f.value(u))
			}
		}
		if err := flush(w, &out); err != nil {
			return err
		}
	}
	for _, f := range nicFamilies() {
		fmt.Fprintf(&out, "# HELP container_network_%s %s\n# TYPE container_network_%s counter\n", f.name, f.help, f.name)
		for i := range s.Containers {
			for j := range s.Containers[i].NICs {
				nic := &s.Containers[i].NICs[j]
				put("network_"+f.name, labels[i], nic.Name, float64(f.value(nic)))
			}
		}
		if err := flush(w, &out); err != nil {
			return err
		}
	}
	return nil
}

func flush(w io.Writer, b *bytes.Buffer) error {
	_, err := w.Write(b.Bytes())
	b.Reset()
	return err
}

// labelsOf are what each series of a container has.
func labelsOf(u *node.Usage) string {
	text := `name="` + prometheus.Escape(u.Name) + `",image="` + prometheus.Escape(u.Image) + `"`
	if u.App != "" {
		text += `,app="` + prometheus.Escape(u.App) + `"`
	}
	return text
}

// sampleAge is how old a sample may be for a scrape.
const sampleAge = time.Second

// serveMetrics answers with metrics of the daemon, of the node, and of its
// containers, as text.
func (d *Dialect) serveMetrics(w http.ResponseWriter, r *http.Request) {
	out := io.Writer(w)
	w.Header().Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		defer z.Close() // fails when the client has gone
		out = z
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	var page prometheus.Page
	d.daemon(&page)
	for _, add := range d.more {
		add(&page)
	}
	sample, err := d.measure(r.Context(), &page)
	_, _ = page.WriteTo(out) // fails when the client has gone, as below
	if err != nil {
		fmt.Fprintf(out, "# the node cannot be measured: %q\n", err)
	}
	_ = expose(out, sample) // fails when the client has gone
}

// measure measures the node, adds it to the page, and samples its containers.
func (d *Dialect) measure(ctx context.Context, page *prometheus.Page) (*node.Sample, error) {
	if d.cfg.GPUs != nil {
		ofGPUs(ctx, page, d.cfg.GPUs)
	}
	none := &node.Sample{}
	if d.cfg.Node == nil {
		return none, nil
	}
	figures, err := d.cfg.Node.Figures(ctx)
	if err != nil {
		return none, err
	}
	ofNode(page, &figures)
	sample, err := d.cfg.Node.Sample(sampleAge)
	if err != nil {
		return none, err
	}
	return sample, nil
}

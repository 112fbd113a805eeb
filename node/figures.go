package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/node/events"
)

// Figures are what a monitor watches of a node. Counters count since the boot
// of the machine, or since the start of the daemon.
type Figures struct {
	CPUs                         int
	CPUBusy                      time.Duration
	Load                         float64 // of one minute
	MemoryTotal, MemoryAvailable int64
	DataTotal, DataFree          int64 // of the file system with the node's data

	Links map[string]Link // not those of containers
	Disks map[string]Disk
	Waits map[Wait]time.Duration // how long tasks waited

	Images, Layers int
	ImageBytes     int64
	Starts         Starts

	Pulled, PullsFailed, Restarted uint64
	Exits, Failures                map[string]uint64 // by reason
}

// Link is what a NIC of the machine has carried.
type Link struct{ RXBytes, RXErrors, RXDropped, TXBytes, TXErrors, TXDropped float64 }

// Disk is what was read and written.
type Disk struct{ Reads, ReadBytes, Writes, WriteBytes, Busy float64 }

// Wait is a resource ("cpu") that some task waited for, or all.
type Wait struct {
	Resource string
	All      bool
}

// Figures reads them.
func (n *Node) Figures(ctx context.Context) (f Figures, err error) {
	if f.CPUBusy, _, err = n.fs.CPUTime(); err != nil {
		return f, err
	}
	memory, err := n.fs.Memory()
	if err != nil {
		return f, err
	}
	f.MemoryTotal, f.MemoryAvailable = memory.Total, memory.Available
	if f.DataFree, f.DataTotal, err = n.Room(); err != nil {
		return f, err
	}
	images, err := n.cfg.Images.Usage(ctx)
	if err != nil {
		return f, err
	}
	f.Images, f.Layers, f.ImageBytes = len(images.Images), images.Layers, images.LayerBytes+images.FlistBytes
	f.Starts = n.starts.now()
	f.happened(n.cfg.Events.Reasons())
	return f, n.measure(&f)
}

// happened counts events.
func (f *Figures) happened(counts map[events.Why]uint64) {
	f.Exits, f.Failures = map[string]uint64{}, map[string]uint64{}
	for why, n := range counts {
		switch why.Type {
		case events.ImagePulled:
			f.Pulled += n
		case events.ImageFailed:
			f.PullsFailed += n
		case events.ContainerRestarted:
			f.Restarted += n
		case events.ContainerExited, events.ContainerStopped:
			f.Exits[why.Reason] += n
		case events.ContainerFailed:
			f.Failures[why.Reason] += n
		default: // of no interest here
		}
	}
}

// maxDevices bounds the links and disks that are told, each.
const maxDevices = 64

// measure adds what inventory samples.
func (n *Node) measure(f *Figures) error {
	stats, err := n.fs.Stats()
	if err != nil {
		return err
	}
	f.Links, f.Disks, f.Waits = map[string]Link{}, map[string]Disk{}, map[Wait]time.Duration{}
	var links, disks []string
	for key := range stats {
		metric, device, _ := strings.Cut(key, "/")
		switch {
		case metric == "network.packets.rx" && !bridged(device):
			links = append(links, device)
		case metric == "disk.iops.read":
			disks = append(disks, device)
		case metric == "machine.CPU.utilisation":
			f.CPUs++
		case strings.HasPrefix(metric, "pressure."):
			resource, kind, _ := strings.Cut(strings.TrimPrefix(metric, "pressure."), ".")
			f.Waits[Wait{resource, kind == "full"}] = time.Duration(stats[key].Value * float64(time.Second))
		}
	}
	f.Load = stats["machine.load.1"].Value
	value := func(metric, device string) float64 { return stats[metric+"/"+device].Value }
	for _, d := range few(links) {
		f.Links[d] = Link{
			RXBytes: value("network.throughput.incoming", d) * (1 << 20), RXErrors: value("network.errors.rx", d), RXDropped: value("network.dropped.rx", d),
			TXBytes: value("network.throughput.outgoing", d) * (1 << 20), TXErrors: value("network.errors.tx", d), TXDropped: value("network.dropped.tx", d),
		}
	}
	for _, d := range few(disks) {
		f.Disks[d] = Disk{
			Reads: value("disk.iops.read", d), ReadBytes: value("disk.throughput.read", d) * (1 << 10),
			Writes: value("disk.iops.write", d), WriteBytes: value("disk.throughput.write", d) * (1 << 10), Busy: value("disk.busy", d),
		}
	}
	return nil
}

func few(devices []string) []string {
	slices.Sort(devices)
	return devices[:min(len(devices), maxDevices)]
}

// bridged says that a link is no hardware and a port of a bridge: the machine's
// end of a container's NIC.
func bridged(link string) bool {
	dir := filepath.Join("/sys/class/net", filepath.Base(link))
	_, port := os.Stat(filepath.Join(dir, "brport"))
	_, hardware := os.Stat(filepath.Join(dir, "device"))
	return port == nil && hardware != nil
}

// Starts are the starts of containers that went well since the daemon's, and
// how long they took, with the pull of an image that was not there.
type Starts struct {
	Count uint64
	Sum   time.Duration
	Below map[float64]uint64 // how many took so many seconds at most
}

// startTimes goes from a warm start (20 ms) to the pull of a large image.
func startTimes() []float64 {
	return []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
}

type starts struct {
	mu  sync.Mutex // guards all
	all Starts
}

// took counts a start that has ended.
func (s *starts) took(begun time.Time, err *error) {
	if *err != nil {
		return
	}
	d := time.Since(begun)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Count++
	s.all.Sum += d
	if s.all.Below == nil {
		s.all.Below = map[float64]uint64{}
	}
	for _, end := range startTimes() {
		if d.Seconds() <= end {
			s.all.Below[end]++
		}
	}
}

func (s *starts) now() Starts {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.all
	now.Below = map[float64]uint64{}
	for _, end := range startTimes() {
		now.Below[end] = s.all.Below[end]
	}
	return now
}

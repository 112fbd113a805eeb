package inventory

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stat is one sample.
type Stat struct {
	Value float64
	// Counter: the value only grows, and the metric is its growth per second
	// (Zero-OS aggregates these as "difference", the others as "average").
	Counter bool
}

// Stats samples the machine. Keys are "metric/device", or "metric" alone for the
// whole machine; names and units are those of Zero-OS 0-core where it has them:
//
//	machine.CPU.utilisation/N            s of user and system time
//	machine.CPU.percent/N                % when taken per second
//	machine.CPU.contextswitch .interrupts
//	machine.memory.ram.available         MiB, likewise swap.left, swap.used
//	machine.process.threads              threads of all processes
//	network.throughput.incoming/NIC      MiB, likewise .outgoing
//	network.packets.rx/NIC .tx           (Zero-OS leaves out lo; so do we)
//	disk.iops.read/DISK .write           requests
//	disk.throughput.read/DISK .write     KiB
//	disk.size.total/DISK .free           bytes, of a mounted file system
//
// Ours: machine.load.1 .5 .15, machine.memory.ram.used and .total (MiB),
// machine.process.running and .blocked, network.errors.rx/NIC .tx,
// network.dropped.rx/NIC .tx, disk.busy/DISK (s with a request under way),
// pressure.cpu.some, pressure.memory.full, … (s in which tasks waited).
func (f FS) Stats() (map[string]Stat, error) {
	text, err := read(f.proc("stat"))
	if err != nil {
		return nil, unavailable("statistics", err)
	}
	s := samples{}
	s.cpus(parseStat(text))
	if m, err := f.Memory(); err == nil {
		s.memory(m)
	}
	s.load(readString(f.proc("loadavg")))
	if text, err := read(f.proc("thread-self/net/dev")); err == nil {
		s.network(text)
	} else if text, err := read(f.proc("net/dev")); err == nil {
		s.network(text)
	}
	if text, err := read(f.proc("diskstats")); err == nil {
		s.disks(text)
	}
	for _, resource := range []string{"cpu", "io", "memory"} {
		s.pressure(resource, readString(f.proc("pressure", resource)))
	}
	f.sizes(s)
	return s, nil
}

type samples map[string]Stat

func (s samples) gauge(key string, value float64)   { s[key] = Stat{Value: value} }
func (s samples) counter(key string, value float64) { s[key] = Stat{Value: value, Counter: true} }

func (s samples) cpus(k kernelStat) {
	for _, t := range k.cpus {
		device := "/" + strconv.Itoa(t.id)
		s.counter("machine.CPU.utilisation"+device, float64(t.user+t.system)/ticks)
		s.counter("machine.CPU.percent"+device, float64(t.busy())/ticks*100)
	}
	s.counter("machine.CPU.contextswitch", float64(k.contextSwitches))
	s.counter("machine.CPU.interrupts", float64(k.interrupts))
	s.gauge("machine.process.running", float64(k.running))
	s.gauge("machine.process.blocked", float64(k.blocked))
}

const mib = 1 << 20

func (s samples) memory(m Memory) {
	s.gauge("machine.memory.ram.total", float64(m.Total)/mib)
	s.gauge("machine.memory.ram.used", float64(m.Used)/mib)
	s.gauge("machine.memory.ram.available", float64(m.Available)/mib)
	s.gauge("machine.memory.swap.left", float64(m.SwapFree)/mib)
	s.gauge("machine.memory.swap.used", float64(max(m.SwapTotal-m.SwapFree, 0))/mib)
}

// load reads "0.20 0.18 0.12 1/80 11206": the fourth is running/all threads.
func (s samples) load(text string) {
	words := strings.Fields(text)
	for i, name := range []string{"machine.load.1", "machine.load.5", "machine.load.15"} {
		if i < len(words) {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				s.gauge(name, v)
			}
		}
	}
	if len(words) > 3 {
		_, all, _ := strings.Cut(words[3], "/")
		if n, err := strconv.ParseUint(all, 10, 64); err == nil {
			s.gauge("machine.process.threads", float64(n))
		}
	}
}

// network reads "eth0: bytes packets errs drop … | bytes packets errs drop …".
func (s samples) network(text []byte) {
	fields(text, func(nic, value string) {
		w := strings.Fields(value)
		if len(w) < 12 || nic == "lo" {
			return
		}
		num := func(i int) float64 { n, _ := strconv.ParseUint(w[i], 10, 64); return float64(n) }
		s.counter("network.throughput.incoming/"+nic, num(0)/mib)
		s.counter("network.packets.rx/"+nic, num(1))
		s.counter("network.errors.rx/"+nic, num(2))
		s.counter("network.dropped.rx/"+nic, num(3))
		s.counter("network.throughput.outgoing/"+nic, num(8)/mib)
		s.counter("network.packets.tx/"+nic, num(9))
		s.counter("network.errors.tx/"+nic, num(10))
		s.counter("network.dropped.tx/"+nic, num(11))
	})
}

// disks reads "major minor name reads merged sectors ms writes merged sectors ms
// inflight busy-ms …", of disks and their partitions.
func (s samples) disks(text []byte) {
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		if len(w) < 14 || strings.HasPrefix(w[2], "loop") || strings.HasPrefix(w[2], "ram") {
			continue
		}
		num := func(i int) float64 { n, _ := strconv.ParseUint(w[i], 10, 64); return float64(n) }
		disk := strings.ToValidUTF8(w[2], "\uFFFD")
		s.counter("disk.iops.read/"+disk, num(3))
		s.counter("disk.throughput.read/"+disk, num(5)/2) // sectors are 512 bytes here, always
		s.counter("disk.iops.write/"+disk, num(7))
		s.counter("disk.throughput.write/"+disk, num(9)/2)
		s.counter("disk.busy/"+disk, num(12)/1000)
	}
}

// pressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", total in µs.
func (s samples) pressure(resource, text string) {
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		_, total, ok := strings.Cut(rest, "total=")
		if n, err := strconv.ParseUint(total, 10, 64); ok && err == nil && (kind == "some" || kind == "full") {
			s.counter("pressure."+resource+"."+kind, float64(n)/1e6)
		}
	}
}

// sizes asks for the size of each file system on a local disk. Network file
// systems are left out: statfs waits for a server that is away.
func (f FS) sizes(s samples) {
	mounts, err := f.Mounts()
	if err != nil || f.Proc != "" && f.Proc != "/proc" {
		return // another machine's mounts are not here
	}
	for _, m := range mounts {
		device, ok := strings.CutPrefix(m.Device, "/dev/")
		if _, done := s["disk.size.total/"+device]; !ok || done || strings.HasPrefix(device, "loop") || device == "fuse" || strings.HasPrefix(m.FSType, "fuse") {
			continue
		}
		if info, err := os.Stat(m.Device); err != nil || info.Mode()&os.ModeDevice == 0 {
			continue
		}
		var st unix.Statfs_t
		if unix.Statfs(m.Mountpoint, &st) == nil {
			s.gauge("disk.size.total/"+device, float64(st.Blocks)*float64(st.Bsize))
			s.gauge("disk.size.free/"+device, float64(st.Bavail)*float64(st.Bsize))
		}
	}
}

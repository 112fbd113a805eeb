package container

import (
	"bytes"
	"time"
)

// Stats is what a container has used since its start, and what it uses now.
// Limits of 0 are none.
type Stats struct {
	CPU              CPUStats
	Memory           MemoryStats
	Processes        uint64 // those of containers in it are not among them
	Tasks, TaskLimit uint64 // threads
	IO               IOStats
	NICs             []NICStats
	Pressure         PressureStats
}

// CPUStats is time on processors. Periods are those of its limit, Throttled the
// ones in which it was held up.
type CPUStats struct {
	Total, User, System time.Duration
	Periods, Throttled  uint64
	ThrottledTime       time.Duration
}

// MemoryStats is memory in bytes.
type MemoryStats struct {
	Usage      uint64 // with page cache
	WorkingSet uint64 // without page cache that is not in use, as Kubernetes reckons
	RSS, Cache uint64
	Peak       uint64 // of Usage; 0: the kernel does not say
	Limit      uint64
	Swap       uint64
	OOMKills   uint64

	inactive uint64 // page cache that is not in use
}

// IOStats is what reached block devices.
type IOStats struct{ ReadBytes, WriteBytes, Reads, Writes uint64 }

// NICStats is a network interface, as the container sees it.
type NICStats struct {
	Name                                    string
	RXBytes, RXPackets, RXErrors, RXDropped uint64
	TXBytes, TXPackets, TXErrors, TXDropped uint64
}

// PressureStats is how much tasks waited. Known: the kernel counts it.
type PressureStats struct {
	Known           bool
	CPU, Memory, IO Pressure
}

// Pressure is of one resource: when some task waited, and when all did.
type Pressure struct{ Some, Full Stall }

// Stall is the share of the last ten seconds, in percent, and the time since
// the start.
type Stall struct {
	Avg10 float64
	Total time.Duration
}

// amount reads "123\n"; "max", which is no limit, is 0, and so is what a kernel
// calls a limit that no machine can reach.
func amount(text []byte) uint64 {
	var n uint64
	for _, c := range text {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	if n >= 1<<62 {
		return 0
	}
	return n
}

// pairs calls f with each line "name number".
func pairs(text []byte, f func(name []byte, n uint64)) {
	for line := range bytes.Lines(text) {
		if name, value, ok := bytes.Cut(line, []byte(" ")); ok {
			f(name, amount(value))
		}
	}
}

// word cuts the first word off.
func word(text []byte) (first, rest []byte) {
	text = bytes.TrimLeft(text, " ")
	if i := bytes.IndexByte(text, ' '); i >= 0 {
		return text[:i], text[i+1:]
	}
	return bytes.TrimRight(text, "\n"), nil
}

func cpuStat(text []byte, s *Stats) {
	pairs(text, func(name []byte, n uint64) {
		switch string(name) {
		case "usage_usec":
			s.CPU.Total = time.Duration(n) * time.Microsecond
		case "user_usec":
			s.CPU.User = time.Duration(n) * time.Microsecond
		case "system_usec":
			s.CPU.System = time.Duration(n) * time.Microsecond
		case "nr_periods":
			s.CPU.Periods = n
		case "nr_throttled":
			s.CPU.Throttled = n
		case "throttled_usec":
			s.CPU.ThrottledTime = time.Duration(n) * time.Microsecond
		case "throttled_time": // v1
			s.CPU.ThrottledTime = time.Duration(n)
		}
	})
}

// userHZ is the unit of cpuacct.stat on all that Linux runs on.
const userHZ = time.Second / 100

func cpuacctStat(text []byte, s *Stats) {
	pairs(text, func(name []byte, n uint64) {
		switch string(name) {
		case "user":
			s.CPU.User = time.Duration(n) * userHZ
		case "system":
			s.CPU.System = time.Duration(n) * userHZ
		}
	})
}

func cpuacctUsage(text []byte, s *Stats) { s.CPU.Total = time.Duration(amount(text)) }

func memoryUsage(text []byte, s *Stats) { s.Memory.Usage = amount(text) }
func memoryPeak(text []byte, s *Stats)  { s.Memory.Peak = amount(text) }
func memoryLimit(text []byte, s *Stats) { s.Memory.Limit = amount(text) }
func memorySwap(text []byte, s *Stats)  { s.Memory.Swap = amount(text) }

// memoryStat is of both versions: v1 has totals with what is below, and the
// limit that holds.
func memoryStat(text []byte, s *Stats) {
	pairs(text, func(name []byte, n uint64) {
		switch string(name) {
		case "anon", "total_rss":
			s.Memory.RSS = n
		case "file", "total_cache":
			s.Memory.Cache = n
		case "inactive_file", "total_inactive_file": // the total comes later
			s.Memory.inactive = n
		case "total_swap":
			s.Memory.Swap = n
		case "hierarchical_memory_limit":
			s.Memory.Limit = n
		}
	})
}

// oomKills reads memory.events, and memory.oom_control of v1.
func oomKills(text []byte, s *Stats) {
	pairs(text, func(name []byte, n uint64) {
		if string(name) == "oom_kill" {
			s.Memory.OOMKills = n
		}
	})
}

func tasks(text []byte, s *Stats)     { s.Tasks = amount(text) }
func taskLimit(text []byte, s *Stats) { s.TaskLimit = amount(text) }
func processes(text []byte, s *Stats) { s.Processes = uint64(bytes.Count(text, []byte("\n"))) }

// ioStat adds up lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func ioStat(text []byte, s *Stats) {
	for line := range bytes.Lines(text) {
		for _, rest := word(line); len(rest) > 0; {
			var pair []byte
			pair, rest = word(rest)
			key, value, _ := bytes.Cut(pair, []byte("="))
			switch string(key) {
			case "rbytes":
				s.IO.ReadBytes += amount(value)
			case "wbytes":
				s.IO.WriteBytes += amount(value)
			case "rios":
				s.IO.Reads += amount(value)
			case "wios":
				s.IO.Writes += amount(value)
			}
		}
	}
}

func blkioBytes(text []byte, s *Stats) { blkio(text, &s.IO.ReadBytes, &s.IO.WriteBytes) }
func blkioOps(text []byte, s *Stats)   { blkio(text, &s.IO.Reads, &s.IO.Writes) }

// blkio adds up lines "8:0 Read 1".
func blkio(text []byte, reads, writes *uint64) {
	for line := range bytes.Lines(text) {
		_, rest := word(line)
		kind, value := word(rest)
		switch string(kind) {
		case "Read":
			*reads += amount(value)
		case "Write":
			*writes += amount(value)
		}
	}
}

func cpuPressure(text []byte, s *Stats)    { pressure(text, s, &s.Pressure.CPU) }
func memoryPressure(text []byte, s *Stats) { pressure(text, s, &s.Pressure.Memory) }
func ioPressure(text []byte, s *Stats)     { pressure(text, s, &s.Pressure.IO) }

// pressure reads "some avg10=0.12 avg60=0.00 avg300=0.00 total=34", total in µs.
func pressure(text []byte, s *Stats, p *Pressure) {
	for line := range bytes.Lines(text) {
		kind, rest := word(line)
		to := &p.Some
		if string(kind) == "full" {
			to = &p.Full
		}
		for len(rest) > 0 {
			var pair []byte
			pair, rest = word(rest)
			key, value, _ := bytes.Cut(pair, []byte("="))
			switch string(key) {
			case "avg10":
				whole, part, _ := bytes.Cut(value, []byte("."))
				to.Avg10 = float64(amount(whole)) + float64(amount(part))/100
			case "total":
				to.Total = time.Duration(amount(value)) * time.Microsecond
				s.Pressure.Known = true
			}
		}
	}
}

// netDev reads /proc/PID/net/dev, but for lo: "  eth0: bytes packets errs drop
// fifo frame compressed multicast bytes packets errs drop …". had are those of
// the last time, for their names.
func netDev(text []byte, had []NICStats) (nics []NICStats) {
	if len(had) > 0 {
		nics = make([]NICStats, 0, len(had))
	}
	for line := range bytes.Lines(text) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		if name = bytes.TrimLeft(name, " "); !ok || string(name) == "lo" {
			continue
		}
		var n [12]uint64
		for i := range n {
			var value []byte
			value, rest = word(rest)
			n[i] = amount(value)
		}
		nic := NICStats{
			RXBytes: n[0], RXPackets: n[1], RXErrors: n[2], RXDropped: n[3],
			TXBytes: n[8], TXPackets: n[9], TXErrors: n[10], TXDropped: n[11],
		}
		if i := len(nics); i < len(had) && had[i].Name == string(name) {
			nic.Name = had[i].Name
		} else {
			nic.Name = string(name)
		}
		nics = append(nics, nic)
	}
	return nics
}

package inventory

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// CPU is one logical processor.
type CPU struct {
	ID        int
	Socket    int
	CacheSize int    // KiB, the largest cache
	Cores     int    // 1: summing up the list counts the processors (Zero-OS has it so)
	Family    string // "6"; on ARM the architecture, "8"
	Model     string
	Flags     []string // shared between processors: do not write
	MHz       float64  // the highest where the kernel knows it, else the present one; 0 unknown
}

// CPUs lists the logical processors that are online, by number.
func (f FS) CPUs() ([]CPU, error) {
	text, err := read(f.proc("cpuinfo"))
	cpus, trailer := parseCPUs(text)
	if len(cpus) == 0 {
		cpus = f.countCPUs()
	}
	if len(cpus) == 0 {
		return nil, errs.E(errs.Unavailable, "read processors: none in %s (%v)", f.proc("cpuinfo"), err)
	}
	for i := range cpus {
		c := &cpus[i]
		dir := f.sys("devices/system/cpu", "cpu"+strconv.Itoa(c.ID))
		if khz := readInt(filepath.Join(dir, "cpufreq/cpuinfo_max_freq")); khz > 0 {
			c.MHz = float64(khz) / 1000
		}
		if c.CacheSize == 0 {
			c.CacheSize = largestCache(dir)
		}
		if c.Model == "" {
			c.Model = trailer
		}
	}
	return cpus, nil
}

// parseCPUs reads cpuinfo as x86, arm, arm64 and riscv write it. The trailer is
// the board's name, which ARM kernels put after the processors.
func parseCPUs(text []byte) (cpus []CPU, trailer string) {
	var c *CPU // the one that lines are about
	var implementer, flagText string
	var flags []string
	fields(text, func(key, value string) {
		if key == "processor" {
			if id, err := strconv.Atoi(value); err == nil && id >= 0 {
				cpus = append(cpus, CPU{ID: id, Cores: 1})
				c, implementer = &cpus[len(cpus)-1], ""
			}
			return
		}
		switch key {
		case "":
			c = nil
			return
		case "Hardware", "Model":
			trailer = value
			return
		case "CPU implementer":
			implementer = value
		case "flags", "Features", "isa":
			if value != flagText || flags == nil {
				flagText, flags = value, strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || key == "isa" && r == '_' })
			}
			value = ""
		}
		if c != nil {
			c.set(key, value, implementer, flags)
		}
	})
	return cpus, trailer
}

// set takes one line of cpuinfo.
func (c *CPU) set(key, value, implementer string, flags []string) {
	switch key {
	case "physical id":
		c.Socket = int(number(value))
	case "cpu family", "CPU architecture":
		c.Family = value
	case "model name", "uarch":
		c.Model = value
	case "cache size":
		c.CacheSize = int(number(value))
	case "cpu MHz", "cpu MHz dynamic":
		if mhz, err := strconv.ParseFloat(value, 64); err == nil && mhz > 0 && mhz < 1e6 {
			c.MHz = mhz
		}
	case "flags", "Features", "isa":
		c.Flags = flags
	case "CPU part":
		if c.Model == "" {
			c.Model = armModel(implementer, value)
		}
	}
}

// armModel names the cores that edge machines and ARM servers have; arm64
// kernels print numbers only.
func armModel(implementer, part string) string {
	name := map[string]string{
		"0x41/0xd03": "ARM Cortex-A53", "0x41/0xd04": "ARM Cortex-A35", "0x41/0xd05": "ARM Cortex-A55",
		"0x41/0xd07": "ARM Cortex-A57", "0x41/0xd08": "ARM Cortex-A72", "0x41/0xd09": "ARM Cortex-A73",
		"0x41/0xd0a": "ARM Cortex-A75", "0x41/0xd0b": "ARM Cortex-A76", "0x41/0xd0c": "ARM Neoverse-N1",
		"0x41/0xd40": "ARM Neoverse-V1", "0x41/0xd41": "ARM Cortex-A78", "0x41/0xd42": "ARM Cortex-A78AE",
		"0x41/0xd49": "ARM Neoverse-N2", "0x41/0xd4f": "ARM Neoverse-V2", "0x41/0xd44": "ARM Cortex-X1",
		"0x41/0xc07": "ARM Cortex-A7", "0x41/0xc09": "ARM Cortex-A9", "0x41/0xc0f": "ARM Cortex-A15",
		"0x4e/0x003": "NVIDIA Denver 2", "0x4e/0x004": "NVIDIA Carmel", "0xc0/0xac3": "Ampere-1",
	}[implementer+"/"+part]
	if name == "" {
		return fmt.Sprintf("implementer %s part %s", implementer, part)
	}
	return name
}

// countCPUs makes up the list from /proc/stat, for kernels whose cpuinfo has
// another form (s390) or is hidden.
func (f FS) countCPUs() []CPU {
	text, err := read(f.proc("stat"))
	if err != nil {
		return nil
	}
	var cpus []CPU
	for _, t := range parseStat(text).cpus {
		cpus = append(cpus, CPU{ID: t.id, Cores: 1})
	}
	return cpus
}

// largestCache is the size in KiB of the largest cache of a processor.
func largestCache(dir string) int {
	largest := 0
	sizes, _ := filepath.Glob(filepath.Join(dir, "cache/index*/size"))
	for _, path := range sizes {
		text := readString(path)
		size := number(text)
		if strings.HasSuffix(text, "M") {
			size *= 1024
		}
		largest = max(largest, int(size))
	}
	return largest
}

// cpuTime is a line of /proc/stat, in ticks. Guest time is in user already.
type cpuTime struct {
	id                                                     int // -1 for all together
	user, nice, system, idle, iowait, irq, softirq, stolen uint64
}

func (t cpuTime) busy() uint64  { return t.user + t.nice + t.system + t.irq + t.softirq + t.stolen }
func (t cpuTime) total() uint64 { return t.busy() + t.idle + t.iowait }

// kernelStat is what /proc/stat has.
type kernelStat struct {
	all                         cpuTime
	cpus                        []cpuTime
	contextSwitches, interrupts uint64
	bootTime                    int64
	running, blocked, forks     uint64
}

func parseStat(text []byte) kernelStat {
	var s kernelStat
	for line := range bytes.Lines(text) {
		// Only the first words matter; the line "intr" has thousands.
		words := strings.Fields(string(line[:min(len(line), 512)]))
		if len(words) < 2 {
			continue
		}
		value, _ := strconv.ParseUint(words[1], 10, 64)
		switch key := words[0]; {
		case key == "cpu":
			s.all = parseCPUTime(-1, words[1:])
		case strings.HasPrefix(key, "cpu"):
			if id, err := strconv.Atoi(key[3:]); err == nil && id >= 0 {
				s.cpus = append(s.cpus, parseCPUTime(id, words[1:]))
			}
		case key == "ctxt":
			s.contextSwitches = value
		case key == "intr":
			s.interrupts = value
		case key == "btime":
			s.bootTime = number(words[1])
		case key == "processes":
			s.forks = value
		case key == "procs_running":
			s.running = value
		case key == "procs_blocked":
			s.blocked = value
		}
	}
	return s
}

func parseCPUTime(id int, words []string) cpuTime {
	t := cpuTime{id: id}
	for i, p := range []*uint64{&t.user, &t.nice, &t.system, &t.idle, &t.iowait, &t.irq, &t.softirq, &t.stolen} {
		if i < len(words) {
			*p, _ = strconv.ParseUint(words[i], 10, 64)
		}
	}
	return t
}

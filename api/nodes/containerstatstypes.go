package nodes

import (
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/node"
)

// statsList is what all containers use.
type statsList struct {
	Time       time.Time        `json:"time"`
	Containers []containerStats `json:"containers"`
}

// containerStats is what one container uses. One that has no processes has
// nothing from CPU on.
type containerStats struct {
	Name     string       `json:"name"`
	Image    string       `json:"image"`
	App      string       `json:"app,omitempty"`
	State    string       `json:"state"`
	Time     time.Time    `json:"time"`
	Interval float64      `json:"interval"` // seconds that the rates are of; 0: there are none
	CPU      *cpuUse      `json:"cpu,omitempty"`
	Memory   *memoryUse   `json:"memory,omitempty"`
	PIDs     *pidUse      `json:"pids,omitempty"`
	IO       *ioUse       `json:"io,omitempty"`
	Networks []netUse     `json:"networks,omitempty"`
	Pressure *pressureUse `json:"pressure,omitempty"`
}

type cpuUse struct {
	Usage            float64 `json:"usage"` // seconds, as are User, System and ThrottledTime
	User             float64 `json:"user"`
	System           float64 `json:"system"`
	Percent          float64 `json:"percent"` // of one processor
	Limit            float64 `json:"limit"`   // processors; 0: none
	Periods          uint64  `json:"periods"`
	ThrottledPeriods uint64  `json:"throttledPeriods"`
	ThrottledTime    float64 `json:"throttledTime"`
}

type memoryUse struct {
	Usage      uint64 `json:"usage"`
	WorkingSet uint64 `json:"workingSet"`
	RSS        uint64 `json:"rss"`
	Cache      uint64 `json:"cache"`
	Peak       uint64 `json:"peak"`
	Limit      uint64 `json:"limit"` // the machine's memory where there is none
	Swap       uint64 `json:"swap"`
	OOMKills   uint64 `json:"oomKills"`
}

type pidUse struct {
	Processes uint64 `json:"processes"`
	Current   uint64 `json:"current"` // threads
	Limit     uint64 `json:"limit"`
}

type ioUse struct {
	ReadBytes  uint64 `json:"readBytes"`
	WriteBytes uint64 `json:"writeBytes"`
	Reads      uint64 `json:"reads"`
	Writes     uint64 `json:"writes"`
}

type netUse struct {
	Name      string `json:"name"`
	RXBytes   uint64 `json:"rxBytes"`
	RXPackets uint64 `json:"rxPackets"`
	RXErrors  uint64 `json:"rxErrors"`
	RXDropped uint64 `json:"rxDropped"`
	TXBytes   uint64 `json:"txBytes"`
	TXPackets uint64 `json:"txPackets"`
	TXErrors  uint64 `json:"txErrors"`
	TXDropped uint64 `json:"txDropped"`
}

type pressureUse struct {
	CPU    stalls `json:"cpu"`
	Memory stalls `json:"memory"`
	IO     stalls `json:"io"`
}

type stalls struct {
	Some stall `json:"some"`
	Full stall `json:"full"`
}

type stall struct {
	Avg10 float64 `json:"avg10"` // percent
	Total float64 `json:"total"` // seconds
}

// statsOf is what a container of the sample now uses. Rates are those since
// before, if it ran then.
func statsOf(u node.Usage, before, now *node.Sample) containerStats {
	s := containerStats{
		Name: u.Name, Image: u.Image, App: u.App, State: string(u.Status), Time: now.At.UTC(),
		CPU: &cpuUse{
			Usage: u.CPU.Total.Seconds(), User: u.CPU.User.Seconds(), System: u.CPU.System.Seconds(), Limit: float64(u.Limits.MilliCPU) / 1000,
			Periods: u.CPU.Periods, ThrottledPeriods: u.CPU.Throttled, ThrottledTime: u.CPU.ThrottledTime.Seconds(),
		},
		Memory: &memoryUse{
			Usage: u.Memory.Usage, WorkingSet: u.Memory.WorkingSet, RSS: u.Memory.RSS, Cache: u.Memory.Cache, Peak: u.Memory.Peak,
			Limit: u.Memory.Limit, Swap: u.Memory.Swap, OOMKills: u.Memory.OOMKills,
		},
		PIDs:     &pidUse{Processes: u.Processes, Current: u.Tasks, Limit: u.TaskLimit},
		IO:       &ioUse{ReadBytes: u.IO.ReadBytes, WriteBytes: u.IO.WriteBytes, Reads: u.IO.Reads, Writes: u.IO.Writes},
		Networks: each(u.NICs, func(n container.NICStats) netUse { return netUse(n) }),
	}
	if limit := &s.Memory.Limit; *limit == 0 || *limit > now.Memory {
		*limit = now.Memory
	}
	if p := u.Pressure; p.Known {
		s.Pressure = &pressureUse{CPU: stallsOf(p.CPU), Memory: stallsOf(p.Memory), IO: stallsOf(p.IO)}
	}
	was, ran := before.Of(u.Name)
	if took := now.At.Sub(before.At); ran && took > 0 && was.Started.Equal(u.Started) && u.CPU.Total >= was.CPU.Total {
		s.Interval = took.Seconds()
		s.CPU.Percent = float64(u.CPU.Total-was.CPU.Total) / float64(took) * 100
	}
	return s
}

// statsOfIdle is a container that has no processes.
func statsOfIdle(c node.Container, at time.Time) containerStats {
	return containerStats{Name: c.Spec.Name, Image: c.Spec.Image, App: c.Spec.Labels[node.LabelApp], State: string(c.Status), Time: at.UTC()}
}

func stallsOf(p container.Pressure) stalls { return stalls{stallOf(p.Some), stallOf(p.Full)} }

func stallOf(s container.Stall) stall { return stall{Avg10: s.Avg10, Total: s.Total.Seconds()} }

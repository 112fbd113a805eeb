package inventory

import (
	"os"
	"strconv"
)

// State is what processes, or the whole node, use.
type State struct {
	CPU  float64 // percent of one processor: 200 is two busy ones
	RSS  int64   // bytes
	VMS  int64
	Swap int64
}

// State sums up processes, this one if none is given; those that are gone count
// nothing. CPU is each process's processor time over its whole life, as Zero-OS
// has it; a life shorter than a tick counts as one tick.
func (f FS) State(pids []int) (State, error) {
	if len(pids) == 0 {
		self, err := f.self()
		if err != nil {
			return State{}, err
		}
		pids = []int{self}
	}
	now := f.uptime()
	var s State
	for _, p := range f.ProcessesOf(pids) {
		life := max(now-float64(p.StartTime)/ticks, 1.0/ticks)
		if now > 0 {
			s.CPU += (p.User + p.System) / life * 100
		}
		s.RSS += p.RSS
		s.VMS += p.VMS
		s.Swap += p.Swap
	}
	return s, nil
}

// self is this process's pid as f.Proc spells it.
func (f FS) self() (int, error) {
	target, err := os.Readlink(f.proc("self"))
	if err != nil {
		return 0, unavailable("this process", err)
	}
	pid, err := strconv.Atoi(target)
	if err != nil {
		return 0, unavailable("this process", err)
	}
	return pid, nil
}

// NodeState is the whole node: CPU is the busy time of all processors since boot
// (everything but idle and waiting for disks), RSS the used memory as in Memory
// (summing up processes would count shared pages often), VMS what is promised
// to processes, Swap the used swap.
func (f FS) NodeState() (State, error) {
	m, err := f.Memory()
	if err != nil {
		return State{}, err
	}
	s := State{RSS: m.Used, VMS: m.Committed, Swap: max(m.SwapTotal-m.SwapFree, 0)}
	text, err := read(f.proc("stat"))
	if err != nil {
		return State{}, unavailable("processor times", err)
	}
	stat := parseStat(text)
	if total := stat.all.total(); total > 0 {
		s.CPU = float64(stat.all.busy()) / float64(total) * float64(max(len(stat.cpus), 1)) * 100
	}
	return s, nil
}

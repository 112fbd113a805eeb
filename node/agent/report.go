package agent

import (
	"cmp"
	"context"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/version"
)

// sentReport is a list of containers that the controller has.
type sentReport struct {
	sequence uint64
	list     []hostapi.ContainerStatus
	at       time.Time
}

// refreshEvery is how old figures may be that hardly change.
const refreshEvery = 5 * time.Minute

// list is what there is to say of containers, with the figures of the last
// list where they have hardly changed.
func (a *Agent) list(now time.Time) []hostapi.ContainerStatus {
	list := a.statuses()
	if now.Sub(a.sent.at) >= refreshEvery {
		return list
	}
	before := make(map[string]hostapi.ContainerStatus, len(a.sent.list))
	for _, s := range a.sent.list {
		before[s.LaunchID] = s
	}
	for i := range list {
		if old, ok := before[list[i].LaunchID]; ok {
			list[i] = calm(old, list[i])
		}
	}
	return list
}

// news says whether the controller should hear of containers at once.
func (a *Agent) news(now time.Time) bool {
	return !sameLists(a.list(now), a.sent.list) || a.countGPUs() != a.gpus
}

// gpus are those of the machine that work.
type gpus struct{ all, free, others int } // others: that containers have which are not ours

func (a *Agent) countGPUs() (g gpus) {
	for _, owners := range a.cfg.Machine.GPUs() {
		g.all++
		switch {
		case len(owners) == 0:
			g.free++
		case slices.ContainsFunc(owners, func(name string) bool { return a.lookout.all[name].launch() == "" }):
			g.others++
		}
	}
	return g
}

func sameLists(a, b []hostapi.ContainerStatus) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// compose is the next report; full has all containers in it.
func (a *Agent) compose(now time.Time, full bool) hostapi.HostStatus {
	a.sequence++
	f, m := a.meter.figures, &a.meter
	a.gpus = a.countGPUs()
	others := a.lookout.others()
	others.GPUs = a.gpus.others
	s := hostapi.HostStatus{
		CPUUtilized: math.Round(m.busy * 100), NumCPU: f.NumCPU,
		VCPUAvailable:   int64(math.Round(float64(f.NumCPU) * (1 - m.busy) * 1024)),
		MemoryAvailable: whole(f.MemoryAvailable), MemoryUsed: whole(f.MemoryUsed),
		DiskAvailableRoot: whole(f.RootFree), DiskAvailableOptAiware: whole(f.DataFree), DiskTotal: whole(f.DataTotal),
		NumGPU: a.gpus.all, GPUAvailable: a.gpus.free,
		NumContainers: len(a.lookout.all), NumEngineInstances: a.lookout.running(),
		Boot: a.boot, Sequence: a.sequence, Time: now.UTC().Truncate(time.Second), Others: others,
		ContainerStatus: a.list(now),
	}
	if !full && a.sent.sequence != 0 && sameLists(s.ContainerStatus, a.sent.list) {
		s.Same, s.ContainerStatus = a.sent.sequence, []hostapi.ContainerStatus{}
	}
	return s
}

// whole leaves out what is below a MiB.
func whole(bytes int64) int64 { return bytes &^ (1<<20 - 1) }

// answered notes what the controller has now.
func (a *Agent) answered(s hostapi.HostStatus, now time.Time, o hostapi.HostAction) {
	switch {
	case o.Full:
		a.sent = sentReport{}
	case s.Same == 0:
		a.sent = sentReport{sequence: s.Sequence, list: s.ContainerStatus, at: now}
	}
	if !a.speaksOurs {
		a.sent.sequence = 0 // it would take a list that is left out for an empty one
	}
}

// brief is a report of which the controller knows the containers, without what
// is 0 and what can be told from the rest. An idle host sends nothing else.
type brief struct {
	CPUUtilized            float64          `json:"CPUUtilized,omitempty"`
	MemoryAvailable        int64            `json:"memoryAvailable,omitempty"`
	MemoryUsed             int64            `json:"memoryUsed,omitempty"`
	DiskAvailableRoot      int64            `json:"diskAvailableRoot,omitempty"`
	DiskAvailableOptAiware int64            `json:"diskAvailableOptAiware,omitempty"`
	DiskTotal              int64            `json:"diskTotal,omitempty"`
	GPUAvailable           int              `json:"GPUAvailable,omitempty"`
	NumContainers          int              `json:"numContainers,omitempty"`
	Boot                   string           `json:"boot"`
	Sequence               uint64           `json:"sequence"`
	Same                   uint64           `json:"same"`
	Time                   time.Time        `json:"time"`
	Others                 hostapi.Reserved `json:"others,omitzero"`
}

// message is a report as it is sent.
func message(s hostapi.HostStatus) any {
	if s.Same == 0 {
		return s
	}
	return brief{
		CPUUtilized: s.CPUUtilized, MemoryAvailable: s.MemoryAvailable, MemoryUsed: s.MemoryUsed,
		DiskAvailableRoot: s.DiskAvailableRoot, DiskAvailableOptAiware: s.DiskAvailableOptAiware, DiskTotal: s.DiskTotal,
		GPUAvailable: s.GPUAvailable, NumContainers: s.NumContainers,
		Boot: s.Boot, Sequence: s.Sequence, Same: s.Same, Time: s.Time, Others: s.Others,
	}
}

// info are the facts of the host.
func (a *Agent) info(ctx context.Context) (hostapi.HostDetail, error) {
	d, err := a.cfg.Machine.Facts(ctx)
	if err != nil {
		return d, err
	}
	d.HostID = cmp.Or(a.kept.HostID, a.cfg.NodeID)
	d.DockerHostID = a.cfg.NodeID
	d.AgentVersionNumber = version.Version
	d.Name = cmp.Or(a.cfg.Name, d.Name)
	d.Address, d.Labels = a.cfg.Address, a.cfg.Labels
	d.NumEngines = len(a.lookout.ours)
	d.IsActive, d.IsEngine = true, true
	if d.IPs == nil {
		d.IPs = []string{}
	}
	return d, nil
}

// calm keeps figures that have hardly changed, so that they are no news.
func calm(old, now hostapi.ContainerStatus) hostapi.ContainerStatus {
	now.CPUUtilization = steady(old.CPUUtilization, now.CPUUtilization, 1, 0.1)
	now.Throttled = steady(old.Throttled, now.Throttled, 1, 0.1)
	if old.MemoryUsed > 0 { // else it is the first measurement
		now.MemoryUsed = int64(steady(float64(old.MemoryUsed), float64(now.MemoryUsed), 256<<10, 0.03))
	}
	if o, n := old.Health, now.Health; o != nil && n != nil && o.Status == n.Status && o.Failures == n.Failures && o.LastError == n.LastError {
		h := *n
		h.LastCheck = o.LastCheck
		h.ResponseTime = steady(o.ResponseTime, n.ResponseTime, 0.01, 0.5)
		now.Health = &h
	}
	return now
}

// steady is old if now differs by no more than least, or by that share of it.
func steady(old, now, least, share float64) float64 {
	if math.Abs(now-old) <= max(least, share*math.Abs(old)) {
		return old
	}
	return now
}

// meter turns counters into rates.
type meter struct {
	at      time.Time
	figures Figures
	busy    float64          // share of the processors, 0 to 1
	last    map[string]Usage // by container
	rates   map[string]rates
	blind   bool // the machine could not be measured, and that is logged
}

// rates are what a container uses.
type rates struct {
	cpu       float64 // percent of one processor
	throttled float64 // percent of periods
	memory    int64
}

// measure asks the machine. What it does not say stays as it was.
func (a *Agent) measure(ctx context.Context, now time.Time) {
	f, err := a.cfg.Machine.Figures(ctx)
	if err == nil {
		a.meter.machine(f)
		var u map[string]Usage
		if u, err = a.cfg.Machine.Usage(ctx); err == nil {
			a.meter.containers(u, now)
		}
	}
	if ctx.Err() == nil && err != nil && !a.meter.blind {
		a.log.Error("what is in use is not known", "error", err)
	}
	a.meter.blind = err != nil
}

func (m *meter) machine(f Figures) {
	busy, total := f.CPUBusy-m.figures.CPUBusy, f.CPUTotal-m.figures.CPUTotal // at first since boot
	if busy >= 0 && total > 0 {
		m.busy = min(float64(busy)/float64(total), 1)
	}
	m.figures = f
}

func (m *meter) containers(usage map[string]Usage, now time.Time) {
	passed := now.Sub(m.at).Seconds()
	next := make(map[string]rates, len(usage))
	for name, u := range usage {
		r := m.rates[name]
		r.memory = u.Memory
		was, had := m.last[name]
		switch {
		case !had || u.CPU < was.CPU: // it has started anew
			r.cpu, r.throttled = 0, 0
		case passed > 0:
			r.cpu = math.Round((u.CPU-was.CPU).Seconds()/passed*1000) / 10
			r.throttled = 0
			if periods := float64(u.Periods) - float64(was.Periods); periods > 0 && u.Throttled >= was.Throttled {
				r.throttled = min(math.Round(float64(u.Throttled-was.Throttled)/periods*1000)/10, 100)
			}
		}
		next[name] = r
	}
	m.last, m.rates, m.at = usage, next, now
}

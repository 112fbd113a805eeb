package node

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container"
)

// Sample is what the containers that have processes use at one moment, by name.
// Who gets one shares it, and changes nothing in it.
type Sample struct {
	At         time.Time
	Memory     uint64 // of the machine
	Containers []Usage
}

// Usage is what one container uses.
type Usage struct {
	Name, Image string
	App         string // that it is a replica of; empty: of none
	Status      Status
	Started     time.Time
	Limits      container.Limits
	container.Stats
}

// LabelApp is the label of a container that is a replica of an app.
const LabelApp = "buoy.app"

// Of is what a container uses; false: it has no processes, or there is none.
func (s *Sample) Of(name string) (Usage, bool) {
	i, found := slices.BinarySearchFunc(s.Containers, name, func(u Usage, name string) int { return strings.Compare(u.Name, name) })
	if !found {
		return Usage{}, false
	}
	return s.Containers[i], true
}

// sampler keeps the newest sample for all who want one of that time.
type sampler struct {
	mu    sync.Mutex // guards all below; held while a sample is taken
	meter *container.Meter
	total uint64 // memory of the machine
	last  *Sample
	idle  *time.Timer // closes what the meter has open
}

// idleAfter is how long the meter's files stay open without a sample: longer
// than an agent takes between its reports, and Prometheus between scrapes.
const idleAfter = 90 * time.Second

// Sample is what the containers use: now, or up to fresh ago if somebody else
// has asked. Nothing is measured but when somebody asks.
func (n *Node) Sample(fresh time.Duration) (*Sample, error) {
	s := &n.sampler
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && time.Since(s.last.At) < fresh {
		return s.last, nil
	}
	if s.meter == nil {
		meter, err := container.NewMeter()
		if err != nil {
			return nil, err
		}
		memory, err := n.fs.Memory()
		if err != nil {
			return nil, err
		}
		s.meter, s.total, s.idle = meter, uint64(memory.Total), time.AfterFunc(idleAfter, s.rest)
	}
	s.idle.Reset(idleAfter)
	usages, subjects := n.subjects()
	sample := &Sample{At: time.Now(), Memory: s.total, Containers: make([]Usage, 0, len(usages))}
	err := s.meter.Read(subjects, func(i int, stats *container.Stats) {
		usages[i].Stats = *stats
		sample.Containers = append(sample.Containers, usages[i])
	})
	if err != nil {
		return nil, err
	}
	s.last = sample
	return sample, nil
}

func (s *sampler) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.meter != nil {
		s.meter.Close()
	}
	s.last = nil
}

// end is rest for good.
func (s *sampler) end() {
	s.mu.Lock()
	if s.idle != nil {
		s.idle.Stop()
	}
	s.mu.Unlock()
	s.rest()
}

// subjects are the containers that have processes, by name, and where to
// measure them.
func (n *Node) subjects() (usages []Usage, subjects []container.Subject) {
	boxes := n.all()
	slices.SortFunc(boxes, func(a, b *box) int { return strings.Compare(a.name, b.name) })
	usages, subjects = make([]Usage, 0, len(boxes)), make([]container.Subject, 0, len(boxes))
	for _, b := range boxes {
		b.mu.Lock()
		u := Usage{Name: b.name, Image: b.spec.Image, App: b.spec.Labels[LabelApp], Status: b.status, Started: b.rec.Started, Limits: b.spec.Run.Limits}
		s := container.Subject{ID: b.name, Cgroup: n.cfg.Runtime.CgroupOf(b.name), Process: b.process}
		own := !b.spec.HostNetworking
		b.mu.Unlock()
		switch u.Status {
		case Creating, Restarting, Halted, Deleting:
			continue
		case Standby, Running, Stopping:
		}
		if !own {
			s.Process.PID = 0
		}
		usages, subjects = append(usages, u), append(subjects, s)
	}
	return usages, subjects
}

// Room is how many bytes the file system with the node's data has free, for
// programs without privileges, and altogether.
func (n *Node) Room() (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(n.cfg.Data, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for room in %s: %w", n.cfg.Data, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

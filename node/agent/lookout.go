package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Labels of the containers that orders made.
const (
	labelLaunch   = "buoy.launch"
	labelApp      = "buoy.app"
	labelRevision = "buoy.revision"
)

// lookout knows the containers of the node, as its API showed them last.
type lookout struct {
	changed <-chan struct{} // closed when there may be more to see
	whole   time.Time       // when all of ours were last looked at one by one
	stale   bool            // something has changed since then
	all     map[string]seen // by name
	ours    map[string]string
}

// seen is a container.
type seen struct {
	item buoy.ContainerSummary // without what changes with each check of its health
	one  buoy.Container
}

func newLookout() lookout { return lookout{all: map[string]seen{}, ours: map[string]string{}} }

// wholeEvery is how long nobody looks at containers one by one when none is
// said to have changed.
const wholeEvery = 5 * time.Minute

// look sees what has changed. Containers whose line in the list is another one
// are looked at one by one; with whole all of ours are, if any has changed.
func (l *lookout) look(ctx context.Context, c *buoy.Client, n Node, now time.Time, whole bool) error {
	select {
	case <-l.changed:
		l.stale = true
	default:
		if l.changed != nil && !(whole && (l.stale || now.Sub(l.whole) >= wholeEvery)) {
			return nil
		}
	}
	changed := n.Changed()
	list, err := c.Containers(ctx)
	if err != nil {
		return fmt.Errorf("list the containers of this node: %w", err)
	}
	all := make(map[string]seen, len(list))
	for _, item := range list {
		s, known := l.all[item.Name]
		health := item.Health
		item.Health = quiet(health)
		known = known && s.one.Created.Equal(item.Created)
		ours := known && s.launch() != ""
		if !known || ours && (whole || !reflect.DeepEqual(s.item, item)) {
			s.one, err = c.Container(ctx, item.Name)
			switch {
			case errors.Is(err, buoy.ErrNotFound):
				continue // deleted just now
			case err != nil:
				return fmt.Errorf("look at container %s: %w", item.Name, err)
			}
			health = cmp.Or(s.one.Health, health)
		}
		s.item, s.one.Health, s.one.State = item, health, item.State
		all[item.Name] = s
	}
	l.all, l.changed = all, changed
	l.sort()
	if whole {
		l.whole, l.stale = now, false
	}
	return nil
}

// quiet is what of a health matters at once.
func quiet(h *buoy.HealthState) *buoy.HealthState {
	if h == nil {
		return nil
	}
	return &buoy.HealthState{Status: h.Status, Failures: h.Failures}
}

// sort finds out which containers are ours. Of several with one launch id, which
// are of somebody who copies labels, it is the oldest.
func (l *lookout) sort() {
	l.ours = map[string]string{}
	for name, s := range l.all {
		id := s.launch()
		if id == "" {
			continue
		}
		had, ok := l.ours[id]
		if o := l.all[had]; !ok || cmp.Or(s.one.Created.Compare(o.one.Created), cmp.Compare(name, had)) < 0 {
			l.ours[id] = name
		}
	}
}

// launch is the launch id of a container, empty if it is not ours.
func (s seen) launch() string { return s.one.Labels[labelLaunch] }

// made notes a container that was made since the last look.
func (l *lookout) made(id, name string) {
	if _, ok := l.all[name]; ok {
		return
	}
	one := buoy.Container{Name: name, State: "creating", Labels: map[string]string{labelLaunch: id}}
	l.all[name] = seen{one: one}
	l.ours[id] = name
}

// others are what containers that are not ours may use.
func (l *lookout) others() (r hostapi.Reserved) {
	for _, s := range l.all {
		if s.launch() == "" && s.item.State != "halted" {
			r.MilliCPU += s.one.Limits.MilliCPU
			r.Memory += s.one.Limits.Memory
		}
	}
	return r
}

// running counts those of ours that run.
func (l *lookout) running() (n int) {
	for _, name := range l.ours {
		if l.all[name].item.State == "running" {
			n++
		}
	}
	return n
}

// statusOf is a container of ours as it is reported; its ports are reached at
// address, or where the host calls from if that is empty.
func statusOf(c buoy.Container, address string) hostapi.ContainerStatus {
	s := hostapi.ContainerStatus{
		DockerContainerID: c.Name, EngineID: c.Labels[labelApp], LaunchID: c.Labels[labelLaunch],
		State: stateOf(c), Reason: c.Reason, Message: cut(c.Message), Address: bare(c.Address), Digest: c.Digest,
		Started: c.Started, Finished: c.Finished, ExitCode: c.ExitCode, OOM: c.OOM, Restarts: c.Restarts,
	}
	if h := c.Health; h != nil {
		s.Health = &hostapi.Health{
			Status: h.Status, Failures: h.Failures, LastCheck: h.LastCheck, LastError: cut(h.LastError), ResponseTime: h.ResponseTime,
		}
	}
	for _, text := range c.Ports {
		p, ok := parsePort(text)
		if !ok || p.last != p.first {
			continue // nobody orders ranges
		}
		if s.Ports == nil {
			s.Ports = map[string]string{}
		}
		key := fmt.Sprint(p.guest)
		if p.udp {
			key += "/udp"
		}
		s.Ports[key] = p.at(address)
	}
	return s
}

// stateOf is the state of a container in the words of the protocol.
func stateOf(c buoy.Container) string {
	switch c.State {
	case "creating", "standby", "running", "restarting":
		return c.State
	case "halted":
		if c.Reason == "" && c.Finished.IsZero() {
			return "restarting" // the node has not looked after it yet since it started itself
		}
		return c.State
	}
	return "stopping" // "deleting", and what later nodes may say
}

// maxMessage is how much of a message is sent.
const maxMessage = 1 << 10

// cut shortens a message, between two characters.
func cut(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "")
}

// bare is an address without the length of its prefix.
func bare(prefix string) string {
	if p, err := netip.ParsePrefix(prefix); err == nil {
		return p.Addr().String()
	}
	return prefix
}

// statuses are all containers that orders made, or did not, by launch id.
func (a *Agent) statuses() []hostapi.ContainerStatus {
	list := make([]hostapi.ContainerStatus, 0, len(a.lookout.ours)+len(a.absent))
	for id, name := range a.lookout.ours {
		s := statusOf(a.lookout.all[name].one, a.cfg.Address)
		if j := a.jobs[id]; j != nil && j.kind == deleting && s.State == "halted" {
			s.State = "stopping"
		}
		r := a.meter.rates[name]
		s.CPUUtilization, s.MemoryUsed, s.Throttled = r.cpu, r.memory, r.throttled
		list = append(list, s)
	}
	for id, j := range a.jobs {
		if _, there := a.lookout.ours[id]; !there && j.kind == launching {
			list = append(list, hostapi.ContainerStatus{DockerContainerID: j.name, EngineID: j.app, LaunchID: id, State: "creating"})
		}
	}
	for id, s := range a.absent {
		if _, there := a.lookout.ours[id]; !there {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b hostapi.ContainerStatus) int { return cmp.Compare(a.LaunchID, b.LaunchID) })
	return list
}

// drop forgets a container that was deleted since the last look.
func (l *lookout) drop(id, name string) {
	if l.all[name].launch() == id {
		delete(l.all, name)
		l.sort()
	}
}

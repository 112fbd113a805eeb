package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/node/events"
)

// tell adds to the log of events what became of a container. The caller does
// not hold b.mu.
func (n *Node) tell(ctx context.Context, b *box, t events.Type, d events.Data) {
	n.tellPart(ctx, b, t, "", d)
}

// tellPart is tell of something of the container, like "nics/eth0".
func (n *Node) tellPart(ctx context.Context, b *box, t events.Type, part string, d events.Data) {
	d.Container, d.Image = b.name, canonical(get(b, func() string { return b.spec.Image }))
	subject := "containers/" + b.name
	if part != "" {
		subject += "/" + part
	}
	n.emit(ctx, t, subject, d)
}

func (n *Node) emit(ctx context.Context, t events.Type, subject string, d events.Data) {
	n.cfg.Events.Emit(ctx, events.Event{Type: t, Subject: subject, Data: d})
}

// canonical is a reference as images has it.
func canonical(ref string) string {
	r, err := images.ParseRef(ref)
	if err != nil {
		return ref
	}
	return r.String()
}

// tellStart tells that a run has begun.
func (n *Node) tellStart(ctx context.Context, b *box, first bool) {
	t := events.ContainerStarted
	var d events.Data
	b.set(func() {
		if b.status == Standby {
			t = events.ContainerStandby
		}
		d.Attributes = map[string]string{"restarts": strconv.Itoa(b.rec.Restarts)}
		if b.digest != "" {
			d.Attributes["digest"] = b.digest
		}
	})
	if first {
		n.tell(ctx, b, events.ContainerCreated, events.Data{})
	}
	n.tellNet(ctx, b)
	n.tell(ctx, b, t, d)
}

// tellExit tells how a run has ended by itself; after is what follows.
func (n *Node) tellExit(ctx context.Context, b *box, exit shimapi.Exit, after string) {
	if exit.OOM {
		n.tell(ctx, b, events.ContainerOOM, events.Data{})
	}
	n.tell(ctx, b, events.ContainerExited, events.Data{Reason: reasonOf(exit), Message: after, ExitCode: &exit.Code})
}

// tellNet tells which NICs and ports a container has got and lost since it last did.
func (n *Node) tellNet(ctx context.Context, b *box) {
	had, has := n.wired(b)
	for _, part := range slices.Sorted(maps.Keys(had)) {
		if _, still := has[part]; !still {
			n.tellPart(ctx, b, had[part].gone, part, events.Data{Attributes: had[part].about})
		}
	}
	for _, part := range slices.Sorted(maps.Keys(has)) {
		if was, there := had[part]; !there || !maps.Equal(was.about, has[part].about) {
			n.tellPart(ctx, b, has[part].come, part, events.Data{Attributes: has[part].about})
		}
	}
}

// wire is a NIC or a port of a run.
type wire struct {
	come, gone events.Type
	about      map[string]string
}

// wired are those that have been told and those that there are, which count as
// told from now on; by what an event calls them.
func (n *Node) wired(b *box) (had, has map[string]wire) {
	b.mu.Lock()
	defer b.mu.Unlock()
	had, has = b.told, map[string]wire{}
	for _, p := range b.plugs {
		nic := p.Link.NIC
		about := map[string]string{"nic": p.Link.Name, "type": string(nic.Type)}
		if nic.ID != "" {
			about["id"] = nic.ID
		}
		if addrs := p.addrs(); len(addrs) > 0 {
			about["addresses"] = join(addrs)
		}
		has["nics/"+p.Link.Name] = wire{events.NICAttached, events.NICDetached, about}
	}
	if len(b.forward) > 0 {
		for _, p := range b.spec.Ports {
			has["ports/"+p.String()] = wire{events.PortPublished, events.PortWithdrawn, map[string]string{"port": p.String()}}
		}
	}
	b.told = has
	return had, has
}

func join(all []netip.Prefix) string {
	var texts []string
	for _, p := range all {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ",")
}

// tellJob tells that a command in a container has begun, or with exit that it
// has ended.
func (n *Node) tellJob(ctx context.Context, name, job string, exit *shimapi.Exit) {
	b, err := n.find(name)
	if err != nil {
		return // it went with its container
	}
	d := events.Data{Attributes: map[string]string{"job": job}}
	if exit == nil {
		n.tellPart(ctx, b, events.JobStarted, "jobs/"+job, d)
		return
	}
	d.ExitCode = &exit.Code
	n.tellPart(ctx, b, events.JobEnded, "jobs/"+job, d)
}

// tellMissed tells of jobs that have ended while nobody listened, since then;
// what was before the log began is not told.
func (n *Node) tellMissed(ctx context.Context, sync []shimapi.Container, since time.Time) {
	if since.IsZero() {
		return
	}
	for _, c := range sync {
		for _, j := range c.Jobs {
			if j.Exit != nil && !unlisted(j.Job) && j.Exit.At.After(since) {
				n.tellJob(ctx, c.ID, j.Job, j.Exit)
			}
		}
	}
}

// lostNIC notes that somebody took or changed a NIC; false: what was lost is
// not a container's. netcfg says "container web" and "NIC 1 of container web".
func (n *Node) lostNIC(what string) bool {
	index := 0
	name, ok := strings.CutPrefix(what, "container ")
	if !ok {
		number, rest, _ := strings.Cut(strings.TrimPrefix(what, "NIC "), " of container ")
		var err error
		if index, err = strconv.Atoi(number); err != nil {
			return false
		}
		name = rest
	}
	if b, err := n.find(name); err == nil {
		b.set(func() { b.lost = append(b.lost, index) })
	}
	return true
}

// tellRestored tells that NICs that were lost are there again.
func (n *Node) tellRestored(ctx context.Context, b *box) {
	var plugs []plug
	var lost []int
	b.set(func() { plugs, lost, b.lost = b.plugs, b.lost, nil })
	for _, index := range lost {
		if i := slices.IndexFunc(plugs, func(p plug) bool { return p.Link.Index == index }); i >= 0 {
			nic := plugs[i].Link.Name
			n.tellPart(ctx, b, events.NICRestored, "nics/"+nic, events.Data{Attributes: map[string]string{"nic": nic}})
		}
	}
}

// imageChanged tells what became of an image.
func (n *Node) imageChanged(ctx context.Context, c images.Change) {
	t := map[images.ChangeKind]events.Type{
		images.ChangePulled: events.ImagePulled, images.ChangeImported: events.ImageImported, images.ChangeFailed: events.ImageFailed,
		images.ChangePinned: events.ImagePinned, images.ChangeUnpinned: events.ImageUnpinned,
		images.ChangeRemoved: events.ImageRemoved, images.ChangeCollected: events.ImageCollected,
	}[c.Kind]
	d := events.Data{Image: c.Ref}
	if c.Digest != "" {
		d.Attributes = map[string]string{"digest": c.Digest}
	}
	if c.Err != nil {
		d.Message = c.Err.Error()
	}
	n.emit(ctx, t, "images/"+cmp.Or(c.Ref, "-"), d)
}

// tellNode tells that the node has looked after its containers.
func (n *Node) tellNode(ctx context.Context) {
	n.emit(ctx, events.NodeStarted, "", events.Data{Attributes: map[string]string{
		"version": n.info.Version, "boot": strconv.FormatBool(n.rebooted),
	}})
}

// watchDisk tells when the disk gets too full, and when it is not any more. What
// could be removed to make room has been.
func (n *Node) watchDisk(ctx context.Context, full bool) (now bool) {
	short, err := n.cfg.Images.Short()
	switch {
	case err != nil:
		return full // told by whoever wants to write there
	case short > 0 && !full:
		n.emit(ctx, events.DiskPressure, "", events.Data{Message: fmt.Sprintf("%d bytes have to go from the disk of %s, and no image can be removed for it", short, n.cfg.Data)})
	case short == 0 && full:
		n.emit(ctx, events.DiskRelieved, "", events.Data{})
	}
	return short > 0
}

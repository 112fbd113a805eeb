package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// GPUs says what GPUs the machine has.
type GPUs interface {
	// Ready is closed when Machine knows what there is.
	Ready() <-chan struct{}
	Machine() gpu.Machine
	// Changed is closed when Machine says something else. Ask for it first and
	// then look.
	Changed() <-chan struct{}
}

// GPUs are those of the machine, as far as they are known, and what containers
// hold of them.
func (n *Node) GPUs() (gpu.Machine, []gpu.Held) {
	var m gpu.Machine
	if n.cfg.GPUs != nil {
		m = n.cfg.GPUs.Machine()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return m, n.heldBesides(nil)
}

// machine is what GPUs there are, when that is known.
func (n *Node) machine(ctx context.Context) (gpu.Machine, error) {
	if n.cfg.GPUs == nil {
		return gpu.Machine{}, nil
	}
	select {
	case <-n.cfg.GPUs.Ready():
		return n.cfg.GPUs.Machine(), nil
	case <-ctx.Done():
		return gpu.Machine{}, errs.E(errs.Unavailable, "what GPUs this machine has is not known yet: %w", ctx.Err())
	}
}

// heldBesides are the GPUs that containers hold, but for one's. The caller holds
// n.mu.
func (n *Node) heldBesides(one *box) (all []gpu.Held) {
	for name, b := range n.boxes {
		if b == one {
			continue
		}
		b.set(func() {
			for _, h := range b.holds() {
				all = append(all, gpu.Held{Owner: name, Hold: h})
			}
		})
	}
	slices.SortFunc(all, func(a, b gpu.Held) int { return strings.Compare(a.Owner, b.Owner) })
	return all
}

// holds are the GPUs that are the container's and nobody else's. What it was
// given, which is in its record, is its own as long as it is to run or something
// of a run may be left; so there is no moment at which it would have to be given
// back. The caller holds b.mu.
func (b *box) holds() []gpu.Hold {
	if b.rec.Wanted == state.Run || b.rec.Finished.IsZero() || b.launch != "" {
		return b.gpus
	}
	return nil
}

// setGPUs is what the record and the box say of GPUs. The caller holds b.mu.
func (b *box) setGPUs(holds []gpu.Hold) {
	b.gpus, b.rec.GPUs = holds, nil
	if len(holds) == 0 {
		return
	}
	raw, err := json.Marshal(holds)
	if err != nil {
		panic("BUG: GPUs that were given cannot be written: " + err.Error())
	}
	b.rec.GPUs = raw
}

// want changes the record of a container so that it is to run, and has it hold
// the GPUs that its spec asks for, in one step between which no other container
// gets them. What it holds already it keeps, for better or worse; what it held
// when it last ran it gets again if it is free. When that fails, the record is
// changed nevertheless.
func (n *Node) want(ctx context.Context, b *box, change func()) (state.Record, error) {
	m, err := n.machineFor(ctx, b.spec)
	n.mu.Lock()
	defer n.mu.Unlock()
	had, holds := get(b, func() []gpu.Hold { return b.gpus }), get(b, b.holds)
	switch {
	case len(holds) > 0 && err == nil:
		err = present(m, holds)
	case len(holds) == 0 && err == nil:
		holds, err = n.allot(m, b.spec, b, had)
	}
	return b.set(func() { change(); b.setGPUs(holds) }), err
}

// machineFor is the machine, if a container wants a GPU of it.
func (n *Node) machineFor(ctx context.Context, s Spec) (gpu.Machine, error) {
	if s.GPUs == nil && len(s.CDI) == 0 {
		return gpu.Machine{}, nil
	}
	return n.machine(ctx)
}

// allot decides what GPUs a container gets. The caller holds n.mu.
func (n *Node) allot(m gpu.Machine, s Spec, b *box, had []gpu.Hold) ([]gpu.Hold, error) {
	w, err := s.wish(m)
	if w == nil || err != nil {
		return nil, err
	}
	return gpu.Allot(m, n.heldBesides(b), *w, had)
}

// present says which of the GPUs that are held cannot be used.
func present(m gpu.Machine, holds []gpu.Hold) error {
	for _, h := range holds {
		if _, err := m.Find(h); err != nil {
			return fmt.Errorf("%w; stop and start the container to have it given another one", err)
		}
	}
	return nil
}

// wish is what the container asks for of GPUs, whether by a wish or as devices of
// CDI; nil: none. Those that the machine does not know of cannot be given out,
// and stay devices like others.
func (s Spec) wish(m gpu.Machine) (*gpu.Wish, error) {
	names := s.gpuNames(m)
	switch {
	case len(names) == 0:
		return s.GPUs, nil
	case s.GPUs != nil:
		return nil, errs.E(errs.Invalid, "GPUs are asked for twice, and by the device %s: keep one of them", names[0])
	}
	w := gpu.Wish{}
	for _, name := range names {
		if _, short, _ := strings.Cut(name, "="); short != "all" {
			w.Devices = append(w.Devices, short)
			continue
		}
		w.Count = gpu.All
	}
	return &w, w.Validate()
}

// gpuNames are the devices of CDI that are GPUs of the machine.
func (s Spec) gpuNames(m gpu.Machine) (names []string) {
	for _, name := range s.CDI {
		vendor, isGPU := gpuKind(name)
		if isGPU && slices.ContainsFunc(m.Devices, func(d gpu.Device) bool { return d.Vendor == vendor }) {
			names = append(names, name)
		}
	}
	return names
}

// gpuKind is whose GPU a device of CDI is.
func gpuKind(name string) (vendor string, ok bool) {
	kind, _, _ := strings.Cut(name, "=")
	vendor, ok = strings.CutSuffix(kind, ".com/gpu")
	return vendor, ok && slices.Contains([]string{gpu.NVIDIA, gpu.AMD, gpu.Intel}, vendor)
}

// watchGPUs looks after containers whose GPUs are lost.
func (n *Node) watchGPUs(ctx context.Context) {
	if n.cfg.GPUs == nil {
		return
	}
	select {
	case <-n.ready: // those that run have been adopted
	case <-ctx.Done():
		return
	}
	for {
		changed := n.cfg.GPUs.Changed()
		if m, err := n.machine(ctx); err == nil {
			n.findLost(m)
			n.announce()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// findLost ends the runs of containers that have lost a GPU.
func (n *Node) findLost(m gpu.Machine) {
	for _, b := range n.all() {
		var holds []gpu.Hold
		var launch string
		b.set(func() {
			if b.status == Running || b.status == Standby {
				holds, launch = b.holds(), b.launch
			}
		})
		for _, h := range holds {
			_, err := m.Find(h)
			if errs.KindOf(err) != errs.NotFound {
				continue
			}
			n.background(func(ctx context.Context) { n.lostGPU(events.ByItself(ctx, gpuPart), b, launch, err) })
			break
		}
	}
}

// gpuPart is what of the node events name.
const gpuPart = "GPU watch"

// lostGPU ends a run that has lost a GPU, and does what the restart policy says
// of one that failed. The container is given other GPUs at its next start, if it
// does not ask for just these.
func (n *Node) lostGPU(ctx context.Context, b *box, launch string, why error) {
	if !n.hold(ctx, b) {
		return
	}
	defer b.unlock()
	if !get(b, func() bool { return b.launch == launch && (b.status == Running || b.status == Standby) }) {
		return
	}
	n.cfg.Log.Error("container has lost a GPU", "container", b.name, "error", why)
	// Before it is stopped, which a program that waits for the GPU may not let happen.
	n.record(ctx, b, func() { b.rec.Reason, b.rec.Message = reasonGPULost, why.Error() })
	n.announce()
	if err := n.halt(ctx, b, reasonGPULost, why.Error()); err != nil {
		n.cfg.Log.Error("container not stopped", "container", b.name, "error", err)
		return
	}
	now := time.Now()
	n.record(ctx, b, func() {
		if b.rec.Wanted != state.Run {
			return
		}
		d := b.spec.Restart.Next(history(b.rec), shimapi.Exit{Code: 1, At: now}, now)
		b.rec.Message = why.Error() + "; " + d.Reason
		if !d.Restart {
			b.rec.Wanted, b.rec.Person = state.Halt, false
			return
		}
		b.setGPUs(nil)
		b.rec.Restarts, b.rec.Quick = d.History.Retries, d.History.Quick
		n.startLater(b, d.After)
	})
	n.announce()
}

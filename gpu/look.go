package gpu

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"
)

// lookIn has the next look not be later than that.
func (i *Inventory) lookIn(wait time.Duration) {
	if at := time.Now().Add(wait); i.soon.IsZero() || at.Before(i.soon) {
		i.soon = at
	}
}

// look looks at the machine.
func (i *Inventory) look(ctx context.Context) {
	before := i.kernel
	i.soon = time.Time{}
	defer func() { i.looked = time.Now() }()
	i.lookAtKernel(ctx)
	if i.helper != nil && (i.stale(before) || !i.kernel.Loaded) {
		i.end()
	}
	switch {
	case !i.kernel.Loaded:
		i.nv, i.trouble = nil, ""
	case i.cfg.Program == "":
		i.nv, i.trouble = nil, "buoy-gpu, which asks the NVIDIA driver, is not installed beside buoyd"
	default:
		i.lookAtDriver(ctx)
	}
	if ctx.Err() == nil {
		i.publish(ctx)
	}
}

// stale says whether the library has to be loaded anew to see what there is: it
// looks for GPUs at its start alone.
func (i *Inventory) stale(before kernelView) bool {
	type seen struct{ pci, driver string }
	list := func(k kernelView) (all []seen) {
		for _, d := range k.Devices {
			if d.Vendor == NVIDIA {
				all = append(all, seen{d.PCI, d.Kernel})
			}
		}
		return all
	}
	if !slices.Equal(list(before), list(i.kernel)) || before.Driver != i.kernel.Driver {
		return true
	}
	missing := slices.ContainsFunc(i.Machine().Devices, func(d Device) bool { return d.Vendor == NVIDIA && d.Lost })
	return missing && time.Since(i.since) > i.pace.lost
}

// lookAtKernel reads files of the kernel. Those of a GPU that hangs may block.
func (i *Inventory) lookAtKernel(ctx context.Context) {
	if i.looking == nil {
		i.looking = make(chan kernelView, 1)
		go func(done chan<- kernelView) { // lasts as long as the kernel takes
			var k kernelView
			root := os.DirFS(i.cfg.Root)
			k.Driver, k.Loaded = driver(root)
			k.Devices = scan(root)
			k.Links = pciLinks(root, k.Devices)
			done <- k
		}(i.looking)
	}
	late := time.NewTimer(i.pace.kernel)
	defer late.Stop()
	select {
	case i.kernel = <-i.looking:
		i.looking = nil
	case <-late.C:
		i.cfg.Log.WarnContext(ctx, "the kernel does not answer about GPUs; what was known is kept")
	case <-ctx.Done():
	}
}

// lookAtDriver asks the driver's library, if it can be asked.
func (i *Inventory) lookAtDriver(ctx context.Context) {
	patience := i.pace.machine
	if i.helper == nil {
		if i.stuck != nil || time.Now().Before(i.retry) {
			return
		}
		i.since = time.Now()
		h, err := startHelper(i.cfg.Program, i.cfg.Root)
		if err != nil {
			i.fail(ctx, err)
			return
		}
		i.helper, patience = h, i.pace.first
		clear(i.fallen)
	}
	var heard []Message
	m, err := i.helper.ask(ctx, AskMachine, patience, func(m Message) { heard = append(heard, m) })
	for _, m := range heard {
		i.hear(ctx, m)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		i.fail(ctx, err)
	case m.Machine == nil:
		i.fail(ctx, errors.New("buoy-gpu does not say what it was asked"))
	default:
		if i.trouble != "" {
			i.cfg.Log.InfoContext(ctx, "the NVIDIA driver answers")
		}
		i.nv, i.trouble = m.Machine, ""
	}
}

// fail gives a helper up, which is started again after a while.
func (i *Inventory) fail(ctx context.Context, err error) {
	i.end()
	i.nv = nil
	if i.trouble != err.Error() {
		i.trouble = err.Error()
		i.cfg.Log.WarnContext(ctx, "the NVIDIA driver cannot be asked", "error", err)
	}
	if time.Since(i.since) > i.pace.maxPause {
		i.pause = 0 // it was well for a while
	}
	i.pause = min(max(2*i.pause, i.pace.pause), i.pace.maxPause)
	i.retry = time.Now().Add(i.pause)
}

// end ends the helper, if one runs.
func (i *Inventory) end() {
	if i.helper == nil {
		return
	}
	if !i.helper.kill() {
		i.stuck = i.helper.ended
		i.cfg.Log.Error("buoy-gpu hangs in the NVIDIA driver and cannot be killed; it is left alone", "pid", i.helper.cmd.Process.Pid)
	}
	i.helper = nil
}

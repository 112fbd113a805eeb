package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// settle is how long programs get to give memory back and to write what they
// still have to.
const settle = 6 * time.Second

// idleEmpty watches buoyd before it has done anything, as a node and as a
// controller, too.
func idleEmpty(ctx context.Context, b *bench) (err error) {
	if err := b.weighEmpty(ctx); err != nil {
		return err
	}
	if err := b.watchIdle(ctx, b.inst, "no container"); err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "controller")
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	inst, err := startInstance(ctx, dir, "--controller", "self")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inst.end(context.WithoutCancel(ctx))) }()
	if err := wait(ctx, settle); err != nil {
		return err
	}
	return b.watchIdle(ctx, inst, "controller, no container")
}

// weighEmpty weighs shim and reaper before they have done much.
func (b *bench) weighEmpty(ctx context.Context) error {
	if err := wait(ctx, settle); err != nil {
		return err
	}
	_, shim, reaper, err := b.inst.pids(ctx)
	if err != nil {
		return err
	}
	b.base = pss(shim) + pss(reaper)
	b.report.add(figure{Group: "memory", Name: "shim and reaper without containers", Value: float64(b.base), Unit: "KiB PSS"})
	return nil
}

// watchIdle measures what a buoyd costs to which nobody talks.
func (b *bench) watchIdle(ctx context.Context, inst *instance, when string) error {
	buoyd, shim, reaper, err := inst.pids(ctx)
	if err != nil {
		return err
	}
	pids := []int{buoyd, shim, reaper}
	cpu, bytes := make([]time.Duration, 3), 0
	for i, pid := range pids {
		cpu[i] = cpuTime(pid)
		bytes += written(pid)
	}
	size := disk(inst.data())
	begin := time.Now()
	if err := wait(ctx, b.idle); err != nil {
		return err
	}
	took := time.Since(begin)
	grown := disk(inst.data()) - size
	for i, pid := range pids {
		cpu[i] = cpuTime(pid) - cpu[i]
		bytes -= written(pid)
	}
	const group = "idle"
	mb := float64(rss(buoyd)) * 1024 / 1e6
	b.report.add(figure{Group: group, Name: "buoyd RSS, " + when, Value: mb, Unit: "MB"}.below(mb, 25, "≤ 25 MB"))
	b.report.add(figure{Group: group, Name: "buoyd PSS, " + when, Value: float64(pss(buoyd)) * 1024 / 1e6, Unit: "MB"})
	share := 100 * cpu[0].Seconds() / took.Seconds()
	b.report.add(figure{Group: group, Name: "buoyd CPU, " + when, Value: share, Unit: "% of a core"}.below(share, 0.2, "< 0.2 %"))
	b.report.add(figure{
		Group: group, Name: "shim and reaper CPU, " + when, Unit: "% of a core",
		Value: 100 * (cpu[1] + cpu[2]).Seconds() / took.Seconds(),
	})
	b.report.add(figure{
		Group: group, Name: "written by all three, " + when, Value: float64(-bytes), Unit: "bytes",
		Note: fmt.Sprintf("in %.0f s; data directory grew by %d", took.Seconds(), grown),
	}.below(float64(-bytes)+max(float64(grown), 0), 0, "0 bytes"))
	return nil
}

// memory fills the machine and weighs what is ours.
func memory(ctx context.Context, b *bench) error {
	if b.base == 0 { // idle was left out
		if err := b.weighEmpty(ctx); err != nil {
			return err
		}
	}
	for _, kind := range []struct {
		name    string
		request func(id string) buoy.CreateRequest
	}{
		{"with buoy-init as PID 1", func(id string) buoy.CreateRequest {
			r := b.sleeper(id)
			r.Init = true
			return r
		}},
		{"default NIC", func(id string) buoy.CreateRequest { return b.sleeper(id, defaultNIC) }},
	} {
		_, err := b.fill(ctx, 4, kind.request)
		if err == nil {
			err = b.weigh(ctx, kind.name)
		}
		if err == nil && kind.name == "default NIC" {
			err = b.watchIdle(ctx, b.inst, fmt.Sprintf("%d containers", b.count))
		}
		if err := errors.Join(err, b.empty(ctx)); err != nil {
			return err
		}
	}
	if err := wait(ctx, settle); err != nil {
		return err
	}
	_, shim, reaper, err := b.inst.pids(ctx)
	if err != nil {
		return err
	}
	b.report.add(figure{
		Group: "memory", Name: "shim and reaper after all are deleted", Value: float64(pss(shim) + pss(reaper)), Unit: "KiB PSS",
	})
	return b.weighPeers(ctx)
}

// weigh adds what our programs take for each of count containers.
func (b *bench) weigh(ctx context.Context, name string) error {
	if err := wait(ctx, settle); err != nil {
		return err
	}
	_, shim, reaper, err := b.inst.pids(ctx)
	if err != nil {
		return err
	}
	inits := 0
	for _, pid := range append(named("buoy-init"), named("3")...) { // exec of /proc/self/fd/3 leaves that name
		if above := number(read(fmt.Sprintf("/proc/%d/status", pid)), "PPid:"); above == shim || above == reaper {
			inits += pss(pid)
		}
	}
	s, r := pss(shim), pss(reaper)
	each := float64(s+r+inits-b.base) / float64(b.count)
	f := figure{
		Group: "memory", Name: "per container, " + name, Value: each, Unit: "KiB PSS",
		Note: fmt.Sprintf("shim %d, reaper %d, inits %d, less %d without containers", s, r, inits, b.base),
	}
	b.report.add(f.below(each, 80, "≤ 80 KiB"))
	return nil
}

// weighPeers does the same for those that leave a process with each container.
func (b *bench) weighPeers(ctx context.Context) error {
	const count = 10
	for _, s := range b.peers {
		for _, monitor := range []string{"conmon", "containerd-shim"} {
			before := sum(named(monitor))
			var err error
			made := 0
			for ; made < count && err == nil; made++ {
				_, err = s.start(ctx, fmt.Sprintf("weigh-%d", made))
			}
			after := sum(named(monitor))
			for n := range made {
				err = errors.Join(err, s.remove(ctx, fmt.Sprintf("weigh-%d", n)))
			}
			if err != nil {
				return err
			}
			if after > before {
				b.report.add(figure{
					Group: "memory", Name: "per container, " + s.name + "'s " + monitor, Unit: "KiB PSS",
					Value: float64(after-before) / count,
				})
			}
			if s.every == 1 {
				break // runc and crun leave nothing; one look is enough
			}
		}
	}
	return nil
}

func sum(pids []int) (kib int) {
	for _, pid := range pids {
		kib += pss(pid)
	}
	return kib
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

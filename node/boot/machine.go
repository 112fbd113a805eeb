package boot

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// MachineConfig is what the daemon tells of itself.
type MachineConfig struct {
	Dir    string // required: of what is kept of this machine, below State
	Uplink string // name or MAC of the NIC that somebody wants managed; "": none
	Log    *slog.Logger
}

// Machine is what a machine needs besides its daemon, in the same process. What
// another one did before, which has crashed, is found and kept.
type Machine struct {
	cfg     MachineConfig
	params  Params
	devices *devices
	clock   *clock
	nic     nic
	addr    atomic.Pointer[netip.Prefix]
	group   *errgroup.Group
	stop    context.CancelFunc
}

// Start finds drivers, the disk and the management NIC, in this order, and waits
// for them as Params have it. The network it does not wait for. The context that
// it gives ends when Machine fails, or was stopped.
func Start(ctx context.Context, cfg MachineConfig) (m *Machine, _ context.Context, err error) {
	m = &Machine{cfg: cfg}
	ctx, m.stop = context.WithCancel(ctx)
	m.group, ctx = errgroup.WithContext(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Stop())
		}
	}()
	return m, ctx, m.start(ctx)
}

// Stop ends what Start began, and says what has failed of it.
func (m *Machine) Stop() error {
	m.stop()
	return m.group.Wait()
}

func (m *Machine) start(ctx context.Context) (err error) {
	cfg := m.cfg
	if m.params, _, err = params(); err != nil { // process 1 has complained
		return err
	}
	m.clock = newClock(m.params.NTP, filepath.Join(cfg.Dir, "clock"), cfg.Log)
	if m.devices, err = openDevices(); err != nil {
		return err
	}
	warn := func(what string, args ...any) { cfg.Log.WarnContext(ctx, what, args...) } //nolint:sloglint // handed on
	m.group.Go(func() error { return m.devices.run(ctx, warn) })
	if err := m.devices.loadAll(warn); err != nil {
		return err
	}
	m.group.Go(func() error { return m.buttons(ctx) })
	damage, err := findHome(ctx, m.params.Data, m.devices.quiet, cfg.Log)
	if err == nil {
		err = os.MkdirAll(cfg.Dir, 0o700)
	}
	if err == nil && damage.Text != "" {
		err = m.keepDamage(damage)
	}
	if err != nil {
		return err
	}
	m.clock.raise(ctx)
	if m.nic, err = m.findUplink(ctx); err != nil {
		cfg.Log.ErrorContext(ctx, "no network; it is looked for", "error", err)
	}
	if name := m.hostname(); name != "" {
		if err := unix.Sethostname([]byte(name)); err != nil {
			cfg.Log.WarnContext(ctx, "hostname", "error", err)
		}
	}
	m.group.Go(func() error { return m.network(ctx, m.nic) })
	m.group.Go(func() error { return m.clock.run(ctx) })
	return nil
}

// NodeID is what the node is called unless somebody wants it otherwise: after its
// NIC, or, where that is not there any more, as before; "" if it never had one.
func (m *Machine) NodeID() string {
	if m.nic.name == "" {
		return nic{mac: m.uplinkBefore()}.id()
	}
	return m.nic.id()
}

// Uplink is the name of the management NIC; "" if there is none, yet.
func (m *Machine) Uplink() string { return m.nic.name }

// hostname is the machine's: what the kernel was told (hostname=), or else the
// node's id.
func (m *Machine) hostname() string {
	if name := readLine("/proc/sys/kernel/hostname"); name != "" && name != "(none)" && name != "localhost" {
		return name
	}
	return m.NodeID()
}

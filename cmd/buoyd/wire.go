package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/access"
	"github.com/buoy-edge/buoy/api/nodes"
	"github.com/buoy-edge/buoy/api/system"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/programs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/version"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/cni"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/doctor"
	"github.com/buoy-edge/buoy/node/lazy"
	"github.com/buoy-edge/buoy/node/state"
	"github.com/buoy-edge/buoy/node/upgrade"
)

// serve runs the daemon until ctx ends; containers run on.
func serve(ctx context.Context, cfg config, log *slog.Logger) (err error) {
	if os.Geteuid() != 0 {
		return errs.E(errs.Invalid, "containers need root: run buoyd as root")
	}
	if err := cfg.fleet.check(); err != nil {
		return err
	}
	if cfg.dev {
		log.Warn("--dev: everybody on this machine may use the API on loopback", "listen", cfg.listen)
	}
	if err := sabotage(cfg); err != nil {
		return err
	}
	systemd, err := newManager() // before anything is started
	if err != nil {
		return err
	}
	unlock, err := lock(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	parts, err := assemble(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parts.close()) }()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	upgrades, err := parts.newUpgrades(cfg, cfg.started.launched, func() { end(errUpgrade) }, log)
	if err != nil {
		return err
	}
	err = parts.run(ctx, cfg, systemd, upgrades, log)
	if errors.Is(context.Cause(ctx), errUpgrade) {
		return errors.Join(errUpgrade, err)
	}
	return err
}

// parts is everything that a daemon is made of.
type parts struct {
	keys    *seal.Keys
	db      *state.DB
	net     *netcfg.Net
	runtime *container.Runtime
	images  *images.Store
	flists  *lazy.Flists
	gpus    *gpu.Inventory
	told    told
	doors   doors
	node    *node.Node

	controller *controller // nil: this daemon is none
}

func (p *parts) close() error {
	return errors.Join(p.controller.close(), p.net.Close(), p.db.Close(), p.doors.audit.Close())
}

// assemble makes the parts. Nothing has been started when it returns.
func assemble(ctx context.Context, cfg config, log *slog.Logger) (*parts, error) {
	var p parts
	var err error
	p.keys = cfg.secretKeys(log)
	if p.runtime, err = runtime(cfg, log); err != nil {
		return nil, err
	}
	p.net, err = netcfg.New(netcfg.Config{
		Instance: cfg.instance(), Bridge: cfg.bridge, Prefix: cfg.prefix, Prefix6: cfg.prefix6, Uplink: cfg.uplink, RaiseUplinks: cfg.reboot != nil,
		Publish: cfg.publish, StateDir: cfg.run, Log: log,
	})
	if err != nil {
		return nil, err
	}
	if p.flists, err = flists(cfg, p.runtime, log); err != nil {
		return nil, err
	}
	if p.images, err = imageStore(cfg, p.flists, p.keys, log); err != nil {
		return nil, err
	}
	if p.db, err = state.Open(ctx, filepath.Join(cfg.data, "node.db")); err != nil {
		return nil, err
	}
	if p.told, err = newTold(cfg, p.db, p.keys, log); err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	p.gpus = gpu.NewInventory(gpuConfig(cfg, log))
	p.node, err = node.New(node.Config{
		ID: p.told.id, Data: cfg.data, Run: cfg.run, DB: p.db, Keys: p.keys, Images: p.images, Net: p.net, Runtime: p.runtime,
		Flists: p.flists, Lazy: cfg.flist.lazy, LogBudget: int64(cfg.logBudget),
		CNI: networks(cfg), Events: p.told.log, GPUs: p.gpus, CDIDirs: cfg.cdiDirs, GPURoot: cfg.gpuRoot,
		Dev: cfg.dev, AllowReboot: cfg.allowReboot, Reboot: cfg.reboot, Hide: secretFiles(), Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	if p.doors, err = newDoors(cfg, log); err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	p.gpus.Tell(p.node.GPUChanged)
	if p.controller, err = newController(ctx, cfg, &p.told, p.doors.pin(cfg), p.keys, log); err != nil {
		return nil, errors.Join(err, p.db.Close(), p.doors.audit.Close())
	}
	return &p, nil
}

// networks are those of CNI.
func networks(cfg config) *cni.CNI {
	return cni.New(cni.Config{ConfDir: cfg.cniConf, PluginDirs: cfg.cniPlugins, CacheDir: filepath.Join(cfg.data, "cni")})
}

func runtime(cfg config, log *slog.Logger) (*container.Runtime, error) {
	reaper, err := programs.Find("buoy-reaper")
	if err != nil {
		return nil, err
	}
	shim, err := programs.Find("buoy-shim")
	if err != nil {
		return nil, err
	}
	return container.NewRuntime(container.Config{Run: cfg.run, Cgroup: "/" + cfg.instance(), Reaper: reaper, Shim: shim, Log: log})
}

// run runs the node and answers for it.
func (p *parts) run(ctx context.Context, cfg config, systemd manager, upgrades *upgrade.Manager, log *slog.Logger) error {
	zcfg := nodes.Config{
		Node: p.node, Figures: p.gpus.Figures, Publish: cfg.publish, Events: p.told.api.NodeStream(), Controller: cfg.fleet.controller, Log: log,
		Doctor:   func(ctx context.Context) []doctor.Finding { return look(ctx, cfg, p.images, p.gpus.Machine(), log) },
		Upgrades: upgrades,
	}
	dialects := []api.Dialect{}
	if p.controller != nil {
		zcfg.Fleet, dialects = p.controller, p.controller.dialects
	}
	zero, err := nodes.New(zcfg)
	if err != nil {
		return err
	}
	member, err := newMember(cfg, p, zero, log)
	if err != nil {
		return err
	}
	scfg := system.Config{Health: p.health, Containers: p.count, Node: p.node, GPUs: p.gpus}
	if p.controller != nil {
		scfg.Controller = func(ctx context.Context) any { return p.controller.apps.Health(ctx) }
	}
	sys, err := system.New(scfg)
	if err != nil {
		return err
	}
	sys.Tell(p.told.api.Metrics)
	if p.controller != nil {
		sys.Tell(p.controller.apps.Metrics)
	}
	door, err := access.New(access.Config{
		Tokens: p.doors.tokens, Authority: p.doors.authority, Pin: p.doors.pin(cfg), Audit: auditFile(cfg), Log: log,
	})
	if err != nil {
		return err
	}
	memory := newTrimmer()
	defer memory.stop()
	opened := make(chan struct{})
	server, err := api.New(api.Config{
		Dialects: append(dialects, zero, p.told.api, sys, door), Gate: p.doors.gate, TLS: p.doors.tls, Audit: p.doors.audit.Add, Log: log,
		Observe: func(o api.Observation) {
			sys.Observe(o)
			memory.worked()
		},
		Opened: func(at []net.Addr) {
			log.Info("listening", "at", at, "pin", p.doors.pin(cfg))
			close(opened)
		},
	})
	if err != nil {
		return err
	}
	sys.Tell(system.InFlight(server.InFlight))
	if err := errors.Join(p.node.Load(ctx), p.told.hooks.Load(ctx)); err != nil {
		return err
	}
	defer p.told.keep(ctx, log)() // when all that may have something to say has ended
	p.told.tellDamage(ctx, cfg, log)
	ctx, cancel := p.told.untilStopped(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.told.hooks.Run(ctx) })
	g.Go(func() error { return p.gpus.Run(ctx) })
	g.Go(func() error { return p.node.Run(ctx) })
	g.Go(func() error { return zero.Run(ctx) })
	g.Go(func() error { return upgrades.Run(ctx) })
	g.Go(func() error { return server.Listen(ctx, cfg.listen) })
	g.Go(func() error { return systemd.attend(ctx, func() { p.count() }, opened, p.node.Ready()) })
	if p.controller != nil {
		follow := p.told.follow(p.controller.engine)
		g.Go(func() error { return follow(ctx) })
		g.Go(func() error { return p.controller.run(ctx) })
	}
	if member != nil {
		g.Go(func() error { return member.run(ctx) })
	}
	return g.Wait()
}

// health is what GET /health says.
func (p *parts) health() system.Health {
	h := system.Health{Status: "ok", Node: p.node.Info().ID, Version: version.Version}
	select {
	case <-p.node.Ready():
		h.Ready = true
	default:
		h.Message = "the node is looking after its containers"
	}
	return h
}

// count is the number of containers in each state, for /metrics.
func (p *parts) count() map[string]int {
	n := map[string]int{}
	for _, c := range p.node.Containers() {
		n[string(c.Status)]++
	}
	return n
}

// lock makes the directories and keeps a second daemon out of them.
func lock(cfg config) (unlock func() error, err error) {
	for _, dir := range []string{cfg.data, cfg.run} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	// Containers leave set-uid programs in their layers, and specs hold secrets:
	// nobody else on the machine may get at either.
	if err := os.Chmod(cfg.data, 0o700); err != nil {
		return nil, fmt.Errorf("close the data directory to others: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(cfg.run, "buoyd.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(errs.E(errs.Conflict, "another buoyd runs with --run %s; stop it or choose another directory", cfg.run), f.Close())
	}
	return f.Close, nil
}

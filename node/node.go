// Package node is the agent of one host: it keeps the desired state of the
// host's containers and makes it true, at the request, at boot and after any
// crash, by the same steps.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/gpu/cdi"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/version"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/cni"
	"github.com/buoy-edge/buoy/netcfg/dhcp"
	"github.com/buoy-edge/buoy/netcfg/dns"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/inventory"
	"github.com/buoy-edge/buoy/node/lazy"
	"github.com/buoy-edge/buoy/node/state"
)

// Config is what a Node is made of.
type Config struct {
	ID   string // default: inventory's, the MAC of the management NIC
	Data string // required: directory of what lasts
	Run  string // required: directory of what lasts until reboot

	DB      *state.DB          // required
	Keys    *seal.Keys         // seal secrets of containers; nil: none can have any
	Images  *images.Store      // required
	Net     *netcfg.Net        // required
	CNI     *cni.CNI           // required
	Runtime *container.Runtime // required
	Flists  *lazy.Flists       // required
	GPUs    GPUs               // default: there are none
	Events  *events.Log        // default: nobody is told what happens

	CDIDirs []string // of specs of CDI, the last counts most; default: those of the interface
	GPURoot string   // where drivers of GPUs have their files; default: /

	LogBudget int64 // bytes of all containers' logs; default: a tenth of the disk, 2 GiB at most

	Lazy Lazy // how flists are used when a container does not say; empty: auto

	Dev         bool // not the only thing on this machine: Reboot is refused
	AllowReboot bool // in spite of Dev

	Reboot func() error // restarts the machine, or has it done; default: the kernel at once
	Hide   []string     // files of /proc that have secrets: only privileged containers see them
	Log    *slog.Logger
}

// Node is the agent.
type Node struct {
	cfg  Config
	fs   inventory.FS
	info Info

	reboot   func() error  // a test has another one
	exitWait time.Duration // exitWait; a test has another one
	dns      *dns.Server
	servers  map[string]*dhcp.Server // by bridge; guarded by netOnce

	mu        sync.Mutex // guards boxes, changed, lastAddr, awaited
	boxes     map[string]*box
	bridges   map[string]netcfg.Bridge // by name; written with netOnce held too
	resolving map[netip.Addr]bool      // addresses of bridges that dns answers at
	changed   chan struct{}            // see Changed
	lastAddr  map[string]netip.Addr    // given last, by pool
	awaited   map[string]*waiting      // by job; see unlisted

	rebooted bool          // since the last daemon on this data; set by Load
	loaded   []*box        // what Load found, locked until the first converge has looked after it
	slots    chan struct{} // one for each container that is looked after at a time
	checking chan struct{} // one for each job that checks health and is being started

	netOnce   sync.Mutex // held while the network is set up; guards defaultUp
	defaultUp bool       // there is a default bridge; written with mu held too
	ports     sync.Mutex // held while the port rules are set

	sampler sampler // see Sample
	starts  starts  // see Figures

	later  chan func(context.Context) // work for Run's goroutines
	untidy chan struct{}              // a token when the network may have what nobody needs
	closed chan struct{}              // closed when Run takes no more of it
	ready  chan struct{}              // see Ready
}

// Info says which node this is.
type Info struct {
	ID       string
	Hostname string
	Addr     netip.Addr
	Version  string
	Dev      bool
}

// New checks cfg. Nothing happens before Run.
func New(cfg Config) (*Node, error) {
	if cfg.Data == "" || cfg.Run == "" || cfg.DB == nil || cfg.Images == nil || cfg.Net == nil || cfg.CNI == nil || cfg.Runtime == nil || cfg.Flists == nil || cfg.Log == nil {
		return nil, errors.New("node: Data, Run, DB, Images, Net, CNI, Runtime, Flists and Log are required")
	}
	n := &Node{
		boxes: map[string]*box{}, bridges: map[string]netcfg.Bridge{}, changed: make(chan struct{}), lastAddr: map[string]netip.Addr{},
		later: make(chan func(context.Context)), closed: make(chan struct{}), ready: make(chan struct{}),
		awaited: map[string]*waiting{}, checking: make(chan struct{}, startsAtOnce),
		slots: make(chan struct{}, startsAtOnce), untidy: make(chan struct{}, 1), servers: map[string]*dhcp.Server{}, reboot: cfg.Reboot, exitWait: exitWait,
	}
	if n.reboot == nil {
		n.reboot = rebootMachine
	}
	if cfg.CDIDirs == nil {
		cfg.CDIDirs = cdi.Dirs()
	}
	if cfg.ID == "" {
		id, err := n.fs.NodeID()
		if err != nil {
			return nil, err
		}
		cfg.ID = id
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	n.cfg = cfg
	n.dns = dns.New(dns.Config{Names: names{n}, Upstream: hostServers, Allow: n.mayAsk, Log: cfg.Log})
	n.info = Info{ID: cfg.ID, Hostname: host, Version: version.Version, Dev: cfg.Dev}
	cfg.Images.Protect(n.needs)
	cfg.Images.Tell(n.imageChanged)
	return n, nil
}

// Info says which node this is, with its address of this moment.
func (n *Node) Info() Info {
	i := n.info
	i.Addr = n.fs.ManagementAddr()
	return i
}

// Inventory reads what the machine has.
func (n *Node) Inventory() inventory.FS { return n.fs }

// Ready is closed when Run has adopted what runs and swept once. Starting the
// rest may take as long as a registry does.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Run looks after the containers until ctx ends; they run on.
func (n *Node) Run(ctx context.Context) (err error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(n.closed) // before the wait: who is waited for may have work to hand on
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer n.stopTimers()
	defer func() { err = errors.Join(err, n.closeServers()) }()
	events := make(chan error, 1)
	wg.Go(func() { events <- n.follow(ctx) })
	wg.Go(func() { n.watchNet(ctx) })
	wg.Go(func() { n.tidyUp(ctx) })
	wg.Go(func() { n.collectImages(ctx) })
	wg.Go(func() { n.boundLogs(ctx) })
	wg.Go(func() { n.watchGPUs(ctx) })
	wg.Go(func() { n.cfg.Flists.Run(ctx, n) })
	for {
		select {
		case f := <-n.later:
			wg.Go(func() { f(ctx) })
		case err := <-events:
			return err
		}
	}
}

// closeServers ends what answers containers by itself.
func (n *Node) closeServers() error {
	n.netOnce.Lock()
	defer n.netOnce.Unlock()
	err := n.dns.Close()
	for name, s := range n.servers {
		err = errors.Join(err, s.Close())
		delete(n.servers, name)
	}
	return err
}

// background runs f in a goroutine of Run's. Without Run there is nobody left
// to look after the outcome, and f is dropped: the next daemon sees to it.
func (n *Node) background(f func(context.Context)) {
	select {
	case n.later <- f:
	case <-n.closed:
	}
}

// Load reads the desired state. It comes before Run and before anything is
// asked of the node.
func (n *Node) Load(ctx context.Context) (err error) {
	if n.rebooted, err = newBoot(filepath.Join(n.cfg.Run, "boot")); err != nil {
		return err
	}
	if err := n.checkFresh(ctx); err != nil {
		return err
	}
	records, err := n.cfg.DB.Containers(ctx)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadBridges(ctx); err != nil {
		return err
	}
	for _, r := range records {
		b, fresh, err := restore(r, n.cfg.Keys)
		if err != nil {
			return fmt.Errorf("container %s: %w", r.Name, err)
		}
		if fresh {
			if err := n.cfg.DB.Put(ctx, b.rec); err != nil { // a full disk, say: the next write does it
				n.cfg.Log.Error("secrets are not sealed anew", "container", r.Name, "error", err)
			}
		}
		if b.locked != nil {
			n.cfg.Log.Error("a container cannot be started again", "container", r.Name, "error", b.locked)
		}
		if addr, ok := b.published(); ok && !n.cfg.Net.Prefix().Contains(addr) {
			return errs.E(errs.Conflict, "container %s has the address %s, which is not in %s: start buoyd with the --cidr it had, or delete the containers first",
				r.Name, addr, n.cfg.Net.Prefix())
		}
		if err := b.lock(ctx); err != nil { // until it has been looked after
			return err
		}
		kept, have, err := n.keptImage(b)
		if err != nil {
			return fmt.Errorf("container %s: %w", r.Name, err)
		}
		if have {
			n.holdKept(b, kept)
		}
		n.boxes[r.Name] = b
		n.loaded = append(n.loaded, b)
	}
	return nil
}

// checkFresh refuses a database that knows nothing beside containers that were
// there: what it does not know would be removed.
func (n *Node) checkFresh(ctx context.Context) error {
	if !n.cfg.DB.Fresh() {
		return nil
	}
	dir := filepath.Join(n.cfg.Data, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look for containers: %w", err)
	}
	if len(entries) > 0 {
		return errs.E(errs.Conflict, "node.db is new or empty, but there are containers in %s: bring the database back, or give them up with \"buoyd reset\"", dir)
	}
	return n.cfg.DB.Settle(ctx)
}

// prune removes image layers that a crash left without an image. Those of
// running containers are held by now.
func (n *Node) prune(ctx context.Context) {
	freed, err := n.cfg.Images.Prune(ctx, nil)
	if err != nil {
		n.cfg.Log.Error("image leftovers not removed", "error", err)
	}
	if freed > 0 {
		n.cfg.Log.Info("image leftovers removed", "bytes", freed)
	}
	if err := n.sweepVolumes(); err != nil {
		n.cfg.Log.Error("volumes that were being removed are left", "error", err)
	}
	if err := n.forgetFlists(ctx); err != nil {
		n.cfg.Log.Error("what was recorded of flists not removed", "error", err)
	}
}

// newBoot says whether the machine has booted since the file was written, and
// writes it.
func newBoot(file string) (bool, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, err
	}
	old, err := os.ReadFile(file)
	if err == nil && bytes.Equal(old, id) {
		return false, nil
	}
	return true, atomicfile.Write(file, id, 0o600)
}

// follow keeps a shim running and hears from it, until ctx ends.
func (n *Node) follow(ctx context.Context) error {
	first, lost := true, false
	told := n.cfg.Events.Newest() // when the last end of a job was that has been told
	for {
		err := n.cfg.Runtime.Start(ctx)
		if err == nil {
			err = n.cfg.Runtime.Shim().Watch(ctx, func(e shimapi.Event) {
				if e.ID == "" {
					n.tellMissed(ctx, e.Sync, told)
					lost = false
					if !first {
						n.emit(ctx, events.ShimReplaced, "", events.Data{})
						n.converge(ctx, e.Sync)
						return
					}
					first = false
					n.begin(ctx, e.Sync)
					n.prune(ctx)
					n.tellNode(ctx)
					close(n.ready)
					return
				}
				if e.Exit != nil && e.Exit.At.After(told) {
					told = e.Exit.At
				}
				n.event(e)
			})
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that the watch ended with ctx is no failure
		}
		if first {
			return err // a node that cannot start containers at all should not pretend
		}
		if !lost {
			lost = true
			n.emit(ctx, events.ShimLost, "", events.Data{Message: err.Error()})
		}
		n.cfg.Log.Warn("lost buoy-shim, containers run on", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(shimRetry):
		}
	}
}

// shimRetry paces attempts to reach a shim that its reaper keeps restarting.
const shimRetry = 50 * time.Millisecond

// Directories of a container: what lasts, and what lasts until reboot.
func (n *Node) dataDir(name string) string { return filepath.Join(n.cfg.Data, "containers", name) }
func (n *Node) runDir(name string) string  { return filepath.Join(n.cfg.Run, "containers", name) }

// logFile is where the shim writes what a container says.
func (n *Node) logFile(name string) string {
	return filepath.Join(n.dataDir(name), "log", "console.log")
}

// jobLog is where the shim writes what a job says.
func (n *Node) jobLog(name, job string) string {
	return filepath.Join(n.dataDir(name), "jobs", job+".log")
}

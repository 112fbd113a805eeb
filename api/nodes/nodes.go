// Package nodes is the REST API of the Zero-OS Orchestrator, in both its
// generations (ids and names, jobs and processes), for the node it runs on and
// those that have it as their controller. Fields that Zero-OS has not are ours and never needed.
package nodes

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"syscall"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node"
	"github.com/buoy-edge/buoy/node/doctor"
	"github.com/buoy-edge/buoy/node/inventory"
	"github.com/buoy-edge/buoy/node/probe"
)

// Node is what the dialect asks of a node; *node.Node does it. Errors have a
// kind of errs, and texts that the client may read unless they are Internal.
type Node interface {
	Machine
	Bridges
	Volumes
	Containers
	Jobs
	Sessions
	Processes
	Insides
	Images
	Samples
}

// Machine is the node as a whole.
type Machine interface {
	Info() node.Info
	Inventory() inventory.FS
	KillHostProcess(ctx context.Context, pid int) error
	GPUs() (gpu.Machine, []gpu.Held)
	ContainersOf(pids []int) map[int]string
	Reboot(ctx context.Context, force bool) error
}

// Bridges are the bridges that were made through the API.
type Bridges interface {
	Bridges() []node.Bridge
	Bridge(name string) (node.Bridge, error)
	CreateBridge(ctx context.Context, b netcfg.Bridge) error
	DeleteBridge(ctx context.Context, name string) error
}

// Volumes are the directories that containers name and that outlast them.
type Volumes interface {
	Volumes() ([]node.Volume, error)
	DeleteVolume(ctx context.Context, name string) error
}

// Containers are the containers of the node.
type Containers interface {
	Ready() <-chan struct{}   // closed once it has seen what runs
	Warm(ctx context.Context) // must return at once
	Create(ctx context.Context, s node.Spec) error
	Containers() []node.Container
	Container(name string) (node.Container, error)
	Update(ctx context.Context, name string, c node.Change) error
	Start(ctx context.Context, name string) error
	Stop(ctx context.Context, name string) error
	Kill(ctx context.Context, name string, sig syscall.Signal) error
	Restart(ctx context.Context, name string) error
	Delete(ctx context.Context, name string) error
}

// Jobs are commands in containers. The name "" stands for all containers.
type Jobs interface {
	Exec(ctx context.Context, name string, c container.Command) (id string, err error)
	Jobs(ctx context.Context, name string) ([]container.Job, error)
	Job(ctx context.Context, name, id string) (container.Job, container.Output, error)
	WaitJob(ctx context.Context, name, id string) (container.Job, error)
	SignalJob(ctx context.Context, name, id string, sig syscall.Signal) error
	KillJobs(ctx context.Context, name string) error
}

// Processes are what runs in a container, by the pids it sees itself.
type Processes interface {
	Processes(ctx context.Context, name string) ([]inventory.Process, error)
	Process(ctx context.Context, name string, pid int) (inventory.Process, error)
	SignalProcess(ctx context.Context, name string, pid int, sig syscall.Signal) error
	KillProcess(ctx context.Context, name string, pid int) error
}

// Insides are the health, facts, files and logs of a container.
type Insides interface {
	CheckHealth(ctx context.Context, name string) (probe.State, error)
	Memory(ctx context.Context, name string) (inventory.Memory, error)
	NICs(ctx context.Context, name string) ([]inventory.NIC, error)
	State(ctx context.Context, name string) (inventory.State, error)
	OS(ctx context.Context, name string) (inventory.OS, error)
	Upload(ctx context.Context, name, path string, r io.Reader) error
	Download(ctx context.Context, name, path string) (r io.ReadCloser, size int64, err error)
	RemoveFile(ctx context.Context, name, path string) error
	// Export calls begin before it writes, once it knows that it can.
	Export(ctx context.Context, name string, begin func() io.Writer) error
	Logs(ctx context.Context, name string, q container.LogQuery, f func(container.LogLine) error) error
}

// Images are the images kept on the node.
type Images interface {
	Images(ctx context.Context) ([]images.Image, error)
	PullImage(ctx context.Context, ref string, progress func(images.Progress)) (images.Image, error)
	RemoveImage(ctx context.Context, ref string, force bool) error
	PinImage(ctx context.Context, ref string, pinned bool) error
	ImageUsage(ctx context.Context) (node.DiskUsage, error)
	// ExportImage calls begin before it writes, once it knows that it can.
	ExportImage(ctx context.Context, ref string, begin func(mediaType string) io.Writer) error
	ImportImage(ctx context.Context, r io.Reader, opt images.ImportOptions) (images.Image, error)
	Login(ctx context.Context, registry, user, password string) error
	Logout(registry string) error
	Logins() ([]images.Login, error)
	Chunk(ctx context.Context, id string) ([]byte, error) // of flists, by its name in hexadecimal
}

// Config is what a Dialect is made of.
type Config struct {
	Node Node // required
	// Publish is where ports are published that name no address; default 0.0.0.0.
	Publish netip.Addr
	Fleet   Fleet // default: there are no other nodes
	// Controller is the URL that the node reports to, or "self". // default: none
	Controller string
	Events     http.Handler // answers GET /nodes/{nodeid}/events; default: with 404
	// Figures are those of GPUs. // default: there are none
	Figures func(context.Context) ([]gpu.Figures, error)
	// Doctor looks at the machine. // default: nothing is found
	Doctor func(context.Context) []doctor.Finding
	// Upgrades replace the node's programs. // default: none are taken
	Upgrades Upgrades
	Log      *slog.Logger // gets what clients are not told; default: none
}

// Dialect answers the Zero-OS API.
type Dialect struct {
	node       Node
	id         string // the node's, which does not change
	publish    netip.Addr
	fleet      Fleet
	controller string       // of the node
	told       http.Handler // of events
	figures    func(context.Context) ([]gpu.Figures, error)
	doctor     func(context.Context) []doctor.Finding
	upgrades   Upgrades
	log        *slog.Logger
	stats      sampler

	sessions chan struct{} // one for each that is open
	pace     pace
}

// New makes a Dialect. Its Run keeps the figures of /stats.
func New(cfg Config) (*Dialect, error) {
	if cfg.Node == nil {
		return nil, errors.New("new Zero-OS dialect: Node is required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Figures == nil {
		cfg.Figures = func(context.Context) ([]gpu.Figures, error) { return nil, nil }
	}
	if cfg.Doctor == nil {
		cfg.Doctor = func(context.Context) []doctor.Finding { return nil }
	}
	if cfg.Upgrades == nil {
		cfg.Upgrades = noUpgrades{}
	}
	if !cfg.Publish.IsValid() {
		cfg.Publish = netip.IPv4Unspecified()
	}
	return &Dialect{
		node: cfg.Node, id: cfg.Node.Info().ID, publish: cfg.Publish, fleet: cfg.Fleet, controller: cfg.Controller, told: cfg.Events, figures: cfg.Figures, doctor: cfg.Doctor, upgrades: cfg.Upgrades, log: cfg.Log,
		stats: sampler{keys: map[string]*metric{}}, sessions: make(chan struct{}, maxSessions), pace: normal(),
	}, nil
}

// Package agent is the part of a node that reports to a controller and carries
// out its orders. It dials out only, uses the node through the node's own API,
// and touches no container but those that it was ordered to make.
//
// A controller that is away changes nothing here: what runs goes on, and so
// does what was ordered before.
package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/tlspin"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Node says when there is something to report.
type Node interface {
	// Ready is closed when the node knows what runs on it.
	Ready() <-chan struct{}
	// Changed is closed when a container becomes another one. Ask for it first
	// and then look.
	Changed() <-chan struct{}
}

// Machine is what the node runs on.
type Machine interface {
	// Facts are what hardly changes. The agent adds ids, name, address and labels.
	Facts(ctx context.Context) (hostapi.HostDetail, error)
	Figures(ctx context.Context) (Figures, error)
	// GPUs are, of each whole GPU that works, the containers that have it or a part
	// of it, by UUID.
	GPUs() map[string][]string
	// Usage is what the containers that run use, by name. One that cannot be
	// measured is left out.
	Usage(ctx context.Context) (map[string]Usage, error)
}

// Figures are what of the machine is in use.
type Figures struct {
	CPUBusy, CPUTotal time.Duration // of all processors together, since boot
	NumCPU            int
	MemoryUsed        int64 // bytes, as are the others
	MemoryAvailable   int64
	RootFree          int64 // of the root file system
	DataFree          int64 // of the one that has the node's data
	DataTotal         int64
}

// Usage is what a container has used since it started, and has now.
type Usage struct {
	CPU                time.Duration
	Memory             int64  // bytes that it would not give back: without page cache that is not in use
	Periods, Throttled uint64 // of its CPU limit, and those in which it was held up
}

// Config is what an Agent is made of.
type Config struct {
	// Controller is where: http://HOST:PORT, https://HOST:PORT or unix:///PATH. // required
	Controller string
	// JoinToken lets a host in that the controller does not know. It is asked
	// each time, since it may be in a file that is replaced. // required
	JoinToken func() (string, error)
	Data      string       // required: directory of what lasts
	Keys      *seal.Keys   // required: seal what lasts and is secret
	Local     *buoy.Client // required: of this node; see Local
	Node      Node         // required
	Machine   Machine      // required

	NodeID  string            // of this node: what the host is called unless the controller says otherwise
	Name    string            // of the host, for people; default: what Facts says
	Labels  map[string]string // of the host
	Address string            // IP address where published ports are reached; default: where the agent calls from
	// FirstPort to LastPort are for containers that do not care which port of
	// the host they get; default 20000 to 29999.
	FirstPort, LastPort uint16
	// Reached is called when the controller answers for the first time, and when
	// it does no longer (with why) or does again. Default: nothing.
	Reached func(ctx context.Context, err error)
	Log     *slog.Logger // default: none
}

// Agent speaks for one node to one controller.
type Agent struct {
	cfg  Config
	log  *slog.Logger
	ctl  *controller
	boot string // of this agent: another one begins sequence anew

	poked    chan struct{} // a token: report at once
	outcomes chan outcome  // of jobs
	launches chan struct{} // a slot for each launch under way
	deletes  chan struct{} // likewise
	pullings chan struct{} // likewise
	ports    ports

	pin atomic.Pointer[string] // kept.Pin, for TLS

	mu      sync.Mutex // guards session, renewed
	session Session
	renewed chan struct{} // closed and replaced when session becomes another one

	// All below is Run's.
	kept     kept // what lasts
	gone     *tombstones
	wg       sync.WaitGroup
	lookout  lookout
	jobs     map[string]*job // by launch id
	absent   map[string]hostapi.ContainerStatus
	retry    map[string]time.Time // when a delete that failed is tried again
	pulled   map[string]time.Time // by reference: until when it is not pulled again
	meter    meter
	sequence uint64
	sent     sentReport // the last list of containers that was answered
	gpus     gpus       // as they were reported last
	facts    int        // GPUs that the controller was told of when this host joined
	interval time.Duration
	pace     pace
	joined   bool // the controller knows us, as far as we know
	leaving  bool // it has told us to terminate
	told     bool // and knows that nothing is left
	// speaksOurs: its answers have our additions, so that a report may leave out
	// what it knows.
	speaksOurs bool
	troubled   trouble // what was logged last; empty: nothing is wrong
	reached    bool    // Reached has been told that it answers
	odd        bool    // an order without a launch id was seen, and logged
}

// The sizes of things.
const (
	defaultInterval = 20 * time.Second
	coalesce        = 20 * time.Millisecond // what happens within it is one report
	minGap          = 50 * time.Millisecond // between two reports, of many
	burst           = 4                     // so many at once: an order's and its outcome's, twice
	launchesAtOnce  = 8
	deletesAtOnce   = 64 // most of them wait for a grace to pass
	pullsAtOnce     = 2
)

// New checks cfg. Nothing happens before Run.
func New(cfg Config) (*Agent, error) {
	if cfg.JoinToken == nil || cfg.Data == "" || cfg.Keys == nil || cfg.Local == nil || cfg.Node == nil || cfg.Machine == nil {
		return nil, errors.New("new agent: JoinToken, Data, Keys, Local, Node and Machine are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.FirstPort == 0 && cfg.LastPort == 0 {
		cfg.FirstPort, cfg.LastPort = 20000, 29999
	}
	if cfg.FirstPort == 0 || cfg.LastPort < cfg.FirstPort {
		return nil, errs.E(errs.Invalid, "ports %d to %d are no range", cfg.FirstPort, cfg.LastPort)
	}
	if _, err := netip.ParseAddr(cfg.Address); cfg.Address != "" && err != nil {
		return nil, errs.E(errs.Invalid, "the address of this host, %q, is no IP address", cfg.Address)
	}
	if cfg.Reached == nil {
		cfg.Reached = func(context.Context, error) {}
	}
	a := &Agent{
		cfg: cfg, log: cfg.Log, boot: rand.Text()[:8],
		poked: make(chan struct{}, 1), outcomes: make(chan outcome), renewed: make(chan struct{}),
		launches: make(chan struct{}, launchesAtOnce), deletes: make(chan struct{}, deletesAtOnce), pullings: make(chan struct{}, pullsAtOnce),
		ports: ports{first: cfg.FirstPort, last: cfg.LastPort, claimed: map[uint16]bool{}, free: bindable},
		jobs:  map[string]*job{}, absent: map[string]hostapi.ContainerStatus{}, retry: map[string]time.Time{}, pulled: map[string]time.Time{},
		lookout: newLookout(), meter: meter{last: map[string]Usage{}, rates: map[string]rates{}}, interval: defaultInterval,
	}
	var err error
	a.ctl, err = newController(cfg.Controller, a.TLS())
	return a, err
}

// know makes k what is known of the controller.
func (a *Agent) know(k kept) {
	a.kept = k
	a.pin.Store(&k.Pin)
}

// TLS is how the controller is known by https: by the pin that came with the
// join token, now or when this host joined; without one, as the system knows others.
func (a *Agent) TLS() *tls.Config {
	return tlspin.Config(func() (pins []string) {
		if pin := a.pin.Load(); pin != nil && *pin != "" {
			pins = append(pins, *pin)
		}
		if token, err := a.cfg.JoinToken(); err == nil {
			if _, pin := tlspin.Cut(strings.TrimSpace(token)); pin != "" {
				pins = append(pins, pin)
			}
		}
		return pins
	})
}

// Session is how the controller knows this host. Both are empty while it does not.
type Session struct {
	HostID string
	Token  string
}

// Session is the present one; changed is closed when it becomes another one.
func (a *Agent) Session() (s Session, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session, a.renewed
}

func (a *Agent) setSession(s Session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s == a.session {
		return
	}
	a.session = s
	close(a.renewed)
	a.renewed = make(chan struct{})
}

// Handler answers what the controller asks the agent itself: POST of
// hostapi.Poke.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+hostapi.Poke, func(w http.ResponseWriter, _ *http.Request) {
		a.Poke()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// Poke makes the agent report at once.
func (a *Agent) Poke() {
	select {
	case a.poked <- struct{}{}:
	default: // it will anyway
	}
}

// Run reports and obeys until ctx ends, or until the controller has told this
// host to terminate and nothing is left of what it had launched. Containers run
// on when ctx ends.
func (a *Agent) Run(ctx context.Context) (err error) {
	select {
	case <-a.cfg.Node.Ready():
	case <-ctx.Done():
		return nil
	}
	a.gone = openTombstones(a.cfg.Data, a.log)
	defer func() { err = errors.Join(err, a.gone.Close()) }()
	a.know(readKept(a.cfg.Data, a.cfg.Controller, a.cfg.Keys, a.log))
	defer a.ctl.close()
	defer a.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.loop(ctx)
	return nil
}

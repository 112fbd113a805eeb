// Package netcfg makes the host network look like a Config: a bridge with NAT
// for containers, published ports, and the network namespaces containers live
// in.
//
// One Net is one instance of buoy on a machine. Everything it makes bears the
// instance's name (an nftables table "buoy-<instance>", links with the alias
// "buoy:<instance>…"), so instances live side by side and Reset finds all of
// its own and nothing else.
//
// Where a container's NIC leads is told by its type (nic.go): to a bridge that
// we make (default, vlan, vxlan) or that is there (bridge), over a pair of
// links; to a link that shares one of the machine's (macvlan, ipvlan); or it is
// one of the machine's (passthrough). The host's side is a value, want; plan
// compares it with what is there and says the steps in between.
package netcfg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config says how the network of an instance looks.
type Config struct {
	// Instance names everything of ours, [a-z0-9]{1,8}. // required
	Instance string
	// Bridge is the link that containers with a default NIC hang on; "buoy0".
	Bridge string
	// Prefix is what containers get addresses from; 172.18.0.0/16. The bridge
	// has its first address, which is the containers' gateway.
	Prefix netip.Prefix
	// Prefix6 is the default bridge's IPv6 prefix, /64 to /120; none. A
	// container's IPv6 address is made from its IPv4 one: the same low bits.
	Prefix6 netip.Prefix
	// Uplink is the link that VLANs, VXLANs, macvlans and ipvlans are made on;
	// the one with the default route.
	Uplink string
	// RaiseUplinks has a link set up that NICs are to be made on, where nobody
	// else does that; a link that is down is an error.
	RaiseUplinks bool
	// Publish is the address that published ports bind to when the port does
	// not name one; 0.0.0.0, all addresses of the machine.
	Publish netip.Addr
	// StateDir keeps the old value of a sysctl we changed. // required
	StateDir string
	// HostNS is the path of the namespace that counts as the machine's; the
	// one of this process. Tests name another to leave the machine alone.
	HostNS string
	// Log gets what was repaired; nowhere.
	Log *slog.Logger
}

// Net is the network of one instance. It is safe for concurrent use.
type Net struct {
	cfg     Config
	gateway netip.Addr

	// life is held for writing while links that containers hang on may be
	// deleted, for reading while a container is hung on one; before setMu.
	life sync.RWMutex

	setMu    sync.Mutex       // one Setup, SetBridges, SetPorts, Sweep or Reset at a time; guards the next six
	nets     []natted         // the bridges that the table is for; nil: no Setup yet
	forwards []Forward        // what SetPorts was given; nil: nothing yet
	dark     map[Forward]bool // of these, who has no address to be published at, which the log says once
	ports    portMap          // what the kernel's maps hold; nil: not known yet

	useDefault   atomic.Bool // the default bridge is wanted; not: it stays if it is there
	bridges      []Bridge    // of the API
	bridgesKnown bool        // not yet: those of ours that are there stay

	segMu sync.Mutex // one at a time makes a VLAN's or VXLAN's links; guards peers
	peers map[string]map[holder][]netip.Addr

	recordMu sync.Mutex // one at a time writes or removes a record, and their directory

	pool   pool
	claims claims

	mu      sync.Mutex // guards the fields below
	owners  []owner    // of published ports
	sockets *sockets   // opened by first use
	closed  bool
}

// sockets are netlink sockets in the host's namespace. A socket serves one
// request at a time, so deleting a link, which takes the kernel 16 ms, has its
// own.
type sockets struct{ fast, slow *sock }

var instanceName = regexp.MustCompile(`^[a-z0-9]{1,8}$`)

// New checks cfg and fills in what it leaves open. It touches nothing.
func New(cfg Config) (*Net, error) {
	cfg.Bridge = cmp.Or(cfg.Bridge, "buoy0")
	if !cfg.Prefix.IsValid() {
		cfg.Prefix = netip.MustParsePrefix("172.18.0.0/16")
	}
	if !cfg.Publish.IsValid() {
		cfg.Publish = netip.IPv4Unspecified()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case !instanceName.MatchString(cfg.Instance):
		return nil, errs.E(errs.Invalid, "network instance %q: use 1 to 8 of a-z and 0-9", cfg.Instance)
	case !filepath.IsAbs(cfg.StateDir):
		return nil, errs.E(errs.Invalid, "network state directory %q: give an absolute path", cfg.StateDir)
	}
	if err := cfg.checkPrefixes(); err != nil {
		return nil, err
	}
	if cfg.Uplink != "" {
		if err := checkLinkName(cfg.Uplink); err != nil {
			return nil, fmt.Errorf("uplink: %w", err)
		}
	}
	if err := checkHostAddr(cfg.Publish); err != nil {
		return nil, errs.E(errs.Invalid, "publish address %s: %w", cfg.Publish, err)
	}
	if err := checkLinkName(cfg.Bridge); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	cfg.Prefix, cfg.Prefix6 = cfg.Prefix.Masked(), cfg.Prefix6.Masked()
	return &Net{
		cfg:     cfg,
		gateway: cfg.Prefix.Addr().Next(),
	}, nil
}

// Gateway is the bridge's address: the containers' gateway.
func (n *Net) Gateway() netip.Addr { return n.gateway }

// Prefix is what containers get addresses from.
func (n *Net) Prefix() netip.Prefix { return n.cfg.Prefix }

// Setup makes the default bridge, those of the API, the nftables table and the
// machine's forwarding as they have to be, and changes nothing that is right
// already. Published ports that a former process left in the kernel stay until
// SetPorts says otherwise. An Attach of a default NIC does it, too.
//
// errs.Conflict: the prefix or the bridge's name belongs to somebody else.
func (n *Net) Setup(ctx context.Context) error {
	n.setMu.Lock()
	defer n.setMu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	s, err := n.host()
	if err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	had := n.useDefault.Swap(true)
	if err := n.settleHost(s.fast, nothing); err != nil {
		n.useDefault.Store(had)
		return fmt.Errorf("set up network: %w", err)
	}
	return nil
}

// Close ends the pool of namespaces and the sockets. It leaves the network as
// it is.
func (n *Net) Close() error {
	err := n.pool.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.sockets != nil {
		n.sockets.fast.close()
		n.sockets.slow.close()
		n.sockets = nil
	}
	return err
}

// onHost runs f where sockets, binds and sysctls are those of the host.
func (n *Net) onHost(f func() error) error {
	if n.cfg.HostNS == "" {
		return f()
	}
	return InNS(n.cfg.HostNS, f)
}

// host is the sockets in the host's namespace.
func (n *Net) host() (*sockets, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errs.E(errs.Unavailable, "network %s is closed", n.cfg.Instance)
	}
	if n.sockets != nil {
		return n.sockets, nil
	}
	var s sockets
	err := n.onHost(func() (err error) {
		if s.fast, err = openSock(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		s.slow, err = openSock(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
		if err != nil {
			s.fast.close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink sockets: %w", err)
	}
	n.sockets = &s
	return n.sockets, nil
}

// isNotFound says that a link is not there.
func isNotFound(err error) bool {
	_, gone := errors.AsType[netlink.LinkNotFoundError](err)
	return gone || errors.Is(err, unix.ENODEV)
}

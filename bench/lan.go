package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/netcfg"
)

// lan is a machine in a namespace of its own, with two containers on a bridge
// and a neighbour:
//
//	outside 192.0.2.2 ── 192.0.2.1 host 172.18.0.1 ── bridge ── 172.18.0.2, 172.18.0.3
type lan struct {
	host, outside string // paths of namespaces
	containers    [2]string
	net           *netcfg.Net // nil: made by hand, without a rule
}

// lanMaker makes namespaces that end with it.
type lanMaker struct {
	pool *netcfg.Net // only to make namespaces
	dir  string
	undo *cleanup.Stack
}

func newLANMaker(dir string, undo *cleanup.Stack) (*lanMaker, error) {
	pool, err := netcfg.New(netcfg.Config{Instance: "benchns", StateDir: dir})
	if err != nil {
		return nil, err
	}
	undo.Push(pool.Close)
	return &lanMaker{pool: pool, dir: dir, undo: undo}, nil
}

func (m *lanMaker) ns(ctx context.Context) (string, error) {
	ns, err := m.pool.Netns(ctx)
	if err != nil {
		return "", err
	}
	m.undo.Push(ns.Close)
	return ns.Path(), nil
}

// machine makes a host and its neighbour. filtered: bridges show their frames
// to the IP rules (br_netfilter), as where Docker or Kubernetes have been.
func (m *lanMaker) machine(ctx context.Context, filtered bool) (l *lan, err error) {
	l = &lan{}
	if l.host, err = m.ns(ctx); err != nil {
		return nil, err
	}
	if l.outside, err = m.ns(ctx); err != nil {
		return nil, err
	}
	on := "0"
	if filtered {
		on = "1"
	}
	err = sh(ctx, l.host, `f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo `+on+` >$f
ip link add eth0 type veth peer name wire; ip link set wire netns `+l.outside+`
ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up; echo 1 >/proc/sys/net/ipv4/ip_forward`)
	if err == nil {
		err = sh(ctx, l.outside, `ip addr add 192.0.2.2/24 dev wire; ip link set wire up; ip route add 172.18.0.0/16 via 192.0.2.1`)
	}
	return l, err
}

// ours is a machine with a network of buoy's.
func (m *lanMaker) ours(ctx context.Context, name string, filtered bool) (*lan, error) {
	l, err := m.machine(ctx, filtered)
	if err != nil {
		return nil, err
	}
	l.net, err = netcfg.New(netcfg.Config{Instance: name, StateDir: filepath.Join(m.dir, name), HostNS: l.host})
	if err != nil {
		return nil, err
	}
	m.undo.Push(l.net.Close)
	if err := l.net.Setup(ctx); err != nil {
		return nil, err
	}
	for i := range l.containers {
		if l.containers[i], err = m.ns(ctx); err != nil {
			return nil, err
		}
		if err := l.net.Attach(ctx, l.containers[i], defaultLink(i)); err != nil {
			return nil, err
		}
	}
	guest := netip.MustParseAddr("172.18.0.2")
	var ports []netcfg.Forward
	for _, p := range []netcfg.Proto{netcfg.TCP, netcfg.UDP} {
		port := netcfg.Port{Proto: p, Host: netip.MustParseAddrPort("0.0.0.0:7000"), Guest: 7000}
		ports = append(ports, port.Forward("0", guest))
	}
	return l, l.net.SetPorts(ctx, ports)
}

// defaultLink is a default NIC as the node would ask for it.
func defaultLink(i int) netcfg.Link {
	addr := netip.AddrFrom4([4]byte{172, 18, byte((i + 2) >> 8), byte(i + 2)})
	return netcfg.Link{
		Container: fmt.Sprint(i), NIC: netcfg.NIC{Type: netcfg.NICDefault}, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 16)},
	}
}

// plain is a machine with the same bridge made by hand: no NAT, and no rule but
// one that turns connection tracking on where that is asked for.
func (m *lanMaker) plain(ctx context.Context, filtered, tracked bool) (*lan, error) {
	l, err := m.machine(ctx, filtered)
	if err != nil {
		return nil, err
	}
	script := "ip link add br0 type bridge; ip addr add 172.18.0.1/16 dev br0; ip link set br0 up"
	if tracked {
		script += "; nft 'add table inet bench; add chain inet bench f { type filter hook forward priority 0; }; add rule inet bench f ct state invalid drop'"
	}
	if err := sh(ctx, l.host, script); err != nil {
		return nil, err
	}
	for i := range l.containers {
		if l.containers[i], err = m.ns(ctx); err != nil {
			return nil, err
		}
		err := sh(ctx, l.host, fmt.Sprintf("ip link add port%d type veth peer name eth0 netns %s; ip link set port%d master br0 up", i, l.containers[i], i))
		if err == nil {
			err = sh(ctx, l.containers[i], fmt.Sprintf("ip addr add 172.18.0.%d/16 dev eth0; ip link set eth0 up; ip route add default via 172.18.0.1", i+2))
		}
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// within is from one container to the other, inward from outside: by address
// where the machine routes, by a published port where it is ours.
func (l *lan) within() route {
	server := netip.MustParseAddrPort("172.18.0.3:7000")
	return route{from: l.containers[0], to: l.containers[1], dial: server, listen: server}
}

func (l *lan) inward() route {
	server := netip.MustParseAddrPort("172.18.0.2:7000")
	r := route{from: l.outside, to: l.containers[0], dial: server, listen: server}
	if l.net != nil {
		r.dial = netip.MustParseAddrPort("192.0.2.1:7000")
	}
	return r
}

// sh runs a script inside a namespace.
func sh(ctx context.Context, ns, script string) error {
	out, err := inNS(ns, exec.CommandContext(ctx, "sh", "-ec", script).CombinedOutput)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// cniPlugin is the reference bridge plugin with host-local addresses, run as a
// container runtime would.
type cniPlugin struct {
	dir    string // of the programs
	host   string // namespace
	config []byte
}

// cniDirs are where distributions put the plugins.
var cniDirs = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}

func findCNI(host, state string) (*cniPlugin, error) {
	for _, dir := range cniDirs {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err != nil {
			continue
		}
		config, err := json.Marshal(map[string]any{
			"cniVersion": "0.4.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isGateway": true,
			"ipam": map[string]any{
				"type": "host-local", "subnet": "10.77.0.0/16", "dataDir": filepath.Join(state, "cni"),
				"routes": []any{map[string]string{"dst": "0.0.0.0/0"}},
			},
		})
		return &cniPlugin{dir: dir, host: host, config: config}, err
	}
	return nil, fmt.Errorf("CNI plugins are not in %s (Debian: containernetworking-plugins)", strings.Join(cniDirs, ", "))
}

func (c *cniPlugin) run(ctx context.Context, command, id, ns string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.dir, "bridge"))
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + ns, "CNI_IFNAME=eth0", "CNI_PATH=" + c.dir,
		"PATH=" + os.Getenv("PATH"),
	}
	cmd.Stdin = strings.NewReader(string(c.config))
	out, err := inNS(c.host, cmd.CombinedOutput)
	if err != nil {
		return fmt.Errorf("CNI %s: %w: %s", command, err, out)
	}
	return nil
}

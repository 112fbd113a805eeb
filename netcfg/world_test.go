package netcfg

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/testroot"
)

// A world is a machine in a namespace of its own, with a neighbour on a wire:
//
//	client 192.0.2.2 ── eth0 192.0.2.1 host ── buoy0 172.18.0.1 ── containers
type world struct {
	host, client string // namespace paths
}

func newWorld(t testing.TB) *world {
	t.Helper()
	testroot.Require(t)
	w := &world{host: newNS(t), client: newNS(t)}
	// A new namespace has the sysctls of the machine, which may run a buoyd.
	w.sh(t, w.host, "echo 0 > /proc/sys/net/ipv4/ip_forward; ip link add eth0 type veth peer name wire && ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up")
	err := InNS(w.host, func() error {
		return exec.Command("ip", "link", "set", "wire", "netns", w.client).Run()
	})
	if err != nil {
		t.Fatal(err)
	}
	w.sh(t, w.client, "ip link set wire name eth0 && ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up")
	for _, ns := range []string{w.host, w.client} {
		w.sh(t, ns, "ip link show dev eth0") // see Net.settle
	}
	return w
}

func newNS(t testing.TB) string {
	t.Helper()
	p := &pool{}
	ns, err := p.add()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns.Path()
}

// sh runs a script inside a namespace.
func (w *world) sh(t testing.TB, ns, script string) string {
	t.Helper()
	var out []byte
	err := InNS(ns, func() (err error) {
		out, err = exec.Command("sh", "-ec", script).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// state is all of the host's network that a person can see and that stands still.
func (w *world) state(t testing.TB) string {
	t.Helper()
	all := w.sh(t, w.host, "ip link; ip addr; ip -4 route show table all; ip rule; bridge link; nft list ruleset; "+
		"cat /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/conf/*/route_localnet")
	var still []string
	for l := range strings.Lines(all) {
		if !strings.Contains(l, "inet6") && !strings.Contains(l, "valid_lft") {
			still = append(still, strings.Replace(l, "state LOWERLAYERDOWN", "state DOWN", 1))
		}
	}
	return strings.Join(still, "")
}

// diff is the lines that one of them has more often, and where the first is
// that moved.
func diff(got, want string) string {
	var out strings.Builder
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	count := map[string]int{}
	for _, l := range g {
		count[l]++
	}
	for _, l := range w {
		count[l]--
	}
	for _, l := range slices.Sorted(maps.Keys(count)) {
		if k := count[l]; k != 0 {
			fmt.Fprintf(&out, "%+d %s\n", k, l)
		}
	}
	if out.Len() == 0 && got != want {
		i := 0
		for g[i] == w[i] {
			i++
		}
		fmt.Fprintf(&out, "line %d is %q, not %q\n", i+1, g[i], w[i])
	}
	return out.String()
}

func (w *world) net(t testing.TB, edit ...func(*Config)) *Net {
	t.Helper()
	cfg := Config{Instance: "t1", StateDir: t.TempDir(), HostNS: w.host, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
	for _, e := range edit {
		e(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (w *world) setup(t testing.TB, edit ...func(*Config)) *Net {
	t.Helper()
	n := w.net(t, edit...)
	if err := n.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if testing.Verbose() {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// container is a namespace with a link.
type container struct {
	id   string
	ns   *Netns
	addr netip.Addr
}

func start(t testing.TB, n *Net, id, addr string) *container {
	t.Helper()
	ns, err := n.Netns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	c := &container{id, ns, netip.MustParseAddr(addr)}
	if err := n.Attach(t.Context(), ns.Path(), c.link()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *container) link() Link { return defaultLink(c.id, c.addr) }

// defaultLink is the default NIC of a container on the bridge of n.setup.
func defaultLink(id string, addr netip.Addr) Link {
	return Link{Container: id, NIC: NIC{Type: NICDefault}, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 16)}}
}

func (c *container) forward(proto Proto, host string, port uint16) Forward {
	return Forward{Container: c.id, Proto: proto, Host: netip.MustParseAddrPort(host), Guest: netip.AddrPortFrom(c.addr, port)}
}

func setPorts(t testing.TB, n *Net, f ...Forward) {
	t.Helper()
	if err := n.SetPorts(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// serve answers "<name> <address of the caller>" on TCP and UDP.
func serve(t testing.TB, ns, name, addr string) (stop func()) {
	t.Helper()
	var l net.Listener
	var u *net.UDPConn
	err := InNS(ns, func() (err error) {
		if l, err = net.Listen("tcp4", addr); err != nil {
			return err
		}
		u, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 2)
	go func() {
		defer func() { done <- true }()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", name, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
	go func() {
		defer func() { done <- true }()
		for buf := make([]byte, 16); ; {
			_, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s", name, from.Addr()), from)
		}
	}()
	stop = sync.OnceFunc(func() { l.Close(); u.Close(); <-done; <-done })
	t.Cleanup(stop)
	return stop
}

// checkGoroutines fails the test if it leaves goroutines.
func checkGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 100 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	})
}

// threadNS is the namespace that the thread of a goroutine is in.
func threadNS(t testing.TB) string {
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within 3 s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

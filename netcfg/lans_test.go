package netcfg

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lans are a world with two bridges with NAT, made by hand, so that what is
// tested is the table alone:
//
//	client 192.0.2.2, 2001:db8::2 ── eth0 .1, ::1 ┐      ┌ br-a 10.1.0.1/24, fd01::1/64 ── web .2, ::2; peer .3, ::3
//	                                              ├ host ┤
//	                     eth1 198.51.100.1/24 ────┘      └ br-b 10.2.0.1/24, fd02::1/64 ── app .2, ::2
type lans struct {
	*world
	n              *Net
	web, peer, app string // namespaces
}

var lanNets = []natted{
	{"br-a", []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd01::/64")}},
	{"br-b", []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24"), netip.MustParsePrefix("fd02::/64")}},
}

func newLANs(t testing.TB) *lans {
	t.Helper()
	l := &lans{world: newWorld(t), web: newNS(t), peer: newNS(t), app: newNS(t)}
	l.sh(t, l.host, `ip link set lo up
ip addr add 2001:db8::1/64 dev eth0 nodad
ip link add eth1 type veth peer name wire1; ip addr add 198.51.100.1/24 dev eth1; ip link set wire1 up; ip link set eth1 up
ip link add br-a type bridge; ip addr add 10.1.0.1/24 dev br-a; ip addr add fd01::1/64 dev br-a nodad; ip link set br-a up
ip link add br-b type bridge; ip addr add 10.2.0.1/24 dev br-b; ip addr add fd02::1/64 dev br-b nodad; ip link set br-b up
echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
for b in br-a br-b; do echo 1 > /proc/sys/net/ipv4/conf/$b/route_localnet; done`)
	l.sh(t, l.client, "ip addr add 2001:db8::2/64 dev eth0 nodad")
	for _, c := range []struct{ ns, bridge, net4, net6, host string }{
		{l.web, "br-a", "10.1.0.", "fd01::", "2"},
		{l.peer, "br-a", "10.1.0.", "fd01::", "3"},
		{l.app, "br-b", "10.2.0.", "fd02::", "2"},
	} {
		end := c.bridge + c.host
		l.sh(t, l.host, "ip link add "+end+" type veth peer name up"+end+"; ip link set "+end+" master "+c.bridge+" up; ip link set "+end+" type bridge_slave hairpin on") // see Net.setHairpin
		l.move(t, l.host, c.ns, "up"+end)
		l.sh(t, c.ns, fmt.Sprintf("ip link set up%s name eth0; ip addr add %s%s/24 dev eth0; ip addr add %s%s/64 dev eth0 nodad; ip link set eth0 up; "+
			"ip route add default via %s1; ip -6 route add default via %s1", end, c.net4, c.host, c.net6, c.host, c.net4, c.net6))
		l.sh(t, l.host, "ip link show "+end+"; ip link show "+c.bridge) // see Net.settle
		l.sh(t, c.ns, "ip link show eth0")
	}
	for _, far := range []string{"[2001:db8::2]:9", "[fd01::2]:9", "[fd01::3]:9", "[fd02::2]:9"} {
		eventually(t, far+" answers", func() bool { // IPv6 on a new link takes its time
			var err error
			_ = InNS(l.host, func() error {
				_, err = net.DialTimeout("tcp", far, 400*time.Millisecond)
				return nil
			})
			return errors.Is(err, unix.ECONNREFUSED)
		})
	}
	l.n = l.net(t)
	l.setTable(t)
	return l
}

// move gives a link to another namespace.
func (l *lans) move(t testing.TB, from, to, link string) {
	t.Helper()
	// "ip link set netns" wants a path that it can open.
	l.sh(t, from, "ip link set "+link+" netns "+to)
}

func (l *lans) setTable(t testing.TB) []string {
	t.Helper()
	l.n.setMu.Lock()
	defer l.n.setMu.Unlock()
	changed, err := l.n.setTable(lanNets)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// publish publishes what reads like "web 8080:80", with both addresses of the
// container.
func (l *lans) publish(t testing.TB, ports ...string) {
	t.Helper()
	if err := l.n.SetPorts(t.Context(), lanForwards(t, ports...)); err != nil {
		t.Fatal(err)
	}
}

func lanForwards(t testing.TB, ports ...string) []Forward {
	t.Helper()
	var all []Forward
	for _, s := range ports {
		container, port, _ := strings.Cut(s, " ")
		p, err := ParsePort(port, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		four, six := "10.1.0.2", "fd01::2"
		switch container {
		case "peer":
			four, six = "10.1.0.3", "fd01::3"
		case "app":
			four, six = "10.2.0.2", "fd02::2"
		}
		all = append(all, p.Forwards(container, netip.MustParseAddr(four), netip.MustParseAddr(six))...)
	}
	return all
}

// serveAll answers "<name>:<port> <address of the caller>" on all addresses, by
// TCP and UDP.
func serveAll(t testing.TB, ns, name string, ports ...int) {
	t.Helper()
	var wg sync.WaitGroup
	var open []io.Closer
	for _, port := range ports {
		var l net.Listener
		var u *net.UDPConn
		if err := InNS(ns, func() (err error) {
			if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
				u, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		open = append(open, l, u)
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s:%d %s", name, port, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		})
		wg.Go(func() {
			for buf := make([]byte, 16); ; {
				_, from, err := u.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = u.WriteToUDPAddrPort(fmt.Appendf(nil, "%s:%d %s", name, port, from.Addr().Unmap()), from)
			}
		})
	}
	t.Cleanup(func() {
		for _, c := range open {
			c.Close()
		}
		wg.Wait()
	})
}

// call is what a server of serveAll said, or "" if none answered.
func call(ns string, proto Proto, addr string) string {
	answer := ""
	_ = InNS(ns, func() error {
		c, err := net.DialTimeout(string(proto), addr, 400*time.Millisecond)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(400 * time.Millisecond))
		if proto == UDP {
			_, _ = c.Write([]byte("?"))
			buf := make([]byte, 64)
			k, err := c.Read(buf)
			answer = string(buf[:k])
			return err
		}
		b, err := io.ReadAll(c)
		answer = string(b)
		return err
	})
	return answer
}

// calls checks what is answered, by both protocols.
func (l *lans) calls(t testing.TB, tests []callTest) {
	t.Helper()
	var wg sync.WaitGroup
	for _, tt := range tests { // all at once: no answer is a long wait
		for _, proto := range protos {
			wg.Go(func() {
				if got := call(tt.ns, proto, tt.addr); got != tt.want {
					t.Errorf("%s %s, %s: answer %q, want %q", proto, tt.name, tt.addr, got, tt.want)
				}
			})
		}
	}
	wg.Wait()
}

type callTest struct{ name, ns, addr, want string }

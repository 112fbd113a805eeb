package netcfg

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestReachOverBothFamiliesAndBridges(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 80)
	serveAll(t, l.app, "app", 80, 81)
	serveAll(t, l.client, "client", 7000)
	l.publish(t, "web [::]:8080:80", "web [::]:8080:80/udp", "app [::]:8081:80", "app [::]:8081:80/udp",
		"app 127.0.0.1:8082:80", "app 127.0.0.1:8082:80/udp", "app [2001:db8::1]:8083:80", "app [2001:db8::1]:8083:80/udp")
	l.sh(t, l.client, "ip route add 10.0.0.0/8 via 192.0.2.1; ip -6 route add fd00::/8 via 2001:db8::1")
	l.calls(t, []callTest{
		{"another machine, its address kept", l.client, "192.0.2.1:8080", "web:80 192.0.2.2"},
		{"another machine, its address kept", l.client, "[2001:db8::1]:8080", "web:80 2001:db8::2"},
		{"another machine, the other bridge", l.client, "[2001:db8::1]:8081", "app:80 2001:db8::2"},
		{"another machine, one address", l.client, "[2001:db8::1]:8083", "app:80 2001:db8::2"},
		{"another machine, not published", l.client, "[2001:db8::1]:80", ""},
		{"another machine, published on localhost", l.client, "192.0.2.1:8082", ""},
		{"another machine by the bridge's address", l.client, "[fd01::1]:8080", "web:80 2001:db8::2"},
		{"another machine by the container's address", l.client, "[fd01::2]:80", ""},
		{"another machine by the container's address", l.client, "10.1.0.2:80", ""},
		{"host by its address", l.host, "[2001:db8::1]:8080", "web:80 2001:db8::1"},
		{"host by the gateway", l.host, "[fd01::1]:8080", "web:80 fd01::1"},
		{"host by localhost", l.host, "127.0.0.1:8080", "web:80 10.1.0.1"},
		{"host by localhost", l.host, "127.0.0.1:8081", "app:80 10.2.0.1"},
		{"host by localhost", l.host, "127.0.0.1:8082", "app:80 10.2.0.1"},
		{"host by localhost, IPv6", l.host, "[::1]:8080", ""},
		{"host directly", l.host, "[fd01::2]:80", "web:80 fd01::1"},
		{"another container by the host", l.peer, "[2001:db8::1]:8080", "web:80 fd01::1"},
		{"another container by the gateway", l.peer, "[fd01::1]:8080", "web:80 fd01::1"},
		{"another container directly", l.peer, "[fd01::2]:80", "web:80 fd01::3"},
		{"itself by the host", l.web, "[2001:db8::1]:8080", "web:80 fd01::1"},
		{"itself by the host", l.web, "192.0.2.1:8080", "web:80 10.1.0.1"},
		{"the other bridge by the host", l.peer, "192.0.2.1:8081", "app:80 10.2.0.1"},
		{"the other bridge by the host", l.peer, "[2001:db8::1]:8081", "app:80 fd02::1"},
		{"the other bridge by its gateway", l.peer, "[fd02::1]:8081", "app:80 fd02::1"},
		{"the other bridge directly", l.peer, "[fd02::2]:80", ""},
		{"the other bridge directly", l.peer, "10.2.0.2:80", ""},
		{"the other bridge, not published", l.peer, "10.2.0.2:81", ""},
		{"the way out", l.web, "192.0.2.2:7000", "client:7000 192.0.2.1"},
		{"the way out", l.web, "[2001:db8::2]:7000", "client:7000 2001:db8::1"},
		{"the way out", l.app, "[2001:db8::2]:7000", "client:7000 2001:db8::1"},
	})
}

func TestIPv6LoopbackIsRefusedAtOnce(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 80)
	l.publish(t, "web [::]:8080:80")
	var err error
	_ = InNS(l.host, func() error {
		_, err = net.DialTimeout("tcp", "[::1]:8080", 5*time.Second)
		return nil
	})
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("err = %v; who tries ::1 first has to go on to 127.0.0.1", err)
	}
}

func TestReachRanges(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 79, 80, 8000, 8001, 8010, 8011)
	serveAll(t, l.app, "app", 9000, 9005, 9010, 9011)
	serveAll(t, l.peer, "peer", 80)
	l.publish(t,
		"web [::]:8000-8010:8000-8010", "web [::]:8000-8010:8000-8010/udp", // one element a map
		"app [::]:7000-7010:9000-9010", "app [::]:7000-7010:9000-9010/udp", // eleven
		"peer 192.0.2.1:6000-6002:80", "peer 192.0.2.1:6000-6002:80/udp")
	l.calls(t, []callTest{
		{"first", l.client, "192.0.2.1:8000", "web:8000 192.0.2.2"},
		{"within", l.client, "192.0.2.1:8001", "web:8001 192.0.2.2"},
		{"last", l.client, "192.0.2.1:8010", "web:8010 192.0.2.2"},
		{"before", l.client, "192.0.2.1:7999", ""},
		{"behind", l.client, "192.0.2.1:8011", ""},
		{"first", l.client, "[2001:db8::1]:8000", "web:8000 2001:db8::2"},
		{"last", l.client, "[2001:db8::1]:8010", "web:8010 2001:db8::2"},
		{"behind", l.client, "[2001:db8::1]:8011", ""},
		{"host by localhost", l.host, "127.0.0.1:8010", "web:8010 10.1.0.1"},
		{"itself", l.web, "192.0.2.1:8010", "web:8010 10.1.0.1"},
		{"another container", l.app, "[2001:db8::1]:8010", "web:8010 fd01::1"},
		{"shifted, first", l.client, "192.0.2.1:7000", "app:9000 192.0.2.2"},
		{"shifted, within", l.client, "192.0.2.1:7005", "app:9005 192.0.2.2"},
		{"shifted, last", l.client, "[2001:db8::1]:7010", "app:9010 2001:db8::2"},
		{"shifted, behind", l.client, "192.0.2.1:7011", ""},
		{"many to one, first", l.client, "192.0.2.1:6000", "peer:80 192.0.2.2"},
		{"many to one, last", l.client, "192.0.2.1:6002", "peer:80 192.0.2.2"},
		{"many to one, behind", l.client, "192.0.2.1:6003", ""},
		{"many to one, another address", l.client, "[2001:db8::1]:6000", ""},
	})
	if len(l.n.ports) != 4+44+6 {
		t.Errorf("%d elements", len(l.n.ports))
	}
	// What is read back is what was written.
	want := maps.Clone(l.n.ports)
	l.n.forwards = nil
	if changed := l.setTable(t); len(changed) != 0 || !maps.Equal(l.n.ports, want) {
		t.Errorf("changed %v, %d ports are %d", changed, len(want), len(l.n.ports))
	}
	// A range moves to another container, and shrinks.
	serveAll(t, l.app, "app", 8000, 8010)
	l.publish(t, "app [::]:8000-8009:8000-8009", "app [::]:8000-8009:8000-8009/udp", "web 192.0.2.1:8010:8010", "web 192.0.2.1:8010:8010/udp")
	l.calls(t, []callTest{
		{"moved", l.client, "192.0.2.1:8000", "app:8000 192.0.2.2"},
		{"moved", l.client, "[2001:db8::1]:8000", "app:8000 2001:db8::2"},
		{"left", l.client, "192.0.2.1:8010", "web:8010 192.0.2.2"},
		{"gone", l.client, "[2001:db8::1]:8010", ""},
	})
}

func TestReachInterfacesAndPrefixes(t *testing.T) {
	l := newLANs(t)
	l.sh(t, l.host, "ip addr add 192.0.2.77/24 dev eth0")
	l.sh(t, l.client, "ip route add 198.51.100.0/24 via 192.0.2.1")
	serveAll(t, l.web, "web", 80)
	serveAll(t, l.peer, "peer", 80)
	ports := []string{
		"web eth0:8080:80", "web eth0:8080:80/udp", "peer eth1:8080:80", "peer eth1:8080:80/udp",
		"web 192.0.2.64/26:8081:80", "web 192.0.2.64/26:8081:80/udp", "peer [2001:db8::/32]:8081:80", "peer [2001:db8::/32]:8081:80/udp",
		"web nosuch0:8082:80", "web 203.0.113.0/24:8083:80", "web lo:8084:80", "web lo:8084:80/udp",
	}
	l.publish(t, ports...)
	l.calls(t, []callTest{
		{"interface", l.client, "192.0.2.1:8080", "web:80 192.0.2.2"},
		{"interface, its second address", l.client, "192.0.2.77:8080", "web:80 192.0.2.2"},
		{"interface, IPv6", l.client, "[2001:db8::1]:8080", "web:80 2001:db8::2"},
		{"the other interface's address", l.client, "198.51.100.1:8080", "peer:80 192.0.2.2"},
		{"interface, host by localhost", l.host, "127.0.0.1:8080", ""},
		{"prefix", l.client, "192.0.2.77:8081", "web:80 192.0.2.2"},
		{"prefix, an address outside of it", l.client, "192.0.2.1:8081", ""},
		{"prefix, IPv6", l.client, "[2001:db8::1]:8081", "peer:80 2001:db8::2"},
		{"loopback interface", l.host, "127.0.0.1:8084", "web:80 10.1.0.1"},
		{"loopback interface, from outside", l.client, "192.0.2.1:8084", ""},
	})
	// The machine gets other addresses, and Setup looks.
	l.sh(t, l.host, "ip addr del 192.0.2.77/24 dev eth0; ip addr add 192.0.2.78/24 dev eth0; ip addr add 203.0.113.1/32 dev eth1")
	l.sh(t, l.client, "ip route add 203.0.113.1 via 192.0.2.1")
	if changed := l.setTable(t); !slices.Equal(changed, []string{"ports"}) {
		t.Errorf("changed %q", changed)
	}
	l.calls(t, []callTest{
		{"interface, its new address", l.client, "192.0.2.78:8080", "web:80 192.0.2.2"},
		{"prefix, the new address", l.client, "192.0.2.78:8081", "web:80 192.0.2.2"},
	})
	if got := call(l.client, TCP, "203.0.113.1:8083"); got != "web:80 192.0.2.2" {
		t.Errorf("prefix that was empty: %q", got)
	}
	// An address moves to where another container has the port: one of them
	// keeps it, nobody else is refused.
	l.sh(t, l.host, "ip addr add 192.0.2.78/32 dev eth1")
	l.setTable(t)
	l.publish(t, append(ports, "peer 9999:80")...)
	if err := l.n.SetPorts(t.Context(), lanForwards(t, append(ports, "peer 192.0.2.78:8080:80")...)); !errors.Is(err, errs.Conflict) {
		t.Errorf("a new one for a port of another's interface: %v", err)
	}
}

func TestSetPortsRefuses(t *testing.T) {
	l := newLANs(t)
	for _, tt := range []struct {
		ports string
		want  string
	}{
		{"web 80:80,peer 80:80", "publish ports: port 0.0.0.0:80/tcp of container peer is already published by container web"},
		{"web 80:80,peer [::]:80:80", "publish ports: port [::]:80/tcp of container peer is already published by container web"},
		{"web 80-90:80-90,peer 127.0.0.1:90:80", "publish ports: port 127.0.0.1:90/tcp of container peer is already published by container web"},
		{"web 127.0.0.1:90:80,peer 80-90:80-90", "publish ports: port 0.0.0.0:80-90/tcp of container peer is already published by container web"},
		{"web eth0:80:80,peer 192.0.2.1:80:80", "publish ports: port 192.0.2.1:80/tcp of container peer is already published by container web"},
		{"web 192.0.2.0/24:80:80,peer eth0:70-99:80", "publish ports: port eth0:70-99/tcp of container peer is already published by container web"},
		{"web 80:80,peer 80:80/udp,app [fd01::1]:80:80,app eth0:81:80,web lo:81:80", ""},
	} {
		f := lanForwards(t, strings.Split(tt.ports, ",")...)
		if got := errText(l.n.SetPorts(t.Context(), f)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.ports, got, tt.want)
		}
		if err := l.n.SetPorts(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	guest := netip.MustParseAddrPort("10.1.0.2:80")
	for _, tt := range []struct {
		f    Forward
		want string
	}{
		{Forward{Proto: "sctp", Host: netip.MustParseAddrPort("0.0.0.0:80"), Guest: guest}, `publish ports: port 0.0.0.0:80/sctp: the protocol is "sctp"; use tcp or udp`},
		{Forward{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:0"), Guest: guest}, `publish ports: port 0.0.0.0:0/tcp: it needs an address and ports from 1 to 65535 on the host`},
		{Forward{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:65530"), Guest: guest, Count: 7}, `publish ports: port 0.0.0.0:65530-65536/tcp: it needs an address and ports from 1 to 65535 on the host`},
		{Forward{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:80"), Guest: netip.MustParseAddrPort("10.1.0.2:65530"), Count: 7}, `publish ports: port 0.0.0.0:80-86/tcp: 10.1.0.2:65530 is not a port of a container on a bridge with NAT`},
		{Forward{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:80"), Guest: netip.MustParseAddrPort("10.3.0.2:80")}, `publish ports: port 0.0.0.0:80/tcp: 10.3.0.2:80 is not a port of a container on a bridge with NAT`},
		{Forward{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:80"), Guest: netip.MustParseAddrPort("[fd01::2]:80")}, `publish ports: port 0.0.0.0:80/tcp: fd01::2 is an address of the other kind`},
		{Forward{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:1"), Guest: netip.MustParseAddrPort("10.1.0.2:65535"), Count: 65535, Merge: true}, ""},
	} {
		err := l.n.SetPorts(t.Context(), []Forward{tt.f})
		if got := errText(err); got != tt.want || err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%v: %q, want %q", tt.f, got, tt.want)
		}
	}
	if err := l.net(t).SetPorts(t.Context(), lanForwards(t, "web 80:80")); !errors.Is(err, errs.Unavailable) {
		t.Errorf("before Setup: %v", err)
	}
}

// awaitAcked waits until the other end has acknowledged all that was sent.
func awaitAcked(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(time.Millisecond) {
		var left int
		if cerr := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are not acknowledged", left)
		}
	}
}

// Connections over ports that stay, and over those that go, last.
func TestConnectionsOutliveChanges(t *testing.T) {
	l := newLANs(t)
	var ln net.Listener
	if err := InNS(l.web, func() (err error) { ln, err = net.Listen("tcp", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l.publish(t, "web [::]:8080:80", "peer 8081:80")
	type link struct{ near, far net.Conn }
	var links []link
	for _, addr := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080"} {
		var c link
		var err error
		if err := InNS(l.client, func() (err error) { c.near, err = net.DialTimeout("tcp", addr, time.Second); return err }); err != nil {
			t.Fatal(err)
		}
		if c.far, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		defer c.near.Close()
		defer c.far.Close()
		links = append(links, c)
	}
	talk := func(when string) {
		t.Helper()
		for _, c := range links {
			_ = c.far.SetDeadline(time.Now().Add(3 * time.Second))
			_ = c.near.SetDeadline(time.Now().Add(3 * time.Second))
			buf := make([]byte, 4)
			if _, err := c.near.Write([]byte("ping")); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			if _, err := io.ReadFull(c.far, buf); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			if _, err := c.far.Write(buf); err != nil {
				t.Errorf("%s: %v", when, err)
			}
			if _, err := io.ReadFull(c.near, buf); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	talk("first")
	l.publish(t, "web [::]:8080:80", "app 8082:80", "peer 9000-9100:9000-9100")
	talk("after others changed")
	l.publish(t, "web [::]:8080:81")
	talk("after the port leads elsewhere")
	for _, c := range links { // while there is no table, an answer on its way would be reset
		awaitAcked(t, c.far)
	}
	l.sh(t, l.host, "nft flush ruleset")
	if changed := l.setTable(t); len(changed) != 1 {
		t.Errorf("changed %q", changed)
	}
	talk("after the table was put back")
	l.publish(t)
	talk("after the port is gone")
	if got := call(l.client, TCP, "192.0.2.1:8080"); got != "" {
		t.Errorf("answer %q on a port that is gone", got)
	}
}

// As UDPFlows…, over IPv6 and a range.
func TestUDPFlowsFollowThePortsOverIPv6(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 53, 5355)
	serveAll(t, l.peer, "peer", 53, 5355)
	one := func(port, want string) { // always from the same port: one flow
		t.Helper()
		got := l.sh(t, l.client, `python3 -c '
import socket
s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.settimeout(0.4); s.bind(("2001:db8::2",5555))
s.sendto(b"?",("2001:db8::1",`+port+`))
try: print(s.recv(99).decode(),end="")
except OSError: pass'`)
		if got != want {
			t.Errorf("port %s: answer %q, want %q", port, got, want)
		}
	}
	both := func(want53, want5355 string) { t.Helper(); one("5353", want53); one("5355", want5355) }
	both("", "")
	l.publish(t, "web [::]:5353:53/udp", "web [::]:5354-5360:5354-5360/udp")
	both("web:53 2001:db8::2", "web:5355 2001:db8::2")
	l.publish(t, "peer [::]:5353:53/udp", "peer [::]:5354-5360:5354-5360/udp")
	both("peer:53 2001:db8::2", "peer:5355 2001:db8::2")
	l.publish(t, "peer [::]:5353:53/udp", "peer [::]:5354-5370:5354-5370/udp") // the same for these two
	both("peer:53 2001:db8::2", "peer:5355 2001:db8::2")
	l.publish(t)
	both("", "")
}

func TestCheckFreeInAllForms(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.host, "host", 9090)
	var on4, on6 net.Listener
	if err := InNS(l.host, func() (err error) {
		if on4, err = net.Listen("tcp4", "192.0.2.1:9191"); err == nil {
			on6, err = net.Listen("tcp6", "[2001:db8::1]:9292")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer on4.Close()
	defer on6.Close()
	l.publish(t, "web 8000-8010:8000-8010", "web [2001:db8::1]:7000:80", "web eth1:7001:80")
	for port, want := range map[string]string{
		"[::]:9090:80":                   "port [::]:9090/tcp is in use by a process on the host",
		"[2001:db8::1]:9090:80/udp":      "port [2001:db8::1]:9090/udp is in use by a process on the host",
		"eth0:9090:80":                   "port eth0:9090/tcp is in use by a process on the host",
		"9000-9999:9000-9999/udp":        "port 0.0.0.0:9000-9999/udp: 9090 is in use by a process on the host",
		"eth1:9091-9999:9091-9999":       "", // 9191 is at another address
		"eth0:9091-9291:9091-9291":       "port eth0:9091-9291/tcp: 9191 is in use by a process on the host",
		"192.0.2.0/24:9191:80":           "port 192.0.2.0/24:9191/tcp is in use by a process on the host",
		"192.0.2.1:9292:80":              "",
		"0.0.0.0:9292:80":                "",
		"[::]:9292:80":                   "port [::]:9292/tcp is in use by a process on the host",
		"[2001:db8::/32]:9200-9300:80":   "port [2001:db8::/32]:9200-9300/tcp: 9292 is in use by a process on the host",
		"[2001:db8::1]:9191:80":          "",
		"[2001:db8::77]:80:80":           "port [2001:db8::77]:80/tcp: 2001:db8::77 is not an address of this machine",
		"192.0.2.77:60001-60009:80":      "port 192.0.2.77:60001-60009/tcp: 192.0.2.77 is not an address of this machine",
		"eth7:80:80":                     "port eth7:80/tcp: this machine has no such address now",
		"203.0.113.0/24:80:80":           "port 203.0.113.0/24:80/tcp: this machine has no such address now",
		"8010:80":                        "port 0.0.0.0:8010/tcp is already published by container web",
		"8011:80":                        "",
		"8010:80/udp":                    "",
		"[::]:8000-8001:80":              "port [::]:8000-8001/tcp is already published by container web",
		"eth0:8011-8012:80":              "",
		"eth0:7000:80":                   "port eth0:7000/tcp is already published by container web",
		"192.0.2.1:7000:80":              "",
		"198.51.100.1:7001:80":           "port 198.51.100.1:7001/tcp is already published by container web",
		"198.51.100.0/24:7000-7002:7000": "port 198.51.100.0/24:7000-7002/tcp is already published by container web",
	} {
		p, err := ParsePort(port, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		err = l.n.CheckFree(p.Forward("other", netip.Addr{}))
		if got := errText(err); got != want {
			t.Errorf("%s: %q, want %q", port, got, want)
		}
		if err != nil && !errors.Is(err, errs.Conflict) && !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: kind of %v", port, err)
		}
		if err := l.n.CheckFree(p.Forward("web", netip.Addr{})); err != nil && strings.Contains(err.Error(), "container") {
			t.Errorf("%s: in its own way: %v", port, err)
		}
	}
}

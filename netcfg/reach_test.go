package netcfg

import (
	"testing"
)

var protos = []Proto{TCP, UDP}

func TestReachPublishedPort(t *testing.T) {
	for _, brNetfilter := range []string{"0", "1"} {
		t.Run("br_netfilter="+brNetfilter, func(t *testing.T) {
			w := newWorld(t)
			w.sh(t, w.host, "f=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $f ] || echo "+brNetfilter+" > $f")
			n := w.setup(t)
			web, other := start(t, n, "web", "172.18.0.2"), start(t, n, "other", "172.18.0.3")
			serve(t, web.ns.Path(), "web", "172.18.0.2:80")
			serve(t, w.client, "client", "192.0.2.2:7000")
			setPorts(t, n, web.forward(TCP, "0.0.0.0:8080", 80), web.forward(UDP, "0.0.0.0:8080", 80))

			tests := []struct{ name, ns, addr, want string }{
				{"another machine, its address kept", w.client, "192.0.2.1:8080", "web 192.0.2.2"},
				{"host by its address", w.host, "192.0.2.1:8080", "web 192.0.2.1"},
				{"host by the gateway", w.host, "172.18.0.1:8080", "web 172.18.0.1"},
				{"host by localhost", w.host, "127.0.0.1:8080", "web 172.18.0.1"},
				{"host directly", w.host, "172.18.0.2:80", "web 172.18.0.1"},
				{"another container by the host", other.ns.Path(), "192.0.2.1:8080", "web 172.18.0.1"},
				{"another container by the gateway", other.ns.Path(), "172.18.0.1:8080", "web 172.18.0.1"},
				{"another container directly", other.ns.Path(), "172.18.0.2:80", "web 172.18.0.3"},
				{"itself by the host", web.ns.Path(), "192.0.2.1:8080", "web 172.18.0.1"},
				{"itself by the gateway", web.ns.Path(), "172.18.0.1:8080", "web 172.18.0.1"},
				{"the way out", web.ns.Path(), "192.0.2.2:7000", "client 192.0.2.1"},
				{"a port that is not published", w.client, "192.0.2.1:80", ""},
			}
			for _, tt := range tests {
				for _, proto := range protos {
					if got := call(tt.ns, proto, tt.addr); got != tt.want {
						t.Errorf("%s %s: answer %q, want %q", proto, tt.name, got, tt.want)
					}
				}
			}
		})
	}
}

func TestReachOnlyOverTheAddressAskedFor(t *testing.T) {
	w := newWorld(t)
	w.sh(t, w.host, "ip addr add 192.0.2.9/24 dev eth0")
	n := w.setup(t)
	web, other := start(t, n, "web", "172.18.0.2"), start(t, n, "other", "172.18.0.3")
	serve(t, web.ns.Path(), "web", "172.18.0.2:80")
	serve(t, other.ns.Path(), "other", "172.18.0.3:80")
	var f []Forward
	for _, proto := range protos {
		f = append(f, web.forward(proto, "192.0.2.9:8080", 80), other.forward(proto, "127.0.0.1:8080", 80))
	}
	setPorts(t, n, f...)
	for _, proto := range protos {
		for _, tt := range []struct{ name, ns, addr, want string }{
			{"client, the address", w.client, "192.0.2.9:8080", "web 192.0.2.2"},
			{"client, another", w.client, "192.0.2.1:8080", ""},
			{"host, the address", w.host, "192.0.2.9:8080", "web 192.0.2.1"},
			{"host, another", w.host, "192.0.2.1:8080", ""},
			{"host, localhost", w.host, "127.0.0.1:8080", "other 172.18.0.1"},
			{"host, another of localhost", w.host, "127.0.0.2:8080", ""},
		} {
			if got := call(tt.ns, proto, tt.addr); got != tt.want {
				t.Errorf("%s %s: answer %q, want %q", proto, tt.name, got, tt.want)
			}
		}
	}
}

// attackLoopback makes a machine send what is for 10.66.0.1 to 127.0.0.1 of
// gateway.
func attackLoopback(t *testing.T, w *world, ns, gateway string) {
	w.sh(t, ns, `ip addr flush dev lo
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
ip route replace 127.0.0.0/8 via `+gateway+`
ip route replace 10.66.0.1 via `+gateway+`
nft 'add table ip evil; add chain ip evil o { type nat hook output priority -100; }; add rule ip evil o ip daddr 10.66.0.1 dnat to 127.0.0.1'`)
}

func TestLocalhostIsNotReachableFromOutside(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	web, evil := start(t, n, "web", "172.18.0.2"), start(t, n, "evil", "172.18.0.3")
	serve(t, web.ns.Path(), "web", "172.18.0.2:80")
	serve(t, w.host, "host", "127.0.0.1:9090")
	setPorts(t, n, web.forward(TCP, "127.0.0.1:8080", 80), web.forward(UDP, "127.0.0.1:8080", 80))
	attackLoopback(t, w, w.client, "192.0.2.1")
	attackLoopback(t, w, evil.ns.Path(), "172.18.0.1")
	w.sh(t, w.client, "ip route add 172.18.0.0/16 via 192.0.2.1")
	w.sh(t, w.host, "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet") // somebody else's mistake

	check := func(open bool) {
		t.Helper()
		for _, proto := range protos {
			if got := call(w.host, proto, "127.0.0.1:8080"); got != "web 172.18.0.1" {
				t.Errorf("%s host by localhost: %q", proto, got)
			}
			for _, tt := range []struct{ name, ns, addr string }{
				{"neighbour, published on localhost", w.client, "10.66.0.1:8080"},
				{"neighbour, service of the host", w.client, "10.66.0.1:9090"},
				{"container, published on localhost", evil.ns.Path(), "10.66.0.1:8080"},
				{"container, service of the host", evil.ns.Path(), "10.66.0.1:9090"},
				{"neighbour, container by its address", w.client, "172.18.0.2:80"},
			} {
				if got := call(tt.ns, proto, tt.addr); (got != "") != open {
					t.Errorf("%s %s: answer %q, open %v", proto, tt.name, got, open)
				}
			}
		}
	}
	check(false)
	// The same without our guards: the attacks above are real.
	w.sh(t, w.host, "nft flush chain inet buoy-t1 guard; nft flush chain inet buoy-t1 forward")
	check(true)
	if err := n.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.sh(t, w.host, "nft list chain inet buoy-t1 guard | grep -q drop")
}

func TestUDPFlowsFollowThePorts(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	a, b := start(t, n, "a", "172.18.0.2"), start(t, n, "b", "172.18.0.3")
	serve(t, a.ns.Path(), "a", "172.18.0.2:53")
	serve(t, b.ns.Path(), "b", "172.18.0.3:53")
	one := func(want string) { // always from the same port: one flow
		t.Helper()
		got := w.sh(t, w.client, `python3 -c '
import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(0.4); s.bind(("192.0.2.2",5555))
s.sendto(b"?",("192.0.2.1",5353))
try: print(s.recv(99).decode(),end="")
except OSError: pass'`)
		if got != want {
			t.Errorf("answer %q, want %q", got, want)
		}
	}
	one("")
	setPorts(t, n, a.forward(UDP, "0.0.0.0:5353", 53))
	one("a 192.0.2.2")
	setPorts(t, n, b.forward(UDP, "0.0.0.0:5353", 53))
	one("b 192.0.2.2")
	setPorts(t, n)
	one("")
}

func TestTwoInstances(t *testing.T) {
	w := newWorld(t)
	before := w.state(t)
	n1 := w.setup(t)
	n2 := w.setup(t, func(c *Config) {
		c.Instance, c.Bridge, c.Prefix = "t2", "buoy1", prefix("10.9.0.0/24")
	})
	c1, c2 := start(t, n1, "web", "172.18.0.2"), start(t, n2, "web", "10.9.0.2")
	serve(t, c1.ns.Path(), "one", "172.18.0.2:80")
	serve(t, c2.ns.Path(), "two", "10.9.0.2:80")
	setPorts(t, n1, c1.forward(TCP, "0.0.0.0:8081", 80))
	setPorts(t, n2, c2.forward(TCP, "0.0.0.0:8082", 80))
	check := func(ns, addr, want string) {
		t.Helper()
		if got := call(ns, TCP, addr); got != want {
			t.Errorf("%s: answer %q, want %q", addr, got, want)
		}
	}
	check(w.client, "192.0.2.1:8081", "one 192.0.2.2")
	check(w.client, "192.0.2.1:8082", "two 192.0.2.2")
	check(w.host, "127.0.0.1:8082", "two 10.9.0.1")
	check(c1.ns.Path(), "192.0.2.1:8082", "two 10.9.0.1") // from n1's side this is the way out
	check(c1.ns.Path(), "10.9.0.2:80", "")                // not published
	if err := n1.Sweep(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if err := n1.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(w.client, "192.0.2.1:8082", "two 192.0.2.2") // ip_forward is still on
	if err := n2.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := w.state(t); after != before {
		t.Errorf("left after both resets:\n%s", diff(after, before))
	}
}

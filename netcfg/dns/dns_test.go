package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testns"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// freePort is a port that nobody has by UDP and TCP at any loopback address.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		l.Close()
		if err == nil {
			u.Close()
			return uint16(port)
		}
	}
	t.Fatal("no free port")
	return 0
}

// serve starts a resolver at 127.0.0.1, and checks that nothing of it is left.
func serve(t testing.TB, edit func(*Config)) (*Server, string) {
	t.Helper()
	checkGoroutines(t)
	return start(t, edit)
}

func start(t testing.TB, edit func(*Config)) (*Server, string) {
	t.Helper()
	cfg := Config{Names: loopbackBook{}, Port: freePort(t)}
	if edit != nil {
		edit(&cfg)
	}
	s := New(cfg)
	if err := s.Listen(t.Context(), []netip.Addr{loopback}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, netip.AddrPortFrom(loopback, cfg.Port).String()
}

// loopbackBook knows "web".
type loopbackBook struct{}

func (loopbackBook) Lookup(a Asker, name string) ([]netip.Addr, bool) {
	return addrs("10.0.0.2"), name == "web"
}

func (loopbackBook) Reverse(Asker, netip.Addr) (string, bool) { return "", false }

func ask(t testing.TB, network, at string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 6 * time.Second}
	m, _, err := c.ExchangeContext(t.Context(), q, at)
	if err != nil {
		t.Fatalf("ask %s for %s by %s: %v", at, q.Question[0].Name, network, err)
	}
	return m
}

func checkGoroutines(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	})
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

func TestServes(t *testing.T) {
	_, at := serve(t, nil)
	for _, network := range []string{"udp", "tcp"} {
		if got := short(ask(t, network, at, question("web.buoy.internal.", "A"))); got != "NOERROR 10.0.0.2" {
			t.Errorf("by %s: %s", network, got)
		}
		if got := short(ask(t, network, at, question("example.com.", "A"))); got != "SERVFAIL" {
			t.Errorf("without an upstream, by %s: %s", network, got)
		}
	}
	c, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 { // garbage, then a query
		_, _ = c.Write([]byte("0123456789abcdefghi"))
	}
	q := question("web.", "A")
	b, _ := q.Pack()
	_, _ = c.Write(b)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 512)
	for m := (&dns.Msg{}); m.Id != q.Id || short(m) != "NOERROR 10.0.0.2"; {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		_ = m.Unpack(buf[:n])
	}
}

// TestConnection asks several things by one connection, without waiting, and
// then lets it be.
func TestConnection(t *testing.T) {
	s, at := serve(t, nil)
	raw, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := dns.Conn{Conn: raw}
	for i := range 20 {
		q := question("web.", "A")
		q.Id = uint16(i)
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		if m, err := c.ReadMsg(); err != nil || m.Id != uint16(i) {
			t.Fatalf("answer %d: %v, %v", i, m, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadMsg(); err == nil {
		t.Error("the connection outlives Close")
	}
	if err := s.Listen(t.Context(), nil); !errors.Is(err, errs.Unavailable) {
		t.Errorf("Listen after Close = %v", err)
	}
}

// TestConnectionsAreBounded opens many and sends nothing.
func TestConnectionsAreBounded(t *testing.T) {
	s, at := serve(t, nil)
	before := runtime.NumGoroutine()
	open := make([]net.Conn, 0, 3*maxConnsEach)
	for range cap(open) {
		c, err := net.Dial("tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	for _, c := range open[maxConnsEach:] { // the first ones are kept, the others closed
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a connection too many is kept: %v", err)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 2*maxConnsEach {
		t.Errorf("%d goroutines for %d connections", n, len(open))
	}
	for _, c := range open {
		c.Close()
	}
	eventually(t, "connections end", func() bool {
		s.conns.mu.Lock()
		defer s.conns.mu.Unlock()
		return s.conns.taken == 0 && len(s.conns.by) == 0
	})
	if got := short(ask(t, "tcp", at, question("web.", "A"))); got != "NOERROR 10.0.0.2" {
		t.Errorf("after them: %s", got)
	}
}

func TestListen(t *testing.T) {
	s, at := serve(t, nil)
	second := netip.MustParseAddr("127.0.0.2")
	port := s.cfg.Port
	at2 := netip.AddrPortFrom(second, port).String()

	conn, err := net.Dial("tcp4", at) // shows that its listener is let alone
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := dns.Conn{Conn: conn}
	same := func() {
		t.Helper()
		if err := c.WriteMsg(question("web.", "A")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadMsg(); err != nil {
			t.Fatalf("the listener has changed: %v", err)
		}
	}
	if err := s.Listen(t.Context(), []netip.Addr{second, loopback, loopback, netip.MustParseAddr("::ffff:127.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	same()
	ask(t, "udp", at2, question("web.", "A"))

	// An address that is not there changes nothing and is named.
	missing := netip.MustParseAddr("192.0.2.77")
	third := netip.MustParseAddr("127.0.0.3")
	if err := s.Listen(t.Context(), []netip.Addr{third, missing}); err == nil || !strings.Contains(err.Error(), missing.String()) {
		t.Errorf("Listen at a missing address = %v", err)
	}
	same()
	ask(t, "udp", at2, question("web.", "A"))
	if l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(third, port))); err != nil {
		t.Errorf("the half that worked was not undone: %v", err)
	} else {
		l.Close()
	}
	other, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(third, port)))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Listen(t.Context(), []netip.Addr{loopback, third})
	if other.Close(); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("127.0.0.3:%d", port)) {
		t.Errorf("Listen at a taken address = %v", err)
	}

	if err := s.Listen(t.Context(), []netip.Addr{loopback}); err != nil {
		t.Fatal(err)
	}
	same()
	if c, err := net.Dial("tcp4", at2); err == nil {
		c.Close()
		t.Error("an address that is not wanted any more still answers")
	}
	if err := s.Listen(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp4", at); err == nil {
		c.Close()
		t.Error("nothing is wanted, and yet it answers")
	}
}

func TestAllow(t *testing.T) {
	var allowed atomic.Bool
	_, at := serve(t, func(c *Config) {
		c.Allow = func(listener, client netip.Addr) bool {
			return listener == loopback && client == loopback && allowed.Load()
		}
	})
	client := dns.Client{Timeout: 200 * time.Millisecond}
	if m, _, err := client.Exchange(question("web.", "A"), at); err == nil {
		t.Errorf("a stranger is told %s by UDP", short(m))
	}
	client.Net = "tcp"
	if m, _, err := client.Exchange(question("web.", "A"), at); err == nil {
		t.Errorf("a stranger is told %s by TCP", short(m))
	}
	allowed.Store(true)
	ask(t, "udp", at, question("web.", "A"))
	ask(t, "tcp", at, question("web.", "A"))
}

// TestInNamespace asks on port 53 of a bridge-like address of both families,
// with the resolver of busybox, and forwards from inside the namespace.
func TestInNamespace(t *testing.T) {
	host, box := testns.New(t), testns.New(t)
	testns.Wire(t, host, "br", box, "eth0")
	testns.Sh(t, host, "ip addr add 10.7.0.1/24 dev br; ip addr add fd07::1/64 dev br nodad")
	testns.Sh(t, box, "ip addr add 10.7.0.2/24 dev eth0; ip addr add fd07::2/64 dev eth0 nodad")
	enter := func(f func() error) error { return testns.In(host, f) }
	up := upstream(t, enter, answerWith("192.0.2.9"))
	checkGoroutines(t)
	s := New(Config{Names: loopbackBook{}, Enter: enter, Upstream: func() []netip.AddrPort { return []netip.AddrPort{up} }})
	defer s.Close()
	if err := s.Listen(t.Context(), addrs("10.7.0.1", "fd07::1")); err != nil {
		t.Fatal(err)
	}
	for _, server := range []string{"10.7.0.1", "fd07::1"} {
		for name, want := range map[string]string{"web": "10.0.0.2", "web.buoy.internal": "10.0.0.2", "a.example.": "192.0.2.9"} {
			if out := testns.Sh(t, box, "busybox nslookup -type=a "+name+" "+server); !strings.Contains(out, want) {
				t.Errorf("nslookup %s at %s: %s", name, server, out)
			}
		}
	}
}

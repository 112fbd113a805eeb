package dhcp

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testns"
)

// A lan is a bridge with an address and a box on it:
//
//	box eth0 ── box0 ── br0 10.0.0.1/24
type lan struct {
	t         testing.TB
	host, box string
}

func newLan(t testing.TB) *lan {
	t.Helper()
	n := &lan{t, testns.New(t), testns.New(t)}
	testns.Sh(t, n.host, "ip link add name br0 type bridge; ip addr add 10.0.0.1/24 dev br0; ip addr add 10.0.0.2/24 dev br0; ip link set br0 up")
	n.plug(n.box, "box0")
	return n
}

// plug wires a namespace to the bridge.
func (n *lan) plug(ns, port string) {
	n.t.Helper()
	testns.Wire(n.t, n.host, port, ns, "eth0")
	testns.Sh(n.t, n.host, "ip link set dev "+port+" master br0")
}

func (n *lan) options() Options {
	return Options{Netns: n.box, Link: "eth0", Enter: testns.In}
}

// has gives the box what it was leased.
func (n *lan) has(l Lease) {
	n.t.Helper()
	testns.Sh(n.t, n.box, "ip addr flush dev eth0; ip addr add "+l.Addr.String()+" dev eth0")
}

// book is a Store.
type book struct {
	mu   sync.Mutex // guards held
	held map[netip.Addr]Held
	fail error
}

func (b *book) Leases() (all []Held, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.held {
		all = append(all, h)
	}
	return all, nil
}

func (b *book) Put(h Held) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail == nil {
		b.held[h.Addr] = h
	}
	return b.fail
}

func (b *book) Drop(a netip.Addr) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, a)
	return nil
}

// serve starts a server of ours on the bridge.
func (n *lan) serve(store *book, edit func(*Config)) *Server {
	n.t.Helper()
	cfg := Config{
		Link: "br0", Addr: netip.MustParsePrefix("10.0.0.1/24"), Router: ours, DNS: []netip.Addr{ours},
		Start: netip.MustParseAddr("10.0.0.50"), End: netip.MustParseAddr("10.0.0.60"),
		Store: store, Enter: func(f func() error) error { return testns.In(n.host, f) },
	}
	if edit != nil {
		edit(&cfg)
	}
	s, err := NewServer(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	for range 2 {
		if err := s.Listen(n.t.Context()); err != nil {
			n.t.Fatal(err)
		}
	}
	n.t.Cleanup(func() {
		for range 2 {
			if err := s.Close(); err != nil {
				n.t.Error(err)
			}
		}
	})
	return s
}

func newBook() *book { return &book{held: map[netip.Addr]Held{}} }

func acquire(t testing.TB, o Options) Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l, err := Acquire(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keep runs Keep beside the test; what it reports is sent.
func keep(t testing.TB, o Options, l Lease) (reports <-chan Lease, ended <-chan error, cancel func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := make(chan Lease, 100)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- Keep(ctx, o, l, func(l Lease) { c <- l }) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c, done, cancel
}

func next(t testing.TB, reports <-chan Lease) Lease {
	t.Helper()
	select {
	case l := <-reports:
		return l
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is reported within 10 s")
		return Lease{}
	}
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
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

// dnsmasq serves the bridge; its lease file is read for what it thinks.
func (n *lan) dnsmasq(more ...string) (leases func() string) {
	n.t.Helper()
	program, err := exec.LookPath("dnsmasq")
	if err != nil {
		n.t.Skipf("SKIPPED: no dnsmasq: install dnsmasq-base (%v)", err)
	}
	file := filepath.Join(n.t.TempDir(), "leases")
	log := filepath.Join(n.t.TempDir(), "log")
	cmd := exec.Command(program, append([]string{
		"--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=br0", "--bind-interfaces", "--no-ping", "--user=root", "--pid-file=",
		"--log-dhcp", "--log-facility=" + log, "--dhcp-leasefile=" + file, "--dhcp-range=10.0.0.50,10.0.0.60,255.255.255.0,2m",
	}, more...)...)
	if err := testns.In(n.host, cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if b, err := os.ReadFile(log); err == nil && n.t.Failed() {
			n.t.Logf("dnsmasq:\n%s", b)
		}
	})
	eventually(n.t, "dnsmasq listens", func() bool {
		return strings.Contains(testns.Sh(n.t, n.host, "cat /proc/net/udp"), ":0043 ")
	})
	return func() string {
		b, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			n.t.Fatal(err)
		}
		return string(b)
	}
}

// TestDnsmasq has a life with a server of somebody else: acquired, kept on
// by a later process, asked for again, given back.
func TestDnsmasq(t *testing.T) {
	n := newLan(t)
	leases := n.dnsmasq("--dhcp-authoritative", "--dhcp-option=option:router,10.0.0.1", "--dhcp-option=option:dns-server,10.0.0.3,10.0.0.4",
		"--dhcp-option=option:domain-search,lan,example.com", "--dhcp-option=option:mtu,1400", "--dhcp-option=option:ntp-server,10.0.0.6", "--dhcp-option=option:classless-static-route,10.9.0.0/16,10.0.0.8")
	checkGoroutines(t)
	o := n.options()
	o.Hostname, o.ClientID = "web", []byte("\x00container web")
	began := time.Now()
	l := acquire(t, o)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	want := Lease{
		Addr: l.Addr, Server: ours, DNS: []netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.4")},
		Search: []string{"lan", "example.com"}, MTU: 1400, NTP: []netip.Addr{netip.MustParseAddr("10.0.0.6")}, Routes: []Route{{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("10.0.0.8")}},
		Got: l.Got, Renew: time.Minute, Rebind: 105 * time.Second, Expire: 2 * time.Minute,
	}
	// dnsmasq adds some to T1 and T2, so that not all come at once.
	if d := cmp.Diff(want, l, asText, cmpopts.EquateApproxTime(0), cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < 15*time.Second })); d != "" {
		t.Errorf("lease: %s", d)
	}
	if !strings.Contains(leases(), l.Addr.Addr().String()+" web 00:63:6f") {
		t.Errorf("dnsmasq has %s", leases())
	}
	n.has(l)

	// A later process goes on with what was stored. T1 has passed meanwhile.
	var stored Lease
	b, err := json.Marshal(l)
	if err == nil {
		err = json.Unmarshal(b, &stored)
	}
	if err != nil {
		t.Fatal(err)
	}
	for what, age := range map[string]time.Duration{"T1": l.Renew, "T2": l.Rebind} {
		stored.Got = time.Now().Add(-age)
		reports, ended, cancel := keep(t, o, stored)
		renewed := next(t, reports)
		if renewed.Addr != l.Addr || time.Since(renewed.Got) > 5*time.Second || renewed.Expire != l.Expire {
			t.Errorf("after %s: %+v", what, renewed)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Keep = %v", err)
		}
	}

	// Without its address, as after a reboot: the same again.
	testns.Sh(t, n.box, "ip addr flush dev eth0")
	o.Previous = &l
	if again := acquire(t, o); again.Addr != l.Addr {
		t.Errorf("again: %s, had %s", again.Addr, l.Addr)
	}
	// One from elsewhere is refused, and another given.
	moved := l
	moved.Addr = netip.MustParsePrefix("192.168.7.7/24")
	o.Previous = &moved
	if again := acquire(t, o); again.Addr != l.Addr {
		t.Errorf("after a move: %s, had %s", again.Addr, l.Addr)
	}
	n.has(l)
	if err := Release(t.Context(), o, l); err != nil {
		t.Error(err)
	}
	eventually(t, "dnsmasq forgets the lease", func() bool { return !strings.Contains(leases(), l.Addr.Addr().String()) })
}

// TestConflict: the address that a server gives is somebody's already.
func TestConflict(t *testing.T) {
	n := newLan(t)
	leases := n.dnsmasq()
	checkGoroutines(t)
	squatter := testns.New(t)
	n.plug(squatter, "squat0")
	o := n.options()
	first := acquire(t, o)
	if err := Release(t.Context(), o, first); err == nil || !strings.Contains(err.Error(), "cannot assign requested address") {
		t.Errorf("Release without the address = %v", err)
	}
	testns.Sh(t, squatter, "ip addr add "+first.Addr.String()+" dev eth0")
	second := acquire(t, o)
	if second.Addr == first.Addr || !strings.Contains(leases(), second.Addr.Addr().String()) {
		t.Errorf("got %s, which another has; dnsmasq has %s", second.Addr, leases())
	}
}

func TestNobodyAnswers(t *testing.T) {
	n := newLan(t)
	checkGoroutines(t)
	for what, c := range map[string]struct {
		edit func(*Options)
		do   string // in the box
		kind errs.Kind
		says string
	}{
		"nobody":       {nil, "true", errs.Unavailable, "no DHCP server answered on eth0 within 1.2 s"},
		"link is down": {nil, "ip link set eth0 down", errs.Unavailable, "no DHCP server gave eth0 an address within 1.2 s: network is down"},
		"no link":      {func(o *Options) { o.Link = "eth9" }, "true", errs.Internal, "eth9"},
		"no MAC":       {func(o *Options) { o.Link = "lo" }, "true", errs.Internal, "lo: it has no MAC"},
		"no namespace": {func(o *Options) { o.Netns = "/proc/self/fd/9999" }, "true", errs.NotFound, "/proc/self/fd/9999"},
		"no name":      {func(o *Options) { o.Link = "" }, "true", errs.Invalid, "wants a link"},
	} {
		o := n.options()
		if c.edit != nil {
			c.edit(&o)
		}
		testns.Sh(t, n.box, "ip link set eth0 up; "+c.do)
		ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
		_, err := Acquire(ctx, o)
		cancel()
		if errs.KindOf(err) != c.kind || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Acquire(ctx, n.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestShortLeases has a lease extended, lose its server, run out, and begin
// anew, by a server of ours.
func TestShortLeases(t *testing.T) {
	n := newLan(t)
	checkGoroutines(t)
	store := newBook()
	short := func(c *Config) { c.LeaseTime = 2 * time.Second }
	s := n.serve(store, short)
	o := n.options()
	o.Hostname = "Web"
	l := acquire(t, o)
	if l.Addr.String() != "10.0.0.50/24" || l.Router != ours || len(l.DNS) != 1 {
		t.Errorf("lease %+v", l)
	}
	stored, err := store.Leases()
	if got := s.Leases(); err != nil || len(got) != 1 || got[0].Hostname != "web" || cmp.Diff(stored, got, asText) != "" {
		t.Errorf("leases %+v, stored %+v", got, stored)
	}
	n.has(l)
	reports, ended, cancel := keep(t, o, l)
	for range 3 {
		got := next(t, reports)
		if got.Addr != l.Addr || !got.Got.After(l.Got) {
			t.Errorf("extended: %+v", got)
		}
		l = got
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	lost := next(t, reports)
	for lost.Addr.IsValid() { // it was extended just before
		l, lost = lost, next(t, reports)
	}
	if late := time.Since(l.Got); late < l.Expire || late > l.Expire+time.Second {
		t.Errorf("reported as lost %s after it was got", late)
	}
	n.serve(store, short) // with what was stored
	testns.Sh(t, n.box, "ip addr flush dev eth0")
	if got := next(t, reports); got.Addr != l.Addr {
		t.Errorf("anew: %+v", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Keep = %v", err)
	}

	// It ran out while nobody kept it: asked for again before it is lost.
	old := l
	old.Got = time.Now().Add(-time.Hour)
	reports, _, _ = keep(t, o, old)
	if got := next(t, reports); got.Addr != l.Addr {
		t.Errorf("after a long time: %+v", got)
	}
}

// TestRefused: the address is wanted for something else; and the namespace
// goes.
func TestRefused(t *testing.T) {
	n := newLan(t)
	checkGoroutines(t)
	var mu sync.Mutex // guards taken
	var taken netip.Addr
	n.serve(newBook(), func(c *Config) {
		c.LeaseTime = 2 * time.Second
		c.Taken = func(a netip.Addr) bool { mu.Lock(); defer mu.Unlock(); return a == taken }
	})
	o := n.options()
	gone := make(chan bool)
	o.Enter = func(path string, f func() error) error {
		select {
		case <-gone:
			return os.ErrNotExist
		default:
			return testns.In(path, f)
		}
	}
	l := acquire(t, o)
	n.has(l)
	reports, ended, _ := keep(t, o, l)
	mu.Lock()
	taken = l.Addr.Addr()
	mu.Unlock()
	got := next(t, reports)
	for got.Addr.IsValid() && got.Addr == l.Addr { // it was extended just before
		got = next(t, reports)
	}
	if got.Addr.IsValid() {
		t.Errorf("it is not said that the lease is lost, but %+v", got)
	}
	if got = next(t, reports); !got.Addr.IsValid() || got.Addr == l.Addr {
		t.Errorf("instead: %+v", got)
	}
	n.has(got)
	close(gone)
	if err := <-ended; !errors.Is(err, errs.NotFound) {
		t.Errorf("Keep without its namespace = %v", err)
	}
}

// TestUdhcpc has busybox as a client of ours.
func TestUdhcpc(t *testing.T) {
	n := newLan(t)
	if !strings.Contains(testns.Sh(t, n.box, "busybox --list || true"), "udhcpc") {
		t.Skip("SKIPPED: no udhcpc: install busybox-static")
	}
	checkGoroutines(t)
	store := newBook()
	s := n.serve(store, nil)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(`#!/bin/sh
[ "$1" = bound ] && echo "got $ip/$mask router=$router dns=$dns lease=$lease server=$serverid"
[ "$1" = bound ] && ip addr add $ip/$mask dev $interface
exit 0
`), 0o755); err != nil {
		t.Fatal(err)
	}
	udhcpc := "busybox udhcpc -i eth0 -f -n -q -t 5 -T 1 -s " + script
	for _, c := range []struct{ flags, want string }{
		{" -x hostname:box", "got 10.0.0.50/24 router=10.0.0.1 dns=10.0.0.1 lease=3600 server=10.0.0.1"},
		{" -B", "got 10.0.0.50/24"},                     // it wants answers by broadcast
		{" -r 10.0.0.55", "got 10.0.0.50/24"},           // it has another
		{" -x 0x3d:00616263 -r 10.0.0.55", "10.0.0.55"}, // as another client
	} {
		testns.Sh(t, n.box, "ip addr flush dev eth0")
		if out := testns.Sh(t, n.box, udhcpc+c.flags+" 2>&1"); !strings.Contains(out, c.want) {
			t.Errorf("udhcpc%s: %s", c.flags, out)
		}
		if c.flags == " -x hostname:box" {
			if got := s.Leases(); len(got) != 1 || got[0].Hostname != "box" {
				t.Errorf("leases %+v", got)
			}
		}
	}
	// It stays, and gives its address back at its end.
	testns.Sh(t, n.box, "ip addr flush dev eth0")
	cmd := exec.Command("busybox", "udhcpc", "-i", "eth0", "-f", "-R", "-s", script)
	if err := testns.In(n.box, cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	holds := func(a string) bool {
		return slices.ContainsFunc(s.Leases(), func(h Held) bool { return h.Addr.String() == a })
	}
	eventually(t, "it has its address", func() bool {
		return strings.Contains(testns.Sh(t, n.box, "ip addr show dev eth0"), "10.0.0.50/24")
	})
	if !holds("10.0.0.50") {
		t.Errorf("leases %+v", s.Leases())
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is given back", func() bool { return !holds("10.0.0.50") })
	// A lease that cannot be kept is not given.
	store.mu.Lock()
	store.fail = errors.New("disk full")
	store.mu.Unlock()
	if out := testns.Sh(t, n.box, udhcpc+" 2>&1 || true"); strings.Contains(out, "got") || !strings.Contains(out, "sending select") && !strings.Contains(out, "broadcasting select") {
		t.Errorf("with a store that fails: %s", out)
	}
}

// TestTwoLinks has servers side by side, and says why there cannot be one.
func TestTwoLinks(t *testing.T) {
	n := newLan(t)
	testns.Sh(t, n.host, "ip link add name br1 type bridge; ip addr add 10.1.0.1/24 dev br1; ip link set br1 up")
	other := testns.New(t)
	testns.Wire(t, n.host, "other0", other, "eth0")
	testns.Sh(t, n.host, "ip link set dev other0 master br1")
	checkGoroutines(t)
	n.serve(newBook(), nil)
	n.serve(newBook(), func(c *Config) {
		*c = Config{Link: "br1", Addr: netip.MustParsePrefix("10.1.0.1/24"), Store: newBook(), Enter: c.Enter}
	})
	o := n.options()
	if l := acquire(t, o); l.Addr.String() != "10.0.0.50/24" {
		t.Errorf("on br0: %+v", l)
	}
	o.Netns = other
	if l := acquire(t, o); l.Addr.String() != "10.1.0.2/24" || l.Router.IsValid() {
		t.Errorf("on br1: %+v", l)
	}
}

func TestListenFails(t *testing.T) {
	host := testns.New(t)
	enter := func(f func() error) error { return testns.In(host, f) }
	s, err := NewServer(Config{Link: "br7", Addr: netip.MustParsePrefix("10.7.0.1/24"), Store: newBook(), Enter: enter})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "br7") {
		t.Errorf("Listen on no link = %v", err)
	}
	testns.Sh(t, host, "ip link add name br7 type bridge; ip link set br7 up")
	var c net.PacketConn
	if err := enter(func() (err error) { c, err = net.ListenPacket("udp4", ":67"); return err }); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "br7") {
		t.Errorf("Listen beside another = %v", err)
	}
	c.Close()
	if err := s.Listen(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestGarbageOnTheWire has answers to nobody and to others beside the true one.
func TestGarbageOnTheWire(t *testing.T) {
	n := newLan(t)
	n.serve(newBook(), nil)
	o := n.options()
	var c net.PacketConn
	err := testns.In(n.host, func() (err error) {
		c, err = listenUDP(t.Context(), "br0", netip.MustParseAddrPort("0.0.0.0:6767"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		forged := ack(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer))
		for ctx.Err() == nil {
			for _, b := range [][]byte{[]byte("garbage"), forged.ToBytes(), nil} {
				_, _ = c.WriteTo(b, &net.UDPAddr{IP: net.IPv4bcast, Port: clientPort})
			}
			time.Sleep(time.Millisecond)
		}
	})
	if l := acquire(t, o); l.Addr.String() != "10.0.0.50/24" {
		t.Errorf("lease %+v", l)
	}
}

func TestSleep(t *testing.T) {
	checkGoroutines(t)
	began, up := time.Now(), uptime()
	if err := sleep(t.Context(), 30*time.Millisecond); err != nil || time.Since(began) < 30*time.Millisecond || uptime()-up < 30*time.Millisecond {
		t.Errorf("slept %s, %v", time.Since(began), err)
	}
	if err := sleep(t.Context(), -time.Hour); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("slept %s, %v", time.Since(began), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}
}

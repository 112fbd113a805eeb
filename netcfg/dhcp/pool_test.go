package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var (
	noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	ours = netip.MustParseAddr("10.0.0.1")
)

// A counter is where clients come to in a test of the pool.
type counter struct {
	t     testing.TB
	pool  *pool
	now   time.Time
	taken map[netip.Addr]bool
	store map[netip.Addr]Held // what was put and not dropped
}

func newCounter(t testing.TB, held ...Held) *counter {
	t.Helper()
	c := &counter{t: t, now: noon, taken: map[netip.Addr]bool{}, store: map[netip.Addr]Held{}}
	cfg := Config{
		Link: "br0", Addr: netip.MustParsePrefix("10.0.0.1/24"), Router: ours, DNS: []netip.Addr{ours},
		Start: netip.MustParseAddr("10.0.0.10"), End: netip.MustParseAddr("10.0.0.13"),
		Taken: func(a netip.Addr) bool { return c.taken[a] }, Store: memory{}, LeaseTime: time.Hour,
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.pool = newPool(s.cfg, held)
	return c
}

// memory is a Store that forgets.
type memory struct{}

func (memory) Leases() ([]Held, error) { return nil, nil }
func (memory) Put(Held) error          { return nil }
func (memory) Drop(netip.Addr) error   { return nil }

func macOf(n int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// say is a message of client n, and in short what is answered: "" for silence.
func (c *counter) say(n int, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) string {
	c.t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(macOf(n)), dhcpv4.WithMessageType(kind)}, more...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	if m, err = dhcpv4.FromBytes(m.ToBytes()); err != nil {
		c.t.Fatal(err)
	}
	did, err := c.pool.handle(m, c.now)
	for _, a := range did.drop {
		delete(c.store, a)
	}
	if did.put != nil {
		c.store[did.put.Addr] = *did.put
	}
	switch {
	case err != nil:
		return "error: " + err.Error()
	case did.reply == nil:
		return ""
	}
	r, err := dhcpv4.FromBytes(did.reply.ToBytes())
	if err != nil {
		c.t.Fatal(err)
	}
	if r.TransactionID != m.TransactionID || r.ClientHWAddr.String() != m.ClientHWAddr.String() || r.OpCode != dhcpv4.OpcodeBootReply ||
		addrOf(r.ServerIdentifier()) != ours {
		c.t.Errorf("answer to %s is %s", m, r)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", r.MessageType(), strings.TrimPrefix(addrOf(r.YourIPAddr).String(), "0.0.0.0")))
}

func wants(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(a)))
}

func from(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(a)))
}

func has(a string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(a)) }

func id(s string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{0}, s...)))
}

const (
	discover = dhcpv4.MessageTypeDiscover
	request  = dhcpv4.MessageTypeRequest
	decline  = dhcpv4.MessageTypeDecline
	release  = dhcpv4.MessageTypeRelease
	inform   = dhcpv4.MessageTypeInform
)

func TestPool(t *testing.T) {
	type step struct {
		who  int
		kind dhcpv4.MessageType
		with []dhcpv4.Modifier
		want string
		edit func(*counter) // before it
	}
	with := func(m ...dhcpv4.Modifier) []dhcpv4.Modifier { return m }
	later := func(d time.Duration) func(*counter) { return func(c *counter) { c.now = c.now.Add(d) } }
	take := func(a string) func(*counter) {
		return func(c *counter) { c.taken[netip.MustParseAddr(a)] = true }
	}
	one := []step{
		{1, discover, nil, "OFFER 10.0.0.10", nil},
		{1, request, with(wants("10.0.0.10"), from("10.0.0.1")), "ACK 10.0.0.10", nil},
	}
	for what, steps := range map[string][]step{
		"in turn": append(one[:2:2],
			step{2, discover, nil, "OFFER 10.0.0.11", nil},
			step{2, discover, nil, "OFFER 10.0.0.11", nil},
			step{3, discover, nil, "OFFER 10.0.0.12", nil},
			step{1, discover, nil, "OFFER 10.0.0.10", nil},
		),
		"the one it wants":            {{1, discover, with(wants("10.0.0.12")), "OFFER 10.0.0.12", nil}},
		"one it cannot have":          {{1, discover, with(wants("10.0.0.99")), "OFFER 10.0.0.10", nil}},
		"none that is taken":          {{1, discover, nil, "OFFER 10.0.0.11", take("10.0.0.10")}},
		"taken since it was offered":  {{1, discover, nil, "OFFER 10.0.0.10", nil}, {1, request, with(wants("10.0.0.10"), from("10.0.0.1")), "NAK", take("10.0.0.10")}},
		"taken since it was given":    append(one[:2:2], step{1, request, with(has("10.0.0.10")), "NAK", take("10.0.0.10")}, step{1, discover, nil, "OFFER 10.0.0.11", nil}),
		"the same after it ran out":   append(one[:2:2], step{2, discover, nil, "OFFER 10.0.0.11", later(3 * time.Hour)}, step{1, discover, nil, "OFFER 10.0.0.10", nil}),
		"nobody else's":               append(one[:2:2], step{2, discover, with(wants("10.0.0.10")), "OFFER 10.0.0.11", nil}, step{2, request, with(wants("10.0.0.10"), from("10.0.0.1")), "NAK", nil}),
		"extended":                    append(one[:2:2], step{1, request, with(has("10.0.0.10")), "ACK 10.0.0.10", later(30 * time.Minute)}, step{1, request, with(has("10.0.0.10")), "ACK 10.0.0.10", later(50 * time.Minute)}),
		"extended when it is late":    append(one[:2:2], step{1, request, with(has("10.0.0.10")), "ACK 10.0.0.10", later(2 * time.Hour)}),
		"after a reboot":              append(one[:2:2], step{1, request, with(wants("10.0.0.10")), "ACK 10.0.0.10", nil}),
		"after a move":                append(one[:2:2], step{1, request, with(wants("192.168.1.5")), "NAK", nil}),
		"another than its own":        append(one[:2:2], step{1, request, with(wants("10.0.0.12")), "NAK", nil}),
		"a stranger that moved here":  {{1, request, with(wants("192.168.1.5")), "NAK", nil}},
		"a stranger that is unknown":  {{1, request, with(wants("10.0.0.12")), "", nil}, {1, request, with(has("10.0.0.12")), "", nil}},
		"a stranger with another's":   append(one[:2:2], step{2, request, with(wants("10.0.0.10")), "NAK", nil}, step{2, request, with(has("10.0.0.10")), "NAK", nil}),
		"nothing asked for":           {{1, request, nil, "", nil}},
		"another server's offer":      {{1, discover, nil, "OFFER 10.0.0.10", nil}, {1, request, with(wants("10.0.0.77"), from("10.0.0.2")), "", nil}, {2, discover, with(wants("10.0.0.10")), "OFFER 10.0.0.10", nil}},
		"an offer lasts a minute":     {{1, discover, nil, "OFFER 10.0.0.10", nil}, {2, discover, with(wants("10.0.0.10")), "OFFER 10.0.0.11", later(59 * time.Second)}, {3, discover, with(wants("10.0.0.10")), "OFFER 10.0.0.10", later(2 * time.Second)}},
		"in use by another":           append(one[:2:2], step{1, decline, with(wants("10.0.0.10"), from("10.0.0.1")), "", nil}, step{1, discover, with(wants("10.0.0.10")), "OFFER 10.0.0.11", nil}, step{2, discover, with(wants("10.0.0.10")), "OFFER 10.0.0.10", later(61 * time.Minute)}),
		"declined by a stranger":      append(one[:2:2], step{2, decline, with(wants("10.0.0.10"), from("10.0.0.1")), "", nil}, step{1, request, with(has("10.0.0.10")), "ACK 10.0.0.10", nil}),
		"given back":                  append(one[:2:2], step{1, release, with(has("10.0.0.10")), "", nil}, step{1, discover, nil, "OFFER 10.0.0.10", nil}),
		"given back by a stranger":    append(one[:2:2], step{2, release, with(has("10.0.0.10")), "", nil}, step{2, request, with(wants("10.0.0.10")), "NAK", nil}),
		"only settings":               {{1, inform, with(has("10.0.0.77")), "ACK", nil}, {1, inform, nil, "", nil}},
		"by identifier, not by MAC":   {{1, discover, with(id("a")), "OFFER 10.0.0.10", nil}, {1, discover, with(id("b")), "OFFER 10.0.0.11", nil}, {2, discover, with(id("a")), "OFFER 10.0.0.10", nil}},
		"through a relay":             {{1, discover, with(dhcpv4.WithGatewayIP(net.IPv4(10, 0, 0, 9))), "", nil}},
		"an answer":                   {{1, dhcpv4.MessageTypeOffer, nil, "", nil}},
		"all given, then one is free": {{1, discover, nil, "OFFER 10.0.0.10", nil}, {2, discover, nil, "OFFER 10.0.0.11", nil}, {3, discover, nil, "OFFER 10.0.0.12", nil}, {4, discover, nil, "OFFER 10.0.0.13", nil}, {5, discover, nil, "error: all addresses from 10.0.0.10 to 10.0.0.13 are given", nil}, {5, discover, nil, "", nil}, {5, discover, nil, "OFFER 10.0.0.10", later(61 * time.Second)}},
	} {
		c := newCounter(t)
		for i, s := range steps {
			if s.edit != nil {
				s.edit(c)
			}
			if got := c.say(s.who, s.kind, s.with...); got != s.want {
				t.Errorf("%s: step %d: %q, want %q", what, i, got, s.want)
			}
		}
	}
}

// TestOldestIsGivenAgain: all addresses had a client once.
func TestOldestIsGivenAgain(t *testing.T) {
	c := newCounter(t)
	get := func(n int, want string) {
		t.Helper()
		if got := c.say(n, discover); got != "OFFER "+want {
			t.Fatalf("client %d: %s, want %s", n, got, want)
		}
		if got := c.say(n, request, wants(want), from("10.0.0.1"), dhcpv4.WithOption(dhcpv4.OptHostName(fmt.Sprintf("Host%d.lan", n)))); got != "ACK "+want {
			t.Fatalf("client %d: %s, want %s", n, got, want)
		}
		c.now = c.now.Add(time.Minute)
	}
	for i := range 4 {
		get(i+1, fmt.Sprintf("10.0.0.1%d", i))
	}
	if got := c.pool.leases(c.now); len(got) != 4 || got[0].Hostname != "host1" || got[0].MAC != "02:00:00:00:00:01" {
		t.Errorf("leases %v", got)
	}
	if got := c.say(5, discover); !strings.HasPrefix(got, "error") {
		t.Errorf("a fifth client: %s", got)
	}
	get(1, "10.0.0.10") // which makes 2 the oldest
	c.now = c.now.Add(2 * time.Hour)
	get(5, "10.0.0.11")
	get(2, "10.0.0.12")
	if len(c.store) != 4 || len(c.pool.of) != 4 || len(c.pool.held) != 4 {
		t.Errorf("stored %v", c.store)
	}
	// Another process goes on with what was stored.
	var held []Held
	for _, h := range c.store {
		held = append(held, h)
	}
	next := newCounter(t, held...)
	next.now = c.now
	if got := next.say(2, discover); got != "OFFER 10.0.0.12" {
		t.Errorf("after a restart: %s", got)
	}
	if got := next.say(1, request, has("10.0.0.10")); got != "ACK 10.0.0.10" {
		t.Errorf("after a restart: %s", got)
	}
}

// TestPoolIsBounded has a client with ever new names.
func TestPoolIsBounded(t *testing.T) {
	c := newCounter(t)
	c.pool.cfg.Addr = netip.MustParsePrefix("10.0.0.1/8")
	c.pool.cfg.End = netip.MustParseAddr("10.255.255.254")
	for i := range 2 * maxOffers {
		c.say(i, discover)
	}
	if len(c.pool.offers) > maxOffers {
		t.Errorf("%d offers", len(c.pool.offers))
	}
	c.now = c.now.Add(2 * offered)
	for i := range maxHeld + 100 {
		if a, ok := strings.CutPrefix(c.say(i, discover), "OFFER "); ok {
			c.say(i, request, wants(a), from("10.0.0.1"))
		}
	}
	if len(c.store) != maxHeld || len(c.pool.held) != maxHeld || len(c.pool.of) != maxHeld || len(c.pool.offers) != 0 {
		t.Errorf("%d stored, %d and %d held, %d offered", len(c.store), len(c.pool.held), len(c.pool.of), len(c.pool.offers))
	}
	c.now = c.now.Add(2 * time.Hour)
	if got := c.say(9000, discover); !strings.HasPrefix(got, "OFFER") {
		t.Errorf("when they have run out: %q", got)
	}
}

func TestHostname(t *testing.T) {
	for s, want := range map[string]string{
		"Web-1": "web-1", "web.example.com": "web", "web\x00": "web", "": "", "-a": "", "a-": "", "a b": "", "a\nb": "", ".": "",
		strings.Repeat("x", 63): strings.Repeat("x", 63), strings.Repeat("x", 64): "",
	} {
		if got := hostname(s); got != want {
			t.Errorf("hostname(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestRange(t *testing.T) {
	p := netip.MustParsePrefix
	a := func(s string) netip.Addr {
		if s == "" {
			return netip.Addr{}
		}
		return netip.MustParseAddr(s)
	}
	for _, c := range []struct {
		addr       netip.Prefix
		start, end string
		want       string // "": refused
	}{
		{p("10.0.0.1/24"), "", "", "10.0.0.1-10.0.0.254"},
		{p("10.0.0.1/30"), "", "", "10.0.0.1-10.0.0.2"},
		{p("10.0.0.1/24"), "10.0.0.5", "10.0.0.5", "10.0.0.5-10.0.0.5"},
		{p("10.0.0.1/24"), "10.0.0.6", "10.0.0.5", ""},
		{p("10.0.0.1/24"), "10.0.0.0", "10.0.0.5", ""},
		{p("10.0.0.1/24"), "10.0.0.5", "10.0.0.255", ""},
		{p("10.0.0.1/24"), "10.0.1.5", "10.0.1.6", ""},
		{p("10.0.0.1/24"), "fd00::1", "fd00::2", ""},
		{p("10.0.0.1/31"), "", "", ""},
		{p("fd00::1/64"), "", "", ""},
		{netip.Prefix{}, "", "", ""},
	} {
		cfg := Config{Link: "br0", Addr: c.addr, Start: a(c.start), End: a(c.end)}
		got := ""
		if err := cfg.setRange(); err == nil {
			got = fmt.Sprintf("%s-%s", cfg.Start, cfg.End)
		}
		if got != c.want {
			t.Errorf("%s with %q to %q: %q, want %q", c.addr, c.start, c.end, got, c.want)
		}
	}
}

// FuzzPool takes any messages, one after the other: no address is two
// clients', none is out of range, and what is answered can be read.
func FuzzPool(f *testing.F) {
	for _, more := range [][]dhcpv4.Modifier{
		{dhcpv4.WithMessageType(discover)},
		{dhcpv4.WithMessageType(request), wants("10.0.0.10"), from("10.0.0.1"), id("x")},
		{dhcpv4.WithMessageType(release), has("10.0.0.10")},
	} {
		m, err := dhcpv4.New(append(more, dhcpv4.WithHwAddr(macOf(1)))...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.ToBytes(), []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, b, kinds []byte) {
		c := newCounter(t)
		for i, k := range kinds {
			m, err := dhcpv4.FromBytes(b)
			if err != nil {
				return
			}
			m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageType(k % 10)))
			m.ClientHWAddr = macOf(i % 3)
			did, _ := c.pool.handle(m, c.now)
			if did.reply != nil {
				if _, err := dhcpv4.FromBytes(did.reply.ToBytes()); err != nil {
					t.Fatal(err)
				}
			}
			c.now = c.now.Add(time.Duration(k) * time.Second)
		}
		for a, h := range c.pool.held {
			if h.Addr != a || !c.pool.inRange(a) || c.pool.of[h.Client] != h || a == ours {
				t.Fatalf("%s is held as %v", a, h)
			}
		}
		if len(c.pool.held) != len(c.pool.of) {
			t.Fatalf("%d addresses of %d clients", len(c.pool.held), len(c.pool.of))
		}
	})
}

package netcfg

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestAllocate(t *testing.T) {
	for _, tt := range []struct{ prefix, from, taken, after, want string }{
		{"172.18.0.0/16", "", "", "", "172.18.0.2"},
		{"172.18.0.0/16", "", "", "172.18.0.2", "172.18.0.3"},
		{"172.18.0.0/16", "", "172.18.0.3 172.18.0.4", "172.18.0.2", "172.18.0.5"},
		{"172.18.0.0/16", "", "", "172.18.255.254", "172.18.0.2"},
		{"172.18.0.0/16", "", "", "172.18.255.255", "172.18.0.2"},
		{"172.18.0.0/16", "", "", "172.18.0.0", "172.18.0.2"},
		{"172.18.0.0/16", "", "", "9.9.9.9", "172.18.0.2"},
		{"172.18.7.7/16", "", "", "fd00::1", "172.18.0.1"}, // its own address is another
		{"172.18.7.7/16", "", "", "172.18.7.6", "172.18.7.8"},
		{"10.0.0.0/30", "", "", "", "10.0.0.2"},
		{"10.0.0.0/30", "", "10.0.0.2", "", "no free address in 10.0.0.0/30"},
		{"10.0.0.0/29", "", "10.0.0.6", "10.0.0.5", "10.0.0.2"},
		{"255.255.255.248/29", "", "", "255.255.255.253", "255.255.255.254"},
		{"255.255.255.248/29", "", "", "255.255.255.254", "255.255.255.250"},
		{"10.0.0.0/31", "", "", "", "prefix 10.0.0.0/31 has no address for containers"},
		{"10.0.0.0/32", "", "", "", "prefix 10.0.0.0/32 has no address for containers"},
		{"10.1.0.1/24", "10.1.0.10-10.1.0.12", "", "", "10.1.0.10"},
		{"10.1.0.1/24", "10.1.0.10-10.1.0.12", "", "10.1.0.11", "10.1.0.12"},
		{"10.1.0.1/24", "10.1.0.10-10.1.0.12", "", "10.1.0.12", "10.1.0.10"},
		{"10.1.0.1/24", "10.1.0.10-10.1.0.12", "", "10.1.0.200", "10.1.0.10"},
		{"10.1.0.1/24", "10.1.0.10-10.1.0.12", "10.1.0.10 10.1.0.11 10.1.0.12", "", "no free address in 10.1.0.1/24"},
		{"10.1.0.11/24", "10.1.0.10-10.1.0.12", "10.1.0.10", "", "10.1.0.12"},
		{"10.1.0.1/24", "10.1.0.250-", "", "10.1.0.254", "10.1.0.250"},
		{"10.1.0.1/24", "-10.1.0.3", "10.1.0.2", "", "10.1.0.3"},
		{"fd00::/64", "", "", "", "fd00::2"},
		{"fd00::1/64", "", "", "fd00::ff", "fd00::100"},
		{"fd00::1/126", "", "fd00::2", "", "fd00::3"},
	} {
		taken := map[netip.Addr]bool{}
		for s := range strings.FieldsSeq(tt.taken) {
			taken[netip.MustParseAddr(s)] = true
		}
		after, _ := netip.ParseAddr(tt.after)
		low, high, _ := strings.Cut(tt.from, "-")
		first, _ := netip.ParseAddr(low)
		last, _ := netip.ParseAddr(high)
		a, err := Allocate(netip.MustParsePrefix(tt.prefix), first, last, taken, after)
		got := a.String()
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("Allocate(%s, %s, %q, %q) = %s, want %s", tt.prefix, tt.from, tt.taken, tt.after, got, tt.want)
		}
	}
}

// Whatever is taken and wherever it starts, an address is new and good, and
// all of them are given out once before any comes again.
func TestAllocateProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}), 22+r.IntN(8)).Masked()
		want := 1<<(32-p.Bits()) - 3
		taken, last := map[netip.Addr]bool{}, netip.Addr{}
		if r.IntN(2) == 0 {
			last = netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
		}
		for range want {
			a, err := Allocate(p, netip.Addr{}, netip.Addr{}, taken, last)
			if err != nil || taken[a] || !p.Contains(a) || a == p.Addr() || a == p.Addr().Next() || !p.Contains(a.Next()) {
				t.Fatalf("%s after %s with %d taken: %s, %v", p, last, len(taken), a, err)
			}
			taken[a], last = true, a
		}
		if a, err := Allocate(p, netip.Addr{}, netip.Addr{}, taken, last); !errors.Is(err, errs.Unavailable) {
			t.Fatalf("%s full: %s, %v", p, a, err)
		}
	}
}

func TestNew(t *testing.T) {
	good := Config{Instance: "a1", StateDir: "/run/x"}
	for _, tt := range []struct {
		edit func(*Config)
		want string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Instance = "" }, `network instance "": use 1 to 8 of a-z and 0-9`},
		{func(c *Config) { c.Instance = "A" }, `network instance "A": use 1 to 8 of a-z and 0-9`},
		{func(c *Config) { c.Instance = "ninechars" }, `network instance "ninechars": use 1 to 8 of a-z and 0-9`},
		{func(c *Config) { c.StateDir = "run" }, `network state directory "run": give an absolute path`},
		{func(c *Config) { c.Bridge = "a-name-too-long0" }, `bridge: interface name "a-name-too-long0": use 1 to 15 characters`},
		{func(c *Config) { c.Prefix = prefix("fd00::/64") }, `network prefix fd00::/64: use an IPv4 prefix between /8 and /29`},
		{func(c *Config) { c.Prefix = prefix("10.0.0.0/30") }, `network prefix 10.0.0.0/30: use an IPv4 prefix between /8 and /29`},
		{func(c *Config) { c.Prefix6 = prefix("fd18::/64") }, ""},
		{func(c *Config) { c.Prefix6 = prefix("fd18::/112") }, ""},
		{func(c *Config) { c.Prefix6 = prefix("10.0.0.0/24") }, `network prefix 10.0.0.0/24: use an IPv6 prefix between /64 and /120, like fd00:1234:5678::/64`},
		{func(c *Config) { c.Prefix6 = prefix("fe80::/64") }, `network prefix fe80::/64: use an IPv6 prefix between /64 and /120, like fd00:1234:5678::/64`},
		{func(c *Config) { c.Prefix6 = prefix("fd18::/56") }, `network prefix fd18::/56: use an IPv6 prefix between /64 and /120, like fd00:1234:5678::/64`},
		{func(c *Config) { c.Prefix6 = prefix("fd18::/113") }, `network prefix fd18::/113 has fewer addresses than 172.18.0.0/16; use /112 or shorter`},
		{func(c *Config) { c.Uplink = "a/b" }, `uplink: interface name "a/b": use letters, digits, '.', '-' and '_'`},
		{func(c *Config) { c.Publish = netip.IPv6Loopback() }, `publish address ::1: the kernel forwards nothing from ::1; use 127.0.0.1`},
	} {
		c := good
		tt.edit(&c)
		n, err := New(c)
		if got := errText(err); got != tt.want {
			t.Errorf("%+v: %s, want %s", c, got, tt.want)
		}
		if err == nil && (n.Gateway() != netip.MustParseAddr("172.18.0.1") || n.Prefix() != prefix("172.18.0.0/16")) {
			t.Errorf("defaults: %s %s", n.Gateway(), n.Prefix())
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

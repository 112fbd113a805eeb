package netcfg

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestParsePort(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		in      string
		publish netip.Addr
		want    string // String of it, or the error
	}{
		{"8080:80", netip.Addr{}, "0.0.0.0:8080:80"},
		{"8080:80", local, "127.0.0.1:8080:80"},
		{"8080:80/tcp", local, "127.0.0.1:8080:80"},
		{"8080:80/udp", netip.Addr{}, "0.0.0.0:8080:80/udp"},
		{"192.0.2.1:8080:80", local, "192.0.2.1:8080:80"},
		{"0.0.0.0:1:65535/udp", local, "0.0.0.0:1:65535/udp"},
		{"", local, `port "": write host:guest, for example 8080:80`},
		{"80", local, `port "80": write host:guest, for example 8080:80`},
		{":80", local, `port ":80": host port "" is not a number from 1 to 65535`},
		{"80:", local, `port "80:": guest port "" is not a number from 1 to 65535`},
		{"0:80", local, `port "0:80": host port "0" is not a number from 1 to 65535`},
		{"80:0", local, `port "80:0": guest port "0" is not a number from 1 to 65535`},
		{"65536:80", local, `port "65536:80": host port "65536" is not a number from 1 to 65535`},
		{"-1:80", local, `port "-1:80": host port "-1": ranges are not supported by this version; list the ports one by one`},
		{"8000-8010:80", local, `port "8000-8010:80": host port "8000-8010": ranges are not supported by this version; list the ports one by one`},
		{"http:80", local, `port "http:80": host port "http" is not a number from 1 to 65535`},
		{"+80:80", local, `port "+80:80": host port "+80" is not a number from 1 to 65535`},
		{" 80:80", local, `port " 80:80": host port " 80" is not a number from 1 to 65535`},
		{"80:80/sctp", local, `port "80:80/sctp": the protocol is "sctp"; use tcp or udp`},
		{"80:80/", local, `port "80:80/": the protocol is ""; use tcp or udp`},
		{"80:80/TCP", local, `port "80:80/TCP": the protocol is "TCP"; use tcp or udp`},
		{"[::1]:80:80", local, `port "[::1]:80:80": IPv6 addresses are not supported by this version`},
		{"::1:80:80", local, `port "::1:80:80": IPv6 addresses are not supported by this version`},
		{"eth0:80:80", local, `port "eth0:80:80": "eth0" is not an IPv4 address of this machine`},
		{":80:80", local, `port ":80:80": "" is not an IPv4 address of this machine`},
		{"10.0.0.0/8:80:80", local, `port "10.0.0.0/8:80:80": the protocol is "8:80:80"; use tcp or udp`},
		{"224.0.0.1:80:80", local, `port "224.0.0.1:80:80": 224.0.0.1 is not an address of a machine`},
	} {
		p, err := ParsePort(tt.in, tt.publish)
		got := p.String()
		if err != nil {
			got = err.Error()
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("ParsePort(%q) is not errs.Invalid: %v", tt.in, err)
			}
		}
		if got != tt.want {
			t.Errorf("ParsePort(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"8080:80", "127.0.0.1:8080:80/udp", "1:2/tcp", "[::]:1:1", "99999:1", "a:b:c:d", "1-2:3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePort(s, netip.Addr{})
		if err != nil {
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("%q: %v is not errs.Invalid", s, err)
			}
			return
		}
		if again, err := ParsePort(p.String(), netip.Addr{}); err != nil || again != p {
			t.Errorf("%q: %s reads as %v, %v", s, p, again, err)
		}
		if p.Guest == 0 || p.Host.Port() == 0 || !p.Host.Addr().Is4() {
			t.Errorf("%q = %+v", s, p)
		}
	})
}

func TestAllocate(t *testing.T) {
	for _, tt := range []struct{ prefix, taken, after, want string }{
		{"172.18.0.0/16", "", "", "172.18.0.2"},
		{"172.18.0.0/16", "", "172.18.0.2", "172.18.0.3"},
		{"172.18.0.0/16", "172.18.0.3 172.18.0.4", "172.18.0.2", "172.18.0.5"},
		{"172.18.0.0/16", "", "172.18.255.254", "172.18.0.2"},
		{"172.18.0.0/16", "", "172.18.255.255", "172.18.0.2"},
		{"172.18.0.0/16", "", "172.18.0.0", "172.18.0.2"},
		{"172.18.0.0/16", "", "9.9.9.9", "172.18.0.2"},
		{"172.18.7.7/16", "", "fd00::1", "172.18.0.2"},
		{"10.0.0.0/30", "", "", "10.0.0.2"},
		{"10.0.0.0/30", "10.0.0.2", "", "no free address in 10.0.0.0/30"},
		{"10.0.0.0/29", "10.0.0.6", "10.0.0.5", "10.0.0.2"},
		{"255.255.255.248/29", "", "255.255.255.253", "255.255.255.254"},
		{"255.255.255.248/29", "", "255.255.255.254", "255.255.255.250"},
		{"10.0.0.0/31", "", "", "prefix 10.0.0.0/31 has no address for containers"},
		{"10.0.0.0/32", "", "", "prefix 10.0.0.0/32 has no address for containers"},
		{"fd00::/64", "", "", "prefix fd00::/64: only IPv4 is supported by this version"},
	} {
		taken := map[netip.Addr]bool{}
		for s := range strings.FieldsSeq(tt.taken) {
			taken[netip.MustParseAddr(s)] = true
		}
		after, _ := netip.ParseAddr(tt.after)
		a, err := Allocate(netip.MustParsePrefix(tt.prefix), taken, after)
		got := a.String()
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("Allocate(%s, %q, %q) = %s, want %s", tt.prefix, tt.taken, tt.after, got, tt.want)
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
			a, err := Allocate(p, taken, last)
			if err != nil || taken[a] || !p.Contains(a) || a == p.Addr() || a == p.Addr().Next() || !p.Contains(a.Next()) {
				t.Fatalf("%s after %s with %d taken: %s, %v", p, last, len(taken), a, err)
			}
			taken[a], last = true, a
		}
		if a, err := Allocate(p, taken, last); !errors.Is(err, errs.Unavailable) {
			t.Fatalf("%s full: %s, %v", p, a, err)
		}
	}
}

func TestNICValidate(t *testing.T) {
	for _, tt := range []struct {
		nic  NIC
		want string
	}{
		{NIC{Type: NICDefault}, ""},
		{NIC{Type: NICDefault, Name: "lan0", HWAddr: "02:00:5e:10:00:01", Config: NICConfig{CIDR: "rubbish", Gateway: "x", DHCP: true, DNS: []string{"9.9.9.9", "fd00::1"}}}, ""},
		{NIC{Type: "vlan", ID: "7"}, `NIC type "vlan" is not supported by this version; supported: default (or hostNetworking, or no NIC)`},
		{NIC{}, `NIC type "" is not supported by this version; supported: default (or hostNetworking, or no NIC)`},
		{NIC{Type: NICDefault, Name: "eth7"}, `NIC name "eth7": names must not start with "eth" or "zt"`},
		{NIC{Type: NICDefault, Name: "zt0"}, `NIC name "zt0": names must not start with "eth" or "zt"`},
		{NIC{Type: NICDefault, Name: "default"}, `interface name "default" is reserved`},
		{NIC{Type: NICDefault, Name: "sixteenletters16"}, `interface name "sixteenletters16": use 1 to 15 characters`},
		{NIC{Type: NICDefault, Name: "a/b"}, `interface name "a/b": use letters, digits, '.', '-' and '_'`},
		{NIC{Type: NICDefault, HWAddr: "nonsense"}, `NIC hwaddr "nonsense" is not a MAC address like 02:00:5e:10:00:01`},
		{NIC{Type: NICDefault, HWAddr: "01:00:5e:10:00:01"}, `MAC address 01:00:5e:10:00:01 is a multicast address; a NIC needs a unicast one`},
		{NIC{Type: NICDefault, HWAddr: "00:00:00:00:00:00"}, `MAC address 00:00:00:00:00:00 is all zero`},
		{NIC{Type: NICDefault, HWAddr: "02:00:5e:10:00:00:00:01"}, `MAC address 02:00:5e:10:00:00:00:01 has 8 bytes; an Ethernet one has 6`},
		{NIC{Type: NICDefault, Config: NICConfig{DNS: []string{"dns.example"}}}, `NIC dns server "dns.example" is not an IP address`},
	} {
		err := tt.nic.Validate()
		if got := errText(err); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.nic, got, tt.want)
		}
		if err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%+v: kind of %v", tt.nic, err)
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
		{func(c *Config) { c.Publish = netip.IPv6Loopback() }, `publish address ::1: only IPv4 is supported by this version`},
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

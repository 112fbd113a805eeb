package netcfg

import (
	"encoding/json"
	"errors"
	"net/netip"
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
		{"8080:80", netip.MustParseAddr("::"), "[::]:8080:80"},
		{"8080:80", netip.MustParseAddr("fd00::7"), "[fd00::7]:8080:80"},
		{"[fd00::1]:80:80", local, "[fd00::1]:80:80"},
		{"[2001:DB8:0:0::1]:80:80/udp", local, "[2001:db8::1]:80:80/udp"},
		{"[::]:80:80", local, "[::]:80:80"},
		{"eth0:80:80", local, "eth0:80:80"},
		{"br-lan.7:1000-1001:80/udp", local, "br-lan.7:1000-1001:80/udp"},
		{"10.1.2.3/8:80:80", local, "10.0.0.0/8:80:80"},
		{"10.0.0.0/8:80:80/udp", local, "10.0.0.0/8:80:80/udp"},
		{"[fd00::/8]:80:81", local, "[fd00::/8]:80:81"},
		{"8000-8010:80", local, "127.0.0.1:8000-8010:80"},
		{"8000-8010:9000-9010", local, "127.0.0.1:8000-8010:9000-9010"},
		{"8000-8000:80-80", local, "127.0.0.1:8000:80"},
		{"1-65535:1-65535", local, "127.0.0.1:1-65535:1-65535"},
		{"[fd00::1]:1-2:3-4/udp", local, "[fd00::1]:1-2:3-4/udp"},
		{"", local, `port "": write host:guest, for example 8080:80`},
		{"80", local, `port "80": write host:guest, for example 8080:80`},
		{":80", local, `port ":80": host port "" is not a number from 1 to 65535`},
		{"80:", local, `port "80:": guest port "" is not a number from 1 to 65535`},
		{"0:80", local, `port "0:80": host port "0" is not a number from 1 to 65535`},
		{"80:0", local, `port "80:0": guest port "0" is not a number from 1 to 65535`},
		{"65536:80", local, `port "65536:80": host port "65536" is not a number from 1 to 65535`},
		{"-1:80", local, `port "-1:80": host port "" is not a number from 1 to 65535`},
		{"80-:80", local, `port "80-:80": host port "" is not a number from 1 to 65535`},
		{"90-80:80", local, `port "90-80:80": host port "90-80" ends before it begins`},
		{"1-2-3:80", local, `port "1-2-3:80": host port "2-3" is not a number from 1 to 65535`},
		{"65530-65536:1-7", local, `port "65530-65536:1-7": host port "65536" is not a number from 1 to 65535`},
		{"8000-8010:80-89", local, `port "8000-8010:80-89": 8000-8010 and 80-89 are not equally many ports`},
		{"8000:80-81", local, `port "8000:80-81": 8000 and 80-81 are not equally many ports`},
		{"http:80", local, `port "http:80": host port "http" is not a number from 1 to 65535`},
		{"+80:80", local, `port "+80:80": host port "+80" is not a number from 1 to 65535`},
		{" 80:80", local, `port " 80:80": host port " 80" is not a number from 1 to 65535`},
		{"80:80/sctp", local, `port "80:80/sctp": the protocol is "sctp"; use tcp or udp`},
		{"80:80/", local, `port "80:80/": the protocol is ""; use tcp or udp`},
		{"80:80/TCP", local, `port "80:80/TCP": the protocol is "TCP"; use tcp or udp`},
		{"::1:80:80", local, `port "::1:80:80": write an IPv6 address in brackets, like [fd00::1]:8080:80`},
		{"fd00::/8:80:80", local, `port "fd00::/8:80:80": write an IPv6 address in brackets, like [fd00::1]:8080:80`},
		{"[::1:80:80", local, `port "[::1:80:80": "[::1" is not an IPv6 address in brackets`},
		{"[10.0.0.1]:80:80", local, `port "[10.0.0.1]:80:80": "[10.0.0.1]" is not an IPv6 address in brackets`},
		{"[eth0:]:80:80", local, `port "[eth0:]:80:80": "eth0:" is not an address of a machine`},
		{"[::1]:80:80", local, `port "[::1]:80:80": the kernel forwards nothing from ::1; use 127.0.0.1`},
		{"[fe80::1]:80:80", local, `port "[fe80::1]:80:80": fe80::1 holds on one link only, and nothing is forwarded from there`},
		{"[fe80::1%eth0]:80:80", local, `port "[fe80::1%eth0]:80:80": fe80::1%eth0 holds on one link only, and nothing is forwarded from there`},
		{"[::ffff:10.0.0.1]:80:80", local, `port "[::ffff:10.0.0.1]:80:80": write ::ffff:10.0.0.1 as an IPv4 address`},
		{":80:80", local, `port ":80:80": "" is not an address of a machine`},
		{"10.0.0.300:80:80", local, `port "10.0.0.300:80:80": "10.0.0.300" is not an address of a machine`},
		{"10.0.0.0/33:80:80", local, `port "10.0.0.0/33:80:80": "10.0.0.0/33" is not a prefix like 10.0.0.0/8`},
		{"eth0/8:80:80", local, `port "eth0/8:80:80": "eth0/8" is not a prefix like 10.0.0.0/8`},
		{"an interface:80:80", local, `port "an interface:80:80": interface name "an interface": use letters, digits, '.', '-' and '_'`},
		{"sixteenletters16:80:80", local, `port "sixteenletters16:80:80": interface name "sixteenletters16": use 1 to 15 characters`},
		{"224.0.0.1:80:80", local, `port "224.0.0.1:80:80": 224.0.0.1 is not an address of a machine`},
		{"[ff02::1]:80:80", local, `port "[ff02::1]:80:80": ff02::1 is not an address of a machine`},
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
	for _, s := range []string{"8080:80", "127.0.0.1:8080:80/udp", "1:2/tcp", "[::]:1:1", "99999:1", "a:b:c:d", "1-2:3", "eth0:1-3:4-6", "[fd00::/9]:1:1", "0.0.0.0/0:7:7"} {
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
		if p.Guest == 0 || p.Host.Port() == 0 || !p.Host.Addr().IsValid() || p.Count == 1 {
			t.Errorf("%q = %+v", s, p)
		}
	})
}

func TestPortsCollide(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"80:1", "80:2", true},
		{"80:1", "81:1", false},
		{"80:1/udp", "80:1", false},
		{"127.0.0.1:80:1", "80:2", true},
		{"127.0.0.1:80:1", "127.0.0.2:80:2", false},
		{"80-90:80-90", "90:1", true},
		{"80-90:80-90", "91-99:1", false},
		{"80:1", "[fd00::1]:80:1", false},
		{"[::]:80:1", "80:1", true},
		{"[::]:80:1", "127.0.0.1:80:1", true},
		{"[::]:80:1", "[fd00::1]:80:1", true},
		{"[::]:80:1", "[fd00::/8]:80:1", true},
		{"0.0.0.0:80:1", "[fd00::/8]:80:1", false},
		{"0.0.0.0:80:1", "10.0.0.0/8:80:1", true},
		{"10.1.0.0/16:80:1", "10.0.0.0/8:80:1", true},
		{"10.1.0.0/16:80:1", "10.2.0.0/16:80:1", false},
		{"10.1.0.0/16:80:1", "10.1.2.3:80:1", true},
		{"10.1.0.0/16:80:1", "10.2.2.3:80:1", false},
		{"10.1.0.0/16:80:1", "[fd00::1]:80:1", false},
		{"eth0:80:1", "eth0:80:2", true},
		{"eth0:80:1", "eth1:80:2", false},
		{"eth0:80:1", "80:2", true},
		{"eth0:80:1", "[::]:80:2", true},
		{"eth0:80:1", "127.0.0.1:80:2", false},
		{"eth0:80:1", "127.0.0.0/8:80:2", false},
	} {
		a, errA := ParsePort(tt.a, netip.Addr{})
		b, errB := ParsePort(tt.b, netip.Addr{})
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Collides(b) != tt.want || b.Collides(a) != tt.want {
			t.Errorf("%s and %s: %v, %v", a, b, a.Collides(b), b.Collides(a))
		}
	}
}

func TestPortForwards(t *testing.T) {
	four, six := netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd00::2")
	for in, want := range map[string]int{
		"80:80": 1, "[::]:80:80": 2, "eth0:80:80": 2, "10.0.0.1:80:80": 1, "[fd00::1]:80:80": 1, "10.0.0.0/8:80:80": 1, "[fd00::/8]:80:80": 1,
	} {
		p, err := ParsePort(in, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Forwards("c", four, six); len(got) != want {
			t.Errorf("%s: %v", in, got)
		}
		if p.Host.Addr().Is4() && len(p.Forwards("c", six)) != 0 || in[:2] == "[f" && len(p.Forwards("c", four)) != 0 {
			t.Errorf("%s leads to an address of the other kind", in)
		}
	}
}

// What a database keeps of a port is all of it, and one from before there were
// ranges reads as it was.
func TestPortAsJSON(t *testing.T) {
	for _, in := range []string{"80:80", "[::]:1-3:1-3/udp", "eth0:1-3:9", "10.0.0.0/8:80:80"} {
		p, err := ParsePort(in, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var again Port
		if err := json.Unmarshal(raw, &again); err != nil || again != p {
			t.Errorf("%s: %s is %+v, %v", in, raw, again, err)
		}
	}
	if raw, err := json.Marshal(Port{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:80"), Guest: 8}); err != nil || string(raw) != `{"Proto":"tcp","Host":"0.0.0.0:80","Guest":8}` {
		t.Errorf("%s, %v", raw, err)
	}
}

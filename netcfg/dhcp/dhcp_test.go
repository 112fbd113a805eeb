package dhcp

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

var asText = cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})

// ack is a server's answer.
func ack(t testing.TB, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 9)), dhcpv4.WithLeaseTime(800),
		dhcpv4.WithNetmask(net.CIDRMask(20, 32)), from("10.0.0.1"),
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = dhcpv4.FromBytes(m.ToBytes()); err != nil {
		t.Fatal(err)
	}
	return m
}

func generic(code dhcpv4.OptionCode, b ...byte) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptGeneric(code, b))
}

func TestLeaseOf(t *testing.T) {
	plain := Lease{
		Addr: netip.MustParsePrefix("10.0.0.9/20"), Server: ours, Got: noon,
		Renew: 400 * time.Second, Rebind: 700 * time.Second, Expire: 800 * time.Second,
	}
	router := netip.MustParseAddr("10.0.0.254")
	for what, c := range map[string]struct {
		with []dhcpv4.Modifier
		want func(*Lease) // nil: refused
	}{
		"the least": {nil, func(l *Lease) {}},
		"all": {
			[]dhcpv4.Modifier{
				dhcpv4.WithRouter(net.IPv4(10, 0, 0, 254), net.IPv4(10, 0, 0, 253)), dhcpv4.WithDNS(net.IPv4(10, 0, 0, 3), net.IPv4(127, 0, 0, 1)),
				dhcpv4.WithDomainSearchList("lan", "example.com"), generic(dhcpv4.OptionInterfaceMTU, 5, 0),
				dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(time.Minute)), dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(2 * time.Minute)),
			},
			func(l *Lease) {
				l.Router, l.DNS, l.Search, l.MTU = router, []netip.Addr{netip.MustParseAddr("10.0.0.3")}, []string{"lan", "example.com"}, 1280
				l.Renew, l.Rebind = time.Minute, 2*time.Minute
			},
		},
		"times out of order": {
			[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(time.Hour)), dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(time.Minute))},
			func(l *Lease) { l.Renew, l.Rebind = time.Minute, time.Minute },
		},
		"T2 alone": {
			[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptRebindingTimeValue(time.Hour))}, func(l *Lease) {},
		},
		"hardly any time": {
			[]dhcpv4.Modifier{dhcpv4.WithLeaseTime(1)},
			func(l *Lease) { l.Renew, l.Rebind, l.Expire = time.Second, 1750*time.Millisecond, 2*time.Second },
		},
		"for ever": {
			[]dhcpv4.Modifier{dhcpv4.WithLeaseTime(1<<32 - 1)},
			func(l *Lease) {
				l.Expire = (1<<32 - 1) * time.Second
				l.Renew, l.Rebind = l.Expire/2, l.Expire/8*7
			},
		},
		"routes instead of a router": {
			[]dhcpv4.Modifier{
				dhcpv4.WithRouter(net.IPv4(10, 0, 0, 7)),
				generic(dhcpv4.OptionClasslessStaticRoute, 0, 10, 0, 0, 254, 16, 10, 9, 10, 0, 0, 8, 8, 11, 0, 0, 0, 0),
			},
			func(l *Lease) {
				l.Router = router
				l.Routes = []Route{
					{netip.MustParsePrefix("10.9.0.0/16"), netip.MustParseAddr("10.0.0.8")},
					{netip.MustParsePrefix("11.0.0.0/8"), netip.Addr{}},
				}
			},
		},
		"time servers": {
			[]dhcpv4.Modifier{generic(dhcpv4.OptionNTPServers, 10, 0, 0, 6, 224, 0, 1, 1)},
			func(l *Lease) { l.NTP = []netip.Addr{netip.MustParseAddr("10.0.0.6")} },
		},
		"one domain":            {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptDomainName("lan"))}, func(l *Lease) { l.Search = []string{"lan"} }},
		"a domain and more":     {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptDomainName("lan\nnameserver 6.6.6.6"))}, func(l *Lease) {}},
		"a search and more":     {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{"a\nb", "lan"}}))}, func(l *Lease) { l.Search = []string{"lan"} }},
		"no mask":               {[]dhcpv4.Modifier{dhcpv4.WithoutOption(dhcpv4.OptionSubnetMask)}, func(l *Lease) { l.Addr = netip.MustParsePrefix("10.0.0.9/8") }},
		"itself as router":      {[]dhcpv4.Modifier{dhcpv4.WithRouter(net.IPv4(10, 0, 0, 9))}, func(l *Lease) {}},
		"a tiny MTU":            {[]dhcpv4.Modifier{generic(dhcpv4.OptionInterfaceMTU, 0, 68)}, func(l *Lease) {}},
		"no address":            {[]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4zero)}, nil},
		"a group":               {[]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))}, nil},
		"loopback":              {[]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1))}, nil},
		"broadcast":             {[]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4bcast)}, nil},
		"a mask with holes":     {[]dhcpv4.Modifier{dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0))}, nil},
		"no server":             {[]dhcpv4.Modifier{dhcpv4.WithoutOption(dhcpv4.OptionServerIdentifier)}, nil},
		"nobody knows how long": {[]dhcpv4.Modifier{dhcpv4.WithoutOption(dhcpv4.OptionIPAddressLeaseTime)}, nil},
	} {
		got, err := leaseOf(ack(t, c.with...), noon)
		if c.want == nil {
			if err == nil {
				t.Errorf("%s: %+v", what, got)
			}
			continue
		}
		want := plain
		c.want(&want)
		if d := cmp.Diff(want, got, asText, cmpopts.EquateEmpty()); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", what, err, d)
		}
		var back Lease
		b, err := json.Marshal(got)
		if err == nil {
			err = json.Unmarshal(b, &back)
		}
		if d := cmp.Diff(got, back, asText, cmpopts.EquateEmpty()); d != "" || err != nil {
			t.Errorf("%s: as JSON: %v\n%s", what, err, d)
		}
	}
}

func TestPacket(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, message := range []string{"", "x", "hello", strings.Repeat("y", 1472)} {
		p := packet(a, b, 67, 68, []byte(message))
		if got := sum(0, p[:ipv4Header]); got != 0xffff {
			t.Errorf("%d bytes: the header's checksum is wrong by %x", len(message), got)
		}
		pseudo := append(bytes.Clone(p[12:20]), 0, 17, p[24], p[25])
		if got := sum(sum(0, pseudo), p[ipv4Header:]); got != 0xffff {
			t.Errorf("%d bytes: the checksum of UDP is wrong by %x", len(message), got)
		}
		got, err := unpacket(append(p, "padding"...), 68)
		if string(got) != message || err != nil {
			t.Errorf("%d bytes come back as %d, %v", len(message), len(got), err)
		}
		if _, err := unpacket(p, 67); err == nil {
			t.Error("a packet to another port is taken")
		}
		for i := range len(p) {
			if _, err := unpacket(p[:i], 68); err == nil {
				t.Errorf("%d of %d bytes are taken", i, len(p))
			}
		}
	}
}

func TestARP(t *testing.T) {
	a, other := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.8")
	probe := arpProbe(macOf(7), a)
	claim := bytes.Clone(probe) // "10.0.0.9 is at 02:...:07"
	claim[7] = 2
	copy(claim[14:18], a.AsSlice())
	asks := bytes.Clone(probe) // 10.0.0.8 asks for 10.0.0.9
	copy(asks[14:18], other.AsSlice())
	for what, c := range map[string]struct {
		b    []byte
		want bool
	}{"a probe": {probe, true}, "a claim": {claim, true}, "a question": {asks, false}, "half of it": {claim[:27], false}, "another kind": {append([]byte{0, 6}, claim[2:]...), false}} {
		got := arpOwner(c.b, a)
		if (got != nil) != c.want || got != nil && got.String() != macOf(7).String() {
			t.Errorf("%s: owner %s", what, got)
		}
	}
	if arpOwner(probe, other) != nil || arpOwner(claim, other) != nil {
		t.Error("it has an owner for another address")
	}
}

func TestWaits(t *testing.T) {
	for range 1000 {
		for _, d := range []time.Duration{100 * time.Millisecond, firstWait, mostWait} {
			if j := jitter(d); j < d*3/4 || j > d*5/4 || j < d-time.Second || j > d+time.Second {
				t.Fatalf("jitter of %s is %s", d, j)
			}
		}
		for _, c := range []struct{ left, lease, least, most time.Duration }{
			{time.Hour, 8 * time.Hour, 29 * time.Minute, 31 * time.Minute},
			{90 * time.Second, 8 * time.Hour, 59 * time.Second, 61 * time.Second},
			{10 * time.Second, 8 * time.Hour, 10 * time.Second, 10 * time.Second},
			{time.Second, 4 * time.Second, 300 * time.Millisecond, 700 * time.Millisecond},
			{-time.Second, 4 * time.Second, -time.Second, -time.Second},
		} {
			if r := retry(c.left, c.lease); r < c.least || r > c.most {
				t.Fatalf("retry with %s of %s left: %s", c.left, c.lease, r)
			}
		}
	}
}

// FuzzPacket takes any packet, and whatever lease is in it.
func FuzzPacket(f *testing.F) {
	m := ack(f, dhcpv4.WithDomainSearchList("lan"), dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1)),
		generic(dhcpv4.OptionClasslessStaticRoute, 0, 10, 0, 0, 254, 16, 10, 9, 10, 0, 0, 8))
	f.Add(packet(ours, broadcast, 67, 68, m.ToBytes()))
	f.Add(arpProbe(macOf(1), ours))
	f.Fuzz(func(t *testing.T, b []byte) {
		arpOwner(b, ours)
		message, err := unpacket(b, 68)
		if err != nil {
			return
		}
		m, err := dhcpv4.FromBytes(message)
		if err != nil {
			return
		}
		nakReason(m)
		l, err := leaseOf(m, noon)
		if err != nil {
			return
		}
		if l.Renew < time.Second || l.Renew > l.Rebind || l.Rebind > l.Expire || !l.Addr.IsValid() || !l.Server.IsValid() {
			t.Fatalf("%+v", l)
		}
		for _, s := range l.Search {
			if strings.ContainsAny(s, " \n\t;#") {
				t.Fatalf("domain %q", s)
			}
		}
	})
}

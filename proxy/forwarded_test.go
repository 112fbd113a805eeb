package proxy

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

func TestParseProxy(t *testing.T) {
	v4 := proxy2(netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("192.0.2.2:80"))
	mixed := proxy2(netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("[2001:db8::2]:80"))
	v6 := proxy2(netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8::2]:80"))
	local := append(bytes.Clone(v4), v4...)
	local[12] = 0x20
	tlv := append(bytes.Clone(v4), 3, 0, 1, 'x')
	tlv[15] += 4
	short := bytes.Clone(v4)
	short[15] = 11
	for _, c := range []struct {
		in, from, at string
		n            int
		more, wrong  bool
	}{
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\nGET", "192.0.2.1:1000", "192.0.2.2:80", 40, false, false},
		{"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n", "[2001:db8::1]:1000", "[2001:db8::2]:80", 44, false, false},
		{"PROXY UNKNOWN\r\nGET", "", "", 15, false, false},
		{"PROXY UNKNOWN ffff:f...f:ffff 1 2 3\r\n", "", "", 37, false, false},
		{string(v4) + "GET", "192.0.2.1:1000", "192.0.2.2:80", 28, false, false},
		{string(v6), "[2001:db8::1]:1000", "[2001:db8::2]:80", 52, false, false},
		{string(mixed), "192.0.2.1:1000", "[2001:db8::2]:80", 52, false, false},
		{string(tlv), "192.0.2.1:1000", "192.0.2.2:80", 32, false, false},
		{string(local), "", "", 28, false, false},
		{"", "", "", 0, true, false},
		{"P", "", "", 0, true, false},
		{"PROXY TCP4 192", "", "", 0, true, false},
		{"\r\n\r\n", "", "", 0, true, false},
		{string(v4[:20]), "", "", 0, true, false},
		{"POST / HTTP/1.1", "", "", 0, false, false},
		{"GET / HTTP/1.1\r\n", "", "", 0, false, false},
		{"\r\nGET / HTTP/1.1\r\n", "", "", 0, false, false},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1000\r\n", "", "", 0, false, true},
		{"PROXY TCP4 2001:db8::1 2001:db8::2 1000 80\r\n", "", "", 0, false, true},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 1000 65536\r\n", "", "", 0, false, true},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 01000 80\r\n", "", "", 0, false, true},
		{"PROXY TCP4  192.0.2.1 192.0.2.2 1000 80\r\n", "", "", 0, false, true},
		{"PROXY TCP6 fe80::1%eth0 2001:db8::2 1000 80\r\n", "", "", 0, false, true},
		{"PROXY SCTP 192.0.2.1 192.0.2.2 1000 80\r\n", "", "", 0, false, true},
		{"PROXY UNKNOWN" + strings.Repeat("x", 100) + "\r\n", "", "", 0, false, true},
		{"PROXY " + strings.Repeat("x", 200), "", "", 0, false, true},
		{string(sign2) + "\x31\x11\x00\x0c", "", "", 0, false, true},
		{string(sign2) + "\x22\x11\x00\x0c", "", "", 0, false, true},
		{string(sign2) + "\x21\x11\xff\xff", "", "", 0, false, true},
		{string(short), "", "", 0, false, true},
		{string(sign2) + "\x21\x31\x00\x00", "", "", 16, false, false},
	} {
		got, n, more, err := parseProxy([]byte(c.in))
		var want told
		if c.from != "" {
			want = told{netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.at)}
		}
		if got != want || n != c.n || more != c.more || (err != nil) != c.wrong {
			t.Errorf("%.60q: %v, %d bytes, more %t, %v", c.in, got, n, more, err)
		}
	}
}

// FuzzProxyHeader wants that a header is found alike whatever follows it, that
// no longer input turns one that is complete or wrong into another, and that
// what is understood can be written and read again.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(proxy2(netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("192.0.2.2:80")))
	f.Add(proxy2(netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8::2]:80")))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, n, more, err := parseProxy(b)
		if n < 0 || n > len(b) || more && (n != 0 || err != nil) {
			t.Fatalf("%d of %d bytes, more %t, %v", n, len(b), more, err)
		}
		if more && len(b) > longest2 {
			t.Errorf("%d bytes do not suffice", len(b))
		}
		if !more {
			longer, m, more2, err2 := parseProxy(append(bytes.Clone(b), "GET / HTTP/1.1\r\n"...))
			if longer != got || m != n || more2 || (err2 != nil) != (err != nil) {
				t.Errorf("with more behind it: %v, %d, %t, %v; was %v, %d, %v", longer, m, more2, err2, got, n, err)
			}
		}
		if n > 0 {
			if _, m, more, err := parseProxy(b[:n-1]); m != 0 || !more && err == nil {
				t.Errorf("one byte less: %d, %t, %v", m, more, err)
			}
		}
		if got.from.IsValid() != got.at.IsValid() {
			t.Errorf("one address alone: %v", got)
		}
		if got.from.IsValid() {
			w := proxy2(got.from, got.at)
			again, m, _, err := parseProxy(w)
			same := again.from.Addr().Unmap() == got.from.Addr().Unmap() && again.at.Addr().Unmap() == got.at.Addr().Unmap()
			if !same || again.from.Port() != got.from.Port() || m != len(w) || err != nil {
				t.Errorf("%v came back as %v, %v", got, again, err)
			}
		}
	})
}

package egress

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

// TestMay is the table of addresses that are not asked.
func TestMay(t *testing.T) {
	for _, tt := range []struct {
		address string
		allow   string
		may     bool
	}{
		{"93.184.215.14", "", true},
		{"10.0.0.7", "", true},
		{"192.168.1.1", "", true},
		{"100.64.0.1", "", true},
		{"2606:2800:21f:cb07:6820:80da:af6b:8b2c", "", true},
		{"fd00::7", "", true},
		{"127.0.0.1", "", false},
		{"127.255.255.254", "", false},
		{"::1", "", false},
		{"::ffff:127.0.0.1", "", false},
		{"169.254.169.254", "", false},
		{"::ffff:169.254.169.254", "", false},
		{"fe80::1", "", false},
		{"fe80::1%lo", "", false},
		{"febf::1", "", false},
		{"0.0.0.0", "", false},
		{"0.1.2.3", "", false},
		{"::", "", false},
		{"::ffff:0.0.0.0", "", false},
		{"224.0.0.1", "", false},
		{"239.1.2.3", "", false},
		{"255.255.255.255", "", false},
		{"ff02::1", "", false},
		{"ff0e::1", "", false},
		{"::127.0.0.1", "", false},
		{"::7f00:1", "", false},
		{"64:ff9b::127.0.0.1", "", false},
		{"64:ff9b::a9fe:a9fe", "", false},
		{"64:ff9b:1::a9fe:a9fe", "", false},
		{"fd00:ec2::254", "", false},
		{"64:ff9b::93.184.215.14", "", true},
		{"2002:7f00:1::", "", false},
		{"2002:a9fe:a9fe::1", "", false},
		{"2002:5db8:d70e::1", "", true},
		{"127.0.0.1", "127.0.0.0/8", true},
		{"127.0.0.1", "127.0.0.2/32", false},
		{"::ffff:127.0.0.1", "127.0.0.0/8", true},
		{"::1", "127.0.0.0/8", false},
		{"::1", "::1/128", true},
		{"fe80::1%eth0", "fe80::/10", true},
		{"169.254.1.1", "169.254.0.0/16", true},
	} {
		var allow []netip.Prefix
		if tt.allow != "" {
			allow = append(allow, netip.MustParsePrefix(tt.allow))
		}
		if err := (Rules{Allow: allow}).May(netip.MustParseAddr(tt.address)); (err == nil) != tt.may {
			t.Errorf("%s with %q allowed: %v", tt.address, tt.allow, err)
		}
	}
}

// TestCheckURL is the table of what is not even looked up.
func TestCheckURL(t *testing.T) {
	for text, want := range map[string]string{
		"http://example.org/x.json": "", "HTTPS://example.org:8443/": "", "http://[2001:db8::1]/x": "",
		"ftp://example.org/":              "must begin with http:// or https://",
		"file:///etc/passwd":              "must begin with",
		"gopher://127.0.0.1:6379/_FLUSH":  "must begin with",
		"/etc/passwd":                     "must begin with",
		"example.org/x.json":              "must begin with",
		"":                                "must begin with",
		"http:///x":                       "names no host",
		"http://:80/x":                    "names no host",
		"http:x":                          "names no host",
		"http://user@example.org/":        "has credentials",
		"http://user:secret@example.org/": "has credentials",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		err = CheckURL(u)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v tells a password", text, err)
		}
	}
}

func TestRefusalIsInvalid(t *testing.T) {
	err := Rules{Flag: "--x"}.Control("tcp", "127.0.0.1:80", nil)
	if !errors.Is(err, errs.Invalid) || errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "--x allows it") {
		t.Errorf("%v", err)
	}
}

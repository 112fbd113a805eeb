package pxe

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buoy-edge/buoy/netcfg/dhcp"
)

func TestEnds(t *testing.T) {
	ours := netip.MustParsePrefix("10.9.0.1/24")
	for lease, want := range map[string]string{
		"10.9.0.0/24":   "10.9.0.1 10.9.0.254",
		"10.9.0.128/25": "10.9.0.128 10.9.0.254",
		"10.9.0.77/26":  "10.9.0.64 10.9.0.127",
		"10.9.0.0/25":   "10.9.0.1 10.9.0.127",
		"10.9.0.9/32":   "10.9.0.9 10.9.0.9",
	} {
		first, last := ends(netip.MustParsePrefix(lease), ours)
		if got := first.String() + " " + last.String(); got != want {
			t.Errorf("%s: %s, want %s", lease, got, want)
		}
	}
	for lease, want := range map[string]bool{"10.9.0.0/24": true, "10.9.0.64/26": true, "10.9.0.0/16": false, "10.8.0.0/24": false, "fd00::/64": false} {
		if got := inside(netip.MustParsePrefix(lease), ours); got != want {
			t.Errorf("%s inside %s: %v", lease, ours, got)
		}
	}
}

func TestFindLink(t *testing.T) {
	if _, err := findLink("nonexistent", netip.Prefix{}); err == nil || !strings.Contains(err.Error(), "there is no interface nonexistent; there are ") {
		t.Error(err)
	}
	l, err := findLink("lo", netip.Prefix{})
	if err != nil || l.addr != netip.MustParsePrefix("127.0.0.1/8") || l.mtu == 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := findLink("lo", netip.MustParsePrefix("10.9.0.0/24")); err == nil || !strings.Contains(err.Error(), "lo has no address in a network with 10.9.0.0/24") {
		t.Error(err)
	}
}

func TestLeases(t *testing.T) {
	l := leases{filepath.Join(t.TempDir(), "boot", "leases.json")}
	held := func(last byte, client string) dhcp.Held {
		return dhcp.Held{Addr: netip.AddrFrom4([4]byte{10, 9, 0, last}), Client: client, MAC: ship.String(), Until: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	}
	check := func(want ...dhcp.Held) {
		t.Helper()
		got, err := leases{l.file}.Leases()
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	check()
	for _, h := range []dhcp.Held{held(1, "a"), held(2, "b"), held(1, "c")} {
		if err := l.Put(h); err != nil {
			t.Fatal(err)
		}
	}
	check(held(2, "b"), held(1, "c"))
	for range 2 {
		if err := l.Drop(held(2, "").Addr); err != nil {
			t.Fatal(err)
		}
	}
	check(held(1, "c"))
	put(t, filepath.Dir(l.file), "leases.json", "[{")
	if _, err := l.Leases(); err == nil || !strings.Contains(err.Error(), l.file) {
		t.Error(err)
	}
	if err := l.Put(held(3, "d")); err == nil {
		t.Error("what cannot be read is written over")
	}
}

package node

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/state"
)

func prefixes(texts string) (out []netip.Prefix) {
	for s := range strings.FieldsSeq(texts) {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestGiveAll(t *testing.T) {
	lan := netcfg.NIC{Type: netcfg.NICBridge, ID: "lan0"}
	vlan := func(id, cidrs string) netcfg.NIC {
		return netcfg.NIC{Type: netcfg.NICVLAN, ID: id, Config: netcfg.NICConfig{CIDRs: prefixes(cidrs)}}
	}
	with := func(n netcfg.NIC, cidrs, mac string) netcfg.NIC {
		n.Config.CIDRs, n.HWAddr = prefixes(cidrs), mac
		return n
	}
	dflt := netcfg.NIC{Type: netcfg.NICDefault}
	pools := map[string]pool{
		"default":     {bridge: netip.MustParsePrefix("10.9.0.1/24"), nat: true},
		"bridge:lan0": {bridge: netip.MustParsePrefix("10.8.0.1/24"), start: netip.MustParseAddr("10.8.0.10"), end: netip.MustParseAddr("10.8.0.11")},
	}
	neighbours := map[string][]neighbour{
		"default":     {{"web", prefixes("10.9.0.2/24"), ""}},
		"bridge:lan0": {{"db", prefixes("10.8.0.10/24"), "02:00:00:00:00:07"}},
		"vlan:7":      {{"cam", prefixes("192.168.7.9/24 fd07::9/64"), ""}},
	}
	had := []given{{"vlan:7", 0, nil}, {"default", 2, prefixes("10.9.0.77/24")}}
	for _, c := range []struct {
		name string
		nics []netcfg.NIC
		had  []given
		want string // key, index and addresses of each NIC, or the error
	}{
		{"no NIC", nil, had, ""},
		{"free addresses", []netcfg.NIC{dflt, lan}, nil, "default 0 10.9.0.3/24, bridge:lan0 1 10.8.0.11/24"},
		{"what it had", []netcfg.NIC{dflt}, had, "default 2 10.9.0.77/24"},
		{
			"indexes stay, new ones are the lowest",
			[]netcfg.NIC{lan, dflt, vlan("7", "192.168.7.1/24")},
			had,
			"bridge:lan0 1 10.8.0.11/24, default 2 10.9.0.77/24, vlan:7 0 192.168.7.1/24",
		},
		{"it had one that is not there any more", []netcfg.NIC{dflt}, []given{{"default", 0, prefixes("10.1.0.4/24")}}, "default 0 10.9.0.3/24"},
		{"it had one that another has now", []netcfg.NIC{dflt}, []given{{"default", 0, prefixes("10.9.0.2/24")}}, "default 0 10.9.0.3/24"},
		{"asked for", []netcfg.NIC{with(dflt, "10.9.0.50/24", "")}, had, "default 2 10.9.0.50/24"},
		{"asked for, with the length of another network", []netcfg.NIC{with(dflt, "10.9.0.50/32", "")}, nil, "default 0 10.9.0.50/24"},
		{"asked for, also IPv6", []netcfg.NIC{vlan("7", "192.168.7.1/24 fd07::1/64")}, nil, "vlan:7 0 192.168.7.1/24 fd07::1/64"},
		{"by DHCP", []netcfg.NIC{{Type: netcfg.NICVLAN, ID: "7", Config: netcfg.NICConfig{DHCP: true}}}, nil, "vlan:7 0"},
		{"by plugins", []netcfg.NIC{{Type: netcfg.NICCNI, ID: "net"}}, nil, "cni:net 0"},
		{"nobody gives one", []netcfg.NIC{{Type: netcfg.NICVXLAN, ID: "7"}}, nil, "vxlan:7 0"},
		{"same address, other network", []netcfg.NIC{vlan("8", "192.168.7.9/24")}, nil, "vlan:8 0 192.168.7.9/24"},

		{"the bridge's own", []netcfg.NIC{with(dflt, "10.9.0.1/24", "")}, nil, "conflict: NIC default: address 10.9.0.1 is the bridge's own"},
		{"another's", []netcfg.NIC{with(dflt, "10.9.0.2/24", "")}, nil, `conflict: NIC default: address 10.9.0.2 is container "web"'s`},
		{"another's IPv6", []netcfg.NIC{vlan("7", "fd07::9/64")}, nil, `conflict: NIC vlan 7: address fd07::9 is container "cam"'s`},
		{"outside", []netcfg.NIC{with(dflt, "10.1.0.2/24", "")}, nil, "invalid: NIC default: address 10.1.0.2 is not in the bridge's network 10.9.0.0/24"},
		{"another's MAC", []netcfg.NIC{with(lan, "", "02-00-00-00-00-07")}, nil, `conflict: NIC bridge lan0: hwaddr 02:00:00:00:00:07 is container "db"'s`},
		{
			"two NICs in one network",
			[]netcfg.NIC{dflt, vlan("8", "10.9.0.8/25")},
			nil,
			"invalid: NIC vlan 8: its network 10.9.0.0/25 overlaps 10.9.0.0/24 of NIC default",
		},
	} {
		all, err := giveAll(c.nics, c.had, pools, neighbours, nil)
		var parts []string
		for i, g := range all {
			text := strings.TrimSpace(g.Key + " " + string(rune('0'+g.Index)))
			for _, a := range g.Addrs {
				text += " " + a.String()
			}
			if g.Key != c.nics[i].Key() {
				t.Errorf("%s: %s at the place of %s", c.name, g.Key, c.nics[i].Key())
			}
			parts = append(parts, text)
		}
		got := strings.Join(parts, ", ")
		if err != nil {
			got = string(errs.KindOf(err)) + ": " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// An address that was given back rests until the others have been given, also
// over a restart of the daemon.
func TestAddressesRest(t *testing.T) {
	network, err := netcfg.New(netcfg.Config{Instance: "t", Prefix: netip.MustParsePrefix("10.9.0.0/29"), StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *Node {
		return &Node{cfg: Config{Net: network}, boxes: map[string]*box{}, lastAddr: map[string]netip.Addr{}}
	}
	n := fresh()
	spec := func(name string) Spec { return Spec{Name: name, NICs: []netcfg.NIC{{Type: netcfg.NICDefault}}} }
	clock := int64(0)
	give := func(name string) string {
		all, err := n.give(t.Context(), spec(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		clock++
		b := newBox(spec(name), state.Record{Created: time.Unix(clock, 0)})
		b.setGiven(all)
		n.boxes[name] = b
		return all[0].Addrs[0].String()
	}
	var got []string
	for _, name := range []string{"a", "b", "c"} {
		got = append(got, give(name))
	}
	n.boxes["none"] = newBox(Spec{Name: "none"}, state.Record{})
	delete(n.boxes, "b") // 10.9.0.3 rests until the others have been given
	for _, name := range []string{"d", "e", "f"} {
		got = append(got, give(name))
	}
	if want := "10.9.0.2/29 10.9.0.3/29 10.9.0.4/29 10.9.0.5/29 10.9.0.6/29 10.9.0.3/29"; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", got, want)
	}
	if all, err := n.give(t.Context(), spec("g"), nil); !errors.Is(err, errs.Unavailable) {
		t.Errorf("one more: %v, %v", all, err)
	}
	// The next daemon goes on after the newest, "f" with 10.9.0.3.
	boxes := n.boxes
	n = fresh()
	n.boxes = boxes
	delete(n.boxes, "a")
	delete(n.boxes, "d")
	if addr := give("x"); addr != "10.9.0.5/29" {
		t.Errorf("after a restart: %s", addr)
	}
}

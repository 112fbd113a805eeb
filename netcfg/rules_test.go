package netcfg

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRuleset(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft, which prints the table, is not installed")
	}
	l := newLANs(t)
	l.publish(t, "web 8080:80", "app [2001:db8::1]:8080:80", "web 127.0.0.1:5353:53/udp", "peer [::]:5000-5009:5000-5009/udp")
	want, err := os.ReadFile("testdata/ruleset.golden")
	if err != nil {
		t.Fatal(err)
	}
	got := l.sh(t, l.host, "nft list ruleset")
	got = strings.NewReplacer("dnat ip to", "dnat to", "priority -100", "priority dstnat").Replace(got) // versions of nft
	if got != string(want) {
		t.Errorf("ruleset:\n%s\ndiff:\n%s", got, diff(got, string(want)))
	}
}

// Whatever happens to the table, it is put back, with the ports, and nothing
// else is touched.
func TestTableIsRepaired(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 80, 8000)
	const others = `nft 'add table ip buoy-other; add table inet other; add chain inet other c { type filter hook forward priority 0; }; add rule inet other c counter packets 0 bytes 0'`
	l.sh(t, l.host, others)
	l.publish(t, "web [::]:8080:80", "web [::]:8000-8010:8000-8010", "app [2001:db8::1]:7000-7003:80")
	list := func() string {
		return l.sh(t, l.host, "nft list ruleset | tr , '\n' | sed 's/counter packets.*/counter/; s/^[[:space:]]*//; s/elements = { //; s/ }$//' | sort")
	}
	want := list()
	for _, broken := range []string{
		"nft flush ruleset; " + others,
		"nft delete table inet buoy-t1",
		"nft flush table inet buoy-t1",
		"nft flush chain inet buoy-t1 postrouting",
		"nft insert rule inet buoy-t1 publish ip6 daddr fd09::/64 return",
		"nft 'add chain inet buoy-t1 extra'",
		"nft 'add map inet buoy-t1 extra { type inet_service : ipv4_addr; }'",
		"nft 'chain inet buoy-t1 forward { policy drop; }'",
		"nft flush map inet buoy-t1 range6",
		"nft flush map inet buoy-t1 any4",
		"nft 'delete element inet buoy-t1 range4 { 0.0.0.0/0 . tcp . 8000-8010 }; add element inet buoy-t1 range4 { 192.0.2.0/24 . tcp . 8000-8010 : 10.1.0.2 }'",
		"nft 'add element inet buoy-t1 addr6 { 2001:db8::1 . udp . 1 : fd02::9 . 1 }'",
		"nft 'add table ip buoy-t1; add chain ip buoy-t1 publish; add map ip buoy-t1 ports_any { type inet_proto . inet_service : ipv4_addr . inet_service; }'", // of a former version
	} {
		l.sh(t, l.host, broken)
		if changed := l.setTable(t); len(changed) != 1 {
			t.Errorf("%s: changed %q", broken, changed)
		}
		if got := list(); got != want {
			t.Errorf("%s: not repaired:\n%s", broken, diff(got, want))
		}
		if changed := l.setTable(t); len(changed) != 0 {
			t.Errorf("%s: changed again: %q", broken, changed)
		}
	}
	l.calls(t, []callTest{{"published", l.client, "192.0.2.1:9999", ""}})
	for addr, want := range map[string]string{"192.0.2.1:8080": "web:80 192.0.2.2", "[2001:db8::1]:8000": "web:8000 2001:db8::2"} {
		if got := call(l.client, TCP, addr); got != want {
			t.Errorf("%s: %q", addr, got)
		}
	}
	// Somebody takes an element away that a change is about to: all is right again.
	l.sh(t, l.host, "nft flush map inet buoy-t1 any4")
	l.publish(t, "web [::]:8000-8010:8000-8010", "app [2001:db8::1]:7000-7003:80")
	if got := l.sh(t, l.host, "nft list map inet buoy-t1 any4 | grep -c elements || true"); strings.TrimSpace(got) != "0" {
		t.Errorf("any4 has elements")
	}
	// Another bridge comes, with IPv4 alone; then none is left.
	l.n.setMu.Lock()
	_, err := l.n.setTable(append(slices.Clone(lanNets), natted{"br-c", lanNets[0].prefixes[:1]}))
	if err == nil {
		_, err = l.n.setTable(nil)
	}
	l.n.setMu.Unlock()
	if err != nil {
		t.Error(err)
	}
	if got := l.sh(t, l.host, "nft list table inet buoy-t1"); strings.Contains(got, "masquerade") || strings.Contains(got, "elements") {
		t.Errorf("rules without a bridge:\n%s", got)
	}
	if err := l.n.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.sh(t, l.host, "nft list tables"); got != "table ip buoy-other\ntable inet other\n" {
		t.Errorf("tables after reset: %q", got)
	}
}

func TestResetTakesTheFormerTableAlong(t *testing.T) {
	l := newLANs(t)
	l.sh(t, l.host, "nft 'add table ip buoy-t1; add table ip buoy-t10; add table ip6 buoy-t1'")
	for range 2 {
		if err := l.n.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.sh(t, l.host, "nft list tables"); got != "table ip buoy-t10\ntable ip6 buoy-t1\n" {
		t.Errorf("tables after reset: %q", got)
	}
}

// A firewall of the host decides as it does without us, both ways.
func TestBesideFirewalls(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 80, 81)
	serveAll(t, l.client, "client", 7000)
	l.publish(t, "web [::]:8080:80", "web [::]:8080:80/udp")
	l.sh(t, l.client, "ip route add 10.0.0.0/8 via 192.0.2.1; ip -6 route add fd00::/8 via 2001:db8::1")
	in := func(want string) []callTest {
		tests := []callTest{
			{"port", l.client, "192.0.2.1:8080", "web:80 192.0.2.2"},
			{"port", l.client, "[2001:db8::1]:8080", "web:80 2001:db8::2"},
		}
		if want == "" {
			tests[0].want, tests[1].want = "", ""
		}
		return tests
	}
	out := func(want string) []callTest {
		tests := []callTest{
			{"way out", l.web, "192.0.2.2:7000", "client:7000 192.0.2.1"},
			{"way out", l.web, "[2001:db8::2]:7000", "client:7000 2001:db8::1"},
		}
		if want == "" {
			tests[0].want, tests[1].want = "", ""
		}
		return tests
	}
	always := []callTest{
		{"host by its address", l.host, "192.0.2.1:8080", "web:80 192.0.2.1"},
		{"host by localhost", l.host, "127.0.0.1:8080", "web:80 10.1.0.1"},
		{"not published", l.client, "10.1.0.2:81", ""},
		{"not published", l.client, "[fd01::2]:81", ""},
	}
	const none, open = "", "open"
	for _, tt := range []struct{ name, rules, in, out string }{
		{"plain, input dropped", `table inet fw { chain in { type filter hook input priority filter; policy drop;
			iifname lo accept; ct state established,related accept; meta l4proto ipv6-icmp accept; iifname br-a accept; } }`, open, open},
		{"plain, forward dropped", `table inet fw { chain f { type filter hook forward priority filter; policy drop; } }`, none, none},
		{"plain, forward dropped before us", `table inet fw { chain f { type filter hook forward priority -10; policy drop; } }`, none, none},
		{"plain, as documented", `table inet fw { chain f { type filter hook forward priority filter; policy drop;
			iifname br-a accept; oifname br-a accept; } }`, open, open},
		{"plain, ports alone", `table inet fw { chain f { type filter hook forward priority filter; policy drop;
			ct state established,related accept; ct status dnat accept; } }`, open, none},
		{"like ufw", `table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; jump before; jump user; }
			chain before { ct state established,related accept; }
			chain user { iifname br-a oifname eth0 accept; } }
			table ip6 filter { chain FORWARD { type filter hook forward priority filter; policy drop; ct state established,related accept; iifname br-a oifname eth0 accept; } }`, none, open},
		{"like firewalld", `table inet firewalld { chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
			ct state established,related accept; ct status dnat accept; iifname lo accept; reject with icmpx admin-prohibited; } }`, open, none},
		{"like firewalld, bridge trusted", `table inet firewalld { chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
			ct state established,related accept; ct status dnat accept; iifname br-a accept; reject with icmpx admin-prohibited; } }`, open, open},
		{"all accepted", `table inet fw { chain f { type filter hook forward priority -10; policy accept; accept; } }`, open, open},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.sh(t, l.host, "nft -f - <<'X'\n"+strings.ReplaceAll(tt.rules, "}", "\n}\n")+"\nX")
			defer l.sh(t, l.host, "for f in inet ip ip6; do for x in fw filter firewalld; do nft delete table $f $x 2>/dev/null || true; done; done")
			l.calls(t, slices.Concat(in(tt.in), out(tt.out), always))
			if changed := l.setTable(t); len(changed) != 0 {
				t.Errorf("changed beside a firewall: %q", changed)
			}
		})
	}
}

func TestThousandForwards(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 80)
	var ports []string
	for i := range 1000 {
		where := []string{"[::]", "192.0.2.1", "127.0.0.1"}[i%3]
		ports = append(ports, fmt.Sprintf("web %s:%d:80/%s", where, 10000+i, protos[i%2]))
	}
	for what, some := range map[string][]string{"publish 1000": ports, "one less": ports[:999], "publish 1000 again": ports} {
		at := time.Now()
		l.publish(t, some...)
		t.Logf("%s: %v", what, time.Since(at))
	}
	l.publish(t, ports...)
	for _, i := range []int{0, 1, 3, 4, 996, 999} {
		if got := call(l.client, protos[i%2], fmt.Sprintf("192.0.2.1:%d", 10000+i)); got != "web:80 192.0.2.2" {
			t.Errorf("port %d: %q", 10000+i, got)
		}
	}
	if got := call(l.client, protos[0], "192.0.2.1:10002"); got != "" {
		t.Errorf("a port on localhost answers %q", got)
	}
}

// Ranges of any size work; of what they cost, the test prints a table.
func TestLargeRanges(t *testing.T) {
	l := newLANs(t)
	serveAll(t, l.web, "web", 30000, 59999)
	serveAll(t, l.app, "app", 20000, 49999)
	timed := func(what string, f func()) {
		at := time.Now()
		f()
		t.Logf("%-50s %8.1f ms", what, float64(time.Since(at).Microseconds())/1000)
	}
	for _, tt := range []struct {
		name, port string
		first      string
		last       string
	}{
		{"1 000 ports, same numbers", "web 30000-30999:30000-30999", "web:30000 192.0.2.2", ""},
		{"30 000 ports, same numbers", "web 30000-59999:30000-59999", "web:30000 192.0.2.2", "web:59999 192.0.2.2"},
		{"30 000 ports, other numbers", "app 30000-59999:20000-49999", "app:20000 192.0.2.2", "app:49999 192.0.2.2"},
	} {
		f := lanForwards(t, tt.port)
		timed(tt.name+": check", func() {
			if err := l.n.CheckFree(f[0]); err != nil {
				t.Error(err)
			}
		})
		timed(tt.name+": publish", func() { l.publish(t, tt.port) })
		timed(tt.name+": again", func() { l.publish(t, tt.port) })
		timed(tt.name+": beside it another", func() { l.publish(t, tt.port, "peer 80:80") })
		timed(tt.name+": look", func() {
			if changed := l.setTable(t); len(changed) != 0 {
				t.Errorf("changed %q", changed)
			}
		})
		again := l.net(t)
		timed(tt.name+": adopt", func() {
			again.setMu.Lock()
			defer again.setMu.Unlock()
			if changed, err := again.setTable(lanNets); err != nil || len(changed) != 0 || len(again.ports) != len(l.n.ports) {
				t.Errorf("changed %q, %v; %d ports of %d", changed, err, len(again.ports), len(l.n.ports))
			}
		})
		if got := call(l.client, TCP, "192.0.2.1:30000"); got != tt.first {
			t.Errorf("%s: first answers %q", tt.name, got)
		}
		if got := call(l.client, TCP, "192.0.2.1:59999"); got != tt.last {
			t.Errorf("%s: last answers %q", tt.name, got)
		}
		timed(tt.name+": rebuild", func() {
			l.sh(t, l.host, "nft flush ruleset")
			l.setTable(t)
		})
		timed(tt.name+": take away", func() { l.publish(t) })
	}
	if err := l.n.SetPorts(t.Context(), lanForwards(t, "web eth0:1-60000:2-60001", "web lo:1-60000:2-60001", "web eth1:1-60000:2-60001")); err == nil {
		t.Error("180 000 elements are taken")
	} else {
		t.Log(err)
	}
}

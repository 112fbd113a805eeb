package cni

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testns"
)

// debianPlugins is where the package containernetworking-plugins has them.
const debianPlugins = "/usr/lib/cni"

// newRealBench has the real plugins, which take a namespace of the test for
// the machine's.
func newRealBench(t testing.TB) (b *bench, host string) {
	t.Helper()
	host = testns.New(t)
	if _, err := os.Stat(filepath.Join(debianPlugins, "bridge")); err != nil {
		t.Skipf("SKIPPED: no CNI plugins: install containernetworking-plugins (%v)", err)
	}
	b = newBench(t, func(c *Config) {
		c.PluginDirs = append(c.PluginDirs, debianPlugins)
		c.Enter = func(f func() error) error { return testns.In(host, f) }
	})
	return b, host
}

// hostLocal is an address plugin that keeps its state with the test.
func (b *bench) hostLocal(subnet string) string {
	return fmt.Sprintf(`"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}`,
		filepath.Join(filepath.Dir(b.conf), "host-local"), subnet)
}

// allocated are the addresses that host-local has given.
func (b *bench) allocated() []string {
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(b.conf), "host-local", "*", "[0-9]*"))
	return files
}

// attach adds a container, and checks that it has what the result says.
func (b *bench) attach(a Attachment) Result {
	b.t.Helper()
	r, err := b.cni.Add(b.t.Context(), a)
	if err != nil {
		b.t.Fatal(err)
	}
	shown := testns.Sh(b.t, a.Netns, "ip -4 addr show dev "+a.Ifname+"; ip link show dev "+a.Ifname+"; ip -4 route")
	for _, want := range []string{r.Addrs[0].String(), r.MAC.String()} {
		if !strings.Contains(shown, want) {
			b.t.Errorf("%s is not in\n%s", want, shown)
		}
	}
	if err := b.cni.Verify(b.t.Context(), a); err != nil {
		b.t.Error(err)
	}
	return r
}

// links are those of the namespace but lo.
func links(t testing.TB, ns string) string {
	t.Helper()
	var names []string
	for l := range strings.Lines(testns.Sh(t, ns, "ip -o link")) {
		name := strings.TrimSuffix(strings.Fields(l)[1], ":")
		if name, _, _ = strings.Cut(name, "@"); name != "lo" {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

func TestRealBridge(t *testing.T) {
	b, host := newRealBench(t)
	b.network("net", "1.0.0", `{"type": "bridge", "bridge": "cni0", "isGateway": true, `+b.hostLocal("10.88.0.0/24")+`}`)
	if err := b.cni.Status(t.Context(), "net"); err != nil {
		t.Fatal(err)
	}
	one, two := web, web
	one.Netns, two.Container, two.Netns = testns.New(t), "db", testns.New(t)
	one.MAC, _ = net.ParseMAC("02:00:5e:00:00:09")
	first, second := b.attach(one), b.attach(two)
	if first.MAC.String() != one.MAC.String() || len(first.Gateways) != 1 || len(first.Links) != 2 {
		t.Errorf("result %+v", first)
	}
	testns.Sh(t, one.Netns, "busybox ping -c 1 -W 2 "+second.Addrs[0].Addr().String())
	testns.Sh(t, one.Netns, "busybox ping -c 1 -W 2 "+first.Gateways[0].String())

	// CHECK sees what others did to the link.
	testns.Sh(t, two.Netns, "ip addr flush dev eth0")
	if err := b.cni.Verify(t.Context(), two); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "CHECK by plugin bridge") {
		t.Errorf("Verify without an address = %v", err)
	}
	// With the namespace gone, too, the address comes back.
	two.Netns = ""
	for range 2 {
		if err := b.cni.Del(t.Context(), two); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.allocated(); len(got) != 1 {
		t.Errorf("host-local holds %v", got)
	}
	if err := b.cni.GC(t.Context(), "net", nil); err != nil {
		t.Error(err)
	}
	if got := links(t, one.Netns); len(b.allocated()) != 0 || got != "" {
		t.Errorf("after GC: addresses %v, links %q", b.allocated(), got)
	}
	testns.Sh(t, host, "ip link del cni0")
}

func TestRealPtP(t *testing.T) {
	b, host := newRealBench(t)
	b.network("net", "0.4.0", `{"type": "ptp", `+b.hostLocal("10.89.0.0/24")+`}`)
	a := web
	a.Netns = testns.New(t)
	r := b.attach(a)
	testns.Sh(t, host, "busybox ping -c 1 -W 2 "+r.Addrs[0].Addr().String())
	if err := b.cni.Del(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := links(t, host) + links(t, a.Netns); got != "" || len(b.allocated()) != 0 {
		t.Errorf("links %q and addresses %v are left", got, b.allocated())
	}
	a.MAC, _ = net.ParseMAC("02:00:5e:00:00:09") // which ptp does not look at
	if _, err := b.cni.Add(t.Context(), a); errs.KindOf(err) != errs.Invalid {
		t.Errorf("with a MAC: %v", err)
	}
	if got := links(t, host) + links(t, a.Netns); got != "" || len(b.allocated()) != 0 {
		t.Errorf("links %q and addresses %v are left", got, b.allocated())
	}
}

func TestRealMacvlan(t *testing.T) {
	b, host := newRealBench(t)
	outside := testns.New(t)
	testns.Wire(t, host, "uplink0", outside, "eth0")
	testns.Sh(t, outside, "ip addr add 10.90.0.1/24 dev eth0")
	b.network("net", "1.0.0", `{"type": "macvlan", "master": "uplink0", `+b.hostLocal("10.90.0.0/24")+`}`)
	a := web
	a.Netns = testns.New(t)
	b.attach(a)
	testns.Sh(t, a.Netns, "busybox ping -c 1 -W 2 10.90.0.1")
	if err := b.cni.Del(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := links(t, host) + links(t, a.Netns); got != "uplink0" || len(b.allocated()) != 0 {
		t.Errorf("links %q and addresses %v are left", got, b.allocated())
	}
}

// TestRealPortmap has a chain of two, the second with rules on the machine.
func TestRealPortmap(t *testing.T) {
	b, host := newRealBench(t)
	// CHECK of portmap 1.1 wants rules for IPv6, too, which it never made.
	b.write(b.conf, "net.conflist", `{"name": "net", "cniVersion": "1.0.0", "disableCheck": true, "plugins": [
		{"type": "bridge", "bridge": "cni0", "isGateway": true, `+b.hostLocal("10.91.0.0/24")+`},
		{"type": "portmap", "capabilities": {"portMappings": true}, "snat": false}]}`, 0o644)
	rules := func() string { return testns.Sh(t, host, "nft list ruleset; iptables-legacy-save 2>/dev/null || true") }
	outside := testns.New(t)
	testns.Wire(t, host, "wire0", outside, "eth0")
	testns.Sh(t, host, "ip addr add 192.0.2.1/24 dev wire0")
	testns.Sh(t, outside, "ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1")
	a := web
	a.Netns = testns.New(t)
	a.Capabilities = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	r := b.attach(a)
	if !strings.Contains(rules(), "8080") {
		t.Errorf("no rule for the port:\n%s", rules())
	}
	var l net.Listener
	if err := testns.In(a.Netns, func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(r.Addrs[0].Addr(), 80).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := testns.In(outside, func() error {
		c, err := net.DialTimeout("tcp4", "192.0.2.1:8080", 3*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Errorf("the published port: %v", err)
	}
	if err := b.cni.Del(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := rules(); strings.Contains(got, "8080") || len(b.allocated()) != 0 {
		t.Errorf("left: addresses %v, rules\n%s", b.allocated(), got)
	}
}

// TestRealUndo: the first of a chain has worked, then one fails, one hangs.
func TestRealUndo(t *testing.T) {
	b, host := newRealBench(t)
	b.cni.cfg.Timeout = 3 * time.Second
	b.plugin("fails", `[ $CNI_COMMAND != ADD ] || { echo '{"code": 100, "msg": "no"}'; exit 1; }`)
	b.plugin("hangs", `[ $CNI_COMMAND != ADD ] || sleep 1000`)
	for _, second := range []string{"fails", "hangs"} {
		b.network("net", "1.0.0", `{"type": "ptp", `+b.hostLocal("10.92.0.0/24")+`}`, second)
		a := web
		a.Netns = testns.New(t)
		if _, err := b.cni.Add(t.Context(), a); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), second) {
			t.Errorf("Add = %v", err)
		}
		if got := links(t, host) + links(t, a.Netns); got != "" || len(b.allocated()) != 0 {
			t.Errorf("%s: links %q and addresses %v are left", second, got, b.allocated())
		}
	}
	// The plugin's own helper is missing.
	b.network("net", "1.0.0", `{"type": "ptp", "ipam": {"type": "no-such-ipam"}}`)
	a := web
	a.Netns = testns.New(t)
	if _, err := b.cni.Add(t.Context(), a); err == nil || !strings.Contains(err.Error(), "no-such-ipam") {
		t.Errorf("Add = %v", err)
	}
	if got := links(t, host) + links(t, a.Netns); got != "" {
		t.Errorf("links %q are left", got)
	}
}

// TestRealReboot: namespaces and links are gone, records and addresses are not.
func TestRealReboot(t *testing.T) {
	b, _ := newRealBench(t)
	b.network("net", "1.0.0", `{"type": "ptp", `+b.hostLocal("10.93.0.0/24")+`}`)
	a := web
	a.Netns = testns.New(t)
	b.attach(a)

	host := testns.New(t)
	b.cni.cfg.Enter = func(f func() error) error { return testns.In(host, f) }
	a.Netns = testns.New(t)
	if err := b.cni.Verify(t.Context(), a); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("Verify after a reboot = %v", err)
	}
	gone := a
	gone.Netns = ""
	if err := b.cni.Del(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	b.attach(a)
	if got := b.allocated(); len(got) != 1 {
		t.Errorf("host-local holds %v", got)
	}
	if err := b.cni.Del(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := links(t, host) + links(t, a.Netns); got != "" || len(b.allocated()) != 0 {
		t.Errorf("links %q and addresses %v are left", got, b.allocated())
	}
}

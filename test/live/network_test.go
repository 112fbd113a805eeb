package live

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/testns"
)

// lan is a machine in a namespace of its own, with a buoyd, and a neighbour on
// the machine's uplink.
type lan struct {
	*daemon
	outside string // the neighbour's namespace, 192.0.2.1/24 on a wire to 192.0.2.2
	before  string // the machine's network before buoyd
}

func newLAN(t *testing.T, args ...string) *lan {
	t.Helper()
	machine, outside := testns.New(t), testns.New(t)
	testns.Wire(t, machine, "up0", outside, "wire0")
	testns.Sh(t, machine, "ip addr add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1")
	testns.Sh(t, outside, "ip addr add 192.0.2.1/24 dev wire0; ip link set wire0 up")
	n := &lan{outside: outside, before: picture(t, machine)}
	n.daemon = newInstance(t, args...)
	n.ns = machine
	var err error
	if n.client, err = buoy.New("unix://" + filepath.Join(n.run(), "buoy.sock")); err != nil {
		t.Fatal(err)
	}
	n.start()
	return n
}

// picture is what a network namespace has, but for counters and indexes.
func picture(t testing.TB, ns string) string {
	t.Helper()
	return testns.Sh(t, ns, `ip -o link | sed 's/^[0-9]*: //; s/@[^:]*//'; ip -o -4 addr; ip -o -6 addr show scope global; ip route; ip -6 route show type unicast | grep -v fe80 || true; `+
		`nft list ruleset; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding`)
}

// run makes a container with these NICs that sleeps.
func (n *lan) box(name string, nics ...buoy.NIC) {
	n.t.Helper()
	r := sh(n.t, name, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	r.NICs = nics
	n.create(r)
}

// in runs a command in a container and has what it prints.
func (n *lan) in(name, command string) string {
	n.t.Helper()
	j := n.exec(name, "/bin/sh", "-c", command)
	return strings.TrimSpace(j.Stdout + j.Stderr)
}

// reaches says whether one container gets an answer of an address.
func (n *lan) reaches(name, addr string) bool {
	n.t.Helper()
	return n.in(name, "ping -c 1 -W 1 "+addr+" >/dev/null 2>&1 && echo yes") == "yes"
}

// answers says whether the web server of a container answers to who is in ns.
func (n *lan) answers(ns, addr string) bool {
	n.t.Helper()
	var conn net.Conn
	err := testns.In(ns, func() (err error) {
		conn, err = net.DialTimeout("tcp", addr, time.Second) // to an address: no goroutines
		return err
	})
	if err != nil {
		return false
	}
	defer conn.Close()
	must(n.t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	if _, err := conn.Write([]byte("GET /hello HTTP/1.0\r\n\r\n")); err != nil {
		return false
	}
	text, err := io.ReadAll(conn)
	return err == nil && strings.Contains(string(text), "hello from inside")
}

func nic(kind, id, cidr string) buoy.NIC {
	c := buoy.NIC{Type: kind, ID: id, Config: &buoy.NICConfig{CIDR: cidr, DNS: []string{}}}
	return c
}

// TestNICTypes has one container on each kind of network, all at once, and none
// of it is left when they are deleted.
func TestNICTypes(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	must(t, n.client.CreateBridge(t.Context(), buoy.Bridge{Name: "lab", NetworkMode: "static", NAT: true, Setting: buoy.BridgeSetting{CIDR: "10.20.0.1/24", Start: "10.20.0.50", End: "10.20.0.60"}}))
	testns.Sh(t, n.ns, "ip link add own0 type bridge; ip link set own0 up; ip addr add 10.40.0.1/24 dev own0")
	vx := nic("vxlan", "7", "10.50.0.2/24")
	vx.Config.Peers = []string{"192.0.2.1"}
	mac := nic("macvlan", "", "192.0.2.77/24")
	mac.HWAddr = "02:00:5e:10:00:77"
	for _, name := range []string{"one", "two"} {
		last := map[string]string{"one": "2", "two": "3"}[name]
		v, m := vx, mac
		v.Config = &buoy.NICConfig{CIDR: "10.50.0." + last + "/24", Peers: vx.Config.Peers, DNS: []string{}}
		m.Config = &buoy.NICConfig{CIDR: "192.0.2.7" + last + "/24", DNS: []string{}}
		m.HWAddr = "02:00:5e:10:00:7" + last
		n.box(name, buoy.NIC{Type: "default"}, buoy.NIC{Type: "bridge", ID: "lab", Name: "lab0"}, nic("bridge", "own0", "10.40.0."+last+"/24"), v, m)
	}
	// The other end of the VXLAN and the neighbour of the macvlan.
	testns.Sh(t, n.outside, "ip link add vx7 type vxlan id 7 dstport 4789 remote 192.0.2.2 dev wire0; ip addr add 10.50.0.9/24 dev vx7; ip link set vx7 up")

	c, err := n.client.Container(t.Context(), "one")
	must(t, err)
	var names, addrs []string
	for _, x := range c.NICs {
		if x.Status != "up" {
			t.Errorf("NIC %s %s is %s", x.Type, x.ID, x.Status)
		}
		names, addrs = append(names, x.Interface), append(addrs, x.Addresses...)
	}
	if want := []string{"eth0", "lab0", "eth2", "eth3", "eth4"}; !slices.Equal(names, want) {
		t.Errorf("interfaces %q, want %q", names, want)
	}
	if want := []string{"10.20.0.50/24", "10.40.0.2/24", "10.50.0.2/24", "192.0.2.72/24"}; !slices.Equal(addrs[1:], want) {
		t.Errorf("addresses %q, want %q", addrs, want)
	}
	if got := n.in("one", "ip -4 addr | grep -c 'inet '"); got != "6" {
		t.Errorf("%s addresses inside, want 6:\n%s", got, n.in("one", "ip addr"))
	}
	if got := n.in("one", "cat /sys/class/net/eth4/address"); got != "02:00:5e:10:00:72" {
		t.Errorf("hwaddr %s", got)
	}
	for addr, what := range map[string]string{
		address(t, n, "two"): "the default bridge", "10.20.0.51": "our bridge", "10.40.0.3": "the machine's bridge",
		"10.40.0.1": "the machine on its bridge", "10.50.0.3": "VXLAN on this machine", "10.50.0.9": "VXLAN on another", "192.0.2.73": "macvlan",
		"192.0.2.1": "the neighbour",
	} {
		if !n.reaches("one", addr) {
			t.Errorf("%s is not reached at %s", what, addr)
		}
	}
	for _, name := range []string{"one", "two"} {
		must(t, n.client.Delete(t.Context(), name))
	}
	must(t, n.client.DeleteBridge(t.Context(), "lab"))
	testns.Sh(t, n.ns, "ip link del own0")
	n.await("nothing of it is left", func() bool { return picture(t, n.ns) == n.before })
}

func mustContainer(t *testing.T, n *lan, name string) buoy.Container {
	t.Helper()
	c, err := n.client.Container(t.Context(), name)
	must(t, err)
	return c
}

// address is that of a container, without the length of its network.
func address(t *testing.T, n *lan, name string) string {
	t.Helper()
	addr, _, _ := strings.Cut(mustContainer(t, n, name).Address, "/")
	return addr
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestNICsChangeLive attaches, changes and detaches while a connection goes on.
func TestNICsChangeLive(t *testing.T) {
	n := newLAN(t)
	dflt := buoy.NIC{Type: "default"}
	port := freePort(t)
	r := sh(t, "web", "httpd -p 80 -h /www; trap 'exit 0' TERM; while :; do sleep 0.1; done")
	r.NICs, r.Ports = []buoy.NIC{dflt}, []string{fmt.Sprintf("192.0.2.2:%d:80", port)}
	n.create(r)
	pid := n.awaitState("web", "running").PID
	get := func(port int) bool { return n.answers(n.outside, fmt.Sprintf("192.0.2.2:%d", port)) }
	n.await("the port answers", func() bool { return get(port) })

	update := func(u buoy.ContainerUpdate) { t.Helper(); must(t, n.client.Update(t.Context(), "web", u)) }
	m := nic("macvlan", "up0", "192.0.2.80/24")
	update(buoy.ContainerUpdate{NICs: &[]buoy.NIC{m, dflt}})
	if got := n.in("web", "ls /sys/class/net | tr '\\n' ' '"); got != "eth0 eth1 lo" {
		t.Errorf("interfaces after attach: %s", got)
	}
	if !n.reaches("web", "192.0.2.1") || !get(port) {
		t.Error("the new NIC or the old port does not work")
	}
	m.Config.CIDR, m.Config.MTU = "192.0.2.81/24", 1400
	update(buoy.ContainerUpdate{NICs: &[]buoy.NIC{dflt, m}})
	if got := n.in("web", "ip -4 addr show eth1 | grep -o 'inet [0-9./]*'; cat /sys/class/net/eth1/mtu"); got != "inet 192.0.2.81/24\n1400" {
		t.Errorf("after a change: %s", got)
	}
	second := freePort(t)
	update(buoy.ContainerUpdate{Ports: &[]string{fmt.Sprintf("192.0.2.2:%d:80", second)}})
	if get(port) || !get(second) {
		t.Errorf("ports after a change: old %v, new %v", get(port), get(second))
	}

	// What cannot be had changes nothing.
	bad := nic("macvlan", "nosuch0", "192.0.2.90/24")
	for _, nics := range [][]buoy.NIC{{dflt, m, bad}, {bad}, {dflt, nic("bridge", "nosuch0", "10.0.0.1/24")}} {
		if err := n.client.Update(t.Context(), "web", buoy.ContainerUpdate{NICs: &nics}); err == nil {
			t.Errorf("%v was accepted", nics)
		}
		if got := n.in("web", "ls /sys/class/net | tr '\\n' ' '"); got != "eth0 eth1 lo" || !get(second) {
			t.Errorf("a refused change left %s, port %v", got, get(second))
		}
	}

	// A daemon after this one agrees.
	n.kill()
	n.start()
	c := n.awaitState("web", "running")
	if c.PID != pid || len(c.NICs) != 2 || c.NICs[1].Addresses[0] != "192.0.2.81/24" || !get(second) {
		t.Errorf("after a restart of buoyd: pid %d (was %d), NICs %+v", c.PID, pid, c.NICs)
	}
	update(buoy.ContainerUpdate{NICs: &[]buoy.NIC{}, Ports: &[]string{}})
	if got := n.in("web", "ls /sys/class/net | tr '\\n' ' '"); got != "lo" {
		t.Errorf("interfaces after detach: %s", got)
	}
	if c := n.awaitState("web", "running"); c.PID != pid {
		t.Errorf("pid %d, was %d", c.PID, pid)
	}
}

// TestNetworkIsPutBack takes away what buoy made while it runs, and while it is
// away.
func TestNetworkIsPutBack(t *testing.T) {
	n := newLAN(t)
	n.box("a", buoy.NIC{Type: "default"})
	n.box("b", buoy.NIC{Type: "default"})
	addr := address(t, n, "b")
	pid := mustContainer(t, n, "a").PID
	for name, script := range map[string]string{
		"bridge":   "ip link del " + "br-" + n.instance(),
		"rules":    "nft flush ruleset",
		"one link": "ip link del $(ip -o link | grep -o 'bv[a-z0-9]*' | head -1)",
		"address":  "ip addr flush dev br-" + n.instance(),
	} {
		for _, away := range []bool{false, true} {
			if away {
				n.stop()
			}
			testns.Sh(t, n.ns, script)
			if away {
				n.start()
			}
			n.await(fmt.Sprintf("%s is put back (buoyd away: %v)", name, away), func() bool {
				out := testns.Sh(t, n.ns, "nft list tables; ip -4 -o addr show dev br-"+n.instance()+" || true")
				return strings.Contains(out, "buoy-"+n.instance()) && strings.Contains(out, "inet ") && n.reaches("a", addr)
			})
			if c := n.awaitState("a", "running"); c.PID != pid {
				t.Errorf("%s (away: %v): container a was restarted", name, away)
			}
		}
	}
}

// TestPortsFollowAddresses publishes at an interface whose address changes, as
// DHCP may do to the machine.
func TestPortsFollowAddresses(t *testing.T) {
	n := newLAN(t)
	r := sh(t, "web", "httpd -f -p 80 -h /www")
	r.NICs, r.Ports = []buoy.NIC{{Type: "default"}}, []string{"up0:8080-8081:80"}
	n.create(r)
	n.await("both ports answer", func() bool { return n.answers(n.outside, "192.0.2.2:8080") && n.answers(n.outside, "192.0.2.2:8081") })
	testns.Sh(t, n.ns, "ip addr del 192.0.2.2/24 dev up0; ip addr add 192.0.2.9/24 dev up0")
	n.await("the port answers at the new address", func() bool { return n.answers(n.outside, "192.0.2.9:8080") })
}

// TestNames: containers find each other, and the world, by name.
func TestNames(t *testing.T) {
	n := newLAN(t)
	n.box("web", buoy.NIC{Type: "default"})
	n.box("db.shop", buoy.NIC{Type: "default"})
	n.box("alone", nic("macvlan", "up0", "192.0.2.90/24"))
	addr := address(t, n, "db.shop")
	for _, name := range []string{"db.shop", "DB.shop", "db.shop.buoy.internal"} {
		if got := n.in("web", "nslookup -type=a "+name+" | tail -n +3 | grep -o 'Address.*'"); !strings.HasSuffix(got, " "+addr) {
			t.Errorf("%s is %q, want %s", name, got, addr)
		}
	}
	must(t, n.client.CreateBridge(t.Context(), buoy.Bridge{Name: "lab", NetworkMode: "static", Setting: buoy.BridgeSetting{CIDR: "10.20.0.1/24"}}))
	n.box("onlab", buoy.NIC{Type: "bridge", ID: "lab"})
	n.box("both", buoy.NIC{Type: "default"}, buoy.NIC{Type: "bridge", ID: "lab"})
	for asks, finds := range map[string]string{"both": "onlab web", "onlab": "both", "web": "both"} {
		for name := range strings.FieldsSeq(finds) {
			if got := n.in(asks, "nslookup -type=a "+name+".buoy.internal"); !strings.Contains(got, "Address: 10.") {
				t.Errorf("%s does not find %s: %s", asks, name, got)
			}
		}
	}
	if got := n.in("web", "nslookup onlab.buoy.internal"); !strings.Contains(got, "NXDOMAIN") {
		t.Errorf("a container of another bridge: %s", got)
	}
	if got := n.in("web", "nslookup "+addr); !strings.Contains(got, "name = db.shop.buoy.internal") {
		t.Errorf("%s backwards: %s", addr, got)
	}
	if got := n.in("web", "nslookup alone.buoy.internal"); !strings.Contains(got, "NXDOMAIN") {
		t.Errorf("a container of another network: %s", got)
	}
	must(t, n.client.Delete(t.Context(), "db.shop"))
	if got := n.in("web", "nslookup db.shop.buoy.internal"); !strings.Contains(got, "NXDOMAIN") {
		t.Errorf("a container that is gone: %s", got)
	}
	if got := n.in("web", "cat /etc/hosts"); !strings.Contains(got, address(t, n, "web")+"\tweb") {
		t.Errorf("/etc/hosts: %s", got)
	}
	own, err := os.ReadFile("/etc/resolv.conf")
	must(t, err)
	if strings.Contains(string(own), "10.64.") || strings.Contains(n.in("alone", "cat /etc/resolv.conf"), "10.64.") {
		t.Error("a bridge's resolver is named where it is not reached")
	}
}

// TestBadNICs is refused with a reason, and leaves nothing.
func TestBadNICs(t *testing.T) {
	n := newLAN(t)
	n.box("first", buoy.NIC{Type: "default", HWAddr: "02:00:5e:00:00:01"})
	addr := mustContainer(t, n, "first").Address
	testns.Sh(t, n.ns, "ip link add spare type veth peer name spare1; ip addr add 10.77.0.1/24 dev spare")
	before := picture(t, n.ns)
	v := nic("vlan", "5", "10.0.0.2/24")
	big := nic("macvlan", "up0", "10.0.0.2/24")
	big.Config.MTU = 9000
	wide := nic("macvlan", "up0", "10.0.0.2/24")
	wide.Config.Gateway = "10.0.1.1"
	far := nic("vlan", "5", "10.0.0.2/24")
	far.Config.Uplink = "nosuch0"
	for _, c := range []struct {
		name string
		nics []buoy.NIC
		want string
	}{
		{"VLAN 4095", []buoy.NIC{nic("vlan", "4095", "")}, "VLAN from 1 to 4094"},
		{"no 802.1Q", []buoy.NIC{v}, "8021q"},
		{"uplink missing", []buoy.NIC{far}, "nosuch0"},
		{"unknown bridge", []buoy.NIC{nic("bridge", "nosuch0", "")}, "nosuch0"},
		{"MTU too large", []buoy.NIC{big}, "9000"},
		{"gateway outside", []buoy.NIC{wide}, "gateway 10.0.1.1"},
		{"name too long", []buoy.NIC{{Type: "default", Name: "sixteenletters16"}}, "1 to 15 characters"},
		{"MAC taken", []buoy.NIC{{Type: "default", HWAddr: "02:00:5e:00:00:01"}}, "first"},
		{"address taken", []buoy.NIC{{Type: "default", Config: &buoy.NICConfig{CIDR: addr, DNS: []string{}}}}, "first"},
		{"overlap", []buoy.NIC{{Type: "default"}, nic("macvlan", "up0", addr)}, "overlaps"},
		{"passthrough of the uplink", []buoy.NIC{nic("passthrough", "up0", "")}, "up0"},
		{"passthrough with an address", []buoy.NIC{nic("passthrough", "spare", "")}, "spare"},
		{"zerotier", []buoy.NIC{nic("zerotier", "x", "")}, "not supported"},
		{"CNI network that is not there", []buoy.NIC{nic("cni", "nosuch", "")}, "nosuch"},
		{"one good, one bad", []buoy.NIC{{Type: "default"}, nic("macvlan", "up0", "192.0.2.99/24"), nic("bridge", "nosuch0", "")}, "nosuch0"},
	} {
		r := sh(t, "bad", "sleep 1000")
		r.NICs = c.nics
		err := n.client.Create(t.Context(), r)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "internal error") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if after := picture(t, n.ns); after != before {
			n.await(c.name+" leaves nothing", func() bool { return picture(t, n.ns) == before })
		}
	}
	for _, c := range []struct {
		bridge buoy.Bridge
		want   string
	}{
		{buoy.Bridge{Name: "sixteenletters16", NetworkMode: "none"}, "1 to 15 characters"},
		{buoy.Bridge{Name: "default", NetworkMode: "none"}, "reserved"},
		{buoy.Bridge{Name: "x", NetworkMode: "magic"}, "use none, static or dnsmasq"},
		{buoy.Bridge{Name: "x", NetworkMode: "static"}, "cidr"},
		{buoy.Bridge{Name: "up0", NetworkMode: "none"}, "up0"},
		{buoy.Bridge{Name: "x", NetworkMode: "static", Setting: buoy.BridgeSetting{CIDR: "192.0.2.129/25"}}, "overlaps"},
		{buoy.Bridge{Name: "x", NetworkMode: "static", Setting: buoy.BridgeSetting{CIDR: "10.20.0.1/24", Start: "10.21.0.1"}}, "10.21.0.1"},
	} {
		if err := n.client.CreateBridge(t.Context(), c.bridge); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.bridge, err, c.want)
		}
	}
	if after := picture(t, n.ns); after != before {
		t.Errorf("left:\n%s\nbefore:\n%s", after, before)
	}
}

// TestDHCPOnABridge has containers leased by the server of a bridge.
func TestDHCPOnABridge(t *testing.T) {
	t.Parallel()
	n := newLAN(t, "--log-level", "debug")
	must(t, n.client.CreateBridge(t.Context(), buoy.Bridge{
		Name: "shop", NetworkMode: "dnsmasq", NAT: true, Setting: buoy.BridgeSetting{CIDR: "10.30.0.1/24", Start: "10.30.0.100", End: "10.30.0.101"},
	}))
	leased := nic("bridge", "shop", "")
	leased.Config.DHCP = true
	n.box("given", buoy.NIC{Type: "bridge", ID: "shop"}) // 10.30.0.100 is the node's to give as well
	n.box("a", leased)
	if got := mustContainer(t, n, "a").NICs[0].Addresses; !slices.Equal(got, []string{"10.30.0.101/24"}) {
		t.Errorf("leased %q beside %q", got, mustContainer(t, n, "given").NICs[0].Addresses)
	}
	if !n.reaches("a", "192.0.2.1") || !strings.Contains(n.in("a", "cat /etc/resolv.conf"), "nameserver 10.30.0.1") {
		t.Errorf("no way out, or no resolver:\n%s", n.in("a", "ip route; cat /etc/resolv.conf"))
	}
	r := sh(t, "b", "sleep 1000")
	r.NICs = []buoy.NIC{leased}
	if err := n.client.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), "no DHCP server answered") {
		t.Errorf("a lease too many: %v", err)
	}
	pid := mustContainer(t, n, "a").PID
	n.kill()
	n.start()
	if c := n.awaitState("a", "running"); c.PID != pid || !slices.Equal(c.NICs[0].Addresses, []string{"10.30.0.101/24"}) {
		t.Errorf("after a restart of buoyd: pid %d (was %d), %q", c.PID, pid, c.NICs[0].Addresses)
	}
	must(t, n.client.Delete(t.Context(), "a"))
	must(t, n.client.Create(t.Context(), r)) // what was given back can be leased
	if err := n.client.DeleteBridge(t.Context(), "shop"); !errors.Is(err, buoy.ErrConflict) {
		t.Errorf("delete a bridge in use: %v", err)
	}
	for _, name := range []string{"b", "given"} {
		must(t, n.client.Delete(t.Context(), name))
	}
	must(t, n.client.DeleteBridge(t.Context(), "shop"))
	n.await("nothing of it is left", func() bool { return picture(t, n.ns) == n.before })
}

// TestDHCPOnTheLAN leases from another machine, which says more than an address.
func TestDHCPOnTheLAN(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	server := exec.Command("dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--interface=wire0", "--bind-interfaces",
		"--dhcp-range=192.0.2.100,192.0.2.110,10m", "--dhcp-option=option:mtu,1400", "--dhcp-option=121,10.99.0.0/16,192.0.2.7,0.0.0.0/0,192.0.2.1",
		"--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"))
	must(t, testns.In(n.outside, server.Start))
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // it was killed
	})
	leased, wide := nic("macvlan", "up0", ""), nic("macvlan", "up0", "")
	leased.Config.DHCP, wide.Config.DHCP, wide.Config.MTU = true, true, 1450
	n.box("a", leased)
	n.box("b", wide)
	for name, mtu := range map[string]string{"a": "1400", "b": "1450"} {
		if got := n.in(name, "cat /sys/class/net/eth0/mtu"); got != mtu {
			t.Errorf("%s has the MTU %s, want %s", name, got, mtu)
		}
	}
	if got := n.in("a", "ip route"); !strings.Contains(got, "10.99.0.0/16 via 192.0.2.7") || !strings.Contains(got, "default via 192.0.2.1") {
		t.Errorf("routes: %s", got)
	}
}

// TestPassthrough lends a NIC of the machine to a container.
func TestPassthrough(t *testing.T) {
	n := newLAN(t)
	testns.Sh(t, n.ns, "ip link add spare mtu 1400 address 02:00:5e:00:00:aa type veth peer name far0 netns "+n.outside)
	testns.Sh(t, n.outside, "ip addr add 10.60.0.1/24 dev far0; ip link set far0 up")
	before := picture(t, n.ns)
	lent := nic("passthrough", "spare", "10.60.0.2/24")
	n.box("a", lent)
	if !n.reaches("a", "10.60.0.1") || n.in("a", "cat /sys/class/net/eth0/address") != "02:00:5e:00:00:aa" {
		t.Errorf("lent: %s", n.in("a", "ip addr"))
	}
	r := sh(t, "b", "sleep 1000")
	r.NICs = []buoy.NIC{lent}
	if err := n.client.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), "spare") {
		t.Errorf("lent twice: %v", err)
	}
	back := func(what string) {
		t.Helper()
		n.await("the NIC is back "+what, func() bool { return picture(t, n.ns) == before })
	}
	must(t, n.client.Stop(t.Context(), "a"))
	back("after a stop")
	must(t, n.client.Start(t.Context(), "a"))
	n.exec("a", "/bin/sh", "-c", "kill -TERM 1")
	n.awaitState("a", "halted")
	back("after an end")
	must(t, n.client.Delete(t.Context(), "a"))
	back("after a deletion")
}

// TestCNI has a container on a network of CNI plugins.
func TestCNI(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		t.Fatalf("%v: install containernetworking-plugins, as \"make test\" does", err)
	}
	conf := t.TempDir()
	list := `{"cniVersion": "1.0.0", "name": "lan", "plugins": [{"type": "bridge", "bridge": "cni9", "isGateway": false, "ipMasq": false,
		"ipam": {"type": "host-local", "dataDir": "` + t.TempDir() + `", "ranges": [[{"subnet": "10.70.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`
	must(t, os.WriteFile(filepath.Join(conf, "10-lan.conflist"), []byte(list), 0o600))
	n := newLAN(t, "--cni-conf", conf, "--cni-plugins", "/usr/lib/cni")
	n.box("a", buoy.NIC{Type: "cni", ID: "lan"})
	n.box("b", buoy.NIC{Type: "default"}, buoy.NIC{Type: "cni", ID: "lan"})
	a, b := mustContainer(t, n, "a").NICs[0].Addresses, mustContainer(t, n, "b").NICs[1].Addresses
	if len(a) != 1 || len(b) != 1 || !n.reaches("a", strings.Split(b[0], "/")[0]) {
		t.Errorf("addresses %q and %q", a, b)
	}
	pid := mustContainer(t, n, "a").PID
	n.kill()
	n.start()
	if c := n.awaitState("a", "running"); c.PID != pid || !slices.Equal(c.NICs[0].Addresses, a) {
		t.Errorf("after a restart of buoyd: pid %d (was %d), %q", c.PID, pid, c.NICs[0].Addresses)
	}
	must(t, n.client.Update(t.Context(), "b", buoy.ContainerUpdate{NICs: &[]buoy.NIC{{Type: "default"}}}))
	if got := n.in("b", "ls /sys/class/net | tr '\\n' ' '"); got != "eth0 lo" {
		t.Errorf("after detach: %s", got)
	}
	// The bridge's MAC has followed its ports, of which its plugin complains.
	n.kill()
	n.start()
	if c := n.awaitState("a", "running"); c.PID != pid {
		t.Errorf("after a complaint of a plugin: pid %d, was %d", c.PID, pid)
	}
	must(t, n.client.Delete(t.Context(), "a"))
	must(t, n.client.Delete(t.Context(), "b"))
	testns.Sh(t, n.ns, "ip link del cni9") // as the plugin leaves it
	n.await("nothing else is left", func() bool { return picture(t, n.ns) == n.before })
}

package vm

import (
	"context"
	"fmt"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// sleeper is a container with these NICs.
func sleeper(name string, nics ...buoy.NIC) buoy.CreateRequest {
	return buoy.CreateRequest{Name: name, Flist: image, Init: true, Restart: "unless-stopped", Command: []string{"/bin/sleep", "100000"}, NICs: nics}
}

func nic(kind, id, cidr string) buoy.NIC {
	return buoy.NIC{Type: kind, ID: id, Config: &buoy.NICConfig{CIDR: cidr, DNS: []string{}}}
}

// inside runs a command in a container and has what it prints.
func (n *Node) inside(name, command string) string {
	n.m.t.Helper()
	id, err := n.Exec(n.m.t.Context(), name, buoy.Command{Name: "/bin/sh", Args: []string{"-c", command}})
	if err != nil {
		n.m.t.Fatalf("exec in %s: %v", name, err)
	}
	j, err := n.WaitJob(n.m.t.Context(), name, id)
	if err != nil {
		n.m.t.Fatalf("wait for a job in %s: %v", name, err)
	}
	return strings.TrimSpace(j.Stdout + j.Stderr)
}

func (n *Node) reaches(name, addr string) bool {
	n.m.t.Helper()
	return n.inside(name, "ping -c 1 -W 2 "+addr+" >/dev/null && echo yes") == "yes"
}

// TestVLANs has two machines on one wire, with containers on VLANs of it.
func TestVLANs(t *testing.T) {
	t.Parallel()
	wire, other := NewWire(t), NewWire(t)
	config := func(name string) Config {
		return Config{
			Name: name, Wires: []*Wire{wire, other}, Disks: []*Disk{NewDisk(t, "data", 256)},
			Files: append(Program(t, "/usr/sbin/nft"), Program(t, "/usr/sbin/dnsmasq")...),
		}
	}
	args := []string{"--data", "/disk/data/buoy", "--run", "/run/buoy", "--uplink", "eth1"}
	ma, mb := host(t, config("left")), host(t, config("right"))
	plugIn := func(m *Machine) { m.Must("sh", "-c", "ip link set eth1 up && ip link set eth2 up") }
	plugIn(ma)
	plugIn(mb)
	before := traces(ma)
	a, b := ma.Buoyd(args...), mb.Buoyd(args...)

	left := nic("vlan", "100", "10.1.0.1/24")
	left.HWAddr = "02:00:5e:10:00:01"
	a.create(t, sleeper("100", left))
	a.create(t, sleeper("astray", nic("vlan", "200", "10.1.0.7/24"))) // the network of VLAN 100, on another
	a.create(t, sleeper("both", nic("vlan", "100", "10.1.0.3/24"), nic("vlan", "200", "10.2.0.3/24")))
	a.create(t, sleeper("plain", nic("vlan", "0", "10.0.0.1/24")))
	a.create(t, sleeper("ipvlan", nic("ipvlan", "eth2", "10.5.0.1/24")))
	b.create(t, sleeper("100", nic("vlan", "100", "10.1.0.2/24")))
	b.create(t, sleeper("200", nic("vlan", "200", "10.2.0.2/24")))
	b.create(t, sleeper("plain", nic("vlan", "0", "10.0.0.2/24")))
	b.create(t, sleeper("ipvlan", nic("ipvlan", "eth2", "10.5.0.2/24")))

	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"100", "10.1.0.2", true},
		{"100", "10.1.0.3", true}, // on the same machine
		{"astray", "10.1.0.2", false},
		{"astray", "10.1.0.1", false},
		{"both", "10.1.0.2", true},
		{"both", "10.2.0.2", true},
		{"plain", "10.0.0.2", true},
		{"ipvlan", "10.5.0.2", true},
	} {
		if got := a.reaches(c.from, c.to); got != c.want {
			t.Errorf("%s reaches %s: %v, want %v", c.from, c.to, got, c.want)
		}
	}
	for _, vlan := range []int{0, 100, 200} {
		if wire.Frames(vlan) == 0 {
			t.Errorf("nothing passed in VLAN %d", vlan)
		}
	}
	if got := a.inside("100", "cat /sys/class/net/eth0/address"); got != left.HWAddr {
		t.Errorf("hwaddr %s", got)
	}

	wire.Cut(mb)
	if a.reaches("100", "10.1.0.2") {
		t.Error("it passes a cable that is cut")
	}
	wire.Mend(mb)
	if !a.reaches("100", "10.1.0.2") {
		t.Error("it does not come back with the cable")
	}

	t.Run("DHCP", func(t *testing.T) {
		mb.Must("sh", "-c", "ip link add link eth1 name shop type vlan id 300 && ip addr add 10.3.0.1/24 dev shop && ip link set shop up")
		server, err := mb.Spawn(t.Context(), "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--port=0", "--conf-file=/dev/null", "--user=root",
			"--pid-file=", "--interface=shop", "--bind-interfaces", "--dhcp-range=10.3.0.50,10.3.0.60,2m", "--dhcp-option=option:dns-server,10.3.0.1",
			"--dhcp-option=option:domain-search,shop.example", "--dhcp-leasefile=/tmp/leases")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				said, _ := server.Output(context.WithoutCancel(t.Context()))
				t.Logf("dnsmasq said:\n%s\n%s", said, mb.Must("sh", "-c", "ip addr; cat /proc/net/vlan/config"))
			}
		})
		leased := nic("vlan", "300", "")
		leased.Config.DHCP = true
		a.create(t, sleeper("till", leased))
		addr := address(a, "till")
		if !strings.HasPrefix(addr, "10.3.0.5") || !a.reaches("till", "10.3.0.1") {
			t.Errorf("leased %q", addr)
		}
		if got := a.inside("till", "cat /etc/resolv.conf"); !strings.Contains(got, "nameserver 10.3.0.1") || !strings.Contains(got, "search shop.example") {
			t.Errorf("/etc/resolv.conf: %s", got)
		}
		pid := a.Await("till", "running").PID
		a.Kill()
		a = ma.Buoyd(args...)
		if c := a.Await("till", "running"); c.PID != pid || address(a, "till") != addr {
			t.Errorf("after a restart of buoyd: pid %d (was %d), address %q (was %q)", c.PID, pid, address(a, "till"), addr)
		}
	})

	if t.Failed() {
		return
	}
	// After a power cut everything is plugged in again.
	ma.Kill()
	ma.PowerOn()
	plugIn(ma)
	a = ma.Buoyd(args...)
	for _, name := range []string{"100", "astray", "both", "plain", "ipvlan", "till"} {
		a.Await(name, "running")
	}
	if !a.reaches("both", "10.1.0.2") || !a.reaches("both", "10.2.0.2") || a.reaches("astray", "10.1.0.2") || !a.reaches("till", "10.3.0.1") {
		t.Error("after a power cut the networks are not what they were")
	}

	for _, name := range []string{"100", "astray", "both", "plain", "ipvlan", "till"} {
		if err := a.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	ma.Await("no link is left", func() bool {
		out := ma.Must("sh", "-c", "for link in /sys/class/net/*; do echo link $link; done")
		return strings.Contains(before, out)
	})
}

// address is the first of a container's first NIC.
func address(n *Node, name string) string {
	n.m.t.Helper()
	c, err := n.Container(n.m.t.Context(), name)
	if err != nil || len(c.NICs) == 0 || len(c.NICs[0].Addresses) == 0 {
		n.m.t.Fatal(fmt.Errorf("address of %s: %+v, %w", name, c.NICs, err))
	}
	return c.NICs[0].Addresses[0]
}

package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/testns"
)

// lab is a bridge of the API, with DHCP.
func (n *lan) lab() (leased buoy.NIC) {
	n.t.Helper()
	must(n.t, n.client.CreateBridge(n.t.Context(), buoy.Bridge{Name: "lab", NetworkMode: "dnsmasq", NAT: true, Setting: buoy.BridgeSetting{CIDR: "10.20.0.1/24"}}))
	leased = nic("bridge", "lab", "")
	leased.Config.DHCP = true
	return leased
}

// agrees says how a container differs inside from what the API says of its NICs.
func (n *lan) agrees(name, what string) {
	n.t.Helper()
	c := mustContainer(n.t.(*testing.T), n, name)
	names := []string{"lo"}
	for _, x := range c.NICs {
		names = append(names, x.Interface)
		got := n.in(name, "ip -o -4 addr show dev "+x.Interface)
		if x.Status != "up" || len(x.Addresses) == 0 || !strings.Contains(got, x.Addresses[0]) || strings.Count(got, "inet ") != 1 {
			n.t.Errorf("%s: NIC %+v has inside: %s", what, x, got)
		}
	}
	slices.Sort(names)
	if got := strings.Fields(n.in(name, "ls /sys/class/net")); !slices.Equal(got, names) {
		n.t.Errorf("%s: interfaces %q, want %q", what, got, names)
	}
}

// nothing waits until the machine's network is as it was.
func (n *lan) nothing() {
	n.t.Helper()
	n.await("nothing is left on the machine", func() bool { return picture(n.t, n.ns) == n.before })
}

func named(x buoy.NIC, name string) buoy.NIC {
	x.Name = name
	return x
}

// TestNICsReplaced has one NIC take another's place, and its name.
func TestNICsReplaced(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	leased := n.lab()
	dflt, given, mac := buoy.NIC{Type: "default"}, buoy.NIC{Type: "bridge", ID: "lab"}, nic("macvlan", "up0", "192.0.2.80/24")
	n.box("a", dflt)
	pid := mustContainer(t, n, "a").PID
	for i, nics := range [][]buoy.NIC{
		{given},
		{dflt},
		{mac},
		{leased},
		{given},
		{mac, dflt},
		{named(mac, "x"), named(dflt, "y")},
		{named(mac, "y"), named(dflt, "x")},
		{dflt, leased},
		{named(leased, "x")},
		{named(dflt, "x")},
	} {
		must(t, n.client.Update(t.Context(), "a", buoy.ContainerUpdate{NICs: &nics}))
		n.agrees("a", fmt.Sprint("change ", i))
	}
	if now := mustContainer(t, n, "a").PID; now != pid {
		t.Errorf("pid %d, was %d", now, pid)
	}
	must(t, n.client.Delete(t.Context(), "a"))
	must(t, n.client.DeleteBridge(t.Context(), "lab"))
	n.nothing()
}

// TestUpdateKilled kills buoyd somewhere in changes of NICs. The next one makes
// them what they are to be, in the container that runs.
func TestUpdateKilled(t *testing.T) {
	t.Parallel()
	n := newLAN(t)
	leased := n.lab()
	dflt, mac := buoy.NIC{Type: "default"}, nic("macvlan", "up0", "192.0.2.80/24")
	vx := nic("vxlan", "7", "10.50.0.2/24")
	vx.Config.Peers = []string{"192.0.2.1"}
	sets := [][]buoy.NIC{{{Type: "bridge", ID: "lab"}}, {leased}, {named(mac, "x"), dflt}, {dflt, leased}, {vx, named(leased, "x")}, {mac}, {}, {dflt}}
	n.box("a", dflt)
	pid := mustContainer(t, n, "a").PID
	for i, nics := range sets {
		told := make(chan error, 1)
		go func() {
			told <- n.client.Update(context.WithoutCancel(t.Context()), "a", buoy.ContainerUpdate{NICs: &nics})
		}()
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // anywhere in it is right
		n.kill()
		err := <-told
		n.start()
		if c := n.awaitState("a", "running"); c.PID != pid {
			t.Fatalf("change %d: pid %d, was %d\n%s", i, c.PID, pid, n.log)
		}
		n.agrees("a", fmt.Sprintf("change %d (%v)", i, err))
	}
	must(t, n.client.Delete(t.Context(), "a"))
	must(t, n.client.DeleteBridge(t.Context(), "lab"))
	n.nothing()
}

// TestNetworkStorm has everything change at once, and others take away what
// buoy made.
func TestNetworkStorm(t *testing.T) {
	n := newLAN(t)
	n.lab()
	ctx := t.Context()
	over := time.Now().Add(6 * time.Second)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards worst
	worst := map[string]bool{}
	hear := func(err error) {
		if err != nil && strings.Contains(err.Error(), "BUG") {
			mu.Lock()
			defer mu.Unlock()
			worst[err.Error()] = true
		}
	}
	for i := range 4 {
		name := fmt.Sprint("c", i)
		r := sh(t, name, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
		all := []buoy.NIC{{Type: "default"}, {Type: "bridge", ID: "lab"}, nic("macvlan", "up0", fmt.Sprintf("192.0.2.%d/24", 100+i)), {Type: "bridge", ID: "tmp"}}
		wg.Go(func() {
			for time.Now().Before(over) {
				rand.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
				r.NICs = slices.Clone(all[:1+rand.IntN(2)])
				hear(n.client.Create(ctx, r))
				rand.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
				pick := slices.Clone(all[:1+rand.IntN(2)])
				hear(n.client.Update(ctx, name, buoy.ContainerUpdate{NICs: &pick}))
				hear(n.client.Delete(ctx, name))
			}
		})
	}
	wg.Go(func() {
		for time.Now().Before(over) {
			hear(n.client.CreateBridge(ctx, buoy.Bridge{Name: "tmp", NetworkMode: "static", Setting: buoy.BridgeSetting{CIDR: "10.31.0.1/24"}}))
			hear(n.client.DeleteBridge(ctx, "tmp"))
		}
	})
	scripts := []string{"nft flush ruleset", "ip link del br-" + n.instance() + " || true", "ip link del lab || true"}
	for i := 0; time.Now().Before(over); i++ {
		testns.Sh(t, n.ns, scripts[i%len(scripts)])
		time.Sleep(200 * time.Millisecond)
	}
	wg.Wait()
	for said := range worst {
		t.Error(said)
	}
	for i := range 4 {
		must(t, n.client.Delete(ctx, fmt.Sprint("c", i)))
	}
	must(t, n.client.DeleteBridge(ctx, "tmp"))
	must(t, n.client.DeleteBridge(ctx, "lab"))
	n.nothing()
	n.stop() // nothing hangs
}

// TestNICNumbers is about values that only the kernel used to refuse.
func TestNICNumbers(t *testing.T) {
	n := newLAN(t)
	for _, nics := range []string{
		`[{"type":"default","config":{"rate":{"in":18446744073709551615}}}]`,
		`[{"type":"macvlan","id":"up0","config":{"cidr":"192.0.2.9/24","gateway":"192.0.2.255"}}]`,
		`[{"type":"macvlan","id":"up0","config":{"cidr":"192.0.2.9/24","routes":[{"to":"::ffff:10.0.0.0/104"}]}}]`,
		`[{"type":"vxlan","id":5,"config":{"peers":["::ffff:192.0.2.1"]}}]`,
		`[{"type":"vxlan","id":5,"config":{"peers":["fe80::1%up0"]}}]`,
	} {
		if code, _, text := n.raw("POST", "/nodes/525400123456/containers", `{"name":"x","flist":"`+image(t)+`","nics":`+nics+`}`); code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", nics, code, text)
		}
	}
}

package netcfg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestAttachFailureLeavesNothing(t *testing.T) {
	checkGoroutines(t)
	w := newWorld(t)
	n := w.setup(t)
	first := start(t, n, "first", "172.18.0.2")
	ns := newNS(t)
	addr := netip.MustParseAddr
	with := func(edit func(*Link)) Link {
		l := defaultLink("x", addr("172.18.0.3"))
		edit(&l)
		return l
	}
	fill := "for i in $(seq 1023); do echo link add d$i group 77 master buoy0 type ifb; done | ip -force -batch - 2>/dev/null || true"
	attempts := map[string]struct {
		prepare, undo string
		ns            string
		link          Link
		kind          errs.Kind
	}{
		"duplicate address":  {link: defaultLink("x", first.addr), kind: errs.Conflict},
		"bridge gone":        {prepare: "ip link set buoy0 name gone", undo: "ip link set gone name buoy0", link: defaultLink("x", addr("172.18.0.3")), kind: errs.Conflict},
		"bridge down, MTU":   {link: with(func(l *Link) { l.NIC.Config.MTU = 100 }), kind: errs.Invalid},
		"address elsewhere":  {link: defaultLink("x", addr("10.0.0.2")), kind: errs.Invalid},
		"gateway":            {link: defaultLink("x", addr("172.18.0.1")), kind: errs.Invalid},
		"no namespace":       {ns: "/proc/self/fd/99999", link: defaultLink("x", addr("172.18.0.3")), kind: errs.NotFound},
		"host's namespace":   {ns: w.host, link: defaultLink("x", addr("172.18.0.3")), kind: errs.Invalid},
		"not a namespace":    {ns: "/dev/null", link: defaultLink("x", addr("172.18.0.3")), kind: errs.Internal},
		"bad name":           {link: with(func(l *Link) { l.Name = "a/b" }), kind: errs.Invalid},
		"multicast MAC":      {link: with(func(l *Link) { l.MAC = net.HardwareAddr{1, 2, 3, 4, 5, 6} }), kind: errs.Invalid},
		"foreign link there": {link: with(func(l *Link) { l.Name = "tap0" }), kind: errs.Conflict},
		"bridge full":        {prepare: fill, undo: "ip link del group 77", link: defaultLink("x", addr("172.18.0.3")), kind: errs.Internal},
	}
	w.sh(t, ns, "ip link add tap0 type ifb; ip addr add 172.18.0.1/16 dev tap0; ip link set tap0 up; ip rule add from all table 99; ip route add 172.18.0.1 dev lo table 99")
	inside := func() string { return w.sh(t, ns, "ip -d link; ip addr; ip route show table all") }
	for name, a := range attempts {
		t.Run(name, func(t *testing.T) {
			if a.prepare != "" {
				w.sh(t, w.host, a.prepare)
				defer w.sh(t, w.host, a.undo)
			}
			before, beforeInside := w.state(t), inside()
			path := ns
			if a.ns != "" {
				path = a.ns
			}
			err := n.Attach(t.Context(), path, a.link)
			if err == nil || errs.KindOf(err) != a.kind {
				t.Fatalf("err = %v, want kind %q", err, a.kind)
			}
			t.Log(err)
			if after := w.state(t); after != before {
				t.Errorf("host changed:\n%s", diff(after, before))
			}
			if after := inside(); after != beforeInside {
				t.Errorf("namespace changed:\n%s", diff(after, beforeInside))
			}
			n.claims.mu.Lock()
			defer n.claims.mu.Unlock()
			if len(n.claims.by) != 2 { // first's address and MAC
				t.Errorf("claims = %v", n.claims.by)
			}
		})
	}
}

func TestAttachAgainElsewhere(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	old := start(t, n, "web", "172.18.0.2")
	for _, closeFirst := range []bool{false, true} { // the host end lives, or is about to die
		if closeFirst {
			old.ns.Close()
		}
		fresh := start(t, n, "web", "172.18.0.2")
		stop := serve(t, fresh.ns.Path(), "web", "172.18.0.2:80")
		if got := call(w.host, TCP, "172.18.0.2:80"); got == "" {
			t.Errorf("closeFirst %v: no answer", closeFirst)
		}
		stop() // an open socket keeps the namespace
		old = fresh
	}
	// Another container gets the address as soon as the first is closed.
	old.ns.Close()
	next := start(t, n, "next", "172.18.0.2")
	// A container changes its address.
	next.addr = netip.MustParseAddr("172.18.0.9")
	if err := n.Attach(t.Context(), next.ns.Path(), next.link()); err != nil {
		t.Fatal(err)
	}
	if got := w.sh(t, next.ns.Path(), "ip -4 -br addr show dev eth0"); strings.Contains(got, "172.18.0.2/") || !strings.Contains(got, "172.18.0.9/16") {
		t.Errorf("addresses: %s", got)
	}
	start(t, n, "third", "172.18.0.2")
}

func TestAttachAsAsked(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	ns, err := n.Netns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	mac, _ := net.ParseMAC("02:00:00:aa:bb:cc")
	l := defaultLink("web", netip.MustParseAddr("172.18.3.4"))
	l.Name, l.MAC, l.NIC.Config.MTU = "lan0", mac, 1400
	if err := n.Attach(t.Context(), ns.Path(), l); err != nil {
		t.Fatal(err)
	}
	list, err := n.Interfaces(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	var got *Interface
	for i := range list {
		if list[i].Name == "lan0" {
			got = &list[i]
		}
	}
	if got == nil || got.HWAddr != mac.String() || got.MTU != 1400 || got.Addrs[0] != prefix("172.18.3.4/16") || got.Flags[0] != "up" {
		t.Errorf("interfaces = %+v", list)
	}
	if call(w.host, UDP, "172.18.3.4:9"); got.RxBytes+got.TxBytes == 0 {
		again, err := n.Interfaces(ns.Path())
		if err != nil || len(again) != 2 || again[1].RxPackets == 0 {
			t.Errorf("counters: %+v, %v", again, err)
		}
	}
	if link := w.sh(t, w.host, "ip link show dev "+n.portName("web", 0)); !strings.Contains(link, "alias buoy:t1:web") || !strings.Contains(link, "mtu 1400") {
		t.Errorf("host end: %s", link)
	}
	if host, err := n.Interfaces(""); err != nil || len(host) < 3 {
		t.Errorf("host's interfaces: %+v, %v", host, err)
	}
	// The path is good for another process, too.
	if _, err := os.Stat(ns.Path()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := n.Detach(t.Context(), ns.Path(), l); err != nil {
			t.Fatal(err)
		}
	}
	if list, err = n.Interfaces(ns.Path()); err != nil || len(list) != 1 {
		t.Errorf("after detach: %+v, %v", list, err)
	}
}

func TestAttachConcurrently(t *testing.T) {
	checkGoroutines(t)
	w := newWorld(t)
	n := w.setup(t)
	const count = 60
	spaces := make([]*Netns, count)
	var wg sync.WaitGroup
	for i := range count {
		wg.Go(func() {
			ns, err := n.Netns(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			spaces[i] = ns
			addr := netip.AddrFrom4([4]byte{172, 18, 1, byte(i)})
			if err := n.Attach(t.Context(), ns.Path(), defaultLink(fmt.Sprint("c", i), addr)); err != nil {
				t.Error(err)
			}
			if err := n.Setup(t.Context()); i%20 == 0 && err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := strings.Count(w.sh(t, w.host, "bridge link"), "master buoy0"); got != count {
		t.Errorf("%d links on the bridge, want %d", got, count)
	}
	for _, ns := range spaces {
		ns.Close()
	}
	eventually(t, "links gone with their namespaces", func() bool {
		return !strings.Contains(w.sh(t, w.host, "bridge link"), "buoy0")
	})
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := n.Netns(t.Context()); !errors.Is(err, errs.Unavailable) {
		t.Errorf("netns after close: %v", err)
	}
}

func TestNetnsPool(t *testing.T) {
	w := newWorld(t)
	checkGoroutines(t)
	n := w.net(t)
	if len(n.pool.spare) != 0 {
		t.Error("a pool before its first use")
	}
	here := threadNS(t)
	seen := map[string]bool{}
	for range 10 {
		ns, err := n.Netns(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		target, err := os.Readlink(ns.Path())
		if err != nil || seen[target] || target == here {
			t.Errorf("namespace %s seen before: %v", target, err)
		}
		seen[target] = true
		t.Cleanup(func() { ns.Close() }) // not earlier: the kernel reuses the number
		if up := w.sh(t, ns.Path(), "cat /sys/class/net/lo/flags 2>/dev/null; ip link show lo"); !strings.Contains(up, "UP") {
			t.Errorf("lo: %s", up)
		}
		eventually(t, "refilled", func() bool {
			n.pool.mu.Lock()
			defer n.pool.mu.Unlock()
			return len(n.pool.spare) == poolSize
		})
	}
	if len(n.pool.made) != poolSize+10 {
		t.Errorf("%d open", len(n.pool.made))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Netns(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if len(n.pool.made) != 10 || n.pool.spare != nil {
		t.Errorf("%d open after close", len(n.pool.made))
	}
}

// No goroutine may ever run in a namespace that it did not ask for.
func TestInNSKeepsToItsThread(t *testing.T) {
	path := newWorld(t).client
	here := threadNS(t)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := InNS(path, func() error {
				if threadNS(t) == here {
					t.Error("not inside")
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			time.Sleep(time.Millisecond)
			if threadNS(t) != here {
				t.Error("a goroutine strayed")
			}
		})
	}
	wg.Wait()
	if self, err := os.Readlink("/proc/self/ns/net"); err != nil || self != here {
		t.Errorf("the main thread is in %s, %v", self, err)
	}
}

func TestCheckFree(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	web := start(t, n, "web", "172.18.0.2")
	serve(t, w.host, "host", "127.0.0.1:9090")
	setPorts(t, n, web.forward(TCP, "192.0.2.1:8080", 80))
	for _, proto := range protos {
		for addr, kind := range map[string]errs.Kind{
			"127.0.0.1:9090":   errs.Conflict,
			"0.0.0.0:9090":     errs.Conflict,
			"192.0.2.1:9090":   "",
			"192.0.2.200:9090": errs.Invalid,
			"0.0.0.0:9091":     "",
		} {
			err := n.CheckFree(web.forward(proto, addr, 80))
			if kind == "" && err != nil || kind != "" && errs.KindOf(err) != kind {
				t.Errorf("%s %s: %v, want %q", proto, addr, err, kind)
			}
		}
	}
	other := container{id: "other", addr: netip.MustParseAddr("172.18.0.3")}
	if err := n.CheckFree(web.forward(TCP, "192.0.2.1:8080", 80)); err != nil {
		t.Errorf("its own: %v", err)
	}
	if err := n.CheckFree(other.forward(TCP, "0.0.0.0:8080", 80)); !errors.Is(err, errs.Conflict) {
		t.Errorf("another's: %v", err)
	}
	both := []Forward{web.forward(TCP, "0.0.0.0:80", 80), other.forward(TCP, "127.0.0.1:80", 80)}
	if err := n.SetPorts(t.Context(), both); !errors.Is(err, errs.Conflict) {
		t.Errorf("two for a port: %v", err)
	}
}

// BenchmarkAttach is what a container's start waits for, as percentiles: the
// mean is that of the machine's other work.
func BenchmarkAttach(b *testing.B) {
	w := newWorld(b)
	n := w.setup(b)
	for _, gap := range []time.Duration{0, 40 * time.Millisecond} {
		b.Run(fmt.Sprint("gap=", gap), func(b *testing.B) {
			var netns, attach, both []time.Duration
			for i := 0; b.Loop(); i++ {
				at := time.Now()
				ns, err := n.Netns(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				mid := time.Now()
				addr := netip.AddrFrom4([4]byte{172, 18, byte(i >> 7), byte(2 + i&127)})
				if err := n.Attach(b.Context(), ns.Path(), defaultLink(fmt.Sprint("c", i), addr)); err != nil {
					b.Fatal(err)
				}
				end := time.Now()
				netns, attach, both = append(netns, mid.Sub(at)), append(attach, end.Sub(mid)), append(both, end.Sub(at))
				b.StopTimer()
				ns.Close()
				time.Sleep(gap)
				b.StartTimer()
			}
			for unit, list := range map[string][]time.Duration{"netns": netns, "attach": attach, "both": both} {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds()), unit+"-p50-µs")
				b.ReportMetric(float64(list[len(list)*95/100].Microseconds()), unit+"-p95-µs")
			}
		})
	}
}

package netcfg

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// heard gathers what a Watch tells.
type heard struct {
	mu    sync.Mutex
	words []string
}

func (h *heard) tell(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.words = append(h.words, what)
}

// take is what was told since the last take.
func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	words := h.words
	h.words = nil
	return words
}

func TestWatch(t *testing.T) {
	checkGoroutines(t)
	w := withUplink(t)
	n := w.setup(t)
	out := Bridge{Name: "br2", Mode: BridgeStatic, NAT: true, Prefix: prefix("10.2.0.254/24")}
	setBridges(t, n, out)
	v := nicLink("v", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Peers: addrs("192.0.2.2")}}, "10.7.0.1/24")
	web := start(t, n, "web", "172.18.0.2")
	nsV := joinNS(t, n, v)
	w.sh(t, w.host, "ip link del br2") // before anybody looks

	ctx, cancel := context.WithCancel(t.Context())
	var h heard
	done := make(chan error, 1)
	go func() { done <- n.Watch(ctx, h.tell) }()
	hears := func(what string) {
		t.Helper()
		eventually(t, "hears of "+what, func() bool { return slices.Contains(h.take(), what) })
	}
	hears("bridge br2")
	repair := func() {
		t.Helper()
		if err := n.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		attach(t, n, web.ns, web.link())
		attach(t, n, nsV, v)
		settled(t, &h)
	}
	repair()
	for _, tt := range []struct{ script, what string }{
		{"ip link del br2", "bridge br2"},
		{"ip link set br2 down", "bridge br2"},
		{"ip addr flush dev br2", "bridge br2"},
		{"ip link del buoy0", "bridge buoy0"},
		{"ip link set buoy0 alias x; ip link set buoy0 alias ''", "bridge buoy0"},
		{"ip link del $PORT", "container web"},
		{"ip link del $SEGMENT", "bridge $SEGMENT"},
		{"ip link del $DEVICE", "vxlan $DEVICE"},
		{"nft flush ruleset", "rules"},
		{"nft flush chain inet buoy-t1 postrouting", "rules"},
	} {
		names := func(s string) string {
			return w.sh(t, w.host, "PORT="+n.portName("web", 0)+"; SEGMENT="+n.segmentName("bb", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Uplink: "eth0"}})+
				"; DEVICE=bl${SEGMENT#bb}; "+s)
		}
		names(tt.script)
		hears(names("printf %s \"" + tt.what + "\""))
		repair()
	}
	w.sh(t, web.ns.Path(), "ip link del eth0") // by the container's administrator
	hears("container web")
	repair()

	// What the instance does, and what goes with its namespace, is not told.
	for i := range 5 {
		c := start(t, n, "c", "172.18.0.9")
		port := n.portName("c", 0)
		setPorts(t, n, c.forward(TCP, "0.0.0.0:8080", 80))
		if i%2 == 0 {
			detach(t, n, c.ns.Path(), c.link())
		}
		c.ns.Close()
		eventually(t, "link gone", func() bool { return w.look(t, w.host, port) == nil })
		setPorts(t, n)
	}
	detach(t, n, nsV.Path(), v)
	setBridges(t, n)
	w.sh(t, w.host, "nft add table ip other; ip link add foreign type bridge; ip link del foreign")
	time.Sleep(2 * watchPause) // for what should not come
	if words := h.take(); len(words) > 0 {
		t.Errorf("hears of %q", words)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// settled waits until Watch has no more to say of the last repair.
func settled(t testing.TB, h *heard) {
	t.Helper()
	eventually(t, "nothing more is told", func() bool {
		time.Sleep(2 * watchPause)
		return len(h.take()) == 0
	})
}

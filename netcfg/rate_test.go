package netcfg

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func TestTokenBucket(t *testing.T) {
	for _, tt := range []struct {
		rate         uint64
		burst, queue uint64 // bytes
	}{
		{8_000, 2 * 1514, 12 * 1514},                    // bounded by full frames
		{10_000_000, 12_500, 12_500 + 62_500},           // 10 ms, and 50 ms behind it
		{1_000_000_000, 1_250_000, 1_250_000 * 6},       // 1 Gbit/s
		{100_000_000_000, 125_000_000, 125_000_000 * 6}, // more than 32 bits of bits
	} {
		b := tokenBucket(1, tt.rate, 1500)
		if got := uint64(netlink.Xmitsize(b.Rate, b.Buffer)); b.Rate != tt.rate/8 || uint64(b.Limit) != tt.queue || got > tt.burst+tt.burst/50 || got < tt.burst-tt.burst/50-1 {
			t.Errorf("%d bit/s: %d B/s, burst %d, limit %d; want burst %d, limit %d", tt.rate, b.Rate, got, b.Limit, tt.burst, tt.queue)
		}
	}
}

// speed is how many bits a second go from a sender in one namespace to a
// receiver in another, for a third of a second.
func speed(t *testing.T, from, to, addr string) float64 {
	t.Helper()
	var l net.Listener
	if err := InNS(to, func() (err error) {
		l, err = net.Listen("tcp4", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	result := make(chan float64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			result <- 0
			return
		}
		defer c.Close()
		_, _ = io.CopyN(io.Discard, c, 64<<10) // the burst at the start
		at := time.Now()
		k, _ := io.Copy(io.Discard, c)
		result <- float64(k*8) / time.Since(at).Seconds()
	}()
	err := InNS(from, func() error {
		c, err := net.DialTimeout("tcp4", addr, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(333 * time.Millisecond))
		buf := make([]byte, 1<<16)
		for err == nil {
			_, err = c.Write(buf)
		}
		return c.(*net.TCPConn).SetLinger(0)
	})
	if err != nil {
		t.Fatal(err)
	}
	return <-result
}

func TestRates(t *testing.T) {
	w := onLAN(t)
	n := w.net(t)
	l := nicLink("a", NIC{Type: NICBridge, ID: "lan"}, "192.0.2.50/24")
	ns := joinNS(t, n, l)
	check := func(in, out uint64) {
		t.Helper()
		l.NIC.Config.Rate = Rate{In: in, Out: out}
		attach(t, n, ns, l)
		for what, c := range map[string]struct {
			from, to, addr string
			rate           uint64
		}{"in": {w.client, ns.Path(), "192.0.2.50:5001", in}, "out": {ns.Path(), w.client, "192.0.2.2:5001", out}} {
			got := speed(t, c.from, c.to, c.addr)
			t.Logf("%s: %.1f Mbit/s, bounded to %.1f", what, got/1e6, float64(c.rate)/1e6)
			if c.rate > 0 && (got > 1.15*float64(c.rate) || got < 0.2*float64(c.rate)) {
				t.Errorf("%s: %.0f bit/s, bounded to %d", what, got, c.rate)
			}
			if c.rate == 0 && got < 1e8 {
				t.Errorf("%s: %.0f bit/s without a bound", what, got)
			}
		}
	}
	check(0, 0)
	check(20_000_000, 0)
	check(20_000_000, 40_000_000)
	check(0, 10_000_000)
	// A limit of the container's own administrator is not ours to take away.
	l.NIC.Config.Rate = Rate{}
	attach(t, n, ns, l)
	w.sh(t, ns.Path(), "tc qdisc replace dev eth0 root tbf rate 5mbit burst 9000 latency 9ms")
	attach(t, n, ns, l)
	if q := w.sh(t, ns.Path(), "tc qdisc show dev eth0"); !strings.Contains(q, "rate 5Mbit") {
		t.Errorf("qdisc: %s", q)
	}
	if q := w.sh(t, w.host, "tc qdisc show dev "+n.portName("a", 0)); !strings.Contains(q, "noqueue") {
		t.Errorf("the host's end: %s", q)
	}
	mac := nicLink("b", NIC{Type: NICMacvlan, ID: "lan", Config: NICConfig{Rate: Rate{Out: 20_000_000}}}, "192.0.2.51/24")
	if got := speed(t, joinNS(t, n, mac).Path(), w.client, "192.0.2.2:5001"); got > 23e6 || got < 4e6 {
		t.Errorf("macvlan: %.0f bit/s", got)
	}
}

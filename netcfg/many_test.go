package netcfg

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// count is how many links, addresses, routes and rules the host has, and how
// many files this process has open.
func (w *world) count(t testing.TB) string {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return w.sh(t, w.host, `for what in "link" "addr" "-4 route show table all" "-6 route show table all" "rule"; do echo $what $(ip -o $what 2>/dev/null | grep -v 'fe80:\|ff00:' | wc -l); done
echo rules $(nft list ruleset | wc -l) qdiscs $(tc qdisc | wc -l)`) + fmt.Sprintln("files", len(files))
}

// 200 NICs of all types come and go: nothing is left of them.
func TestManyLeaveNothing(t *testing.T) {
	w := onLAN(t)
	w.sh(t, w.host, "ip route add default via 192.0.2.2")
	n := w.setup(t)
	if err := n.pool.close(); err != nil { // its files come and go
		t.Fatal(err)
	}
	ns := newNS(t)
	before := w.count(t)
	var first, last time.Duration
	for i := range 200 {
		l := defaultLink("c", netip.AddrFrom4([4]byte{172, 18, 1, byte(i)}))
		switch i % 4 {
		case 1:
			l = nicLink("c", NIC{Type: NICBridge, ID: "lan", Config: NICConfig{Rate: Rate{In: 1e8, Out: 1e8}}}, fmt.Sprintf("192.0.2.%d/24", 20+i), fmt.Sprintf("fd77::%d/64", i+9))
			l.Gateways = addrs("192.0.2.2", "fd77::2")
		case 2:
			l = nicLink("c", NIC{Type: NICMacvlan, ID: "lan"}, fmt.Sprintf("192.0.2.%d/24", 20+i))
		case 3:
			l = nicLink("c", NIC{Type: NICVXLAN, ID: "7", Config: NICConfig{Peers: addrs("192.0.2.2")}}, fmt.Sprintf("10.7.0.%d/24", i))
		}
		at := time.Now()
		if err := n.Attach(t.Context(), ns, l); err != nil {
			t.Fatal(err)
		}
		if err := n.Detach(t.Context(), ns, l); err != nil {
			t.Fatal(err)
		}
		if i < 40 {
			first += time.Since(at)
		} else if i >= 160 {
			last += time.Since(at)
		}
	}
	t.Logf("attach and detach: the first 40 in %v, the last 40 in %v", first, last)
	if after := w.count(t); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	if left := w.sh(t, ns, "ip -br link; ip route; ip -6 route"); strings.Count(left, "\n") != 1 {
		t.Errorf("left inside:\n%s", left)
	}
}

// 200 containers at a time: each start costs about what the one before did.
func TestManyAtATime(t *testing.T) {
	w := newWorld(t)
	n := w.setup(t)
	before := w.count(t)
	const count = 200
	spaces := make([]*Netns, count)
	took := make([]time.Duration, count)
	for _, parallel := range []int{1, 4, 8} {
		work := make(chan int)
		var wg sync.WaitGroup
		begun := time.Now()
		for range parallel {
			wg.Go(func() {
				for i := range work {
					at := time.Now()
					ns, err := n.Netns(t.Context())
					if err != nil {
						t.Error(err)
						continue
					}
					spaces[i] = ns
					if err := n.Attach(t.Context(), ns.Path(), defaultLink(fmt.Sprint("c", i), netip.AddrFrom4([4]byte{172, 18, 1, byte(i)}))); err != nil {
						t.Error(err)
					}
					took[i] = time.Since(at)
				}
			})
		}
		for i := range count {
			work <- i
		}
		close(work)
		wg.Wait()
		part := func(list []time.Duration) time.Duration {
			list = slices.Clone(list)
			slices.Sort(list)
			return list[len(list)/2]
		}
		t.Logf("%d at a time: %v for %d; median of the first 50 %v, of the last 50 %v", parallel, time.Since(begun), count, part(took[:50]), part(took[150:]))
		at := time.Now()
		again := w.net(t, func(c *Config) { c.StateDir = n.cfg.StateDir })
		for i, ns := range spaces {
			if err := again.Attach(t.Context(), ns.Path(), defaultLink(fmt.Sprint("c", i), netip.AddrFrom4([4]byte{172, 18, 1, byte(i)}))); err != nil {
				t.Error(err)
			}
		}
		t.Logf("adopting all: %v", time.Since(at))
		for _, ns := range spaces {
			ns.Close()
		}
		eventually(t, "links gone with their namespaces", func() bool {
			return !strings.Contains(w.sh(t, w.host, "ip -br link 2>/dev/null"), n.portMark())
		})
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	links := func(s string) string { s, _, _ = strings.Cut(s, "files"); return s }
	if after := w.count(t); links(after) != links(before) {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

// A burst of starts finds namespaces ready, and a while later the pool is as
// small as ever.
func TestPoolFollowsBursts(t *testing.T) {
	w := newWorld(t)
	n := w.net(t)
	ready := func() int {
		n.pool.mu.Lock()
		defer n.pool.mu.Unlock()
		return len(n.pool.spare)
	}
	take := func(parallel int) {
		t.Helper()
		var wg sync.WaitGroup
		for range parallel {
			wg.Go(func() {
				ns, err := n.Netns(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { ns.Close() })
			})
		}
		wg.Wait()
	}
	take(1)
	eventually(t, "some are ready", func() bool { return ready() == poolSize })
	take(8)
	eventually(t, "more are ready", func() bool { return ready() >= 8 })
	for range 4 { // as starts at 8 at a time follow one another
		take(8)
		eventually(t, "again", func() bool { return ready() >= 8 })
	}
	if got := ready(); got > poolMost {
		t.Errorf("%d ready, want at most %d", got, poolMost)
	}
	n.pool.level(poolSize) // what poolRest brings
	if got := ready(); got != poolSize {
		t.Errorf("%d ready after a rest", got)
	}
}

// BenchmarkAttachDefault is a start's network as the node makes it: a
// namespace out of the pool, and a default NIC.
func BenchmarkAttachDefault(b *testing.B) {
	w := newWorld(b)
	n := w.setup(b)
	var list []time.Duration
	for i := 0; b.Loop(); i++ {
		ns, err := n.Netns(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		at := time.Now()
		if err := n.Attach(b.Context(), ns.Path(), defaultLink(fmt.Sprint("c", i), netip.AddrFrom4([4]byte{172, 18, byte(i >> 7), byte(2 + i&127)}))); err != nil {
			b.Fatal(err)
		}
		list = append(list, time.Since(at))
		b.StopTimer()
		ns.Close()
		time.Sleep(2 * refillDelay)
		b.StartTimer()
	}
	slices.Sort(list)
	b.ReportMetric(float64(list[len(list)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(list[len(list)*95/100].Microseconds()), "p95-µs")
}

package sqlite_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/app"
)

func fleet(n int) []app.Replica {
	all := make([]app.Replica, n)
	for i := range all {
		all[i] = app.Replica{
			ID: fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()), App: fmt.Sprint("app-", i%500), Index: i/500 + 1, Revision: 2,
			Host: fmt.Sprint("host-", i%10_000), Created: time.Now().UTC(), Phase: app.Running, Started: time.Now().UTC(),
			Ports:   map[uint16]netip.AddrPort{80: netip.MustParseAddrPort("192.0.2.1:32768")},
			Address: "172.18.0.2", Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		}
	}
	return all
}

// BenchmarkFleet is 100,000 replicas on 10,000 hosts: how long it takes to
// write them, to write each again, and to read them.
func BenchmarkFleet(b *testing.B) {
	replicas := fleet(100_000)
	hosts := make([]app.Host, 10_000)
	for i := range hosts {
		hosts[i] = app.Host{
			ID: fmt.Sprint("host-", i), Name: fmt.Sprint("edge-", i), Addr: "192.0.2.1", Labels: map[string]string{"zone": "north"},
			TokenHash: fmt.Sprintf("%064x", i), Mode: app.Continue, Registered: time.Now().UTC(),
			Facts: app.Facts{Arch: "amd64", OS: "Debian GNU/Linux 12", Kernel: "6.1.0", MilliCPU: 8000, Memory: 16 << 30, Addrs: []string{"192.0.2.1"}},
		}
	}
	for b.Loop() {
		s := open(b, filepath.Join(b.TempDir(), "controller.db"))
		write := func() time.Duration {
			began := time.Now()
			for i := 0; i < len(replicas); i += 5000 {
				if err := s.Commit(b.Context(), app.Change{Replicas: replicas[i : i+5000]}); err != nil {
					b.Fatal(err)
				}
			}
			return time.Since(began)
		}
		b.ReportMetric(write().Seconds(), "s/insert")
		if err := s.Commit(b.Context(), app.Change{Hosts: hosts}); err != nil {
			b.Fatal(err)
		}
		for i := range replicas {
			replicas[i].Restarts++
		}
		rand.Shuffle(len(replicas), func(i, j int) { replicas[i], replicas[j] = replicas[j], replicas[i] })
		b.ReportMetric(write().Seconds(), "s/update")
		b.ReportMetric(write().Seconds(), "s/same")
		began := time.Now()
		st, err := s.Load(b.Context())
		if err != nil || len(st.Replicas) != len(replicas) || len(st.Hosts) != len(hosts) {
			b.Fatal(err, len(st.Replicas), len(st.Hosts))
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/load")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEvents is one event a commit, with pruning.
func BenchmarkEvents(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "controller.db"))
	defer s.Close()
	for i := range 40 {
		c := app.Change{Events: make([]app.Event, 1000)}
		for j := range c.Events {
			c.Events[j] = app.Event{Time: time.Now(), Type: app.Life, App: fmt.Sprint("app-", i%15), Host: fmt.Sprint("host-", j), Message: "a sentence of some length"}
		}
		if err := s.Commit(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("commit", func(b *testing.B) {
		for b.Loop() {
			if err := s.Commit(b.Context(), app.Change{Events: []app.Event{{Time: time.Now(), Type: app.Life, App: "app-1", Message: "x"}}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, q := range map[string]app.EventQuery{
		"all": {}, "app": {App: "app-1"}, "host": {Host: "host-7"}, "type": {Type: app.Life}, "since": {Since: time.Now().Add(-time.Millisecond)}, "both": {App: "app-2", Type: app.Life},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.Events(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package container

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const netDevText = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:12345      12    3    4    0     0          0         0    54321      21    5    6    0     0       0          0
 wan.1: 7 1 0 0 0 0 0 0 8 2 0 0 0 0 0 0
`

// TestMeter reads directories as the kernel of each kind has them.
func TestMeter(t *testing.T) {
	dir := tree(t, map[string]string{
		"v2/a/cpu.stat":       "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 9\n",
		"v2/a/memory.current": "5000\n", "v2/a/memory.stat": "anon 100\nfile 2000\ninactive_file 1000\nactive_file 7\n",
		"v2/a/memory.peak": "6000\n", "v2/a/memory.max": "7000\n", "v2/a/memory.swap.current": "80\n", "v2/a/memory.events": "low 0\noom 3\noom_kill 2\n",
		"v2/a/pids.current": "3\n", "v2/a/pids.max": "4096\n", "v2/a/cgroup.procs": "1\n22\n",
		"v2/a/io.stat":      "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n252:1 rbytes=10 wbytes=20 rios=30 wios=40\n",
		"v2/a/cpu.pressure": "some avg10=1.25 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=6\n",
		"v2/plain/cpu.stat": "usage_usec 7\n", "v2/plain/memory.current": "10\n", "v2/plain/memory.stat": "inactive_file 50\n",
		"v2/plain/memory.max": "max\n", "v2/plain/pids.max": "max\n",
		"v2/half/cpu.stat": "usage_usec 7\n",

		"cpu/a/cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 5\n", "cpuacct/a/cpuacct.usage": "2000000000\n", "cpuacct/a/cpuacct.stat": "user 150\nsystem 50\n",
		"memory/a/memory.usage_in_bytes": "9000\n", "memory/a/memory.max_usage_in_bytes": "9500\n",
		"memory/a/memory.stat":        "cache 1\ninactive_file 1\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 3000\ntotal_rss 200\ntotal_swap 0\ntotal_inactive_file 1000\n",
		"memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		"pids/a/pids.current":         "2\n", "pids/a/pids.max": "max\n", "pids/a/cgroup.procs": "7\n",
		"blkio/a/blkio.throttle.io_service_bytes_recursive": "8:0 Read 11\n8:0 Write 12\n8:0 Total 23\n8:16 Read 1\nTotal 24\n",
		"blkio/a/blkio.throttle.io_serviced_recursive":      "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
		"unified/a/memory.pressure":                         "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n",
	})
	at := func(m *Meter) *Meter {
		for i := range m.sources {
			m.sources[i].root = dir + m.sources[i].root[len("/sys/fs/cgroup"):]
		}
		return m
	}
	meter := func(mounts string) *Meter {
		m, err := newMeter(mounts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		return at(m)
	}
	v2 := meter("cgroup2 /sys/fs/cgroup/v2 cgroup2 rw 0 0\n")
	hybrid := meter(hybridMounts)
	v2.room = 3 // so that some files stay open and some do not
	want := map[string]Stats{
		"v2": {
			CPU:       CPUStats{Total: 1500 * time.Millisecond, User: time.Second, System: 500 * time.Millisecond, Periods: 10, Throttled: 4, ThrottledTime: 9 * time.Microsecond},
			Memory:    MemoryStats{Usage: 5000, WorkingSet: 4000, RSS: 100, Cache: 2000, Peak: 6000, Limit: 7000, Swap: 80, OOMKills: 2},
			Processes: 2, Tasks: 3, TaskLimit: 4096, IO: IOStats{11, 22, 33, 44},
			Pressure: PressureStats{Known: true, CPU: Pressure{Stall{1.25, 7 * time.Microsecond}, Stall{.5, 6 * time.Microsecond}}},
		},
		"plain": {CPU: CPUStats{Total: 7 * time.Microsecond}, Memory: MemoryStats{Usage: 10}},
		"hybrid": {
			CPU:       CPUStats{Total: 2 * time.Second, User: 1500 * time.Millisecond, System: 500 * time.Millisecond, Periods: 3, Throttled: 1, ThrottledTime: 5},
			Memory:    MemoryStats{Usage: 9000, WorkingSet: 8000, RSS: 200, Cache: 3000, Peak: 9500, OOMKills: 1},
			Processes: 1, Tasks: 2, IO: IOStats{12, 12, 1, 2},
			Pressure: PressureStats{Known: true, Memory: Pressure{Stall{0, 3 * time.Microsecond}, Stall{0, 2 * time.Microsecond}}},
		},
	}
	for range 2 { // the second time from what is open
		got := map[string]Stats{}
		read := func(m *Meter, names []string, cgroups ...string) {
			var all []Subject
			for _, c := range cgroups {
				all = append(all, Subject{ID: c, Cgroup: c})
			}
			if err := m.Read(all, func(i int, s *Stats) { got[names[i]] = *s }); err != nil {
				t.Fatal(err)
			}
		}
		read(v2, []string{"v2", "none", "half", "plain"}, "a", "none", "half", "plain") // those in the middle are gone, or going
		read(hybrid, []string{"hybrid"}, "a")
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(MemoryStats{})); diff != "" {
			t.Error(diff)
		}
	}
	if v2.Close(); v2.room != 3 {
		t.Errorf("there is room for %d files once all are closed, of 3", v2.room)
	}
}

const hybridMounts = `tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,relatime,cpu 0 0
cgroup /sys/fs/cgroup/cpuacct cgroup rw,relatime,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup /sys/fs/cgroup/blkio cgroup rw,relatime,blkio 0 0
cgroup /mnt/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
`

func TestMeterNeeds(t *testing.T) {
	for _, bad := range []string{"", "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n", "proc /proc proc rw 0 0\nx\n"} {
		if _, err := newMeter(bad); err == nil {
			t.Errorf("%q has all that is needed", bad)
		}
	}
}

func TestNetDev(t *testing.T) {
	want := []NICStats{
		{Name: "eth0", RXBytes: 12345, RXPackets: 12, RXErrors: 3, RXDropped: 4, TXBytes: 54321, TXPackets: 21, TXErrors: 5, TXDropped: 6},
		{Name: "wan.1", RXBytes: 7, RXPackets: 1, TXBytes: 8, TXPackets: 2},
	}
	var got []NICStats
	for range 2 {
		if got = netDev([]byte(netDevText), got); !cmp.Equal(got, want) {
			t.Error(cmp.Diff(want, got))
		}
	}
	if got := netDev([]byte("eth0\neth1:\n: 1"), nil); len(got) != 2 {
		t.Errorf("of what is cut: %+v", got)
	}
}

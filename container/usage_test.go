package container

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const hybrid = `tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /mnt/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
`

func TestMeterIn(t *testing.T) {
	m, err := meterIn(hybrid)
	if err != nil || m.cpu != "/sys/fs/cgroup/cpu,cpuacct" || m.cpuacct != m.cpu || m.memory != "/sys/fs/cgroup/memory" || m.unified {
		t.Errorf("hybrid: %+v, %v", m, err)
	}
	m, err = meterIn("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
	if err != nil || m.cpu != "/sys/fs/cgroup" || m.memory != m.cpu || !m.unified {
		t.Errorf("unified: %+v, %v", m, err)
	}
	for _, bad := range []string{"", "cgroup /sys/fs/cgroup/memory cgroup memory 0 0\n", "proc /proc proc rw 0 0\nx\n"} {
		if m, err := meterIn(bad); err == nil {
			t.Errorf("%q: %+v", bad, m)
		}
	}
}

func TestUsage(t *testing.T) {
	dir := tree(t, map[string]string{
		"v2/a/cpu.stat":       "usage_usec 1500000\nuser_usec 1\nnr_periods 10\nnr_throttled 4\nthrottled_usec 9\n",
		"v2/a/memory.current": "5000\n", "v2/a/memory.stat": "anon 1\ninactive_file 1000\nactive_file 7\n",
		"v2/plain/cpu.stat": "usage_usec 7\n", "v2/plain/memory.current": "10\n", "v2/plain/memory.stat": "inactive_file 50\n",
		"v2/odd/cpu.stat": "usage_usec x\n", "v2/odd/memory.current": "10\n", "v2/odd/memory.stat": "",
		"v2/half/cpu.stat": "usage_usec 7\n",

		"cpu/a/cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 5\n", "cpuacct/a/cpuacct.usage": "2000000000\n",
		"memory/a/memory.usage_in_bytes": "9000\n", "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 1000\n",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	v2 := &meter{cpu: at("v2"), cpuacct: at("v2"), memory: at("v2"), unified: true, buf: make([]byte, 4096)}
	v1 := &meter{cpu: at("cpu"), cpuacct: at("cpuacct"), memory: at("memory"), buf: make([]byte, 4096)}
	for name, c := range map[string]struct {
		m    *meter
		id   string
		want Usage
	}{
		"v2":          {v2, "a", Usage{CPU: 1500 * time.Millisecond, Memory: 4000, Periods: 10, Throttled: 4}},
		"no limit":    {v2, "plain", Usage{CPU: 7 * time.Microsecond}},
		"v1, or both": {v1, "a", Usage{CPU: 2 * time.Second, Memory: 8000, Periods: 3, Throttled: 1}},
	} {
		if got, err := c.m.read(c.id); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	for _, id := range []string{"none", "half"} { // not there any more, or going
		if u, err := v2.read(id); !gone(err) {
			t.Errorf("%s: %+v, %v", id, u, err)
		}
	}
	if u, err := v2.read("odd"); err == nil || gone(err) {
		t.Errorf("odd: %+v, %v", u, err)
	}
}

// On whichever hierarchies this machine has, the root of them can be measured.
func TestUsageHere(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	m, err := meterIn(string(mounts))
	if err != nil {
		t.Skip(err)
	}
	if m.unified {
		t.Skip("the root of a unified hierarchy has no memory.current")
	}
	if u, err := m.read("/"); err != nil || u.CPU == 0 || u.Memory == 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

// BenchmarkUsage reads 500 cgroups, if the machine lets us make them.
func BenchmarkUsage(b *testing.B) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		b.Fatal(err)
	}
	m, err := meterIn(string(mounts))
	if err != nil {
		b.Skip(err)
	}
	const many = 500
	top := fmt.Sprintf("/buoy-usage-%d", os.Getpid())
	r := &Runtime{cfg: Config{Cgroup: top}}
	ids := make([]string, many)
	var dirs []string
	for i := range ids {
		ids[i] = fmt.Sprint("c", i)
		for _, root := range []string{m.cpu, m.cpuacct, m.memory} {
			dirs = append(dirs, filepath.Join(root, r.CgroupOf(ids[i])))
		}
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Skip(err)
		}
	}
	b.Cleanup(func() {
		for _, dir := range dirs {
			_ = os.Remove(dir)
		}
		for _, root := range []string{m.cpu, m.cpuacct, m.memory} {
			_ = os.Remove(filepath.Join(root, top))
		}
	})
	for b.Loop() {
		if all, err := r.Usage(ids); err != nil || len(all) != many {
			b.Fatal(len(all), err)
		}
	}
}

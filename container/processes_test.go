package container

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// tree writes files below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, name, text)
	}
	return dir
}

func TestPIDs(t *testing.T) {
	dir := tree(t, map[string]string{
		"one/cgroup.procs": "10\n11\n0\n", "one/sub/cgroup.procs": "12\n", "one/sub/deep/cgroup.procs": "", "one/other": "99\n",
		"odd/cgroup.procs": "x\n", "none/sub/cgroup.procs": "5\n",
	})
	at := func(name string) shimapi.Container {
		return shimapi.Container{Cgroups: map[string]string{"": filepath.Join(dir, name)}}
	}
	for name, want := range map[string][]int{"one": {10, 11, 12}, "gone": nil, "none": {5}} {
		got, err := PIDs(at(name))
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("PIDs of %s = %v, %v, want %v", name, got, err, want)
		}
	}
	if got, err := PIDs(at("odd")); err == nil {
		t.Errorf("PIDs of garbage = %v", got)
	}
	// On cgroup v1 and hybrid the controller has its own hierarchy.
	c := shimapi.Container{Cgroups: map[string]string{"pids": filepath.Join(dir, "one/sub"), "": filepath.Join(dir, "one"), "memory": "/nowhere"}}
	if got, err := PIDs(c); err != nil || !slices.Equal(got, []int{12}) {
		t.Errorf("PIDs = %v, %v", got, err)
	}
}

func TestMemory(t *testing.T) {
	const stat2 = "anon 7\nfile 100\nkernel 5\nactive_anon 1\ninactive_anon 2\nactive_file 30\ninactive_file 40\nunevictable 0\n"
	dir := tree(t, map[string]string{
		"v2/memory.current": "1000\n", "v2/memory.max": "max\n", "v2/memory.swap.current": "9\n", "v2/memory.stat": stat2,
		"noswap/memory.current": "1000\n", "noswap/memory.max": "4096\n", "noswap/memory.stat": stat2,
		"v1/memory.usage_in_bytes": "1000\n", "v1/memory.limit_in_bytes": "9223372036854771712\n",
		"v1/memory.stat":                "cache 100\nrss 7\nswap 9\nactive_anon 1\ninactive_anon 2\nactive_file 30\ninactive_file 40\ntotal_cache 5000\n",
		"limited/memory.usage_in_bytes": "1\n", "limited/memory.limit_in_bytes": "8388608\n", "limited/memory.stat": "",
		"huge/memory.usage_in_bytes": "18446744073709551615\n", "huge/memory.limit_in_bytes": "1\n", "huge/memory.stat": "",
		"bad/memory.current": "1\n", "bad/memory.max": "max\n", "bad/memory.stat": "file x\n",
		"worse/memory.current": "\n",
	})
	full := MemoryUse{Usage: 1000, Cache: 100, Active: 31, Inactive: 42, Swap: 9}
	limited := full
	limited.Limit, limited.Swap = 4096, 0
	for name, want := range map[string]MemoryUse{
		"v2": full, "v1": full, "noswap": limited, "limited": {Usage: 1, Limit: 8388608}, "huge": {Usage: 1<<63 - 1, Limit: 1},
	} {
		got, err := Memory(shimapi.Container{Cgroups: map[string]string{"": "/nowhere", "memory": filepath.Join(dir, name)}})
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
	for _, name := range []string{"bad", "worse", "none"} {
		if got, err := Memory(shimapi.Container{Cgroups: map[string]string{"": filepath.Join(dir, name)}}); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

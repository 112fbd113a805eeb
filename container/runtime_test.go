package container

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestParseCgroupRoots(t *testing.T) {
	const v1 = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n" +
		"cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"
	for name, c := range map[string]struct{ mounts, want string }{
		"v2":        {"proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n", "/sys/fs/cgroup"},
		"v1":        {v1, "/sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup/systemd"},
		"hybrid":    {v1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n", "/sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup/systemd /sys/fs/cgroup/unified"},
		"elsewhere": {"cgroup2 /mnt/cgroup cgroup2 rw 0 0\ncgroup2 /sys/fs/cgroup2 cgroup2 rw 0 0\n", ""},
		"short":     {"cgroup\n\n", ""},
	} {
		got, err := parseCgroupRoots(c.mounts)
		if strings.Join(got, " ") != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, errs.Unavailable) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestInheritCpuset(t *testing.T) {
	root := tree(t, map[string]string{
		"cgroup.clone_children": "0\n", "cpuset.cpus": "0-3\n", "cpuset.mems": "0\n",
		"buoy/cpuset.cpus": "\n", "buoy/cpuset.mems": "0\n", "buoy/@shim/cpuset.cpus": "\n", "buoy/@shim/cpuset.mems": "",
	})
	if err := inheritCpuset(root, root+"/buoy/@shim"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"buoy/cpuset.cpus": "0-3\n", "buoy/cpuset.mems": "0\n", "buoy/@shim/cpuset.cpus": "0-3\n", "buoy/@shim/cpuset.mems": "0\n",
	} {
		if got := have(t, filepath.Join(root, name)); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// What is set stays, and other hierarchies have no such files.
	root = tree(t, map[string]string{"cgroup.clone_children": "0\n", "cpuset.cpus": "0-3\n", "cpuset.mems": "0\n", "buoy/cpuset.cpus": "1\n", "buoy/cpuset.mems": "0\n"})
	if err := inheritCpuset(root, root+"/buoy"); err != nil || have(t, root+"/buoy/cpuset.cpus") != "1\n" {
		t.Errorf("%v, cpus %q", err, have(t, root+"/buoy/cpuset.cpus"))
	}
	for _, files := range []map[string]string{{"cgroup.clone_children": "0\n", "x/tasks": ""}, {"cpuset.cpus": "0\n", "x/cpuset.cpus": ""}} {
		root := tree(t, files)
		if err := inheritCpuset(root, root+"/x"); err != nil {
			t.Error(err)
		}
		if entries, _ := os.ReadDir(root + "/x"); len(entries) != 1 {
			t.Errorf("made files in another hierarchy: %v", entries)
		}
	}
	if err := inheritCpuset(tree(t, map[string]string{"cgroup.clone_children": "", "cpuset.cpus": "0\n"}), "relative"); err == nil {
		t.Error("a path that is not below the root")
	}
}

func runtimeIn(t *testing.T, run string) *Runtime {
	t.Helper()
	r, err := NewRuntime(Config{Run: run, Cgroup: "/buoy", Reaper: "/bin/false", Shim: "/bin/false", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSeccompFilesAreShared(t *testing.T) {
	dir := t.TempDir()
	r := runtimeIn(t, dir)
	file := func(r *Runtime, s Spec) string {
		name, err := r.Seccomp(s)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	first := file(r, Spec{})
	if st, err := os.Stat(first); err != nil || st.Mode().Perm() != 0o600 || filepath.Dir(first) != dir+"/seccomp" {
		t.Errorf("%s: %v", first, err)
	}
	for name, s := range map[string]Spec{
		"others of its properties": {Args: []string{"x"}, ReadOnly: true},
		"the same by other words":  {CapAdd: []string{"CHOWN"}},
		"drop all, add the same":   {CapDrop: []string{"ALL"}, CapAdd: defaultCaps},
	} {
		if got := file(r, s); got != first {
			t.Errorf("%s: %s, want %s", name, got, first)
		}
	}
	if got := file(r, Spec{CapAdd: []string{"SYS_ADMIN"}}); got == first {
		t.Error("more capabilities, the same profile")
	}
	if got := file(runtimeIn(t, dir), Spec{}); got != first {
		t.Errorf("the next daemon writes %s", got)
	}
	for _, s := range []Spec{{Privileged: true}, {Unconfined: true}} {
		if got := file(r, s); got != "" {
			t.Errorf("%+v is confined by %s", s, got)
		}
	}
	if files, err := filepath.Glob(dir + "/seccomp/*"); err != nil || len(files) != 2 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestSeccompSaysWhatFails(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/seccomp", "in the way")
	r := runtimeIn(t, dir)
	for range 2 { // a failure is not remembered
		if name, err := r.Seccomp(Spec{}); err == nil {
			t.Errorf("profile %s", name)
		}
	}
	if err := os.Remove(dir + "/seccomp"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Seccomp(Spec{}); err != nil {
		t.Error(err)
	}
}

func TestNewRuntimeNamesWhatIsMissing(t *testing.T) {
	full := Config{Run: "/r", Cgroup: "/c", Reaper: "/a", Shim: "/s"}
	for name, clear := range map[string]func(*Config){
		"Run": func(c *Config) { c.Run = "" }, "Cgroup": func(c *Config) { c.Cgroup = "" },
		"Reaper": func(c *Config) { c.Reaper = "" }, "Shim": func(c *Config) { c.Shim = "" },
	} {
		c := full
		clear(&c)
		if _, err := NewRuntime(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestParent(t *testing.T) {
	if got, err := parent(os.Getpid()); err != nil || got != os.Getppid() {
		t.Errorf("parent = %d, %v, want %d", got, err, os.Getppid())
	}
	if got, err := parent(1 << 30); err == nil {
		t.Errorf("the parent of nobody is %d", got)
	}
}

// No container may have a cgroup that is the kernel's file, or the shim's.
func TestCgroupOf(t *testing.T) {
	r := runtimeIn(t, t.TempDir())
	taken := []string{"tasks", "cgroup.procs", "memory.max", "@shim"}
	for _, id := range []string{"tasks", "cgroup.procs", "memory.max", "shim", "a"} {
		if got := r.CgroupOf(id); filepath.Dir(got) != "/buoy" || slices.Contains(taken, filepath.Base(got)) {
			t.Errorf("the cgroup of %s is %s", id, got)
		}
	}
	if r.CgroupOf("a") == r.CgroupOf("a.") {
		t.Error("two ids, one cgroup")
	}
}

func TestTryRemoveCgroup(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := removeCgroup(t.Context(), dir+"/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
	if err := removeCgroup(t.Context(), dir+"/a"); err != nil {
		t.Errorf("twice: %v", err)
	}
}

package doctor

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root is a machine's files. A name that ends in a slash is a directory.
func root(t *testing.T, files map[string]string) machine {
	t.Helper()
	m := machine{Root: t.TempDir(), Data: t.TempDir(), Run: t.TempDir()}
	for name, text := range files {
		path := filepath.Join(m.Root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestKernel(t *testing.T) {
	const release = "proc/sys/kernel/osrelease"
	for _, c := range []struct {
		name  string
		files map[string]string
		check func(machine) Finding
		want  Status
		found string
	}{
		{"new", map[string]string{release: "6.1.0-30-amd64\n"}, machine.kernel, OK, "6.1.0-30"},
		{"least", map[string]string{release: "5.15.0"}, machine.kernel, OK, "5.15"},
		{"old", map[string]string{release: "5.4.0-1"}, machine.kernel, Failure, "5.4"},
		{"older", map[string]string{release: "4.19.1"}, machine.kernel, Failure, "4.19"},
		{"strange", map[string]string{release: "?"}, machine.kernel, Warning, `"?"`},
		{"none", nil, machine.namespaces, Failure, "cgroup, ipc, mnt, net, pid, uts"},
		{"users off", map[string]string{"proc/self/ns/user": "", "proc/sys/user/max_user_namespaces": "0\n"}, machine.userNamespaces, Warning, "is 0"},
		{"users on", map[string]string{"proc/self/ns/user": "", "proc/sys/user/max_user_namespaces": "99\n"}, machine.userNamespaces, OK, ""},
		{"v2", map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"}, machine.cgroups, OK, "version 2"},
		{"v2 of a Raspberry", map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"}, machine.cgroups, Failure, "without memory"},
		{"v1", map[string]string{
			"sys/fs/cgroup/cpu,cpuacct/cgroup.procs": "", "sys/fs/cgroup/memory/cgroup.procs": "", "sys/fs/cgroup/pids/cgroup.procs": "",
		}, machine.cgroups, OK, "version 1"},
		{"hybrid", map[string]string{
			"sys/fs/cgroup/cpu/cgroup.procs": "", "sys/fs/cgroup/memory/cgroup.procs": "", "sys/fs/cgroup/pids/cgroup.procs": "", "sys/fs/cgroup/unified/cgroup.procs": "",
		}, machine.cgroups, OK, "versions 1 and 2"},
		{"no cgroups", map[string]string{"sys/fs/cgroup/": ""}, machine.cgroups, Failure, "no cgroups"},
		{"no psi", nil, machine.pressure, Warning, "PSI"},
		{"no seccomp", nil, machine.seccomp, Failure, "seccomp"},
		{"seccomp", map[string]string{"proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow"}, machine.seccomp, OK, ""},
		{"overlay there", map[string]string{"proc/filesystems": "nodev\tsysfs\nnodev\toverlay\n"}, machine.overlay, OK, ""},
		{"overlay to load", map[string]string{release: "6.1", "lib/modules/6.1/modules.dep": "kernel/fs/overlayfs/overlay.ko.xz: kernel/x.ko\n"}, machine.overlay, OK, ""},
		{"overlay built in", map[string]string{release: "6.1", "lib/modules/6.1/modules.builtin": "kernel/fs/overlayfs/overlay.ko\n"}, machine.overlay, OK, ""},
		{"no overlay", map[string]string{release: "6.1", "lib/modules/6.1/modules.dep": "kernel/fs/other/overlay2.ko:\n"}, machine.overlay, Failure, "no overlayfs"},
		{"no fuse", nil, machine.fuse, Warning, "no FUSE"},
		{"few pids", map[string]string{"proc/sys/kernel/pid_max": "32768\n"}, machine.files, Warning, "kernel.pid_max is 32768"},
		{"bridge firewall", map[string]string{"proc/sys/net/bridge/bridge-nf-call-iptables": "1\n"}, machine.forwarding, Warning, "bridge-nf-call-iptables"},
	} {
		f := c.check(root(t, c.files))
		if f.Status != c.want || !strings.Contains(f.Found, c.found) {
			t.Errorf("%s: %+v; want %s, %q", c.name, f, c.want, c.found)
		}
		if f.Status != OK && c.name != "strange" && (f.Cost == "" || f.Mend == "") {
			t.Errorf("%s: neither cost nor mending in %+v", c.name, f)
		}
	}
}

func TestReach(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer up.Close()
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	all := reach(t.Context(), []string{up.URL, down.URL, "no url"})
	if len(all) != 3 || all[0].Status != OK || all[1].Status != Warning || all[2].Status != Warning || !strings.Contains(all[1].Found, "connection refused") {
		t.Errorf("%+v", all)
	}
}

// TestThisMachine looks at where the test runs: one of each check, in order, and
// what a missing directory is.
func TestThisMachine(t *testing.T) {
	all := Check(t.Context(), Config{Data: filepath.Join(t.TempDir(), "none"), Run: t.TempDir()})
	seen := map[string]Status{}
	for _, f := range all {
		if _, twice := seen[f.Check]; twice || f.Found == "" {
			t.Errorf("%+v", f)
		}
		seen[f.Check] = f.Status
	}
	if os.Geteuid() == 0 && (seen["bridge"] != OK || seen["veth"] != OK || seen["vxlan"] == "" || seen["macvlan"] == "" || seen["ipvlan"] == "" || seen["8021q"] == "") {
		t.Errorf("%+v", all)
	}
	if seen["kernel"] != OK || seen["namespaces"] != OK || seen["data directory"] != OK || seen["run directory"] == Failure {
		t.Errorf("%+v", all)
	}
}

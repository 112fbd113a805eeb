package container

import (
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func bundle(t *testing.T, s Spec, h Host) *specs.Spec {
	t.Helper()
	b, err := Bundle(s, h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What docker 28 gives a container without any option: moby oci/defaults.go,
// oci/caps/defaults.go, daemon/oci_linux.go.
func TestBundleDefaults(t *testing.T) {
	b := bundle(t, Spec{Args: []string{"true"}}, Host{NetNS: "/proc/1/fd/3", Cgroup: "/buoy/web@"})
	pids := int64(defaultPIDs)
	caps := strings.Fields("CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD " +
		"CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT")
	want := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{},
		Process: &specs.Process{
			Args: []string{"true"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Cwd: "/",
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro", "relatime"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/buoy/web@",
			Namespaces: []specs.LinuxNamespace{
				{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}, {Type: "cgroup"}, {Type: "network", Path: "/proc/1/fd/3"},
			},
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
				Pids:    &specs.LinuxPids{Limit: &pids},
			},
			Sysctl: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if diff := cmp.Diff(want, b); diff != "" {
		t.Errorf("Bundle (-want +got):\n%s", diff)
	}
}

func TestBundleDoesNotShareItsTables(t *testing.T) {
	bundle(t, Spec{}, Host{}).Linux.MaskedPaths[0] = "/changed"
	bundle(t, Spec{Privileged: true}, Host{}).Process.Capabilities.Bounding[0] = "CAP_CHANGED"
	if b := bundle(t, Spec{}, Host{}); b.Linux.MaskedPaths[0] != "/proc/acpi" {
		t.Error("one container's masked paths are another's")
	}
	if allCaps[0] != "CAP_AUDIT_CONTROL" {
		t.Error("one container's capabilities are another's")
	}
}

func namespaceTypes(b *specs.Spec) string {
	var l []string
	for _, n := range b.Linux.Namespaces {
		l = append(l, string(n.Type))
	}
	return strings.Join(l, " ")
}

func mountAt(t *testing.T, b *specs.Spec, at string) specs.Mount {
	t.Helper()
	i := slices.IndexFunc(b.Mounts, func(m specs.Mount) bool { return m.Destination == at })
	if i < 0 {
		t.Fatalf("nothing is mounted at %s: %v", at, b.Mounts)
	}
	return b.Mounts[i]
}

func TestBundleHides(t *testing.T) {
	h := Host{Hide: []string{"/proc/cmdline"}}
	if masked := bundle(t, Spec{}, h).Linux.MaskedPaths; !slices.Contains(masked, "/proc/cmdline") || !slices.Contains(masked, "/proc/acpi") {
		t.Errorf("hidden are %v", masked)
	}
	if masked := bundle(t, Spec{Privileged: true}, h).Linux.MaskedPaths; len(masked) > 0 {
		t.Errorf("from a privileged container, %v", masked)
	}
}

func TestBundlePrivileged(t *testing.T) {
	b := bundle(t, Spec{Privileged: true}, Host{})
	if len(b.Linux.MaskedPaths)+len(b.Linux.ReadonlyPaths) != 0 || b.Process.NoNewPrivileges {
		t.Errorf("masked %v, read-only %v, no_new_privs %v", b.Linux.MaskedPaths, b.Linux.ReadonlyPaths, b.Process.NoNewPrivileges)
	}
	if got := b.Process.Capabilities.Bounding; len(got) != 41 {
		t.Errorf("%d capabilities, Linux has 41", len(got))
	}
	if want := []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}; !cmp.Equal(b.Linux.Resources.Devices, want) {
		t.Errorf("device rules %v", b.Linux.Resources.Devices)
	}
	for _, at := range []string{"/sys", "/sys/fs/cgroup"} {
		if o := mountAt(t, b, at).Options; !slices.Contains(o, "rw") || slices.Contains(o, "ro") {
			t.Errorf("%s is mounted %v", at, o)
		}
	}
	seen := map[string]bool{}
	for _, d := range b.Linux.Devices {
		if seen[d.Path] || strings.HasPrefix(d.Path, "/dev/pts/") || d.Path == "/dev/console" || d.Type != "c" && d.Type != "b" {
			t.Errorf("device %+v", d)
		}
		seen[d.Path] = true
	}
	if !seen["/dev/null"] {
		t.Errorf("/dev/null is not among %d devices", len(seen))
	}
}

func TestBundleNamespaces(t *testing.T) {
	for _, c := range []struct {
		s    Spec
		h    Host
		want string
	}{
		{Spec{}, Host{}, "mount pid ipc uts cgroup network"},
		{Spec{}, Host{HostNet: true}, "mount pid ipc uts cgroup"},
		{Spec{UserNS: true}, Host{}, "mount pid ipc uts cgroup network user"},
		{Spec{UserNS: true}, Host{HostNet: true}, "mount pid ipc uts cgroup user"},
	} {
		b := bundle(t, c.s, c.h)
		if got := namespaceTypes(b); got != c.want {
			t.Errorf("%+v: %s, want %s", c.h, got, c.want)
		}
		if mapped := len(b.Linux.UIDMappings) == 1 && len(b.Linux.GIDMappings) == 1; mapped != c.s.UserNS {
			t.Errorf("mappings %v %v", b.Linux.UIDMappings, b.Linux.GIDMappings)
		}
		if c.h.HostNet && len(b.Linux.Sysctl) != 0 {
			t.Errorf("sysctls %v would be the host's", b.Linux.Sysctl)
		}
		// Only the owner of the network namespace may mount its sysfs.
		if got, want := mountAt(t, b, "/sys").Type, map[bool]string{true: "bind", false: "sysfs"}[c.s.UserNS && c.h.HostNet]; got != want {
			t.Errorf("/sys is a %s, want %s", got, want)
		}
		if _, ok := b.Linux.Sysctl["net.ipv4.ping_group_range"]; ok && c.s.UserNS {
			t.Error("a group range that the user namespace has not")
		}
	}
	m := bundle(t, Spec{UserNS: true}, Host{}).Linux.UIDMappings[0]
	if m.ContainerID != 0 || m.HostID < 1<<16 || m.Size != 1<<16 {
		t.Errorf("mapping %+v", m)
	}
}

func TestBundleMountOrder(t *testing.T) {
	s := Spec{Mounts: []Mount{
		{Type: Tmpfs, Target: "/a/b/c"},
		{Type: Bind, Source: "/src/", Target: "/a/", ReadOnly: true},
		{Type: Tmpfs, Target: "/dev/shm", Size: 1 << 20, Mode: 0o700},
		{Type: Bind, Source: "/x", Target: "/a/./b"},
		{Type: Bind, Source: "/mine", Target: "/etc/hosts"},
		{Type: Tmpfs, Target: "//sys//fs/cgroup/x"},
	}}
	b := bundle(t, s, Host{Mounts: []Mount{{Type: Bind, Source: "/run/hosts", Target: "/etc/hosts"}, {Type: Bind, Source: "/v", Target: "/a/b/c/d"}}})
	at := func(i int) string { return path.Clean(b.Mounts[i].Destination) }
	for i := range b.Mounts {
		for j := range i {
			if strings.HasPrefix(at(j), at(i)+"/") {
				t.Errorf("%s is mounted over %s, which was mounted before", at(i), at(j))
			}
		}
	}
	// The spec's own comes after ours and the defaults at the same place, so it is the one that is seen.
	last := map[string]specs.Mount{}
	for _, m := range b.Mounts {
		last[path.Clean(m.Destination)] = m
	}
	if got := last["/etc/hosts"].Source; got != "/mine" {
		t.Errorf("/etc/hosts is %s", got)
	}
	if got, want := last["/dev/shm"].Options, []string{"nosuid", "nodev", "mode=700", "size=1048576"}; !slices.Equal(got, want) {
		t.Errorf("/dev/shm has %v", got)
	}
	if got, want := last["/a"].Options, []string{"rbind", "rprivate", "ro"}; !slices.Equal(got, want) {
		t.Errorf("/a has %v, want %v", got, want)
	}
	if got, want := last["/a/b/c"].Options, []string{"nosuid", "nodev", "mode=1777"}; !slices.Equal(got, want) {
		t.Errorf("/a/b/c has %v, want %v", got, want)
	}
}

func TestBundleRefusesVolumes(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a volume came through")
		}
	}()
	_, _ = Bundle(Spec{Mounts: []Mount{{Type: Volume, Source: "v", Target: "/v"}}}, Host{})
}

// What devices need beyond their nodes.
func TestBundleEdits(t *testing.T) {
	mode, gid := os.FileMode(0o640), uint32(44)
	b := bundle(t, Spec{
		Devices: []Device{{Path: "/dev/null", Target: "/dev/x0", Mode: &mode, GID: &gid}, {Path: "/dev/zero", Permissions: "none"}},
		Mounts:  []Mount{{Type: Bind, Source: "/etc", Target: "/x", Options: []string{"ro", "nosuid"}}},
		Groups:  []uint32{44},
		Hooks: []Hook{
			{When: "createContainer", Path: "/a", Args: []string{"a"}, Env: []string{"B=c"}, Timeout: 5},
			{When: "startContainer", Path: "/b", Timeout: 3600},
			{When: "createRuntime", Path: "/c"},
			{When: "prestart", Path: "/d"},
		},
	}, Host{})
	if d := b.Linux.Devices; len(d) != 2 || d[0].Path != "/dev/x0" || *d[0].FileMode != 0o640 || *d[0].GID != 44 || *d[0].UID != 0 {
		t.Errorf("devices %+v", d)
	}
	if r := b.Linux.Resources.Devices; len(r) != 2 || r[1].Access != "rwm" { // nobody may use /dev/zero
		t.Errorf("rules %+v", r)
	}
	if m := b.Mounts[len(b.Mounts)-1]; !slices.ContainsFunc(b.Mounts, func(m specs.Mount) bool {
		return m.Destination == "/x" && slices.Equal(m.Options, []string{"rbind", "rprivate", "ro", "nosuid"})
	}) {
		t.Errorf("mount %+v", m)
	}
	if !slices.Equal(b.Process.User.AdditionalGids, []uint32{44}) {
		t.Errorf("groups %v", b.Process.User.AdditionalGids)
	}
	five, most := 5, maxHook
	want := &specs.Hooks{
		Prestart:        []specs.Hook{{Path: "/d", Timeout: &most}}, //nolint:staticcheck // it is still around
		CreateRuntime:   []specs.Hook{{Path: "/c", Timeout: &most}},
		CreateContainer: []specs.Hook{{Path: "/a", Args: []string{"a"}, Env: []string{"B=c"}, Timeout: &five}},
		StartContainer:  []specs.Hook{{Path: "/b", Timeout: &most}},
	}
	if diff := cmp.Diff(want, b.Hooks); diff != "" {
		t.Error(diff)
	}
}

// In a user namespace a device is the host's own node, by whatever name.
func TestBundleDevicesUserNS(t *testing.T) {
	b := bundle(t, Spec{UserNS: true, Devices: []Device{{Path: "/dev/null", Target: "/dev/x0", Permissions: "r"}}}, Host{})
	if len(b.Linux.Devices) != 0 || len(b.Linux.Resources.Devices) != 2 || b.Linux.Resources.Devices[1].Access != "r" {
		t.Errorf("devices %+v, rules %+v", b.Linux.Devices, b.Linux.Resources.Devices)
	}
	if m := b.Mounts[len(b.Mounts)-1]; !slices.ContainsFunc(b.Mounts, func(m specs.Mount) bool {
		return m.Source == "/dev/null" && m.Destination == "/dev/x0" && m.Type == "bind"
	}) {
		t.Errorf("mount %+v", m)
	}
}

func TestBundleDevices(t *testing.T) {
	b := bundle(t, Spec{Devices: []Device{{Path: "/dev/null", Target: "/dev/nothing", Permissions: "r"}, {Path: "/dev/zero"}}}, Host{})
	if len(b.Linux.Devices) != 2 || b.Linux.Devices[0].Path != "/dev/nothing" || b.Linux.Devices[0].Type != "c" || b.Linux.Devices[0].Major != 1 || b.Linux.Devices[0].Minor != 3 {
		t.Errorf("devices %+v", b.Linux.Devices)
	}
	rules := b.Linux.Resources.Devices
	if len(rules) != 3 || rules[0].Allow || !rules[1].Allow || rules[1].Access != "r" || *rules[1].Minor != 3 || rules[2].Access != "rwm" || *rules[2].Minor != 5 {
		t.Errorf("rules %+v", rules)
	}
	for name, want := range map[string]string{
		"/dev/does-not-exist": "device \"/dev/does-not-exist\": no such file or directory",
		"/dev":                "device \"/dev\": not a device",
	} {
		if _, err := Bundle(Spec{Devices: []Device{{Path: name}}}, Host{}); err == nil || err.Error() != want {
			t.Errorf("device %s: %v, want %s", name, err, want)
		}
	}
}

func TestBundleProcess(t *testing.T) {
	s := Spec{
		Env: []string{"A=1", "PATH=/mine"}, Cwd: "/work", Hostname: "h", ReadOnly: true, NewPrivileges: true, OOMScoreAdj: -5, ShmSize: 123,
		Ulimits: []Ulimit{{Name: "nofile", Soft: 1, Hard: 2}, {Name: "Core", Soft: 0, Hard: 0}},
		Sysctls: map[string]string{"net.ipv4.ping_group_range": "1 0", "kernel.msgmax": "1"},
	}
	b := bundle(t, s, Host{})
	p := b.Process
	if !slices.Equal(p.Env, s.Env) || p.Cwd != "/work" || b.Hostname != "h" || !b.Root.Readonly || p.NoNewPrivileges || *p.OOMScoreAdj != -5 {
		t.Errorf("%+v", p)
	}
	want := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}, {Type: "RLIMIT_CORE"}}
	if diff := cmp.Diff(want, p.Rlimits); diff != "" {
		t.Error(diff)
	}
	if b.Linux.Sysctl["net.ipv4.ping_group_range"] != "1 0" || b.Linux.Sysctl["kernel.msgmax"] != "1" {
		t.Errorf("sysctls %v", b.Linux.Sysctl)
	}
	if o := mountAt(t, b, "/dev/shm").Options; !slices.Contains(o, "size=123") {
		t.Errorf("/dev/shm has %v", o)
	}
	if env := bundle(t, Spec{Env: []string{"XPATH=1"}}, Host{}).Process.Env; len(env) != 2 || env[0] != DefaultPath {
		t.Errorf("environment %q lacks PATH", env)
	}
	if bundle(t, Spec{}, Host{}).Process.OOMScoreAdj != nil {
		t.Error("the OOM score is changed without need")
	}
}

func TestBundleLimits(t *testing.T) {
	r := bundle(t, Spec{Limits: Limits{MilliCPU: 1500, CPUShares: 512, CPUSet: "0", Memory: 64 << 20, Swap: 1 << 20, PIDs: -1}}, Host{}).Linux.Resources
	if *r.CPU.Quota != 150_000 || *r.CPU.Period != 100_000 || *r.CPU.Shares != 512 || r.CPU.Cpus != "0" || *r.Pids.Limit != -1 || *r.Memory.Limit != 64<<20 {
		t.Errorf("%+v %+v", r.CPU, r.Memory)
	}
	if swapAccounted() != (r.Memory.Swap != nil) {
		t.Errorf("swap %v", r.Memory.Swap)
	}
	if r.Memory.Swap != nil && *r.Memory.Swap != 65<<20 {
		t.Errorf("memory and swap %d", *r.Memory.Swap)
	}
	r = bundle(t, Spec{Limits: Limits{Memory: 64 << 20, Swap: -1}}, Host{}).Linux.Resources
	if r.Memory.Swap != nil && *r.Memory.Swap != -1 || r.CPU != nil {
		t.Errorf("%+v %+v", r.Memory, r.CPU)
	}
}

func TestCapabilities(t *testing.T) {
	all := strings.Join(allCaps, " ")
	less := func(l []string, drop ...string) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(l), func(c string) bool { return slices.Contains(drop, c) }), " ")
	}
	for _, c := range []struct {
		name      string
		add, drop []string
		want      string
	}{
		{"default", nil, nil, less(defaultCaps)},
		{"any spelling", []string{"net_admin", "CAP_SYS_TIME"}, []string{"cap_chown", "KILL"}, ""},
		{"drop all", nil, []string{"ALL"}, ""},
		{"drop all, add one", []string{"CHOWN"}, []string{"all"}, "CAP_CHOWN"},
		{"drop all and one, add that one: to add wins, as docker", []string{"CHOWN"}, []string{"ALL", "CHOWN"}, "CAP_CHOWN"},
		{"add all", []string{"CAP_ALL"}, nil, all},
		{"add all, drop some", []string{"ALL"}, []string{"SYS_ADMIN", "CHOWN"}, less(allCaps, "CAP_SYS_ADMIN", "CAP_CHOWN")},
		{"all and all", []string{"ALL"}, []string{"ALL"}, all},
		{"twice", []string{"CHOWN", "CHOWN"}, []string{"BPF", "BPF"}, less(defaultCaps)},
	} {
		if c.name == "any spelling" {
			var l []string
			for _, n := range allCaps {
				if slices.Contains(defaultCaps, n) && n != "CAP_CHOWN" && n != "CAP_KILL" || n == "CAP_NET_ADMIN" || n == "CAP_SYS_TIME" {
					l = append(l, n)
				}
			}
			c.want = strings.Join(l, " ")
		}
		if got := strings.Join(capabilities(Spec{CapAdd: c.add, CapDrop: c.drop}), " "); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
		}
	}
	if !slices.IsSorted(allCaps) || !slices.IsSorted(defaultCaps) {
		t.Error("the tables are not in order")
	}
	for _, c := range defaultCaps {
		if !slices.Contains(allCaps, c) {
			t.Errorf("%s is none", c)
		}
	}
}

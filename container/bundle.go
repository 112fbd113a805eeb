package container

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Host is what the machine provides for one start of a container.
type Host struct {
	NetNS   string   // path of its network namespace; empty: a new one without any NIC
	HostNet bool     // the machine's own network namespace
	Cgroup  string   // path below each hierarchy's root
	Mounts  []Mount  // files and volumes of ours, mounted before the Spec's own
	Hide    []string // files of /proc and /sys, besides those that are hidden on every machine
}

// DefaultPath is PATH when neither the image nor the caller sets it, as docker has it.
const DefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// defaultTerm is what docker tells programs of a terminal that it does not know.
const defaultTerm = "TERM=xterm"

// Bundle is the OCI runtime spec of s on this machine, without root path and
// seccomp profile, which the shim adds.
func Bundle(s Spec, h Host) (*specs.Spec, error) {
	devices, rules, err := devices(s)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version:  specs.Version,
		Process:  process(s),
		Root:     &specs.Root{Readonly: s.ReadOnly},
		Hostname: s.Hostname,
		Mounts:   mounts(s, h),
		Linux: &specs.Linux{
			CgroupsPath: h.Cgroup,
			Namespaces:  namespaces(s, h),
			Devices:     devices,
			Resources:   resources(s.Limits, rules),
			Sysctl:      sysctls(s, h),
		},
	}
	if len(s.Hooks) > 0 {
		spec.Hooks = hooks(s.Hooks)
	}
	if !s.Privileged {
		spec.Linux.MaskedPaths = slices.Concat(maskedPaths, h.Hide)
		spec.Linux.ReadonlyPaths = slices.Clone(readonlyPaths)
	}
	if s.UserNS {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: userNSFirst, Size: userNSSize}}
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
	}
	return spec, nil
}

// Ids of a container with its own user namespace: above those that
// distributions give to people and services, 16 bits wide as images expect.
const (
	userNSFirst = 1_000_000
	userNSSize  = 1 << 16
)

// RootID is the user and group id on the host of root in the container.
func (s Spec) RootID() int {
	if s.UserNS {
		return userNSFirst
	}
	return 0
}

// What docker hides of /proc and /sys, moby oci/defaults.go.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func process(s Spec) *specs.Process {
	env := s.Env
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		env = append([]string{DefaultPath}, env...)
	}
	cwd := s.Cwd
	if cwd == "" {
		cwd = "/"
	}
	p := &specs.Process{
		Args:            s.Args,
		Env:             env,
		Cwd:             cwd,
		NoNewPrivileges: !s.NewPrivileges && !s.Privileged,
		Rlimits:         rlimits(s.Ulimits),
		User:            specs.User{AdditionalGids: slices.Clone(s.Groups)},
	}
	caps := capabilities(s)
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if s.TTY {
		p.Terminal = true
		if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
			p.Env = append(slices.Clip(env), defaultTerm)
		}
	}
	if s.OOMScoreAdj != 0 {
		p.OOMScoreAdj = &s.OOMScoreAdj
	}
	return p
}

// rlimits are those asked for, and open files as systemd gives them to services:
// select(2) breaks on fds above 1023, so the soft limit stays there.
func rlimits(asked []Ulimit) []specs.POSIXRlimit {
	l := []specs.POSIXRlimit{}
	files := false
	for _, u := range asked {
		name := "RLIMIT_" + strings.ToUpper(u.Name)
		files = files || name == "RLIMIT_NOFILE"
		l = append(l, specs.POSIXRlimit{Type: name, Soft: u.Soft, Hard: u.Hard})
	}
	if !files {
		l = append(l, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288})
	}
	return l
}

func namespaces(s Spec, h Host) []specs.LinuxNamespace {
	l := []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.PIDNamespace},
		{Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.CgroupNamespace},
	}
	if !h.HostNet {
		l = append(l, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: h.NetNS})
	}
	if s.UserNS {
		l = append(l, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	return l
}

func mounts(s Spec, h Host) []specs.Mount {
	shm := s.ShmSize
	if shm == 0 {
		shm = 64 << 20
	}
	ro := "ro"
	if s.Privileged {
		ro = "rw"
	}
	l := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", shm)}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", ro}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", ro, "relatime"}},
	}
	if s.UserNS && (h.HostNet || h.NetNS != "") {
		// sysfs can only be mounted by the owner of the network namespace, and
		// one that was made outside is not the container's own.
		l[5] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
	}
	for _, m := range slices.Concat(h.Mounts, s.Mounts, deviceMounts(s)) {
		l = append(l, mount(m))
	}
	// Parents before children, else one hides the other.
	slices.SortStableFunc(l, func(a, b specs.Mount) int {
		return strings.Count(filepath.Clean(a.Destination), "/") - strings.Count(filepath.Clean(b.Destination), "/")
	})
	return l
}

func mount(m Mount) specs.Mount {
	out := specs.Mount{Destination: m.Target, Source: m.Source}
	switch m.Type {
	case Tmpfs:
		mode := m.Mode
		if mode == 0 {
			mode = 0o1777
		}
		out.Type, out.Source = "tmpfs", "tmpfs"
		out.Options = []string{"nosuid", "nodev", fmt.Sprintf("mode=%o", mode)}
		if m.Size > 0 {
			out.Options = append(out.Options, fmt.Sprintf("size=%d", m.Size))
		}
	case Volume:
		panic("BUG: a volume reached Bundle; the node makes it a bind mount")
	case Bind:
		out.Type = "bind"
		out.Options = append([]string{"rbind", "rprivate"}, m.Options...)
	}
	if m.ReadOnly {
		out.Options = append(out.Options, "ro")
	}
	return out
}

func sysctls(s Spec, h Host) map[string]string {
	out := maps.Clone(s.Sysctls)
	if out == nil {
		out = map[string]string{}
	}
	if s.UserNS && h.NetNS != "" {
		// The container's root has no say in a network namespace made outside;
		// whoever made it sets NetSysctls there.
		maps.DeleteFunc(out, func(k, _ string) bool { return strings.HasPrefix(k, "net.") })
		return out
	}
	if !h.HostNet {
		maps.Copy(out, NetSysctls(s))
	}
	return out
}

// NetSysctls are the sysctls of the container's network namespace: as docker has
// it, no privilege is needed in there for ports below 1024 or for ping.
func NetSysctls(s Spec) map[string]string {
	out := map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	if !s.UserNS {
		out["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for k, v := range s.Sysctls {
		if strings.HasPrefix(k, "net.") {
			out[k] = v
		}
	}
	return out
}

func resources(l Limits, rules []specs.LinuxDeviceCgroup) *specs.LinuxResources {
	r := &specs.LinuxResources{Devices: rules}
	pids := l.PIDs
	if pids == 0 {
		pids = defaultPIDs
	}
	r.Pids = &specs.LinuxPids{Limit: &pids}
	if l.MilliCPU != 0 || l.CPUShares != 0 || l.CPUSet != "" {
		r.CPU = &specs.LinuxCPU{Cpus: l.CPUSet}
		if l.CPUShares != 0 {
			r.CPU.Shares = &l.CPUShares
		}
		if l.MilliCPU != 0 {
			period, quota := uint64(100_000), l.MilliCPU*100
			r.CPU.Period, r.CPU.Quota = &period, &quota
		}
	}
	if l.Memory != 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.Memory}
		if swap := l.Swap; swapAccounted() {
			if swap >= 0 {
				swap += l.Memory
			}
			r.Memory.Swap = &swap
		}
	}
	return r
}

// defaultPIDs stops a fork bomb and nothing else.
const defaultPIDs = 4096

// swapAccounted says whether the kernel can limit swap at all: cgroup v1 needs
// a boot parameter for it on some distributions.
func swapAccounted() bool {
	const v1 = "/sys/fs/cgroup/memory"
	if _, err := os.Stat(v1); err != nil {
		return true
	}
	_, err := os.Stat(v1 + "/memory.memsw.limit_in_bytes")
	return err == nil
}

// maxHook bounds a hook, in seconds: the start waits for it.
const maxHook = 30

func hooks(all []Hook) *specs.Hooks {
	out := &specs.Hooks{}
	for _, h := range all {
		timeout := h.Timeout
		if timeout <= 0 || timeout > maxHook {
			timeout = maxHook
		}
		one := specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: &timeout}
		switch h.When {
		case "prestart":
			out.Prestart = append(out.Prestart, one) //nolint:staticcheck // hooks of its time are still around
		case "createRuntime":
			out.CreateRuntime = append(out.CreateRuntime, one)
		case "createContainer":
			out.CreateContainer = append(out.CreateContainer, one)
		case "startContainer":
			out.StartContainer = append(out.StartContainer, one)
		default:
			panic("BUG: a hook is run " + h.When)
		}
	}
	return out
}

package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/netcfg"
)

// leastKernel is the oldest kernel that buoy is for: 5.15.
var leastKernel = [2]int{5, 15}

func (m machine) kernel() Finding {
	release := m.read("proc/sys/kernel/osrelease")
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return Finding{"kernel", Warning, fmt.Sprintf("the kernel's release is %q, which does not begin with a version: %v", release, err), "", ""}
	}
	if major < leastKernel[0] || major == leastKernel[0] && minor < leastKernel[1] {
		return Finding{
			"kernel", Failure, "Linux " + release, "containers may not start, or not be found again after a restart of buoyd",
			fmt.Sprintf("boot Linux %d.%d or newer", leastKernel[0], leastKernel[1]),
		}
	}
	return ok("kernel", "Linux "+release)
}

func (m machine) namespaces() Finding {
	var missing []string
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		if !m.exists("proc/self/ns/" + ns) {
			missing = append(missing, ns)
		}
	}
	if len(missing) > 0 {
		return Finding{"namespaces", Failure, "the kernel lacks namespaces: " + strings.Join(missing, ", "), "no container starts", "boot a kernel with CONFIG_NAMESPACES and all its kinds"}
	}
	return ok("namespaces", "all kinds that containers need")
}

func (m machine) userNamespaces() Finding {
	const check = "user namespaces"
	cost := "containers with userns do not start"
	switch most := m.read("proc/sys/user/max_user_namespaces"); {
	case !m.exists("proc/self/ns/user"):
		return Finding{check, Warning, "the kernel has none", cost, "boot a kernel with CONFIG_USER_NS"}
	case most == "0":
		return Finding{check, Warning, "user.max_user_namespaces is 0", cost, "sysctl user.max_user_namespaces=10000"}
	}
	return ok(check, "allowed")
}

// controllers are what limits and figures of containers come from.
var controllers = []string{"cpu", "memory", "pids"}

func (m machine) cgroups() Finding {
	have, mode := m.controllers()
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	switch {
	case mode == "":
		return Finding{"cgroups", Failure, "no cgroups are mounted below /sys/fs/cgroup", "no container starts", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"}
	case len(missing) > 0:
		mend := "boot a kernel with them"
		if slices.Contains(missing, "memory") {
			mend = `add "cgroup_enable=memory" to the kernel's command line and reboot`
		}
		return Finding{"cgroups", Failure, mode + " without " + strings.Join(missing, ", "), "limits of " + strings.Join(missing, ", ") + " are refused", mend}
	}
	return ok("cgroups", mode)
}

// controllers are those of all hierarchies.
func (m machine) controllers() (have []string, mode string) {
	if unified := m.read("sys/fs/cgroup/cgroup.controllers"); unified != "" {
		return strings.Fields(unified), "version 2"
	}
	entries, err := os.ReadDir(m.path("sys/fs/cgroup"))
	if err != nil {
		return nil, ""
	}
	for _, e := range entries {
		switch {
		case e.Name() == "unified":
			mode = "versions 1 and 2"
		case m.exists("sys/fs/cgroup/" + e.Name() + "/cgroup.procs"):
			have = append(have, strings.Split(e.Name(), ",")...)
		}
	}
	if mode == "" && len(have) > 0 {
		mode = "version 1"
	}
	return have, mode
}

func (m machine) pressure() Finding {
	if !m.exists("proc/pressure/memory") {
		return Finding{"pressure", Warning, "the kernel does not tell its pressure (PSI)", "statistics have no pressure", `add "psi=1" to the kernel's command line, or boot a kernel with CONFIG_PSI`}
	}
	return ok("pressure", "told")
}

func (m machine) seccomp() Finding {
	if !strings.Contains(m.read("proc/sys/kernel/seccomp/actions_avail"), "errno") {
		return Finding{"seccomp", Failure, "the kernel has no seccomp filters", "only unconfined containers start", "boot a kernel with CONFIG_SECCOMP_FILTER"}
	}
	return ok("seccomp", "filters")
}

func (m machine) overlay() Finding {
	if !m.has("overlay") {
		return Finding{"overlay", Failure, "the kernel has no overlayfs", "no container starts", "modprobe overlay, or boot a kernel with CONFIG_OVERLAY_FS"}
	}
	return ok("overlay", "there")
}

func (m machine) fuse() Finding {
	switch {
	case !m.has("fuse"):
		return Finding{"fuse", Warning, "the kernel has no FUSE", "flists are unpacked whole before their containers start", "modprobe fuse"}
	case !m.exists("dev/fuse") && !m.exists("sys/module/fuse"):
		return Finding{"fuse", Warning, "FUSE is not loaded", "the first flist may be unpacked whole before its container starts", "modprobe fuse"}
	}
	return ok("fuse", "there")
}

// uses are what modules of the network are for.
var uses = map[string]struct {
	status Status
	cost   string
}{
	"bridge":    {Failure, "default and bridge NICs cannot be made"},
	"veth":      {Failure, "containers have no NICs but the host's"},
	"nf_tables": {Failure, "no port is published, and containers do not reach beyond their machine"},
	"8021q":     {Warning, "NICs of type vlan cannot be made"},
	"vxlan":     {Warning, "NICs of type vxlan cannot be made"},
	"macvlan":   {Warning, "NICs of type macvlan cannot be made"},
	"ipvlan":    {Warning, "NICs of type ipvlan cannot be made"},
}

// network says what the kernel cannot make of what NICs and ports need.
func network() (all []Finding) {
	abilities, err := netcfg.Abilities()
	if err != nil {
		return []Finding{{"network", Warning, "not known: " + err.Error(), "", "ask as root"}}
	}
	for _, a := range abilities {
		f := ok(a.Module, "there")
		if a.Err != nil {
			use := uses[a.Module]
			f = Finding{a.Module, use.status, "the kernel refuses: " + a.Err.Error(), use.cost, "modprobe " + a.Module + ", or boot a kernel that has it"}
		}
		all = append(all, f)
	}
	return all
}

// has says whether the kernel has a module, or can load it when it is needed.
func (m machine) has(module string) bool {
	for line := range strings.Lines(m.read("proc/filesystems")) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == module {
			return true
		}
	}
	if m.exists("sys/module/" + module) {
		return true
	}
	dir := "lib/modules/" + m.read("proc/sys/kernel/osrelease") + "/"
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		for line := range strings.Lines(m.read(dir + list)) {
			file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			name, _, _ := strings.Cut(filepath.Base(file), ".ko")
			if strings.ReplaceAll(name, "-", "_") == module {
				return true
			}
		}
	}
	return false
}

// files are limits of the machine that a few hundred containers reach.
func (m machine) files() Finding {
	for _, l := range []struct {
		file  string
		least int
		cost  string
	}{
		{"fs/inotify/max_user_instances", 512, "programs in many containers fail to watch files"},
		{"kernel/pid_max", 65536, "many containers run out of process ids"},
		{"kernel/keys/maxkeys", 1000, "many containers fail to start: each may take a key"},
	} {
		text := m.read("proc/sys/" + l.file)
		if n, err := strconv.Atoi(text); err == nil && n < l.least {
			name := strings.ReplaceAll(l.file, "/", ".")
			return Finding{"limits", Warning, name + " is " + text, l.cost, fmt.Sprintf("sysctl %s=%d", name, l.least)}
		}
	}
	return ok("limits", "enough for some hundred containers")
}

func (m machine) forwarding() Finding {
	const check = "forwarding"
	if m.read("proc/sys/net/bridge/bridge-nf-call-iptables") == "1" {
		return Finding{check, Warning, "net.bridge.bridge-nf-call-iptables is 1", "a firewall of the machine also decides what containers of one bridge say to one another", "sysctl net.bridge.bridge-nf-call-iptables=0"}
	}
	return ok(check, "nothing of others is between containers")
}

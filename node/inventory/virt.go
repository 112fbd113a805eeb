package inventory

import (
	"os"
	"slices"
	"strings"
)

// virtualization says in what this system runs, innermost first: a container on
// a virtual machine is a guest of the container system.
func (f FS) virtualization() (system, role string) {
	for _, ask := range []func() string{f.containerSystem, f.hypervisor} {
		if system := ask(); system != "" {
			return system, "guest"
		}
	}
	if strings.Contains(readString(f.proc("xen/capabilities")), "control_d") {
		return "xen", "host"
	}
	if _, err := os.Stat(f.sys("module/kvm")); err == nil {
		return "kvm", "host"
	}
	if strings.Contains(readString(f.proc("modules")), "kvm") {
		return "kvm", "host"
	}
	return "", ""
}

func (f FS) containerSystem() string {
	for env := range strings.SplitSeq(readString(f.proc("1/environ")), "\x00") {
		if value, ok := strings.CutPrefix(env, "container="); ok && value != "" {
			return strings.ToValidUTF8(value, "\uFFFD")
		}
	}
	cgroup := readString(f.proc("self/cgroup"))
	for _, c := range []struct{ trace, system string }{
		{"/docker/", "docker"}, {"/docker-", "docker"}, {"/libpod", "podman"}, {"/kubepods", "kubernetes"}, {"/lxc", "lxc"},
	} {
		if strings.Contains(cgroup, c.trace) {
			return c.system
		}
	}
	if strings.Contains(strings.ToLower(readString(f.proc("sys/kernel/osrelease"))), "microsoft") {
		return "wsl"
	}
	return ""
}

func (f FS) hypervisor() string {
	var dmi strings.Builder
	for _, name := range []string{"product_name", "sys_vendor", "board_vendor", "bios_vendor"} {
		dmi.WriteString(readString(f.sys("class/dmi/id", name)) + "\n")
	}
	clocks := readString(f.sys("devices/system/clocksource/clocksource0/available_clocksource"))
	if system := hypervisorOf(dmi.String()); system != "" {
		if system == "qemu" && strings.Contains(clocks, "kvm-clock") {
			return "kvm"
		}
		return system
	}
	if readString(f.sys("hypervisor/type")) == "xen" && !strings.Contains(readString(f.proc("xen/capabilities")), "control_d") {
		return "xen"
	}
	// ARM machines with a device tree.
	for _, path := range []string{"firmware/devicetree/base/hypervisor/compatible", "firmware/devicetree/base/compatible"} {
		for trace, system := range map[string]string{"linux,kvm": "kvm", "xen,xen": "xen", "linux,dummy-virt": "qemu"} {
			if strings.Contains(readString(f.sys(path)), trace) {
				return system
			}
		}
	}
	// x86 machines without firmware tables, such as Firecracker's.
	for trace, system := range map[string]string{"kvm-clock": "kvm", "hyperv": "hyperv"} {
		if strings.Contains(clocks, trace) {
			return system
		}
	}
	text, _ := read(f.proc("cpuinfo"))
	if cpus, _ := parseCPUs(text); len(cpus) > 0 {
		if slices.Contains(cpus[0].Flags, "hypervisor") {
			return "unknown"
		}
	}
	return ""
}

// hypervisorOf knows the firmware tables of hypervisors and clouds.
func hypervisorOf(dmi string) string {
	if strings.Contains(dmi, ".metal") && strings.Contains(dmi, "Amazon EC2") {
		return ""
	}
	for _, v := range []struct{ trace, system string }{
		{"KVM", "kvm"},
		{"OpenStack", "kvm"},
		{"Amazon EC2", "kvm"},
		{"Google Compute Engine", "kvm"},
		{"DigitalOcean", "kvm"},
		{"Hetzner", "kvm"},
		{"KubeVirt", "kvm"},
		{"oVirt", "kvm"},
		{"RHEV", "kvm"},
		{"VMware", "vmware"},
		{"VirtualBox", "virtualbox"},
		{"innotek", "virtualbox"},
		{"Xen", "xen"},
		{"HVM domU", "xen"},
		{"Parallels", "parallels"},
		{"BHYVE", "bhyve"},
		{"Apple Virtualization", "apple"},
		{"QEMU", "qemu"},
		{"Bochs", "qemu"},
		{"Virtual Machine\nMicrosoft Corporation", "hyperv"},
	} {
		if strings.Contains(dmi, v.trace) {
			return v.system
		}
	}
	return ""
}

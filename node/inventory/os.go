package inventory

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// OS is the operating system and where it runs.
type OS struct {
	Hostname        string
	OS              string // "linux"
	Arch            string // as Go spells it: "amd64", "arm64"
	Platform        string // "debian", "ubuntu", "alpine", …: ID of os-release
	PlatformFamily  string // "debian", "rhel", "suse", …
	PlatformVersion string // "12"
	KernelVersion   string
	Procs           int   // processes
	BootTime        int64 // seconds since 1970
	Uptime          int64 // seconds
	// Cgroups are "v2", "v1", or "hybrid", which is v1 with v2 beside it; empty: none are mounted.
	Cgroups string

	// VirtualizationSystem is "kvm", "vmware", "hyperv", "xen", "virtualbox",
	// "docker", "lxc", …; the role is "guest", or "host" of a machine that runs
	// on no other and can have guests. Both are empty when neither is known.
	VirtualizationSystem, VirtualizationRole string
}

// OS reads the operating system. Only without any /proc is there an error.
func (f FS) OS() (OS, error) {
	stat, err := read(f.proc("stat"))
	if err != nil {
		return OS{}, unavailable("operating system", err)
	}
	o := OS{
		OS: "linux", Arch: runtime.GOARCH,
		Hostname:      readString(f.proc("sys/kernel/hostname")),
		KernelVersion: readString(f.proc("sys/kernel/osrelease")),
		BootTime:      parseStat(stat).bootTime,
		Uptime:        int64(f.uptime()),
		Cgroups:       f.cgroups(),
	}
	pids, err := f.pids()
	if err == nil {
		o.Procs = len(pids)
	}
	o.Platform, o.PlatformFamily, o.PlatformVersion = f.platform()
	o.VirtualizationSystem, o.VirtualizationRole = f.virtualization()
	return o, nil
}

func (f FS) cgroups() string {
	for _, c := range [][2]string{{"cgroup.controllers", "v2"}, {"unified/cgroup.procs", "hybrid"}, {"memory/cgroup.procs", "v1"}, {"pids/cgroup.procs", "v1"}} {
		if _, err := os.Stat(f.sys("fs/cgroup", c[0])); err == nil {
			return c[1]
		}
	}
	return ""
}

// uptime is in seconds, 0 if unknown.
func (f FS) uptime() float64 {
	first, _, _ := strings.Cut(readString(f.proc("uptime")), " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil || s < 0 || s > 1e12 {
		return 0
	}
	return s
}

func (f FS) platform() (id, family, version string) {
	text := f.etc("os-release")
	if text == "" && (f.Etc == "" || f.Etc == "/etc") {
		text = readString("/usr/lib/os-release")
	}
	values := parseRelease(text)
	id, version = values["ID"], values["VERSION_ID"]
	if version == "" {
		version = values["BUILD_ID"] // "rolling"
	}
	// Debian before its release has no version there, old systems no os-release.
	for _, name := range []string{"alpine", "debian"} {
		if id != "" && (id != name || version != "") {
			continue
		}
		v := strings.TrimSpace(f.etc(map[string]string{"alpine": "alpine-release", "debian": "debian_version"}[name]))
		if v != "" {
			id, version = name, v
		}
	}
	return id, platformFamily(id, values["ID_LIKE"]), version
}

func parseRelease(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			values[key] = strings.ToValidUTF8(strings.Trim(value, `"'`), "\uFFFD")
		}
	}
	return values
}

func platformFamily(id, like string) string {
	for _, name := range append([]string{id}, strings.Fields(like)...) {
		switch name {
		case "debian", "ubuntu", "raspbian", "linuxmint":
			return "debian"
		case "rhel", "centos", "rocky", "almalinux", "ol", "amzn":
			return "rhel"
		case "suse", "opensuse", "sles", "opensuse-leap", "opensuse-tumbleweed":
			return "suse"
		case "fedora", "alpine", "arch", "gentoo":
			return name
		}
	}
	return id
}

// pids lists the processes.
func (f FS) pids() ([]int, error) {
	dir, err := os.Open(f.proc())
	if err != nil {
		return nil, unavailable("processes", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, unavailable("processes", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

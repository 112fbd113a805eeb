package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// machine is a recorded one: vm is a Firecracker guest (Linux 6.18), arm64 a
// Raspberry Pi 4, diskless a container on a machine without disks whose memory
// is that of the seed's example.
func machine(name string) FS {
	dir := filepath.Join("testdata", name)
	return FS{Proc: dir + "/proc", Sys: dir + "/sys", Etc: dir + "/etc", Dev: dir + "/dev"}
}

func TestMemory(t *testing.T) {
	tests := []struct {
		machine string
		want    Memory
	}{
		{"diskless", Memory{
			Total: 2102710272, Available: 1454743552, Free: 1521983488, Cached: 372428800, Active: 197136384, Inactive: 323203072,
			Used: 647966720, UsedPercent: 30.815787064362617,
		}},
		{"arm64", Memory{ // no MemAvailable
			Total: 3884380 << 10, Free: 100000 << 10, Buffers: 20000 << 10, Cached: 300000 << 10, Available: 420000 << 10,
			Used: 3464380 << 10, UsedPercent: float64(3464380) / 3884380 * 100, SwapTotal: 102396 << 10, SwapFree: 52396 << 10,
		}},
	}
	for _, tt := range tests {
		got, err := machine(tt.machine).Memory()
		if err != nil || got != tt.want {
			t.Errorf("%s: Memory = %+v, %v, want %+v", tt.machine, got, err, tt.want)
		}
	}
}

func TestCPUs(t *testing.T) {
	cpus, err := machine("vm").CPUs()
	if err != nil || len(cpus) != 2 {
		t.Fatalf("vm: %d processors, %v", len(cpus), err)
	}
	c := cpus[1]
	if c.ID != 1 || c.Cores != 1 || c.CacheSize != 36608 || c.Family != "6" || c.MHz != 2499.998 ||
		c.Model != "Intel(R) Xeon(R) Processor @ 2.50GHz" || len(c.Flags) != 94 || c.Flags[0] != "fpu" {
		t.Errorf("vm: cpu 1 = %+v (%d flags)", c, len(c.Flags))
	}
	cpus, err = machine("arm64").CPUs()
	if err != nil || len(cpus) != 4 {
		t.Fatalf("arm64: %d processors, %v", len(cpus), err)
	}
	want := CPU{CacheSize: 1024, Cores: 1, Family: "8", Model: "ARM Cortex-A72", Flags: []string{"fp", "asimd", "evtstrm", "crc32", "cpuid"}, MHz: 1500}
	if !reflect.DeepEqual(cpus[0], want) {
		t.Errorf("arm64: cpu 0 = %+v, want %+v", cpus[0], want)
	}
	cpus, err = machine("diskless").CPUs() // no cpuinfo
	if want := []CPU{{ID: 0, Cores: 1}, {ID: 3, Cores: 1}}; err != nil || !reflect.DeepEqual(cpus, want) {
		t.Errorf("diskless: CPUs = %+v, %v, want %+v", cpus, err, want)
	}
}

func TestParseCPUsOfOtherKernels(t *testing.T) {
	tests := []struct{ name, text, model, family, flag string }{
		{"armv7", "processor\t: 0\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nFeatures\t: half thumb\nCPU implementer\t: 0x41\nCPU architecture: 7\nCPU part\t: 0xc07\n", "ARMv7 Processor rev 5 (v7l)", "7", "half"},
		{"riscv", "processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdc_zicsr\nmmu\t\t: sv39\nuarch\t\t: sifive,u74-mc\n", "sifive,u74-mc", "", "rv64imafdc"},
		{"unknown arm", "processor : 0\nFeatures: fp\nCPU implementer : 0x99\nCPU part : 0x001\n", "implementer 0x99 part 0x001", "", "fp"},
	}
	for _, tt := range tests {
		cpus, _ := parseCPUs([]byte(tt.text))
		if len(cpus) != 1 || cpus[0].Model != tt.model || cpus[0].Family != tt.family || len(cpus[0].Flags) == 0 || cpus[0].Flags[0] != tt.flag {
			t.Errorf("%s: %+v", tt.name, cpus)
		}
	}
}

func TestMounts(t *testing.T) {
	got, err := machine("arm64").Mounts()
	want := []Mount{
		{"/dev/root", "/", "ext4", "rw,noatime"},
		{"/dev/mmcblk0p1", "/boot", "vfat", "rw,relatime"},
		{"/dev/mmcblk0p10", `/media/my usb\x`, "ext4", "rw"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Mounts = %+v, %v, want %+v", got, err, want)
	}
	for in, want := range map[string]string{`a\0`: `a\0`, `\777`: `\777`, `\08x`: `\08x`, `\`: `\`, `\011`: "\t", `\377`: "\uFFFD"} {
		if got := unescape([]byte(in), 3, 8); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestOS(t *testing.T) {
	tests := []struct {
		machine string
		want    OS
	}{
		{"vm", OS{Platform: "debian", PlatformFamily: "debian", PlatformVersion: "12", Procs: 3, VirtualizationSystem: "kvm", VirtualizationRole: "guest"}},
		{"arm64", OS{
			Platform: "raspbian", PlatformFamily: "debian", PlatformVersion: "11", VirtualizationSystem: "kvm", VirtualizationRole: "host",
			Hostname: "pi", KernelVersion: "5.10.103-v8+", BootTime: 1700000000, Uptime: 361,
		}},
		// Its os-release leads out of its root and must not be followed.
		{"diskless", OS{Platform: "alpine", PlatformFamily: "alpine", PlatformVersion: "3.19.1", Procs: 1, BootTime: 1491984000, VirtualizationSystem: "lxc", VirtualizationRole: "guest"}},
	}
	for _, tt := range tests {
		got, err := machine(tt.machine).OS()
		if err != nil {
			t.Errorf("%s: %v", tt.machine, err)
		}
		tt.want.OS, tt.want.Arch = "linux", got.Arch
		if tt.machine == "vm" {
			tt.want.Hostname, tt.want.KernelVersion, tt.want.BootTime, tt.want.Uptime = got.Hostname, got.KernelVersion, got.BootTime, got.Uptime
		}
		if got != tt.want {
			t.Errorf("%s: OS = %+v, want %+v", tt.machine, got, tt.want)
		}
	}
}

func TestHypervisorOf(t *testing.T) {
	// product, system vendor, board vendor, BIOS vendor
	for dmi, want := range map[string]string{
		"Standard PC (i440FX + PIIX, 1996)\nQEMU\n\nSeaBIOS\n":                               "qemu",
		"Virtual Machine\nMicrosoft Corporation\nMicrosoft Corporation\nMicrosoft\n":         "hyperv",
		"Surface Pro\nMicrosoft Corporation\nMicrosoft Corporation\nMicrosoft Corporation\n": "",
		"VMware Virtual Platform\nVMware, Inc.\nIntel Corporation\nPhoenix\n":                "vmware",
		"VirtualBox\ninnotek GmbH\nOracle Corporation\ninnotek GmbH\n":                       "virtualbox",
		"m5.large\nAmazon EC2\nAmazon EC2\nAmazon EC2\n":                                     "kvm",
		"m5.metal\nAmazon EC2\nAmazon EC2\nAmazon EC2\n":                                     "",
		"HVM domU\nXen\n\nXen\n":                            "xen",
		"PowerEdge R740\nDell Inc.\nDell Inc.\nDell Inc.\n": "",
		"Google Compute Engine\nGoogle\nGoogle\nGoogle\n":   "kvm",
		"\n\n\n\n": "",
	} {
		if got := hypervisorOf(dmi); got != want {
			t.Errorf("hypervisorOf(%q) = %q, want %q", dmi, got, want)
		}
	}
}

func TestNothingThere(t *testing.T) {
	f := FS{Proc: t.TempDir(), Sys: t.TempDir(), Etc: t.TempDir(), Dev: t.TempDir()}
	calls := map[string]func() error{
		"Memory":    func() error { _, err := f.Memory(); return err },
		"CPUs":      func() error { _, err := f.CPUs(); return err },
		"Disks":     func() error { _, err := f.Disks(); return err },
		"Mounts":    func() error { _, err := f.Mounts(); return err },
		"OS":        func() error { _, err := f.OS(); return err },
		"State":     func() error { _, err := f.State(nil); return err },
		"NodeState": func() error { _, err := f.NodeState(); return err },
		"Stats":     func() error { _, err := f.Stats(); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, errs.Unavailable) {
			t.Errorf("%s without files: %v, want Unavailable", name, err)
		}
	}
	if _, err := f.Process(1); !errors.Is(err, errs.NotFound) {
		t.Errorf("Process without files: %v", err)
	}
	if all, err := f.Processes(); err != nil || all == nil || len(all) != 0 {
		t.Errorf("Processes without files: %v, %v", all, err)
	}
}

// TestLive reads the machine that the test runs on.
func TestLive(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here")
	}
	var f FS
	m, err := f.Memory()
	if err != nil || m.Total <= 0 || m.Used <= 0 || m.UsedPercent > 100 {
		t.Errorf("Memory = %+v, %v", m, err)
	}
	cpus, err := f.CPUs()
	if err != nil || len(cpus) == 0 {
		t.Errorf("CPUs = %v, %v", cpus, err)
	}
	disks, err := f.Disks()
	t.Logf("disks %+v, %v", disks, err)
	mounts, err := f.Mounts()
	if err != nil || len(mounts) == 0 {
		t.Errorf("Mounts = %v, %v", mounts, err)
	}
	nics, err := f.NICs()
	if err != nil || len(nics) == 0 {
		t.Errorf("NICs = %v, %v", nics, err)
	}
	t.Logf("nics %+v", nics)
	o, err := f.OS()
	if err != nil || o.BootTime == 0 || o.Uptime == 0 || o.Hostname == "" || o.Procs == 0 {
		t.Errorf("OS = %+v, %v", o, err)
	}
	t.Logf("os %+v", o)
	id, err := f.NodeID()
	t.Logf("node id %q (%v), address %v, routes %+v", id, err, f.ManagementAddr(), f.defaultRoutes())
	if err == nil && len(id) != 12 {
		t.Errorf("NodeID = %q", id)
	}
	p, err := f.Process(os.Getpid())
	if err != nil || p.PPID != os.Getppid() || p.RSS <= 0 || p.StartTime == 0 || p.UID != os.Getuid() {
		t.Errorf("Process(self) = %+v, %v", p, err)
	}
	s, err := f.State(nil)
	if err != nil || s.RSS <= 0 || s.VMS < s.RSS {
		t.Errorf("State = %+v, %v", s, err)
	}
	n, err := f.NodeState()
	if err != nil || n.RSS < s.RSS || n.CPU <= 0 || n.CPU > 100*float64(len(cpus)) {
		t.Errorf("NodeState = %+v, %v", n, err)
	}
	stats, err := f.Stats()
	if err != nil || len(stats) < 10 {
		t.Errorf("Stats = %v, %v", stats, err)
	}
}

// TestOtherNamespace checks that NICs are the calling thread's.
func TestOtherNamespace(t *testing.T) {
	testroot.Require(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		nics, err := FS{}.NICs()
		if err != nil || len(nics) == 0 || slices.ContainsFunc(nics, func(n NIC) bool { return n.physical() || len(n.Addrs) > 0 }) {
			t.Errorf("NICs of a new namespace = %+v, %v", nics, err)
		}
		if routes := (FS{}).defaultRoutes(); len(routes) > 0 {
			t.Errorf("default routes of a new namespace = %v", routes)
		}
		stats, err := FS{}.Stats()
		if _, there := stats["network.packets.rx/eth0"]; err != nil || there {
			t.Errorf("Stats of a new namespace has eth0 (%v)", err)
		}
	}()
	<-done
}

func TestCgroups(t *testing.T) {
	for file, want := range map[string]string{"": "", "cgroup.controllers": "v2", "unified/cgroup.procs": "hybrid", "memory/cgroup.procs": "v1", "pids/cgroup.procs": "v1"} {
		sys := t.TempDir()
		if file != "" {
			path := filepath.Join(sys, "fs/cgroup", file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if got := (FS{Sys: sys}).cgroups(); got != want {
			t.Errorf("with %q: %q, want %q", file, got, want)
		}
	}
}

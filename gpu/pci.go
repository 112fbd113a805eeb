package gpu

import (
	"cmp"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const pciDevices = "sys/bus/pci/devices/"

// scan reads which GPUs the kernel sees on PCI. root is that of the machine,
// with its proc and sys. The NVIDIA module says more of its own.
func scan(root fs.FS) (all []Device) {
	entries, err := fs.ReadDir(root, path.Clean(pciDevices))
	if err != nil {
		return nil // a machine without PCI
	}
	for _, e := range entries {
		if d, ok := scanDevice(root, e.Name()); ok {
			all = append(all, d)
		}
	}
	return all
}

var vendors = map[string]string{"0x10de": NVIDIA, "0x1002": AMD, "0x8086": Intel}

func scanDevice(root fs.FS, address string) (d Device, ok bool) {
	dir := pciDevices + address
	class, vendorID := readText(root, dir+"/class"), readText(root, dir+"/vendor")
	vendor := vendors[vendorID]
	accelerator := vendor == AMD && strings.HasPrefix(class, "0x1200") // Instinct; those of other vendors are no GPUs
	if vendor == "" || !strings.HasPrefix(class, "0x03") && !accelerator || !pciForm.MatchString(address) {
		return d, false
	}
	id := strings.TrimPrefix(vendorID, "0x") + ":" + strings.TrimPrefix(readText(root, dir+"/device"), "0x")
	d = Device{
		UUID: address, Index: -1, Vendor: vendor, PCI: address, NUMANode: -1, Minor: -1,
		Model: cmp.Or(printable(readText(root, dir+"/product_name")), models[id], "PCI device "+id),
	}
	if n := readNumber(root, dir+"/numa_node"); n != nil && *n >= 0 {
		d.NUMANode = int(*n)
	}
	if n := readNumber(root, dir+"/mem_info_vram_total"); n != nil && *n >= 0 { // amdgpu has it
		d.Memory = *n
	}
	if driver, err := fs.ReadLink(root, dir+"/driver"); err == nil {
		d.Kernel = path.Base(driver)
	}
	nodes, err := fs.ReadDir(root, dir+"/drm")
	for _, n := range nodes {
		if err == nil && (strings.HasPrefix(n.Name(), "card") || strings.HasPrefix(n.Name(), "renderD")) {
			d.DRM = append(d.DRM, n.Name())
		}
	}
	if d.Kernel == "nvidia" {
		askModule(root, &d)
	}
	return d, true
}

// askModule reads what the NVIDIA module tells of a GPU in /proc.
func askModule(root fs.FS, d *Device) {
	for line := range strings.Lines(readText(root, "proc/driver/nvidia/gpus/"+d.PCI+"/information")) {
		key, value, _ := strings.Cut(line, ":")
		value = printable(value)
		switch key {
		case "Model":
			d.Model = cmp.Or(value, d.Model)
		case "GPU UUID": // question marks until it is used for the first time
			if uuidForm.MatchString(value) {
				d.UUID = value
			}
		case "Device Minor":
			if n, err := strconv.Atoi(value); err == nil && n >= 0 {
				d.Minor = n
			}
		case "GPU Excluded":
			if value == "Yes" {
				d.Broken = "it is excluded from use by the driver's option NVreg_ExcludedGpus"
			}
		}
	}
}

// driver is the version of the NVIDIA module, if it is loaded.
func driver(root fs.FS) (version string, loaded bool) {
	if _, err := fs.Stat(root, "proc/driver/nvidia"); err == nil {
		loaded = true
	}
	if _, err := fs.Stat(root, "sys/module/nvidia"); err == nil {
		loaded = true
	}
	return printable(readText(root, "sys/module/nvidia/version")), loaded
}

// pciLinks are the distances between devices, by where they are in the tree of
// PCI.
func pciLinks(root fs.FS, all []Device) (links []Link) {
	ways := map[string][]string{}
	for _, d := range all {
		target, err := fs.ReadLink(root, pciDevices+d.PCI)
		if _, way, ok := strings.Cut(target, "devices/"); err == nil && ok {
			ways[d.PCI] = strings.Split(way, "/")
		}
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			if wa, wb := ways[a.PCI], ways[b.PCI]; wa != nil && wb != nil {
				links = append(links, Link{A: a.UUID, B: b.UUID, Distance: apart(wa, wb, a.NUMANode, b.NUMANode)})
			}
		}
	}
	return links
}

// apart is how far two ways from a root of PCI, as pci0000:3a, to a device go
// apart.
func apart(a, b []string, numaA, numaB int) Distance {
	same := 0
	for same < len(a) && same < len(b) && a[same] == b[same] {
		same++
	}
	switch rest := max(len(a), len(b)) - same; {
	case same > 1 && rest <= 2: // the port of a switch, and the device
		return OneSwitch
	case same > 1:
		return Switches
	case same == 1:
		return HostBridge
	case numaA == numaB:
		return SameNUMANode
	}
	return System
}

// pciFigures are the figures that the kernel's drivers tell, those of amdgpu
// most.
func pciFigures(root fs.FS, d Device) Figures {
	dir := pciDevices + d.PCI
	count := func(name string) *int64 {
		if n := readNumber(root, dir+"/"+name); n != nil && *n >= 0 {
			return n
		}
		return nil
	}
	f := Figures{UUID: d.UUID, Utilization: count("gpu_busy_percent"), MemoryActivity: count("mem_busy_percent"), MemoryUsed: count("mem_info_vram_used")}
	if f.MemoryUsed != nil && d.Memory > 0 {
		f.MemoryFree = new(max(d.Memory-*f.MemoryUsed, 0))
	}
	sensors, err := fs.Glob(root, dir+"/hwmon/hwmon*")
	if err != nil || len(sensors) == 0 {
		return f
	}
	slices.Sort(sensors)
	scaled := func(name string) *int64 {
		n := readNumber(root, sensors[0]+"/"+name)
		if n != nil {
			*n /= 1000
		}
		return n
	}
	f.Temperature = scaled("temp1_input")
	f.Power, f.PowerLimit = scaled("power1_average"), scaled("power1_cap")
	if f.Power == nil {
		f.Power = scaled("power1_input")
	}
	f.Energy = scaled("energy1_input")
	return f
}

// readText is a small file without the space around its text; empty if it is
// not there.
func readText(root fs.FS, name string) string {
	raw, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// readNumber is the number in a file; nil: there is none.
func readNumber(root fs.FS, name string) *int64 {
	n, err := strconv.ParseInt(readText(root, name), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

//go:build linux && cgo

// Package nvml asks NVIDIA's management library about GPUs, and answers buoyd.
//
// Whatever it calls may be missing in the installed library, which ends the
// process if it is called all the same; may not be supported by a GPU; and may
// never return.
package nvml

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/buoy-edge/buoy/gpu"
)

// Library is NVML.
type Library struct {
	nv   nvml.Interface
	root string // where proc and sys are
}

// New gives the library of the driver below root, as a driver in a container has
// it there, or that of this machine. It is loaded by Open.
func New(root string) *Library {
	var opts []nvml.LibraryOption
	if path := find(root); path != "" {
		opts = append(opts, nvml.WithLibraryPath(path))
	}
	return &Library{nv: nvml.New(opts...), root: root}
}

// find is the library below a root that is not the machine's. The folder is not
// looked into for anything else, so that the C library stays the machine's.
func find(root string) string {
	if filepath.Clean(root) == "/" {
		return "" // where the system looks
	}
	for _, dir := range []string{"usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib"} {
		path := filepath.Join(root, dir, "libnvidia-ml.so.1")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// Open loads the library and has it look for GPUs. The error is a sentence that
// says what helps.
func (l *Library) Open() error {
	if ret := l.nv.Init(); ret != nvml.SUCCESS {
		return l.explain(ret)
	}
	return nil
}

// explain says why the library does not start.
func (l *Library) explain(ret nvml.Return) error {
	module := "the NVIDIA driver"
	if v := l.read("sys/module/nvidia/version"); v != "" {
		module += " " + v
	}
	switch ret {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return fmt.Errorf("%s is loaded, but its library libnvidia-ml.so.1 is not found: install that of the same version (libnvidia-ml1, libnvidia-compute or nvidia-driver-cuda-libs), or say where it is by LD_LIBRARY_PATH of buoyd or --gpu-root", module)
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		library := "another version"
		if v, ret := l.nv.SystemGetNVMLVersion(); ret == nvml.SUCCESS && v != "" {
			_, driver, _ := strings.Cut(v, ".") // CUDA's major version is before the driver's
			library = "version " + cmp.Or(driver, v)
		}
		return fmt.Errorf("%s in the kernel and its library, %s, do not fit: reboot, or unload the module and load the new one", module, library)
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return fmt.Errorf("%s does not answer its library: no GPU is bound to it, or /dev/nvidiactl is missing; dmesg may say why", module)
	case nvml.ERROR_NO_PERMISSION:
		return fmt.Errorf("the device nodes of %s, /dev/nvidiactl and /dev/nvidia0, may not be opened: buoyd needs root and must not be kept from them by a device cgroup or a security module", module)
	}
	return fmt.Errorf("the library of %s does not start: %s", module, text(ret))
}

func text(ret nvml.Return) string { return fmt.Sprintf("%s (NVML error %d)", ret.Error(), int32(ret)) }

func (l *Library) read(name string) string {
	raw, err := os.ReadFile(filepath.Join(l.root, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// query asks one device. It notes what it is told of the device as a whole.
type query struct {
	l    *Library
	lost bool
	sick string // why it cannot be used
}

// ask calls the library, if it has that function. false: it does not say.
func ask[T any](q *query, function string, call func() (T, nvml.Return)) (v T, ok bool) {
	if q.l.nv.Extensions().LookupSymbol(function) != nil {
		return v, false
	}
	v, ret := call()
	switch ret {
	case nvml.SUCCESS:
		return v, true
	case nvml.ERROR_GPU_IS_LOST:
		q.lost, q.sick = true, "it has fallen off the bus, says the NVIDIA driver"
	case nvml.ERROR_RESET_REQUIRED:
		q.sick = cmp.Or(q.sick, "it needs a reset, says the NVIDIA driver: nvidia-smi --gpu-reset, or reboot")
	}
	var none T
	return none, false
}

// number is what a call says, nil if it says nothing or what makes no sense.
func number[T uint32 | uint64 | int](q *query, function string, call func() (T, nvml.Return)) *int64 {
	v, ok := ask(q, function, call)
	if !ok || uint64(v) > math.MaxInt64 || uint64(v) == math.MaxUint32 { // NVML_VALUE_NOT_AVAILABLE
		return nil
	}
	return new(int64(v))
}

// maxDevices bounds a count that makes no sense.
const maxDevices = 256

// handles are the devices by index; of one that cannot be had, why.
func (l *Library) handles() (all []nvml.Device, why []gpu.Device, err error) {
	count, ret := l.nv.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, nil, fmt.Errorf("count GPUs: %s", text(ret))
	}
	for n := range max(min(count, maxDevices), 0) {
		d, ret := l.nv.DeviceGetHandleByIndex(n)
		bad := unknown(n)
		switch ret {
		case nvml.SUCCESS:
		case nvml.ERROR_GPU_IS_LOST:
			bad.Broken, bad.Lost = "it has fallen off the bus, says the NVIDIA driver", true
		case nvml.ERROR_NO_PERMISSION:
			bad.Broken = fmt.Sprintf("its device node, such as /dev/nvidia%d, may not be opened", n)
		default:
			bad.Broken = "the NVIDIA driver does not give access to it: " + text(ret)
		}
		all, why = append(all, d), append(why, bad)
	}
	return all, why, nil
}

func unknown(index int) gpu.Device {
	return gpu.Device{Vendor: gpu.NVIDIA, Index: index, Minor: -1, NUMANode: -1}
}

// Machine says which GPUs there are.
func (l *Library) Machine() (m gpu.Machine, err error) {
	handles, why, err := l.handles()
	if err != nil {
		return m, err
	}
	q := &query{l: l}
	m.Driver, _ = ask(q, "nvmlSystemGetDriverVersion", l.nv.SystemGetDriverVersion)
	if v, ok := ask(q, "nvmlSystemGetCudaDriverVersion", l.nv.SystemGetCudaDriverVersion); ok {
		m.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	var known []peer
	for n, h := range handles {
		d := why[n]
		if d.Broken == "" {
			var instances []gpu.Device
			d, instances = l.device(h, n)
			m.Devices = append(append(m.Devices, d), instances...)
			if d.UUID != "" && !d.Lost {
				known = append(known, peer{h, d.UUID, d.PCI})
			}
			continue
		}
		m.Devices = append(m.Devices, d)
	}
	m.Links = l.links(known)
	return m, nil
}

// device is a GPU, and what it is divided into.
func (l *Library) device(h nvml.Device, index int) (d gpu.Device, instances []gpu.Device) {
	q, d := &query{l: l}, unknown(index)
	d.UUID, _ = ask(q, "nvmlDeviceGetUUID", h.GetUUID)
	d.Model, _ = ask(q, "nvmlDeviceGetName", h.GetName)
	if pci, ok := ask(q, "nvmlDeviceGetPciInfo_v3", h.GetPciInfo); ok {
		d.PCI = address(pci)
	}
	if minor, ok := ask(q, "nvmlDeviceGetMinorNumber", h.GetMinorNumber); ok {
		d.Minor = minor
	}
	if total, _, _ := memory(q, h); total != nil {
		d.Memory = *total
	}
	var parts []nvml.Device
	if d.Divided, parts = divided(q, h); d.Divided {
		for _, part := range parts {
			instances = append(instances, instance(q, part, d))
		}
	}
	d.Broken, d.Lost = q.sick, q.lost
	for n := range instances {
		instances[n].Broken, instances[n].Lost = cmp.Or(d.Broken, instances[n].Broken), d.Lost
	}
	return d, instances
}

// memory are the bytes of a device: all, used and free.
func memory(q *query, h nvml.Device) (total, used, free *int64) {
	if m, ok := ask(q, "nvmlDeviceGetMemoryInfo_v2", h.GetMemoryInfo_v2); ok {
		return sized(m.Total), sized(m.Used), sized(m.Free)
	}
	if m, ok := ask(q, "nvmlDeviceGetMemoryInfo", h.GetMemoryInfo); ok {
		return sized(m.Total), sized(m.Used), sized(m.Free)
	}
	return nil, nil, nil
}

func sized(n uint64) *int64 {
	if n > math.MaxInt64 {
		return nil
	}
	return new(int64(n))
}

// address is where a device is on PCI, as the kernel writes it: NVML has eight
// digits of the domain, and capitals.
func address(pci nvml.PciInfo) string {
	var id []byte
	for _, c := range pci.BusId {
		if c == 0 {
			break
		}
		id = append(id, byte(c))
	}
	a := strings.ToLower(string(id))
	if domain, rest, ok := strings.Cut(a, ":"); ok && len(domain) == 8 && strings.HasPrefix(domain, "0000") {
		return domain[4:] + ":" + rest
	}
	return a
}

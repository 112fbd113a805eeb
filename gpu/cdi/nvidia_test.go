package cdi

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/internal/errs"
)

// library is an ELF file that has a name and nothing else.
func library(soname string) string {
	names := "\x00" + soname + "\x00"
	dynamic := []uint64{uint64(elf.DT_SONAME), 1, uint64(elf.DT_NULL), 0}
	const header, section = 64, 64
	at := uint64(header)
	stringsAt := at + uint64(8*len(dynamic))
	sectionsAt := stringsAt + uint64(len(names))
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // to memory
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: sectionsAt, Ehsize: header, Shentsize: section, Shnum: 3, Shstrndx: 2,
	})
	put(dynamic)
	b.WriteString(names)
	put(elf.Section64{})
	put(elf.Section64{Type: uint32(elf.SHT_DYNAMIC), Off: at, Size: uint64(8 * len(dynamic)), Link: 2, Entsize: 16})
	put(elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: stringsAt, Size: uint64(len(names))})
	return b.String()
}

const version = "580.65.06"

// driver is a machine with a driver, as Debian and NVIDIA's installer lay it out.
func driver(t *testing.T) Driver {
	t.Helper()
	d := Driver{Root: t.TempDir(), Version: version}
	for name, soname := range map[string]string{
		"libcuda": "libcuda.so.1", "libnvidia-ml": "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler": "libnvidia-ptxjitcompiler.so.1",
		"libnvidia-encode": "libnvidia-encode.so.1", "libnvidia-glcore": "libnvidia-glcore.so." + version, "libGLX_nvidia": "libGLX_nvidia.so.0",
	} {
		write(t, d.Root+"/usr/lib64/"+name+".so."+version, library(soname))
	}
	write(t, d.Root+"/opt/nvidia/libnvidia-nvvm.so."+version, library("libnvidia-nvvm.so.4"))
	write(t, d.Root+"/etc/ld.so.conf.d/nvidia.conf", "# added\n/opt/nvidia\ninclude x\n")
	write(t, d.Root+"/usr/lib64/libcuda.so.1", "a link in real life")
	write(t, d.Root+"/usr/bin/nvidia-smi", "#!")
	write(t, d.Root+"/lib/firmware/nvidia/"+version+"/gsp_ga10x.bin", "firmware")
	write(t, d.Root+"/lib/firmware/nvidia/1.0/gsp_ga10x.bin", "of another driver")
	for _, node := range []string{"nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps/nvidia-cap21", "nvidia-caps/nvidia-cap22", "nvidia-caps/nvidia-cap30"} {
		write(t, d.Root+"/dev/"+node, "")
	}
	caps := d.Root + "/proc/driver/nvidia/capabilities/gpu1/mig/gi3/"
	write(t, caps+"access", "DeviceFileMinor: 21\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
	write(t, caps+"ci0/access", "DeviceFileMinor: 22\n")
	return d
}

// text is edits in lines, without the root.
func text(d Driver, e Edits) string {
	var b strings.Builder
	for _, kv := range e.Env {
		fmt.Fprintln(&b, "env", kv)
	}
	for _, n := range e.DeviceNodes {
		fmt.Fprintln(&b, "node", n.Path)
	}
	for _, m := range e.Mounts {
		fmt.Fprintln(&b, "mount", strings.TrimPrefix(m.HostPath, d.Root), m.ContainerPath)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Links)) {
		fmt.Fprintln(&b, "link", name, e.Links[name])
	}
	return b.String()
}

var (
	card     = gpu.Device{UUID: "GPU-0", Vendor: gpu.NVIDIA, Minor: 0}
	instance = gpu.Device{UUID: "MIG-1", Vendor: gpu.NVIDIA, Minor: 1, Instance: &gpu.Instance{Parent: "GPU-1", Profile: "1g.5gb", GPU: 3}}
)

func TestDriverEdits(t *testing.T) {
	cases := map[string]struct {
		devices      []gpu.Device
		capabilities []string
		want         string
	}{
		"default": {devices: []gpu.Device{card}, want: `env NVIDIA_VISIBLE_DEVICES=GPU-0
env NVIDIA_DRIVER_CAPABILITIES=compute,utility
env LD_LIBRARY_PATH=/usr/local/nvidia/lib64
node /dev/nvidiactl
node /dev/nvidia-uvm
node /dev/nvidia0
node /dev/nvidia-uvm-tools
mount /usr/lib64/libnvidia-ml.so.580.65.06 /usr/local/nvidia/lib64/libnvidia-ml.so.580.65.06
mount /usr/lib64/libcuda.so.580.65.06 /usr/local/nvidia/lib64/libcuda.so.580.65.06
mount /usr/lib64/libnvidia-ptxjitcompiler.so.580.65.06 /usr/local/nvidia/lib64/libnvidia-ptxjitcompiler.so.580.65.06
mount /opt/nvidia/libnvidia-nvvm.so.580.65.06 /usr/local/nvidia/lib64/libnvidia-nvvm.so.580.65.06
mount /usr/bin/nvidia-smi /usr/bin/nvidia-smi
mount /lib/firmware/nvidia/580.65.06/gsp_ga10x.bin /lib/firmware/nvidia/580.65.06/gsp_ga10x.bin
link libcuda.so libcuda.so.580.65.06
link libcuda.so.1 libcuda.so.580.65.06
link libnvidia-ml.so.1 libnvidia-ml.so.580.65.06
link libnvidia-nvvm.so.4 libnvidia-nvvm.so.580.65.06
link libnvidia-ptxjitcompiler.so.1 libnvidia-ptxjitcompiler.so.580.65.06
`},
		"an instance, to look at": {devices: []gpu.Device{instance}, capabilities: []string{"utility"}, want: `env NVIDIA_VISIBLE_DEVICES=MIG-1
env NVIDIA_DRIVER_CAPABILITIES=utility
env LD_LIBRARY_PATH=/usr/local/nvidia/lib64
node /dev/nvidiactl
node /dev/nvidia1
node /dev/nvidia-caps/nvidia-cap21
node /dev/nvidia-caps/nvidia-cap22
node /dev/nvidia-uvm-tools
mount /usr/lib64/libnvidia-ml.so.580.65.06 /usr/local/nvidia/lib64/libnvidia-ml.so.580.65.06
mount /usr/bin/nvidia-smi /usr/bin/nvidia-smi
mount /lib/firmware/nvidia/580.65.06/gsp_ga10x.bin /lib/firmware/nvidia/580.65.06/gsp_ga10x.bin
link libnvidia-ml.so.1 libnvidia-ml.so.580.65.06
`},
		"two, graphics and video": {devices: []gpu.Device{card, instance}, capabilities: []string{"video", "graphics"}, want: `env NVIDIA_VISIBLE_DEVICES=GPU-0,MIG-1
env NVIDIA_DRIVER_CAPABILITIES=graphics,video
env LD_LIBRARY_PATH=/usr/local/nvidia/lib64
node /dev/nvidiactl
node /dev/nvidia0
node /dev/nvidia1
node /dev/nvidia-caps/nvidia-cap21
node /dev/nvidia-caps/nvidia-cap22
node /dev/nvidia-uvm-tools
node /dev/nvidia-modeset
mount /usr/lib64/libnvidia-encode.so.580.65.06 /usr/local/nvidia/lib64/libnvidia-encode.so.580.65.06
mount /usr/lib64/libnvidia-glcore.so.580.65.06 /usr/local/nvidia/lib64/libnvidia-glcore.so.580.65.06
mount /usr/lib64/libGLX_nvidia.so.580.65.06 /usr/local/nvidia/lib64/libGLX_nvidia.so.580.65.06
mount /lib/firmware/nvidia/580.65.06/gsp_ga10x.bin /lib/firmware/nvidia/580.65.06/gsp_ga10x.bin
link libGLX_indirect.so.0 libGLX_nvidia.so.580.65.06
link libGLX_nvidia.so.0 libGLX_nvidia.so.580.65.06
link libnvidia-encode.so.1 libnvidia-encode.so.580.65.06
`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := driver(t)
			e, err := d.Edits(t.Context(), c.devices, c.capabilities)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, text(d, e)); diff != "" {
				t.Errorf("Edits (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDriverRefuses(t *testing.T) {
	cases := map[string]struct {
		change func(*testing.T, *Driver)
		device gpu.Device
		want   string
	}{
		"not loaded": {func(_ *testing.T, d *Driver) { d.Version = "" }, card, "NVIDIA's driver is not loaded"},
		"no library": {func(t *testing.T, d *Driver) { remove(t, d.Root+"/usr/lib64/libcuda.so."+version) }, card, "libcuda.so.580.65.06 is not on this machine: install"},
		"another version": {func(t *testing.T, d *Driver) {
			lib := d.Root + "/usr/lib64/libnvidia-ml.so."
			if err := os.Rename(lib+version, lib+"575.57.08"); err != nil {
				t.Fatal(err)
			}
		}, card, "the driver in the kernel is 580.65.06, and its libraries on this machine are 575.57.08: load the driver"},
		"damaged":             {func(t *testing.T, d *Driver) { write(t, d.Root+"/usr/lib64/libcuda.so."+version, "no ELF") }, card, "libcuda.so.580.65.06 is damaged"},
		"name with a way out": {func(t *testing.T, d *Driver) { write(t, d.Root+"/usr/lib64/libcuda.so."+version, library("../x")) }, card, "is damaged: it has no name"},
		"no node":             {func(t *testing.T, d *Driver) { remove(t, d.Root+"/dev/nvidia-uvm") }, card, "nvidia-modprobe -u -c 0 makes it"},
		"no number":           {func(*testing.T, *Driver) {}, gpu.Device{UUID: "GPU-9", Minor: -1}, "the driver does not say its number"},
		"no such instance": {func(t *testing.T, d *Driver) {
			remove(t, d.Root+"/proc/driver/nvidia/capabilities/gpu1/mig/gi3/ci0/access")
		}, instance, "MIG instance MIG-1"},
		"instance, no device": {func(t *testing.T, d *Driver) {
			write(t, d.Root+"/proc/driver/nvidia/capabilities/gpu1/mig/gi3/access", "nothing")
		}, instance, "gi3/access names no device"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := driver(t)
			c.change(t, &d)
			if _, err := d.Edits(t.Context(), []gpu.Device{c.device}, nil); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Edits = %v, want %q", err, c.want)
			}
		})
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// After a boot nobody has made the nodes yet.
func TestNodesAreMade(t *testing.T) {
	d := driver(t)
	remove(t, d.Root+"/dev/nvidia-uvm")
	tool := d.Root + "/usr/bin/nvidia-modprobe"
	write(t, tool, "#!/bin/sh\n[ \"$*\" = '-u -c 0' ] && touch "+d.Root+"/dev/nvidia-uvm\n")
	if err := os.Chmod(tool, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Edits(t.Context(), []gpu.Device{card}, nil); err != nil {
		t.Error(err)
	}
}

func TestLibraries(t *testing.T) {
	d := driver(t)
	e, err := d.Edits(t.Context(), []gpu.Device{card}, []string{"graphics"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Prepare(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"libGLX_nvidia.so.0":             LibDir + "/libGLX_nvidia.so.0",
		"libGLX_indirect.so.0":           LibDir + "/libGLX_indirect.so.0",
		"libnvidia-glcore.so." + version: LibDir + "/libnvidia-glcore.so." + version,
	}
	if diff := cmp.Diff(want, e.Libraries()); diff != "" {
		t.Error(diff)
	}
}

func TestPrepare(t *testing.T) {
	d := driver(t)
	e, err := d.Edits(t.Context(), []gpu.Device{card}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "a", "lib")
	for range 2 { // a start that failed may have left it
		again := e
		if err := again.Prepare(dir); err != nil {
			t.Fatal(err)
		}
		if m := again.Mounts[0]; m.HostPath != dir || m.ContainerPath != LibDir {
			t.Errorf("the directory is not mounted first: %+v", m)
		}
	}
	for _, m := range e.Mounts {
		if filepath.Dir(m.ContainerPath) == LibDir {
			if _, err := os.Stat(filepath.Join(dir, filepath.Base(m.ContainerPath))); err != nil {
				t.Error(err)
			}
		}
	}
	if target, err := os.Readlink(dir + "/libcuda.so.1"); err != nil || target != "libcuda.so."+version {
		t.Errorf("libcuda.so.1 → %s, %v", target, err)
	}
}

func TestDRM(t *testing.T) {
	root := t.TempDir()
	for _, node := range []string{"dri/card0", "dri/renderD128", "dri/renderD129", "kfd"} {
		write(t, root+"/dev/"+node, "")
	}
	amd := gpu.Device{UUID: "0000:03:00.0", Vendor: gpu.AMD, DRM: []string{"card0", "renderD128"}}
	intel := gpu.Device{UUID: "0000:00:02.0", Vendor: gpu.Intel, DRM: []string{"renderD129"}}
	for name, c := range map[string]struct {
		devices []gpu.Device
		want    string
	}{
		"amd":   {[]gpu.Device{amd}, "/dev/dri/card0 /dev/dri/renderD128 /dev/kfd"},
		"intel": {[]gpu.Device{intel}, "/dev/dri/renderD129"},
	} {
		e, err := DRM(root, c.devices)
		var nodes []string
		for _, n := range e.DeviceNodes {
			nodes = append(nodes, n.Path)
		}
		if got := strings.Join(nodes, " "); err != nil || got != c.want {
			t.Errorf("%s: DRM = %s, %v; want %s", name, got, err, c.want)
		}
	}
	intel.DRM = nil
	if _, err := DRM(root, []gpu.Device{intel}); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no driver in the kernel has it") {
		t.Errorf("no driver: %v", err)
	}
	remove(t, root+"/dev/kfd")
	if _, err := DRM(root, []gpu.Device{amd}); !errors.Is(err, errs.Unavailable) {
		t.Errorf("no kfd: %v", err)
	}
}

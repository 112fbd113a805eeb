package cdi

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Files of NVIDIA's driver by what they are for, as libnvidia-container has them
// (nvc_info.c).
var libraries = []struct {
	name         string
	capabilities []string
	needed       bool     // without it there is no capability
	also         []string // other names that programs ask for
}{
	{name: "libnvidia-ml", capabilities: []string{"utility"}, needed: true},
	{name: "libnvidia-cfg", capabilities: []string{"utility"}},
	{name: "libnvidia-nscq", capabilities: []string{"utility"}},

	{name: "libcuda", capabilities: []string{"compute"}, needed: true, also: []string{"libcuda.so"}},
	{name: "libcudadebugger", capabilities: []string{"compute"}},
	{name: "libnvidia-opencl", capabilities: []string{"compute"}},
	{name: "libnvidia-gpucomp", capabilities: []string{"compute", "graphics"}},
	{name: "libnvidia-ptxjitcompiler", capabilities: []string{"compute"}},
	{name: "libnvidia-fatbinaryloader", capabilities: []string{"compute"}},
	{name: "libnvidia-allocator", capabilities: []string{"compute", "graphics"}},
	{name: "libnvidia-compiler", capabilities: []string{"compute"}},
	{name: "libnvidia-nvvm", capabilities: []string{"compute"}},
	{name: "libnvidia-nvvm70", capabilities: []string{"compute"}},
	{name: "libnvidia-pkcs11", capabilities: []string{"compute"}},
	{name: "libnvidia-pkcs11-openssl3", capabilities: []string{"compute"}},

	{name: "libnvidia-encode", capabilities: []string{"video"}},
	{name: "libnvidia-opticalflow", capabilities: []string{"video"}, also: []string{"libnvidia-opticalflow.so"}},
	{name: "libnvcuvid", capabilities: []string{"video"}},
	{name: "libvdpau_nvidia", capabilities: []string{"video"}},

	{name: "libnvidia-eglcore", capabilities: []string{"graphics"}},
	{name: "libnvidia-glcore", capabilities: []string{"graphics"}},
	{name: "libnvidia-tls", capabilities: []string{"graphics"}},
	{name: "libnvidia-glsi", capabilities: []string{"graphics"}},
	{name: "libnvidia-fbc", capabilities: []string{"graphics"}},
	{name: "libnvidia-ifr", capabilities: []string{"graphics"}},
	{name: "libnvidia-rtcore", capabilities: []string{"graphics"}},
	{name: "libnvoptix", capabilities: []string{"graphics"}},
	{name: "libnvidia-glvkspirv", capabilities: []string{"graphics"}},
	{name: "libnvidia-cbl", capabilities: []string{"graphics"}},
	{name: "libGLX_nvidia", capabilities: []string{"graphics", "display"}, also: []string{"libGLX_indirect.so.0"}},
	{name: "libEGL_nvidia", capabilities: []string{"graphics", "display"}},
	{name: "libGLESv2_nvidia", capabilities: []string{"graphics", "display"}},
	{name: "libGLESv1_CM_nvidia", capabilities: []string{"graphics", "display"}},

	{name: "libnvidia-ngx", capabilities: []string{"ngx"}},
}

var binaries = []struct {
	name         string
	capabilities []string
}{
	{"nvidia-smi", []string{"utility"}},
	{"nvidia-debugdump", []string{"utility"}},
	{"nvidia-cuda-mps-control", []string{"compute"}},
	{"nvidia-cuda-mps-server", []string{"compute"}},
}

type driverFile struct {
	path         string
	capabilities []string
}

// files are others: what the GPU runs itself, and how GL and Vulkan find the driver.
func (d Driver) files() []driverFile {
	either := []string{"compute", "graphics", "utility", "video", "display", "ngx"}
	all := []driverFile{
		{"/run/nvidia-persistenced/socket", either},
		{"/usr/share/glvnd/egl_vendor.d/10_nvidia.json", []string{"graphics", "display"}},
		{"/usr/share/vulkan/icd.d/nvidia_icd.json", []string{"graphics"}},
		{"/etc/vulkan/icd.d/nvidia_icd.json", []string{"graphics"}},
		{"/usr/share/vulkan/implicit_layer.d/nvidia_layers.json", []string{"graphics"}},
		{"/etc/vulkan/implicit_layer.d/nvidia_layers.json", []string{"graphics"}},
	}
	for _, name := range []string{"gsp_ga10x.bin", "gsp_tu10x.bin"} {
		all = append(all, driverFile{"/lib/firmware/nvidia/" + d.Version + "/" + name, either})
	}
	return all
}

// libDirs are the directories that libraries may be in: where distributions put
// them, and what /etc/ld.so.conf says.
func (d Driver) libDirs() []string {
	triple := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	var dirs []string
	for _, dir := range slices.Concat([]string{
		"/usr/lib/" + triple, "/usr/lib/" + triple + "/nvidia/current", "/usr/lib64", "/usr/lib64/nvidia", "/usr/lib", "/usr/lib/nvidia",
		"/lib/" + triple, "/lib64", "/lib", "/usr/local/lib", "/run/opengl-driver/lib",
	}, d.configured()) {
		if at := d.at(dir); !slices.Contains(dirs, at) {
			dirs = append(dirs, at)
		}
	}
	return dirs
}

// configured are the directories that ld.so.conf and the files beside it name.
func (d Driver) configured() (dirs []string) {
	files, _ := filepath.Glob(d.at("/etc/ld.so.conf.d/*.conf")) // the pattern is good
	for _, file := range append([]string{d.at("/etc/ld.so.conf")}, files...) {
		f, err := os.Open(file)
		if err != nil {
			continue // the usual directories are looked at anyway
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if dir := strings.TrimSpace(lines.Text()); strings.HasPrefix(dir, "/") {
				dirs = append(dirs, dir)
			}
		}
		f.Close()
	}
	return dirs
}

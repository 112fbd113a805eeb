package pxe

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// loaders are the builds of iPXE, all found in "ipxe/". undionly and snponly
// use the driver that the firmware has for the NIC that it boots from, so they
// work with each NIC that can be booted from at all.
var loaders = []string{"undionly.kpxe", "snponly.efi", "ipxe.efi", "snponly-arm64.efi"}

// kernels are for each architecture what iPXE loads.
var kernels = []string{"vmlinuz", "initrd.img"}

// files is a directory with ARCH/vmlinuz, ARCH/initrd.img and ipxe/. It may hold
// other files: nothing is given away but what is known by name.
type files struct{ dir string }

// check says what cannot be booted at all.
func (f files) check() error {
	for _, arch := range []string{"amd64", "arm64"} {
		if f.has(arch+"/vmlinuz") && f.has(arch+"/initrd.img") {
			return nil
		}
	}
	return errs.E(errs.NotFound, "there is no amd64/vmlinuz with its initrd.img in %s, and none for arm64: \"make boot\" makes them", f.dir)
}

// path is the file of a name as clients have it. Slashes in front, and
// backslashes, are some firmware's habit.
func (f files) path(name string) (path string, ok bool) {
	name = strings.TrimLeft(strings.ReplaceAll(name, `\`, "/"), "/")
	if slices.Contains(loaders, name) {
		return filepath.Join(f.dir, "ipxe", name), true
	}
	arch, file, _ := strings.Cut(name, "/")
	if (arch == "amd64" || arch == "arm64") && slices.Contains(kernels, file) {
		return filepath.Join(f.dir, arch, file), true
	}
	return "", false
}

func (f files) has(name string) bool {
	path, ok := f.path(name)
	if !ok {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// open gives a file and its size.
func (f files) open(name string) (*os.File, fs.FileInfo, error) {
	path, ok := f.path(name)
	if !ok {
		return nil, nil, errs.E(errs.NotFound, "there is no file %.100q", name)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errs.E(errs.NotFound, "%s is no file", path)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

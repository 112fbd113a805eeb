package cdi

import (
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/internal/errs"
)

// LibDir is where containers see the libraries of NVIDIA's driver. CUDA's images
// have it in LD_LIBRARY_PATH and in ld.so.conf.d for that.
const LibDir = "/usr/local/nvidia/lib64"

// Driver is NVIDIA's driver on this machine.
type Driver struct {
	Root    string // where the machine's files are; empty: /
	Version string // of the kernel module
}

// Edits are what a container needs for devices of the driver.
type Edits struct {
	specs.ContainerEdits
	// Links are symbolic links in LibDir. It is a directory that is made for the
	// container, so that nothing has to be made in its image; see Prepare.
	Links map[string]string
}

// Libraries are those in LibDir by the names that programs ask for, with their paths.
func (e Edits) Libraries() map[string]string {
	all := map[string]string{}
	for name := range e.Links {
		all[name] = LibDir + "/" + name
	}
	for _, m := range e.Mounts {
		if name := path.Base(m.ContainerPath); path.Dir(m.ContainerPath) == LibDir && !slices.Contains(slices.Collect(maps.Values(e.Links)), name) {
			all[name] = m.ContainerPath
		}
	}
	return all
}

// Edits are what devices need, with what the driver's capabilities need of
// files. No hook is needed: see Libraries, and LD_LIBRARY_PATH. Nodes that
// are not there yet are made, as the driver's own programs do at their first
// start. Unavailable: the driver is not here as a whole.
func (d Driver) Edits(ctx context.Context, devices []gpu.Device, capabilities []string) (Edits, error) {
	var e Edits
	c := expand(capabilities)
	if err := d.nodes(ctx, &e, devices, c); err != nil {
		return e, err
	}
	if err := d.libraries(&e, c); err != nil {
		return e, err
	}
	for _, b := range binaries {
		if c.any(b.capabilities) {
			d.mountFile(&e, "/usr/bin/"+b.name, "/usr/bin/"+b.name)
		}
	}
	for _, f := range d.files() {
		if c.any(f.capabilities) {
			d.mountFile(&e, f.path, f.path)
		}
	}
	var uuids []string
	for _, dev := range devices {
		uuids = append(uuids, dev.UUID)
	}
	e.Env = append(e.Env, "NVIDIA_VISIBLE_DEVICES="+strings.Join(uuids, ","), "NVIDIA_DRIVER_CAPABILITIES="+c.String(), "LD_LIBRARY_PATH="+LibDir)
	return e, nil
}

// capabilities of the driver.
type capabilities []string

// expand is what a list of capabilities means: nothing is utility and compute,
// as the container toolkit has it.
func expand(list []string) capabilities {
	every := capabilities{"compute", "display", "graphics", "ngx", "utility", "video"}
	switch {
	case len(list) == 0:
		return capabilities{"compute", "utility"}
	case slices.Contains(list, "all"):
		return every
	}
	return slices.DeleteFunc(every, func(c string) bool { return !slices.Contains(list, c) })
}

func (c capabilities) String() string { return strings.Join(c, ",") }

func (c capabilities) any(of []string) bool {
	return slices.ContainsFunc(of, func(one string) bool { return slices.Contains(c, one) })
}

// nodes adds the device nodes.
func (d Driver) nodes(ctx context.Context, e *Edits, devices []gpu.Device, c capabilities) error {
	need := []string{"/dev/nvidiactl"}
	if c.any([]string{"compute"}) {
		need = append(need, "/dev/nvidia-uvm")
	}
	for _, dev := range devices {
		if dev.Minor < 0 {
			return errs.E(errs.Unavailable, "GPU %s has no device node: the driver does not say its number", dev)
		}
		node := fmt.Sprintf("/dev/nvidia%d", dev.Minor)
		if !slices.Contains(need, node) { // two instances have one
			need = append(need, node)
		}
		if dev.Instance == nil {
			continue
		}
		caps, err := d.instance(dev)
		if err != nil {
			return err
		}
		need = append(need, caps...)
	}
	if slices.ContainsFunc(need, func(node string) bool { return !d.has(node) }) {
		d.makeNodes(ctx)
	}
	for _, node := range need {
		if err := d.device(e, node); err != nil {
			return errs.E(errs.Unavailable, "the driver has made no %w: nvidia-modprobe -u -c 0 makes it", err)
		}
	}
	maybe := []string{"/dev/nvidia-uvm-tools"}
	if c.any([]string{"graphics", "display"}) {
		maybe = append(maybe, "/dev/nvidia-modeset")
	}
	for _, node := range maybe {
		if d.has(node) {
			if err := d.device(e, node); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d Driver) has(node string) bool {
	_, err := os.Stat(d.at(node))
	return err == nil
}

// makeTime bounds what makes nodes: it loads modules of the kernel.
const makeTime = 20 * time.Second

// makeNodes loads the part of the driver that computes, and makes the nodes.
// Whether it could is seen by the nodes.
func (d Driver) makeNodes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	c := exec.CommandContext(ctx, d.at("/usr/bin/nvidia-modprobe"), "-u", "-c", "0")
	c.WaitDelay = time.Second
	_ = c.Run()
}

// device adds a node of the machine.
func (d Driver) device(e *Edits, node string) error {
	if _, err := os.Stat(d.at(node)); err != nil {
		return err
	}
	n := &specs.DeviceNode{Path: node}
	if d.Root != "" {
		n.HostPath = d.at(node)
	}
	e.DeviceNodes = append(e.DeviceNodes, n)
	return nil
}

// instance are the nodes that let a MIG instance be used.
func (d Driver) instance(dev gpu.Device) (nodes []string, err error) {
	gi := fmt.Sprintf("/proc/driver/nvidia/capabilities/gpu%d/mig/gi%d", dev.Minor, dev.Instance.GPU)
	for _, file := range []string{gi + "/access", fmt.Sprintf("%s/ci%d/access", gi, dev.Instance.Compute)} {
		raw, err := os.ReadFile(d.at(file))
		if err != nil {
			return nil, errs.E(errs.Unavailable, "MIG instance %s: %w", dev, err)
		}
		minor := -1
		for line := range strings.Lines(string(raw)) {
			if n, err := fmt.Sscanf(line, "DeviceFileMinor: %d", &minor); n == 1 && err == nil {
				break
			}
		}
		if minor < 0 {
			return nil, errs.E(errs.Unavailable, "MIG instance %s: %s names no device", dev, file)
		}
		nodes = append(nodes, fmt.Sprintf("/dev/nvidia-caps/nvidia-cap%d", minor))
	}
	return nodes, nil
}

// mountFile adds a file of the driver, if it is there.
func (d Driver) mountFile(e *Edits, from, to string) {
	if st, err := os.Stat(d.at(from)); err == nil && (st.Mode().IsRegular() || st.Mode()&fs.ModeSocket != 0) {
		e.Mounts = append(e.Mounts, &specs.Mount{HostPath: d.at(from), ContainerPath: to, Options: []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}})
	}
}

// at is where a path of the machine is.
func (d Driver) at(p string) string { return path.Join("/", d.Root, p) }

// libraries adds those of the driver's version.
func (d Driver) libraries(e *Edits, c capabilities) error {
	e.Links = map[string]string{}
	dirs := d.libDirs()
	for _, l := range libraries {
		if !c.any(l.capabilities) {
			continue
		}
		file := l.name + ".so." + d.Version
		dir := d.find(dirs, file)
		if dir == "" {
			if l.needed {
				return d.without(dirs, l.name)
			}
			continue
		}
		soname, err := soname(filepath.Join(dir, file))
		if err != nil {
			return errs.E(errs.Unavailable, "the driver's library %s is damaged: %w", filepath.Join(dir, file), err)
		}
		e.Mounts = append(e.Mounts, &specs.Mount{
			HostPath: filepath.Join(dir, file), ContainerPath: LibDir + "/" + file, Options: []string{"ro", "nosuid", "nodev", "rbind", "rprivate"},
		})
		if soname != file {
			e.Links[soname] = file
		}
		for _, also := range l.also {
			e.Links[also] = file
		}
	}
	return nil
}

// without says why a library that is needed is not there.
func (d Driver) without(dirs []string, name string) error {
	if d.Version == "" {
		return errs.E(errs.Unavailable, "NVIDIA's driver is not loaded on this machine")
	}
	for _, dir := range dirs {
		others, _ := filepath.Glob(filepath.Join(dir, name+".so.*.*")) // the pattern is good
		if len(others) > 0 {
			return errs.E(errs.Unavailable, "the driver in the kernel is %s, and its libraries on this machine are %s: load the driver that belongs to them, which a reboot does",
				d.Version, strings.TrimPrefix(filepath.Base(others[0]), name+".so."))
		}
	}
	return errs.E(errs.Unavailable, "the driver in the kernel is %s, and its library %s.so.%s is not on this machine: install the driver's libraries of that version", d.Version, name, d.Version)
}

// find is the directory that has a file.
func (d Driver) find(dirs []string, file string) string {
	i := slices.IndexFunc(dirs, func(dir string) bool {
		st, err := os.Stat(filepath.Join(dir, file))
		return err == nil && st.Mode().IsRegular()
	})
	if i < 0 {
		return ""
	}
	return dirs[i]
}

// soname is the name by which programs ask for a library.
func soname(file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil {
		return "", err
	}
	if len(names) != 1 || names[0] != filepath.Base(names[0]) || names[0] == "." || names[0] == ".." {
		return "", fmt.Errorf("it has no name (SONAME)")
	}
	return names[0], nil
}

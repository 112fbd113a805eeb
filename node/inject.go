package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/gpu/cdi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// inject adds to what runs what the container's GPUs and devices of CDI need.
func (n *Node) inject(ctx context.Context, b *box, run *container.Spec) error {
	holds := get(b, func() []gpu.Hold { return b.gpus })
	if len(holds) == 0 && len(b.spec.CDI) == 0 {
		return nil
	}
	m, err := n.machine(ctx)
	if err != nil {
		return err
	}
	described := cdi.Read(n.cfg.CDIDirs)
	for _, bad := range described.Trouble() {
		n.cfg.Log.Warn("devices cannot be asked for by name", "error", bad)
	}
	gpus := b.spec.gpuNames(m)
	names := slices.DeleteFunc(slices.Clone(b.spec.CDI), func(name string) bool { return slices.Contains(gpus, name) })
	var nvidia, others []gpu.Device
	for _, h := range holds {
		d, err := m.Find(h)
		if err != nil {
			return err
		}
		switch name := describedAs(described, d); {
		case name != "":
			names = append(names, name)
		case d.Vendor == gpu.NVIDIA:
			nvidia = append(nvidia, d)
		default:
			others = append(others, d)
		}
	}
	all, err := described.Edits(names)
	if err == nil {
		err = complete(all, names)
	}
	if err == nil && len(nvidia) > 0 {
		err = n.injectNVIDIA(ctx, b, m, nvidia, run)
	}
	if err == nil && len(others) > 0 {
		var e specs.ContainerEdits
		if e, err = cdi.DRM(n.cfg.GPURoot, others); err == nil {
			edit(run, e)
		}
	}
	if err == nil {
		edit(run, all)
	}
	return err
}

// describedAs is the name that a spec on this machine has for a GPU, by its UUID
// or, where that means the same node today, its index; "": none has.
func describedAs(described *cdi.Specs, d gpu.Device) string {
	kind := d.Vendor + ".com/gpu="
	if described.Has(kind + d.UUID) {
		return kind + d.UUID
	}
	name := kind + strconv.Itoa(d.Index)
	if d.Instance != nil || !described.Has(name) {
		return ""
	}
	e, err := described.Edits([]string{name})
	node := fmt.Sprintf("/dev/nvidia%d", d.Minor)
	if err != nil || !slices.ContainsFunc(e.DeviceNodes, func(n *specs.DeviceNode) bool { return n.Path == node }) {
		return ""
	}
	return name
}

// complete says what of edits is not on this machine.
func complete(e specs.ContainerEdits, names []string) error {
	var files []string
	for _, d := range e.DeviceNodes {
		files = append(files, cmp.Or(d.HostPath, d.Path))
	}
	for _, m := range e.Mounts {
		files = append(files, m.HostPath)
	}
	for _, h := range e.Hooks {
		files = append(files, h.Path)
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return errs.E(errs.Unavailable, "the CDI spec of %s is out of date: %w; have it made again", strings.Join(names, " and "), err)
		}
	}
	return nil
}

// injectNVIDIA adds what GPUs of NVIDIA need that no spec describes.
func (n *Node) injectNVIDIA(ctx context.Context, b *box, m gpu.Machine, devices []gpu.Device, run *container.Spec) error {
	if err := cdi.Require(run.Env, m.CUDA, m.Driver); err != nil {
		return err
	}
	var capabilities []string
	if b.spec.GPUs != nil {
		capabilities = b.spec.GPUs.Capabilities
	}
	if len(capabilities) == 0 {
		capabilities = strings.FieldsFunc(variable(run.Env, "NVIDIA_DRIVER_CAPABILITIES"), func(r rune) bool { return r == ',' })
	}
	e, err := cdi.Driver{Root: n.cfg.GPURoot, Version: m.Driver}.Edits(ctx, devices, capabilities)
	if err != nil {
		return err
	}
	if err := e.Prepare(filepath.Join(n.runDir(b.name), "nvidia")); err != nil {
		return noSpace(err)
	}
	edit(run, e.ContainerEdits)
	run.Libraries = e.Libraries()
	return nil
}

// edit makes edits. What the container asks for itself at a place stays there.
func edit(run *container.Spec, e specs.ContainerEdits) {
	for _, kv := range e.Env {
		const libraries = "LD_LIBRARY_PATH"
		if k, v, _ := strings.Cut(kv, "="); k == libraries {
			kv = libraries + "=" + inPath(variable(run.Env, libraries), v)
		}
		run.Env = mergeEnv(run.Env, []string{kv})
	}
	run.Devices, run.Mounts = slices.Clip(run.Devices), slices.Clip(run.Mounts)
	for _, d := range e.DeviceNodes {
		if slices.ContainsFunc(run.Devices, func(o container.Device) bool { return cmp.Or(o.Target, o.Path) == d.Path }) {
			continue
		}
		run.Devices = append(run.Devices, container.Device{
			Path: cmp.Or(d.HostPath, d.Path), Target: d.Path, Permissions: d.Permissions, Mode: d.FileMode, UID: d.UID, GID: d.GID,
		})
	}
	for _, m := range e.Mounts {
		if slices.ContainsFunc(run.Mounts, func(o container.Mount) bool { return path.Clean(o.Target) == path.Clean(m.ContainerPath) }) {
			continue
		}
		run.Mounts = append(run.Mounts, container.Mount{Type: container.Bind, Source: m.HostPath, Target: m.ContainerPath, Options: m.Options})
	}
	for _, h := range e.Hooks {
		hook := container.Hook{When: h.HookName, Path: h.Path, Args: h.Args, Env: h.Env}
		if h.Timeout != nil {
			hook.Timeout = *h.Timeout
		}
		run.Hooks = append(run.Hooks, hook)
	}
	for _, g := range e.AdditionalGIDs {
		if g != 0 && !slices.Contains(run.Groups, g) {
			run.Groups = append(run.Groups, g)
		}
	}
}

// variable is the value of an environment variable.
func variable(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// inPath is a search path with dir in it, first if it is not there yet.
func inPath(search, dir string) string {
	switch {
	case search == "":
		return dir
	case slices.Contains(strings.Split(search, ":"), dir):
		return search
	}
	return dir + ":" + search
}

package cdi

import (
	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/internal/errs"
)

// DRM is what a container needs for GPUs that are used by way of the kernel's
// own interface: their nodes below /dev/dri, and of AMD's the one for computing.
// The libraries are the image's. root is where the machine's files are, "" is /.
func DRM(root string, devices []gpu.Device) (specs.ContainerEdits, error) {
	var e Edits
	d := Driver{Root: root}
	amd := false
	for _, dev := range devices {
		if len(dev.DRM) == 0 {
			return e.ContainerEdits, errs.E(errs.Unavailable, "GPU %s has no node below /dev/dri: no driver in the kernel has it", dev)
		}
		for _, node := range dev.DRM {
			if err := d.device(&e, "/dev/dri/"+node); err != nil {
				return e.ContainerEdits, errs.E(errs.Unavailable, "GPU %s: %w", dev, err)
			}
		}
		amd = amd || dev.Vendor == gpu.AMD
	}
	if !amd {
		return e.ContainerEdits, nil
	}
	if err := d.device(&e, "/dev/kfd"); err != nil {
		return e.ContainerEdits, errs.E(errs.Unavailable, "AMD's driver for computing is not loaded: %w", err)
	}
	return e.ContainerEdits, nil
}

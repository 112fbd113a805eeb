package manifest

import (
	"strconv"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// composeDevice is a reservation of graphics cards.
type composeDevice struct {
	Driver       string     `json:"driver" oneof:"nvidia,amd,cdi"`
	Count        word       `json:"count"`
	IDs          words      `json:"device_ids"`
	Capabilities words      `json:"capabilities"`
	Options      composeAny `json:"options"`
}

// composeGPUs are those that a service has besides.
type composeGPUs []composeDevice

func (g *composeGPUs) decode(d *decoder, n *node, path string) {
	if n.kind == text {
		d.problem(path, "is %q; it must be a list with a count: a host keeps as many free as a replica has", brief(n.text))
		return
	}
	d.into((*[]composeDevice)(g), n, path)
}

// reserve adds devices to what replicas have.
func (g composeGPUs) reserve(d *decoder, out *app.Spec, path string) {
	c := &out.Container
	for i, dev := range g {
		at := index(path, i)
		if dev.Driver == "cdi" {
			for _, id := range dev.IDs {
				c.Devices = append(c.Devices, buoy.Device{Path: id})
			}
			if len(dev.IDs) == 0 || dev.Count != "" {
				d.problem(at, "must have device_ids, and no count: they are the names of devices that CDI specs describe")
			}
			continue
		}
		n, err := strconv.ParseUint(string(dev.Count), 10, 8)
		named := len(dev.IDs) > 0
		switch {
		case named == (dev.Count != ""):
			d.problem(at, "must have a count, or device_ids")
		case !named && err != nil:
			d.problem(below(at, "count"), "is %q; it must be a number: a host keeps as many free as a replica has", brief(string(dev.Count)))
		case len(g) > 1 || c.GPUs != nil || out.GPUs > 0:
			d.problem(at, "is one of several: keep one")
		}
		out.GPUs = int(n) + len(dev.IDs)
		which := buoy.GPURequest{Vendor: dev.Driver, Devices: strs(dev.IDs)}
		for _, one := range dev.Capabilities {
			if one != "gpu" && one != "nvidia" {
				which.Capabilities = append(which.Capabilities, one)
			}
		}
		if which.Vendor != "" || named || which.Capabilities != nil {
			which.Count = int(n)
			c.GPUs = &which
		}
	}
}

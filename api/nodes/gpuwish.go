package nodes

import (
	"bytes"
	"encoding/json"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/gpu/cdi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node"
)

// gpuWish is what a container asks for of GPUs: their number, "all", or an object.
type gpuWish struct {
	gpuFields
	none bool // the number was 0
}

type gpuFields struct {
	Count        gpuCount `json:"count"`
	Devices      []string `json:"devices"`
	Vendor       string   `json:"vendor"`
	Model        string   `json:"model"`
	Memory       size     `json:"memory"`
	Profile      string   `json:"profile"`
	Slices       int      `json:"slices"`
	Share        size     `json:"share"`
	Capabilities []string `json:"capabilities"`
}

// Expect implements api.Expecter.
func (gpuWish) Expect() string { return `a number of GPUs, "all" or an object` }

// UnmarshalJSON implements json.Unmarshaler.
func (g *gpuWish) UnmarshalJSON(raw []byte) error {
	if raw[0] == '{' {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		return d.Decode(&g.gpuFields)
	}
	if raw[0] == '[' || raw[0] == 't' || raw[0] == 'f' {
		return wrongType(raw, *g)
	}
	if err := g.Count.UnmarshalJSON(raw); err != nil {
		return wrongType(raw, *g)
	}
	g.none = g.Count == 0
	return nil
}

// gpuCount is a number of GPUs, or "all".
type gpuCount int

// Expect implements api.Expecter.
func (gpuCount) Expect() string { return `a whole number or "all"` }

// UnmarshalJSON implements json.Unmarshaler.
func (c *gpuCount) UnmarshalJSON(raw []byte) error {
	if string(raw) == `"all"` {
		*c = gpu.All
		return nil
	}
	var n int
	if json.Unmarshal(raw, &n) != nil {
		return wrongType(raw, *c)
	}
	*c = gpuCount(n)
	return nil
}

func gpusIn(g *gpuWish) (*gpu.Wish, error) {
	if g == nil || g.none {
		return nil, nil
	}
	w := &gpu.Wish{
		Count: int(g.Count), Devices: g.Devices, Vendor: g.Vendor, Model: g.Model, Memory: int64(g.Memory), Profile: g.Profile,
		Slices: g.Slices, Share: int64(g.Share), Capabilities: g.Capabilities,
	}
	return w, w.Validate()
}

// devicesIn are the device nodes, and those that a spec of CDI describes.
func devicesIn(all []device, s *node.Spec) error {
	for _, d := range all {
		if !cdi.Qualified(d.Path) {
			s.Run.Devices = append(s.Run.Devices, container.Device{Path: d.Path, Target: d.Target, Permissions: d.Permissions})
			continue
		}
		if d.Target != "" || d.Permissions != "" {
			return errs.E(errs.Invalid, "field \"devices\": %s is described by a CDI spec, which says its target and permissions, too", d.Path)
		}
		s.CDI = append(s.CDI, d.Path)
	}
	return nil
}

// gpuHold is a GPU that a container has.
type gpuHold struct {
	UUID   string `json:"uuid"`
	PCI    string `json:"pci,omitempty"`
	Model  string `json:"model,omitempty"`
	Slices int    `json:"slices,omitempty"` // it takes turns with so many
	Share  int64  `json:"share,omitempty"`  // bytes of its memory
}

func gpuHoldOut(h gpu.Hold) gpuHold { return gpuHold(h) }

package gpu

import (
	"cmp"
	"slices"
)

// kernelView is what is known of GPUs without the driver's library.
type kernelView struct {
	Devices []Device
	Links   []Link
	Driver  string // version of the NVIDIA module
	Loaded  bool   // there is one
}

// merge is the machine as the kernel and the driver's library show it together.
// nv is nil if the library says nothing, for the reason trouble. What was there
// before and is not seen any more is lost, and stays so until it is seen again.
func merge(k kernelView, nv *Machine, trouble string, was []Device) Machine {
	m := Machine{Driver: k.Driver, Trouble: trouble, Links: k.Links}
	seen := map[string]bool{} // UUIDs and PCI addresses
	if nv != nil {
		m.Driver, m.CUDA = cmp.Or(nv.Driver, k.Driver), nv.CUDA
		for _, d := range nv.Devices {
			d = complete(d, k.Devices, was)
			if d.UUID != "" && !seen[d.UUID] {
				m.Devices = append(m.Devices, d)
				seen[d.UUID] = true
				seen[d.PCI] = d.Instance == nil || seen[d.PCI]
			}
		}
		m.Links = relink(k, nv, m.Devices)
	}
	for _, d := range k.Devices {
		if seen[d.PCI] {
			continue
		}
		if d.Vendor == NVIDIA {
			d = unseen(d, k, nv != nil, trouble, find(was, func(o Device) bool {
				return o.PCI == d.PCI && o.Instance == nil && (d.UUID == d.PCI || d.UUID == o.UUID)
			}))
		}
		m.Devices = append(m.Devices, d)
		seen[d.UUID], seen[d.PCI] = true, true
	}
	for _, old := range was {
		parent := old.Instance
		switch {
		case seen[old.UUID], parent == nil && seen[old.PCI]:
		case parent != nil && nv != nil && !lost(m.Devices, parent.Parent):
			// Somebody has removed the instance; its GPU is there.
		case nv == nil && trouble != "" && seen[old.PCI]:
			old.Broken = cmp.Or(old.Broken, trouble) // it is there, as far as anybody knows
			m.Devices = append(m.Devices, old)
		default:
			if !old.Lost {
				old.Broken, old.Lost = gone, true
			}
			m.Devices = append(m.Devices, old)
		}
	}
	slices.SortStableFunc(m.Devices, func(a, b Device) int {
		return cmp.Or(cmp.Compare(uint(a.Index), uint(b.Index)), cmp.Compare(a.PCI, b.PCI)) // those without an index last
	})
	return m
}

// complete is a device of the library with what the kernel knows of it, and
// with what was known before if the driver says nothing any more.
func complete(d Device, kernel, was []Device) Device {
	if d.UUID == "" {
		old := find(was, func(o Device) bool {
			return o.Instance == nil && (o.PCI == d.PCI || d.PCI == "" && o.Index == d.Index && o.Vendor == NVIDIA)
		})
		if old == nil {
			return d
		}
		broken, lost := d.Broken, d.Lost
		d = *old
		d.Broken, d.Lost = broken, lost
	}
	k := find(kernel, func(k Device) bool { return k.PCI == d.PCI || k.UUID == d.UUID })
	switch old := find(was, func(o Device) bool { return o.UUID == d.UUID }); {
	case k != nil:
		d.PCI, d.Kernel, d.DRM = k.PCI, k.Kernel, k.DRM
		if d.NUMANode < 0 {
			d.NUMANode = k.NUMANode
		}
		if d.Minor < 0 {
			d.Minor = k.Minor
		}
		d.Model = cmp.Or(d.Model, k.Model)
	case old != nil && old.Kernel != "":
		d.Kernel, d.Broken, d.Lost = old.Kernel, gone, true
	}
	return d
}

// gone is why a GPU is lost that the kernel does not see.
const gone = "it is not on the PCI bus any more"

// unseen is a GPU of NVIDIA's that the driver's library does not show, with the
// reason. old is what was known of it, or nil.
func unseen(d Device, k kernelView, answers bool, trouble string, old *Device) Device {
	driven := old != nil && old.Index >= 0 // the driver had it
	if driven {
		now := d
		d = *old
		d.Kernel, d.DRM, d.Broken, d.Lost = now.Kernel, now.DRM, now.Broken, false
	}
	switch {
	case d.Broken != "": // the module says why
	case d.Kernel != "nvidia" && d.Kernel != "":
		d.Broken, d.Lost = "the kernel's driver "+d.Kernel+" has it, not NVIDIA's", driven
	case !k.Loaded:
		d.Broken, d.Lost = "the NVIDIA driver is not loaded: install it, or modprobe nvidia", driven
	case !answers:
		d.Broken = cmp.Or(trouble, "the NVIDIA driver has not told of it yet")
		d.Lost = old != nil && old.Lost
	case driven:
		d.Broken, d.Lost = "the NVIDIA driver does not see it any more", true
	default:
		d.Broken = "the NVIDIA driver does not show it; dmesg may say why"
	}
	return d
}

// relink takes the library's links, and the kernel's between what the library
// does not know.
func relink(k kernelView, nv *Machine, all []Device) []Link {
	links := slices.Clone(nv.Links)
	type pair struct{ a, b string }
	have := map[pair]bool{}
	for _, l := range links {
		have[pair{l.A, l.B}], have[pair{l.B, l.A}] = true, true
	}
	uuid := map[string]string{} // by the kernel's
	for _, d := range k.Devices {
		if now := find(all, func(o Device) bool { return o.PCI == d.PCI && o.Instance == nil }); now != nil {
			uuid[d.UUID] = now.UUID
		}
	}
	for _, l := range k.Links {
		l.A, l.B = cmp.Or(uuid[l.A], l.A), cmp.Or(uuid[l.B], l.B)
		if !have[pair{l.A, l.B}] {
			links = append(links, l)
		}
	}
	return links
}

func lost(all []Device, uuid string) bool {
	d := find(all, func(d Device) bool { return d.UUID == uuid })
	return d == nil || d.Lost
}

func find(all []Device, is func(Device) bool) *Device {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return &all[i]
	}
	return nil
}

// ChangeKind is what became of a GPU.
type ChangeKind int

// The kinds.
const (
	Lost      ChangeKind = iota // it fell off the bus
	Recovered                   // it is back
	Failed                      // the driver told an error of it
)

// Change is something that happened to a GPU.
type Change struct {
	Kind   ChangeKind
	Device Device
	XID    XID // of Failed
}

// changes are what became of the GPUs from one look to the next.
func changes(was, now []Device) (all []Change) {
	for _, d := range now {
		old := find(was, func(o Device) bool { return o.UUID == d.UUID })
		before := old != nil && old.Lost
		switch {
		case d.Lost && !before:
			all = append(all, Change{Kind: Lost, Device: d})
		case !d.Lost && before && d.Broken == "":
			all = append(all, Change{Kind: Recovered, Device: d})
		}
	}
	return all
}

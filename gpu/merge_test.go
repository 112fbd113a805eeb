package gpu

import (
	"testing"
)

// TestMerge goes through what can become of one GPU, seen by the kernel and by
// the library, and known before.
func TestMerge(t *testing.T) {
	const pci = "0000:3b:00.0"
	kernel := Device{UUID: pci, Index: -1, Vendor: NVIDIA, Model: "by id", PCI: pci, NUMANode: 1, Minor: -1, Kernel: "nvidia", DRM: []string{"card0"}}
	with := func(d Device, change func(*Device)) Device { change(&d); return d }
	k := func(d ...Device) kernelView { return kernelView{Devices: d, Driver: "550", Loaded: true} }
	lib := Device{UUID: gpu0, Index: 0, Vendor: NVIDIA, Model: "A100", PCI: pci, NUMANode: -1, Memory: 40, Minor: 0}
	known := with(lib, func(d *Device) { d.NUMANode, d.Kernel, d.DRM = 1, "nvidia", []string{"card0"} })
	lost := with(known, func(d *Device) { d.Broken, d.Lost = "it is lost", true })
	part := with(known, func(d *Device) { d.UUID, d.Instance = "MIG-1", &Instance{Parent: gpu0} })
	nv := func(d ...Device) *Machine { return &Machine{Driver: "550.54", CUDA: "12.4", Devices: d} }
	other := Device{UUID: "0000:04:00.0", Index: -1, Vendor: AMD, PCI: "0000:04:00.0", Kernel: "amdgpu"}

	for _, c := range []struct {
		name    string
		k       kernelView
		nv      *Machine
		trouble string
		was     []Device
		uuid    string // of the one that there is then; "": none
		broken  string
		lost    bool
	}{
		{"at first, before the driver has told", k(kernel), nil, "", nil, pci, "the NVIDIA driver has not told of it yet", false},
		{"the driver tells", k(kernel), nv(lib), "", []Device{kernel}, gpu0, "", false},
		{"again", k(kernel), nv(lib), "", []Device{known}, gpu0, "", false},
		{"the driver does not answer", k(kernel), nil, "no answer", []Device{known}, gpu0, "no answer", false},
		{"nor to somebody new", k(kernel), nil, "no answer", nil, pci, "no answer", false},
		{"a lost one stays lost meanwhile", k(kernel), nil, "no answer", []Device{lost}, gpu0, "no answer", true},
		{"lost, says the driver", k(kernel), nv(with(lib, func(d *Device) { d.Broken, d.Lost = "off", true })), "", []Device{known}, gpu0, "off", true},
		{"lost, and has no UUID any more", k(kernel), nv(Device{Index: 0, Vendor: NVIDIA, Broken: "off", Lost: true}), "", []Device{known}, gpu0, "off", true},
		{"lost and never known", k(kernel), nv(Device{Index: 0, Vendor: NVIDIA, Broken: "off", Lost: true}), "", []Device{kernel}, pci, "the NVIDIA driver does not show it; dmesg may say why", false},
		{"the driver lists it no more", k(kernel), nv(), "", []Device{known}, gpu0, "the NVIDIA driver does not see it any more", true},
		{"the driver never listed it", k(kernel), nv(), "", nil, pci, "the NVIDIA driver does not show it; dmesg may say why", false},
		{"back", k(kernel), nv(lib), "", []Device{lost}, gpu0, "", false},
		{"gone from PCI, the driver has not noticed", k(), nv(lib), "", []Device{known}, gpu0, gone, true},
		{"gone from PCI and driver", k(), nv(), "", []Device{known}, gpu0, gone, true},
		{"gone from PCI, the driver does not answer", k(), nil, "no answer", []Device{known}, gpu0, gone, true},
		{"lost first, then gone", k(), nv(), "", []Device{lost}, gpu0, "it is lost", true},
		{"never driven and gone", kernelView{}, nil, "", []Device{kernel}, pci, gone, true},
		{"given to a virtual machine", k(with(kernel, func(d *Device) { d.Kernel = "vfio-pci" })), nv(), "", []Device{known}, gpu0, "the kernel's driver vfio-pci has it, not NVIDIA's", true},
		{"with nouveau", kernelView{Devices: []Device{with(kernel, func(d *Device) { d.Kernel = "nouveau" })}}, nil, "", nil, pci, "the kernel's driver nouveau has it, not NVIDIA's", false},
		{"no driver", kernelView{Devices: []Device{with(kernel, func(d *Device) { d.Kernel = "" })}}, nil, "", nil, pci, "the NVIDIA driver is not loaded: install it, or modprobe nvidia", false},
		{"excluded", k(with(kernel, func(d *Device) { d.Broken = "excluded" })), nv(), "", nil, pci, "excluded", false},
		{"another card at its place", k(with(kernel, func(d *Device) { d.UUID = gpu1 })), nil, "no answer", []Device{known}, gpu1, "no answer", false},
	} {
		m := merge(c.k, c.nv, c.trouble, c.was)
		if len(m.Devices) != 1 {
			t.Errorf("%s: %+v", c.name, m.Devices)
			continue
		}
		d := m.Devices[0]
		if d.UUID != c.uuid || d.Broken != c.broken || d.Lost != c.lost || d.PCI != pci {
			t.Errorf("%s: %s at %s, broken %q, lost %v; want %s, %q, %v", c.name, d.UUID, d.PCI, d.Broken, d.Lost, c.uuid, c.broken, c.lost)
		}
		if d.UUID == gpu0 && (d.Memory != 40 || d.Index != 0 || d.NUMANode != 1 && len(c.k.Devices) > 0) {
			t.Errorf("%s: what was known is forgotten: %+v", c.name, d)
		}
	}

	m := merge(k(kernel, other), nv(lib, part), "", nil)
	if len(m.Devices) != 3 || m.Devices[0].UUID != gpu0 || m.Devices[1].UUID != "MIG-1" || m.Devices[2].UUID != other.UUID || m.Driver != "550.54" || m.CUDA != "12.4" {
		t.Errorf("divided, and one of AMD's: %+v", m)
	}
	if m := merge(k(kernel, other), nv(lib), "", m.Devices); len(m.Devices) != 2 {
		t.Errorf("an instance that was removed: %+v", m.Devices)
	}
	if m := merge(k(kernel, other), nil, "no answer", m.Devices); len(m.Devices) != 3 || m.Devices[1].Broken != "no answer" || m.Devices[2].Broken != "" {
		t.Errorf("divided, and the driver does not answer: %+v", m.Devices)
	}
	if m := merge(k(), nv(), "", m.Devices); len(m.Devices) != 3 || !m.Devices[0].Lost || !m.Devices[1].Lost || !m.Devices[2].Lost {
		t.Errorf("all gone: %+v", m.Devices)
	}

	links := k(kernel, other)
	links.Links = []Link{{A: pci, B: other.UUID, Distance: HostBridge}}
	if m := merge(links, nv(lib), "", nil); len(m.Links) != 1 || m.Links[0] != (Link{A: gpu0, B: other.UUID, Distance: HostBridge}) {
		t.Errorf("links: %+v", m.Links)
	}
}

func TestChanges(t *testing.T) {
	well, lost, sick := Device{UUID: gpu0}, Device{UUID: gpu0, Broken: "off", Lost: true}, Device{UUID: gpu0, Broken: "no answer"}
	for _, c := range []struct {
		was, now []Device
		want     []ChangeKind
	}{
		{[]Device{well}, []Device{lost}, []ChangeKind{Lost}},
		{[]Device{sick}, []Device{lost}, []ChangeKind{Lost}},
		{nil, []Device{lost}, []ChangeKind{Lost}},
		{[]Device{lost}, []Device{lost}, nil},
		{[]Device{lost}, []Device{well}, []ChangeKind{Recovered}},
		{[]Device{lost}, []Device{sick}, nil},
		{[]Device{well}, []Device{sick}, nil},
		{nil, []Device{well}, nil},
		{[]Device{well}, nil, nil},
	} {
		got := changes(c.was, c.now)
		if len(got) != len(c.want) || len(got) == 1 && got[0].Kind != c.want[0] {
			t.Errorf("changes(%+v, %+v) = %+v, want %v", c.was, c.now, got, c.want)
		}
	}
}

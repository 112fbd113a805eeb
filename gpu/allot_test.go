package gpu

import (
	"errors"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

// cards are n GPUs, a UUID "GPU-0000000N" each, half of them on each NUMA node.
func cards(n int) Machine {
	m := Machine{Driver: "580.65.06"}
	for i := range n {
		m.Devices = append(m.Devices, Device{
			UUID: "GPU-0000000" + strconv.Itoa(i), Index: i, Minor: i, Vendor: NVIDIA, Model: "NVIDIA A100-SXM4-40GB",
			PCI: "0000:0" + strconv.Itoa(i) + ":00.0", NUMANode: 2 * i / max(n, 1), Memory: 40 << 30,
		})
	}
	return m
}

func (m Machine) link(a, b, links int, d Distance) Machine {
	m.Links = append(m.Links, Link{A: m.Devices[a].UUID, B: m.Devices[b].UUID, NVLinks: links, Distance: d})
	return m
}

// pairs is a machine of 8 cards in two groups of 4 with NVLink, as DGX-1 has
// them without the links between the groups, and two cards on each switch.
func pairs() Machine {
	m := cards(8)
	for a := range 8 {
		for b := range a {
			links, d := 0, System
			if a/4 == b/4 {
				links, d = 1, SameNUMANode
			}
			if a/2 == b/2 {
				links, d = 2, OneSwitch
			}
			m = m.link(a, b, links, d)
		}
	}
	return m
}

func instances() Machine {
	m := cards(2)
	m.Devices[1].Divided = true
	for i, profile := range []string{"1g.5gb", "1g.5gb", "3g.20gb"} {
		m.Devices = append(m.Devices, Device{
			UUID: "MIG-0000000" + strconv.Itoa(i), Index: 1, Minor: 1, Vendor: NVIDIA, Model: "NVIDIA A100-SXM4-40GB", NUMANode: 1,
			Memory: 5 << 30, PCI: m.Devices[1].PCI, Instance: &Instance{Parent: m.Devices[1].UUID, Profile: profile, GPU: i + 1},
		})
	}
	return m
}

func holds(owner string, uuids ...string) []Held {
	var out []Held
	for _, u := range uuids {
		out = append(out, Held{owner, Hold{UUID: u}})
	}
	return out
}

func short(list []Hold) string {
	var out []string
	for _, h := range list {
		out = append(out, strings.Replace(strings.TrimPrefix(h.UUID, "GPU-0000000"), "-0000000", "", 1))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestAllot(t *testing.T) {
	broken := cards(3)
	broken.Devices[0].Broken, broken.Devices[0].Lost = "it fell off the bus", true
	mixed := cards(2)
	mixed.Devices[0].Model, mixed.Devices[0].Memory = "NVIDIA H100", 80<<30
	mixed.Devices = append(mixed.Devices, Device{UUID: "0000:00:02.0", PCI: "0000:00:02.0", Index: -1, Minor: -1, Vendor: Intel, Model: "UHD", NUMANode: -1, DRM: []string{"renderD128"}})
	cases := []struct {
		name string
		m    Machine
		held []Held
		w    Wish
		had  []Hold
		want string // last figures of UUIDs
	}{
		{name: "one", m: cards(2), want: "0"},
		{name: "two", m: cards(2), w: Wish{Count: 2}, want: "0 1"},
		{name: "what is free", m: cards(2), held: holds("a", "GPU-00000000"), want: "1"},
		{name: "all", m: cards(3), w: Wish{Count: All}, want: "0 1 2"},
		{name: "all that work", m: broken, w: Wish{Count: All}, want: "1 2"},
		{name: "index", m: cards(3), w: Wish{Devices: []string{"2", "0"}}, want: "0 2"},
		{name: "UUID", m: cards(3), w: Wish{Devices: []string{"GPU-00000001"}}, want: "1"},
		{name: "PCI address", m: cards(3), w: Wish{Devices: []string{"0000:01:00.0"}}, want: "1"},
		{name: "model", m: mixed, w: Wish{Model: "h100"}, want: "0"},
		{name: "memory", m: mixed, w: Wish{Memory: 80 << 30}, want: "0"},
		{name: "the large one is left", m: mixed, want: "1"},
		{name: "NVIDIA first", m: mixed, w: Wish{Count: 2}, want: "0 1"},
		{name: "another vendor", m: mixed, w: Wish{Vendor: Intel}, want: "0000:00:02.0"},
		{name: "profile", m: instances(), w: Wish{Profile: "3g.20gb"}, want: "MIG2"},
		{name: "instances", m: instances(), w: Wish{Profile: "1g.5gb", Count: 2}, want: "MIG0 MIG1"},
		{name: "instance by UUID", m: instances(), w: Wish{Devices: []string{"MIG-00000001"}}, want: "MIG1"},
		{name: "whole beside instances", m: instances(), want: "0"},
		{name: "pair on a switch", m: pairs(), w: Wish{Count: 2}, want: "0 1"},
		{name: "pair that is whole", m: pairs(), held: holds("a", "GPU-00000000"), w: Wish{Count: 2}, want: "2 3"},
		{name: "single from a broken pair", m: pairs(), held: holds("a", "GPU-00000004"), want: "5"},
		{name: "clique", m: pairs(), held: holds("a", "GPU-00000000"), w: Wish{Count: 4}, want: "4 5 6 7"},
		{name: "three of a clique", m: pairs(), held: holds("a", "GPU-00000000"), w: Wish{Count: 3}, want: "1 2 3"},
		{name: "NUMA without links", m: cards(4), held: holds("a", "GPU-00000000"), w: Wish{Count: 2}, want: "2 3"},
		{name: "PCIe without NVLink", m: cards(3).link(0, 1, 0, System).link(0, 2, 0, System).link(1, 2, 0, HostBridge), w: Wish{Count: 2}, want: "1 2"},
		{name: "NVLink over PCIe", m: cards(3).link(0, 1, 4, System).link(0, 2, 0, OneSwitch).link(1, 2, 0, OneSwitch), w: Wish{Count: 2}, want: "0 1"},
		{name: "had before", m: pairs(), w: Wish{Count: 2}, had: []Hold{{UUID: "GPU-00000006"}, {UUID: "GPU-00000001"}}, want: "1 6"},
		{name: "had and lost", m: broken, had: []Hold{{UUID: "GPU-00000000"}}, want: "1"},
		{name: "a slice where slices are", m: cards(2), held: []Held{{"a", Hold{UUID: "GPU-00000001", Slices: 4}}}, w: Wish{Slices: 4}, want: "1"},
		{name: "memory beside a slice", m: cards(1), held: []Held{{"a", Hold{UUID: "GPU-00000000", Slices: 2}}}, w: Wish{Share: 20 << 30}, want: "0"},
		{name: "slices are full", m: cards(2), held: []Held{{"a", Hold{UUID: "GPU-00000000", Slices: 2}}, {"b", Hold{UUID: "GPU-00000000", Slices: 2}}}, w: Wish{Slices: 2}, want: "1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Allot(c.m, c.held, c.w, c.had)
			if err != nil {
				t.Fatal(err)
			}
			if short(got) != c.want {
				t.Errorf("Allot = %s, want %s", short(got), c.want)
			}
		})
	}
}

func TestAllotRefuses(t *testing.T) {
	broken := cards(2)
	broken.Devices[0].Broken = "it fell off the bus"
	half := []Held{{"a", Hold{UUID: "GPU-00000000", Slices: 2}}, {"b", Hold{UUID: "GPU-00000000", Share: 19 << 30}}}
	cases := []struct {
		name string
		m    Machine
		held []Held
		w    Wish
		kind errs.Kind
		want string // in the error
	}{
		{"none", Machine{}, nil, Wish{}, errs.Invalid, "1 GPU wanted, and this machine has none"},
		{"no library", Machine{Trouble: "libnvidia-ml.so.1 is not there"}, nil, Wish{}, errs.Invalid, "none is known: libnvidia-ml.so.1 is not there"},
		{"more than there are", cards(2), nil, Wish{Count: 3}, errs.Invalid, "3 GPUs wanted, and only 2 fit: GPU-00000000 (index 0, NVIDIA A100-SXM4-40GB, 40 GiB) is free; GPU-00000001"},
		{"held", cards(2), holds("web", "GPU-00000001"), Wish{Count: 2}, errs.Conflict, "1 of the 2 that fit are free"},
		{"who holds it", cards(1), holds("web", "GPU-00000000"), Wish{}, errs.Conflict, "40 GiB) is container web's"},
		{"all, and one is held", cards(2), holds("web", "GPU-00000001"), Wish{Count: All}, errs.Conflict, "all GPUs wanted, and 1 of the 2 that fit are free"},
		{"unknown UUID", cards(1), nil, Wish{Devices: []string{"GPU-ffffffff"}}, errs.Invalid, "there is no GPU GPU-ffffffff here; GPU-00000000"},
		{"ambiguous", cards(2), nil, Wish{Devices: []string{"GPU-0000"}}, errs.Invalid, "may be GPU-00000000 or GPU-00000001"},
		{"too short for a prefix", cards(1), nil, Wish{Devices: []string{"GPU-"}}, errs.Invalid, "there is no GPU"},
		{"one twice", cards(1), nil, Wish{Devices: []string{"0", "GPU-00000000"}}, errs.Invalid, "named twice"},
		{"named and held", cards(2), holds("web", "GPU-00000000"), Wish{Devices: []string{"0"}}, errs.Conflict, "is container web's"},
		{"named and broken", broken, nil, Wish{Devices: []string{"0"}}, errs.Invalid, "cannot be given: it fell off the bus"},
		{"named and divided", instances(), nil, Wish{Devices: []string{"1"}}, errs.Invalid, "its MIG instances are given out"},
		{"broken", broken, nil, Wish{Count: 2}, errs.Invalid, "it fell off the bus"},
		{"model", cards(1), nil, Wish{Model: "H100"}, errs.Invalid, "1 GPU of model H100 wanted, and none fits: GPU-00000000 (index 0, NVIDIA A100-SXM4-40GB, 40 GiB): its model is not H100"},
		{"memory", cards(1), nil, Wish{Memory: 80 << 30}, errs.Invalid, "with 80 GiB wanted, and none fits"},
		{"profile", cards(1), nil, Wish{Profile: "1g.5gb"}, errs.Invalid, "it is no MIG instance of profile 1g.5gb"},
		{"whole where all is divided", Machine{Devices: instances().Devices[1:]}, nil, Wish{}, errs.Invalid, "it is a MIG instance, and whole GPUs are wanted"},
		{"instance of what was given whole", instances(), holds("web", "GPU-00000001"), Wish{Profile: "3g.20gb"}, errs.Conflict, "is container web's"},
		{"whole, and it is shared", cards(1), half, Wish{}, errs.Conflict, "shared by containers a and b"},
		{"a share too many", cards(1), half, Wish{Share: 2 << 30}, errs.Conflict, "shared by containers a and b"},
		{"a slice too many", cards(1), half, Wish{Slices: 2}, errs.Conflict, "1 GPU, shared by 2 wanted"},
		{"more memory than it has", cards(1), nil, Wish{Share: 41 << 30}, errs.Invalid, "it has 40 GiB of memory"},
		{"share of an unknown memory", Machine{Devices: []Device{{UUID: "0000:00:02.0", Vendor: Intel, Index: -1, DRM: []string{"card0"}}}}, nil, Wish{Share: 1}, errs.Invalid, "how much memory it has is not known"},
		{"no driver", Machine{Devices: []Device{{UUID: "0000:00:02.0", Vendor: AMD, Index: -1}}}, nil, Wish{}, errs.Invalid, "0000:00:02.0: no driver in the kernel has it"},
		// The same card, before the driver's library said which one it is.
		{"by address", cards(1), []Held{{"web", Hold{UUID: "0000:00:00.0", PCI: "0000:00:00.0"}}}, Wish{}, errs.Conflict, "is container web's"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Allot(c.m, c.held, c.w, nil)
			if errs.KindOf(err) != c.kind || err == nil {
				t.Fatalf("Allot = %v, %v; want %s", got, err, c.kind)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("Allot says %q, want %q", err, c.want)
			}
		})
	}
}

func TestWishValidate(t *testing.T) {
	bad := map[string]Wish{
		"below":             {Count: -2},
		"above":             {Count: 65},
		"number and names":  {Count: 1, Devices: []string{"0"}},
		"empty name":        {Devices: []string{""}},
		"name twice":        {Devices: []string{"0", "0"}},
		"many names":        {Devices: make([]string, 65)},
		"vendor":            {Vendor: "matrox"},
		"negative memory":   {Memory: -1},
		"negative share":    {Share: -1},
		"one slice":         {Slices: 1},
		"many slices":       {Slices: 65},
		"slices and memory": {Slices: 2, Share: 1},
		"control character": {Model: "A\n100"},
		"long":              {Profile: strings.Repeat("x", 129)},
		"capability":        {Capabilities: []string{"fly"}},
	}
	for name, w := range bad {
		if err := w.Validate(); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: Validate = %v", name, err)
		}
	}
	for _, w := range []Wish{{}, {Count: All}, {Count: 64}, {Devices: []string{"0", "GPU-1"}, Slices: 64}, {Capabilities: []string{"compute", "video"}}} {
		if err := w.Validate(); err != nil {
			t.Errorf("Validate(%+v) = %v", w, err)
		}
	}
}

func TestFind(t *testing.T) {
	m := instances()
	lost := cards(1)
	lost.Devices[0].Broken, lost.Devices[0].Lost = "it fell off the bus", true
	sysfs := Machine{Trouble: "the library is gone", Devices: []Device{{UUID: "0000:00:00.0", PCI: "0000:00:00.0", Vendor: NVIDIA}}}
	card := Hold{UUID: "GPU-00000000", PCI: "0000:00:00.0", Model: "A100"}
	cases := []struct {
		name string
		m    Machine
		h    Hold
		kind errs.Kind // "": it is found
		want string
	}{
		{"card", m, card, "", ""},
		{"instance", m, Hold{UUID: "MIG-00000002"}, "", ""},
		{"divided since", m, Hold{UUID: "GPU-00000001"}, errs.Unavailable, "divided into MIG instances now"},
		{"gone", Machine{}, card, errs.NotFound, "GPU GPU-00000000 (A100) is not there any more"},
		{"another card in its slot", cards(1), Hold{UUID: "GPU-ffffffff", PCI: "0000:00:00.0"}, errs.NotFound, "not there any more"},
		{"lost", lost, card, errs.NotFound, "is lost: it fell off the bus"},
		{"the kernel alone", sysfs, card, "", ""},
		{"an instance, and the kernel alone", sysfs, Hold{UUID: "MIG-1", PCI: "0000:00:00.0"}, errs.Unavailable, "the library is gone"},
		{"gone, and the kernel alone", sysfs, Hold{UUID: "GPU-1", PCI: "0000:09:00.0"}, errs.NotFound, "not there any more"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d, err := c.m.Find(c.h)
			if c.kind == "" {
				if err != nil || !c.h.is(d) {
					t.Errorf("Find = %v, %v", d, err)
				}
				return
			}
			if err == nil || errs.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Find = %v, want %s: %s", err, c.kind, c.want)
			}
		})
	}
}

// world is a machine, and what containers have of it.
type world struct {
	m    Machine
	held []Held
}

// check finds what is given twice, or more than there is.
func (w world) check(t *testing.T) {
	t.Helper()
	for _, d := range w.m.Devices {
		sum := new(big.Rat)
		for _, h := range w.held {
			if h.UUID == d.UUID {
				sum.Add(sum, h.part(d))
			}
		}
		if sum.Cmp(big.NewRat(1, 1)) > 0 {
			t.Fatalf("%s is given %s times: %v", d.UUID, sum, w.held)
		}
	}
}

func randomMachine(r *rand.Rand) Machine {
	m := cards(r.IntN(9))
	for a := range m.Devices {
		if r.IntN(6) == 0 {
			m.Devices[a].Broken = "it does not answer"
		}
		if r.IntN(3) == 0 {
			m.Devices[a].Divided = true
			for i := range r.IntN(7) {
				m.Devices = append(m.Devices, Device{
					UUID: "MIG-" + strconv.Itoa(a) + strconv.Itoa(i), Vendor: NVIDIA, Memory: 5 << 30,
					Instance: &Instance{Parent: m.Devices[a].UUID, Profile: []string{"1g.5gb", "2g.10gb"}[r.IntN(2)]},
				})
			}
		}
		for b := range a {
			if r.IntN(2) == 0 {
				m = m.link(a, b, r.IntN(3), Distance(r.IntN(6)))
			}
		}
	}
	return m
}

func randomWish(r *rand.Rand) Wish {
	w := Wish{Count: r.IntN(6) - 1}
	if r.IntN(5) == 0 {
		w = Wish{Devices: []string{strconv.Itoa(r.IntN(9))}}
	}
	switch r.IntN(4) {
	case 0:
		w.Slices = 2 + r.IntN(4)
	case 1:
		w.Share = 1 + r.Int64N(41<<30)
	}
	if r.IntN(3) == 0 {
		w.Profile = []string{"1g.5gb", "2g.10gb"}[r.IntN(2)]
	}
	if r.IntN(4) == 0 {
		w.Memory = r.Int64N(80 << 30)
	}
	return w
}

// Whatever comes and goes: nothing is given twice, what is given is as asked
// for, the same question has the same answer, and who is refused for what others
// hold gets it once they have gone.
func TestAllotProperties(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		w := world{m: randomMachine(r)}
		for step := range 20 {
			if r.IntN(3) == 0 && len(w.held) > 0 { // a container goes
				owner := w.held[r.IntN(len(w.held))].Owner
				w.held = slices.DeleteFunc(w.held, func(h Held) bool { return h.Owner == owner })
				continue
			}
			wish := randomWish(r)
			got, err := Allot(w.m, w.held, wish, nil)
			again, err2 := Allot(w.m, w.held, wish, nil)
			if diff := cmp.Diff(got, again); diff != "" || (err == nil) != (err2 == nil) {
				t.Fatalf("asked twice:\n%s%v %v", diff, err, err2)
			}
			if errors.Is(err, errs.Conflict) {
				if _, err := Allot(w.m, nil, wish, nil); err != nil {
					t.Fatalf("%+v is a conflict with %v, and without them: %v", wish, w.held, err)
				}
			}
			if err != nil {
				if kind := errs.KindOf(err); kind != errs.Conflict && kind != errs.Invalid {
					t.Fatalf("refused as %s: %v", kind, err)
				}
				continue
			}
			if n := wish.number(); n != All && len(got) != n {
				t.Fatalf("%+v got %v", wish, got)
			}
			for _, h := range got {
				d, err := w.m.Find(h)
				if err != nil || wish.Profile != "" && d.Instance.Profile != wish.Profile || d.Memory < wish.Memory || h.Slices != wish.Slices || h.Share != wish.Share {
					t.Fatalf("%+v got %+v, %v", wish, d, err)
				}
				w.held = append(w.held, Held{strconv.Itoa(step), h})
			}
			w.check(t)
			// A restart gives it the same.
			others := slices.DeleteFunc(slices.Clone(w.held), func(h Held) bool { return h.Owner == strconv.Itoa(step) })
			if same, err := Allot(w.m, others, wish, got); err != nil || short(same) != short(got) {
				t.Fatalf("%+v had %v and gets %v, %v", wish, got, same, err)
			}
		}
	}
}

// However many devices there are, it is decided soon, and each is given once.
func TestAllotMany(t *testing.T) {
	m := Machine{}
	for i := range 1024 {
		m.Devices = append(m.Devices, Device{UUID: "GPU-" + strconv.Itoa(10000+i), Vendor: NVIDIA, Index: i, NUMANode: i / 64})
	}
	got, err := Allot(m, nil, Wish{Count: 64}, nil)
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[int]bool{}
	for _, h := range got {
		d, err := m.Find(h)
		if err != nil {
			t.Fatal(err)
		}
		nodes[d.NUMANode] = true
	}
	if len(got) != 64 || len(nodes) != 1 {
		t.Errorf("%d devices on %d NUMA nodes, want 64 on one", len(got), len(nodes))
	}
}

func TestOwners(t *testing.T) {
	m := instances() // the second is divided
	m.Devices = append(m.Devices, cards(4).Devices[2:]...)
	m.Devices[len(m.Devices)-1].Broken = "it fell off the bus"
	held := append(holds("a", "GPU-00000000", "MIG-00000000"), Held{"b", Hold{UUID: "GPU-00000000", Slices: 2}})
	want := map[string][]string{"GPU-00000000": {"a", "b"}, "GPU-00000002": nil}
	if diff := cmp.Diff(want, Owners(m, held)); diff != "" {
		t.Error(diff)
	}
}

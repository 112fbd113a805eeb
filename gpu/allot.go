package gpu

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Allot decides which devices a wish gets, of those that held leaves. What had
// names it had before, and gets again where that is possible; else those that
// are nearest to each other. Conflict: others hold what it would take. Invalid:
// this machine has no such GPUs at all. w is valid.
func Allot(m Machine, held []Held, w Wish, had []Hold) ([]Hold, error) {
	a := allotment{m: m, w: w, taken: map[int]*big.Rat{}, owners: map[int][]string{}}
	a.take(held)
	fits, err := a.candidates()
	if err != nil {
		return nil, err
	}
	n := w.number()
	if n == All {
		n = len(fits)
	}
	free := slices.DeleteFunc(slices.Clone(fits), func(i int) bool { return !a.free(i) })
	switch {
	case len(fits) < n || n == 0:
		return nil, a.refuse(errs.Invalid, fits, free)
	case len(free) < n:
		return nil, a.refuse(errs.Conflict, fits, free)
	}
	chosen := a.again(free, n, had)
	if chosen == nil {
		chosen = a.nearest(free, n)
	}
	out := make([]Hold, 0, n)
	for _, i := range chosen {
		d := m.Devices[i]
		out = append(out, Hold{UUID: d.UUID, PCI: d.PCI, Model: d.Model, Slices: w.Slices, Share: w.Share})
	}
	return out, nil
}

// Owners are, of each whole GPU that can be given out, the containers that hold
// it or a part of it, by UUID.
func Owners(m Machine, held []Held) map[string][]string {
	a := allotment{m: m, taken: map[int]*big.Rat{}, owners: map[int][]string{}}
	a.take(held)
	all := map[string][]string{}
	for i, d := range m.Devices {
		if d.Instance == nil && a.unfit(i) == "" {
			all[d.UUID] = a.owners[i]
		}
	}
	return all
}

// allotment is one decision. Devices go by their index in m.
type allotment struct {
	m      Machine
	w      Wish
	taken  map[int]*big.Rat // how much of each is held
	owners map[int][]string // by whom
}

func (a *allotment) take(held []Held) {
	for _, h := range held {
		for i, d := range a.m.Devices {
			if !h.is(d) && !a.within(h, d) {
				continue
			}
			if a.taken[i] == nil {
				a.taken[i] = new(big.Rat)
			}
			a.taken[i].Add(a.taken[i], h.part(d))
			a.owners[i] = append(a.owners[i], h.Owner)
		}
	}
}

// within says whether d is an instance of what is held: its GPU was given whole
// before it was divided.
func (a *allotment) within(h Held, d Device) bool {
	return d.Instance != nil && slices.ContainsFunc(a.m.Devices, func(p Device) bool { return p.UUID == d.Instance.Parent && h.is(p) })
}

// free says whether the wish's part of a device is nobody's.
func (a *allotment) free(i int) bool {
	sum := Hold{Slices: a.w.Slices, Share: a.w.Share}.part(a.m.Devices[i])
	if t := a.taken[i]; t != nil {
		sum.Add(sum, t)
	}
	return sum.Cmp(big.NewRat(1, 1)) <= 0
}

// candidates are the devices that fit, held or not.
func (a *allotment) candidates() ([]int, error) {
	if len(a.w.Devices) > 0 {
		return a.named()
	}
	vendor := a.vendor()
	var fits []int
	for i := range a.m.Devices {
		if a.m.Devices[i].Vendor == vendor && a.unfit(i) == "" {
			fits = append(fits, i)
		}
	}
	return fits, nil
}

// vendor is the one that is asked for, or the first of which there is a GPU.
func (a *allotment) vendor() string {
	if a.w.Vendor != "" {
		return a.w.Vendor
	}
	for _, v := range []string{NVIDIA, AMD} {
		if slices.ContainsFunc(a.m.Devices, func(d Device) bool { return d.Vendor == v }) {
			return v
		}
	}
	return Intel
}

// named are the devices that the wish names.
func (a *allotment) named() ([]int, error) {
	var fits []int
	for _, name := range a.w.Devices {
		found := a.find(name)
		switch {
		case len(found) == 0:
			return nil, errs.E(errs.Invalid, "there is no GPU %s here; %s", name, a.list(nil))
		case len(found) > 1:
			return nil, errs.E(errs.Invalid, "GPU %s may be %s or %s: write all of its UUID", name, a.m.Devices[found[0]].UUID, a.m.Devices[found[1]].UUID)
		case slices.Contains(fits, found[0]):
			return nil, errs.E(errs.Invalid, "GPU %s is named twice", name)
		}
		if why := a.unfit(found[0]); why != "" {
			return nil, errs.E(errs.Invalid, "GPU %s cannot be given: %s", a.m.Devices[found[0]], why)
		}
		fits = append(fits, found[0])
	}
	return fits, nil
}

// minPrefix is how much of a UUID names a GPU: "GPU-" and half of the first group.
const minPrefix = 8

// find are the devices that a name may mean.
func (a *allotment) find(name string) (found []int) {
	for i, d := range a.m.Devices {
		if name == d.UUID || name == d.PCI && d.Instance == nil || d.Instance == nil && d.Index >= 0 && name == itoa(d.Index) {
			return []int{i}
		}
		if len(name) >= minPrefix && strings.HasPrefix(d.UUID, name) {
			found = append(found, i)
		}
	}
	return found
}

// unfit says why a device is not what is wished for, whoever has it; "": it is.
func (a *allotment) unfit(i int) string {
	d, w := a.m.Devices[i], a.w
	byName := len(w.Devices) > 0
	switch {
	case d.Broken != "":
		return d.Broken
	case d.Divided:
		return "it is divided, and its MIG instances are given out"
	case d.Vendor != NVIDIA && len(d.DRM) == 0:
		return "no driver in the kernel has it"
	case w.Vendor != "" && d.Vendor != w.Vendor:
		return "it is of " + d.Vendor
	case !strings.Contains(strings.ToLower(d.Model), strings.ToLower(w.Model)):
		return fmt.Sprintf("its model is not %s", w.Model)
	case w.Profile == "" && d.Instance != nil && !byName:
		return "it is a MIG instance, and whole GPUs are wanted"
	case w.Profile != "" && (d.Instance == nil || d.Instance.Profile != w.Profile):
		return "it is no MIG instance of profile " + w.Profile
	case w.Memory > 0 && d.Memory == 0, w.Share > 0 && d.Memory == 0:
		return "how much memory it has is not known"
	case d.Memory < w.Memory:
		return "it has " + bytesText(d.Memory) + " of memory"
	case d.Memory < w.Share:
		return "it has " + bytesText(d.Memory) + " of memory"
	}
	return ""
}

// again are the devices that it had, if it can have just those.
func (a *allotment) again(free []int, n int, had []Hold) (chosen []int) {
	for _, h := range had {
		i := slices.IndexFunc(free, func(i int) bool { return h.is(a.m.Devices[i]) })
		if i < 0 || slices.Contains(chosen, free[i]) {
			return nil
		}
		chosen = append(chosen, free[i])
	}
	if len(chosen) != n {
		return nil
	}
	return chosen
}

// refuse says why the wish is not granted.
func (a *allotment) refuse(kind errs.Kind, fits, free []int) error {
	got := "none fits"
	switch {
	case len(a.m.Devices) == 0 && a.m.Trouble != "":
		return errs.E(kind, "%s wanted, and none is known: %s", a.w, a.m.Trouble)
	case len(a.m.Devices) == 0:
		return errs.E(kind, "%s wanted, and this machine has none", a.w)
	case len(a.w.Devices) > 0:
		got = "not all are free"
	case kind == errs.Conflict:
		got = fmt.Sprintf("%d of the %d that fit are free", len(free), len(fits))
	case len(fits) > 0:
		got = fmt.Sprintf("only %d fit", len(fits))
	}
	return errs.E(kind, "%s wanted, and %s: %s", a.w, got, a.list(free))
}

// maxListed bounds how many devices a refusal lists.
const maxListed = 16

// list says of each device whose it is, or why it does not fit.
func (a *allotment) list(free []int) string {
	if len(a.m.Devices) == 0 {
		return "this machine has none"
	}
	var parts []string
	for i, d := range a.m.Devices {
		if len(parts) == maxListed {
			parts = append(parts, fmt.Sprintf("and %d more", len(a.m.Devices)-maxListed))
			break
		}
		text := d.String()
		switch why := a.unfit(i); {
		case len(a.owners[i]) > 0:
			text += " is " + owners(a.owners[i])
		case why != "":
			text += ": " + why
		case slices.Contains(free, i):
			text += " is free"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// owners is "container a's" or "shared by containers a and b".
func owners(names []string) string {
	if len(names) == 1 {
		return "container " + names[0] + "'s"
	}
	return "shared by containers " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

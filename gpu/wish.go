package gpu

import (
	"slices"
	"strings"
	"unicode"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Wish is what a container asks for: Count devices that are as the rest of it
// says, or the Devices themselves.
type Wish struct {
	Count   int      `json:"count,omitempty"`   // or All; 0: one, or Devices
	Devices []string `json:"devices,omitempty"` // by UUID, the beginning of one, index or PCI address

	Vendor  string `json:"vendor,omitempty"`  // default: NVIDIA where there is one of it, then AMD, then Intel
	Model   string `json:"model,omitempty"`   // a part of the model's name, in any case
	Memory  int64  `json:"memory,omitempty"`  // bytes that each has at least
	Profile string `json:"profile,omitempty"` // instances of this profile, not whole GPUs

	// At most one of the two; without them nobody else gets a device that was given.
	Slices int   `json:"slices,omitempty"` // as many may take turns on a device
	Share  int64 `json:"share,omitempty"`  // bytes of each device's memory

	// Capabilities say which of the driver's libraries come along. Default: what
	// the image says, or compute and utility.
	Capabilities []string `json:"capabilities,omitempty"`
}

// All as a Count is every GPU there is that the rest of the wish fits.
const All = -1

// Bounds of a wish.
const (
	maxCount  = 64
	maxSlices = 64
	maxWord   = 128
)

// Capabilities are those of NVIDIA's driver, as the container toolkit names them.
var capabilityNames = []string{"all", "compat32", "compute", "display", "graphics", "ngx", "utility", "video"}

// Validate says what is wrong with w, whatever GPUs there are.
func (w Wish) Validate() error {
	switch {
	case w.Count < All || w.Count > maxCount:
		return errs.E(errs.Invalid, "GPUs: %d is no number of them; it is 1 to %d, or all", w.Count, maxCount)
	case w.Count != 0 && len(w.Devices) > 0:
		return errs.E(errs.Invalid, "GPUs: they are named, so their number is not asked for, too")
	case len(w.Devices) > maxCount:
		return errs.E(errs.Invalid, "GPUs: %d are named; %d is the most", len(w.Devices), maxCount)
	case w.Vendor != "" && !slices.Contains([]string{NVIDIA, AMD, Intel}, w.Vendor):
		return errs.E(errs.Invalid, "GPUs: vendor %.40q is none of %s, %s and %s", w.Vendor, NVIDIA, AMD, Intel)
	case w.Memory < 0 || w.Share < 0:
		return errs.E(errs.Invalid, "GPUs: an amount of memory is negative")
	case w.Slices != 0 && (w.Slices < 2 || w.Slices > maxSlices):
		return errs.E(errs.Invalid, "GPUs: a device is shared by 2 to %d, not by %d", maxSlices, w.Slices)
	case w.Slices != 0 && w.Share != 0:
		return errs.E(errs.Invalid, "GPUs: a device is shared by slices or by memory, not by both")
	}
	for _, text := range slices.Concat(w.Devices, []string{w.Model, w.Profile}) {
		if len(text) > maxWord || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return errs.E(errs.Invalid, "GPUs: %.40q names none", text)
		}
	}
	for i, name := range w.Devices {
		if name == "" || slices.Contains(w.Devices[:i], name) {
			return errs.E(errs.Invalid, "GPUs: %.40q is empty or named twice", name)
		}
	}
	for _, c := range w.Capabilities {
		if !slices.Contains(capabilityNames, c) {
			return errs.E(errs.Invalid, "GPUs: capability %.40q is none of %s", c, strings.Join(capabilityNames, ", "))
		}
	}
	return nil
}

// number is how many devices w asks for; All if that is not known.
func (w Wish) number() int {
	if len(w.Devices) > 0 {
		return len(w.Devices)
	}
	if w.Count == 0 {
		return 1
	}
	return w.Count
}

// String is w in a sentence: "2 GPUs of model \"A100\"".
func (w Wish) String() string {
	var b strings.Builder
	switch n := w.number(); {
	case len(w.Devices) > 0:
		b.WriteString("GPU " + strings.Join(w.Devices, ", "))
	case n == All:
		b.WriteString("all GPUs")
	default:
		b.WriteString(count(n))
	}
	if w.Vendor != "" {
		b.WriteString(" of " + w.Vendor)
	}
	if w.Model != "" {
		b.WriteString(" of model " + w.Model)
	}
	if w.Profile != "" {
		b.WriteString(" of MIG profile " + w.Profile)
	}
	if w.Memory > 0 {
		b.WriteString(" with " + bytesText(w.Memory))
	}
	switch {
	case w.Slices > 0:
		b.WriteString(", shared by " + itoa(w.Slices))
	case w.Share > 0:
		b.WriteString(", " + bytesText(w.Share) + " of its memory")
	}
	return b.String()
}

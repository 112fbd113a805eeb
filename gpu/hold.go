package gpu

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Hold is a device that a container has, or a share of one. It is what is kept
// of it over restarts and reboots.
type Hold struct {
	UUID   string `json:"uuid"`
	PCI    string `json:"pci,omitempty"`
	Model  string `json:"model,omitempty"`
	Slices int    `json:"slices,omitempty"` // it takes turns with so many
	Share  int64  `json:"share,omitempty"`  // bytes of its memory
}

// Held is a Hold and whose it is.
type Held struct {
	Owner string // name of a container
	Hold
}

// is says whether h is of d. The PCI address counts where the driver's library
// did not say, or does not say now, which card it is.
func (h Hold) is(d Device) bool {
	if h.UUID == d.UUID {
		return true
	}
	known := named(h.UUID) && named(d.UUID)
	return !known && d.Instance == nil && !strings.HasPrefix(h.UUID, "MIG-") && h.PCI != "" && h.PCI == d.PCI
}

// named says whether a UUID is the driver's own.
func named(uuid string) bool {
	return strings.HasPrefix(uuid, "GPU-") || strings.HasPrefix(uuid, "MIG-")
}

// part is how much of d a hold takes: 1 is all of it.
func (h Hold) part(d Device) *big.Rat {
	switch {
	case h.Slices > 0:
		return big.NewRat(1, int64(h.Slices))
	case h.Share > 0 && d.Memory > 0:
		return big.NewRat(h.Share, d.Memory)
	}
	return big.NewRat(1, 1)
}

// String is h as people read it.
func (h Hold) String() string {
	if h.Model == "" {
		return h.UUID
	}
	return h.UUID + " (" + h.Model + ")"
}

// Find is the device that is held. NotFound: it is not there any more, or fell
// off the bus. Unavailable: it is there and cannot be used.
func (m Machine) Find(h Hold) (Device, error) {
	i := slices.IndexFunc(m.Devices, h.is)
	switch {
	case i < 0 && m.Trouble != "" && h.PCI == "":
		return Device{}, errs.E(errs.Unavailable, "GPU %s cannot be found: %s", h, m.Trouble)
	case i < 0 && m.Trouble != "" && strings.HasPrefix(h.UUID, "MIG-"):
		// The kernel alone knows no instances.
		return Device{}, errs.E(errs.Unavailable, "GPU instance %s cannot be found: %s", h, m.Trouble)
	case i < 0:
		return Device{}, errs.E(errs.NotFound, "GPU %s is not there any more", h)
	}
	d := m.Devices[i]
	switch {
	case d.Lost:
		return d, errs.E(errs.NotFound, "GPU %s is lost: %s", h, d.Broken)
	case d.Broken != "":
		return d, errs.E(errs.Unavailable, "GPU %s cannot be used: %s", h, d.Broken)
	case d.Divided:
		return d, errs.E(errs.Unavailable, "GPU %s is divided into MIG instances now", h)
	}
	return d, nil
}

// String is d in a list for people.
func (d Device) String() string {
	var about []string
	if d.Index >= 0 && d.Instance == nil {
		about = append(about, "index "+itoa(d.Index))
	}
	if d.Model != "" {
		about = append(about, d.Model)
	}
	if d.Instance != nil {
		about = append(about, "MIG "+d.Instance.Profile)
	}
	if d.Memory > 0 {
		about = append(about, bytesText(d.Memory))
	}
	name := d.UUID
	if name == "" {
		name = d.PCI
	}
	if len(about) == 0 {
		return name
	}
	return name + " (" + strings.Join(about, ", ") + ")"
}

func itoa(n int) string { return strconv.Itoa(n) }

// count is "1 GPU" or "3 GPUs".
func count(n int) string {
	if n == 1 {
		return "1 GPU"
	}
	return itoa(n) + " GPUs"
}

// bytesText is an amount of memory for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<30)), ".0") + " GiB"
	case n >= 1<<20:
		return itoa(int(n>>20)) + " MiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

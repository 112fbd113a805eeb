//go:build linux && cgo

package shim

import (
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// unreadable takes from what is effective at the exec of buoy-init what reads
// files that nobody may read. The kernel then keeps others of the container, who
// are the same user with the same capabilities, from tracing it until it runs the
// program: else one of them could have it before its filter is loaded. Root has
// what is permitted again after the exec, and others have nothing either way.
func unreadable(effective []string) []string {
	return slices.DeleteFunc(slices.Clone(effective), func(c string) bool {
		return c == "CAP_DAC_OVERRIDE" || c == "CAP_DAC_READ_SEARCH"
	})
}

// ownCaps leaves out of a set that is meant to be all there are what this node
// cannot give: its kernel lacks it, or whoever started us has taken it from us.
// One that was asked for by name is refused.
func ownCaps(c *specs.LinuxCapabilities) error {
	if c == nil {
		return nil
	}
	all := len(c.Bounding) >= len(capability.ListKnown())-1 // without one or the other, as "ALL" may be
	for _, known := range capability.ListKnown() {
		name := "CAP_" + strings.ToUpper(known.String())
		have, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(known), 0, 0, 0)
		if err == nil && have == 1 || !slices.Contains(c.Bounding, name) {
			continue
		}
		if !all {
			return errs.E(errs.Invalid, "capability %s is not this node's to give", name)
		}
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
			*set = slices.DeleteFunc(slices.Clone(*set), func(s string) bool { return s == name })
		}
	}
	return nil
}

package images

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

func parsePlatform(s string) (v1.Platform, error) {
	if s == "" {
		return hostPlatform(), nil
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return v1.Platform{}, errs.E(errs.Invalid, "platform %q: expected os/arch or os/arch/variant, as in linux/arm/v7", s)
	}
	p := v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

func hostPlatform() v1.Platform {
	p := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		p.Variant = "v7"
		var u unix.Utsname
		if err := unix.Uname(&u); err == nil {
			p.Variant = armVariant(unix.ByteSliceToString(u.Machine[:]))
		}
	}
	return p
}

// armVariant reads uname -m: armv6l, armv7l, or aarch64 under a 32-bit program.
func armVariant(machine string) string {
	for _, v := range []string{"v5", "v6"} {
		if strings.HasPrefix(machine, "arm"+v) {
			return v
		}
	}
	return "v7"
}

// variants are those that run on p, best first; "" is what the image's maker left open.
func variants(p v1.Platform) []string {
	var order []string
	switch p.Architecture {
	case "arm":
		order = []string{"v8", "v7", "v6", "v5"}
	case "arm64":
		order = []string{"v9", "v8"}
	case "amd64":
		order = []string{"v4", "v3", "v2", "v1"}
	}
	base := map[string]string{"arm": "v7", "arm64": "v8", "amd64": "v1"}[p.Architecture]
	want := p.Variant
	if want == "" {
		want = base
	}
	i := slices.Index(order, want)
	if i < 0 {
		return []string{p.Variant, ""}
	}
	var out []string
	for _, v := range order[i:] {
		out = append(out, v)
		if v == base {
			out = append(out, "")
		}
	}
	if !slices.Contains(out, "") { // armv5, armv6: an image without variant is a guess, but the last resort
		out = append(out, "")
	}
	return out
}

// choose is the index of the entry that suits p best, -1 if none does.
func choose(p v1.Platform, have []v1.Platform) int {
	for _, v := range variants(p) {
		for i, h := range have {
			if h.OS == p.OS && h.Architecture == p.Architecture && h.Variant == v {
				return i
			}
		}
	}
	return -1
}

// runs says whether a single image, not from a list, can be expected to run on p. Images that do not say are trusted.
func runs(p, img v1.Platform) bool {
	if img.OS != "" && img.OS != p.OS {
		return false
	}
	switch img.Architecture {
	case "":
		return true
	case p.Architecture:
		return img.Variant == "" || p.Architecture != "arm" || slices.Contains(variants(p), img.Variant)
	}
	return p.Architecture == "amd64" && img.Architecture == "386" || p.Architecture == "arm64" && img.Architecture == "arm"
}

func errPlatform(ref string, want v1.Platform, have []v1.Platform) error {
	var names []string
	for _, h := range have {
		if h.OS != "unknown" { // attestations
			names = append(names, h.String())
		}
	}
	slices.Sort(names)
	list := "no platform at all"
	if len(names) > 0 {
		list = strings.Join(slices.Compact(names), ", ")
	}
	return errs.E(errs.Invalid, "image %q is not available for %s; it has %s", ref, want, list)
}

// size is n bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

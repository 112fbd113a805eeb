package cdi

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// requirement is what an image may ask of the machine: cuda>=12.4.
var requirement = regexp.MustCompile(`^(cuda|driver)(<=|>=|!=|<|>|=)([0-9]+(?:\.[0-9]+)*)$`)

// Require says whether the machine has what an image asks for in its
// environment, as the container toolkit reads NVIDIA_REQUIRE_CUDA and the like:
// words, one of which must hold, of conditions that all must. What is asked of
// other things, as the brand of a card, is taken to hold. cuda and driver are
// versions; one that is empty is not judged. Unavailable: it has not.
func Require(env []string, cuda, driver string) error {
	if slices.ContainsFunc(env, func(kv string) bool {
		v, ok := strings.CutPrefix(kv, "NVIDIA_DISABLE_REQUIRE=")
		return ok && (v == "1" || strings.EqualFold(v, "true"))
	}) {
		return nil
	}
	has := map[string]string{"cuda": cuda, "driver": driver}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		words := strings.Fields(value)
		if !strings.HasPrefix(name, "NVIDIA_REQUIRE_") || len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return holds(w, has) }) {
			continue
		}
		return errs.E(errs.Unavailable, "the image asks for %s (%s), and this machine has driver %s, which takes CUDA %s at most: upgrade the driver, or take an image for an older CUDA",
			words[0], name, driver, cmp.Or(cuda, "unknown"))
	}
	return nil
}

func holds(word string, has map[string]string) bool {
	for one := range strings.SplitSeq(word, ",") {
		m := requirement.FindStringSubmatch(one)
		if m == nil || has[m[1]] == "" {
			continue
		}
		c := compareVersions(has[m[1]], m[3])
		if !map[string]bool{"<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0, "=": c == 0, "!=": c != 0}[m[2]] {
			return false
		}
	}
	return true
}

// compareVersions compares number by number; what is missing is 0.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		n, _ := strconv.Atoi(x) // what is no number counts as 0
		m, _ := strconv.Atoi(y)
		if n != m {
			return cmp.Compare(n, m)
		}
	}
	return 0
}

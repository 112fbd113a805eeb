package upgrade

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// describe is a version as git describe has it: a release, what of it was to
// come ("rc1"), and how many commits there have been since.
var describe = regexp.MustCompile(`^v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.]*[A-Za-z][0-9A-Za-z.]*?))??(?:-(\d{1,9})-g[0-9a-f]+)?(?:-dirty)?$`)

// olderThan compares two versions. Conflict: they are not of a release.
func olderThan(a, b string) (bool, error) {
	x, y := describe.FindStringSubmatch(a), describe.FindStringSubmatch(b)
	for name, v := range map[string][]string{a: x, b: y} {
		if v == nil {
			return false, errs.E(errs.Conflict, "version %q is not like v1.2.3, so nobody can say what is older, and this node was told --no-downgrade", name)
		}
	}
	for _, i := range []int{1, 2, 3, 4, 5} {
		if c := compare(x[i], y[i], i == 4); c != 0 {
			return c < 0, nil
		}
	}
	return false, nil
}

// compare compares one part of two versions; what was to come is before what
// came, and its numbers count as numbers.
func compare(a, b string, coming bool) int {
	if coming {
		if a == "" || b == "" {
			return strings.Compare(b, a)
		}
		return natural(a, b)
	}
	x, _ := strconv.Atoi(a) // digits or nothing
	y, _ := strconv.Atoi(b)
	return x - y
}

// chunk is digits, or what is between them.
var chunk = regexp.MustCompile(`\d+|\D+`)

func natural(a, b string) int {
	x, y := chunk.FindAllString(a, -1), chunk.FindAllString(b, -1)
	for i := range min(len(x), len(y)) {
		m, err := strconv.Atoi(x[i])
		n, nerr := strconv.Atoi(y[i])
		switch {
		case err == nil && nerr == nil && m != n:
			return m - n
		case (err != nil || nerr != nil) && x[i] != y[i]:
			return strings.Compare(x[i], y[i])
		}
	}
	return len(x) - len(y)
}

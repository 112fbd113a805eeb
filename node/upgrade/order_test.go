package upgrade

import (
	"errors"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestOlderThan(t *testing.T) {
	// Each is older than the next.
	order := []string{
		"v0.9.9", "v1.0.0-alpha", "v1.0.0-rc2", "v1.0.0-rc10", "v1.0.0-rc10-3-gabc123", "v1.0.0", "v1.0.0-2-g1234567",
		"v1.0.0-10-gabcdef0-dirty", "v1.0.1", "1.2.0", "v1.10.0", "v2.0.0",
	}
	for i, a := range order {
		for j, b := range order {
			if got, err := olderThan(a, b); got != (i < j) || err != nil {
				t.Errorf("olderThan(%s, %s) = %v, %v", a, b, got, err)
			}
		}
	}
	for _, bad := range []string{"", "dev", "ba841d6", "v1.2", "v1.2.3.4", "v99999999999.0.0", "v1.2.3+x y"} {
		if _, err := olderThan(bad, "v1.0.0"); !errors.Is(err, errs.Conflict) {
			t.Errorf("olderThan(%q, v1.0.0): %v, want a conflict", bad, err)
		}
	}
}

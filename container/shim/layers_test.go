//go:build linux && cgo

package shim

import "testing"

func TestOlderThan(t *testing.T) {
	for release, want := range map[string]bool{
		"5.15.0-119-generic": true, "6.1.0": true, "6.14.11-arch1-1": true, "6.15.0": false, "6.15-rc1": false, "6.18.44": false, "7.0.1": false, "nonsense": false,
	} {
		if got := olderThan(release, 6, 15); got != want {
			t.Errorf("%s: %v, want %v", release, got, want)
		}
	}
}

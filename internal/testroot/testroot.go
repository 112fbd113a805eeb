// Package testroot guards tests that change the machine.
package testroot

import (
	"os"
	"testing"
)

// Env is the variable that allows tests to make namespaces, cgroups, mounts and links.
const Env = "BUOY_TEST_ROOT"

// Require skips t unless it may change the machine.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(Env) == "" {
		t.Skipf("SKIPPED: needs root and %s=1 (make test sets it)", Env)
	}
	if os.Geteuid() != 0 {
		t.Fatalf("%s is set but this is not root", Env)
	}
}

//go:build linux && cgo && !seccomp

package shim

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/buoy-edge/buoy/internal/errs"
)

func compile(*specs.LinuxSeccomp) (*os.File, error) {
	return nil, errs.E(errs.Invalid, "this buoy-shim is built without seccomp; build it with -tags seccomp")
}

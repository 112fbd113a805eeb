package app

import "github.com/buoy-edge/buoy/internal/errs"

// What a dialect may want to tell apart from other errors of the same kind.
const (
	ErrScaling  refusal = "scaling is in progress"               // errs.Conflict
	ErrLimits   refusal = "outside the limits of the app"        // errs.Conflict
	ErrUnplaced refusal = "no host has room for all replicas"    // errs.Unavailable
	ErrStore    refusal = "the controller's store is not usable" // errs.Unavailable
)

// refusal is a reason that errors are compared with.
type refusal string

func (r refusal) Error() string { return string(r) }

// Unwrap gives each its kind.
func (r refusal) Unwrap() error {
	switch r {
	case ErrScaling, ErrLimits:
		return errs.Conflict
	default:
		return errs.Unavailable
	}
}

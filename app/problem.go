package app

import (
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Problem is what is wrong with a field of a spec.
type Problem struct {
	Path string   // as manifests spell it: "spec.ports[0].containerPort"
	Text string   // "is 70000; it must be 1 to 65535"
	With []string // paths of what else it comes of: without them it may be none
}

// Problems are all that is wrong with a spec. It is an errs.Invalid.
type Problems []Problem

func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i, one := range p {
		texts[i] = one.Path + " " + one.Text
	}
	return strings.Join(texts, "; ")
}

// Is makes problems Invalid.
func (p Problems) Is(target error) bool { return target == errs.Invalid }

// Unwrap is for errs.KindOf.
func (p Problems) Unwrap() error { return errs.Invalid }

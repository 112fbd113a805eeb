//go:build !linux || !cgo

// Package nvml asks NVIDIA's management library about GPUs, and answers buoyd.
//
// Whatever it calls may be missing in the installed library, which ends the
// process if it is called all the same; may not be supported by a GPU; and may
// never return.
package nvml

import (
	"errors"

	"github.com/buoy-edge/buoy/gpu"
)

// Library is NVML, which this build has no access to.
type Library struct{}

// New gives a Library that says so.
func New(string) *Library { return &Library{} }

// Open says what is missing.
func (*Library) Open() error {
	return errors.New("buoy-gpu was built without cgo and cannot ask the NVIDIA driver: build it with CGO_ENABLED=1")
}

// Machine says nothing.
func (l *Library) Machine() (gpu.Machine, error) { return gpu.Machine{}, l.Open() }

// Figures says nothing.
func (l *Library) Figures() ([]gpu.Figures, error) { return nil, l.Open() }

// Follow returns at once.
func (*Library) Follow(func(gpu.Message)) {}

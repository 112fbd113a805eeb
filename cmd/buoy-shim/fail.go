//go:build linux && cgo && buoyfail

package main

import (
	"os"
	"syscall"
)

// failpoint kills the shim at the place that BUOY_FAIL_FILE names, once: the
// tests' way to die at every step.
func failpoint() func(string) {
	file := os.Getenv("BUOY_FAIL_FILE")
	if file == "" {
		return nil
	}
	return func(at string) {
		if want, err := os.ReadFile(file); err != nil || string(want) != at {
			return
		}
		os.Remove(file)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

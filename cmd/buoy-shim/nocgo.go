//go:build !linux || !cgo

// Command buoy-shim runs containers. buoy-reaper starts it.
package main

import "os"

func main() {
	os.Stderr.WriteString("buoy-shim: built without cgo, it cannot start containers\n")
	os.Exit(1)
}

// Package version says which buoy this is.
package version

// Version is set by the linker: -X github.com/buoy-edge/buoy/internal/version.Version=v1.2.3.
var Version = "dev"

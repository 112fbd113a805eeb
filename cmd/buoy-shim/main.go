//go:build linux && cgo

// Command buoy-shim runs containers. buoy-reaper starts it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // its C runs before Go starts

	"github.com/buoy-edge/buoy/container/shim"
)

// The same binary is the first stage of every container's first process; that
// must be settled before anything else of ours runs. The stage lives for
// milliseconds: collecting garbage in it only delays the start.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		debug.SetGCPercent(-1)
		libcontainer.Init()
	}
}

func main() { os.Exit(run(context.Background(), os.Args, os.Stderr)) }

func run(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) != 4 || args[1] != "serve" {
		fmt.Fprintln(stderr, "usage: buoy-shim serve RUN_DIR REAPER_FD (buoy-reaper starts it)")
		return 2
	}
	fd, err := strconv.Atoi(args[3])
	if err != nil {
		fmt.Fprintf(stderr, "buoy-shim: %q is not a file descriptor\n", args[3])
		return 2
	}
	s, err := shim.New(shim.Config{RunDir: args[2], ReaperFD: fd, Program: args[0], Stderr: stderr, Fail: failpoint()})
	if err == nil {
		err = s.Run(ctx)
	}
	if err != nil {
		fmt.Fprintf(stderr, "buoy-shim: %v\n", err)
		return 1
	}
	return 0
}

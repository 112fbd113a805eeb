// Command buoy-gpu asks the NVIDIA driver's library about GPUs for buoyd, which
// starts it where such a driver is loaded: questions come on standard input,
// answers go to standard output, a line of JSON each.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/buoy-edge/buoy/gpu/nvml"
	"github.com/buoy-edge/buoy/internal/version"
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := "/"
	switch {
	case len(args) == 2 && args[1] == "--version":
		fmt.Fprintln(stdout, "buoy-gpu "+version.Version)
		return 0
	case len(args) == 3 && args[1] == "--root":
		root = args[2]
	case len(args) > 1:
		fmt.Fprintln(stderr, `usage: buoy-gpu [--root DIR] (buoyd starts it), then {"ID":1,"Ask":"machine"} or {"ID":2,"Ask":"figures"}`)
		return 2
	}
	if err := nvml.Serve(stdin, stdout, nvml.New(root)); err != nil {
		fmt.Fprintf(stderr, "buoy-gpu: %v\n", err)
		return 1
	}
	return 0
}

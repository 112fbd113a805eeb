// Command buoy-flist reads, writes and serves flists. buoyd starts it as "buoy-flist serve", one a node; the other verbs
// work on files, for people and for "buoy flist".
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/buoy-edge/buoy/internal/version"
)

// verb is one thing the program does. Run returns the exit code: 2 for a wrong command line.
type verb struct {
	name  string
	usage string // of the arguments, and what it does
	run   func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

// verbs are in the order of the help text.
func verbs() []verb {
	return append([]verb{
		{"serve", "--run DIR --data DIR   mount flists and fetch their chunks, for buoyd", serveFlists},
		{"version", "   say which buoy this is", printVersion},
	}, tools()...)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out, code := stderr, 2
	switch {
	case len(args) > 0 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help"):
		out, code = stdout, 0
	case len(args) > 0:
		for _, v := range verbs() {
			if v.name == args[0] {
				return v.run(ctx, args[1:], stdout, stderr)
			}
		}
		fmt.Fprintf(stderr, "buoy-flist: there is no verb %q\n", args[0])
	}
	fmt.Fprintln(out, "usage:")
	for _, v := range verbs() {
		fmt.Fprintln(out, "  buoy-flist", v.name, v.usage)
	}
	return code
}

func printVersion(_ context.Context, _ []string, stdout, _ io.Writer) int {
	fmt.Fprintln(stdout, "buoy-flist", version.Version)
	return 0
}

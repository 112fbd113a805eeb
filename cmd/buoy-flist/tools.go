package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// console is where a verb writes to.
type console struct{ stdout, stderr io.Writer }

// action is the work of a verb, once its flags are read.
type action func(ctx context.Context, c console, args []string) error

// errUsage is a wrong command line.
var errUsage = errors.New("wrong command line")

// tools are the verbs that work on files.
func tools() []verb {
	return []verb{
		tool("pack", "DIR|IMAGE -o FILE --store URL   store the chunks of a directory or image and write its flist", 1, 1, pack),
		tool("inspect", "FILE [--json]   what an flist has and says", 1, 1, inspect),
		tool("ls", "FILE [PATH] [-l]   list files", 1, 2, list),
		tool("cat", "FILE PATH [--store URL]   write the content of a file", 2, 2, cat),
		tool("verify", "FILE [--store URL]   fetch and check every chunk", 1, 1, verify),
		tool("unpack", "FILE DIR [--store URL]   make the files in an empty directory", 2, 2, unpack),
		tool("merge", "FILE… -o FILE   lay flists over one another, the last one on top", 1, -1, merge),
	}
}

// tool makes a verb of a function that declares flags and returns what uses them.
func tool(name, usage string, least, most int, set func(*pflag.FlagSet) action) verb {
	return verb{name, usage, func(ctx context.Context, args []string, stdout, stderr io.Writer) int {
		flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
		flags.Usage, flags.SortFlags = func() {}, false
		flags.SetOutput(io.Discard)
		do := set(flags)
		err := flags.Parse(args)
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprintf(stdout, "usage: buoy-flist %s %s\n\n%s", name, usage, flags.FlagUsages())
			return 0
		}
		if err == nil && (flags.NArg() < least || most >= 0 && flags.NArg() > most) {
			err = fmt.Errorf("wrong number of arguments: %d", flags.NArg())
		}
		if err != nil {
			fmt.Fprintf(stderr, "buoy-flist %s: %v; usage: buoy-flist %s %s\n", name, err, name, usage)
			return 2
		}
		err = do(ctx, console{stdout, stderr}, flags.Args())
		switch {
		case err == nil:
			return 0
		case errors.Is(err, errSaid):
		case errors.Is(err, context.Canceled) && ctx.Err() != nil:
			fmt.Fprintf(stderr, "buoy-flist %s: interrupted\n", name)
		default:
			fmt.Fprintf(stderr, "buoy-flist %s: %v\n", name, err)
		}
		if errors.Is(err, errUsage) {
			return 2
		}
		return 1
	}}
}

// errSaid is an error of which all is said.
var errSaid = errors.New("said")

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/serve"
	"github.com/buoy-edge/buoy/internal/confine"
)

// memoryLimit makes the collector work harder before the process takes more; it is no bound. Metadata of a list of 40,000
// files takes 20 MiB, and 1 MiB goes to each read that is being answered.
const memoryLimit = 256 << 20

func serveFlists(ctx context.Context, args []string, _, stderr io.Writer) int {
	flags := flag.NewFlagSet("buoy-flist serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	run := flags.String("run", "/run/buoy", "`directory` of the socket")
	data := flags.String("data", "/var/lib/buoy/flist", "`directory` of the chunk cache")
	budget := flags.Int64("budget", 0, "`bytes` of chunks that are kept; 0: as many as the reserve allows")
	reserve := flags.Int64("reserve", 0, "`bytes` of the disk that stay free")
	timeout := flags.Duration("timeout", 30*time.Second, "how `long` a read waits for chunks before it fails")
	verbose := flags.Bool("debug", false, "log more")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err == nil && flags.NArg() > 0:
		fmt.Fprintf(stderr, "buoy-flist serve: what is %q?\n", flags.Arg(0))
		return 2
	case err != nil:
		return 2
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	debug.SetMemoryLimit(memoryLimit)
	if err := runServer(ctx, *run, *data, *budget, *reserve, *timeout, slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))); err != nil {
		fmt.Fprintln(stderr, "buoy-flist serve:", err)
		return 1
	}
	return 0
}

func runServer(ctx context.Context, run, data string, budget, reserve int64, timeout time.Duration, log *slog.Logger) error {
	run, err := filepath.Abs(run)
	if err != nil {
		return err
	}
	if data, err = filepath.Abs(data); err != nil {
		return err
	}
	if err := confined(); err != nil {
		log.Warn("this process may do more than it needs", "error", err)
	}
	s, err := serve.New(serve.Config{RunDir: run, DataDir: data, Budget: budget, Reserve: reserve, Deadline: timeout, Log: log})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// confined leaves to a server what it needs, since it reads what comes from
// strangers: no other program and no other process but for the descriptors of
// the reaper, of what root may do the owners and devices that it unpacks.
func confined() error {
	return errors.Join(confine.Capabilities(
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_MKNOD, unix.CAP_SETFCAP,
		unix.CAP_SYS_PTRACE,   // for those descriptors
		unix.CAP_SYS_ADMIN,    // to have the kernel read files by itself
		unix.CAP_SYS_RESOURCE, // not to be killed first when memory is short
	), confine.Calls())
}

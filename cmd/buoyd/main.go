// Command buoyd is the daemon of a node: it runs containers on this machine and
// answers for them over REST.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/buoy-edge/buoy/internal/version"
	"github.com/buoy-edge/buoy/node/boot"
)

func main() {
	switch filepath.Base(os.Args[0]) { // in the initramfs of "make boot" these are links to this program
	case "init":
		fmt.Fprintln(os.Stderr, "buoy:", initProcess())
		os.Exit(1)
	case "modprobe":
		os.Exit(exitCode(boot.Modprobe(os.Args[1:]), os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// verbs are the commands beside serving.
var verbs = []string{"boot", "config", "doctor", "halt", "reset", "seal", "version"}

// run is the program; its value is the exit code: 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	started, err := newStarter(args)
	if err != nil {
		return exitCode(err, stderr)
	}
	verb, name := serve, ""
	if len(args) > 0 {
		switch args[0] {
		case "reset":
			verb, args = func(ctx context.Context, cfg config, log *slog.Logger) error { return reset(ctx, cfg, log, stdout) }, args[1:]
		case "doctor":
			verb, args = func(ctx context.Context, cfg config, log *slog.Logger) error { return diagnose(ctx, cfg, log, stdout) }, args[1:]
		case "seal":
			if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
				return exitCode(sealOne(args[1], args[2:], os.Stdin, stderr), stderr)
			}
			verb, args = func(_ context.Context, cfg config, log *slog.Logger) error { return sealAll(cfg, log, stdout) }, args[1:]
		case "halt":
			verb, args = halt, args[1:]
		case "config":
			if err := configure(args[1:], stdout, stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
				fmt.Fprintln(stderr, "buoyd:", err)
				return 2
			}
			return 0
		case "machine":
			verb, args = serveMachine, args[1:]
		case "boot":
			return exitCode(bootOthers(ctx, args[1:], stderr), stderr)
		case "man":
			fmt.Fprint(stdout, man())
			return 0
		case "version":
			fmt.Fprintln(stdout, "buoyd", version.Version)
			return 0
		}
	}
	if len(args) < len(started.args) {
		name = started.args[0]
	}
	if code, done := started.hand(ctx, name, args, stderr); done {
		return code
	}
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "buoyd:", err)
		return 2
	}
	cfg.started = started
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: cfg.level()}))
	if err = verb(ctx, cfg, log); errors.Is(err, errUpgrade) {
		err = started.relaunch()
	}
	return exitCode(err, stderr)
}

// exitCode tells of an error, and is what the program ends with.
func exitCode(err error, stderr io.Writer) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	fmt.Fprintln(stderr, "buoyd:", err)
	if _, wrong := errors.AsType[usageError](err); wrong {
		return 2
	}
	return 1
}

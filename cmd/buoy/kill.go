package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) killCommand() *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:   "kill CONTAINER…",
		Short: "Send a signal to the first process of containers",
		Long: `Send a signal to the first process of containers, KILL if none is named. One that
is ended by KILL, or by its own stop signal, stays halted; after other signals its
restart policy applies.`,
		Args: takes(1, -1, "one or more containers"),
		RunE: func(cmd *cobra.Command, args []string) error {
			sig, err := parseSignal(text)
			if err != nil {
				return err
			}
			return c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
				return c.each(ctx, names, func(name string) error { return about(errNoContainer, b.Kill(ctx, name, int(sig))) })
			})(cmd, args)
		},
	}
	cmd.Flags().StringVarP(&text, "signal", "s", "KILL", "`SIGNAL`, as HUP, SIGHUP or 1")
	return cmd
}

// parseSignal reads a name, with or without SIG, or a number.
func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= 64 {
		return syscall.Signal(n), nil
	}
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("--signal %q: want a signal, as HUP, SIGHUP or 1", text)
}

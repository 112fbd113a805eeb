package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) stopCommand() *cobra.Command {
	return c.onEach("stop", "Stop containers", (*buoy.Client).Stop)
}

func (c *cli) startCommand() *cobra.Command {
	return c.onEach("start", "Start halted containers", (*buoy.Client).Start)
}

func (c *cli) restartCommand() *cobra.Command {
	return c.onEach("restart", "Stop containers and start them again", (*buoy.Client).Restart)
}

// onEach is a command that does one thing to each container named.
func (c *cli) onEach(verb, short string, do func(*buoy.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " CONTAINER…",
		Short: short,
		Args:  takes(1, -1, "one or more containers"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error { return about(errNoContainer, do(b, ctx, name)) })
		}),
	}
}

func (c *cli) rmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm CONTAINER…",
		Short: "Remove containers",
		Args:  takes(1, -1, "one or more containers"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error { return remove(ctx, b, name, force) })
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "stop those that run; those that are not there are fine")
	return cmd
}

func remove(ctx context.Context, b *buoy.Client, name string, force bool) error {
	if !force {
		one, err := b.Container(ctx, name)
		if err != nil {
			return about(errNoContainer, err)
		}
		if !one.Ended() {
			return fmt.Errorf("container %q is not halted: stop it first, or use rm -f", name)
		}
	}
	err := b.Delete(ctx, name)
	if errors.Is(err, buoy.ErrNotFound) {
		return nil
	}
	return err
}

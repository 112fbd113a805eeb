package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/size"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Look after a node as a whole",
		Args:  noSuchVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.upgradeCommand())
	return cmd
}

// upgrade is what the flags of "node upgrade" say.
type upgrade struct {
	window         time.Duration
	detach, cancel bool
}

func (c *cli) upgradeCommand() *cobra.Command {
	var u upgrade
	cmd := &cobra.Command{
		Use:   "upgrade [FILE|URL]",
		Short: "Replace the programs of a node by those of a signed bundle",
		Long: `Sends a bundle to the node, or has the node get it from a URL by itself, and
waits for the end. Containers run on. The new programs are on trial: if they are
not healthy within the window, the node goes back to the old ones by itself, and
the exit code is not 0. Without a bundle it says which programs the node runs
and how the last upgrade went.`,
		Args: takes(0, 1, "a bundle, or nothing"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			switch {
			case u.cancel && len(args) > 0:
				return errors.New("--cancel ends what is being fetched, and takes no bundle")
			case u.cancel:
				return b.CancelUpgrade(ctx)
			case len(args) == 0:
				s, err := b.Upgrading(ctx)
				if err != nil {
					return err
				}
				return c.upgradeState(s)
			}
			return c.upgrade(ctx, b, args[0], u)
		}),
	}
	f := cmd.Flags()
	f.DurationVar(&u.window, "window", 0, "`time` that the new programs have to become healthy (default 5m)")
	f.BoolVarP(&u.detach, "detach", "d", false, "do not wait for the end")
	f.BoolVar(&u.cancel, "cancel", false, "end the fetch of a bundle")
	return cmd
}

func (c *cli) upgrade(ctx context.Context, b *buoy.Client, from string, u upgrade) error {
	before, err := b.Upgrading(ctx)
	if err != nil {
		return err
	}
	if strings.Contains(from, "://") {
		_, err = b.UpgradeFrom(ctx, from, u.window)
	} else {
		err = sendBundle(ctx, b, from, u.window)
	}
	if err != nil || u.detach {
		return err
	}
	return c.awaitUpgrade(ctx, b, before)
}

func sendBundle(ctx context.Context, b *buoy.Client, file string, window time.Duration) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = b.Upgrade(ctx, in, window)
	return err
}

// awaitUpgrade waits for the end of an upgrade. Until then nobody may answer for
// a while: buoyd restarts, or its controller cannot reach it.
func (c *cli) awaitUpgrade(ctx context.Context, b *buoy.Client, before buoy.UpgradeState) error {
	told := ""
	for {
		s, err := b.Upgrading(ctx)
		if err == nil && s.Phase == "idle" && s.Last != nil && (before.Last == nil || !s.Last.Time.Equal(before.Last.Time)) {
			if err := c.upgradeState(s); err != nil {
				return err
			}
			if s.Last.Result != "confirmed" {
				return exitError(exitOurs)
			}
			return nil
		}
		if err != nil && !errors.Is(err, buoy.ErrUnavailable) {
			if _, connect := errors.AsType[*buoy.ConnectError](err); !connect {
				return err
			}
		}
		if text := phaseText(s); err == nil && text != told {
			told = text
			fmt.Fprintln(c.stderr, text)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// phaseText is what goes on.
func phaseText(s buoy.UpgradeState) string {
	switch {
	case s.Phase == "fetching" && s.Fetch != nil && s.Fetch.Total > 0:
		return fmt.Sprintf("fetching: %s of %s", size.Text(s.Fetch.Got), size.Text(s.Fetch.Total))
	case s.Trial != nil:
		return fmt.Sprintf("trial: %s instead of %s, healthy within %v or back", s.Trial.Version, s.Trial.From, time.Duration(s.Trial.Window)*time.Second)
	}
	return s.Phase
}

func (c *cli) upgradeState(s buoy.UpgradeState) error {
	if c.output == "json" {
		return c.json(s)
	}
	fmt.Fprintf(c.stdout, "runs       %s\ninstalled  %s\nnow        %s\n", s.Version, s.Installed, phaseText(s))
	if l := s.Last; l != nil {
		fmt.Fprintf(c.stdout, "last       %s %s %s: %s (%s)\n", orElse(l.Version, "-"), l.Result, since(l.Time), l.Message, l.Reason)
	}
	return nil
}

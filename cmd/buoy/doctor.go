package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what the machine lacks, what that costs and how to mend it",
		Long: `Look at the kernel, cgroups, overlayfs, nftables, FUSE, modules, clock, disk, and
whether registries and the controller can be reached. It changes nothing. A
buoyd that is not running is found to be so, and its machine looked at.

The exit code is 1 if something is found that keeps containers from running.`,
		Args: takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			all, err := c.examine(ctx, b)
			if err != nil {
				return err
			}
			if err := c.report(all); err != nil {
				return err
			}
			for _, f := range all {
				if f.Status == "failure" {
					return exitError(1)
				}
			}
			return nil
		}),
	}
}

// examine asks the daemon, or looks at this machine if it should be on it and is not there.
func (c *cli) examine(ctx context.Context, b *buoy.Client) (all []buoy.Finding, err error) {
	all, err = b.Doctor(ctx)
	_, away := errors.AsType[*buoy.ConnectError](err)
	if !away || errors.Is(err, buoy.ErrForbidden) || !strings.HasPrefix(c.address(), "unix://") {
		return all, err
	}
	raw, perr := c.askProgram(ctx, "buoyd", "doctor")
	if perr != nil {
		return nil, errors.Join(err, perr)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("decode what buoyd has found: %w", err)
	}
	daemon := buoy.Finding{
		Check: "buoyd", Status: "failure", Found: err.Error(),
		Cost: "containers run on, and nothing is started or restarted", Mend: "systemctl start buoyd, or sudo buoyd",
	}
	return append([]buoy.Finding{daemon}, all...), nil
}

// report shows findings: what is well in a line, what is not with its cost and its mending.
func (c *cli) report(all []buoy.Finding) error {
	if c.output == "json" {
		return c.json(all)
	}
	marks := map[string]string{"ok": "ok", "warning": "WARN", "failure": "FAIL"}
	for _, f := range all {
		fmt.Fprintf(c.stdout, "%-4s  %-16s %s\n", marks[f.Status], f.Check, f.Found)
		if f.Cost != "" {
			fmt.Fprintf(c.stdout, "%23scosts: %s\n", "", f.Cost)
		}
		if f.Mend != "" {
			fmt.Fprintf(c.stdout, "%23smend:  %s\n", "", f.Mend)
		}
	}
	return nil
}

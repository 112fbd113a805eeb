package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) psCommand() *cobra.Command {
	var all, quiet bool
	cmd := &cobra.Command{
		Use:     "ps",
		Aliases: []string{"list"},
		Short:   "List containers",
		Args:    takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			return c.ps(ctx, b, all, quiet)
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "halted ones too")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only names")
	return cmd
}

func (c *cli) ps(ctx context.Context, b *buoy.Client, all, quiet bool) error {
	var raw []json.RawMessage
	if err := b.Do(ctx, http.MethodGet, "/nodes/{node}/containers", nil, &raw); err != nil {
		return err
	}
	kept, rows, names := []json.RawMessage{}, [][]string{}, []string{}
	for _, text := range raw {
		var one buoy.ContainerSummary
		if err := json.Unmarshal(text, &one); err != nil {
			return fmt.Errorf("decode the list of containers: %w", err)
		}
		if !all && stateOf(one) == "halted" {
			continue
		}
		kept = append(kept, text)
		names = append(names, one.Name)
		rows = append(rows, []string{one.Name, imageOf(one), stateText(one), since(one.Created), strings.Join(one.Ports, ",")})
	}
	switch {
	case quiet:
		return c.lines(names)
	case c.output == "json":
		return c.json(kept)
	}
	return c.table([]string{"NAME", "IMAGE", "STATE", "AGE", "PORTS"}, rows)
}

func stateOf(one buoy.ContainerSummary) string {
	if one.State != "" {
		return one.State
	}
	return one.Status
}

// stateText is the state, with the health of one that runs and is checked, and
// the reason of one that does not.
func stateText(one buoy.ContainerSummary) string {
	state := stateOf(one)
	switch {
	case state == "running" && one.Health == nil, state != "running" && one.Reason == "":
		return state
	case state != "running":
		return fmt.Sprintf("%s (%s)", state, one.Reason)
	case one.Health.Status == "unknown":
		return "running (health: unknown)"
	}
	return fmt.Sprintf("running (%s)", one.Health.Status)
}

func imageOf(one buoy.ContainerSummary) string {
	if one.Flist != "" {
		return one.Flist
	}
	return one.Image
}

func (c *cli) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect CONTAINER…",
		Short: "Print all that is known of containers, in JSON",
		Long:  "Print all that is known of containers: one JSON object each.",
		Args:  takes(1, -1, "one or more containers"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			for _, name := range names {
				var raw json.RawMessage
				path := "/nodes/{node}/containers/" + url.PathEscape(name)
				if err := b.Do(ctx, http.MethodGet, path, nil, &raw); err != nil {
					return about(errNoContainer, err)
				}
				if err := c.json(raw); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/version"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) nodesCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes that buoyd knows",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			var raw json.RawMessage
			if err := b.Do(ctx, http.MethodGet, "/nodes", nil, &raw); err != nil {
				return err
			}
			var nodes []buoy.Node
			if err := json.Unmarshal(raw, &nodes); err != nil {
				return fmt.Errorf("decode the list of nodes: %w", err)
			}
			ids, rows := []string{}, [][]string{}
			for _, n := range nodes {
				ids = append(ids, n.ID)
				rows = append(rows, []string{n.ID, n.Hostname, n.IPAddress, n.Status, n.Version})
			}
			switch {
			case quiet:
				return c.lines(ids)
			case c.output == "json":
				return c.json(raw)
			}
			return c.table([]string{"ID", "HOSTNAME", "ADDRESS", "STATUS", "VERSION"}, rows)
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only ids")
	return cmd
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which versions of buoy and buoyd these are",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			server, err := b.Version(ctx)
			if c.output == "json" {
				answer := map[string]any{"client": map[string]string{"version": version.Version}, "server": nil}
				if err == nil {
					answer["server"] = server.Raw
				}
				if werr := c.json(answer); werr != nil {
					return werr
				}
				return err
			}
			fmt.Fprintf(c.stdout, "buoy    %s\n", version.Version)
			if err == nil {
				fmt.Fprintf(c.stdout, "buoyd   %s\n", server.Version)
			}
			return err
		}),
	}
}

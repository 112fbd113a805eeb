package main

import (
	"context"
	goruntime "runtime"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/version"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) nodesCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes that buoyd knows",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			nodes, items, err := fetch[buoy.Node](ctx, b, "/nodes")
			if err != nil {
				return err
			}
			l := listing{raw: items, items: items, of: buoy.Node{}, head: []string{"ID", "HOSTNAME", "ADDRESS", "STATUS", "VERSION"}}
			for _, n := range nodes {
				l.add(n.ID, n.ID, n.Hostname, n.IPAddress, n.Status, n.Version)
			}
			return c.list(l, f)
		}),
	}
	f.register(cmd, "ids")
	return cmd
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which versions of buoy and buoyd these are",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			here := map[string]string{"version": version.Version, "go": goruntime.Version(), "os": goruntime.GOOS, "arch": goruntime.GOARCH}
			server, err := b.Version(ctx)
			if c.output == "json" {
				answer := map[string]any{"client": here, "server": nil}
				if err == nil {
					answer["server"] = server.Raw
				}
				if werr := c.json(answer); werr != nil {
					return werr
				}
				return err
			}
			rows := [][]string{{"buoy", here["version"], here["go"], here["os"] + "/" + here["arch"]}}
			if err == nil {
				rows = append(rows, []string{"buoyd", server.Version, server.Go, server.OS + "/" + server.Arch})
			}
			if werr := c.table([]string{"PROGRAM", "VERSION", "GO", "PLATFORM"}, rows); werr != nil {
				return werr
			}
			return err
		}),
	}
}

package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) volumesCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "volumes", Aliases: []string{"volume"},
		Short: "List and remove volumes, which outlast their containers",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			all, items, err := fetch[buoy.Volume](ctx, b, "/nodes/{node}/volumes")
			if err != nil {
				return err
			}
			l := listing{raw: items, items: items, of: buoy.Volume{}, head: []string{"VOLUME", "CONTAINERS"}}
			for _, v := range all {
				l.add(v.Name, v.Name, strings.Join(v.Containers, ","))
			}
			return c.list(l, f)
		}),
	}
	f.register(cmd, "names")
	cmd.AddCommand(&cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove volumes and all that is in them",
		Args:  takes(1, -1, "names of volumes"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error { return b.DeleteVolume(ctx, name) })
		}),
	})
	return cmd
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) volumesCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "volumes",
		Short: "List and remove volumes, which outlast their containers",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			var raw json.RawMessage
			if err := b.Do(ctx, http.MethodGet, "/nodes/{node}/volumes", nil, &raw); err != nil {
				return err
			}
			var all []buoy.Volume
			if err := json.Unmarshal(raw, &all); err != nil {
				return fmt.Errorf("decode the list of volumes: %w", err)
			}
			names, rows := []string{}, [][]string{}
			for _, v := range all {
				names = append(names, v.Name)
				rows = append(rows, []string{v.Name, strings.Join(v.Containers, ",")})
			}
			switch {
			case quiet:
				return c.lines(names)
			case c.output == "json":
				return c.json(raw)
			}
			return c.table([]string{"VOLUME", "CONTAINERS"}, rows)
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only names")
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

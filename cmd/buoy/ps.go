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
	var all bool
	var filters []string
	var f listFlags
	cmd := &cobra.Command{
		Use:     "ps",
		Aliases: []string{"list"},
		Short:   "List containers",
		Args:    takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			filter, err := parseFilter(filters)
			if err != nil {
				return err
			}
			return c.ps(ctx, b, filter, all, f)
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "halted ones too")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "only those of a `KEY=VALUE`: name=PART, status=STATE, image=REF, label=KEY or label=KEY=VALUE; one of each key has to fit, and all labels")
	f.register(cmd, "names")
	return cmd
}

func (c *cli) ps(ctx context.Context, b *buoy.Client, filter psFilter, all bool, f listFlags) error {
	list, items, err := fetch[buoy.ContainerSummary](ctx, b, "/nodes/{node}/containers")
	if err != nil {
		return err
	}
	l := listing{
		of:   buoy.ContainerSummary{},
		head: []string{"NAME", "IMAGE", "STATE", "AGE", "PORTS"}, wide: []string{"HOSTNAME", "MESSAGE"},
	}
	kept := []json.RawMessage{}
	for i, one := range list {
		if !filter.takes(one, all) {
			continue
		}
		kept = append(kept, items[i])
		l.add(one.Name, one.Name, imageOf(one), stateText(one), since(one.Created), strings.Join(one.Ports, ","), one.Hostname, one.Message)
	}
	l.raw, l.items = kept, kept
	return c.list(l, f)
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
	var f listFlags
	cmd := &cobra.Command{
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
				err := c.list(listing{raw: raw, items: []json.RawMessage{raw}, of: buoy.Container{}}, f)
				if err != nil {
					return err
				}
			}
			return nil
		}),
	}
	f.registerFormat(cmd)
	return cmd
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) bridgesCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "bridges", Aliases: []string{"bridge"},
		Short: "List, make and remove bridges that containers have NICs on",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			all, items, err := fetch[buoy.Bridge](ctx, b, "/nodes/{node}/bridges")
			if err != nil {
				return err
			}
			l := listing{
				raw: items, items: items, of: buoy.Bridge{},
				head: []string{"BRIDGE", "STATUS", "MODE", "CIDR", "RANGE", "NAT"}, wide: []string{"MAC"},
			}
			for _, br := range all {
				l.add(br.Name, br.Name, br.Status, br.NetworkMode, br.Setting.CIDR, givenRange(br), yesNo(br.NAT), br.HWAddr)
			}
			return c.list(l, f)
		}),
	}
	f.register(cmd, "names")
	cmd.AddCommand(c.bridgeCreateCommand(), c.bridgeRemoveCommand())
	return cmd
}

func givenRange(b buoy.Bridge) string {
	if b.Setting.Start == "" && b.Setting.End == "" {
		return ""
	}
	return b.Setting.Start + "-" + b.Setting.End
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (c *cli) bridgeCreateCommand() *cobra.Command {
	var bridge buoy.Bridge
	var dhcp bool
	var given string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a bridge",
		Example: `  buoy bridges create lab --cidr 10.20.0.1/24 --nat
  buoy bridges create shop --cidr 10.30.0.1/24 --dhcp --range 10.30.0.100-10.30.0.199
  buoy run -d --nic type=bridge,id=lab IMAGE`,
		Args: takes(1, 1, "the name of the bridge"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			bridge.Name = names[0]
			bridge.NetworkMode = "none"
			if bridge.Setting.CIDR != "" {
				bridge.NetworkMode = "static"
			}
			if dhcp {
				bridge.NetworkMode = "dnsmasq"
			}
			var ok bool
			if bridge.Setting.Start, bridge.Setting.End, ok = strings.Cut(given, "-"); given != "" && !ok {
				return fmt.Errorf("--range %q: want FIRST-LAST, as in 10.30.0.100-10.30.0.199", given)
			}
			if err := b.CreateBridge(ctx, bridge); err != nil {
				return err
			}
			return c.lines(names)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&bridge.Setting.CIDR, "cidr", "", "`address` of the bridge with its length; containers get theirs from this network")
	f.StringVar(&given, "range", "", "`FIRST-LAST` address to give to containers (default: all of the network)")
	f.BoolVar(&dhcp, "dhcp", false, "answer to DHCP on the bridge")
	f.BoolVar(&bridge.NAT, "nat", false, "the way out through the node")
	f.StringVar(&bridge.HWAddr, "hwaddr", "", "`MAC` of the bridge")
	return cmd
}

func (c *cli) bridgeRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm BRIDGE…",
		Aliases: []string{"delete"},
		Short:   "Remove bridges that no container uses",
		Args:    takes(1, -1, "one or more bridges"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			for _, name := range names {
				if _, err := b.Bridge(ctx, name); err != nil { // to remove one that is not there is a success for the API
					return err
				}
				if err := b.DeleteBridge(ctx, name); err != nil {
					return err
				}
				if err := c.lines([]string{name}); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

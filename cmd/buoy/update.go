package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) updateCommand() *cobra.Command {
	var nics, publish []string
	cmd := &cobra.Command{
		Use:   "update CONTAINER",
		Short: "Change the network of a container while it runs",
		Long: `Change the network of a container while it runs. The container has exactly the
interfaces, or the ports, that are given, so name those that are to stay as well:
they are changed in place, and connections through ports that stay go on. What is
not given at all, interfaces or ports, stays as it is. --nic= and --publish= take
all away; a container with ports needs its default NIC.`,
		Example: `  buoy update web --nic type=default --nic type=vlan,id=100,cidr=10.1.0.5/24
  buoy update web -p 8080:80 -p 8443:443`,
		Args: takes(1, 1, "a container"),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := networkUpdate(nics, publish, cmd.Flags().Changed("nic"), cmd.Flags().Changed("publish"))
			if err != nil {
				return err
			}
			return c.talk(func(ctx context.Context, b *buoy.Client, names []string) error { return b.Update(ctx, names[0], u) })(cmd, args)
		},
	}
	cmd.Flags().StringArrayVar(&nics, "nic", nil, nicHelp)
	cmd.Flags().StringArrayVarP(&publish, "publish", "p", nil, "port, or range like 8000-8010: `[ADDRESS:]HOST:GUEST[/udp]`; ADDRESS may be an interface or a prefix of the node")
	return cmd
}

func networkUpdate(nics, publish []string, newNICs, newPorts bool) (u buoy.ContainerUpdate, err error) {
	if !newNICs && !newPorts {
		return u, fmt.Errorf("nothing to change: give --nic or --publish")
	}
	if newNICs {
		all := []buoy.NIC{}
		for _, text := range nics {
			if text == "" {
				continue
			}
			nic, err := parseNIC(text)
			if err != nil {
				return u, err
			}
			all = append(all, nic)
		}
		u.NICs = &all
	}
	if newPorts {
		all := []string{}
		for _, text := range publish {
			if text == "" {
				continue
			}
			port, err := parsePort(text)
			if err != nil {
				return u, err
			}
			all = append(all, port)
		}
		u.Ports = &all
	}
	return u, nil
}

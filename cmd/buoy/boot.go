package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) bootCommand() *cobra.Command {
	return &cobra.Command{
		Use: "boot serve --interface NAME [flags]", DisableFlagsInUseLine: true, DisableFlagParsing: true,
		Short: "Boot other machines over the network, into buoy; as root",
		Long: `Boot the machines on a link over the network, into buoy: DHCP beside the server
that is there (ProxyDHCP) or in its place (--dhcp), TFTP for iPXE, HTTP for kernel
and initramfs. It needs no running buoyd, and runs until it is interrupted.

  buoy boot serve --interface eth1 --param buoy.controller=http://10.9.0.1:8080

"buoy boot serve --help" has all flags; docs/bare-metal.md the whole way.
Exit codes: 1 when it fails, 2 for a wrong command line.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "-h" || args[0] == "--help" {
				return cmd.Help()
			}
			return c.handOver("buoyd", append([]string{"boot"}, args...))
		},
	}
}

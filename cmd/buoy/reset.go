package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (c *cli) resetCommand() *cobra.Command {
	var yes bool
	var data, run string
	cmd := &cobra.Command{
		Use: "reset --yes [--data DIR] [--run DIR]", DisableFlagsInUseLine: true,
		Short: "Remove all that a buoyd ever made on this machine",
		Long: `Remove all that a buoyd ever made on this machine: its containers, images,
logs, networks and directories. It works without a running buoyd; stop that
first if there is one.`,
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("reset removes every container, image and log of the instance; add --yes if that is meant")
			}
			args := []string{"reset", "--yes"}
			for _, flag := range []struct{ name, value string }{{"data", data}, {"run", run}} {
				if cmd.Flags().Changed(flag.name) {
					args = append(args, "--"+flag.name, flag.value)
				}
			}
			return c.handOver("buoyd", args)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "yes, remove it all")
	cmd.Flags().StringVar(&data, "data", "", "data `directory` of the instance (default: buoyd's own)")
	cmd.Flags().StringVar(&run, "run", "", "run `directory` of the instance (default: buoyd's own)")
	return cmd
}

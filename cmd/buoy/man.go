package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/buoy-edge/buoy/internal/manual"
	"github.com/buoy-edge/buoy/internal/version"
)

// manCommand writes the manual page that packages install.
func (c *cli) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man", Hidden: true, Short: "Write the manual page",
		Args: takes(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			root := cmd.Root()
			p := manual.New("buoy", 1, version.Version, root.Short)
			p.Section("SYNOPSIS")
			p.Text("buoy COMMAND [ARGUMENTS]")
			p.Section("DESCRIPTION")
			p.Text(root.Long)
			p.Section("OPTIONS OF ALL COMMANDS")
			manFlags(p, root.PersistentFlags())
			p.Section("COMMANDS")
			manCommands(p, root)
			p.Section("SEE ALSO")
			p.Text("buoyd(8)")
			_, err := fmt.Fprint(c.stdout, p)
			return err
		},
	}
}

func manCommands(p *manual.Page, above *cobra.Command) {
	for _, cmd := range above.Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "completion" {
			continue
		}
		if cmd.Runnable() && !cmd.HasSubCommands() {
			p.Subsection(cmd.UseLine())
			text := cmd.Long
			if text == "" {
				text = cmd.Short + "."
			}
			p.Text(text)
			manFlags(p, cmd.LocalFlags())
		}
		manCommands(p, cmd)
	}
}

func manFlags(p *manual.Page, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if value != "" {
			term += " " + value
		}
		p.Item(term, usage)
	})
}

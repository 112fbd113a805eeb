package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) flistCommand() *cobra.Command {
	return &cobra.Command{
		Use: "flist VERB …", DisableFlagsInUseLine: true, DisableFlagParsing: true,
		Short: "Pack, look into and unpack flists; needs no buoyd",
		Long: `Pack, look into and unpack flists. It works on files and chunk stores of this
machine's reach, and needs no buoyd. "buoy flist VERB --help" says more.

  pack DIR|IMAGE -o FILE --store URL   store the chunks of a directory or image
                                       and write its flist (.flist or .fl)
  inspect FILE [--json]                what an flist has and says
  ls FILE [PATH] [-l]                  list files
  cat FILE PATH [--store URL]          write the content of a file
  verify FILE [--store URL]            fetch and check every chunk
  unpack FILE DIR [--store URL]        make the files in an empty directory
  merge FILE… -o FILE                  lay flists over one another

FILE may be an http or https URL where it is only read. Exit codes: 1 when it
fails, 2 for a wrong command line.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "-h" || args[0] == "--help" {
				return cmd.Help()
			}
			return c.handOver("buoy-flist", args)
		},
	}
}

package main

import (
	"errors"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/programs"
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
			program, err := programs.Find("buoy-flist")
			if err != nil {
				return err
			}
			// Not CommandContext: a signal from the terminal reaches it too, and it removes what is half done.
			flist := exec.Command(program, args...) //nolint:noctx // see above
			flist.Stdin, flist.Stdout, flist.Stderr = c.stdin, c.stdout, c.stderr
			err = flist.Run()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
				return exitError(exit.ExitCode()) // it has said why
			}
			if err != nil {
				return fmt.Errorf("run %s: %w", program, err)
			}
			return nil
		},
	}
}

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noSuchVerb refuses what is no command, and names those that it may be meant for.
func noSuchVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	help := cmd.CommandPath() + " --help"
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return fmt.Errorf("there is no command %q; did you mean %q? See %q", args[0], strings.Join(like, `" or "`), help)
	}
	return fmt.Errorf("there is no command %q; see %q", args[0], help)
}

// flagError says what is wrong with a flag, without the words of those who
// convert its value.
func flagError(cmd *cobra.Command, err error) error {
	help := fmt.Sprintf("see %q", cmd.CommandPath()+" --help")
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		name := "--" + bad.GetFlag().Name
		if short := bad.GetFlag().Shorthand; short != "" {
			name = "-" + short + ", " + name
		}
		return fmt.Errorf("%s %q: want %s; %s", name, bad.GetValue(), wanted(bad.GetFlag()), help)
	}
	return fmt.Errorf("%w; %s", err, help)
}

// wanted is what a flag takes, in words.
func wanted(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "int", "int64":
		return "a whole number"
	}
	return "a " + f.Value.Type()
}

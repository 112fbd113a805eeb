package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/buoy-edge/buoy/internal/near"
)

// noSuchVerb refuses what is no command, and names those that it may be meant for.
func noSuchVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	help := cmd.CommandPath() + " --help"
	if err := calledHere(cmd, args); err != nil {
		return err
	}
	if like := alike(cmd, args[0]); len(like) > 0 {
		return fmt.Errorf("there is no command %q; did you mean %s? See %q", args[0], quoted(like), help)
	}
	return fmt.Errorf("there is no command %q; see %q", args[0], help)
}

// dockers are commands of docker that are called otherwise here.
var dockers = map[string]string{
	"container ls": "ps", "images rm": "rmi", "images pull": "pull", "images inspect": "images -o json",
	"images save": "images export", "save": "images export", "images load": "import", "load": "import",
	"network": "bridges", "node ls": "nodes", "system df": "images df", "system info": "info", "system events": "events", "compose": "app apply -f",
}

// calledHere says what a command of docker is called here, where a verb is often
// enough and docker has a noun before it; nil if it is none.
func calledHere(cmd *cobra.Command, args []string) error {
	typed := append(strings.Fields(cmd.CommandPath()), args...)[1:]
	is := func(words int, name string) error {
		return fmt.Errorf("there is no command %q; here it is %q", strings.Join(typed[:words], " "), name)
	}
	for words := min(2, len(typed)); words > 0; words-- {
		if name, ok := dockers[strings.Join(typed[:words], " ")]; ok {
			return is(words, "buoy "+name)
		}
	}
	if len(typed) > 1 && typed[0] == "container" {
		if verb, _, err := cmd.Root().Find(typed[1:2]); err == nil && verb.HasParent() {
			return is(2, verb.CommandPath())
		}
	}
	if len(typed) > 1 && args[0] == "ls" {
		return is(len(typed)-len(args)+1, cmd.CommandPath())
	}
	return nil
}

// alike are the verbs below cmd that begin so, or the one that is spelled nearly so.
func alike(cmd *cobra.Command, typed string) (like []string) {
	var all []string
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		all = append(all, sub.Name())
		if strings.HasPrefix(sub.Name(), typed) {
			like = append(like, sub.Name())
		}
	}
	if best, _ := near.Best(typed, all); len(like) == 0 && best != "" {
		like = []string{best}
	}
	return like
}

// quoted are names of which one is meant, as in: "start", "stop" or "stats".
func quoted(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = strconv.Quote(name)
	}
	last := len(all) - 1
	if last == 0 {
		return all[0]
	}
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

// flagError says what is wrong with a flag, without the words of those who
// convert its value.
func flagError(cmd *cobra.Command, err error) error {
	if verb := cmd.Flags().Args(); cmd.HasSubCommands() && len(verb) > 0 {
		return noSuchVerb(cmd, verb) // the flag may be one of what is meant
	}
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

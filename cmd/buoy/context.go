package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/near"
	"github.com/buoy-edge/buoy/internal/tlspin"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// target is a buoyd to talk to, and how.
type target struct {
	Addr  string `yaml:"addr"`
	Node  string `yaml:"node,omitempty"`
	Token string `yaml:"token,omitempty"`
	Pin   string `yaml:"pin,omitempty"`
	Cert  string `yaml:"cert,omitempty"` // files
	Key   string `yaml:"key,omitempty"`

	context string // whose it is; none: it was given otherwise
}

// contexts is the file of those that have a name.
type contexts struct {
	Current  string            `yaml:"current,omitempty"`
	Contexts map[string]target `yaml:"contexts"`
}

// local is the context that is always there: the socket of this machine.
const local = "local"

var contextForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// contextFile is where contexts are kept, below XDG_CONFIG_HOME.
func (c *cli) contextFile() (string, error) {
	dir := c.getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := c.getenv("HOME")
		if home == "" {
			return "", errors.New("where contexts are kept is not known: neither XDG_CONFIG_HOME nor HOME is set")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "buoy", "contexts.yaml"), nil
}

func (c *cli) readContexts() (contexts, error) {
	var all contexts
	file, err := c.contextFile()
	if err != nil {
		return all, nil //nolint:nilerr // there are none then
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, fmt.Errorf("read the contexts: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	err = d.Decode(&all)
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
		said, _, _ := strings.Cut(wrong.Errors[0], " in type ") // of ours
		return all, fmt.Errorf("read the contexts in %s: %s", file, said)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return all, fmt.Errorf("read the contexts in %s: %w", file, err)
	}
	return all, nil
}

// writeContexts keeps them from others: they have tokens.
func (c *cli) writeContexts(all contexts) error {
	file, err := c.contextFile()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	return atomicfile.Write(file, text, 0o600)
}

// find is the context of a name.
func (all contexts) find(name string) (target, error) {
	if t, ok := all.Contexts[name]; ok {
		t.context = name
		return t, nil
	}
	if name == local {
		return target{Addr: buoy.DefaultAddr, context: local}, nil
	}
	like, _ := near.Best(name, slices.Sorted(maps.Keys(all.Contexts)))
	if like != "" {
		return target{}, fmt.Errorf("there is no context %q; did you mean %q? See \"buoy context ls\"", name, like)
	}
	return target{}, fmt.Errorf("there is no context %q; see \"buoy context ls\"", name)
}

// to is the buoyd that is meant: that of --addr, of --context, of BUOY_ADDR, of
// BUOY_CONTEXT, of the current context, or this machine's. What the environment
// has to be let in goes to an address that was given there or by --addr, and to
// no other: a context says all of itself, and a secret is for whom it was meant.
func (c *cli) to() (target, error) {
	addr, name := c.addr, c.contextName
	switch {
	case addr != "" && name != "":
		return target{}, errors.New("--addr and --context exclude each other")
	case addr == "" && name == "":
		addr, name = c.getenv("BUOY_ADDR"), c.getenv("BUOY_CONTEXT")
	}
	if addr != "" {
		return target{Addr: addr, Token: c.getenv("BUOY_TOKEN"), Pin: c.getenv("BUOY_PIN"), Cert: c.getenv("BUOY_CERT"), Key: c.getenv("BUOY_KEY")}, nil
	}
	all, err := c.readContexts()
	if err != nil {
		return target{}, err
	}
	return all.find(oneOf(name, all.Current, local))
}

func (c *cli) contextCommand() *cobra.Command {
	list := func(*cobra.Command, []string) error { return c.listContexts() }
	cmd := &cobra.Command{
		Use: "context", Aliases: []string{"contexts"}, Short: "Give names to machines, and say which one is meant",
		Args: noSuchVerb, RunE: list,
	}
	ls := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List contexts; * is the current one", Args: takes(0, 0, "no arguments"), RunE: list}
	use := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one; \"local\" is this machine's buoyd", Args: takes(1, 1, "the name of a context"),
		RunE: func(_ *cobra.Command, args []string) error {
			err := c.changeContexts(func(all *contexts) error {
				_, err := all.find(args[0])
				all.Current = args[0]
				return err
			})
			if err == nil {
				c.sayMeant()
			}
			return err
		},
	}
	rm := &cobra.Command{
		Use: "rm NAME...", Short: "Forget contexts", Args: takes(1, -1, "names of contexts"),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.each(cmd.Context(), names, func(name string) error {
				return c.changeContexts(func(all *contexts) error {
					if _, ok := all.Contexts[name]; !ok {
						return fmt.Errorf("there is no context %q of yours; see \"buoy context ls\"", name)
					}
					delete(all.Contexts, name)
					if all.Current == name {
						all.Current = ""
					}
					return nil
				})
			})
		},
	}
	cmd.AddCommand(ls, c.contextCreateCommand(), use, rm)
	return cmd
}

// changeContexts changes the file, or not at all.
func (c *cli) changeContexts(change func(*contexts) error) error {
	all, err := c.readContexts()
	if err != nil {
		return err
	}
	if all.Contexts == nil {
		all.Contexts = map[string]target{}
	}
	if err := change(&all); err != nil {
		return err
	}
	return c.writeContexts(all)
}

func (c *cli) contextCreateCommand() *cobra.Command {
	t := target{}
	var tokenFile string
	var use bool
	cmd := &cobra.Command{
		Use:   "create NAME --addr ADDRESS",
		Short: "Give a buoyd a name, with what it takes to be let in",
		Example: `  buoy context create edge7 --addr https://edge-7:8443 --pin 3fa1… --token-file - --use
  buoy --context edge7 ps`,
		Args: takes(1, 1, "a name"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			t.Addr, t.Node = c.addr, c.node
			if t.Node == "self" {
				t.Node = ""
			}
			var err error
			if t.Token, err = c.secretFrom(tokenFile); err != nil {
				return err
			}
			if err := t.check(name); err != nil {
				return err
			}
			return c.changeContexts(func(all *contexts) error {
				if _, ok := all.Contexts[name]; ok {
					return fmt.Errorf("there is a context %q; remove it first, or take another name", name)
				}
				all.Contexts[name] = t
				if use {
					all.Current = name
				}
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&t.Pin, "pin", "", "`pin` by which it is known at https://, as \"buoy token create\" and join tokens have it")
	flags.StringVar(&tokenFile, "token-file", "", "`file` with the token; - is standard input")
	flags.StringVar(&t.Cert, "cert", "", "`file` of a client certificate, in place of a token")
	flags.StringVar(&t.Key, "key", "", "`file` of its key")
	flags.BoolVar(&use, "use", false, "make it the current one")
	return cmd
}

// check says what is wrong with a context, and makes its files absolute.
func (t *target) check(name string) error {
	switch {
	case !contextForm.MatchString(name) || name == local:
		return fmt.Errorf("%q is no name for a context: want letters, digits, '.', '_' and '-', and not %q", name, local)
	case t.Addr == "":
		return errors.New("--addr is missing: it says where buoyd listens")
	case (t.Cert == "") != (t.Key == ""):
		return errors.New("--cert and --key belong together")
	}
	if t.Pin != "" {
		if err := tlspin.Check(t.Pin); err != nil {
			return fmt.Errorf("--pin: %w", err)
		}
	}
	for _, file := range []*string{&t.Cert, &t.Key} {
		if *file == "" {
			continue
		}
		abs, err := filepath.Abs(*file)
		if err != nil {
			return err
		}
		*file = abs
	}
	if _, err := buoy.New(t.Addr); err != nil {
		return err
	}
	_, err := t.trust()
	return err
}

// secretFrom reads a secret from a file, or from standard input for "-".
func (c *cli) secretFrom(file string) (string, error) {
	var text []byte
	var err error
	switch file {
	case "":
		return "", nil
	case "-":
		text, err = io.ReadAll(c.stdin)
	default:
		text, err = os.ReadFile(file)
	}
	return string(bytes.TrimSpace(text)), err
}

// contextItem is one as it is listed: without its token.
type contextItem struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Addr    string `json:"addr"`
	Node    string `json:"node,omitempty"`
	By      string `json:"by,omitempty"` // "token" or "certificate"
}

func (c *cli) listContexts() error {
	all, err := c.readContexts()
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(all.Contexts))
	if _, ok := all.Contexts[local]; !ok {
		names = append([]string{local}, names...)
	}
	items, rows := []contextItem{}, [][]string{}
	current := oneOf(all.Current, local)
	for _, name := range names {
		t, err := all.find(name)
		if err != nil {
			return err
		}
		i := contextItem{Name: name, Current: name == current, Addr: t.Addr, Node: t.Node}
		mark := ""
		if i.Current {
			mark = " *"
		}
		switch {
		case t.Token != "":
			i.By = "token"
		case t.Cert != "":
			i.By = "certificate"
		}
		items, rows = append(items, i), append(rows, []string{name + mark, t.Addr, t.Node, i.By})
	}
	if c.output == "json" {
		return c.json(items)
	}
	if err := c.table([]string{"NAME", "ADDRESS", "NODE", "BY"}, rows); err != nil {
		return err
	}
	c.sayMeant()
	return nil
}

// sayMeant says that the environment counts before the current context.
func (c *cli) sayMeant() {
	if addr := c.getenv("BUOY_ADDR"); addr != "" {
		fmt.Fprintf(c.stderr, "buoy: BUOY_ADDR is set: %s is meant, whatever context is the current one\n", addr)
	} else if name := c.getenv("BUOY_CONTEXT"); name != "" {
		fmt.Fprintf(c.stderr, "buoy: BUOY_CONTEXT is set: %q is meant, whatever context is the current one\n", name)
	}
}

// contextNames are for completion.
func (c *cli) contextNames(context.Context, *buoy.Client) ([]string, error) {
	all, err := c.readContexts()
	return append(slices.Sorted(maps.Keys(all.Contexts)), local), err
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// completeTime is how long a person who has pressed Tab waits.
const completeTime = 2 * time.Second

// lister lists what can be named.
type lister func(ctx context.Context, b *buoy.Client) ([]string, error)

// kind is what arguments of verbs are; once: only the first.
type kind struct {
	of   lister
	once bool
}

// complete has shells ask buoyd for names, and offers the values that flags take.
func (c *cli) complete(root *cobra.Command) {
	one := func(of lister) kind { return kind{of, true} }
	for path, k := range map[string]kind{
		"inspect": {of: containers}, "start": {of: containers}, "stop": {of: containers}, "restart": {of: containers}, "kill": {of: containers}, "wait": {of: containers}, "port": one(containers),
		"rm": {of: containers}, "stats": {of: containers}, "logs": one(containers), "exec": one(containers), "attach": one(containers),
		"top": one(containers), "update": one(containers), "export": one(containers),
		"run": one(images), "rmi": {of: images}, "images pin": {of: images}, "images unpin": {of: images}, "images export": one(images),
		"app start": {of: appNames}, "app stop": {of: appNames}, "app rm": {of: appNames}, "app scale": one(appNames), "app status": one(appNames),
		"app logs": one(appNames), "app events": one(appNames), "app explain": one(appNames), "app spec": one(appNames), "app revisions": one(appNames),
		"app metrics": one(appNames), "app health": one(appNames), "app scaling": one(appNames), "app rollback": one(appNames), "app rebalance": one(appNames),
		"hosts inspect": one(hostNames), "hosts drain": {of: hostNames}, "hosts pause": {of: hostNames}, "hosts resume": {of: hostNames}, "hosts terminate": {of: hostNames},
		"webhooks rm": {of: webhookNames}, "webhooks set": one(webhookNames), "webhooks inspect": one(webhookNames),
		"token rm": {of: tokenNames}, "context use": one(c.contextNames), "context rm": {of: c.contextNames},
	} {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 {
			panic("BUG: there is no verb " + path + " to complete")
		}
		cmd.ValidArgsFunction = c.completer(k)
	}
	values := map[string][]string{
		"output": forms, "restart": {"no", "always", "on-failure", "unless-stopped"}, "network": {"default", "host", "none"},
		"pull": {"missing", "always", "never"}, "stream": {"stdout", "stderr"}, "role": {"viewer", "operator", "admin"}, "lazy": {"auto", "always", "never"},
	}
	each(root, func(cmd *cobra.Command) {
		for flag, of := range values {
			if cmd.LocalNonPersistentFlags().Lookup(flag) != nil || cmd == root && cmd.PersistentFlags().Lookup(flag) != nil {
				_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp)) // it fails if it is done twice
			}
		}
	})
	_ = root.RegisterFlagCompletionFunc("node", c.completer(kind{of: nodeNames}))
	_ = root.RegisterFlagCompletionFunc("context", c.completer(kind{of: c.contextNames}))
	knownShells(root)
}

// knownShells has "completion" refuse a shell that there is no script for.
func knownShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	cmd, _, err := root.Find([]string{"completion"})
	if err != nil {
		panic("BUG: there is no completion: " + err.Error())
	}
	cmd.Use, cmd.Short, cmd.Long = "completion SHELL", "Write the completion script of a shell", "Write the completion script of a shell; its --help says where the shell looks for it."
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return fmt.Errorf("there is no completion for %q; there is for bash, fish, powershell and zsh", args[0])
	}
}

// plainUsage takes the marks around the names of values out of the help of flags,
// which shells show as it is.
func plainUsage(cmd *cobra.Command) {
	each(cmd, func(cmd *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{cmd.PersistentFlags(), cmd.Flags()} {
			flags.VisitAll(func(f *pflag.Flag) { _, f.Usage = pflag.UnquoteUsage(f) })
		}
	})
}

func each(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, do)
	}
}

// completer offers names that are not there yet. A buoyd that does not answer
// has none.
func (c *cli) completer(k kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if k.once && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		b, err := c.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer b.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		all, err := k.of(ctx, b)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all = slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, typed) || slices.Contains(args, name) })
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// namesOf are the names of a list.
func namesOf[T any](all []T, err error, name func(T) string) ([]string, error) {
	out := make([]string, len(all))
	for i, one := range all {
		out[i] = name(one)
	}
	return out, err
}

func containers(ctx context.Context, b *buoy.Client) ([]string, error) {
	all, err := b.Containers(ctx)
	return namesOf(all, err, func(s buoy.ContainerSummary) string { return s.Name })
}

func images(ctx context.Context, b *buoy.Client) ([]string, error) {
	all, err := b.Images(ctx)
	return namesOf(all, err, func(i buoy.Image) string { return i.Ref })
}

func appNames(ctx context.Context, b *buoy.Client) ([]string, error) {
	all, err := b.Apps(ctx, "")
	return namesOf(all, err, func(a buoy.AppSummary) string { return a.Name })
}

func hostNames(ctx context.Context, b *buoy.Client) ([]string, error) {
	all, err := b.Hosts(ctx)
	return namesOf(all, err, func(h buoy.Host) string { return h.ID })
}

func nodeNames(ctx context.Context, b *buoy.Client) ([]string, error) {
	all, err := b.Nodes(ctx)
	return namesOf(all, err, func(n buoy.Node) string { return n.ID })
}

func webhookNames(ctx context.Context, b *buoy.Client) ([]string, error) {
	all, err := b.Webhooks(ctx)
	return namesOf(all, err, func(w buoy.Webhook) string { return w.Name })
}

func tokenNames(ctx context.Context, b *buoy.Client) ([]string, error) {
	all, err := b.Tokens(ctx)
	return namesOf(all, err, func(t buoy.Token) string { return t.Name })
}

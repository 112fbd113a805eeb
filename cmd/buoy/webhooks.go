package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) webhooksCommand() *cobra.Command {
	quiet := false
	list := c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error { return c.listWebhooks(ctx, b, quiet) })
	cmd := &cobra.Command{
		Use:     "webhooks",
		Aliases: []string{"webhook"},
		Short:   "List and change who on the network is told of events",
		Args:    noSuchVerb,
		RunE:    list,
	}
	ls := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List webhooks", Args: takes(0, 0, "no arguments"), RunE: list}
	for _, one := range []*cobra.Command{cmd, ls} {
		one.Flags().BoolVarP(&quiet, "quiet", "q", false, "only names")
	}
	inspect := &cobra.Command{
		Use: "inspect NAME", Short: "Print all that is known of a webhook, as JSON", Args: takes(1, 1, "the name of a webhook"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			w, err := b.Webhook(ctx, args[0])
			if err != nil {
				return err
			}
			return c.json(w)
		}),
	}
	rm := &cobra.Command{
		Use: "rm NAME...", Short: "Remove webhooks", Args: takes(1, -1, "names of webhooks"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error { return b.DeleteWebhook(ctx, name) })
		}),
	}
	cmd.AddCommand(ls, c.webhookAddCommand(), c.webhookSetCommand(), inspect, rm)
	return cmd
}

func (c *cli) listWebhooks(ctx context.Context, b *buoy.Client, quiet bool) error {
	all, err := b.Webhooks(ctx)
	if err != nil {
		return err
	}
	names, rows := []string{}, [][]string{}
	for _, w := range all {
		s := w.Status
		names = append(names, w.Name)
		rows = append(rows, []string{
			w.Name, w.URL, strings.Join(w.Types, ","), s.State, strconv.FormatUint(s.Delivered, 10), strconv.FormatUint(s.Dead+s.Missed, 10),
			strconv.FormatUint(s.Behind, 10), s.LastError,
		})
	}
	switch {
	case quiet:
		return c.lines(names)
	case c.output == "json":
		return c.json(all)
	}
	return c.table([]string{"NAME", "URL", "TYPES", "STATE", "DELIVERED", "LOST", "BEHIND", "LAST ERROR"}, rows)
}

// webhookFlags are what both add and set take.
type webhookFlags struct {
	types, containers, images []string
	secretFile                string
}

func (f *webhookFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.types, "type", nil, "only events of a `type` or kind, like container.exited or image; may be repeated")
	flags.StringSliceVar(&f.containers, "container", nil, "only events of a `container`; may be repeated")
	flags.StringArrayVar(&f.images, "image", nil, "only events of an `image`; may be repeated")
	flags.StringVar(&f.secretFile, "secret-file", "", "`file` with what deliveries are signed with; - is standard input")
}

// apply changes of w what was given.
func (f *webhookFlags) apply(c *cli, cmd *cobra.Command, w *buoy.Webhook) error {
	for name, set := range map[string]func(){
		"type": func() { w.Types = f.types }, "container": func() { w.Containers = f.containers }, "image": func() { w.Images = f.images },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
	var text []byte
	var err error
	switch f.secretFile {
	case "":
		return nil
	case "-":
		text, err = io.ReadAll(c.stdin)
	default:
		text, err = os.ReadFile(f.secretFile)
	}
	w.Secret = string(bytes.TrimSpace(text))
	return err
}

func (c *cli) webhookAddCommand() *cobra.Command {
	f := &webhookFlags{}
	cmd := &cobra.Command{
		Use:   "add NAME URL",
		Short: "Have events posted to a URL; prints the secret if it was not given",
		Args:  takes(2, 2, "a name and a URL"),
	}
	f.register(cmd)
	cmd.RunE = c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
		w := buoy.Webhook{Name: args[0], URL: args[1]}
		if err := f.apply(c, cmd, &w); err != nil {
			return err
		}
		made, err := b.CreateWebhook(ctx, w)
		switch {
		case err != nil:
			return err
		case c.output == "json":
			return c.json(made)
		case made.Secret != "":
			_, err = fmt.Fprintln(c.stdout, made.Secret)
		}
		return err
	})
	return cmd
}

func (c *cli) webhookSetCommand() *cobra.Command {
	f := &webhookFlags{}
	url := ""
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change what flags say of a webhook",
		Args:  takes(1, 1, "the name of a webhook"),
	}
	f.register(cmd)
	cmd.Flags().StringVar(&url, "url", "", "`URL` to post to")
	cmd.RunE = c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
		w, err := b.Webhook(ctx, args[0])
		if err != nil {
			return err
		}
		if url != "" {
			w.URL = url
		}
		if err := f.apply(c, cmd, &w); err != nil {
			return err
		}
		return b.ReplaceWebhook(ctx, w)
	})
	return cmd
}

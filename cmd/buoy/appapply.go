package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// maxManifest is more than buoyd reads.
const maxManifest = 2 << 20

// source is a manifest and where it comes from.
type source struct {
	name string
	text []byte
}

// sources reads the files of -f.
func (c *cli) sources(files []string) ([]source, error) {
	if len(files) == 0 {
		return nil, errors.New("-f FILE is missing: it names the manifest, and - is standard input")
	}
	var all []source
	for _, file := range files {
		text, err := c.read(file)
		if err != nil {
			return nil, err
		}
		if len(text) > maxManifest {
			return nil, fmt.Errorf("%s is too large for a manifest", file)
		}
		all = append(all, source{file, text})
	}
	return all, nil
}

func (c *cli) read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(c.stdin, maxManifest+1))
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxManifest+1))
}

const filesUsage = "`file` with manifests, YAML or JSON, or a Compose file; - is standard input; several times for several"

func (c *cli) appApplyCommand() *cobra.Command {
	var files []string
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make apps be as manifests say, and start them",
		Example: `  buoy app apply -f web.yaml --wait
  buoy app apply -f compose.yaml
  generate | buoy app apply -f -`,
		Args: takes(0, 0, "no arguments but -f"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			sources, err := c.sources(files)
			if err != nil {
				return err
			}
			return c.apply(ctx, b, sources, w)
		}),
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, filesUsage)
	w.flags(cmd)
	return cmd
}

func (c *cli) apply(ctx context.Context, b *buoy.Client, sources []source, w *waiting) error {
	if len(sources) > 1 { // a mistake in the last is found before the first is applied
		for _, s := range sources {
			if _, err := b.PlanApps(ctx, s.text); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	var all []buoy.AppliedApp
	for _, s := range sources {
		applied, err := b.ApplyApps(ctx, s.text)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		for _, a := range applied {
			c.notes(a.Name, a.Notes)
			if c.output != "json" {
				fmt.Fprintf(c.stdout, "%s %s (revision %d)\n", a.Name, a.Action, a.Revision)
			}
		}
		all = append(all, applied...)
	}
	if c.output == "json" {
		if err := c.json(all); err != nil {
			return err
		}
	}
	return c.awaitAll(ctx, b, all, w)
}

// notes tells what is not quite as it may seem.
func (c *cli) notes(app string, notes []string) {
	for _, n := range notes {
		fmt.Fprintf(c.stderr, "note: %s: %s\n", app, n)
	}
}

func (c *cli) appPlanCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Show what apply would do, and do nothing",
		Args:  takes(0, 0, "no arguments but -f"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			sources, err := c.sources(files)
			if err != nil {
				return err
			}
			all := []buoy.AppPlan{}
			for _, s := range sources {
				plans, err := b.PlanApps(ctx, s.text)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				all = append(all, plans...)
			}
			if c.output == "json" {
				return c.json(all)
			}
			for _, p := range all {
				c.notes(p.Name, p.Notes)
				c.showPlan(p)
			}
			return nil
		}),
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, filesUsage)
	return cmd
}

func (c *cli) showPlan(p buoy.AppPlan) {
	switch {
	case p.New:
		fmt.Fprintf(c.stdout, "%s: would be created\n", p.Name)
	case len(p.Changes) == 0 && len(p.Actions) == 0:
		fmt.Fprintf(c.stdout, "%s: nothing would change\n", p.Name)
	default:
		fmt.Fprintf(c.stdout, "%s: would change\n", p.Name)
	}
	for _, ch := range p.Changes {
		switch {
		case empty(ch.Old):
			fmt.Fprintf(c.stdout, "  + %s: %s\n", ch.Path, plain(ch.New))
		case empty(ch.New):
			fmt.Fprintf(c.stdout, "  - %s: %s\n", ch.Path, plain(ch.Old))
		default:
			fmt.Fprintf(c.stdout, "  ~ %s: %s → %s\n", ch.Path, plain(ch.Old), plain(ch.New))
		}
	}
	for _, action := range p.Actions {
		fmt.Fprintf(c.stdout, "  %s\n", action)
	}
}

func empty(value json.RawMessage) bool { return len(value) == 0 || string(value) == "null" }

func (c *cli) appSpecCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "spec APP",
		Short: "Print the manifest of an app, as YAML or JSON",
		Args:  takes(1, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			spec, err := b.AppSpec(ctx, args[0])
			if err != nil {
				return about(errNoApp, err)
			}
			if c.output == "json" {
				return c.json(spec)
			}
			text, err := asYAML(spec)
			if err != nil {
				return fmt.Errorf("write the manifest of %s: %w", args[0], err)
			}
			_, err = c.stdout.Write(text)
			return err
		}),
	}
}

func (c *cli) appRevisionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revisions APP",
		Short: "List the revisions of an app, which one can go back to",
		Args:  takes(1, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			answer, raw, err := ask[struct{ Revisions []buoy.AppRevision }](ctx, b, appPath(args[0], "/revisions"))
			if err != nil {
				return about(errNoApp, err)
			}
			if c.output == "json" {
				return c.json(raw)
			}
			rows := [][]string{}
			for _, r := range answer.Revisions {
				state := ""
				switch {
				case r.Failed != "":
					state = "failed: " + r.Failed
				case r.Good:
					state = "good"
				}
				if r.Current {
					state = "current"
				}
				rows = append(rows, []string{strconv.Itoa(r.Revision), state, r.Image, since(r.CreatedAt)})
			}
			return c.table([]string{"REVISION", "STATE", "IMAGE", "AGE"}, rows)
		}),
	}
}

func (c *cli) appRollbackCommand() *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "rollback APP [REVISION]",
		Short: "Go back to a revision, by default to the last good one",
		Args:  takes(1, 2, "an app, and maybe a revision"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			revision := 0
			if len(args) == 2 {
				n, err := strconv.Atoi(args[1])
				if err != nil || n < 1 {
					return fmt.Errorf("revision %q: want a number; see %q", args[1], "buoy app revisions "+args[0])
				}
				revision = n
			}
			now, err := b.RollbackApp(ctx, args[0], revision)
			if err != nil {
				return about(errNoApp, err)
			}
			fmt.Fprintf(c.stdout, "%s goes back to revision %d\n", args[0], now)
			return c.await(ctx, b, args[0], now, w)
		}),
	}
	w.flags(cmd)
	return cmd
}

// plain is JSON as people write it: encoding/json escapes <, > and & for web pages.
func plain(raw json.RawMessage) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(raw))
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

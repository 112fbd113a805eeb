package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) appLogsCommand() *cobra.Command {
	var follow, timestamps bool
	var tail int
	var sinceText, replica string
	cmd := &cobra.Command{
		Use:   "logs APP",
		Short: "Print what the replicas of an app wrote",
		Args:  takes(1, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			o := buoy.AppLogOptions{Tail: tail, Replica: replica}
			var err error
			if o.Since, err = parseTime(sinceText, time.Now()); err != nil {
				return fmt.Errorf("--since %w", err)
			}
			show := func(line buoy.AppLogLine) error { return c.logLine(line, timestamps, replica == "") }
			if follow {
				for m, err := range b.FollowAppLogs(ctx, args[0], o) {
					switch {
					case err != nil:
					case len(m.Unavailable) > 0:
						c.unasked(m.Unavailable)
					default:
						err = show(m.AppLogLine)
					}
					if err != nil {
						return about(errNoApp, err)
					}
				}
				return nil
			}
			logs, err := b.AppLogs(ctx, args[0], o)
			if err != nil {
				return about(errNoApp, err)
			}
			c.unasked(logs.Unavailable)
			for _, line := range slices.Backward(logs.Lines) {
				if err := show(line); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until the app is removed")
	f.IntVarP(&tail, "tail", "n", 100, "the last `lines`")
	f.StringVar(&sinceText, "since", "", "only lines since a `time`, like 10m or 2026-11-05T10:00:00Z")
	f.StringVar(&replica, "replica", "", "only of this `replica`, like web-1")
	f.BoolVarP(&timestamps, "timestamps", "t", false, "begin each line with its time")
	return cmd
}

// unasked says whose lines are missing.
func (c *cli) unasked(replicas []buoy.AppLogFailure) {
	for _, r := range replicas {
		c.tell(fmt.Sprintf("no log of %s: %s", r.Container, r.Error))
	}
}

// logLine writes one, with the name of its replica if there may be several.
func (c *cli) logLine(line buoy.AppLogLine, timed, named bool) error {
	if c.output == "json" {
		return c.jsonLine(line)
	}
	var text strings.Builder
	if timed {
		text.WriteString(line.Timestamp.UTC().Format(time.RFC3339Nano) + " ")
	}
	if named {
		text.WriteString(line.Container + " | ")
	}
	w := c.stdout
	if line.Stream == "stderr" {
		w = c.stderr
	}
	_, err := fmt.Fprintln(w, text.String()+line.Message)
	return err
}

func (c *cli) appEventsCommand() *cobra.Command {
	var follow bool
	q := buoy.EventQuery{}
	var sinceText string
	cmd := &cobra.Command{
		Use:   "events [APP]",
		Short: "Print what happened to an app; with -f and no app, to all apps and hosts",
		Args:  takes(0, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			var err error
			if q.Since, err = parseTime(sinceText, time.Now()); err != nil {
				return fmt.Errorf("--since %w", err)
			}
			if len(args) == 0 && !follow {
				return errors.New("name an app, or use -f to see what happens to all")
			}
			return about(errNoApp, c.events(ctx, b, args, q, follow))
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	f.IntVarP(&q.Limit, "tail", "n", 100, "the last so `many`")
	f.StringVar(&q.Type, "type", "", "only of this `type`: scaling, health, config, error, lifecycle or host")
	f.StringVar(&sinceText, "since", "", "only since a `time`, like 10m or 2026-11-05T10:00:00Z")
	return cmd
}

func (c *cli) events(ctx context.Context, b *buoy.Client, args []string, q buoy.EventQuery, follow bool) error {
	if !follow {
		events, err := b.AppEvents(ctx, args[0], q)
		if err != nil {
			return err
		}
		for _, e := range slices.Backward(events) {
			if err := c.event(e); err != nil {
				return err
			}
		}
		return nil
	}
	stream := b.FollowEvents(ctx, "", q)
	if len(args) == 1 {
		stream = b.FollowAppEvents(ctx, args[0], q)
	}
	for e, err := range stream {
		if err == nil {
			err = c.event(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) event(e buoy.Event) error {
	if c.output == "json" {
		return c.jsonLine(e)
	}
	who := e.App
	if who == "" {
		who = e.Host
	}
	_, err := fmt.Fprintf(c.stdout, "%s  %-9s  %s: %s\n", e.Timestamp.Local().Format(time.DateTime), e.Type, who, e.Message)
	return err
}

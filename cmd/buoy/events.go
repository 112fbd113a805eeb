package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) eventsCommand() *cobra.Command {
	q := buoy.NodeEventQuery{}
	var filters []string
	var sinceText, untilText, template string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happened to containers, images and the node; with -f, what happens",
		Args:  takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			now := time.Now()
			var err error
			if q.Since, err = parseTime(sinceText, now); err != nil {
				return fmt.Errorf("--since %w", err)
			}
			if q.Until, err = parseTime(untilText, now); err != nil {
				return fmt.Errorf("--until %w", err)
			}
			if err := selectEvents(&q, filters); err != nil {
				return err
			}
			show := c.nodeEvent
			if template != "" {
				if err := c.format(template, reflect.TypeFor[buoy.NodeEvent](), nil); err != nil {
					return err // before the first event comes
				}
				show = func(e buoy.NodeEvent) error { return c.formatEvent(template, e) }
			}
			return c.nodeEvents(ctx, b, q, show)
		}),
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on with what happens; of the past only what --since or -n ask for")
	f.StringArrayVar(&filters, "filter", nil, "only events of a `KEY=VALUE`: type=container.exited, type=image, container=NAME, image=REF; one of each key has to fit")
	f.StringVar(&sinceText, "since", "", "only since a `time`, like 10m or 2026-11-05T10:00:00Z")
	f.StringVar(&untilText, "until", "", "only until a `time`")
	f.IntVarP(&q.Limit, "tail", "n", 0, "only the last so `many` (default: all)")
	f.StringVar(&template, "format", "", formatUsage)
	return cmd
}

func selectEvents(q *buoy.NodeEventQuery, filters []string) error {
	for _, text := range filters {
		key, value, ok := strings.Cut(text, "=")
		switch {
		case !ok || value == "":
			return fmt.Errorf("--filter %s: want KEY=VALUE", text)
		case key == "type" || key == "event":
			q.Types = append(q.Types, value)
		case key == "container":
			q.Containers = append(q.Containers, value)
		case key == "image":
			q.Images = append(q.Images, value)
		default:
			return fmt.Errorf("--filter %s: the keys are type, container and image", text)
		}
	}
	return nil
}

// nodeEvents prints events. Who follows goes on when buoyd comes back, with all
// that has happened meanwhile.
func (c *cli) nodeEvents(ctx context.Context, b *buoy.Client, q buoy.NodeEventQuery, show func(buoy.NodeEvent) error) error {
	begun, lost := time.Now(), time.Time{}
	for first := true; ; first = false {
		tried := time.Now()
		err := c.printEvents(ctx, b, &q, show)
		_, answered := errors.AsType[*buoy.Error](err)
		_, away := errors.AsType[*buoy.ConnectError](err)
		if err == nil || !q.Follow || answered || ctx.Err() != nil || first && away {
			return err
		}
		if lost.IsZero() || time.Since(tried) > time.Second { // it has been there
			lost = time.Now()
			fmt.Fprintf(c.stderr, "buoy: buoyd is gone; waiting %v for buoyd\n", lostPatience)
		}
		if time.Since(lost) > lostPatience {
			return err
		}
		if q.After == "" && q.Since.IsZero() {
			q.Since = begun
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookSoon):
		}
	}
}

// printEvents prints what q selects, and leaves in q where it goes on.
func (c *cli) printEvents(ctx context.Context, b *buoy.Client, q *buoy.NodeEventQuery, show func(buoy.NodeEvent) error) error {
	for e, err := range b.NodeEvents(ctx, *q) {
		if err != nil {
			return err
		}
		q.After, q.Limit = e.ID, 0
		if err := show(e); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) nodeEvent(e buoy.NodeEvent) error {
	if c.output == "json" {
		return c.jsonLine(e)
	}
	_, err := fmt.Fprintln(c.stdout, shown(eventText(e)))
	return err
}

func (c *cli) formatEvent(template string, e buoy.NodeEvent) error {
	item, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return c.format(template, reflect.TypeFor[buoy.NodeEvent](), []json.RawMessage{item})
}

// eventText is an event in one line: when, what, to what, why and by whom.
func eventText(e buoy.NodeEvent) string {
	d := e.Data
	subject := strings.TrimPrefix(e.Subject, "containers/")
	if subject == "" {
		subject = strings.TrimPrefix(e.Source, "/")
	}
	text := fmt.Sprintf("%s  %-20s  %s", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Type, subject)
	var why []string
	if d.Reason != "" {
		why = append(why, d.Reason)
	}
	if d.ExitCode != nil {
		why = append(why, fmt.Sprintf("exit code %d", *d.ExitCode))
	}
	if n := d.Attributes["missing"]; n != "" {
		why = append(why, n+" missing")
	}
	reason := strings.Join(why, ", ")
	if d.Message != "" && reason != "" {
		reason += ": "
	}
	if reason += d.Message; reason != "" {
		text += "  " + reason
	}
	switch {
	case d.Actor.Kind == "api":
		text += fmt.Sprintf("  (by request %s of %s)", d.Actor.Request, d.Actor.Peer)
	case d.Actor.Name != "":
		text += fmt.Sprintf("  (by %s)", d.Actor.Name)
	}
	return text
}

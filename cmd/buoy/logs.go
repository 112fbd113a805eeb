package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

type logFlags struct {
	follow, timestamps   bool
	tail                 int
	since, until, stream string
}

func (c *cli) logsCommand() *cobra.Command {
	f := &logFlags{}
	cmd := &cobra.Command{
		Use:   "logs CONTAINER",
		Short: "Print what a container wrote, both stdout and stderr",
		Args:  takes(1, 1, "one container"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			o, err := f.options(time.Now())
			if err != nil || f.tail == 0 && !f.follow {
				return err
			}
			if f.follow {
				return about(errNoContainer, f.followed(c.stdout, b.LogLines(ctx, args[0], o)))
			}
			log, err := b.Logs(ctx, args[0], o)
			if err != nil {
				return about(errNoContainer, err)
			}
			defer log.Close()
			_, err = io.Copy(c.stdout, log)
			return err
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on until the container ends")
	flags.IntVarP(&f.tail, "tail", "n", -1, "only the last `lines` (default: all)")
	flags.StringVar(&f.since, "since", "", "only lines since a `time`, like 10m or 2026-11-05T10:00:00Z")
	flags.StringVar(&f.until, "until", "", "only lines until a `time`")
	flags.BoolVarP(&f.timestamps, "timestamps", "t", false, "begin each line with its time")
	flags.StringVar(&f.stream, "stream", "", "only this `stream`: stdout or stderr")
	return cmd
}

func (f *logFlags) options(now time.Time) (o buoy.LogOptions, err error) {
	o = buoy.LogOptions{Follow: f.follow, Timestamps: f.timestamps, Stream: f.stream, Tail: max(f.tail, 0)}
	if o.Since, err = parseTime(f.since, now); err != nil {
		return o, fmt.Errorf("--since %w", err)
	}
	if o.Until, err = parseTime(f.until, now); err != nil {
		return o, fmt.Errorf("--until %w", err)
	}
	if f.tail == 0 && o.Since.Before(now) {
		o.Since = now // with --follow: new lines only
	}
	if f.stream != "" && f.stream != "stdout" && f.stream != "stderr" {
		return o, fmt.Errorf("--stream %s: want stdout or stderr", f.stream)
	}
	return o, nil
}

// followed prints lines as they come.
func (f *logFlags) followed(w io.Writer, lines iter.Seq2[buoy.LogLine, error]) error {
	for l, err := range lines {
		if err == nil {
			_, err = w.Write(f.line(l))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// line is one as it is printed.
func (f *logFlags) line(l buoy.LogLine) []byte {
	if f.timestamps {
		l.Partial = false
		return append([]byte(l.Time.UTC().Format("2006-01-02T15:04:05.000000000Z ")), written(l)...)
	}
	return written(l)
}

// parseTime reads how long ago, a time, or seconds since 1970.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want how long ago, like 10m, or a time, like 2026-11-05T10:00:00Z", text)
}

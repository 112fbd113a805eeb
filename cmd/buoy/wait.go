package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wait CONTAINER…",
		Short: "Wait until containers have ended, and print their exit codes",
		Long: `Wait until containers have ended for good, which one is not that its restart policy
starts again, and print their exit codes, in the order of their names. It goes on
over a restart of buoyd.`,
		Args: takes(1, -1, "one or more containers"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			w := &waiter{cli: c, b: b, told: map[string]int{}, ends: map[string]end{}}
			for _, name := range names {
				if _, err := b.Container(ctx, name); err != nil {
					return about(errNoContainer, err)
				}
				w.ends[name] = end{}
			}
			if err := w.wait(ctx); err != nil {
				return err
			}
			failed := false
			for _, name := range names {
				e := w.ends[name]
				if e.err != nil {
					failed = true
					c.complain(e.err)
					continue
				}
				fmt.Fprintln(c.stdout, e.code)
			}
			if failed {
				return exitError(exitOurs)
			}
			return nil
		}),
	}
}

// end is how a container has ended.
type end struct {
	over bool
	code int
	err  error // there is no exit code
}

// waiter waits for the ends of containers. An event says when to look, so that
// nothing is asked while nothing happens.
type waiter struct {
	*cli
	b    *buoy.Client
	told map[string]int // exit codes of last runs, for those that are removed before we look
	ends map[string]end
}

func (w *waiter) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := true
	// The newest event of the past comes at once: from there on nothing is missed.
	err := w.nodeEvents(ctx, w.b, buoy.NodeEventQuery{Follow: true, Limit: 1}, func(e buoy.NodeEvent) error {
		if name := e.Data.Container; name != "" && e.Data.ExitCode != nil && strings.HasPrefix(e.Type, "container.") {
			w.told[name] = *e.Data.ExitCode
		}
		waits := false
		for name, now := range w.ends {
			if !now.over && (first || e.Data.Container == name || e.Data.Container == "") {
				now = w.look(ctx, name)
				w.ends[name] = now
			}
			waits = waits || !now.over
		}
		first = false
		if !waits {
			cancel()
		}
		return nil
	})
	for _, e := range w.ends {
		if !e.over {
			return err
		}
	}
	return nil
}

// look says whether a container has ended. That buoyd is away is waited for.
func (w *waiter) look(ctx context.Context, name string) end {
	for away := (&follower{cli: w.cli}); ; {
		one, ended, err := atRest(ctx, w.b, name)
		code, known := w.told[name]
		switch {
		case ended && one.ExitCode == nil:
			return end{over: true, err: didNotRun(one)}
		case ended:
			return end{over: true, code: *one.ExitCode}
		case errors.Is(err, buoy.ErrNotFound) && known:
			return end{over: true, code: code}
		case errors.Is(err, buoy.ErrNotFound):
			return end{over: true, err: fmt.Errorf("container %q was removed", name)}
		case err != nil && !away.comesBack(err):
			return end{over: true, err: err}
		case err == nil && !one.Ended():
			return end{}
		}
		select { // until buoyd is back, and knows what runs
		case <-ctx.Done():
			return end{}
		case <-time.After(lookSoon):
		}
	}
}

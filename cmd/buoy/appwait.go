package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// waiting are the flags of commands that may wait for what they have begun.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "until it is done")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 5*time.Minute, "with --wait: for so long at most")
}

const (
	askSoon = 50 * time.Millisecond // doubles
	askLate = time.Second
)

// await waits until an app is as it is wanted; with a revision, at that one.
func (c *cli) await(ctx context.Context, b *buoy.Client, name string, revision int, w *waiting) error {
	if !w.wait {
		return nil
	}
	line := &statusLine{w: c.stderr, on: isTerminal(c.stderr)}
	a, err := reach(ctx, b, name, revision, w.timeout, line.show)
	line.clear()
	if err == nil {
		c.reached(&a)
	}
	return err
}

// reached tells what is not yet all of what was wanted.
func (c *cli) reached(a *buoy.App) {
	if a.Rollout.Canary {
		c.notes(a.Name, []string{fmt.Sprintf("revision %d runs on canaries only, until \"buoy app rollout promote %s\"", a.Rollout.Revision, a.Name)})
	}
}

// awaitAll waits for several apps at once, tells of each what became of it, and
// fails if one has.
func (c *cli) awaitAll(ctx context.Context, b *buoy.Client, apps []buoy.AppliedApp, w *waiting) error {
	if !w.wait {
		return nil
	}
	type news struct {
		name, text string // how far it is
		over       bool
		app        buoy.App
		err        error
	}
	revisions := map[string]int{} // of an app that was given twice, the last
	for _, a := range apps {
		revisions[a.Name] = a.Revision
	}
	from := make(chan news)
	var wg sync.WaitGroup
	defer wg.Wait()
	for name, revision := range revisions {
		wg.Go(func() {
			a, err := reach(ctx, b, name, revision, w.timeout, func(text string) { from <- news{name: name, text: text} })
			from <- news{name: name, over: true, app: a, err: err}
		})
	}
	line := &statusLine{w: c.stderr, on: isTerminal(c.stderr)}
	failed := false
	for len(revisions) > 0 {
		n := <-from
		if !n.over {
			line.show(n.text + others(len(revisions)-1))
			continue
		}
		delete(revisions, n.name)
		line.clear()
		switch {
		case ctx.Err() != nil:
		case n.err != nil:
			failed = true
			c.complain(n.err)
		case c.output != "json":
			fmt.Fprintf(c.stdout, "%s is %s\n", n.name, n.app.Status)
			fallthrough
		default:
			c.reached(&n.app)
		}
	}
	if failed && ctx.Err() == nil {
		return exitError(exitOurs)
	}
	return ctx.Err()
}

// others is how many more there are to wait for.
func others(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d more to wait for", n)
}

// reach waits until an app is as it is wanted, and shows how far it is.
func reach(ctx context.Context, b *buoy.Client, name string, revision int, timeout time.Duration, show func(string)) (buoy.App, error) {
	end := time.Now().Add(timeout)
	for pause := askSoon; ; pause = min(2*pause, askLate) {
		a, err := b.App(ctx, name)
		switch {
		case err != nil && !errors.Is(err, buoy.ErrUnreachable) && !errors.Is(err, buoy.ErrUnavailable):
			return a, about(errNoApp, err)
		case err != nil && time.Now().After(end):
			return a, err
		case err != nil:
			show(err.Error())
		case revision > 0 && a.Rollout.Revision != revision:
			return a, fmt.Errorf("revision %d of app %q was given up: %s", revision, name, orElse(a.Rollout.Message, "another has taken its place"))
		case a.Settled() && canariesWell(&a) && (a.Status != "running" || a.Replicas.Healthy >= a.Replicas.Desired):
			return a, nil
		case time.Now().After(end):
			return a, &buoy.Error{Status: http.StatusServiceUnavailable, Message: fmt.Sprintf("app %q is not as wanted after %v: %s", name, timeout, progressOf(a)), WhyNot: a.Unplaced}
		default:
			show(progressOf(a))
		}
		select {
		case <-ctx.Done():
			return a, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// canariesWell says whether those canaries that there are serve, and that there
// are some.
func canariesWell(a *buoy.App) bool {
	if a.Status != "running" || !a.Rollout.Canary || a.Rollout.Paused {
		return true
	}
	some := false
	for i := range a.Containers {
		if r := &a.Containers[i]; r.Revision == a.Rollout.Revision {
			if r.Status != "running" || r.Health != "healthy" {
				return false
			}
			some = true
		}
	}
	return some
}

// progressOf is how far an app is from being as wanted.
func progressOf(a buoy.App) string {
	text := fmt.Sprintf("%s is %s, %s", a.Name, a.Status, replicasText(a.Replicas))
	if !a.Rollout.Done {
		text += ", revision " + rolloutText(a.Rollout)
	}
	if a.Message != "" {
		text += ": " + a.Message
	}
	return text
}

// statusLine is one line that is written over and over.
type statusLine struct {
	w     io.Writer
	on    bool
	shown string
}

func (l *statusLine) show(text string) {
	if l.on && text != l.shown {
		fmt.Fprintf(l.w, "\r\x1b[K%s", text)
		l.shown = text
	}
}

func (l *statusLine) clear() {
	if l.shown != "" {
		fmt.Fprint(l.w, "\r\x1b[K")
		l.shown = ""
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

const (
	lostPatience = 30 * time.Second       // how long buoyd may be away; an upgrade takes a few
	lookSoon     = 100 * time.Millisecond // looks whether a container has ended whose log has not; doubles
	lookLate     = 2 * time.Second
	lastWords    = 500 * time.Millisecond // what such a log gets to end: buoyd reads files every 200 ms
	killSignal   = 9
)

// attend shows what a container writes and turns signals into its stop, until
// it has ended. stopNow: a signal has come already.
func (c *cli) attend(ctx context.Context, b *buoy.Client, name string, stopNow bool) (buoy.Container, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	ask := func(verb string, do func() error) {
		wg.Go(func() {
			err := do()
			if err != nil && ctx.Err() == nil && !errors.Is(err, buoy.ErrNotFound) && !errors.Is(err, buoy.ErrConflict) {
				c.complain(fmt.Errorf("%s %s: %w", verb, name, err))
			}
		})
	}
	stop := func() error { return b.Stop(ctx, name) }
	kill := func() error { return b.Kill(ctx, name, killSignal) }
	if stopNow {
		ask("stop", stop)
	}
	wg.Go(func() {
		for asked := stopNow; ; asked = true {
			select {
			case <-ctx.Done():
				return
			case <-c.signals:
			}
			if asked {
				ask("kill", kill)
			} else {
				ask("stop", stop)
			}
		}
	})
	f := &follower{cli: c, b: b, name: name}
	return f.toTheEnd(ctx)
}

// follower copies the log of one container to our own output, byte for byte,
// and loses and repeats nothing when buoyd goes and comes back.
type follower struct {
	cli  *cli
	b    *buoy.Client
	name string

	after string    // id of the last line that was shown
	lost  time.Time // when buoyd went; zero: it is there
	moans bool      // that there is no log has been said
}

// toTheEnd follows until the container has ended and returns what it was then.
func (f *follower) toTheEnd(ctx context.Context) (buoy.Container, error) {
	pause, again := 20*time.Millisecond, false
	for {
		began := time.Now()
		whole := f.once(ctx)
		if time.Since(began) > time.Second {
			pause = 20 * time.Millisecond
		}
		one, ended, err := atRest(ctx, f.b, f.name)
		switch {
		case ended:
			if whole || again {
				return one, nil
			}
			again = true // for the lines that were cut off
			continue
		case errors.Is(err, buoy.ErrNotFound):
			return one, fmt.Errorf("container %q was removed", f.name)
		case err != nil && !f.comesBack(err):
			return one, err
		case err == nil:
			f.lost = time.Time{}
		}
		select {
		case <-ctx.Done():
			return one, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// atRest is a container, and whether it has ended. A buoyd that has just come
// back does not know yet what runs: it says so of itself.
func atRest(ctx context.Context, b *buoy.Client, name string) (one buoy.Container, ended bool, err error) {
	if one, err = b.Container(ctx, name); err != nil || !one.Ended() {
		return one, false, err
	}
	h, err := b.Health(ctx)
	if err != nil || !h.Ready {
		return one, false, err
	}
	one, err = b.Container(ctx, name)
	return one, err == nil && one.Ended(), err
}

// comesBack says whether to go on waiting after err.
func (f *follower) comesBack(err error) bool {
	if answer, ok := errors.AsType[*buoy.Error](err); ok && !errors.Is(answer, buoy.ErrUnavailable) {
		return false
	}
	if f.lost.IsZero() {
		f.lost = time.Now()
		fmt.Fprintf(f.cli.stderr, "buoy: buoyd is gone, the container runs on; waiting %v for buoyd\n", lostPatience)
	}
	return time.Since(f.lost) < lostPatience
}

// once follows until the log ends, and says whether it came to its end and was
// not cut off.
func (f *follower) once(ctx context.Context) (whole bool) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	var over atomic.Bool
	watch.Go(func() { f.watch(ctx, &over, cancel) })
	defer watch.Wait()
	defer cancel()
	for l, err := range f.b.LogLines(ctx, f.name, buoy.LogOptions{Follow: true, After: f.after}) {
		if err == nil {
			err = f.show(l)
			f.after = l.ID
		}
		if err != nil {
			f.moan(ctx, err)
			return over.Load()
		}
	}
	return over.Load() || ctx.Err() == nil
}

// show writes a line to where it belongs.
func (f *follower) show(l buoy.LogLine) error {
	if l.Gap {
		fmt.Fprintf(f.cli.stderr, "buoy: %s\n", l.Text)
		return nil
	}
	w := f.cli.stdout
	if l.Stream == "stderr" {
		w = f.cli.stderr
	}
	_, err := w.Write(written(l))
	return err
}

// written is a line as the container wrote it.
func written(l buoy.LogLine) []byte {
	text := l.Bytes
	if text == nil {
		text = []byte(l.Text)
	}
	if l.Partial {
		return text
	}
	return append(text, '\n')
}

// moan says once that there is no log to be had; the container may still end.
func (f *follower) moan(ctx context.Context, err error) {
	_, answered := errors.AsType[*buoy.Error](err)
	if f.moans || !answered || ctx.Err() != nil || errors.Is(err, buoy.ErrNotFound) {
		return
	}
	f.moans = true
	f.cli.complain(fmt.Errorf("no output of %s: %w", f.name, err))
}

// watch ends the following of a container that has ended although its log goes
// on, and says when buoyd is gone: the log waits for it in silence.
func (f *follower) watch(ctx context.Context, over *atomic.Bool, cancel func()) {
	for pause := lookSoon; ; pause = min(2*pause, lookLate) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		_, ended, err := atRest(ctx, f.b, f.name)
		if err != nil && ctx.Err() == nil {
			f.comesBack(err)
		}
		if !ended {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(lastWords):
			over.Store(true)
			cancel()
		}
		return
	}
}

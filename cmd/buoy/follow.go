package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	f := &follower{cli: c, b: b, name: name, streams: []*stream{{name: "stdout", w: c.stdout}, {name: "stderr", w: c.stderr}}}
	return f.toTheEnd(ctx)
}

// follower copies the log of one container to our own output. It survives
// that buoyd goes and comes back, as the container does.
type follower struct {
	cli     *cli
	b       *buoy.Client
	name    string
	streams []*stream

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
		one, err := f.b.Container(ctx, f.name)
		switch {
		case err == nil && one.Ended():
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

// once follows both streams until they end, and says whether they came to
// their end and were not cut off.
func (f *follower) once(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	var wg, watch sync.WaitGroup
	var cut, over atomic.Bool
	watch.Go(func() { f.endAfterwards(ctx, &over, cancel) })
	for _, s := range f.streams {
		wg.Go(func() {
			if err := f.follow(ctx, s); err != nil {
				cut.Store(true)
				f.moan(ctx, s, err)
			}
		})
	}
	wg.Wait()
	cancel()
	watch.Wait()
	return over.Load() || !cut.Load()
}

func (f *follower) follow(ctx context.Context, s *stream) error {
	log, err := f.b.Logs(ctx, f.name, buoy.LogOptions{Follow: true, Stream: s.name, Since: s.last})
	if err != nil {
		return err
	}
	defer log.Close()
	return s.copy(log)
}

// moan says once that there is no log to be had; the container may still end.
func (f *follower) moan(ctx context.Context, s *stream, err error) {
	_, answered := errors.AsType[*buoy.Error](err)
	if s.name != "stdout" || f.moans || !answered || ctx.Err() != nil || errors.Is(err, buoy.ErrNotFound) {
		return
	}
	f.moans = true
	f.cli.complain(fmt.Errorf("no output of %s: %w", f.name, err))
}

// endAfterwards ends the following of a container that has ended although its
// log goes on.
func (f *follower) endAfterwards(ctx context.Context, over *atomic.Bool, cancel func()) {
	for pause := lookSoon; ; pause = min(2*pause, lookLate) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		one, err := f.b.Container(ctx, f.name)
		if err != nil || !one.Ended() {
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

// stream is stdout or stderr of a container. It knows when it got its last
// piece, to go on from there after buoyd was away. The lines are asked for
// without their times: that alone gives the exact bytes, also of a line that
// is very long or has no end.
type stream struct {
	name string
	w    io.Writer
	last time.Time
}

func (s *stream) copy(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			s.last = time.Now()
			if _, err := s.w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

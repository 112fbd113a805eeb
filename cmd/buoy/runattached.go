package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// inhabit starts a container that is ready, attached to it, so that nothing of
// what it says is missed, and stays until it has ended.
func (c *cli) inhabit(ctx context.Context, b *buoy.Client, f *runFlags, r buoy.CreateRequest, keys []byte) error {
	name := r.Name
	s, err := b.Attach(ctx, name, buoy.AttachOptions{Stdin: f.interactive, Lossless: true})
	if err == nil {
		defer s.Close()
		if width, height := c.size(); f.tty && width > 0 {
			_ = s.Resize(width, height) // before it looks
		}
		err = startFailure(b.Start(ctx, name))
	}
	if err != nil {
		return errors.Join(err, b.Delete(ctx, name))
	}
	c.sayIdle(ctx, b, r)
	var stops sync.WaitGroup
	defer stops.Wait()
	k := &conversation{cli: c, s: s, stdin: f.interactive, tty: f.tty, signal: c.stopper(ctx, b, name, &stops)}
	if f.tty && f.interactive {
		k.keys = keys
	}
	if f.tty {
		k.again = c.attachAgain(b, name, f.interactive)
	}
	code, err := k.run(ctx)
	switch {
	case errors.Is(err, errDetached):
		if f.remove {
			c.complain(fmt.Errorf("%s runs on, and --rm does not remove it; \"buoy rm -f %s\" does", name, name))
		}
		return nil
	case err != nil:
		return fmt.Errorf("%w; if it still runs, \"buoy attach %s\" goes on", err, name)
	}
	if one, err := b.Container(ctx, name); err == nil && one.OOM {
		c.complain(fmt.Errorf("container %q ran out of memory", name))
	}
	c.removeAfter(ctx, b, f, name)
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// stopper makes the first signal a stop of the container, and the next its kill.
func (c *cli) stopper(ctx context.Context, b *buoy.Client, name string, stops *sync.WaitGroup) func(os.Signal) error {
	asked := false
	return func(sig os.Signal) error {
		if !endsUs(sig) {
			return nil
		}
		do := func() error { return b.Stop(ctx, name) }
		if asked {
			do = func() error { return b.Kill(ctx, name, killSignal) }
		}
		asked = true
		stops.Go(func() { // the session ends with the container
			if err := do(); err != nil && !errors.Is(err, buoy.ErrNotFound) && !errors.Is(err, buoy.ErrConflict) {
				c.complain(fmt.Errorf("stop %s: %w", name, err))
			}
		})
		return nil
	}
}

package node

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
)

// EndAll ends the containers of a run directory that no Node looks after, side
// by side, each with its own stop signal and grace. It returns when all have
// ended, or with an error. Nothing is recorded, so what is wanted stays wanted.
func EndAll(ctx context.Context, run string, rt *container.Runtime) error {
	if err := rt.Start(ctx); err != nil {
		return err
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	shim := rt.Shim()
	running := map[string]bool{}
	var timers []*time.Timer
	defer func() {
		for _, t := range timers {
			t.Stop()
		}
	}()
	err := shim.Watch(ctx, func(e shimapi.Event) {
		for _, c := range e.Sync {
			if c.Status != shimapi.Running {
				continue
			}
			running[c.ID] = true
			sig, grace := lastWish(run, c.ID)
			if !container.Heeds(c.PID, sig) || shim.Signal(ctx, shimapi.SignalRequest{ID: c.ID, Signal: int(sig)}) != nil {
				grace = 0
			}
			// Its end is an event like that of any other.
			timers = append(timers, time.AfterFunc(grace, func() { _ = shim.Kill(ctx, c.ID) }))
		}
		if e.Job == "" {
			delete(running, e.ID)
		}
		if len(running) == 0 {
			done()
		}
	})
	if len(running) == 0 {
		return nil
	}
	return err
}

// lastWish is the signal that a running container wants to be ended by, and how
// long it may take then.
func lastWish(run, name string) (unix.Signal, time.Duration) {
	var l launch
	n := Node{cfg: Config{Run: run}}
	raw, err := os.ReadFile(n.launchFile(name))
	if err == nil {
		_ = json.Unmarshal(raw, &l) // else it ends as one without a wish
	}
	return l.Run.Stopping()
}

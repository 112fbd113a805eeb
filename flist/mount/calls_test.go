package mount

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Whatever a fetch says when its time is over, the reader gets an error: only the end of the server leaves it without an
// answer.
func TestAwait(t *testing.T) {
	for name, fetch := range map[string]func(context.Context) error{
		"its own word": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"the cause":    func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
		"cancelled": func(ctx context.Context) error {
			<-ctx.Done()
			return errs.E(errs.Unavailable, "chunk: %w", context.Canceled)
		},
	} {
		err := newCalls().await(t.Context(), 1, 1, time.Millisecond, fetch)
		if err == nil || errors.Is(err, errStopping) || errors.Is(err, context.Canceled) || !errors.Is(err, errs.Unavailable) {
			t.Errorf("after the deadline, by %s: %v", name, err)
		}
		c := newCalls()
		c.endAll()
		if err := c.await(t.Context(), 1, 1, time.Minute, fetch); !errors.Is(err, errStopping) {
			t.Errorf("when the server ends, by %s: %v", name, err)
		}
		run, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newCalls().await(run, 1, 1, time.Minute, fetch); !errors.Is(err, errStopping) {
			t.Errorf("when Run ends, by %s: %v", name, err)
		}
	}
	if killed(uint32(unix.Gettid())) {
		t.Error("this thread is being killed")
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// maxStored is the longest chunk that is read from a store which is asked without knowing how long it should be.
const maxStored = chunk.MaxSize + 64<<10

// backend is a kind of store, without manners: gate adds those. Its errors need not name the store. One that is neither
// errs.NotFound nor errs.Invalid means that the store itself is in trouble, and so does *trouble.
type backend interface {
	get(ctx context.Context, id chunk.ID, c call) ([]byte, error)
	close() error
}

// putter is a backend that takes chunks.
type putter interface {
	put(ctx context.Context, id chunk.ID, stored []byte, c call) error
}

// call is what a backend has to know of one call.
type call struct {
	limit int64  // a longer chunk is refused before it is read
	alive func() // to be called whenever bytes have come or gone
}

// tooLong refuses what would be longer than the limit.
func (c call) tooLong(n int64) error {
	if n <= c.limit {
		return nil
	}
	return errs.E(errs.Invalid, "it announces %d bytes where at most %d can be", n, c.limit)
}

// pulse tells the gate that a stream moves.
type pulse struct {
	io.Reader
	alive func()
}

func (p pulse) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if n > 0 {
		p.alive()
	}
	return n, err
}

// trouble is what the whole store suffers from, not the one chunk.
type trouble struct {
	error
	after time.Duration // the store said when it may be asked again
}

func (t *trouble) Unwrap() error { return t.error }

// refused is trouble that waiting does not mend: a wrong password, a missing bucket.
func refused(format string, args ...any) error {
	return &trouble{error: errs.E(errs.Invalid, format, args...)}
}

// How a store in trouble is left alone: a tenth of a second, doubled each time, at most four seconds: a store that was
// restarted is found again that soon, and one connection in four seconds is no burden. What a store asks for itself
// (Retry-After) is believed up to five minutes.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 4 * time.Second
	maxAfter     = 5 * time.Minute
)

// gate is a Store with manners: so many calls at once, none that is silent for too long, and when the store is in
// trouble, one call now and then to see whether it still is, while all others fail at once.
type gate struct {
	backend backend
	name    string
	id      string // the whole URL: never shown
	limiter *limiter
	silence time.Duration

	mu      sync.Mutex // guards the rest
	fails   int        // in a row
	again   time.Time  // when it may be asked, if fails > 0
	probing bool       // somebody finds out
	last    error      // why it is in trouble
	usual   time.Duration
	closed  bool
	calls   map[*callState]struct{}
	done    sync.WaitGroup // of calls
}

// callState is a call under way.
type callState struct {
	cancel context.CancelCauseFunc
	moved  time.Time // when something was last heard; guarded by gate.mu
	fails  int       // of the gate, when the call began
	probe  bool
}

var (
	errSilent = errors.New("it is silent")
	errClosed = errors.New("the store was closed")
)

func newGate(name string, b backend, opt Options) *gate {
	return &gate{
		backend: b, name: name, limiter: newLimiter(opt.Parallel), silence: opt.Timeout,
		calls: map[*callState]struct{}{},
	}
}

func (g *gate) String() string { return g.name }

// Close ends all calls, waits for them and closes the connections.
func (g *gate) Close() error {
	g.mu.Lock()
	was := g.closed
	g.closed = true
	for c := range g.calls {
		c.cancel(errClosed)
	}
	g.mu.Unlock()
	g.done.Wait()
	if was {
		return nil
	}
	return g.backend.close()
}

// Get implements Store.
func (g *gate) Get(ctx context.Context, id chunk.ID) ([]byte, error) {
	return g.get(ctx, id, maxStored)
}

// get is Get for a chunk that has at most limit bytes.
func (g *gate) get(ctx context.Context, id chunk.ID, limit int64) (stored []byte, err error) {
	if _, err := chunk.SchemeOf(id); err != nil {
		return nil, err
	}
	err = g.do(ctx, func(ctx context.Context, alive func()) (err error) {
		stored, err = g.backend.get(ctx, id, call{limit, alive})
		return err
	})
	return stored, err
}

// Put implements Writer, if the backend does.
func (g *gate) Put(ctx context.Context, id chunk.ID, stored []byte) error {
	p, ok := g.backend.(putter)
	if _, err := chunk.SchemeOf(id); err != nil || !ok {
		return errs.E(errs.Invalid, "%s: chunk %s cannot be put there", g.name, id)
	}
	return g.do(ctx, func(ctx context.Context, alive func()) error {
		return p.put(ctx, id, stored, call{maxStored, alive})
	})
}

// do makes one call.
func (g *gate) do(ctx context.Context, f func(ctx context.Context, alive func()) error) error {
	if err := g.blocked(time.Now()); err != nil { // rather than waiting for a place first
		return err
	}
	if err := g.limiter.acquire(ctx); err != nil {
		return errs.E(errs.Unavailable, "%s: waiting for a place: %w", g.name, err)
	}
	defer g.limiter.release()
	sub, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	c, err := g.enter(cancel, began)
	if err != nil {
		return err
	}
	timer := time.AfterFunc(g.silence, func() { cancel(errSilent) })
	defer timer.Stop()
	err = f(sub, func() {
		timer.Reset(g.silence)
		g.mu.Lock()
		c.moved = time.Now()
		g.mu.Unlock()
	})
	return g.leave(sub, c, began, err)
}

// enter counts a call in, unless the store is to be left alone.
func (g *gate) enter(cancel context.CancelCauseFunc, now time.Time) (*callState, error) {
	if err := g.blocked(now); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, errs.E(errs.Unavailable, "%s: %w", g.name, errClosed)
	case g.fails > 0 && (g.probing || now.Before(g.again)): // somebody was faster
		return nil, g.last
	}
	c := &callState{cancel: cancel, moved: now, fails: g.fails, probe: g.fails > 0}
	g.probing = g.probing || c.probe
	g.calls[c] = struct{}{}
	g.done.Add(1)
	return c, nil
}

// leave counts a call out, and learns from it how the store is.
func (g *gate) leave(sub context.Context, c *callState, began time.Time, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.done.Done()
	delete(g.calls, c)
	if c.probe {
		g.probing = false
	}
	now := time.Now()
	if err == nil || errors.Is(err, errs.NotFound) {
		g.fails, g.last = 0, nil
		g.usual = ewma(g.usual, now.Sub(began))
		if err != nil {
			err = errs.E(errs.NotFound, "%s: %w", g.name, err)
		}
		return err
	}
	quiet := now.Sub(c.moved)
	cause := context.Cause(sub)
	switch {
	case errors.Is(cause, errSilent):
		err = fmt.Errorf("no answer for %v", g.silence)
	case errors.Is(cause, errClosed):
		return errs.E(errs.Unavailable, "%s: %w", g.name, errClosed)
	case cause != nil: // the caller wants no more; that is the store's fault only if it was silent for long
		if quiet >= g.slow() {
			g.fail(c, errs.E(errs.Unavailable, "%s: no answer for %v", g.name, quiet.Round(time.Millisecond)), 0, now)
		}
		return errs.E(errs.Unavailable, "%s: %w", g.name, &ended{"no answer yet", cause})
	}
	t, ours := errors.AsType[*trouble](err)
	if kind := errs.KindOf(err); kind == errs.Invalid {
		err = errs.E(errs.Invalid, "%s: %w", g.name, err)
		if !ours { // the chunk is bad, the store is well
			g.fails, g.last = 0, nil
			return err
		}
	} else {
		err = errs.E(errs.Unavailable, "%s: %w", g.name, err)
	}
	var after time.Duration
	if ours {
		after = min(t.after, maxAfter)
	}
	g.fail(c, err, after, now)
	return err
}

// fail closes the gate for a while. Calls that began before an earlier failure say nothing new: of 16 that break with
// one server, one counts. The caller holds mu.
func (g *gate) fail(c *callState, err error, after time.Duration, now time.Time) {
	if c.fails != g.fails {
		return
	}
	wait := min(firstBackoff<<min(g.fails, 10), lastBackoff)
	wait += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(wait)) // so that many nodes do not come at once
	g.fails, g.last, g.again = g.fails+1, err, now.Add(max(wait, after))
}

// blocked is why the store must not be asked now, or nil.
func (g *gate) blocked(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fails > 0 && (g.probing || now.Before(g.again)) {
		return g.last
	}
	return nil
}

// ready is when a store that is blocked should be looked at again.
func (g *gate) ready(now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probing {
		return now.Add(firstBackoff / 4)
	}
	return g.again
}

// trouble is why the store is left alone, or that it is silent; nil if it is well.
func (g *gate) trouble(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fails > 0 {
		return g.last
	}
	quiet := g.slow()
	slow := false
	for c := range g.calls {
		if d := now.Sub(c.moved); d > quiet {
			quiet, slow = d, true
		}
	}
	if slow {
		return errs.E(errs.Unavailable, "%s: no answer for %v", g.name, quiet.Round(time.Millisecond))
	}
	return nil
}

// hedge is how long to wait for this store before another one is asked as well: not at all if it may still be in trouble.
func (g *gate) hedge() (wait time.Duration, trouble bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fails > 0 {
		return 0, true
	}
	return g.slow(), false
}

// firstSlow is remarkable for a store that was not measured yet.
const firstSlow = 300 * time.Millisecond

// slow is what is remarkable for this store. The caller holds mu.
func (g *gate) slow() time.Duration {
	if g.usual == 0 {
		return firstSlow
	}
	return min(max(4*g.usual, 50*time.Millisecond), max(2*g.usual, time.Second))
}

func ewma(old, now time.Duration) time.Duration {
	if old == 0 {
		return now
	}
	return old + (now-old)/8
}

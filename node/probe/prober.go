package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is what a Prober is made of. From Dial and Exec an error of kind
// Conflict or Unavailable means that the container could not be asked: it counts
// neither way. Any other is the container's failure.
type Config struct {
	Check   Check
	Started time.Time // of the container

	Dial func(ctx context.Context, port uint16) (net.Conn, error) // connects to the container
	// Exec runs a command in the container, of which nothing is left when ctx
	// ends. The output is what it said, or the end of that.
	Exec func(ctx context.Context, args []string) (code int, output string, err error)

	Changed func(was Health, now State) // the status is another one
}

// Prober checks one run of a container.
type Prober struct {
	cfg    Config
	asked  chan chan answer
	ended  chan struct{} // closed when Run has returned
	spread bool          // the first regular interval is over; Run's
	tried  time.Time     // when a restart was last asked for; Run's

	mu    sync.Mutex // guards state
	state State
}

type answer struct {
	state State
	err   error
}

// New makes a Prober. Nothing is checked before Run.
func New(cfg Config) *Prober {
	cfg.Check = cfg.Check.filled()
	return &Prober{cfg: cfg, asked: make(chan chan answer), ended: make(chan struct{}), state: State{Status: Unknown, Since: time.Now()}}
}

// State is what is known.
func (p *Prober) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Now checks at once, out of turn, and has what is known then. Conflict: the
// run has ended.
func (p *Prober) Now(ctx context.Context) (State, error) {
	gone := errs.E(errs.Conflict, "the container does not run any more")
	reply := make(chan answer, 1)
	select {
	case p.asked <- reply:
	case <-p.ended:
		return State{}, gone
	case <-ctx.Done():
		return State{}, errs.E(errs.Unavailable, "wait for the check of the container: %w", ctx.Err())
	}
	select {
	case a := <-reply:
		return a.state, a.err
	case <-p.ended:
		return State{}, gone
	case <-ctx.Done():
		return State{}, errs.E(errs.Unavailable, "wait for the check of the container: %w", ctx.Err())
	}
}

// Run checks the container until ctx ends, the first time at once. Where the
// check says so, restart is to restart an unhealthy container, which ends ctx; it
// is called again after a period if that has not happened. Run it once.
func (p *Prober) Run(ctx context.Context, restart func(State)) {
	defer close(p.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var reply chan answer
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case reply = <-p.asked:
		}
		began := time.Now()
		err := p.check(ctx, began)
		if reply != nil {
			reply <- answer{p.State(), err}
		}
		if at, due := p.restartAt(p.State()); due && err == nil && !time.Now().Before(at) {
			p.tried = time.Now()
			restart(p.State())
		}
		timer.Reset(time.Until(p.next(began)))
	}
}

// restartAt says from when on a restart is due, if a check then shows that it
// still is.
func (p *Prober) restartAt(s State) (at time.Time, due bool) {
	at, due = p.cfg.Check.restart(s)
	if again := p.tried.Add(p.cfg.Check.Period); !p.tried.IsZero() && at.Before(again) {
		at = again
	}
	return at, due
}

// next is when there is something to be done after a check that began at that time.
func (p *Prober) next(began time.Time) time.Time {
	s := p.State()
	period := p.cfg.Check.Period
	next := began.Add(p.cfg.Check.interval(s, began))
	if next.Sub(began) == period {
		if !p.spread {
			// Containers that started together, with the daemon or the machine, are
			// not all asked at the same time for ever.
			p.spread = true
			next = next.Add(-rand.N(period / 2))
		}
		next = next.Add(-beyond(next, min(period/10, beat)))
	}
	if at, due := p.restartAt(s); due && at.Before(next) {
		return at
	}
	return next
}

// beat is what checks keep to: an idle process that is woken once for twenty of
// them takes a third of the time of one that is woken twenty times (2026-11), for
// which Go's runtime is to blame.
const beat = time.Second

// beyond is how far t is beyond the last beat.
func beyond(t time.Time, beat time.Duration) time.Duration {
	return time.Duration(t.UnixNano() % int64(beat))
}

// check asks the container once. An error says why it could not be asked.
func (p *Prober) check(ctx context.Context, began time.Time) error {
	c := p.cfg.Check
	asking, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var err error
	switch c.Type {
	case HTTP:
		err = p.http(asking)
	case TCP:
		err = p.tcp(asking)
	case Exec:
		err = p.exec(asking)
	}
	took := time.Since(began)
	if ctx.Err() != nil {
		return errs.E(errs.Conflict, "the container does not run any more")
	}
	if unasked(err) {
		return fmt.Errorf("the container could not be asked: %w", err)
	}
	r := Result{Started: p.cfg.Started, At: began, Took: took}
	switch {
	case err == nil:
	case asking.Err() != nil:
		r.Err = fmt.Sprintf("no answer within %s", c.Timeout)
	default:
		r.Err = err.Error()
	}
	p.mu.Lock()
	before := p.state.Status
	p.state = c.Next(p.state, r)
	now := p.state
	p.mu.Unlock()
	if now.Status != before {
		p.cfg.Changed(before, now)
	}
	return nil
}

// unasked says whether an error is not the container's: nobody could be asked,
// or this machine has run out of something.
func unasked(err error) bool {
	switch errs.KindOf(err) {
	case errs.Conflict, errs.Unavailable:
		return err != nil
	case errs.NotFound, errs.Exists, errs.Invalid, errs.Forbidden, errs.Internal:
	}
	for _, ours := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS} {
		if errors.Is(err, ours) {
			return true
		}
	}
	return false
}

func (p *Prober) exec(ctx context.Context) error {
	code, output, err := p.cfg.Exec(ctx, p.cfg.Check.Args)
	if err != nil || code == 0 {
		return err
	}
	if output = excerpt(output); output != "" {
		return fmt.Errorf("exit code %d: %s", code, output)
	}
	return fmt.Errorf("exit code %d", code)
}

package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Fetch is the size plain bytes of a chunk, with both hashes checked. A store that has it not, or garbage, is passed over
// for the next; one that is slower than it uses to be gets company. While a store that may have the chunk is in trouble,
// Fetch tries again until ctx ends, or for Options.Patience if ctx has no end. Its error is one sentence with what each
// store said: errs.Unavailable if waiting might have helped, errs.Invalid if there was only garbage, errs.NotFound.
func (r *Router) Fetch(ctx context.Context, ref chunk.Ref, size int) ([]byte, error) {
	if size < 0 || size > chunk.MaxSize {
		return nil, errs.E(errs.Invalid, "chunk %s: it cannot have %d bytes", ref.ID, size)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.opt.Patience)
		defer cancel()
	}
	ctx, done, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	h := &hunt{r: r, ref: ref, size: size, mirrorsOnly: true}
	for _, l := range r.candidates(ref.ID) {
		h.legs = append(h.legs, &said{leg: l})
		h.mirrorsOnly = h.mirrorsOnly && l.mirror
	}
	h.answers = make(chan *answer, len(h.legs))
	a, err := h.run(ctx)
	if err != nil {
		return nil, err
	}
	if a.stored != nil {
		r.writeBack(ctx, ref.ID, a.stored, a.by.gate)
	}
	return a.plain, nil
}

// hunt is one Fetch. It asks the stores in their order; the next one when one has answered without giving the chunk, or
// is slow; those in trouble again when their gates let it.
type hunt struct {
	r           *Router
	ref         chunk.Ref
	size        int
	legs        []*said
	mirrorsOnly bool
	answers     chan *answer // has a place for each leg
	waitFor     time.Time    // no other store is asked before
	grace       time.Time    // when mirrors are not waited for any longer
}

// said is what a store answered so far.
type said struct {
	leg
	err     error
	tries   int
	garbage int
	running bool
	probe   bool // the call goes on after the hunt, to find out how the store is
}

// answer is what one call came to.
type answer struct {
	by      *said
	plain   []byte
	stored  []byte // as it is in a store; nil if a mirror made it anew
	err     error
	garbage bool
}

func (h *hunt) run(ctx context.Context) (*answer, error) {
	sub, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		if s := h.pick(now); s != nil && !now.Before(h.waitFor) && sub.Err() == nil {
			h.start(sub, s, now, &wg)
			continue
		}
		wait, more := h.wait(now)
		if !more {
			return nil, h.failure(nil)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return h.last(ctx)
		case a := <-h.answers:
			if h.hear(a) {
				return a, nil
			}
			h.waitFor = time.Time{}
		case <-timer.C:
		}
	}
}

// final says whether asking again is of no use. Garbage is asked for twice: it may have come about on the way.
func (s *said) final() bool {
	switch errs.KindOf(s.err) {
	case errs.NotFound:
		return true
	case errs.Invalid:
		return s.garbage != 1
	default:
		return errors.Is(s.err, errClosed)
	}
}

// pick is the store to ask next: of those that may be asked, the one that was asked the least, the first of them.
func (h *hunt) pick(now time.Time) *said {
	var best *said
	for _, s := range h.legs {
		if s.running || s.final() || best != nil && best.tries <= s.tries {
			continue
		}
		if err := s.blocked(now); err != nil {
			s.err = err
			continue
		}
		best = s
	}
	return best
}

// start asks a store.
func (h *hunt) start(ctx context.Context, s *said, now time.Time, wg *sync.WaitGroup) {
	var slow time.Duration
	slow, s.probe = s.hedge()
	s.running = true
	s.tries++
	h.waitFor = now.Add(slow)
	if s.probe {
		if ctx, done, err := h.r.begin(context.WithoutCancel(ctx)); err == nil {
			go func() { // Close waits for done
				defer done()
				h.answers <- h.ask(ctx, s)
			}()
			return
		}
	}
	s.probe = false
	wg.Go(func() { h.answers <- h.ask(ctx, s) })
}

// hear notes an answer, and says whether it is the chunk.
func (h *hunt) hear(a *answer) bool {
	a.by.running = false
	if a.err == nil {
		return true
	}
	a.by.err = a.err
	if a.garbage {
		a.by.garbage++
	}
	return false
}

// ask gets, decrypts and checks.
func (h *hunt) ask(ctx context.Context, s *said) *answer {
	a := &answer{by: s}
	stored, err := s.get(ctx, h.ref.ID, storedLimit(h.size))
	if err != nil {
		a.err = err
		return a
	}
	if err := h.r.crypt.acquire(ctx); err != nil {
		a.err = errs.E(errs.Unavailable, "%s: %w", s, err)
		return a
	}
	defer h.r.crypt.release()
	if s.mirror {
		a.plain, a.err = h.ref.OpenForeign(stored, h.size)
	} else {
		a.plain, a.err = h.ref.Open(stored, h.size)
		a.stored = stored
	}
	if a.err != nil {
		a.err = errs.E(errs.Invalid, "%s: %w", s, a.err)
		a.garbage = true
	}
	return a
}

// storedLimit is the most that size bytes become: the bound of snappy, and what either cipher adds.
func storedLimit(size int) int64 { return 32 + int64(size) + int64(size)/6 + 64 }

// wait is how long nothing is to be done unless an answer comes; false when no store is left that may have the chunk.
// Once all others have said their last word, mirrors under way have a moment to answer, and others are not waited for.
func (h *hunt) wait(now time.Time) (time.Duration, bool) {
	until := now.Add(time.Hour)
	hope, mirrors := false, false
	for _, s := range h.legs {
		counts := !s.mirror || h.mirrorsOnly
		switch {
		case s.running:
			hope = hope || counts
			mirrors = mirrors || !counts
		case s.final():
		default:
			hope = hope || counts
			at := h.waitFor
			if s.blocked(now) != nil {
				at = s.ready(now)
			}
			if at.Before(until) {
				until = at
			}
		}
	}
	if !hope && mirrors {
		if h.grace.IsZero() {
			h.grace = now.Add(firstSlow)
		}
		hope = now.Before(h.grace)
		until = h.grace
	}
	return max(until.Sub(now), time.Millisecond), hope
}

// last waits for the calls that end with ctx, and is the failure, unless the chunk came after all.
func (h *hunt) last(ctx context.Context) (*answer, error) {
	for _, s := range h.legs {
		if s.running && s.probe {
			s.running = false
			s.err = errs.E(errs.Unavailable, "%s: no answer yet", s)
		}
	}
	for _, s := range h.legs {
		for s.running {
			if a := <-h.answers; h.hear(a) {
				return a, nil
			}
		}
	}
	return nil, h.failure(context.Cause(ctx))
}

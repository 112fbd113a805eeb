package cache

import (
	"context"
	"sync"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Prefetch fetches what is not in the cache, in that order, parallel at a time (8 if 0), and lets readers and Ahead go
// first. It never throws out what was used or fetched since it began: a list that does not fit ends with errs.Conflict.
// Chunks that no store has (errs.NotFound) or only garbage for (errs.Invalid) do not keep it from the others; a store that
// stays away, and ctx, end it (errs.Unavailable). progress, which may be nil, gets the plain bytes that are there and that
// there are to be, one call at a time.
func (v *View) Prefetch(ctx context.Context, refs []Want, parallel int, progress func(done, total int64)) error {
	if parallel <= 0 {
		parallel = 8
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &prefetch{progress: progress, wants: unique(refs)}
	for _, w := range p.wants {
		p.total += int64(w.Size)
	}
	v.c.mu.Lock()
	v.c.tick++
	floor := v.c.tick
	v.c.mu.Unlock()
	var wg sync.WaitGroup
	for range min(parallel, len(p.wants)) {
		wg.Go(func() {
			for w, ok := p.next(); ok && ctx.Err() == nil; w, ok = p.next() {
				if err := v.bring(ctx, w, floor); err != nil {
					if k := errs.KindOf(err); k != errs.NotFound && k != errs.Invalid {
						cancel(err)
						return
					}
					p.missed(err)
					continue
				}
				p.got(w)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		kind := errs.KindOf(err)
		if kind == errs.Internal { // ctx's own
			kind = errs.Unavailable
		}
		return errs.E(kind, "prefetch: %d of %d bytes: %w", p.done, p.total, err)
	}
	if p.bad > 0 {
		return errs.E(errs.KindOf(p.first), "prefetch: %d of %d chunks are not to be had, the first because: %w", p.bad, len(p.wants), p.first)
	}
	return nil
}

// bring fetches one chunk, unless a file is there: that is looked at when somebody wants it.
func (v *View) bring(ctx context.Context, w Want, floor uint64) error {
	if v.Have(w.Ref) {
		return nil
	}
	fl, err := v.need(ctx, w, store.Background, floor, false)
	if err == nil && fl != nil && !fl.kept {
		return errs.E(errs.Conflict, "the cache is full of what was used more lately, or the disk is")
	}
	return err
}

// prefetch is the state of one Prefetch.
type prefetch struct {
	mu          sync.Mutex // guards the rest, and progress
	wants       []Want
	started     int
	done, total int64
	bad         int
	first       error
	progress    func(done, total int64)
}

func (p *prefetch) next() (Want, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started == len(p.wants) {
		return Want{}, false
	}
	p.started++
	return p.wants[p.started-1], true
}

func (p *prefetch) got(w Want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += int64(w.Size)
	if p.progress != nil {
		p.progress(p.done, p.total)
	}
}

func (p *prefetch) missed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bad++; p.first == nil {
		p.first = err
	}
}

func unique(refs []Want) []Want {
	seen := make(map[chunk.ID]bool, len(refs))
	var list []Want
	for _, w := range refs {
		if !seen[w.Ref.ID] {
			seen[w.Ref.ID] = true
			list = append(list, w)
		}
	}
	return list
}

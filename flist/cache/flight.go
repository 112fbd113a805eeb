package cache

import (
	"context"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
)

// flight is one fetch, however many wait for it. It ends with the last of them.
type flight struct {
	view    *View
	ready   chan struct{} // closed when plain and err are there
	done    chan struct{} // closed when kept is there, too
	hurry   chan struct{} // closed when a reader waits; guarded by Cache.mu
	hurried bool
	brief   bool // for nobody: it may have had less time than who came later has
	waiters int
	cancel  context.CancelFunc

	plain []byte
	kept  bool
	err   error
}

// loose is a chunk that could not be kept: a few stay in memory, for a reader that takes one in many small reads.
type loose struct {
	ref   chunk.Ref
	plain []byte
}

const (
	maxLoose   = 16 // 8 MiB in chunks of the usual size
	maxWriting = 32 // chunks that are served before they are written; then readers wait for the disk
)

// aheadTime is how long a fetch goes on for which nobody waits.
const aheadTime = 30 * time.Second

var errClosed = errs.E(errs.Unavailable, "the chunk cache is closed")

// need brings a chunk into the cache. It returns the flight that did, which may still write if early is set; nil if the chunk
// was there already, and known to be good.
func (v *View) need(ctx context.Context, w Want, rank store.Rank, floor uint64, early bool) (*flight, error) {
	for {
		fl := v.join(ctx, w, rank, floor)
		if fl == nil {
			return nil, nil
		}
		enough := fl.done
		if early {
			enough = fl.ready
		}
		select {
		case <-enough:
		case <-ctx.Done():
			v.c.leave(w.Ref, fl)
			select {
			case <-enough: // both at once
			default:
				return nil, v.late(w.Ref.ID, context.Cause(ctx))
			}
		}
		if fl.err != nil && (fl.view != v || fl.brief && rank == store.Reader) && ctx.Err() == nil {
			continue // another flist's stores may lack what ours have
		}
		if fl.err == nil && len(fl.plain) != w.Size { // another flist's, which says something else of the same chunk
			return nil, errs.E(errs.Invalid, "chunk %s: it has %d bytes and not the %d that the flist says", w.Ref.ID, len(fl.plain), w.Size)
		}
		return fl, fl.err
	}
}

// late is why a chunk was waited for in vain.
func (v *View) late(id chunk.ID, cause error) error {
	if s, ok := v.src.(interface{ Trouble() error }); ok {
		if why := s.Trouble(); why != nil {
			return errs.E(errs.Unavailable, "chunk %s: %w: %w", id, cause, why)
		}
	}
	return errs.E(errs.Unavailable, "chunk %s: it was not there in time: %w", id, cause)
}

// join is the flight for a chunk, under way or new, or nil if the chunk is there.
func (v *View) join(ctx context.Context, w Want, rank store.Rank, floor uint64) *flight {
	c := v.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		closed := make(chan struct{})
		close(closed)
		return &flight{view: v, ready: closed, done: closed, err: errClosed}
	}
	if e := c.entries[w.Ref.ID]; e != nil && e.key == w.Ref.Key {
		c.touch(e)
		return nil
	}
	fl := c.flights[w.Ref]
	if fl == nil {
		fl = v.start(ctx, w, rank, floor)
	} else if rank == store.Reader && !fl.hurried {
		fl.hurried = true
		close(fl.hurry)
	}
	fl.waiters++
	return fl
}

// start begins a flight. The caller holds mu.
func (v *View) start(ctx context.Context, w Want, rank store.Rank, floor uint64) *flight {
	c := v.c
	fl := &flight{
		view: v, ready: make(chan struct{}), done: make(chan struct{}),
		hurry: make(chan struct{}), hurried: rank == store.Reader,
	}
	ctx = context.WithoutCancel(ctx)
	if rank == store.Ahead {
		fl.brief = true
		ctx, fl.cancel = context.WithTimeout(ctx, aheadTime)
	} else {
		ctx, fl.cancel = context.WithCancel(ctx)
	}
	c.flights[w.Ref] = fl
	c.work.Go(func() {
		defer fl.cancel()
		plain, here, err := v.obtain(store.Ranked(ctx, rank, fl.hurry), w)
		c.mu.Lock()
		fl.plain, fl.err = plain, err
		early := c.writing < maxWriting
		if early {
			close(fl.ready)
		}
		c.writing++
		c.mu.Unlock()
		fl.kept = here || err == nil && c.keep(w.Ref, plain, floor)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writing--
		if !early {
			close(fl.ready)
		}
		defer close(fl.done)
		if c.flights[w.Ref] == fl {
			delete(c.flights, w.Ref)
		}
		if fl.err == nil && !fl.kept {
			c.stats.Loose++
			if len(c.loose) == maxLoose {
				c.loose = c.loose[1:]
			}
			c.loose = append(c.loose, loose{w.Ref, fl.plain})
		}
	})
	return fl
}

// leave gives a flight up; with nobody left it ends.
func (c *Cache) leave(ref chunk.Ref, fl *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 {
		fl.cancel()
		if c.flights[ref] == fl { // who comes now gets a new one
			delete(c.flights, ref)
		}
	}
}

// obtain is the chunk from its file, if that is good: then it is here; or from the source.
func (v *View) obtain(ctx context.Context, w Want) (plain []byte, here bool, err error) {
	c := v.c
	c.mu.Lock()
	e := c.entries[w.Ref.ID]
	unknown := e != nil && e.key == "" && e.size == int64(w.Size)
	c.mu.Unlock()
	if unknown {
		if plain, err := c.read(e); err == nil && w.Ref.Check(plain) == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			e.key = strings.Clone(w.Ref.Key) // which is part of a whole flist
			return plain, c.entries[e.id] == e, nil
		}
	}
	plain, err = v.fetch(ctx, w)
	if err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	if unknown && c.entries[w.Ref.ID] == e {
		c.stats.Damaged++
	}
	c.mu.Unlock()
	return plain, false, nil
}

// fetch is the chunk from the source.
func (v *View) fetch(ctx context.Context, w Want) ([]byte, error) {
	plain, err := v.src.Fetch(ctx, w.Ref, w.Size)
	if err == nil && len(plain) != w.Size {
		err = errs.E(errs.Invalid, "chunk %s: it has %d bytes and not %d", w.Ref.ID, len(plain), w.Size)
	}
	if err != nil {
		return nil, err
	}
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	v.c.stats.Fetched++
	v.c.stats.FetchedBytes += int64(len(plain))
	return plain, nil
}

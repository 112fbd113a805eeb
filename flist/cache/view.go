package cache

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
)

// View is the cache as one flist uses it.
type View struct {
	c   *Cache
	src Source
}

const (
	maxOpened = 256 // files kept open for ReadAt
	maxAhead  = 32  // fetches of Ahead under way, of all views
)

// Have says whether the chunk is in the cache. Its file may still turn out to be damaged.
func (v *View) Have(ref chunk.Ref) bool {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	e := v.c.entries[ref.ID]
	return e != nil && (e.key == "" || e.key == ref.Key)
}

// Open is a file with the size plain bytes of a chunk, fetched if need be. It stays readable whatever happens to the cache,
// and may have a name to link to; a chunk that could not be kept has none. The caller closes it. errs.NotFound,
// errs.Unavailable and errs.Invalid are as the Source says; ctx's end is errs.Unavailable.
func (v *View) Open(ctx context.Context, ref chunk.Ref, size int) (*os.File, error) {
	c := v.c
	for range 3 {
		if plain := c.unkept(ref, size); plain != nil {
			return memory(plain)
		}
		fl, err := v.need(ctx, Want{ref, size}, store.Reader, 0, false)
		if err != nil {
			return nil, err
		}
		c.count(fl)
		if fl != nil && !fl.kept {
			return memory(fl.plain)
		}
		e, err := c.entry(ref, size)
		if err != nil {
			return nil, err
		}
		if e == nil {
			continue
		}
		f, err := c.reopen(e)
		if !errors.Is(err, errGone) {
			return f, err
		}
	}
	plain, err := v.fetch(ctx, Want{ref, size}) // thrown out, three times, before it could be opened
	if err != nil {
		return nil, err
	}
	return memory(plain)
}

// ReadAt reads from the size plain bytes of a chunk as io.ReaderAt does: io.EOF with what there is at the end. Errors are
// those of Open.
func (v *View) ReadAt(ctx context.Context, ref chunk.Ref, size int, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errs.E(errs.Invalid, "chunk %s: offset %d", ref.ID, off)
	}
	c := v.c
	want := p[:min(int64(len(p)), max(int64(size)-off, 0))]
	var end error
	if len(want) < len(p) {
		end = io.EOF
	}
	if len(want) == 0 {
		return 0, end
	}
	for range 3 {
		f, e, err := c.file(ref, size)
		if err != nil {
			return 0, err
		}
		if f != nil {
			n, err := f.ReadAt(want, off)
			switch {
			case err == nil:
				return n, end
			case errors.Is(err, os.ErrClosed): // thrown out just now
			case errors.Is(err, io.EOF): // it got shorter
				c.damaged(e)
			default:
				c.damaged(e)
				c.mu.Lock()
				c.warn("chunk is not read", err)
				c.mu.Unlock()
			}
			continue
		}
		if plain := c.unkept(ref, size); plain != nil {
			return copy(want, plain[off:]), end
		}
		fl, err := v.need(ctx, Want{ref, size}, store.Reader, 0, true)
		if err != nil {
			return 0, err
		}
		if fl != nil {
			c.count(fl)
			return copy(want, fl.plain[off:]), end
		}
	}
	plain, err := v.fetch(ctx, Want{ref, size})
	if err != nil {
		return 0, err
	}
	return copy(want, plain[off:]), end
}

// Ahead starts fetching chunks that a reader will probably want next, and returns at once. What is there or on its way is
// passed over, and so is what would be too much at once: asking again for the same is cheap. These fetches come after those of
// readers and before those of Prefetch; ctx gives them values, and does not end them.
func (v *View) Ahead(ctx context.Context, refs []Want) {
	c := v.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range refs {
		if c.closed || c.ahead >= maxAhead {
			return
		}
		if e := c.entries[w.Ref.ID]; e != nil && (e.key == w.Ref.Key || e.key != "") || c.flights[w.Ref] != nil {
			continue
		}
		fl := v.start(ctx, w, store.Ahead, 0)
		fl.waiters++ // nobody in particular, who never leaves
		c.ahead++
		c.work.Go(func() {
			<-fl.done
			c.mu.Lock()
			c.ahead--
			c.mu.Unlock()
		})
	}
}

// entry is the entry of a chunk that is known to be good, or nil.
func (c *Cache) entry(ref chunk.Ref, size int) (*entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[ref.ID]
	if e == nil || e.key != ref.Key {
		return nil, nil
	}
	if e.size != int64(size) {
		return nil, errs.E(errs.Invalid, "chunk %s: it has %d bytes and not the %d that the flist says", ref.ID, e.size, size)
	}
	c.touch(e)
	return e, nil
}

// file is the file of a chunk that is known to be good, kept open, or nil.
func (c *Cache) file(ref chunk.Ref, size int) (*os.File, *entry, error) {
	e, err := c.entry(ref, size)
	if e == nil || err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	f := e.file
	if f != nil {
		c.stats.Hits++
	}
	c.mu.Unlock()
	if f != nil {
		return f, e, nil
	}
	f, err = c.reopen(e)
	if errors.Is(err, errGone) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Hits++
	switch {
	case e.file != nil: // somebody was faster
		_ = f.Close()
		return e.file, e, nil
	case c.entries[e.id] != e || c.closed:
		_ = f.Close()
		return nil, nil, nil
	}
	if len(c.opened) >= maxOpened {
		old := c.opened[0]
		for _, o := range c.opened {
			if o.used < old.used {
				old = o
			}
		}
		c.shut(old)
	}
	e.file = f
	c.opened = append(c.opened, e)
	return f, e, nil
}

// unkept is a chunk that could not be kept and is still in memory.
func (c *Cache) unkept(ref chunk.Ref, size int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.loose {
		if l.ref == ref && len(l.plain) == size {
			return l.plain
		}
	}
	return nil
}

func (c *Cache) count(fl *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fl == nil {
		c.stats.Hits++
	} else {
		c.stats.Misses++
	}
}

// memory is a file without a disk.
func memory(plain []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("chunk", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, errs.E(errs.Unavailable, "a chunk that does not fit on the disk: %w", err)
	}
	f := os.NewFile(uintptr(fd), "chunk")
	if _, err := f.WriteAt(plain, 0); err != nil {
		return nil, errs.E(errs.Unavailable, "a chunk that does not fit on the disk: %w", errors.Join(err, f.Close()))
	}
	return f, nil
}

package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/store"
)

// counter counts down to the last one of several who share something.
type counter struct{ n atomic.Int64 }

func (c *counter) set(n int) { c.n.Store(int64(n)) }

// last says whether the caller is the last one.
func (c *counter) last() bool { return c.n.Add(-1) == 0 }

// piece is one chunk of a file, not read yet.
type piece struct {
	of *content
	i  int
}

// putter makes chunks of files and stores each once.
type putter struct {
	scheme   chunk.Scheme
	to       store.Writer
	progress func(int64)

	mu     sync.Mutex          // guards what follows
	seen   map[string]struct{} // names of chunks
	stored int64
}

// run reads and stores the files until there are no more, and returns then. What fails ends ctx through fail. In memory at
// once is a chunk for each of parallel, and what the cores are at work on.
func (p *putter) run(ctx context.Context, fail func(error), files <-chan *content, parallel int) {
	pieces := make(chan piece)
	cores := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	defer wg.Wait()
	for range parallel {
		wg.Go(func() {
			buf := make([]byte, chunk.Size)
			for q := range pieces {
				if ctx.Err() == nil {
					fail(p.put(ctx, cores, q, buf))
				}
				if q.of.left.last() {
					fail(q.of.finish(ctx.Err() == nil))
				}
			}
		})
	}
	for c := range files {
		for i := range c.node.Chunks {
			pieces <- piece{c, i}
		}
	}
	close(pieces)
}

// finish closes a file, all of which was read, and says whether it is still what it was.
func (c *content) finish(good bool) error {
	var after unix.Stat_t
	err := unix.Fstat(int(c.f.Fd()), &after)
	if err == nil && good && (after.Size != c.before.Size || after.Mtim != c.before.Mtim || after.Ctim != c.before.Ctim) {
		err = changed(c.path)
	}
	return errors.Join(err, c.f.Close())
}

func (p *putter) put(ctx context.Context, cores chan struct{}, q piece, buf []byte) error {
	n := q.of.node
	size := n.ChunkLen(q.i)
	select {
	case cores <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	ref, stored, err := p.seal(q, buf[:size])
	<-cores
	if err != nil {
		return err
	}
	n.Chunks[q.i] = ref
	if p.first(ref.ID, len(stored)) {
		if err := p.to.Put(ctx, ref.ID, stored); err != nil {
			return fmt.Errorf("store a chunk of %q: %w", "/"+q.of.path, err)
		}
	}
	if p.progress != nil {
		p.progress(int64(size))
	}
	return nil
}

func (p *putter) seal(q piece, buf []byte) (chunk.Ref, []byte, error) {
	_, err := q.of.f.ReadAt(buf, int64(q.i)*chunk.Size)
	if errors.Is(err, io.EOF) { // it has become shorter
		err = changed(q.of.path)
	}
	if err != nil {
		return chunk.Ref{}, nil, fmt.Errorf("read: %w", err)
	}
	ref, stored := p.scheme.Seal(buf)
	return ref, stored, nil
}

// first says whether the chunk is new, and counts it.
func (p *putter) first(id chunk.ID, size int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.seen[string(id)]; ok {
		return false
	}
	p.seen[string(id)] = struct{}{}
	p.stored += int64(size)
	return true
}

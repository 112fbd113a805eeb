package pack

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Bad is a chunk that cannot be had.
type Bad struct {
	Ref  chunk.Ref
	Path string // of one file that needs it
	Err  error
}

// Verify fetches each chunk of l once and says which ones cannot be had, in the order of files; the source checks both
// hashes. Files whose content the list lacks are among them, without a chunk. It fails when ctx ends, and when stores do not
// answer: that says nothing about chunks.
func Verify(ctx context.Context, l *flist.List, s Source, parallel int, progress func(bytes int64)) ([]Bad, error) {
	var mu sync.Mutex // guards bad
	var bad []Bad
	at := map[string]int{} // the node of each path in bad
	add := func(node int, ref chunk.Ref, err error) {
		mu.Lock()
		defer mu.Unlock()
		path := "/" + l.Path(node)
		bad, at[path] = append(bad, Bad{ref, path, err}), node
	}
	for i := range l.Nodes {
		if l.Nodes[i].Missing() {
			add(i, chunk.Ref{}, errs.E(errs.Invalid, "the flist has not its content: whoever packed it was interrupted"))
		}
	}
	err := eachChunk(ctx, l, parallel, func(ctx context.Context, w want) error {
		_, err := s.Fetch(ctx, w.ref, w.size)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errs.Unavailable):
			return err
		case err != nil:
			add(w.node, w.ref, err)
		}
		if progress != nil {
			progress(int64(w.size))
		}
		return nil
	})
	slices.SortStableFunc(bad, func(a, b Bad) int {
		return cmp.Or(at[a.Path]-at[b.Path], cmp.Compare(a.Ref.ID, b.Ref.ID))
	})
	return bad, err
}

// eachChunk calls f for each chunk of a list, several at once, until one fails.
func eachChunk(ctx context.Context, l *flist.List, parallel int, f func(context.Context, want) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(max(parallel, 0), defaultParallel))
	for _, w := range wanted(l) {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return f(gctx, w) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// Convert makes a list of the other era of l: every chunk is fetched, encrypted anew and stored. Where chunks are is for the
// caller to say in the result's Meta.
func Convert(ctx context.Context, l *flist.List, to flist.Era, s Source, w store.Writer, parallel int) (*flist.List, error) {
	var mu sync.Mutex // guards refs
	refs := map[chunk.Ref]chunk.Ref{}
	err := eachChunk(ctx, l, parallel, func(ctx context.Context, c want) error {
		if size := l.Nodes[c.node].ChunkSize; size != chunk.Size {
			return errs.E(errs.Invalid, "convert %q: its chunks are of %d bytes, not %d", "/"+l.Path(c.node), size, chunk.Size)
		}
		plain, err := s.Fetch(ctx, c.ref, c.size)
		if err != nil {
			return err
		}
		ref, stored := to.Scheme().Seal(plain)
		mu.Lock()
		refs[c.ref] = ref
		mu.Unlock()
		return w.Put(ctx, ref.ID, stored)
	})
	if err != nil {
		return nil, err
	}
	out := &flist.List{Era: to, Nodes: slices.Clone(l.Nodes), Meta: flist.Meta{Config: l.Meta.Config, Texts: l.Meta.Texts}}
	for i := range out.Nodes {
		n := &out.Nodes[i]
		n.Chunks = slices.Clone(n.Chunks)
		for k, ref := range n.Chunks {
			n.Chunks[k] = refs[ref]
		}
	}
	return out, nil
}

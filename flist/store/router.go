package store

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Router asks several stores for the chunks of an flist.
type Router struct {
	legs   []leg    // in the order in which they are asked
	caches []leg    // which get what was found elsewhere
	opt    Options  // with defaults
	crypt  *limiter // chunks that are decrypted at once
	stores []*gate

	back   chan struct{} // a place for each chunk on its way into a cache
	mu     sync.Mutex    // guards the rest
	closed bool
	calls  map[*context.CancelCauseFunc]struct{}
	work   sync.WaitGroup // of calls
}

// leg is a store for part of the chunks.
type leg struct {
	*gate
	span   span
	mirror bool // another node: it may have compressed anew, and nobody waits for it
	pool   int
}

// maxRoutes is how many routes of an flist are believed. Files are known with 16.
const maxRoutes = 1024

// Route is the stores of an flist: the mirrors first, then override, then its own routes by pool, then its own backend. It
// touches no network. What override and mirrors say is an order; what the flist says is a stranger's word: of its routes,
// those that no store here speaks are left out, and sockets on this machine are.
func Route(l flist.Meta, override, mirrors []string, opt Options) (*Router, error) {
	r := &Router{
		opt: opt.defaults(), crypt: newLimiter(runtime.GOMAXPROCS(0)),
		back: make(chan struct{}, 4), calls: map[*context.CancelCauseFunc]struct{}{},
	}
	if r.opt.Share == nil {
		r.opt.Share = &Share{}
	}
	if err := r.fill(l, override, mirrors); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// fill opens the stores.
func (r *Router) fill(l flist.Meta, override, mirrors []string) error {
	for i, urls := range [][]string{mirrors, override} {
		for _, u := range urls {
			g, err := r.store(u)
			if err != nil {
				return err
			}
			r.legs = append(r.legs, leg{gate: g, mirror: i == 0})
		}
	}
	routes := slices.Clone(l.Routes)
	if l.Backend != "" {
		routes = append(routes, flist.Route{Pool: int(^uint(0) >> 1), URL: l.Backend})
	}
	if len(routes) > maxRoutes {
		return errs.E(errs.Invalid, "the flist has %d routes, and at most %d are read", len(routes), maxRoutes)
	}
	slices.SortStableFunc(routes, func(a, b flist.Route) int { return cmp.Compare(a.Pool, b.Pool) })
	var why error
	for _, route := range routes {
		if err := r.own(route); err != nil {
			why = errors.Join(why, err)
		}
	}
	if len(r.legs) == 0 {
		return why
	}
	return nil
}

// own adds a route of the flist itself.
func (r *Router) own(route flist.Route) error {
	s, err := newSpan(route.From, route.To)
	if err != nil {
		return err
	}
	if strings.Contains(route.URL, "+unix:") {
		return errs.E(errs.Invalid, "the flist names a socket on this machine as its store, which only an override may")
	}
	g, err := r.store(route.URL)
	if err != nil {
		return err
	}
	l := leg{gate: g, span: s, pool: route.Pool}
	if !slices.ContainsFunc(r.legs, func(o leg) bool { return o.gate == g && o.span == s }) {
		r.legs = append(r.legs, l)
	}
	if _, ok := g.backend.(*resp); ok && route.Cache { // never a directory: a stranger would choose where files are written
		r.caches = append(r.caches, l)
	}
	return nil
}

// store is the store at that URL, one for all legs.
func (r *Router) store(rawURL string) (*gate, error) {
	for _, g := range r.stores {
		if g.id == rawURL {
			return g, nil
		}
	}
	g, err := r.opt.Share.take(rawURL, r.opt)
	if err == nil {
		r.stores = append(r.stores, g)
	}
	return g, err
}

// Stores are the stores that are asked, in their order, without secrets.
func (r *Router) Stores() []string {
	var names []string
	for _, l := range r.legs {
		if n := l.String(); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// candidates are the legs for a chunk, each store once.
func (r *Router) candidates(id chunk.ID) []leg {
	var legs []leg
	for _, l := range r.legs {
		if l.span.has(id) && !slices.ContainsFunc(legs, func(o leg) bool { return o.gate == l.gate }) {
			legs = append(legs, l)
		}
	}
	return legs
}

// writeBack puts a chunk into the caches that do not have it, if they can keep up.
func (r *Router) writeBack(ctx context.Context, id chunk.ID, stored []byte, from *gate) {
	for _, l := range r.caches {
		if l.gate == from || !l.span.has(id) {
			continue
		}
		select {
		case r.back <- struct{}{}:
		default:
			return
		}
		ctx, done, err := r.begin(context.WithoutCancel(ctx))
		if err != nil {
			return
		}
		go func() { // Close waits for done
			defer func() { done(); <-r.back }()
			_ = l.Put(Ranked(ctx, Background, nil), id, stored) // a favour; the gate remembers that the store is in trouble
		}()
	}
}

// begin counts a call in that ends with Close. done is to be called after it.
func (r *Router) begin(ctx context.Context) (sub context.Context, done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, errs.E(errs.Unavailable, "%w", errClosed)
	}
	sub, cancel := context.WithCancelCause(ctx)
	r.calls[&cancel] = struct{}{}
	r.work.Add(1)
	return sub, func() {
		cancel(nil)
		r.mu.Lock()
		delete(r.calls, &cancel)
		r.mu.Unlock()
		r.work.Done()
	}, nil
}

// Trouble is why chunks may be late: what the stores that do not answer said last, or nil.
func (r *Router) Trouble() error {
	var all []string
	for _, g := range r.stores {
		if err := g.trouble(time.Now()); err != nil {
			all = append(all, err.Error())
		}
	}
	if all == nil {
		return nil
	}
	return errs.E(errs.Unavailable, "%s", strings.Join(all, "; "))
}

// Close ends all calls, and the connections that no other router shares.
func (r *Router) Close() error {
	r.mu.Lock()
	was := r.closed
	r.closed = true
	for cancel := range r.calls {
		(*cancel)(errClosed)
	}
	r.mu.Unlock()
	r.work.Wait()
	if was {
		return nil
	}
	var err error
	for _, g := range r.stores {
		err = errors.Join(err, r.opt.Share.give(g))
	}
	return err
}

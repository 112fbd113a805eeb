package images

import (
	"context"
	"sync"
)

// flights lets callers who want the same thing share one piece of work. The zero value is ready.
type flights[T any] struct {
	mu sync.Mutex // guards m and every flight's waiters
	m  map[string]*flight[T]
}

type flight[T any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	val     T     // valid once done is closed
	err     error // the same

	emitting  sync.Mutex // guards listeners, and keeps progress calls one at a time
	listeners map[*func(Progress)]struct{}
}

// do returns what work returns for key, joining work that is already under way; led says that this call started it.
// ctx ends only the caller's own waiting: work goes on while somebody waits, and is cancelled and awaited by the last
// one who leaves. listen may be nil; it is never called after do has returned.
func (g *flights[T]) do(ctx context.Context, key string, listen func(Progress),
	work func(ctx context.Context, emit func(Progress)) (T, error),
) (val T, led bool, err error) {
	f, led, err := g.join(ctx, key, &listen, work)
	if err != nil {
		return val, false, err
	}
	defer f.unlisten(&listen)
	select {
	case <-f.done:
	case <-ctx.Done():
		if g.leave(f) {
			<-f.done // nobody waits any more: the work is ending, leave nothing behind
		}
		return val, led, context.Cause(ctx)
	}
	g.leave(f)
	return f.val, led, f.err
}

// join finds or starts the flight for key and counts the caller in. Who starts it hears all of it.
func (g *flights[T]) join(ctx context.Context, key string, listen *func(Progress), work func(context.Context, func(Progress)) (T, error)) (*flight[T], bool, error) {
	for {
		g.mu.Lock()
		f, ok := g.m[key]
		if ok && f.waiters > 0 {
			f.waiters++
			g.mu.Unlock()
			f.listen(listen)
			return f, false, nil
		}
		if !ok {
			f = g.start(ctx, key, listen, work)
			g.mu.Unlock()
			return f, true, nil
		}
		g.mu.Unlock() // abandoned and ending: wait until it has put things back
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// start is called with g.mu locked.
func (g *flights[T]) start(ctx context.Context, key string, listen *func(Progress), work func(context.Context, func(Progress)) (T, error)) *flight[T] {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight[T]{done: make(chan struct{}), cancel: cancel, waiters: 1, listeners: map[*func(Progress)]struct{}{}}
	f.listen(listen)
	if g.m == nil {
		g.m = map[string]*flight[T]{}
	}
	g.m[key] = f
	go func() { // its Wait is in do: every caller waits for done, the last one even when its own context has ended
		f.val, f.err = work(ctx, f.emit)
		cancel()
		g.mu.Lock()
		delete(g.m, key)
		g.mu.Unlock()
		close(f.done)
	}()
	return f
}

// leave counts a caller out and cancels the work if it was the last.
func (g *flights[T]) leave(f *flight[T]) (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.waiters--
	if f.waiters == 0 {
		f.cancel()
	}
	return f.waiters == 0
}

func (f *flight[T]) emit(p Progress) {
	f.emitting.Lock()
	defer f.emitting.Unlock()
	for l := range f.listeners {
		(*l)(p)
	}
}

func (f *flight[T]) listen(l *func(Progress)) {
	if *l == nil {
		return
	}
	f.emitting.Lock()
	defer f.emitting.Unlock()
	f.listeners[l] = struct{}{}
}

func (f *flight[T]) unlisten(l *func(Progress)) {
	f.emitting.Lock()
	defer f.emitting.Unlock()
	delete(f.listeners, l)
}

// active is the keys under way.
func (g *flights[T]) active() map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := map[string]bool{}
	for k := range g.m {
		keys[k] = true
	}
	return keys
}

// keyLocks is one lock per key that waits no longer than ctx. The zero value is ready.
type keyLocks struct {
	mu sync.Mutex // guards m
	m  map[string]chan struct{}
}

func (k *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		busy, ok := k.m[key]
		if !ok {
			busy = make(chan struct{})
			if k.m == nil {
				k.m = map[string]chan struct{}{}
			}
			k.m[key] = busy
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.m, key)
				k.mu.Unlock()
				close(busy)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

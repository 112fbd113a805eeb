package store

import (
	"context"
	"slices"
	"sync"
)

// limiter lets so many calls go at once. Those that wait are served by rank, then in their order; an eighth of the places
// is kept from Ahead, a quarter from Background, so that a reader hardly ever waits for them.
type limiter struct {
	n     int
	mu    sync.Mutex // guards free, queue
	free  int
	queue [ranks][]*ticket
}

type ticket struct{ granted chan struct{} }

func newLimiter(n int) *limiter { return &limiter{n: n, free: n} }

func (l *limiter) kept(r Rank) int {
	switch r {
	case Ahead:
		return l.n / 8
	case Background:
		return (l.n + 2) / 4 // of 2 places, one
	default:
		return 0
	}
}

// acquire waits for a place; release gives it back. The error is ctx's.
func (l *limiter) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rank, hurry := rankOf(ctx)
	t := &ticket{granted: make(chan struct{})}
	l.mu.Lock()
	l.queue[rank] = append(l.queue[rank], t)
	l.grant()
	l.mu.Unlock()
	for {
		select {
		case <-t.granted:
			return nil
		case <-hurry:
			hurry = nil
			l.mu.Lock()
			if l.drop(t) {
				l.queue[Reader] = append(l.queue[Reader], t)
				l.grant()
			}
			l.mu.Unlock()
		case <-ctx.Done():
			l.mu.Lock()
			waiting := l.drop(t)
			l.mu.Unlock()
			if !waiting {
				l.release()
			}
			return ctx.Err()
		}
	}
}

func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free++
	l.grant()
}

// grant hands out what is free. The caller holds mu.
func (l *limiter) grant() {
	for r := range l.queue {
		for len(l.queue[r]) > 0 && l.free > l.kept(Rank(r)) {
			l.free--
			close(l.queue[r][0].granted)
			l.queue[r] = l.queue[r][1:]
		}
	}
}

// drop takes a ticket out of its queue, and says whether it still waited. The caller holds mu.
func (l *limiter) drop(t *ticket) bool {
	for r, q := range l.queue {
		if i := slices.Index(q, t); i >= 0 {
			l.queue[r] = slices.Delete(q, i, i+1)
			return true
		}
	}
	return false
}

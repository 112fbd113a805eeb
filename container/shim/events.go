//go:build linux && cgo

package shim

import (
	"sync"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// events spreads exits to all watchers.
type events struct {
	mu   sync.Mutex // guards subs
	subs map[*subscriber]bool
}

type subscriber struct{ c chan shimapi.Event }

// watchQueue is what a watcher may lag behind: the exits of a full node at once.
const watchQueue = 1024

func newEvents() *events { return &events{subs: map[*subscriber]bool{}} }

func (e *events) subscribe() *subscriber {
	s := &subscriber{c: make(chan shimapi.Event, watchQueue)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.subs[s] = true
	return s
}

func (e *events) unsubscribe(s *subscriber) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.subs, s)
}

// publish never waits: who lags is dropped, and told by the end of its channel.
func (e *events) publish(ev shimapi.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.subs {
		select {
		case s.c <- ev:
		default:
			close(s.c)
			delete(e.subs, s)
		}
	}
}

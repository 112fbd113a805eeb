package serve

import (
	"sync"

	"github.com/buoy-edge/buoy/flist/flistapi"
)

// events are told to whoever listens. The zero value is ready.
type events struct {
	mu   sync.Mutex // guards subs
	subs map[chan flistapi.Event]struct{}
}

// lag is how many events a listener may be behind before it is dropped.
const lag = 256

func (e *events) subscribe() chan flistapi.Event {
	c := make(chan flistapi.Event, lag)
	c <- flistapi.Event{Kind: flistapi.EventSync}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.subs == nil {
		e.subs = map[chan flistapi.Event]struct{}{}
	}
	e.subs[c] = struct{}{}
	return c
}

func (e *events) unsubscribe(c chan flistapi.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.subs, c)
}

// tell never waits: a listener that lags behind has its channel closed.
func (e *events) tell(ev flistapi.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.subs {
		select {
		case c <- ev:
		default:
			delete(e.subs, c)
			close(c)
		}
	}
}

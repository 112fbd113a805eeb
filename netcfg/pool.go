package netcfg

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	// poolSize namespaces wait for containers when nothing much happens: one is
	// made in 0.7 ms.
	poolSize = 2
	// poolMost wait while many containers start: twice as many as were ever
	// taken in the time that it takes to make more.
	poolMost = 16
	// poolRest after the last start there are poolSize again.
	poolRest = 5 * time.Second
)

// refillDelay leaves the kernel's one lock for links to the container that has
// just taken a namespace: its Attach is 0.4 ms faster (p50, busy machine, 2026-11).
const refillDelay = 20 * time.Millisecond

// pool keeps namespaces ready. Its first use fills it, so a daemon without
// containers pays nothing.
type pool struct {
	wg sync.WaitGroup // the goroutine that fills

	mu      sync.Mutex // guards the fields below
	spare   []*Netns
	made    map[string]*Netns // by path, open ones
	taken   int               // since the last look of the one who fills
	filling bool
	closed  bool
	quit    chan struct{} // closed by close; made by the first take, as is the next
	wake    chan struct{} // told of each take
}

func (p *pool) take() (*Netns, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errs.E(errs.Unavailable, "make netns: the network is closed")
	}
	var ns *Netns
	if len(p.spare) > 0 {
		ns = p.spare[0]
		p.spare = slices.Delete(p.spare, 0, 1)
	}
	if p.quit == nil {
		p.quit, p.wake = make(chan struct{}), make(chan struct{}, 1)
	}
	p.taken++
	select {
	case p.wake <- struct{}{}:
	default:
	}
	if !p.filling {
		p.filling = true
		p.wg.Go(func() { p.fill(p.quit, p.wake) }) // close waits for it
	}
	p.mu.Unlock()
	if ns != nil {
		return ns, nil
	}
	return p.add()
}

// fill keeps as many ready as starts need, until there are none for a while, or
// none can be made: then the one who takes next sees why.
func (p *pool) fill(quit, wake <-chan struct{}) {
	size := poolSize
	for {
		rest := time.NewTimer(poolRest)
		select {
		case <-quit:
		case <-wake:
			if size = p.pause(quit, size); p.level(size) {
				rest.Stop()
				continue
			}
		case <-rest.C:
			p.level(poolSize)
		}
		rest.Stop()
		if p.finish() {
			return
		}
	}
}

// pause leaves the kernel to the container that took one, unless others wait
// already, and says how many should be ready.
func (p *pool) pause(quit <-chan struct{}, size int) int {
	p.mu.Lock()
	none := len(p.spare) == 0
	p.mu.Unlock()
	if !none {
		select {
		case <-quit:
		case <-time.After(refillDelay):
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	size = min(max(size, 2*p.taken), poolMost)
	p.taken = 0
	return size
}

// level makes or closes namespaces until size are ready.
func (p *pool) level(size int) (ok bool) {
	for {
		p.mu.Lock()
		have, closed := len(p.spare), p.closed
		var extra *Netns
		if have > size && !closed {
			extra, p.spare = p.spare[have-1], p.spare[:have-1]
		}
		p.mu.Unlock()
		switch {
		case closed:
			return false
		case extra != nil:
			if err := extra.Close(); err != nil {
				return false
			}
		case have == size:
			return true
		default:
			ns, err := p.add()
			if err != nil {
				return false
			}
			p.mu.Lock()
			p.spare = append(p.spare, ns)
			p.mu.Unlock()
		}
	}
}

// finish ends filling, unless somebody took one meanwhile.
func (p *pool) finish() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wake) > 0 && !p.closed {
		return false
	}
	p.filling = false
	return true
}

func (p *pool) add() (*Netns, error) {
	ns, err := makeNetns()
	if err != nil {
		return nil, fmt.Errorf("make netns: %w", err)
	}
	ns.pool = p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == nil {
		p.made = map[string]*Netns{}
	}
	p.made[ns.path] = ns
	return ns, nil
}

func (p *pool) forget(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.made, path)
}

// close ends the pool. Namespaces that were taken are their takers'.
func (p *pool) close() error {
	p.mu.Lock()
	if p.quit != nil && !p.closed {
		close(p.quit)
	}
	p.closed = true
	p.mu.Unlock()
	p.wg.Wait()
	p.mu.Lock()
	spare := p.spare
	p.spare = nil
	p.mu.Unlock()
	for _, ns := range spare {
		if err := ns.Close(); err != nil {
			return fmt.Errorf("close netns: %w", err)
		}
	}
	return nil
}

package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
)

// nudgeTime is how long a host may take to hear that there is something to do;
// its next report tells it in any case.
const nudgeTime = 5 * time.Second

// nudges has hosts report at once. However often one is nudged, one request is
// under way to it, and another follows if it was nudged meanwhile.
type nudges struct {
	poke func(ctx context.Context, host string)

	mu      sync.Mutex      // guards all below
	ctx     context.Context //nolint:containedctx // of run: nudges come from elsewhere and end with it
	pending map[string]bool // hosts that are being told; true: again
	wg      sync.WaitGroup
}

// run lets hosts be nudged until ctx ends.
func (n *nudges) run(ctx context.Context) error {
	n.mu.Lock()
	n.ctx = ctx
	n.mu.Unlock()
	<-ctx.Done()
	n.mu.Lock()
	n.ctx = nil
	n.mu.Unlock()
	n.wg.Wait()
	return nil
}

// nudge does not wait.
func (n *nudges) nudge(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx == nil {
		return
	}
	if _, busy := n.pending[host]; busy {
		n.pending[host] = true
		return
	}
	n.pending[host] = false
	ctx := n.ctx
	n.wg.Go(func() {
		for again := true; again; again = n.done(host) {
			ctx, cancel := context.WithTimeout(ctx, nudgeTime)
			n.poke(ctx, host)
			cancel()
		}
	})
}

// done says whether a host is to be told once more.
func (n *nudges) done(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pending[host] && n.ctx != nil {
		n.pending[host] = false
		return true
	}
	delete(n.pending, host)
	return false
}

// poke tells a host, if it is there, that there is something to do.
func (c *controller) poke(ctx context.Context, host string) { c.answers(ctx, host) }

// answers does so too, and says whether it is there.
func (c *controller) answers(ctx context.Context, host string) bool {
	t, ok := c.hub.Transport(host)
	if !ok {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+hostapi.Poke, nil)
	if err != nil {
		return false
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		c.log.Debug("host does not answer by its tunnel", "host", host, "error", err)
		return false
	}
	return resp.Body.Close() == nil
}

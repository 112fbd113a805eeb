package netcfg

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// claims remember which container has an address: the bridge itself would let
// two have the same.
type claims struct {
	mu     sync.Mutex // guards byAddr
	byAddr map[netip.Addr]claimed
}

type claimed struct {
	container string
	settled   bool // its link is made
}

// claim reserves l's address. The kernel deletes the links of a closed
// namespace a while later, so a former holder's is waited for.
func (n *Net) claim(ctx context.Context, s *sock, l Link) error {
	const patience, step = 500 * time.Millisecond, 5 * time.Millisecond
	for waited := time.Duration(0); ; waited += step {
		holder, ok := n.claims.take(l)
		if ok {
			return nil
		}
		if holder.settled {
			_, err := linkByName(s.Handle, n.portName(holder.container))
			if isNotFound(err) {
				n.claims.drop(holder.container)
				continue
			}
			if err != nil {
				return err
			}
		}
		if !holder.settled || waited >= patience {
			return errs.E(errs.Conflict, "address %s is container %s's", l.Addr, holder.container)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(step):
		}
	}
}

func (c *claims) take(l Link) (holder claimed, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byAddr == nil {
		c.byAddr = map[netip.Addr]claimed{}
	}
	if holder, there := c.byAddr[l.Addr]; there {
		return holder, holder.container == l.Container
	}
	c.byAddr[l.Addr] = claimed{container: l.Container}
	return claimed{}, true
}

// settle ends the claim's trial, and what the container claimed before.
func (c *claims) settle(l Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a, h := range c.byAddr {
		if h.container == l.Container && a != l.Addr {
			delete(c.byAddr, a)
		}
	}
	c.byAddr[l.Addr] = claimed{container: l.Container, settled: true}
}

// release takes back a claim that came to nothing.
func (c *claims) release(l Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.byAddr[l.Addr].settled {
		delete(c.byAddr, l.Addr)
	}
}

// drop forgets the container.
func (c *claims) drop(container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a, h := range c.byAddr {
		if h.container == container {
			delete(c.byAddr, a)
		}
	}
}

package netcfg

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// claims remember which container has an address or a MAC on a network, or a
// NIC of the machine: the network itself would let two have the same.
type claims struct {
	mu sync.Mutex // guards by
	by map[claimKey]claimed
}

type claimKey struct{ network, what string } // what is as a message calls it

type claimed struct {
	holder
	settled bool // its link is made
}

// holder is a NIC of a container.
type holder struct {
	container string
	index     int
}

func (h holder) String() string {
	if h.index == 0 {
		return "container " + h.container
	}
	return fmt.Sprintf("NIC %d of container %s", h.index, h.container)
}

func (l Link) holder() holder { return holder{l.Container, l.Index} }

// keys are what l needs for itself.
func (l Link) keys() (keys []claimKey) {
	network := l.NIC.Key()
	if l.NIC.Type == NICPassthrough {
		return []claimKey{{network, l.NIC.String()}}
	}
	for _, p := range l.Addrs {
		keys = append(keys, claimKey{network, "address " + p.Addr().String()})
	}
	if len(l.MAC) > 0 {
		keys = append(keys, claimKey{network, "MAC " + l.MAC.String()})
	}
	return keys
}

// claim reserves what l needs. The kernel deletes the links of a closed
// namespace a while later, so a former holder's is waited for.
func (n *Net) claim(ctx context.Context, s *sock, l Link) error {
	const patience, step = 500 * time.Millisecond, 5 * time.Millisecond
	for waited := time.Duration(0); ; waited += step {
		what, other, ok := n.claims.take(l)
		if ok {
			return nil
		}
		if other.settled && l.NIC.Type.bridged() {
			_, err := linkByName(s.Handle, n.portName(other.container, other.index))
			if isNotFound(err) {
				n.claims.drop(other.holder)
				continue
			}
			if err != nil {
				return err
			}
		}
		if !other.settled || waited >= patience {
			return errs.E(errs.Conflict, "%s is %s's", what, other.holder)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(step):
		}
	}
}

// refusal is what somebody else has of what l needs.
func (c *claims) refusal(l Link) (what string, other claimed, free bool) {
	for _, k := range l.keys() {
		if other, there := c.by[k]; there && other.holder != l.holder() {
			return k.what, other, false
		}
	}
	return "", claimed{}, true
}

func (c *claims) take(l Link) (what string, other claimed, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if what, other, ok = c.refusal(l); !ok {
		return what, other, false
	}
	if c.by == nil {
		c.by = map[claimKey]claimed{}
	}
	for _, k := range l.keys() {
		if _, there := c.by[k]; !there {
			c.by[k] = claimed{holder: l.holder()}
		}
	}
	return "", claimed{}, true
}

// check says what take would refuse now.
func (c *claims) check(l Link) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if what, other, ok := c.refusal(l); !ok {
		return errs.E(errs.Conflict, "%s is %s's", what, other.holder)
	}
	return nil
}

// settle ends the claim's trial, and what the NIC claimed before.
func (c *claims) settle(l Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(l.holder())
	for _, k := range l.keys() {
		c.by[k] = claimed{l.holder(), true}
	}
}

// release takes back a claim that came to nothing.
func (c *claims) release(l Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range l.keys() {
		if had, there := c.by[k]; there && had.holder == l.holder() && !had.settled {
			delete(c.by, k)
		}
	}
}

// drop forgets the NIC.
func (c *claims) drop(h holder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(h)
}

func (c *claims) forget(h holder) {
	for k, had := range c.by {
		if had.holder == h {
			delete(c.by, k)
		}
	}
}

// settled says whether the NIC has a link, as far as we know.
func (c *claims) settled(h holder) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, had := range c.by {
		if had.holder == h && had.settled {
			return true
		}
	}
	return false
}

// on says whose NIC is made on the machine's link of that name. The links of
// macvlan and ipvlan are in their containers, where nobody sees them from here.
func (c *claims) on(link string) (h holder, shared bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, had := range c.by {
		if k.network == "macvlan:"+link || k.network == "ipvlan:"+link || strings.HasSuffix(k.network, "@"+link) {
			return had.holder, true
		}
	}
	return holder{}, false
}

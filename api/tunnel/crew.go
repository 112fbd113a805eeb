package tunnel

import "sync"

// crew is work that is waited for. Unlike a WaitGroup alone, it lets nobody in
// once somebody waits.
type crew struct {
	mu   sync.Mutex // guards shut
	shut bool
	wg   sync.WaitGroup
}

// enter says whether there may be more work; who was let in leaves.
func (c *crew) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	c.wg.Add(1)
	return true
}

func (c *crew) leave() { c.wg.Done() }

// run starts f, unless somebody waits already, which it says.
func (c *crew) run(f func()) bool {
	if !c.enter() {
		return false
	}
	go func() {
		defer c.leave()
		f()
	}()
	return true
}

// wait lets nobody in any more, and returns when all have left.
func (c *crew) wait() {
	c.mu.Lock()
	c.shut = true
	c.mu.Unlock()
	c.wg.Wait()
}

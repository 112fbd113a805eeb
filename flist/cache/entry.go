package cache

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
)

// entry is a file of the cache. All but id and size is guarded by Cache.mu.
type entry struct {
	id         chunk.ID
	size       int64
	key        string   // the hash of its bytes; "" if nobody has looked since the start
	used       uint64   // tick of the last use
	file       *os.File // kept open for ReadAt, or nil
	prev, next *entry   // in lru; nil if shared or gone
}

// ring is entries from the newest to the oldest.
type ring struct{ root entry }

func (r *ring) init() { r.root.prev, r.root.next = &r.root, &r.root }

func (r *ring) push(e *entry) {
	e.prev, e.next = &r.root, r.root.next
	e.prev.next, e.next.prev = e, e
}

func (r *ring) remove(e *entry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}

func (r *ring) oldest() *entry {
	if e := r.root.prev; e != &r.root {
		return e
	}
	return nil
}

// touch marks a use. The caller holds mu.
func (c *Cache) touch(e *entry) {
	c.tick++
	e.used = c.tick
	if e.next != nil {
		c.lru.remove(e)
		c.lru.push(e)
	}
}

// forget takes an entry out of the books; its file stays. False if it was out already. The caller holds mu.
func (c *Cache) forget(e *entry) bool {
	if c.entries[e.id] != e {
		return false
	}
	delete(c.entries, e.id)
	if e.next != nil {
		c.lru.remove(e)
		c.used -= e.size
	}
	delete(c.shared, e)
	c.shut(e)
	return true
}

// shut closes the file that is kept open. Reads under way end first. The caller holds mu.
func (c *Cache) shut(e *entry) {
	if e.file == nil {
		return
	}
	_ = e.file.Close()
	e.file = nil
	for i, o := range c.opened {
		if o == e {
			last := len(c.opened) - 1
			c.opened[i] = c.opened[last]
			c.opened = c.opened[:last]
			return
		}
	}
}

// room books n bytes and throws out what was not used for longest until they fit. Nothing is thrown out that was used
// since tick floor, if that is not 0; false: then they do not fit, and nothing is booked.
func (c *Cache) room(n int64, floor uint64) bool {
	c.mu.Lock()
	c.used += n
	fits := c.cfg.Budget <= 0 || c.used <= c.cfg.Budget
	c.mu.Unlock()
	for !fits {
		c.disk.Lock()
		c.mu.Lock()
		if fits = c.used <= c.cfg.Budget; !fits && !c.evict(floor) {
			c.used -= n
			c.mu.Unlock()
			c.disk.Unlock()
			return false
		}
		c.mu.Unlock()
		c.disk.Unlock()
	}
	return true
}

// evict throws out the oldest entry, or finds that layers have it, too: then it costs nothing and throwing it out frees
// nothing. False if there is none. The caller holds disk and mu: an unlink is short, and who waits for it wants room.
func (c *Cache) evict(floor uint64) bool {
	e := c.lru.oldest()
	if e == nil || floor != 0 && e.used >= floor {
		return false
	}
	var st unix.Stat_t
	path := c.path(e.id)
	if err := unix.Lstat(path, &st); err == nil && st.Nlink > 1 {
		c.lru.remove(e)
		c.used -= e.size
		c.shared[e] = time.Now().Unix()
		return true
	}
	c.forget(e)
	c.stats.Evicted++
	if err := os.Remove(path); err != nil {
		c.warn("chunk is not removed", err)
	}
	return true
}

// Trim throws out the chunks that were not used for longest until it has freed n bytes, and says how many it has. Files
// that are open stay on the disk until they are closed.
func (c *Cache) Trim(n int64) (freed int64) { return c.yield(n, 0) }

// yield is Trim for what was last used before tick floor, if that is not 0.
func (c *Cache) yield(n int64, floor uint64) (freed int64) {
	c.disk.Lock()
	defer c.disk.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for freed < n {
		before := c.stats.Evicted
		e := c.lru.oldest()
		if !c.evict(floor) {
			break
		}
		if c.stats.Evicted > before {
			freed += e.size
		}
	}
	return freed
}

// unshare takes back what layers have no longer.
func (c *Cache) unshare() {
	c.mu.Lock()
	var list []*entry
	for e := range c.shared {
		list = append(list, e)
	}
	c.mu.Unlock()
	for _, e := range list {
		var st unix.Stat_t
		if err := unix.Lstat(c.path(e.id), &st); err != nil || st.Nlink > 1 {
			continue
		}
		c.mu.Lock()
		if _, ok := c.shared[e]; ok {
			delete(c.shared, e)
			c.lru.push(e)
			c.used += e.size
		}
		c.mu.Unlock()
	}
	c.room(0, 0)
}

// damaged removes a file that is not what it should be.
func (c *Cache) damaged(e *entry) {
	c.disk.Lock()
	defer c.disk.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forget(e) {
		c.stats.Damaged++
		_ = os.Remove(c.path(e.id)) // it may be gone: then that was the damage
	}
}

// warn tells of a disk that does not take what it is given, once a minute. The caller holds mu.
func (c *Cache) warn(msg string, err error) {
	if now := time.Now().Unix(); now-c.warned >= 60 {
		c.warned = now
		c.cfg.Log.Warn("chunk cache has trouble", "dir", c.cfg.Dir, "what", msg, "error", err)
	}
}

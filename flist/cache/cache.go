// Package cache keeps the plain bytes of chunks on the disk, shared by all flists of a node and bounded in size.
//
// A chunk is the file ab/abcd… with its plain bytes and nothing else, so it can be read by the kernel alone or hard-linked
// into a layer. It gets that name when it is whole. What a file holds is compared with the hash in the flist before a byte
// of it is served: when it is fetched (by the Source), and once more when it is first wanted after a start, since a power
// cut, a worn flash card or a person may have changed it. While a process runs, a file that got shorter or longer is
// noticed and fetched again; one that was changed in place by somebody else is not.
//
// That hash, the key, also guards the content: who has an flist can decrypt its chunks, and an flist that names a chunk
// without its right key gets nothing from here.
package cache

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is where the cache is and how large.
type Config struct {
	Dir     string       // required; made if it is not there
	Budget  int64        // bytes of chunks kept; 0: as many as Reserve allows
	Reserve int64        // bytes of the disk left free; below it, chunks are served without being kept
	Log     *slog.Logger // nil: silent
}

// Source gives verified plain bytes, exactly size of them: store.Router does. A Source that has a method Trouble() error, too,
// is asked why a chunk is late when somebody has waited for it in vain.
type Source interface {
	Fetch(ctx context.Context, ref chunk.Ref, size int) ([]byte, error)
}

// Want is a chunk and how many plain bytes it has.
type Want struct {
	Ref  chunk.Ref
	Size int
}

// Stats are numbers for people and metrics.
type Stats struct {
	Chunks, Bytes             int64 // kept, but for those that have other hard links
	SharedChunks, SharedBytes int64 // those
	Hits, Misses              int64 // of Open and ReadAt
	Fetched, FetchedBytes     int64 // from sources; plain bytes
	Evicted                   int64 // thrown out for room
	Loose                     int64 // served without being kept
	Damaged                   int64 // files that were not what they should be
}

// Cache is the chunks of one node. All methods may be called at once.
type Cache struct {
	cfg  Config
	lock *os.File
	stop chan struct{}
	work sync.WaitGroup // flights, and the syncer

	// disk is held while names are given and taken away, together with the change in entries. It comes before mu.
	disk sync.Mutex

	mu      sync.Mutex // guards the rest
	entries map[chunk.ID]*entry
	lru     ring             // without the shared ones
	shared  map[*entry]int64 // which layers have, too; when they were looked at
	used    int64            // bytes of lru, and of what is being written
	tick    uint64           // counts uses
	flights map[chunk.Ref]*flight
	ahead   int      // flights of Ahead
	writing int      // flights that have the bytes and are not done
	opened  []*entry // with a file
	loose   []loose
	dirty   []*entry // not yet known to be on the disk
	stats   Stats
	warned  int64 // when a write that failed was last told, Unix seconds
	closed  bool
}

// Open starts a cache with what is in its directory. errs.Conflict: another process has it.
func Open(cfg Config) (*Cache, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(cfg.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, errs.E(errs.Conflict, "cache %s: another process uses it: %w", cfg.Dir, err)
	}
	c := &Cache{
		cfg: cfg, lock: lock, stop: make(chan struct{}), entries: map[chunk.ID]*entry{},
		shared: map[*entry]int64{}, flights: map[chunk.Ref]*flight{},
	}
	c.lru.init()
	if err := c.load(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	c.room(0, 0)
	c.work.Go(c.syncer)
	return c, nil
}

// Close ends all fetches, waits for them, and lets the directory go. Files that Open gave out stay readable.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	close(c.stop)
	for _, fl := range c.flights {
		fl.cancel()
	}
	c.mu.Unlock()
	c.work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.opened {
		_ = e.file.Close()
	}
	c.opened, c.loose = nil, nil
	return c.lock.Close()
}

// View is the cache as one flist uses it: what is missing comes from src.
func (c *Cache) View(src Source) *View { return &View{c: c, src: src} }

// Stats are the numbers since Open.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.SharedChunks = int64(len(c.shared))
	s.Chunks = int64(len(c.entries)) - s.SharedChunks
	s.Bytes = c.used
	for e := range c.shared {
		s.SharedBytes += e.size
	}
	return s
}

// Stored is a chunk as a store would keep it, made anew: its bytes may differ from those it was fetched as, if another
// program compressed them. errs.NotFound if it is not here.
func (c *Cache) Stored(id chunk.ID) ([]byte, error) {
	scheme, err := chunk.SchemeOf(id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	e := c.entries[id]
	c.mu.Unlock()
	if e == nil {
		return nil, errs.E(errs.NotFound, "chunk %s is not here", id)
	}
	plain, err := c.read(e)
	if err != nil {
		return nil, errs.E(errs.NotFound, "chunk %s is not here: %w", id, err)
	}
	ref, stored := scheme.Seal(plain)
	c.mu.Lock()
	bad := e.key != "" && e.key != ref.Key
	c.mu.Unlock()
	if bad {
		c.damaged(e)
		return nil, errs.E(errs.NotFound, "chunk %s is not here: its file was damaged", id)
	}
	return stored, nil
}

package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// temporary is what the names of unfinished files start with.
const temporary = ".new-"

// path has one level of 256 directories: enough for 100,000 chunks, and few to scan at the start.
func (c *Cache) path(id chunk.ID) string {
	name := id.String()
	return filepath.Join(c.cfg.Dir, name[:2], name)
}

// found is a file that was there at the start.
type found struct {
	e     *entry
	atime int64
	links uint64
}

// load finds what an earlier process left. The kernel's access times say what was used last: to the day, mostly.
func (c *Cache) load() error {
	dirs, err := os.ReadDir(c.cfg.Dir)
	if err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards all, bad
		all   []found
		bad   error
		names = make(chan string)
	)
	for range runtime.GOMAXPROCS(0) * 2 {
		wg.Go(func() {
			for name := range names {
				files, err := loadDir(filepath.Join(c.cfg.Dir, name))
				mu.Lock()
				all, bad = append(all, files...), errors.Join(bad, err)
				mu.Unlock()
			}
		})
	}
	for _, d := range dirs {
		if d.IsDir() && len(d.Name()) == 2 {
			names <- d.Name()
		}
	}
	close(names)
	wg.Wait()
	if bad != nil {
		return fmt.Errorf("read cache %s: %w", c.cfg.Dir, bad)
	}
	slices.SortFunc(all, func(a, b found) int { return int(min(max(a.atime-b.atime, -1), 1)) })
	now := time.Now().Unix()
	for _, f := range all {
		c.entries[f.e.id] = f.e
		if f.links > 1 {
			c.shared[f.e] = now
			continue
		}
		c.lru.push(f.e)
		c.used += f.e.size
	}
	return nil
}

func loadDir(dir string) ([]found, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var files []found
	for _, name := range names {
		if strings.HasPrefix(name, temporary) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return nil, err
			}
			continue
		}
		id, err := hex.DecodeString(name)
		if err != nil || len(id) != 16 && len(id) != 32 || !strings.HasPrefix(name, filepath.Base(dir)) {
			continue // not ours
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size <= chunk.MaxSize {
			files = append(files, found{&entry{id: chunk.ID(id), size: st.Size}, st.Atim.Nano(), uint64(st.Nlink)}) //nolint:unconvert // 32 bits on arm64
		}
	}
	return files, nil
}

// read is the whole file of an entry.
func (c *Cache) read(e *entry) ([]byte, error) {
	f, err := c.reopen(e)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plain := make([]byte, e.size)
	if _, err := io.ReadFull(f, plain); err != nil {
		return nil, err
	}
	return plain, nil
}

// errGone is a file that is not there, or not as long as it was: the entry was thrown out.
var errGone = errors.New("its file is gone")

// reopen opens the file of an entry anew.
func (c *Cache) reopen(e *entry) (*os.File, error) {
	f, err := os.OpenFile(c.path(e.id), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return nil, errs.E(errs.Unavailable, "open a chunk of the cache: %w", err)
	case err != nil: // removed, turned into something else, or no longer readable
		c.damaged(e)
		return nil, errGone
	}
	st, err := f.Stat()
	if err != nil || st.Size() != e.size || !st.Mode().IsRegular() {
		_ = f.Close()
		c.damaged(e)
		return nil, errGone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[e.id] != e { // the name was another's already
		_ = f.Close()
		return nil, errGone
	}
	return f, nil
}

// keep puts a chunk into the cache, if there is room for it.
func (c *Cache) keep(ref chunk.Ref, plain []byte, floor uint64) bool {
	n := int64(len(plain))
	free, slack, err := c.free()
	if err != nil {
		return false
	}
	if free-n < c.cfg.Reserve+slack {
		// The disk fills up: give twice what is taken, so that who else writes finds room, such as who makes a layer of these chunks.
		c.yield(2*n, floor)
		if free, _, err = c.free(); err != nil || free-n < c.cfg.Reserve {
			return false
		}
	}
	if !c.room(n, floor) {
		return false
	}
	err = c.write(ref, plain)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.used -= n
		c.warn("chunk is not written", err)
	}
	return err == nil
}

// free is what the disk has, and how much above the reserve the cache begins to shrink: a fiftieth of it, 256 MiB at most.
func (c *Cache) free() (free, slack int64, err error) {
	var st unix.Statfs_t
	err = unix.Statfs(c.cfg.Dir, &st)
	block := int64(st.Bsize) //nolint:unconvert // differs by architecture
	return int64(st.Bavail) * block, min(int64(st.Blocks)*block/50, 256<<20), err
}

// write makes the file and books the entry, whose bytes are counted already.
func (c *Cache) write(ref chunk.Ref, plain []byte) error {
	path := c.path(ref.ID)
	f, err := os.CreateTemp(filepath.Dir(path), temporary)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(path), temporary)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(plain)
	err = errors.Join(err, f.Close())
	c.disk.Lock()
	defer c.disk.Unlock()
	e := &entry{id: chunk.ID(strings.Clone(string(ref.ID))), size: int64(len(plain)), key: strings.Clone(ref.Key)}
	if err == nil {
		c.mu.Lock()
		if old := c.entries[e.id]; old != nil { // before its name is another's
			c.forget(old)
		}
		c.mu.Unlock()
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[e.id] = e
	c.lru.push(e)
	c.touch(e)
	c.dirty = append(c.dirty, e)
	return nil
}

// syncer finds out whether what was written has reached the disk: a write that fails later is told to who syncs, and the
// kernel may read something else from then on. And it looks at what layers share.
func (c *Cache) syncer() {
	syncs, shares := time.NewTicker(5*time.Second), time.NewTicker(10*time.Minute)
	defer syncs.Stop()
	defer shares.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-shares.C:
			c.unshare()
		case <-syncs.C:
			c.mu.Lock()
			dirty := c.dirty
			c.dirty = nil
			c.mu.Unlock()
			for _, e := range dirty {
				select {
				case <-c.stop:
					return
				default:
				}
				if err := c.sync(e); err != nil && !errors.Is(err, errGone) {
					c.damaged(e)
					c.mu.Lock()
					c.warn("chunk is not synced", err)
					c.mu.Unlock()
				}
			}
		}
	}
}

func (c *Cache) sync(e *entry) error {
	c.mu.Lock()
	here := c.entries[e.id] == e
	c.mu.Unlock()
	if !here {
		return nil
	}
	f, err := c.reopen(e)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fdatasync(int(f.Fd())), f.Close())
}

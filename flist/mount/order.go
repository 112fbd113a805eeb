package mount

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/flist/cache"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// order is the order in which chunks are first read, one name a line in a file: what a start of the same image will want,
// and when.
type order struct {
	path string

	mu      sync.Mutex // guards the rest
	seen    map[chunk.ID]bool
	list    []chunk.ID
	old     []cache.Want // what the file had
	changed bool
}

func newOrder(path string, all []cache.Want) *order {
	o := &order{path: path, seen: map[chunk.ID]bool{}}
	if path == "" {
		return o
	}
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o // without it, things are only slower
	}
	known := make(map[chunk.ID]cache.Want, len(all))
	for _, w := range all {
		known[w.Ref.ID] = w
	}
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		id, err := hex.DecodeString(s.Text())
		if w, ok := known[chunk.ID(id)]; ok && err == nil {
			o.old = append(o.old, w)
			delete(known, w.Ref.ID)
		}
	}
	return o
}

func (o *order) touch(id chunk.ID) {
	if o.path == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.seen[id] {
		o.seen[id] = true
		o.list = append(o.list, id)
		o.changed = true
	}
}

// save writes what was read this time, and after it what former times had read: a start that ended early does not take the
// others' knowledge away.
func (o *order) save() error {
	o.mu.Lock()
	if !o.changed {
		o.mu.Unlock()
		return nil
	}
	o.changed = false
	var b bytes.Buffer
	for _, id := range o.list {
		b.WriteString(id.String() + "\n")
	}
	for _, w := range o.old {
		if !o.seen[w.Ref.ID] {
			b.WriteString(w.Ref.ID.String() + "\n")
		}
	}
	o.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(o.path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(o.path, b.Bytes(), 0o600)
}

// prefetchParallel: enough to hide the way to a store, few enough to leave room for readers.
const prefetchParallel = 8

// prefetch fetches before anybody asks, and tries again while the stores are down.
func (m *Mount) prefetch(ctx context.Context) {
	var wants []cache.Want
	if m.cfg.Prefetch >= PrefetchRecorded {
		wants = append(wants, m.order.old...)
	}
	if m.cfg.Prefetch >= PrefetchAll {
		wants = append(wants, m.wants...)
	}
	for wait := time.Second; len(wants) > 0 && !m.complete.Load(); wait = min(2*wait, time.Minute) {
		err := m.cfg.View.Prefetch(ctx, wants, prefetchParallel, func(int64, int64) {})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		m.cfg.Log.Info("fetching ahead has to wait", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
	if len(wants) > 0 && m.fetched() == m.total {
		m.completed()
	}
}

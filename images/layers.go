package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// stored is a complete layer: the folder Dir/layers/ID and the file ID.json.
type stored struct {
	// Key is the whole identity: the DiffID of an OCI layer, or "rootfs-" and the sha256 of an archive file, because an
	// archive is unpacked by other rules (no whiteouts), or "flist:", the sha256 of an flist and how it was unpacked.
	Key     string
	ID      string
	Bytes   int64
	Entries int64
	Opaque  bool `json:",omitempty"` // hides every layer below it
}

// idLen: 12 hex digits and a colon, 120 times, are 1560 of the 4096 bytes of mount options.
const idLen = 12

const rootfsPrefix = "rootfs-"

// loadLayers reads Dir/layers. Folders without a valid file are left alone: a container may run on them.
func (s *Store) loadLayers() error {
	names, err := os.ReadDir(s.layersDir())
	if err != nil {
		return err
	}
	for _, n := range names {
		path := filepath.Join(s.layersDir(), n.Name())
		id, isFile := strings.CutSuffix(n.Name(), ".json")
		if n.IsDir() || !isFile && !strings.HasPrefix(n.Name(), ".") {
			continue
		}
		l, err := readSidecar(path)
		if err == nil && l.ID != id {
			err = errors.New("content belongs to another layer")
		}
		if err == nil {
			_, err = os.Stat(filepath.Join(s.layersDir(), id))
		}
		if err != nil { // a crash before the folder got its name, or damage
			s.log.Info("layer file without a layer removed", "file", path, "error", err)
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		s.layers[l.Key] = l
	}
	return nil
}

func readSidecar(path string) (l stored, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(data, &l); err != nil {
		return l, err
	}
	if l.Key == "" || l.ID == "" {
		return l, errors.New("fields are missing")
	}
	return l, nil
}

func (s *Store) writeSidecar(l stored) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.layersDir(), l.ID+".json"), data, 0o600)
}

// have is the complete layer of that key.
func (s *Store) have(key string) (stored, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[key]
	return l, ok
}

// pin keeps layers of those keys, present or coming, from being collected until release.
func (s *Store) pin(keys []string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		s.pinned[k]++
	}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, k := range keys {
			if s.pinned[k]--; s.pinned[k] <= 0 {
				delete(s.pinned, k)
			}
		}
	})
}

// unpackInto is what fills an empty folder with a layer.
type unpackInto func(ctx context.Context, dir string) (layer.Result, error)

// build unpacks a layer beside the others and gives it its name once it is whole and on disk.
func (s *Store) build(ctx context.Context, key string, fill unpackInto) (l stored, err error) {
	select {
	case s.unpacking <- struct{}{}:
		defer func() { <-s.unpacking }()
	case <-ctx.Done():
		return l, context.Cause(ctx)
	}
	return s.make(ctx, key, fill)
}

// make is build for what may take its time without keeping others from unpacking.
func (s *Store) make(ctx context.Context, key string, fill unpackInto) (l stored, err error) {
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	dir, err := os.MkdirTemp(s.tmpDir(), "layer-*")
	if err != nil {
		return l, fmt.Errorf("unpack layer: %w", err)
	}
	undo.Push(func() error { return removeTree(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // MkdirTemp's 0700 would be the mode of the container's /
		return l, fmt.Errorf("unpack layer: %w", err)
	}
	res, err := fill(ctx, dir)
	if err != nil {
		return l, err
	}
	if err := layer.Sync(dir); err != nil {
		return l, fmt.Errorf("sync layer: %w", err)
	}
	l, err = s.install(dir, stored{Key: key, Bytes: res.Bytes, Entries: res.Entries, Opaque: res.Opaque})
	if err != nil {
		return l, fmt.Errorf("keep layer: %w", err)
	}
	undo.Keep()
	return l, nil
}

// install moves a synced folder among the layers.
func (s *Store) install(dir string, l stored) (_ stored, err error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if l.ID, err = s.freeID(l.Key); err != nil {
		return l, err
	}
	if err := s.writeSidecar(l); err != nil {
		return l, err
	}
	side := filepath.Join(s.layersDir(), l.ID+".json")
	if err := os.Rename(dir, filepath.Join(s.layersDir(), l.ID)); err != nil {
		return l, errors.Join(err, os.Remove(side))
	}
	if err := atomicfile.SyncDir(s.layersDir()); err != nil {
		return l, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layers[l.Key] = l
	return l, nil
}

// freeID is the shortest name for key that nothing else has. s.disk is held.
func (s *Store) freeID(key string) (string, error) {
	text, kind := key, ""
	for prefix, letter := range map[string]string{rootfsPrefix: "r", flistPrefix: "f"} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			text, kind = rest, letter
		}
	}
	text, _, _ = strings.Cut(text, "+")
	if !validDigest(text) {
		return "", errs.E(errs.Invalid, "layer digest %q is not sha256", text)
	}
	hex := text[len("sha256:"):]
	for n := idLen; n <= len(hex); n += 4 {
		id := kind + hex[:n]
		if _, err := os.Lstat(filepath.Join(s.layersDir(), id)); errors.Is(err, os.ErrNotExist) {
			return id, nil
		} else if err != nil {
			return "", err
		}
	}
	return "", errs.E(errs.Internal, "no free name for layer %s; run an image prune", key)
}

// checkedReader counts and hashes what a layer is unpacked from, stops when ctx ends and reports progress.
type checkedReader struct {
	stop func() error // why to stop, nil: go on
	r    io.Reader
	sink io.Writer // a hash, or io.Discard
	n    int64
	step func(n int64)
}

func (c *checkedReader) Read(p []byte) (int, error) {
	if err := c.stop(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	if _, werr := c.sink.Write(p[:n]); werr != nil {
		return n, werr
	}
	c.step(c.n)
	return n, err
}

func stopWith(ctx context.Context) func() error {
	return func() error { return context.Cause(ctx) }
}

package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Remove forgets ref and deletes the layers that nothing else uses; those in use by containers go when released.
func (s *Store) Remove(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := ParseRef(ref)
	if err != nil {
		return err
	}
	g, ok, err := s.drop(r.text, nil)
	if err == nil && !ok {
		return errs.E(errs.NotFound, "image %q is not on this node", r)
	}
	if ok {
		s.tell(ctx, Change{Kind: ChangeRemoved, Ref: r.text})
	}
	if err = errors.Join(err, g.empty()); err != nil {
		return fmt.Errorf("remove image %q: %w", r, err)
	}
	return nil
}

// drop forgets ref and buries its layers; if judged is set, only while ref is still that.
func (s *Store) drop(ref string, judged *record) (g grave, ok bool, err error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if judged != nil && s.images.Load().byRef[ref] != judged {
		return g, false, nil // pulled anew meanwhile
	}
	rec, ok, err := s.forget(ref)
	if err != nil || !ok {
		return g, ok, err
	}
	g, err = s.collect(rec.Parts)
	n, ferr := s.dropFlist(rec.Image.Flist)
	g.bytes += n
	return g, true, errors.Join(err, ferr)
}

// Prune forgets every image that is not pinned and for which keep is false (nil keeps all), then deletes what nobody uses:
// layers and flists without an image, a hold or a pull. Downloads stay to be resumed. freed is in bytes.
func (s *Store) Prune(ctx context.Context, keep func(Image) bool) (freed int64, err error) {
	if keep != nil {
		for ref, r := range s.images.Load().byRef {
			if r.Image.Pinned || keep(r.Image) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return freed, err
			}
			g, _, err := s.drop(ref, r)
			freed += g.bytes
			if err = errors.Join(err, g.empty()); err != nil {
				return freed, fmt.Errorf("prune image %q: %w", ref, err)
			}
		}
	}
	g, err := s.pruneLayers()
	freed += g.bytes
	if err == nil {
		var n int64
		n, err = s.pruneFlists()
		freed += n
	}
	if err = errors.Join(err, g.empty()); err != nil {
		return freed, fmt.Errorf("prune layers: %w", err)
	}
	return freed, nil
}

// pruneLayers buries all unused layers, known or not.
func (s *Store) pruneLayers() (grave, error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	s.mu.Lock()
	var all []stored
	known := map[string]bool{}
	for _, l := range s.layers {
		all = append(all, l)
		known[l.ID] = true
	}
	s.mu.Unlock()
	names, err := os.ReadDir(s.layersDir())
	if err != nil {
		return grave{}, err
	}
	for _, n := range names {
		if n.IsDir() && !known[n.Name()] {
			all = append(all, stored{ID: n.Name()})
		}
	}
	return s.collect(all)
}

// grave is layers that have lost their names and wait for deletion, which takes long and so happens without locks.
type grave struct {
	dirs  []string
	bytes int64
}

func (g grave) empty() (err error) {
	for _, d := range g.dirs {
		err = errors.Join(err, removeTree(d))
	}
	return err
}

// collect buries those of parts that no image, hold or pull needs. s.disk is held.
func (s *Store) collect(parts []stored) (g grave, err error) {
	users := s.images.Load().users()
	for _, p := range parts {
		if !s.condemn(p, users) {
			continue
		}
		dir, err := s.bury(p)
		if err != nil {
			return g, err
		}
		g.dirs = append(g.dirs, dir)
		g.bytes += p.Bytes
	}
	return g, nil
}

// condemn decides about one layer and takes it out of sight.
func (s *Store) condemn(p stored, users map[string]int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[p.ID] > 0 || p.Key != "" && (users[p.Key] > 0 || s.pinned[p.Key] > 0) {
		return false
	}
	if have, ok := s.layers[p.Key]; ok && have.ID == p.ID {
		delete(s.layers, p.Key)
		return true
	}
	return p.Key == "" // a folder nobody knows; a known one was deleted by somebody else
}

// bury takes the layer's name away, so that a crash while deleting leaves no half layer.
func (s *Store) bury(p stored) (dead string, err error) {
	dead, err = os.MkdirTemp(s.tmpDir(), "dead-*")
	if err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(s.layersDir(), p.ID), filepath.Join(dead, "fs")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.Remove(filepath.Join(s.layersDir(), p.ID+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return dead, nil
}

// Hold keeps img's layers through Remove and Prune until release, which may be called more than once. The image need
// not be known any more: after a restart the node holds what its containers were started from. Layers that lost their
// last image meanwhile are deleted by the last release.
func (s *Store) Hold(img Image) (release func()) {
	if img.Base == "" { // a directory, which is never deleted
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := slices.Clone(img.Layers)
	if img.Flist != "" {
		ids = append(ids, img.Flist)
	}
	for _, id := range ids {
		s.held[id]++
	}
	s.used[img.Ref] = time.Now()
	return sync.OnceFunc(func() { s.release(img.Ref, ids, img.Flist) })
}

func (s *Store) release(ref string, ids []string, flist string) {
	s.mu.Lock()
	s.used[ref] = time.Now()
	free := map[string]bool{}
	for _, id := range ids {
		if s.held[id]--; s.held[id] <= 0 {
			delete(s.held, id)
			free[id] = true
		}
	}
	var parts []stored
	for _, l := range s.layers {
		if free[l.ID] {
			parts = append(parts, l)
		}
	}
	s.mu.Unlock()
	users := s.images.Load().users()
	idle := func(p stored) bool { return users[p.Key] == 0 }
	if slices.ContainsFunc(parts, idle) || free[flist] && users[flist] == 0 { // rare; the usual release touches no disk
		s.discard(parts, flist)
	}
}

// discard is collect and delete for callers that have nobody to tell about a failure.
func (s *Store) discard(parts []stored, flist string) {
	s.disk.Lock()
	g, err := s.collect(parts)
	_, ferr := s.dropFlist(flist)
	s.disk.Unlock()
	err = errors.Join(err, ferr)
	if err = errors.Join(err, g.empty()); err != nil {
		s.log.Warn("unused layers stay until the next prune", "error", err)
	}
}

// sweepTmp empties tmp, but for downloads young enough to be resumed.
func (s *Store) sweepTmp(now time.Time) error {
	names, err := os.ReadDir(s.tmpDir())
	if err != nil {
		return err
	}
	for _, n := range names {
		if isPart(n.Name()) {
			st, err := n.Info()
			if err == nil && now.Sub(st.ModTime()) < s.tune.keepParts {
				continue
			}
		}
		if err := removeTree(filepath.Join(s.tmpDir(), n.Name())); err != nil {
			return err
		}
	}
	return nil
}

const partSuffix, partMetaSuffix = ".part", ".part.json"

func isPart(name string) bool {
	return strings.HasSuffix(name, partSuffix) || strings.HasSuffix(name, partMetaSuffix)
}

// removeTree is RemoveAll that also gets into folders whose mode keeps their owner out, as layers may have.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	werr := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d == nil || !d.IsDir() {
			return nil
		}
		return errors.Join(err, os.Chmod(path, 0o700)) // before WalkDir reads it
	})
	return errors.Join(werr, os.RemoveAll(dir))
}

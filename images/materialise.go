package images

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/errs"
)

const flistPrefix = "flist:"

// Materialise is img, an flist, with the complete layer that build makes in an empty directory; from then on Resolve
// gives it with the layer. Layers that were built otherwise have another suffix ("" or a word); the last one counts.
// Calls for the same layer share the work. Hold what comes back.
func (s *Store) Materialise(ctx context.Context, img Image, suffix string, build func(ctx context.Context, dir string) error) (Image, error) {
	if img.Flist == "" || img.About == nil {
		return Image{}, errs.E(errs.Invalid, "image %q is not an flist", img.Ref)
	}
	key := flistPrefix + img.Digest
	if suffix != "" {
		key += "+" + suffix
	}
	defer s.pin([]string{key, img.Flist})()
	l, err := s.flistLayer(ctx, key, img, build)
	if err != nil {
		return Image{}, fmt.Errorf("make a layer of flist %q: %w", img.Ref, s.explainSpace(err))
	}
	for ref, r := range s.images.Load().byRef {
		if !r.isFlist() || r.Image.Digest != img.Digest {
			continue
		}
		var old []stored
		err := s.amend(ref, func(r *record) bool {
			if r.Image.Digest != img.Digest || len(r.Parts) == 1 && r.Parts[0].Key == key {
				return false
			}
			old, r.Parts = r.Parts, []stored{l}
			return true
		})
		if err != nil && errs.KindOf(err) != errs.NotFound { // removed meanwhile; who runs on it holds it
			return Image{}, err
		}
		s.discard(old, "")
	}
	img.Base, img.Layers, img.Size = s.layersDir(), []string{l.ID}, img.Size+l.Bytes
	return img, nil
}

func (s *Store) flistLayer(ctx context.Context, key string, img Image, build func(ctx context.Context, dir string) error) (stored, error) {
	for {
		if have, ok := s.have(key); ok {
			return have, nil
		}
		got, led, err := s.unpacks.do(ctx, key, nil, func(ctx context.Context, _ func(Progress)) (stored, error) {
			if have, ok := s.have(key); ok {
				return have, nil
			}
			if err := s.fits(ctx, img.About.ChunkBytes); err != nil {
				return stored{}, err
			}
			ctx, unguard := s.guard(ctx)
			defer unguard()
			return s.make(ctx, key, func(ctx context.Context, dir string) (layer.Result, error) {
				if err := build(ctx, dir); err != nil {
					return layer.Result{}, err
				}
				return measure(ctx, dir)
			})
		})
		if err == nil || led || ctx.Err() != nil {
			return got, err
		}
	}
}

// measure counts what is in a directory, hard links once.
func measure(ctx context.Context, dir string) (res layer.Result, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		res.Entries++
		st, ok := info.Sys().(*syscall.Stat_t)
		if !info.Mode().IsRegular() || ok && st.Nlink > 1 && seen[st.Ino] {
			return nil
		}
		if ok && st.Nlink > 1 {
			seen[st.Ino] = true
		}
		res.Bytes += info.Size()
		return nil
	})
	return res, err
}

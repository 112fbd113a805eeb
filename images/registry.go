package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/errs"
)

func getenv(key string) string { return os.Getenv(key) }

// registryContent reads an image from the first endpoint that has it; each part may come from another one.
type registryContent struct {
	s   *Store
	eps []*endpoint
}

func (s *Store) pullRegistry(ctx context.Context, r Reference, rule signature.Rule, emit func(Progress)) (Image, error) {
	known, have := s.known(r, "")
	signed := have && meets(rule, known.Image) == nil
	if d, pinned := r.reg.(name.Digest); pinned { // what a digest stands for cannot change: no need to ask
		if signed {
			return known.Image, nil
		}
		if rule.Do != signature.Signed {
			if img, ok, err := s.copyTwin(r, d.DigestStr(), ""); ok || err != nil {
				return img, err
			}
		}
	}
	base := s.newTransport()
	defer base.CloseIdleConnections()
	eps, err := s.endpoints(r, base)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	src := &registryContent{s: s, eps: eps}
	knownDigest := ""
	if have {
		knownDigest = known.Image.Digest
	}
	raw, digest, err := src.top(ctx, r.reg, knownDigest)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	if raw == nil && signed {
		return known.Image, nil
	}
	key, err := src.signedImage(ctx, r, rule, digest)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	if raw == nil {
		return s.resign(ctx, known, key)
	}
	if img, ok, err := s.copyTwin(r, digest, key); ok || err != nil {
		return img, err
	}
	p, err := s.makePlan(ctx, r.text, src, raw, digest)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	img, err := s.realise(ctx, r, p, emit, func(rec *record) { rec.Image.SignedBy = key })
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	return img, nil
}

// copyTwin records r as the same image another reference already is.
func (s *Store) copyTwin(r Reference, digest, key string) (Image, bool, error) {
	for _, t := range s.images.Load().byRef {
		if t.Image.Digest != digest || t.Platform != s.platform.String() {
			continue
		}
		defer s.pin(t.keys())()
		rec := *t
		rec.Image.Ref, rec.Image.Pulled, rec.Image.SignedBy = r.text, now(), key
		rec.ETag, rec.Modified, rec.Stamp = "", "", fileStamp{}
		if s.missing(&rec) != nil {
			return Image{}, false, nil // removed this moment: the usual way, then
		}
		img, err := s.commit(&rec)
		return img, true, err
	}
	return Image{}, false, nil
}

// each asks the endpoints in turn until one can.
func (c *registryContent) each(ctx context.Context, ask func(*endpoint) error) error {
	var err error
	for _, e := range c.eps {
		if err = ask(e); err == nil || ctx.Err() != nil || isFull(err) {
			return err
		}
		if e.mirror {
			c.s.log.Info("mirror cannot help", "mirror", e.host(), "error", err)
		}
	}
	return err
}

// top is the document ref stands for; raw is nil if that is still known.
func (c *registryContent) top(ctx context.Context, ref name.Reference, known string) (raw []byte, digest string, err error) {
	err = c.each(ctx, func(e *endpoint) error {
		if known != "" {
			// A registry that cannot answer HEAD will tell with GET what is the matter.
			if d, err := e.digest(ctx, ref.Identifier()); err == nil && d == known {
				raw, digest = nil, known
				return nil
			}
		}
		raw, err = e.read(ctx, "manifests", ref.Identifier(), maxManifest, func(data []byte) error {
			sum := sha256.Sum256(data)
			digest = "sha256:" + hex.EncodeToString(sum[:])
			if d, ok := ref.(name.Digest); ok && d.DigestStr() != digest {
				return fmt.Errorf("manifest has digest %s, expected %s", digest, d.DigestStr())
			}
			return nil
		})
		return err
	})
	if err == nil && digest == known {
		raw = nil
	}
	return raw, digest, err
}

func (c *registryContent) manifest(ctx context.Context, d v1.Descriptor) (raw []byte, err error) {
	err = c.each(ctx, func(e *endpoint) error {
		raw, err = e.read(ctx, "manifests", d.Digest.String(), maxManifest, func(data []byte) error { return verify(d, data) })
		return err
	})
	return raw, err
}

func (c *registryContent) config(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	for {
		raw, led, err := c.s.configs.do(ctx, d.Digest.String(), nil, func(ctx context.Context, _ func(Progress)) (raw []byte, err error) {
			err = c.each(ctx, func(e *endpoint) error {
				raw, err = e.read(ctx, "blobs", d.Digest.String(), maxConfig, func(data []byte) error { return verify(d, data) })
				return err
			})
			return raw, err
		})
		if err == nil || led || ctx.Err() != nil {
			return raw, err
		}
	}
}

// layer downloads the blob to tmp, or what is missing of it there.
func (c *registryContent) layer(ctx context.Context, d v1.Descriptor, emit func(Progress)) (_ *blob, err error) {
	digest := d.Digest.String()
	unlock, err := c.s.blobs.lock(ctx, digest)
	if err != nil {
		return nil, err
	}
	path := c.s.partFile(digest)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("download %s: %w", digest, err)
	}
	done := func(remove bool) {
		if remove {
			_ = os.Remove(path) // else it is swept later
		}
		_ = f.Close()
		unlock()
	}
	if err := c.fetch(ctx, d, f, emit); err != nil {
		done(isFull(err) || errors.Is(err, errWrong))
		return nil, err
	}
	return &blob{r: f, check: func() error { return nil }, close: done}, nil
}

// fetch waits for its turn and downloads.
func (c *registryContent) fetch(ctx context.Context, d v1.Descriptor, f *os.File, emit func(Progress)) error {
	select {
	case c.s.downloading <- struct{}{}:
		defer func() { <-c.s.downloading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	step := stepper(Progress{Blob: d.Digest.String(), Phase: PhaseDownload, Total: d.Size}, emit)
	err := c.each(ctx, func(e *endpoint) error {
		if _, err := f.Seek(0, 0); err != nil {
			return err
		}
		dl := &download{
			what: fmt.Sprintf("%s from %s", d.Digest, e.host()), digest: d.Digest.String(), want: d.Size, file: f,
			tune: c.s.tune, log: c.s.log, step: func(done, _ int64) { step(done) },
			get: func(ctx context.Context, offset int64) (*http.Response, error) {
				h := http.Header{}
				if offset > 0 { // closed range: some registries do not know the open one
					h.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, d.Size-1))
				}
				return e.do(ctx, http.MethodGet, "blobs", d.Digest.String(), h)
			},
		}
		if e.mirror {
			dl.tune.attempts = 2
		}
		return dl.run(ctx)
	})
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return errs.E(errs.Internal, "download %s: %w", d.Digest, err)
	}
	return nil
}

package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Ensure is Resolve, and Pull when the image is not here. An image that the policy does not allow is refused.
func (s *Store) Ensure(ctx context.Context, ref string) (Image, error) {
	img, err := s.Resolve(ctx, ref)
	if errors.Is(err, errs.NotFound) {
		return s.Pull(ctx, ref, nil)
	}
	if err == nil {
		err = s.Allowed(img)
	}
	return img, err
}

// Pull asks the source what ref is now and fetches what is missing; nothing is transferred or written when nothing
// changed. Calls for the same image, or for images that share a layer, share the work; ctx ends only this caller's
// waiting, and the work stops when nobody waits. progress may be nil; it must return quickly and is not called after
// Pull has returned. A failure leaves the previous image in place, and downloads that a later Pull resumes.
func (s *Store) Pull(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	r, err := ParseRef(ref)
	if err != nil {
		return Image{}, err
	}
	img, _, err := s.pulls.do(ctx, r.text, progress, func(ctx context.Context, emit func(Progress)) (Image, error) {
		named := func(p Progress) { p.Ref = r.text; emit(p) }
		named(Progress{Phase: PhaseResolve, Total: -1})
		was, _ := s.images.Load().find(r)
		img, err := s.pull(ctx, r, named)
		s.tellFetched(ctx, ChangePulled, r.text, was, img, err)
		if err == nil {
			s.use(r.text)
			named(Progress{Phase: PhaseDone, Done: img.Size, Total: img.Size})
		}
		return img, err
	})
	if err != nil {
		return Image{}, fmt.Errorf("pull: %w", s.explainSpace(err))
	}
	s.tidy(ctx)
	return img, nil
}

func (s *Store) pull(ctx context.Context, r Reference, emit func(Progress)) (Image, error) {
	rule, err := s.admit(r)
	if err != nil {
		return Image{}, err
	}
	switch r.Kind {
	case Registry:
		return s.pullRegistry(ctx, r, rule, emit)
	case Layout:
		return s.pullLayout(ctx, r, rule, emit)
	case URL:
		return s.pullURL(ctx, r, rule, emit)
	case Flist:
		return s.pullFlist(ctx, r, rule, emit)
	case OCIArchive, DockerArchive, Path:
		return s.pullFile(ctx, r, rule, emit)
	}
	return Image{}, errs.E(errs.Invalid, "image %q: unknown kind of reference", r)
}

// known is ref's record if its content is digest and all of it is here.
func (s *Store) known(r Reference, digest string) (*record, bool) {
	rec, ok := s.images.Load().byRef[r.text]
	if !ok || digest != "" && rec.Image.Digest != digest || rec.Platform != s.platform.String() {
		return nil, false
	}
	return rec, true
}

// realise brings all layers of p here and records the image. fix may add to the record.
func (s *Store) realise(ctx context.Context, r Reference, p *plan, emit func(Progress), fix func(*record)) (Image, error) {
	// The same layer twice: the upper one hides all of the lower one, and overlayfs refuses a folder that is there twice.
	var parts []part
	var keys []string
	for _, l := range slices.Backward(p.layers) {
		if !slices.Contains(keys, l.key) {
			parts, keys = append(parts, l), append(keys, l.key)
		}
	}
	unpin := s.pin(keys)
	defer unpin()
	if err := s.checkSpace(ctx, r.text, parts); err != nil {
		return Image{}, err
	}
	ctx, unguard := s.guard(ctx)
	defer unguard()
	got := make([]stored, len(parts))
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range slices.Backward(parts) { // lowest first: usually the one others share
		g.Go(func() (err error) {
			got[i], err = s.ensureLayer(gctx, l, emit)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		if isFull(err) {
			unpin()
			s.dropFailed(parts)
		}
		return Image{}, err
	}
	for _, l := range parts { // a crash between naming a layer and deleting its blob leaves the blob
		s.removePart(l)
	}
	rec := newRecord(r, p.digest, s.platform.String(), got)
	rec.Manifest = p.manifest
	if p.config != nil {
		rec.Image.Config, rec.Image.Created = runConfig(p.config), p.config.Created.Time
	}
	if fix != nil {
		fix(rec)
	}
	return s.commit(rec)
}

// ensureLayer returns the layer if it is here, or makes it. Work that somebody else started may fail for reasons that
// are theirs (another registry, another login): then it is tried once more as our own.
func (s *Store) ensureLayer(ctx context.Context, l part, emit func(Progress)) (stored, error) {
	for {
		if have, ok := s.have(l.key); ok {
			emit(Progress{Blob: l.name(), Phase: PhaseDone, Done: l.desc.Size, Total: l.desc.Size})
			return have, nil
		}
		got, led, err := s.unpacks.do(ctx, l.key, emit, func(ctx context.Context, emit func(Progress)) (stored, error) {
			if have, ok := s.have(l.key); ok { // finished between our look and our start
				return have, nil
			}
			return s.makeLayer(ctx, l, emit)
		})
		if err == nil || led || ctx.Err() != nil {
			return got, err
		}
	}
}

// name is what progress calls a layer.
func (l part) name() string {
	if l.desc.Digest.Hex != "" {
		return l.desc.Digest.String()
	}
	return l.key
}

// makeLayer fetches and unpacks an OCI layer.
func (s *Store) makeLayer(ctx context.Context, l part, emit func(Progress)) (stored, error) {
	b, err := l.open(ctx, emit)
	if err != nil {
		return stored{}, err
	}
	ok := false
	defer func() { b.close(ok) }()
	got, err := s.build(ctx, l.key, func(ctx context.Context, dir string) (layer.Result, error) {
		r := &checkedReader{stop: stopWith(ctx), r: b.r, sink: io.Discard, step: stepper(Progress{Blob: l.name(), Phase: PhaseUnpack, Total: l.desc.Size}, emit)}
		res, err := layer.Unpack(ctx, dir, r, layer.Options{Whiteouts: true})
		if err != nil {
			return res, fmt.Errorf("unpack layer %s: %w", l.name(), err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil { // padding behind the archive belongs to the blob's digest
			return res, fmt.Errorf("unpack layer %s: %w", l.name(), err)
		}
		if err := b.check(); err != nil {
			return res, fmt.Errorf("unpack layer %s: %w", l.name(), err)
		}
		if res.DiffID != l.key {
			return res, errs.E(errs.Invalid, "layer %s unpacks to %s, but the image's config says %s; the image is damaged or forged", l.name(), res.DiffID, l.key)
		}
		return res, nil
	})
	// A blob that is the right one is of no more use, unpacked or not, unless we were only interrupted.
	ok = err == nil || ctx.Err() == nil
	if err == nil {
		emit(Progress{Blob: l.name(), Phase: PhaseDone, Done: l.desc.Size, Total: l.desc.Size})
	}
	return got, err
}

// stepper reports every 100 ms at most.
func stepper(p Progress, emit func(Progress)) func(n int64) {
	var last time.Time
	return func(n int64) {
		if now := time.Now(); now.Sub(last) > 100*time.Millisecond || n == p.Total {
			last, p.Done = now, n
			emit(p)
		}
	}
}

// checkSpace refuses what cannot fit whatever it compresses to: unpacked, the missing layers take at least their
// compressed size, and while the last one is unpacked its blob is there too.
func (s *Store) checkSpace(ctx context.Context, ref string, parts []part) error {
	var sum, largest, already int64
	for _, l := range parts {
		if _, ok := s.have(l.key); ok {
			continue
		}
		sum += l.desc.Size
		largest = max(largest, l.desc.Size)
		if l.desc.Digest.Hex != "" {
			if st, err := os.Stat(s.partFile(l.desc.Digest.String())); err == nil {
				already += min(st.Size(), l.desc.Size)
			}
		}
	}
	if err := s.fits(ctx, sum+largest-already); err != nil {
		return fmt.Errorf("image %q: %w", ref, err)
	}
	return nil
}

// dropFailed takes back everything a pull that filled the disk brought: a disk without room stops more than this pull.
func (s *Store) dropFailed(parts []part) {
	var got []stored
	for _, l := range parts {
		s.removePart(l)
		if have, ok := s.have(l.key); ok {
			got = append(got, have)
		}
	}
	s.discard(got, "")
}

// removePart deletes what was downloaded of l, if anything was.
func (s *Store) removePart(l part) {
	if l.desc.Digest.Hex != "" {
		_ = os.Remove(s.partFile(l.desc.Digest.String())) // usually not there
	}
}

// partFile is where the blob with that digest is downloaded to.
func (s *Store) partFile(digest string) string {
	return filepath.Join(s.tmpDir(), "blob-"+digest[len("sha256:"):]+partSuffix)
}

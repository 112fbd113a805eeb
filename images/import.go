package images

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// ImportOptions say what an import is.
type ImportOptions struct {
	// Ref is what the image is called from now on: of a registry, or of an flist at a URL or a hub. Empty: as the archive
	// says, if it does.
	Ref string
	// Signature is the detached signature of the stream, in base64, where the policy wants one.
	Signature string
}

// Import takes what Export wrote, or another image archive, root filesystem or flist, as if it had been pulled. All of it
// is on disk before it is unpacked.
func (s *Store) Import(ctx context.Context, r io.Reader, opt ImportOptions) (Image, error) {
	if opt.Ref != "" { // before anything is transferred
		if _, err := s.importRef(opt.Ref); err != nil {
			return Image{}, err
		}
	}
	img, err := s.importStream(ctx, r, opt)
	s.tellFetched(ctx, ChangeImported, opt.Ref, nil, img, err)
	if err != nil {
		return Image{}, fmt.Errorf("import: %w", s.explainSpace(err))
	}
	s.tidy(ctx)
	return img, nil
}

func (s *Store) importStream(ctx context.Context, r io.Reader, opt ImportOptions) (Image, error) {
	if err := s.fits(ctx, 1); err != nil {
		return Image{}, err
	}
	ctx, unguard := s.guard(ctx)
	defer unguard()
	f, n, digest, err := s.spool(ctx, r)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = f.Close() }() // nameless and only read from here on
	list, err := isFlistFile(f)
	if err != nil {
		return Image{}, err
	}
	if opt.Ref == "" && !list {
		if opt.Ref, err = s.nameInside(ctx, f, n); err != nil {
			return Image{}, err
		}
	}
	if opt.Ref == "" {
		return Image{}, errs.E(errs.Invalid, "what is imported does not say what it is called; give it a reference")
	}
	ref, err := s.importRef(opt.Ref)
	if err != nil {
		return Image{}, err
	}
	if (ref.Kind == Flist) != list {
		return Image{}, errs.E(errs.Invalid, "image %q: flists are called hub:USER/NAME or https://…/NAME.flist, other images as in a registry", ref)
	}
	rule, err := s.admit(ref)
	if err != nil {
		return Image{}, err
	}
	key, err := signedBlob(rule, digest, n, f, func() ([]byte, error) {
		if opt.Signature == "" {
			return nil, nil
		}
		return []byte(opt.Signature), nil
	})
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", ref, err)
	}
	fix := func(rec *record) { rec.Image.SignedBy = key }
	img, err := s.takeImport(ctx, ref, f, n, digest, fix)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", ref, err)
	}
	return img, nil
}

func (s *Store) takeImport(ctx context.Context, ref Reference, f file, n int64, digest string, fix func(*record)) (Image, error) {
	if ref.Kind == Flist {
		if s.cfg.Inspect == nil {
			return Image{}, errs.E(errs.Invalid, "flists are not supported by this node")
		}
		return s.takeFlist(ctx, ref, f, n, digest, fix)
	}
	return s.takeFile(ctx, ref, f, n, digest, func(Progress) {}, fix)
}

// importRef reads the name of an import. It must not be one whose content is on this node's disk anyway, or known by digest.
func (s *Store) importRef(text string) (Reference, error) {
	r, err := ParseRef(text)
	switch {
	case err != nil:
		return r, err
	case r.Path != "" || r.Kind == URL:
		return r, errs.E(errs.Invalid, "image %q: an import is called as in a registry, or, if it is an flist, hub:USER/NAME or by its URL", r)
	case r.Kind == Registry && strings.Contains(r.text, "@"):
		return r, errs.E(errs.Invalid, "image %q: what is imported has a digest of its own; give it a tag", r)
	}
	return r, nil
}

// spool keeps a stream in a nameless file in tmp.
func (s *Store) spool(ctx context.Context, r io.Reader) (_ *os.File, n int64, digest string, err error) {
	tmp, err := os.CreateTemp(s.tmpDir(), "import-*")
	if err != nil {
		return nil, 0, "", err
	}
	sum := sha256.New()
	err = os.Remove(tmp.Name())
	if err == nil {
		in := &checkedReader{stop: stopWith(ctx), r: io.LimitReader(r, s.tune.maxURL), sink: sum, step: func(int64) {}}
		n, err = io.Copy(tmp, in)
	}
	switch {
	case err == nil && n == 0:
		err = errs.E(errs.Invalid, "nothing came")
	case err == nil && n == s.tune.maxURL:
		err = errs.E(errs.Invalid, "more than %s came, which is the limit", size(n))
	}
	if err != nil {
		return nil, 0, "", errors.Join(err, tmp.Close())
	}
	return tmp, n, "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// isFlistFile tells flists from archives by content: an SQLite file, or an archive that begins with one called flistdb.
func isFlistFile(f io.ReadSeeker) (bool, error) {
	const sqlite = "SQLite format 3\x00"
	head := make([]byte, len(sqlite))
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	if _, err := io.ReadFull(f, head); err == nil && string(head) == sqlite {
		return true, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	r, closer, packed, err := plainTar(f)
	if err != nil || !packed {
		return false, nil
	}
	defer closer()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err != nil {
			return false, nil
		}
		if name := path.Clean(h.Name); name != "." {
			return strings.HasPrefix(name, "flistdb.sqlite3"), nil
		}
	}
}

// nameInside is what an image archive says that its image is called; "" if it does not.
func (s *Store) nameInside(ctx context.Context, f *os.File, n int64) (string, error) {
	kind, packed, err := recognise(f)
	if err != nil || kind != formDocker {
		return "", err
	}
	var in file = f
	if packed {
		tmp, size, err := s.unpacked(ctx, f)
		if err != nil {
			return "", err
		}
		defer func() { _ = tmp.Close() }() // nameless and only read
		in, n = tmp, size
	}
	t, err := indexTar(ctx, in, n)
	if err != nil {
		return "", err
	}
	if list, err := t.dockerManifest(); err == nil {
		if len(list[0].RepoTags) == 1 {
			return list[0].RepoTags[0], nil
		}
		return "", nil // none, or a choice
	}
	list, err := (&layoutContent{ref: "archive", files: t}).list("")
	if err != nil {
		return "", nil
	}
	for _, name := range layoutNames(list[0]) {
		if _, err := s.importRef(name); err == nil && strings.ContainsAny(name, "/:") { // else it is a tag alone, or a path
			return name, nil
		}
	}
	return "", nil
}

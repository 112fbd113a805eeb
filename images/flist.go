package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// DefaultHub serves the flists that hub:USER/NAME means.
const DefaultHub = "https://hub.grid.tf"

// FlistInfo is what an flist says about itself.
type FlistInfo struct {
	Era        string // "C" or "D"
	Files      int
	Bytes      int64  // of all files
	Chunks     int    // different ones
	ChunkBytes int64  // of those, uncompressed: what a complete copy takes
	Backend    string `json:",omitempty"` // URL of the store its maker used
	// Warning is why the flist's configuration is not known although it may have one. The next pull asks again.
	Warning string `json:",omitempty"`
}

func (r *record) isFlist() bool { return r.Image.About != nil }

func (s *Store) flistsDir() string { return filepath.Join(s.cfg.Dir, "flists") }

// flistName is Image.Flist for that digest.
func flistName(digest string) string { return "../flists/" + strings.TrimPrefix(digest, "sha256:") }

func (s *Store) flistFile(name string) string { return filepath.Join(s.layersDir(), name) }

func validDigest(digest string) bool {
	text, ok := strings.CutPrefix(digest, "sha256:")
	_, err := hex.DecodeString(text)
	return ok && err == nil && len(text) == 64
}

// pullFlist brings the metadata of an flist here.
func (s *Store) pullFlist(ctx context.Context, r Reference, rule signature.Rule, emit func(Progress)) (Image, error) {
	if s.cfg.Inspect == nil {
		return Image{}, errs.E(errs.Invalid, "image %q: flists are not supported by this node", r)
	}
	if r.Path != "" {
		return s.pullFlistFile(ctx, r, rule)
	}
	return s.pullFlistURL(ctx, r, rule, emit)
}

// pullFlistFile takes an flist of this node's disk.
func (s *Store) pullFlistFile(ctx context.Context, r Reference, rule signature.Rule) (Image, error) {
	st, err := os.Stat(r.Path)
	if err != nil {
		return Image{}, errLocal(r, err)
	}
	if !st.Mode().IsRegular() {
		return Image{}, errs.E(errs.Invalid, "image %q is not a regular file, so not an flist; name a directory otherwise to run from it", r)
	}
	if st.Size() > s.tune.maxFlist {
		return Image{}, errs.E(errs.Invalid, "image %q has %s, flists are allowed %s", r, size(st.Size()), size(s.tune.maxFlist))
	}
	if rec, ok := s.known(r, ""); ok && rec.Stamp.equal(stampOf(st)) && rec.Image.About.Warning == "" && meets(rule, rec.Image) == nil {
		return rec.Image, nil
	}
	f, err := os.Open(r.Path) // not before: a fifo would be waited for
	if err != nil {
		return Image{}, errLocal(r, err)
	}
	defer func() { _ = f.Close() }() // only read
	digest, fix, err := vouched(ctx, r, rule, f, st)
	if err != nil {
		return Image{}, err
	}
	img, err := s.takeFlist(ctx, r, f, st.Size(), digest, fix)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	return img, nil
}

// takeFlist makes an image of the flist in f, which has that digest.
func (s *Store) takeFlist(ctx context.Context, r Reference, f file, n int64, digest string, fix func(*record)) (Image, error) {
	name := flistName(digest)
	unpin := s.pin([]string{name})
	defer unpin()
	if img, ok, err := s.copyFlist(r, digest, fix); ok || err != nil {
		return img, err
	}
	rec := newRecord(r, digest, s.platform.String(), nil)
	if err := s.keepFlist(ctx, f, n, rec); err != nil {
		return Image{}, err
	}
	fix(rec)
	return s.commit(rec)
}

// copyFlist records r as the flist that a reference already is.
func (s *Store) copyFlist(r Reference, digest string, fix func(*record)) (Image, bool, error) {
	for _, t := range s.images.Load().byRef {
		if !t.isFlist() || t.Image.Digest != digest || t.Image.About.Warning != "" || t.Platform != s.platform.String() {
			continue
		}
		defer s.pin(t.keys())()
		rec := *t
		if t.Image.Ref != r.text {
			rec.Image.Ref, rec.Image.Pulled = r.text, now()
			rec.ETag, rec.Modified, rec.MD5, rec.Stamp = "", "", "", fileStamp{}
		}
		if s.missing(&rec) != nil {
			return Image{}, false, nil // removed this moment: the usual way, then
		}
		fix(&rec)
		img, err := s.commit(&rec)
		return img, true, err
	}
	return Image{}, false, nil
}

// keepFlist has the flist judged and puts it beside the others.
func (s *Store) keepFlist(ctx context.Context, f io.ReadSeeker, n int64, rec *record) (err error) {
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	if err := s.fits(ctx, n); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(s.tmpDir(), "flist-*")
	if err != nil {
		return fmt.Errorf("keep flist: %w", err)
	}
	undo.Push(func() error { return os.Remove(tmp.Name()) })
	sum := sha256.New()
	_, err = f.Seek(0, io.SeekStart)
	if err == nil {
		in := &checkedReader{stop: stopWith(ctx), r: f, sink: sum, step: func(int64) {}}
		rec.FileSize, err = io.Copy(tmp, in)
	}
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("keep flist: %w", err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != rec.Image.Digest {
		return errs.E(errs.Conflict, "file changed while it was read")
	}
	config, about, err := s.cfg.Inspect(ctx, tmp.Name())
	if err != nil {
		return err
	}
	rec.Image.Config, rec.Image.About = config, &about
	s.disk.Lock()
	defer s.disk.Unlock()
	if err := os.Rename(tmp.Name(), s.flistFile(flistName(rec.Image.Digest))); err != nil {
		return fmt.Errorf("keep flist: %w", err)
	}
	undo.Keep()
	return atomicfile.SyncDir(s.flistsDir())
}

// adoptFlist completes r from disk; false if its file is gone. A layer that is gone can be made again.
func (s *Store) adoptFlist(r *record) bool {
	st, err := os.Stat(s.flistFile(flistName(r.Image.Digest)))
	if err != nil || st.Size() != r.FileSize {
		s.log.Warn("flist is lost; pull it again", "image", r.Image.Ref, "digest", r.Image.Digest)
		return false
	}
	if !s.adoptParts(r) {
		r.Parts = nil
	}
	s.place(r)
	return true
}

// dropFlist deletes an flist that no image, hold or pull needs; the name "" is none. s.disk is held.
func (s *Store) dropFlist(name string) (freed int64, err error) {
	if name == "" || s.images.Load().users()[name] > 0 {
		return 0, nil
	}
	s.mu.Lock()
	used := s.held[name] > 0 || s.pinned[name] > 0
	s.mu.Unlock()
	if used {
		return 0, nil
	}
	st, err := os.Lstat(s.flistFile(name))
	if err == nil {
		err = os.Remove(s.flistFile(name))
	}
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("remove flist: %w", err)
	}
	return st.Size(), nil
}

// pruneFlists deletes all that nobody needs.
func (s *Store) pruneFlists() (freed int64, err error) {
	names, err := os.ReadDir(s.flistsDir())
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		s.disk.Lock()
		f, err := s.dropFlist(flistName(n.Name()))
		s.disk.Unlock()
		freed += f
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

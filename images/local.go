package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/errs"
)

// pullFile brings in a local archive, or accepts a directory.
func (s *Store) pullFile(ctx context.Context, r Reference, rule signature.Rule, emit func(Progress)) (Image, error) {
	st, err := os.Stat(r.Path)
	if err != nil {
		return Image{}, errLocal(r, err)
	}
	if st.IsDir() {
		if r.Kind != Path {
			return Image{}, errs.E(errs.Invalid, "image %q is a directory; an OCI layout is written oci:%s", r, r.Path)
		}
		if err := meets(rule, directory(r)); err != nil {
			return Image{}, err
		}
		return directory(r), s.forgetArchive(r)
	}
	if !st.Mode().IsRegular() {
		return Image{}, errs.E(errs.Invalid, "image %q is neither a regular file nor a directory", r)
	}
	if rec, ok := s.known(r, ""); ok && rec.Stamp.equal(stampOf(st)) && meets(rule, rec.Image) == nil {
		return rec.Image, nil
	}
	f, err := os.Open(r.Path)
	if err != nil {
		return Image{}, errLocal(r, err)
	}
	defer func() { _ = f.Close() }() // only read
	digest, fix, err := vouched(ctx, r, rule, f, st)
	if err != nil {
		return Image{}, err
	}
	if rec, ok := s.known(r, digest); ok { // touched only
		same := *rec
		fix(&same)
		return s.commit(&same)
	}
	img, err := s.takeFile(ctx, r, f, st.Size(), digest, emit, fix)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	return img, nil
}

// vouched is the digest of a local file that the rule takes, and what to record of it.
func vouched(ctx context.Context, r Reference, rule signature.Rule, f *os.File, st os.FileInfo) (digest string, fix func(*record), err error) {
	digest, err = hashFile(ctx, f)
	if err != nil {
		return "", nil, errLocal(r, err)
	}
	key, err := signedBlob(rule, digest, st.Size(), f, func() ([]byte, error) { return signatureFile(r.Path + ".sig") })
	if err != nil {
		return "", nil, fmt.Errorf("image %q: %w", r, err)
	}
	stamp := stampOf(st)
	return digest, func(rec *record) { rec.Stamp, rec.Image.SignedBy = stamp, key }, nil
}

// forgetArchive drops what was recorded when a path was an archive still.
func (s *Store) forgetArchive(r Reference) error {
	if _, ok := s.images.Load().byRef[r.text]; !ok {
		return nil
	}
	g, _, err := s.drop(r.text, nil)
	return errors.Join(err, g.empty())
}

func stampOf(st os.FileInfo) fileStamp {
	fs := fileStamp{Size: st.Size(), MTime: st.ModTime().UTC()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		fs.Inode = sys.Ino
	}
	return fs
}

func (f fileStamp) equal(g fileStamp) bool {
	return f.Size == g.Size && f.MTime.Equal(g.MTime) && f.Inode == g.Inode
}

func hashFile(ctx context.Context, f io.ReadSeeker) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.Discard, &checkedReader{stop: stopWith(ctx), r: f, sink: sum, step: func(int64) {}}); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// file is an archive on disk.
type file interface {
	io.ReadSeeker
	io.ReaderAt
}

// takeFile makes an image of an archive of any kind r allows.
func (s *Store) takeFile(ctx context.Context, r Reference, f file, n int64, digest string, emit func(Progress), fix func(*record)) (Image, error) {
	var head [16]byte
	if _, err := f.ReadAt(head[:], 0); err == nil && string(head[:]) == "SQLite format 3\x00" {
		return Image{}, errs.E(errs.Invalid, "it is an flist, which needs a name that ends in .fl")
	}
	kind, packed, err := recognise(f)
	if err != nil {
		return Image{}, err
	}
	if kind == formDocker {
		if packed {
			tmp, size, err := s.unpacked(ctx, f)
			if err != nil {
				return Image{}, err
			}
			defer func() { _ = tmp.Close() }() // nameless and only read
			f, n = tmp, size
		}
		t, err := indexTar(ctx, f, n)
		if err != nil {
			return Image{}, err
		}
		switch found := t.form(); {
		case found == formDocker && r.Kind != OCIArchive:
			return s.takeDocker(ctx, r, t, digest, emit, fix)
		case t.has("index.json") && t.has("oci-layout") && r.Kind != DockerArchive:
			if r.Kind == Registry { // an import, which is known by its manifest as pulled images are
				digest = ""
			}
			return s.takeLayout(ctx, r, t, digest, emit, fix)
		}
		if packed { // read from the beginning again, uncompressed this time
			kind = formRootfs
		}
	}
	if r.Kind == OCIArchive || r.Kind == DockerArchive {
		return Image{}, errs.E(errs.Invalid, "file is not an %s; leave the prefix out to have its kind found out", r.Kind)
	}
	return s.takeRootfs(ctx, r, f, n, kind, digest, emit, fix)
}

// form tells image archives apart. Archives that are both are read as docker's, which has plain tags.
func (t *tarFiles) form() form {
	if _, err := t.dockerManifest(); err == nil {
		return formDocker
	}
	if t.has("index.json") && t.has("oci-layout") {
		return formOCI
	}
	return formRootfs
}

// takeRootfs makes a one-layer image of a root filesystem.
func (s *Store) takeRootfs(ctx context.Context, r Reference, f file, n int64, kind form, digest string, emit func(Progress), fix func(*record)) (Image, error) {
	l := part{key: rootfsPrefix + digest, desc: v1.Descriptor{Size: n}}
	unpin := s.pin([]string{l.key})
	defer unpin()
	if _, ok := s.have(l.key); !ok {
		if err := s.fits(ctx, n); err != nil { // unpacked it is not smaller
			return Image{}, err
		}
	}
	ctx, unguard := s.guard(ctx)
	defer unguard()
	got, _, err := s.unpacks.do(ctx, l.key, emit, func(ctx context.Context, emit func(Progress)) (stored, error) {
		if have, ok := s.have(l.key); ok {
			return have, nil
		}
		return s.build(ctx, l.key, func(ctx context.Context, dir string) (layer.Result, error) {
			if kind == formSquashfs {
				emit(Progress{Blob: l.key, Phase: PhaseUnpack, Total: n})
				return layer.UnpackSquashfs(ctx, dir, f, n, layer.Options{})
			}
			step := stepper(Progress{Blob: l.key, Phase: PhaseUnpack, Total: n}, emit)
			in := &checkedReader{stop: stopWith(ctx), r: io.NewSectionReader(f, 0, n), sink: io.Discard, step: step}
			res, err := layer.Unpack(ctx, dir, in, layer.Options{})
			if _, lerr := os.Lstat(filepath.Join(dir, "flistdb.sqlite3")); err == nil && lerr == nil {
				return res, errs.E(errs.Invalid, "it is an flist, which needs a name that ends in .flist")
			}
			return res, err
		})
	})
	if err != nil {
		return Image{}, err
	}
	rec := newRecord(r, digest, s.platform.String(), []stored{got})
	fix(rec)
	return s.commit(rec)
}

// dockerEntry is one image of a docker archive's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (t *tarFiles) dockerManifest() ([]dockerEntry, error) {
	raw, err := readSmall(t, "manifest.json", maxManifest)
	if err != nil {
		return nil, err
	}
	var list []dockerEntry
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errs.E(errs.Invalid, "manifest.json: %w", err)
	}
	for _, e := range list {
		if e.Config == "" {
			return nil, errs.E(errs.Invalid, "manifest.json has an image without config")
		}
	}
	if len(list) == 0 {
		return nil, errs.E(errs.Invalid, "manifest.json names no image")
	}
	return list, nil
}

// takeDocker makes an image of what docker save wrote.
func (s *Store) takeDocker(ctx context.Context, r Reference, t *tarFiles, digest string, emit func(Progress), fix func(*record)) (Image, error) {
	list, err := t.dockerManifest()
	if err != nil {
		return Image{}, err
	}
	e, err := chooseEntry(list, r.Tag)
	if err != nil {
		return Image{}, err
	}
	raw, err := readSmall(t, e.Config, maxConfig)
	if err != nil {
		return Image{}, errs.E(errs.Invalid, "config: %w", err)
	}
	cf, diffs, err := parseConfig(r.text, raw, len(e.Layers))
	if err != nil {
		return Image{}, err
	}
	if have := cf.Platform(); have != nil && !runs(s.platform, *have) {
		return Image{}, errPlatform(r.text, s.platform, []v1.Platform{*have})
	}
	p := &plan{digest: digest, config: cf}
	for i, name := range e.Layers {
		_, n, err := t.open(name)
		if err != nil {
			return Image{}, errs.E(errs.Invalid, "layer: %w", err)
		}
		p.layers = append(p.layers, part{
			key: diffs[i].String(), desc: v1.Descriptor{Size: n},
			open: func(context.Context, func(Progress)) (*blob, error) {
				in, _, err := t.open(name)
				// The DiffID is the only digest there is, and it is checked.
				return &blob{r: in, check: func() error { return nil }, close: func(bool) {}}, err
			},
		})
	}
	return s.realise(ctx, r, p, emit, fix)
}

func chooseEntry(list []dockerEntry, tag string) (dockerEntry, error) {
	var names []string
	for _, e := range list {
		for _, t := range e.RepoTags {
			if tag != "" && sameTag(t, tag) {
				return e, nil
			}
			names = append(names, t)
		}
	}
	slices.Sort(names)
	if tag != "" {
		return dockerEntry{}, errs.E(errs.NotFound, "archive has no image %q; it has %s", tag, orNone(names))
	}
	if len(list) > 1 {
		return dockerEntry{}, errs.E(errs.Invalid, "archive holds several images, name one as docker-archive:FILE:TAG: %s", orNone(names))
	}
	return list[0], nil
}

// sameTag compares as references: app is docker.io/library/app:latest.
func sameTag(a, b string) bool {
	ra, erra := parseRegistry(a)
	rb, errb := parseRegistry(b)
	return a == b || erra == nil && errb == nil && ra.text == rb.text
}

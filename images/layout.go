package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/errs"
)

// files is a folder, or a tar read as one.
type files interface {
	open(name string) (io.ReadCloser, int64, error)
}

// rootFiles is a folder that nothing is read outside of.
type rootFiles struct{ root *os.Root }

func (f rootFiles) open(name string) (io.ReadCloser, int64, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, st.Size(), nil
}

func readSmall(f files, name string, limit int64) ([]byte, error) {
	r, n, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // only read
	if n > limit {
		return nil, errs.E(errs.Invalid, "%s has %s, %s are allowed", name, size(n), size(limit))
	}
	return io.ReadAll(io.LimitReader(r, limit))
}

// layoutContent is an OCI image layout.
type layoutContent struct {
	ref   string
	files files
}

func (s *Store) pullLayout(ctx context.Context, r Reference, rule signature.Rule, emit func(Progress)) (Image, error) {
	root, err := os.OpenRoot(r.Path)
	if err != nil {
		return Image{}, errLocal(r, err)
	}
	defer func() { _ = root.Close() }() // only read
	key, err := signedLayout(r, rule, rootFiles{root})
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	return s.takeLayout(ctx, r, rootFiles{root}, "", emit, func(rec *record) { rec.Image.SignedBy = key })
}

// takeLayout brings the image r names out of a layout. digest is the image's if not that of the manifest.
func (s *Store) takeLayout(ctx context.Context, r Reference, f files, digest string, emit func(Progress), fix func(*record)) (Image, error) {
	src := &layoutContent{ref: r.text, files: f}
	list, err := src.list(r.Tag)
	if err != nil {
		return Image{}, err
	}
	top, _, err := s.pick(r.text, list)
	if err != nil {
		return Image{}, err
	}
	if err := checkDescriptor(r.text, top, maxManifest); err != nil {
		return Image{}, err
	}
	if digest == "" {
		digest = top.Digest.String()
		if rec, ok := s.known(r, digest); ok {
			same := *rec
			if fix(&same); same.Image.SignedBy == rec.Image.SignedBy {
				return rec.Image, nil
			}
			return s.commit(&same)
		}
	}
	raw, err := src.manifest(ctx, top)
	if err != nil {
		return Image{}, err
	}
	p, err := s.makePlan(ctx, r.text, src, raw, top.Digest.String())
	if err != nil {
		return Image{}, err
	}
	p.digest = digest
	img, err := s.realise(ctx, r, p, emit, fix)
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", r, err)
	}
	return img, nil
}

func errLocal(r Reference, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errs.E(errs.NotFound, "image %q: there is nothing at %s on this node", r, r.Path)
	case errors.Is(err, fs.ErrPermission):
		return errs.E(errs.Invalid, "image %q: %w", r, err)
	}
	return fmt.Errorf("image %q: %w", r, err)
}

// list is the entries of index.json that tag means; "" means all, if they are one image.
func (c *layoutContent) list(tag string) ([]v1.Descriptor, error) {
	raw, err := readSmall(c.files, "index.json", maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.E(errs.Invalid, "image %q: there is no index.json; is it an OCI layout?", c.ref)
	}
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", c.ref, err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, errs.E(errs.Invalid, "image %q: index.json: %w", c.ref, err)
	}
	var named []v1.Descriptor
	var tags []string
	for _, m := range index.Manifests {
		names := layoutNames(m)
		tags = append(tags, names...)
		if tag == "" || slices.Contains(names, tag) {
			named = append(named, m)
		}
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	switch {
	case len(index.Manifests) == 0:
		return nil, errs.E(errs.Invalid, "image %q: the layout is empty", c.ref)
	case len(named) == 0:
		return nil, errs.E(errs.NotFound, "image %q: the layout has no tag %q; it has %s", c.ref, tag, orNone(tags))
	case tag == "" && severalImages(named):
		return nil, errs.E(errs.Invalid, "image %q: the layout holds several images, name one: %s", c.ref, orNone(tags))
	}
	return named, nil
}

// layoutNames are the names one entry goes by: tags, and whole references as containerd writes them.
func layoutNames(d v1.Descriptor) []string {
	var names []string
	for _, a := range []string{"org.opencontainers.image.ref.name", "io.containerd.image.name"} {
		if n := d.Annotations[a]; n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// severalImages says whether list is more than one image for different platforms.
func severalImages(list []v1.Descriptor) bool {
	var seen []string
	for _, d := range list {
		key := "any"
		if d.Platform != nil {
			key = d.Platform.String()
		}
		if slices.Contains(seen, key) {
			return true
		}
		seen = append(seen, key)
	}
	return false
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (c *layoutContent) small(d v1.Descriptor, limit int64) ([]byte, error) {
	raw, err := readSmall(c.files, blobName(d), limit)
	if err == nil {
		err = verify(d, raw)
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "image %q: %w", c.ref, err)
	}
	return raw, nil
}

func (c *layoutContent) manifest(_ context.Context, d v1.Descriptor) ([]byte, error) {
	return c.small(d, maxManifest)
}

func (c *layoutContent) config(_ context.Context, d v1.Descriptor) ([]byte, error) {
	return c.small(d, maxConfig)
}

// layer reads the blob where it is, hashing on the way.
func (c *layoutContent) layer(_ context.Context, d v1.Descriptor, _ func(Progress)) (*blob, error) {
	r, n, err := c.files.open(blobName(d))
	if err != nil {
		return nil, errs.E(errs.Invalid, "image %q: layer: %w", c.ref, err)
	}
	sum := sha256.New()
	check := func() error {
		if got := hex.EncodeToString(sum.Sum(nil)); got != d.Digest.Hex || n != d.Size {
			return errs.E(errs.Invalid, "image %q: the file of %s has digest sha256:%s and %d bytes, expected %d", c.ref, d.Digest, got, n, d.Size)
		}
		return nil
	}
	return &blob{r: io.TeeReader(r, sum), check: check, close: func(bool) { _ = r.Close() }}, nil
}

// blobName: the digest was checked to be plain hex by checkDescriptor.
func blobName(d v1.Descriptor) string { return "blobs/sha256/" + d.Digest.Hex }

package images

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Media types of what Export writes.
const (
	TypeArchive = "application/x-tar" // an OCI archive, or one of a root file system
	TypeFlist   = "application/octet-stream"
)

// Annotations of an exported image: what it was called, and what its source called it. Layers are not kept as they came,
// so those of the archive, and its manifest, have digests of their own.
const (
	annotationName   = "io.containerd.image.name"
	annotationTag    = "org.opencontainers.image.ref.name"
	annotationDigest = "com.github.buoy-edge.buoy.digest"
)

// Export writes the image of a reference for Import and other programs: an OCI archive, or an flist as it is. begin is
// called once nothing but reading and writing can go wrong any more. No room on disk is needed.
func (s *Store) Export(ctx context.Context, ref string, begin func(mediaType string) io.Writer) error {
	img, err := s.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	if img.Base == "" {
		return errs.E(errs.Invalid, "image %q is a directory of this node; pack it with tar", ref)
	}
	defer s.Hold(img)()
	if err := s.export(ctx, img, begin); err != nil {
		return fmt.Errorf("export image %q: %w", img.Ref, err)
	}
	return nil
}

func (s *Store) export(ctx context.Context, img Image, begin func(mediaType string) io.Writer) error {
	if img.Flist != "" {
		f, err := os.Open(filepath.Join(img.Base, img.Flist))
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		_, err = io.Copy(begin(TypeFlist), f)
		return err
	}
	x := &exporter{img: img}
	if err := x.measure(ctx); err != nil {
		return err
	}
	if err := x.describe(s.platform); err != nil {
		return err
	}
	return x.write(ctx, begin(TypeArchive))
}

// exporter writes one image. Its layers are packed twice: a tar says how long a file is before it has it.
type exporter struct {
	img    Image
	layers []v1.Descriptor // bottom first
	small  []blobFile      // config, manifest
	index  []byte
}

type blobFile struct {
	digest v1.Hash
	data   []byte
}

func (x *exporter) dirs() []string {
	var dirs []string
	for _, id := range slices.Backward(x.img.Layers) {
		dirs = append(dirs, filepath.Join(x.img.Base, id))
	}
	return dirs
}

// measure finds out how long each layer is and which digest it has.
func (x *exporter) measure(ctx context.Context) error {
	for _, dir := range x.dirs() {
		sum := sha256.New()
		n := &countingWriter{w: sum}
		if err := layer.Pack(ctx, n, dir); err != nil {
			return err
		}
		x.layers = append(x.layers, v1.Descriptor{
			MediaType: types.OCIUncompressedLayer, Size: n.n, Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))},
		})
	}
	return nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// describe makes config, manifest and index.
func (x *exporter) describe(here v1.Platform) error {
	c := x.img.Config
	cf := v1.ConfigFile{
		Architecture: cmp.Or(c.Architecture, here.Architecture), OS: cmp.Or(c.OS, here.OS), Variant: c.Variant,
		Created: v1.Time{Time: x.img.Created}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal,
			Volumes: set(c.Volumes), ExposedPorts: set(c.ExposedPorts), Labels: c.Labels,
		},
	}
	for _, l := range x.layers {
		cf.RootFS.DiffIDs = append(cf.RootFS.DiffIDs, l.Digest)
	}
	config, err := x.add(types.OCIConfigJSON, cf)
	if err != nil {
		return err
	}
	notes := map[string]string{annotationName: x.img.Ref, annotationTag: x.img.Ref, annotationDigest: x.img.Digest}
	manifest, err := x.add(types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: x.layers, Annotations: map[string]string{annotationDigest: x.img.Digest},
	})
	if err != nil {
		return err
	}
	manifest.Annotations = notes
	manifest.Platform = &v1.Platform{OS: cf.OS, Architecture: cf.Architecture, Variant: cf.Variant}
	x.index, err = json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{manifest}})
	return err
}

func set(names []string) map[string]struct{} {
	if len(names) == 0 {
		return nil
	}
	m := map[string]struct{}{}
	for _, n := range names {
		m[n] = struct{}{}
	}
	return m
}

func (x *exporter) add(kind types.MediaType, v any) (v1.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	sum := sha256.Sum256(data)
	d := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	x.small = append(x.small, blobFile{d, data})
	return v1.Descriptor{MediaType: kind, Size: int64(len(data)), Digest: d}, nil
}

func (x *exporter) write(ctx context.Context, w io.Writer) error {
	t := tar.NewWriter(w)
	file := func(name string, size int64) error {
		return t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	}
	put := func(name string, data []byte) error {
		if err := file(name, int64(len(data))); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	if err := put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := put("index.json", x.index); err != nil {
		return err
	}
	for _, b := range x.small {
		if err := put("blobs/sha256/"+b.digest.Hex, b.data); err != nil {
			return err
		}
	}
	for i, dir := range x.dirs() {
		if err := file("blobs/sha256/"+x.layers[i].Digest.Hex, x.layers[i].Size); err != nil {
			return err
		}
		sum := sha256.New()
		if err := layer.Pack(ctx, io.MultiWriter(t, sum), dir); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != x.layers[i].Digest.Hex {
			return errs.E(errs.Conflict, "layer %s changed while it was read", x.img.Layers[len(x.img.Layers)-1-i])
		}
	}
	return t.Close()
}

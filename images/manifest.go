package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Limits of what is held in memory: containerd refuses manifests over 8 MiB, Docker Hub over 4 MiB.
const (
	maxManifest = 8 << 20
	maxConfig   = 8 << 20
	maxNesting  = 3 // indexes within indexes
)

// content is where the parts of one OCI image are read from. What it returns is verified.
type content interface {
	// manifest is the document with that digest.
	manifest(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// config is the config blob.
	config(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// layer opens a layer blob.
	layer(ctx context.Context, d v1.Descriptor, emit func(Progress)) (*blob, error)
}

// blob is an open layer blob.
type blob struct {
	r     io.Reader
	check func() error  // after reading: nil if the bytes were the right ones
	close func(ok bool) // ok: not needed again
}

// plan is what has to be there for an image to be complete.
type plan struct {
	digest   string // what the reference stands for
	manifest string // this platform's
	config   *v1.ConfigFile
	layers   []part // bottom first
}

// part is one layer of a plan.
type part struct {
	key  string // DiffID
	desc v1.Descriptor
	open func(ctx context.Context, emit func(Progress)) (*blob, error)
}

// document is a manifest or an index, told apart by content: media types in headers are often wrong.
type document struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     types.MediaType `json:"mediaType"`
	Config        *v1.Descriptor  `json:"config"`
	Layers        []v1.Descriptor `json:"layers"`
	Manifests     []v1.Descriptor `json:"manifests"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

func (d *document) isIndex() bool { return d.Manifests != nil || d.MediaType.IsIndex() }

func parseDocument(ref string, raw []byte) (*document, error) {
	d := new(document)
	if err := json.Unmarshal(raw, d); err != nil {
		return nil, errs.E(errs.Invalid, "manifest of %q: %w", ref, err)
	}
	switch {
	case d.SchemaVersion == 1 || d.MediaType.IsSchema1() || d.FSLayers != nil:
		return nil, errs.E(errs.Invalid, "image %q has a schema 1 manifest, a format Docker dropped in 2024; push it again with a current tool", ref)
	case d.SchemaVersion != 2:
		return nil, errs.E(errs.Invalid, "image %q: what the source sent is not an image manifest (schemaVersion %d)", ref, d.SchemaVersion)
	case d.Manifests != nil && (d.Layers != nil || d.Config != nil):
		return nil, errs.E(errs.Invalid, "image %q: manifest is also an index; refused as ambiguous", ref)
	case d.MediaType != "" && !d.MediaType.IsIndex() && !d.MediaType.IsImage():
		return nil, errs.E(errs.Invalid, "image %q: manifest type %q is not supported", ref, d.MediaType)
	case !d.isIndex() && d.Config == nil:
		return nil, errs.E(errs.Invalid, "image %q: manifest names no config", ref)
	}
	return d, nil
}

// makePlan follows raw, which has that digest, to one image for the store's platform.
func (s *Store) makePlan(ctx context.Context, ref string, src content, raw []byte, digest string) (*plan, error) {
	p := &plan{digest: digest, manifest: digest}
	listed := false
	for range maxNesting {
		doc, err := parseDocument(ref, raw)
		if err != nil {
			return nil, err
		}
		if !doc.isIndex() {
			return p, s.fillPlan(ctx, ref, src, doc, p, listed)
		}
		d, named, err := s.pick(ref, doc.Manifests)
		if err != nil {
			return nil, err
		}
		listed = listed || named
		if err := checkDescriptor(ref, d, maxManifest); err != nil {
			return nil, err
		}
		if raw, err = src.manifest(ctx, d); err != nil {
			return nil, err
		}
		p.manifest = d.Digest.String()
	}
	return nil, errs.E(errs.Invalid, "image %q: indexes are nested more than %d deep", ref, maxNesting)
}

// pick chooses the manifest for this machine; named says that the list told its platform.
func (s *Store) pick(ref string, list []v1.Descriptor) (d v1.Descriptor, named bool, err error) {
	var have []v1.Platform
	var at, nameless []int
	for i, d := range list {
		switch {
		case d.MediaType != "" && !d.MediaType.IsImage() && !d.MediaType.IsIndex():
			continue
		case d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "":
			nameless = append(nameless, i)
			continue
		}
		have = append(have, *d.Platform)
		at = append(at, i)
	}
	if i := choose(s.platform, have); i >= 0 {
		return list[at[i]], true, nil
	}
	if len(nameless) == 1 && len(have) == 0 { // its config will tell
		return list[nameless[0]], false, nil
	}
	return d, false, errPlatform(ref, s.platform, have)
}

// fillPlan reads the config and checks that it belongs to the manifest.
func (s *Store) fillPlan(ctx context.Context, ref string, src content, doc *document, p *plan, listed bool) error {
	if !doc.Config.MediaType.IsConfig() {
		return errs.E(errs.Invalid, "image %q: config type %q is not a container image's", ref, doc.Config.MediaType)
	}
	if err := checkDescriptor(ref, *doc.Config, maxConfig); err != nil {
		return err
	}
	for _, l := range doc.Layers {
		if err := checkLayer(ref, l); err != nil {
			return err
		}
	}
	raw, err := src.config(ctx, *doc.Config)
	if err != nil {
		return err
	}
	var diffs []v1.Hash
	if p.config, diffs, err = parseConfig(ref, raw, len(doc.Layers)); err != nil {
		return err
	}
	if have := p.config.Platform(); !listed && have != nil && !runs(s.platform, *have) {
		return errPlatform(ref, s.platform, []v1.Platform{*have})
	}
	for i, l := range doc.Layers {
		p.layers = append(p.layers, part{
			key: diffs[i].String(), desc: l,
			open: func(ctx context.Context, emit func(Progress)) (*blob, error) { return src.layer(ctx, l, emit) },
		})
	}
	return nil
}

func parseConfig(ref string, raw []byte, layers int) (*v1.ConfigFile, []v1.Hash, error) {
	cf, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, errs.E(errs.Invalid, "config of %q: %w", ref, err)
	}
	diffs := cf.RootFS.DiffIDs
	switch {
	case len(diffs) != layers:
		return nil, nil, errs.E(errs.Invalid, "image %q: manifest has %d layers, config %d", ref, layers, len(diffs))
	case layers == 0:
		return nil, nil, errs.E(errs.Invalid, "image %q has no layers, there is nothing to run", ref)
	}
	for _, d := range diffs {
		if d.Algorithm != "sha256" || len(d.Hex) != 64 {
			return nil, nil, errs.E(errs.Invalid, "image %q: layer digest %q is not sha256", ref, d)
		}
	}
	return cf, diffs, nil
}

func checkDescriptor(ref string, d v1.Descriptor, limit int64) error {
	switch {
	case d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != 64:
		return errs.E(errs.Invalid, "image %q: digest %q is not sha256", ref, d.Digest)
	case d.Size < 0 || limit > 0 && d.Size > limit:
		return errs.E(errs.Invalid, "image %q: %s has %s, %s are allowed", ref, d.Digest, size(d.Size), size(limit))
	}
	return nil
}

func checkLayer(ref string, l v1.Descriptor) error {
	switch {
	case l.MediaType.IsLayer() && !l.MediaType.IsDistributable():
		return errs.E(errs.Invalid, "image %q: layer %s is foreign (%s): its registry does not hold it, and it is not fetched from elsewhere", ref, l.Digest, l.MediaType)
	case !l.MediaType.IsLayer() && l.MediaType != "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return errs.E(errs.Invalid, "image %q: layer type %q is not supported; is it a container image?", ref, l.MediaType)
	}
	return checkDescriptor(ref, l, 0)
}

// verify is nil if data is what d says.
func verify(d v1.Descriptor, data []byte) error {
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != d.Digest.Hex {
		return fmt.Errorf("content has digest sha256:%x, expected %s", sum, d.Digest)
	}
	if d.Size > 0 && d.Size != int64(len(data)) {
		return fmt.Errorf("%s has %d bytes, expected %d", d.Digest, len(data), d.Size)
	}
	return nil
}

func runConfig(cf *v1.ConfigFile) RunConfig {
	c := cf.Config
	return RunConfig{
		Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
		WorkingDir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal,
		Volumes: slices.Sorted(maps.Keys(c.Volumes)), ExposedPorts: slices.Sorted(maps.Keys(c.ExposedPorts)),
		Labels: c.Labels, Architecture: cf.Architecture, OS: cf.OS, Variant: cf.Variant,
	}
}

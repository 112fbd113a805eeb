package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/buoy-edge/buoy/internal/errs"
)

// fuzzContent gives the same manifest and config whatever is asked for.
type fuzzContent struct{ nested, conf []byte }

func (c fuzzContent) manifest(context.Context, v1.Descriptor) ([]byte, error) { return c.nested, nil }
func (c fuzzContent) config(context.Context, v1.Descriptor) ([]byte, error)   { return c.conf, nil }
func (c fuzzContent) layer(context.Context, v1.Descriptor, func(Progress)) (*blob, error) {
	return nil, errors.New("it is not asked for")
}

// FuzzManifest: of whatever a registry sends as manifest and config, what becomes
// a plan has layers, each with a digest that is safe as the name of a file and a
// size that is none to be afraid of, and as many as the config says.
func FuzzManifest(f *testing.F) {
	img := imageOf(f, layerOf(f, map[string]string{"a": "1"}), layerOf(f, map[string]string{"b": "2"}))
	list := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: new(hostPlatform())}})
	manifest, conf := must(img.RawManifest())(f), must(img.RawConfigFile())(f)
	f.Add(manifest, []byte(nil), conf)
	f.Add(must(list.RawManifest())(f), manifest, conf)
	f.Add(bytes.ReplaceAll(manifest, []byte("sha256:"), []byte("sha256:../")), manifest, conf)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha512:00","size":-1,"platform":null}]}`), manifest, bytes.ReplaceAll(conf, []byte("sha256"), []byte("sha1")))
	s := openStore(f, f.TempDir())
	f.Fuzz(func(t *testing.T, raw, nested, conf []byte) {
		p, err := s.makePlan(t.Context(), "fuzz", fuzzContent{nested, conf}, raw, "sha256:x")
		if err != nil {
			if errs.KindOf(err) != errs.Invalid && errs.KindOf(err) != errs.NotFound {
				t.Fatalf("%v is %v", err, errs.KindOf(err))
			}
			return
		}
		if len(p.layers) == 0 || p.config == nil || len(p.layers) != len(p.config.RootFS.DiffIDs) {
			t.Fatalf("%d layers, config %+v", len(p.layers), p.config)
		}
		for _, l := range p.layers {
			digest, ok := strings.CutPrefix(l.key, "sha256:")
			if !ok || len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" || strings.Trim(l.desc.Digest.Hex, "0123456789abcdef") != "" || l.desc.Size < 0 {
				t.Fatalf("layer %q of %+v", l.key, l.desc)
			}
		}
		if _, err := json.Marshal(runConfig(p.config)); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzImport: whatever is imported, archive of an image or root file system, it
// stays below the store, and what fails leaves nothing there.
func FuzzImport(f *testing.F) {
	img := imageOf(f, layerOf(f, map[string]string{"etc/": "", "etc/a": "lower", "b": "2"}), layerOf(f, map[string]string{"etc/.wh.a": ""}))
	var docker bytes.Buffer
	if err := tarball.Write(must(name.NewTag("registry.example/app:1"))(f), img, &docker); err != nil {
		f.Fatal(err)
	}
	f.Add(docker.Bytes())
	manifest, conf := must(img.RawManifest())(f), must(img.RawConfigFile())(f)
	layout := map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"blobs/sha256/" + must(img.Digest())(f).Hex:     string(manifest),
		"blobs/sha256/" + must(img.ConfigName())(f).Hex: string(conf),
	}
	for _, l := range must(img.Layers())(f) {
		layout["blobs/sha256/"+must(l.Digest())(f).Hex] = string(must(io.ReadAll(must(l.Compressed())(f)))(f))
	}
	layout["index.json"] = string(must(mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img}).RawManifest())(f))
	f.Add(tarOf(f, layout))
	f.Add(tarOf(f, map[string]string{"bin/": "", "bin/a": "x", "../../out": "x"}))
	f.Add(tarOf(f, map[string]string{"manifest.json": `[{"Config":"../../x","Layers":["/etc/passwd"],"RepoTags":["a:b"]}]`}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		dir := t.TempDir()
		s := openStore(t, filepath.Join(dir, "store"))
		img, err := s.Import(t.Context(), bytes.NewReader(data), ImportOptions{Ref: "registry.example/fuzz:1"})
		if err == nil {
			for _, l := range img.Layers {
				if !filepath.IsLocal(l) || img.Base == "" {
					t.Fatalf("layer %q of %q", l, img.Base)
				}
			}
			if _, err := s.Resolve(t.Context(), "registry.example/fuzz:1"); err != nil {
				t.Fatal(err)
			}
		}
		if all := must(os.ReadDir(dir))(t); len(all) != 1 {
			t.Fatalf("outside of the store: %v", all)
		}
		for _, below := range []string{"tmp", "refs", "layers", "flists"} {
			all, lerr := os.ReadDir(filepath.Join(dir, "store", below))
			if lerr != nil && !errors.Is(lerr, fs.ErrNotExist) || len(all) > 0 && (err != nil || below == "tmp") {
				t.Fatalf("after %v, in %s: %v, %v", err, below, all, lerr)
			}
		}
	})
}

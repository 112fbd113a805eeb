package images

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/errs"
)

// How cosign keeps signatures: as images, found by a tag or as referrers of what they sign, whose layers are the signed
// documents.
const (
	cosignDocument   = "application/vnd.dev.cosign.simplesigning.v1+json"
	cosignAnnotation = "dev.cosignproject.cosign/signature"
	cosignReferrer   = "application/vnd.dev.cosign.artifact.sig.v1+json"
	maxSignatures    = 64 // that are looked at for one image
)

// signedImage is the key that signed the manifest with that digest, whose signature is asked for where images are.
func (c *registryContent) signedImage(ctx context.Context, r Reference, rule signature.Rule, digest string) (key string, err error) {
	if rule.Do != signature.Signed {
		return "", nil
	}
	why := errors.New("and it has none")
	err = c.each(ctx, func(e *endpoint) error {
		tagged, err := c.tagged(ctx, e, digest)
		if err != nil {
			return err
		}
		if key, err = c.check(ctx, e, r, rule, digest, tagged); err == nil {
			return nil
		}
		if !errors.Is(err, errs.Invalid) {
			return err
		}
		why = errors.New("but: " + err.Error())
		return err
	})
	switch {
	case err == nil:
		return key, nil
	case errors.Is(err, errs.Invalid), errors.Is(err, errs.NotFound):
		return "", errUnsigned(rule, why.Error())
	}
	return "", err
}

// tagged is the manifests of signatures, by tag, else as referrers.
func (c *registryContent) tagged(ctx context.Context, e *endpoint, digest string) (all [][]byte, err error) {
	any := func([]byte) error { return nil } // what is signed is judged, not what carries it
	raw, err := e.read(ctx, "manifests", strings.Replace(digest, ":", "-", 1)+".sig", maxManifest, any)
	if err == nil {
		return [][]byte{raw}, nil
	}
	if !errors.Is(err, errs.NotFound) {
		return nil, err
	}
	list, rerr := e.read(ctx, "referrers", digest, maxManifest, any)
	if rerr != nil {
		return nil, err // registries need not know referrers
	}
	var index v1.IndexManifest
	if json.Unmarshal(list, &index) != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if d.ArtifactType != cosignReferrer || len(all) == maxSignatures {
			continue
		}
		raw, err := e.read(ctx, "manifests", d.Digest.String(), maxManifest, func(data []byte) error { return verify(d, data) })
		if err != nil {
			return nil, err
		}
		all = append(all, raw)
	}
	if len(all) == 0 {
		return nil, err
	}
	return all, nil
}

// check is the key of the first signature that counts.
func (c *registryContent) check(ctx context.Context, e *endpoint, r Reference, rule signature.Rule, digest string, manifests [][]byte) (string, error) {
	why := errs.E(errs.Invalid, "what is there is no signature of cosign")
	for _, raw := range manifests {
		var doc document
		if err := json.Unmarshal(raw, &doc); err != nil {
			why = errs.E(errs.Invalid, "manifest of the signature: %w", err)
			continue
		}
		for _, l := range doc.Layers[:min(len(doc.Layers), maxSignatures)] {
			if l.MediaType != cosignDocument || checkDescriptor(r.text, l, maxSignature) != nil {
				continue
			}
			signed, err := e.read(ctx, "blobs", l.Digest.String(), maxSignature, func(data []byte) error { return verify(l, data) })
			if err != nil {
				return "", err
			}
			k, err := rule.Image(signed, []byte(l.Annotations[cosignAnnotation]), digest, r.policyName(), normalRepository)
			if err == nil {
				return k.ID, nil
			}
			why = err
		}
	}
	return "", why
}

// normalRepository spells what signatures name as policyName does.
func normalRepository(s string) string {
	r, err := parseRegistry(s)
	if err != nil {
		return ""
	}
	return r.policyName()
}

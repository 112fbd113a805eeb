package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

// A layer that is kept means something only above the image that it was begun
// on, wherever its reference has moved since. So the file remembers that image,
// and its layers are held for as long as the container exists.
func (n *Node) keptFile(name string) string { return filepath.Join(n.dataDir(name), "image.json") }

// image is what a start of the container runs on, held.
func (n *Node) image(ctx context.Context, b *box) (img images.Image, release func(), err error) {
	kept, have, err := n.keptImage(b)
	if err != nil {
		return img, nil, err
	}
	if have {
		if err := n.cfg.Images.Allowed(kept); err != nil {
			return img, nil, err
		}
		if release = n.cfg.Images.Hold(kept); whole(kept) {
			return kept, release, nil
		}
		release()
	}
	if img, release, err = n.present(ctx, b.spec.Image); err != nil || !b.spec.Keep {
		return img, release, err
	}
	if have && img.Digest != kept.Digest {
		release()
		return img, nil, errs.E(errs.Conflict, "the container keeps a layer above %s of image %q, which is not on this node any more, and the image is %s now: "+
			"bring the old one back, or delete the container", kept.Digest, b.spec.Image, img.Digest)
	}
	if img.Base == "" {
		return img, release, nil // a directory, which has no layers of its own to go back to
	}
	if err := n.keepImage(b, img); err != nil {
		release()
		return img, nil, err
	}
	return img, release, nil
}

// present is the image that a reference stands for on this node, held.
func (n *Node) present(ctx context.Context, ref string) (images.Image, func(), error) {
	for {
		img, err := n.cfg.Images.Ensure(ctx, ref)
		if err != nil {
			return img, nil, err
		}
		release := n.cfg.Images.Hold(img)
		if whole(img) {
			return img, release, nil
		}
		release() // it was removed before it was held; Ensure has it anew
		if ctx.Err() != nil {
			return img, nil, ctx.Err()
		}
	}
}

// keptImage is the image that the container's kept layer was begun on; false if
// there is no such layer yet.
func (n *Node) keptImage(b *box) (img images.Image, have bool, err error) {
	if !b.spec.Keep {
		return img, false, nil
	}
	if _, err := os.Stat(filepath.Join(n.dataDir(b.spec.Name), "upper")); err != nil {
		return img, false, nil //nolint:nilerr // a start without it begins it
	}
	raw, err := os.ReadFile(n.keptFile(b.spec.Name))
	if errors.Is(err, os.ErrNotExist) {
		return img, false, nil // an older buoyd began it, or it is above a directory
	}
	if err == nil {
		err = json.Unmarshal(raw, &img)
	}
	if err != nil {
		return img, false, fmt.Errorf("read what image the kept layer was begun on: %w", err)
	}
	return img, true, nil
}

// keepImage remembers the image of a kept layer, and holds it.
func (n *Node) keepImage(b *box, img images.Image) error {
	raw, err := json.Marshal(img)
	if err == nil {
		err = os.MkdirAll(n.dataDir(b.spec.Name), 0o755)
	}
	if err == nil {
		err = atomicfile.Write(n.keptFile(b.spec.Name), raw, 0o600)
	}
	if err != nil {
		return noSpace(err)
	}
	n.holdKept(b, img)
	return nil
}

func (n *Node) holdKept(b *box, img images.Image) {
	release := n.cfg.Images.Hold(img)
	before := get(b, func() func() { return b.kept })
	b.set(func() { b.kept = release })
	if before != nil {
		before()
	}
}

// dropKept lets go of the image of a container that is no more.
func (n *Node) dropKept(b *box) {
	if release := get(b, func() func() { return b.kept }); release != nil {
		release()
	}
}

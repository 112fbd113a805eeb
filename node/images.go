package node

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Images are the images that the node has.
func (n *Node) Images(ctx context.Context) ([]images.Image, error) { return n.cfg.Images.List(ctx) }

// PullImage fetches an image, or asks its source whether it is still the same.
func (n *Node) PullImage(ctx context.Context, ref string, progress func(images.Progress)) (images.Image, error) {
	return n.cfg.Images.Pull(ctx, ref, progress)
}

// RemoveImage removes an image. Conflict: containers start from it, and would have
// to fetch it anew. With force it goes all the same; layers that containers run on
// stay until those end.
func (n *Node) RemoveImage(ctx context.Context, ref string, force bool) error {
	if img, err := n.cfg.Images.Resolve(ctx, ref); err == nil && !force {
		if names := n.startFrom(img.Ref, img.Digest); len(names) > 0 {
			return errs.E(errs.Conflict, "%s from image %q: remove the container first, or force the removal", startText(names), img.Ref)
		}
	}
	return n.cfg.Images.Remove(ctx, ref)
}

// startFrom are the containers, also those that are halted, that start from an image.
func (n *Node) startFrom(ref, digest string) (names []string) {
	for _, b := range n.all() {
		if s := get(b, func() Spec { return b.spec }); calls(s.Image, ref, digest) {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

// fewNames are as many containers as a sentence names.
const fewNames = 5

func startText(names []string) string {
	switch more := len(names) - fewNames; {
	case len(names) == 1:
		return fmt.Sprintf("container %q starts", names[0])
	case more > 0:
		return fmt.Sprintf("containers %s and %d more start", strings.Join(names[:fewNames], ", "), more)
	}
	last := len(names) - 1
	return fmt.Sprintf("containers %s and %s start", strings.Join(names[:last], ", "), names[last])
}

// calls says whether a container that names its image so means ref, or its digest.
func calls(image, ref, digest string) bool {
	r, err := images.ParseRef(image)
	return err == nil && (r.String() == ref || digest != "" && strings.HasSuffix(r.String(), "@"+digest))
}

// PinImage keeps an image from being removed to make room, or no longer.
func (n *Node) PinImage(ctx context.Context, ref string, pinned bool) error {
	return n.cfg.Images.Pin(ctx, ref, pinned)
}

// ExportImage writes an image for ImportImage and other programs. begin is
// called once it is there and can be read.
func (n *Node) ExportImage(ctx context.Context, ref string, begin func(mediaType string) io.Writer) error {
	return n.cfg.Images.Export(ctx, ref, begin)
}

// ImportImage takes an image from a stream.
func (n *Node) ImportImage(ctx context.Context, r io.Reader, opt images.ImportOptions) (images.Image, error) {
	return n.cfg.Images.Import(ctx, r, opt)
}

// Login has the registry check a login, and keeps it for pulls.
func (n *Node) Login(ctx context.Context, registry, user, password string) error {
	return n.cfg.Images.Login(ctx, registry, user, password)
}

// Logout forgets a login.
func (n *Node) Logout(registry string) error { return n.cfg.Images.Logout(registry) }

// Logins are those that are kept.
func (n *Node) Logins() ([]images.Login, error) { return n.cfg.Images.Logins() }

// DiskUsage is what images take.
type DiskUsage struct {
	images.Usage
	Chunks     int // of flists, kept for those who read them again
	ChunkBytes int64
}

// ImageUsage is what images take on the node's disk.
func (n *Node) ImageUsage(ctx context.Context) (DiskUsage, error) {
	u, err := n.cfg.Images.Usage(ctx)
	if err != nil {
		return DiskUsage{}, err
	}
	s, err := n.cfg.Flists.Stats(ctx)
	return DiskUsage{Usage: u, Chunks: int(s.Chunks), ChunkBytes: s.Bytes}, err
}

// needs says whether a container, also one that is halted, needs an image: it
// must be able to start without a network.
func (n *Node) needs(ref, digest string) bool {
	for _, b := range n.all() {
		if digest != "" && get(b, func() string { return b.digest }) == digest {
			return true
		}
		if calls(get(b, func() string { return b.spec.Image }), ref, digest) {
			return true
		}
	}
	return false
}

// collectPace is how often a node looks whether its disk fills up by itself.
// Pulls look at once.
const collectPace = 5 * time.Minute

// collectImages removes what nothing needs when the disk gets full, until ctx
// ends.
func (n *Node) collectImages(ctx context.Context) {
	tick := time.NewTicker(collectPace)
	defer tick.Stop()
	full := n.watchDisk(ctx, false)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		done, err := n.cfg.Images.Collect(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			n.cfg.Log.Error("no room made on the disk", "error", err)
		}
		if len(done.Images) > 0 {
			n.cfg.Log.Info("images removed to make room", "images", done.Images, "bytes", done.Freed)
		}
		full = n.watchDisk(ctx, full)
	}
}

package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/flist/flistapi"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/lazy"
)

// root is what a start of the container runs on: the image, held, and for an
// flist of which not all is here the mount to read it from.
func (n *Node) root(ctx context.Context, b *box) (img images.Image, from *lazy.Request, release func(), err error) {
	img, release, err = n.image(ctx, b)
	if err != nil || img.Flist == "" {
		return img, nil, release, err
	}
	req := n.flistOf(b.spec, img)
	img.Config = n.askAgain(ctx, img, req)
	now, layered := n.layered(ctx, img)
	if way := n.lazyWay(b.spec); way != LazyNever && !layered {
		if way == LazyAuto {
			req.Prefetch = flistapi.PrefetchAll
		}
		unmount := n.unmounter(req.ID)
		if err := n.cfg.Flists.Mount(ctx, req); err != nil {
			unmount()
			return img, nil, release, err
		}
		return img, &req, both(unmount, release), nil
	}
	// Of a layer that is here this makes sure that set-id bits are as they shall be now.
	if now, err = n.materialise(ctx, img, req); err != nil {
		return img, nil, release, err
	}
	now.Config = img.Config
	return now, nil, both(n.cfg.Images.Hold(now), release), nil
}

// Inspector says what flists are, for the store of images.
func Inspector(f *lazy.Flists) func(ctx context.Context, file string) (images.RunConfig, images.FlistInfo, error) {
	return func(ctx context.Context, file string) (images.RunConfig, images.FlistInfo, error) {
		info, err := f.Inspect(ctx, file, nil)
		return runConfig(info.Config), images.FlistInfo{
			Era: info.Era, Files: info.Files, Bytes: info.Bytes, Chunks: info.Chunks, ChunkBytes: info.ChunkBytes,
			Backend: info.Backend, Warning: info.Warning,
		}, err
	}
}

func runConfig(c *flistapi.Config) images.RunConfig {
	if c == nil {
		return images.RunConfig{}
	}
	return images.RunConfig{
		Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal,
		Volumes: c.Volumes, ExposedPorts: c.Ports, Labels: c.Labels,
	}
}

// askAgain is an flist's configuration when it came without: it is in a file,
// and perhaps the container names the store that has it.
func (n *Node) askAgain(ctx context.Context, img images.Image, req lazy.Request) images.RunConfig {
	if img.About == nil || img.About.Warning == "" {
		return img.Config
	}
	info, err := n.cfg.Flists.Inspect(ctx, req.File, req.Stores)
	if err != nil || info.Config == nil {
		n.cfg.Log.Warn("flist runs without its configuration", "image", img.Ref, "reason", info.Warning, "error", err)
		return img.Config
	}
	return runConfig(info.Config)
}

// layered is an flist that has been made a layer, if it has been.
func (n *Node) layered(ctx context.Context, img images.Image) (images.Image, bool) {
	now, err := n.cfg.Images.Resolve(ctx, img.Ref)
	if err != nil || now.Digest != img.Digest || len(now.Layers) == 0 || !whole(now) {
		return img, false
	}
	return now, true
}

func both(f, g func()) func() {
	return func() {
		f()
		g()
	}
}

// lazyWay is how the container's flist is used. Its ids cannot be mapped while
// it is mounted by FUSE, so with a user namespace all of it comes first.
func (n *Node) lazyWay(s Spec) Lazy {
	if s.Run.UserNS {
		return LazyNever
	}
	return cmp.Or(s.Lazy, n.cfg.Lazy, LazyAuto)
}

// flistOf is the mount that the container and those like it share.
func (n *Node) flistOf(s Spec, img images.Image) lazy.Request {
	req := lazy.Request{File: filepath.Join(img.Base, img.Flist), Digest: strings.TrimPrefix(img.Digest, "sha256:"), Prefetch: flistapi.PrefetchRecorded}
	if s.Storage != "" {
		req.Stores = []string{s.Storage}
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{img.Digest, s.Storage, string(n.lazyWay(s))}, "\n")))
	req.ID = hex.EncodeToString(sum[:8])
	return req
}

// unmounter takes back one use of a mount, in the background.
func (n *Node) unmounter(id string) func() {
	return func() {
		n.background(func(ctx context.Context) {
			ctx, cancel := aside(ctx)
			defer cancel()
			if err := n.cfg.Flists.Release(ctx, id); err != nil {
				n.cfg.Log.Error("mount of an flist not removed", "mount", id, "error", err)
			}
		})
	}
}

// useAgain takes over the mount that a container runs from.
func (n *Node) useAgain(ctx context.Context, l launch) (release func()) {
	layer := ""
	release = n.unmounter(l.From.ID)
	if now, ok := n.layered(ctx, l.Image); ok {
		layer = filepath.Join(now.Base, now.Layers[0])
		release = both(release, n.cfg.Images.Hold(now))
	}
	n.cfg.Flists.Use(*l.From, layer)
	return release
}

// materialise brings all of an flist here, as a layer like any other.
func (n *Node) materialise(ctx context.Context, img images.Image, req lazy.Request) (images.Image, error) {
	suffix := ""
	if n.cfg.Flists.DropSuid() {
		suffix = "nosuid"
	}
	return n.cfg.Images.Materialise(ctx, img, suffix, func(ctx context.Context, dir string) error {
		return n.cfg.Flists.Unpack(ctx, req, dir, nil)
	})
}

// Complete makes a layer of an flist that has been fetched while
// containers ran from it. Their files come from the layer then, and the next
// start needs no mount.
func (n *Node) Complete(id string) {
	n.background(func(ctx context.Context) {
		b := n.readerOf(id)
		if b == nil {
			return
		}
		img, from := get(b, func() images.Image { return b.image }), get(b, func() *lazy.Request { return b.from })
		if from == nil || from.Prefetch != flistapi.PrefetchAll {
			return
		}
		layer, err := n.materialise(ctx, img, *from)
		if err == nil {
			n.holdLayer(id, layer)
			err = n.cfg.Flists.SetLayer(ctx, id, filepath.Join(layer.Base, layer.Layers[0]))
		}
		if err != nil && ctx.Err() == nil {
			n.cfg.Log.Warn("flist stays mounted: it could not be made a layer", "image", img.Ref, "error", err)
		}
	})
}

// alreadyComplete is Complete for a mount that all of was here before the container was known to run from it.
func (n *Node) alreadyComplete(from *lazy.Request) {
	if from == nil {
		return
	}
	if s, _ := n.cfg.Flists.Status(from.ID); s.Complete {
		n.Complete(from.ID)
	}
}

// Lost restarts what ran from a mount that cannot go on.
func (n *Node) Lost(id string, why error) {
	for _, b := range n.all() {
		if from := get(b, func() *lazy.Request { return b.from }); from == nil || from.ID != id {
			continue
		}
		n.background(func(ctx context.Context) {
			if !n.hold(ctx, b) {
				return
			}
			defer b.unlock()
			status := get(b, func() Status { return b.status })
			from := get(b, func() *lazy.Request { return b.from })
			if status != Running && status != Standby || from == nil || from.ID != id {
				return
			}
			n.again(events.ByItself(ctx, "flist"), b, reasonImageLost, fmt.Errorf("its flist could not be read any more: %w", why))
		})
	}
}

// holdLayer keeps the layer that a mount is read from as long as anything runs
// from the mount.
func (n *Node) holdLayer(id string, layer images.Image) {
	for _, b := range n.all() {
		b.set(func() {
			if b.from != nil && b.from.ID == id && b.release != nil {
				b.release = both(n.cfg.Images.Hold(layer), b.release)
			}
		})
	}
}

// blameFlist is why a start has failed, if it is that something of the flist
// could not be read.
func (n *Node) blameFlist(ctx context.Context, from *lazy.Request, begun time.Time, err error) error {
	if from == nil {
		return err
	}
	ctx, cancel := aside(ctx)
	defer cancel()
	if e, ok := n.cfg.Flists.Failed(ctx, from.ID); ok && e.Time.After(begun) {
		return errs.E(errs.Unavailable, "%s of its flist cannot be read: %s", e.Path, e.Message)
	}
	return err
}

// forgetFlists removes what was recorded of flists that are not on the node.
func (n *Node) forgetFlists(ctx context.Context) error {
	all, err := n.cfg.Images.List(ctx)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, img := range all {
		have[strings.TrimPrefix(img.Digest, "sha256:")] = true
	}
	return n.cfg.Flists.Forget(func(digest string) bool { return have[digest] })
}

// readerOf is a container that runs from a mount.
func (n *Node) readerOf(id string) *box {
	for _, b := range n.all() {
		if from := get(b, func() *lazy.Request { return b.from }); from != nil && from.ID == id {
			return b
		}
	}
	return nil
}

// fetched is how far the flist has come that a container runs from.
func (n *Node) fetched(b *box) *Fetch {
	from := get(b, func() *lazy.Request { return b.from })
	if from == nil {
		return nil
	}
	s, ok := n.cfg.Flists.Status(from.ID)
	if !ok {
		return &Fetch{}
	}
	f := &Fetch{Done: s.Fetched, Total: s.Total, Complete: s.Complete}
	if e := s.LastError; e != nil && !s.Complete {
		f.Path, f.Error, f.Failed = e.Path, e.Message, e.Time
	}
	return f
}

// Chunk is a chunk of an flist that is on this node, as a chunk store has it.
func (n *Node) Chunk(ctx context.Context, id string) ([]byte, error) {
	return n.cfg.Flists.Chunk(ctx, id)
}

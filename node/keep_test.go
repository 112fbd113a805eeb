package node

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

// archive writes an image of one file.
func archive(t *testing.T, path, text string) {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err := errors.Join(err, w.Close(), os.WriteFile(path, buf.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestKeptLayerKeepsItsImage moves a reference on, under one container that
// keeps its layer and one that does not.
func TestKeptLayerKeepsItsImage(t *testing.T) {
	n, _ := newNode(t)
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "image.tar")
	archive(t, path, "old")
	for _, name := range []string{"kept", "new"} {
		s := n.spec(name)
		s.Image, s.Keep = path, name == "kept"
		if err := n.Create(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	digest := func(name string) string {
		c, err := n.Container(name)
		if err != nil {
			t.Fatal(err)
		}
		return c.Digest
	}
	layers := func() int {
		found, err := filepath.Glob(filepath.Join(n.cfg.Data, "images/layers/*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	was := digest("kept")
	archive(t, path, "another one")
	if _, err := n.PullImage(ctx, path, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kept", "new"} {
		if err := n.Restart(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if digest("kept") != was || digest("new") == was {
		t.Errorf("kept runs on %s, new on %s; the old image was %s", digest("kept"), digest("new"), was)
	}
	// Nothing takes the old image away: not a prune while it is stopped, not the next daemon's.
	if err := n.Stop(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	if n.prune(ctx); layers() != 2 {
		t.Errorf("%d layers on the node, want the old and the new one", layers())
	}
	if err := n.Start(ctx, "kept"); err != nil || digest("kept") != was {
		t.Errorf("started again: %v, on %s", err, digest("kept"))
	}
	b, _ := n.find("kept")
	if got, have, err := n.keptImage(b); err != nil || !have || got.Digest != was {
		t.Errorf("what the next daemon holds: %+v, %v, %v", got, have, err)
	}
	if err := n.Delete(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	if layers() != 1 {
		t.Errorf("%d layers are left when the container is gone, want the new one", layers())
	}
}

// TestKeptImageIsGone has lost the layers that a kept one was begun on.
func TestKeptImageIsGone(t *testing.T) {
	n, _ := newNode(t)
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "image.tar")
	archive(t, path, "old")
	s := n.spec("kept")
	s.Image, s.Keep = path, true
	if err := n.Create(ctx, s); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	b, _ := n.find("kept")
	img, _, err := n.keptImage(b)
	if err != nil {
		t.Fatal(err)
	}
	write := func() {
		raw, err := json.Marshal(img)
		if err := errors.Join(err, os.WriteFile(n.keptFile("kept"), raw, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	img.Layers = []string{"elsewhere"} // a copy of the data on another machine
	write()
	if err := n.Start(ctx, "kept"); err != nil {
		t.Errorf("the reference is the same image: %v", err)
	}
	if err := n.Stop(ctx, "kept"); err != nil {
		t.Fatal(err)
	}
	img.Digest = "sha256:0000"
	write()
	if err := n.Start(ctx, "kept"); !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "sha256:0000") {
		t.Errorf("the image under the kept layer is gone: %v", err)
	}
}

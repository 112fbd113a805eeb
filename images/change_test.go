package images

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestChangesAreTold(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, layerOf(t, map[string]string{"a": "b"})))
	s := openStore(t, t.TempDir())
	s.tune.minAge = 0
	s.Protect(func(string, string) bool { return false })
	var mu sync.Mutex
	var got []string
	s.Tell(func(_ context.Context, c Change) {
		mu.Lock()
		defer mu.Unlock()
		text := string(c.Kind) + " " + c.Ref
		if (c.Err != nil) != (c.Kind == ChangeFailed) || c.Digest == "" && c.Kind != ChangeFailed && c.Kind != ChangeRemoved {
			t.Errorf("%+v", c)
		}
		got = append(got, text)
	})
	wants := func(what string, want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", what, diff)
		}
		got = nil
	}

	img := must(s.Pull(t.Context(), ref, nil))(t)
	must(s.Pull(t.Context(), ref, nil))(t)
	wants("two pulls", "pulled "+img.Ref)
	none := strings.Replace(ref, "app", "none", 1)
	if _, err := s.Pull(t.Context(), none, nil); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	wants("a pull of nothing", "failed "+none+":latest")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Pull(ended, none, nil); err == nil {
		t.Error("a pull that nobody waits for worked")
	}
	wants("a pull that is given up")

	for _, pinned := range []bool{true, true, false} {
		if err := s.Pin(t.Context(), ref, pinned); err != nil {
			t.Error(err)
		}
	}
	wants("pins", "pinned "+img.Ref, "unpinned "+img.Ref)

	file := filepath.Join(t.TempDir(), "image.tar")
	out, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := s.Export(t.Context(), ref, func(string) io.Writer { return out }); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	wants("a removal", "removed "+img.Ref)
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	must(s.Import(t.Context(), out, ImportOptions{Ref: ref}))(t)
	if _, err := s.Import(t.Context(), strings.NewReader("x"), ImportOptions{Ref: ref}); err == nil {
		t.Error("an import of nothing worked")
	}
	wants("imports", "imported "+img.Ref, "failed "+ref)

	s.cfg.Reserve = 1 << 62
	if short, err := s.Short(); err != nil || short <= 0 {
		t.Errorf("Short = %d, %v", short, err)
	}
	if _, err := s.Collect(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	wants("a collection", "collected "+img.Ref)
}

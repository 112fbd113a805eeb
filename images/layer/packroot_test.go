package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// packedRoot is what PackRoot writes of dir: names, with contents or links.
func packedRoot(t *testing.T, dir string, owner int) map[string]string {
	t.Helper()
	top, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	var out bytes.Buffer
	if err := PackRoot(t.Context(), &out, top, owner); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(text) + h.Linkname
		if h.Uid != os.Getuid()-owner {
			t.Errorf("%s belongs to %d", h.Name, h.Uid)
		}
	}
}

func TestPackRoot(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(
		os.Mkdir(dir+"/sub", 0o755),
		os.WriteFile(dir+"/sub/a", []byte("text"), 0o600),
		os.WriteFile(dir+"/.wh.a", []byte("no whiteout"), 0o600),
		os.Link(dir+"/sub/a", dir+"/sub/b"),
		os.Symlink("/etc/passwd", dir+"/link"),
	); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"./": "", "sub/": "", "sub/a": "text", "sub/b": "sub/a", ".wh.a": "no whiteout", "link": "/etc/passwd"}
	if d := cmp.Diff(want, packedRoot(t, dir, os.Getuid())); d != "" {
		t.Error(d)
	}
}

// TestPackRootChanging: whoever turns files into links and directories while they are packed gets nothing of the host's
// into the archive, and does not keep it from being made.
func TestPackRootChanging(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for i := range 4 {
		name := fmt.Sprint(dir, "/", i)
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				_ = os.RemoveAll(name)
				switch n % 4 { // what fails, fails: the next round is another
				case 0:
					_ = os.WriteFile(name, bytes.Repeat([]byte("x"), 100_000), 0o600)
					_ = os.Truncate(name, 10)
				case 1:
					_ = os.Symlink(secret, name)
				case 2:
					_ = os.Symlink(filepath.Dir(secret), name)
				case 3:
					_ = os.MkdirAll(name+"/deep/er", 0o700)
				}
			}
		})
	}
	for range 500 {
		for name, text := range packedRoot(t, dir, 0) {
			if strings.Contains(text, "secret") && !strings.HasPrefix(text, filepath.Dir(filepath.Dir(secret))) {
				t.Fatalf("%s has %q", name, text)
			}
		}
	}
}

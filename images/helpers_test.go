package images

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/buoy-edge/buoy/internal/seal"
)

// faulty is a registry that misbehaves when told to, and counts.
type faulty struct {
	host string

	mu    sync.Mutex // guards all below
	hits  map[string]int
	fault func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter // nil answer: handled
}

func newRegistry(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{hits: map[string]int{}}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		key := r.Method + " " + r.URL.Path
		f.hits[key]++
		n, fault := f.hits[key], f.fault
		f.mu.Unlock()
		if fault != nil {
			if w = fault(w, r, n); w == nil {
				return
			}
		}
		inner.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	f.host = srv.Listener.Addr().String()
	return f
}

func (f *faulty) set(fault func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
	clear(f.hits)
}

// count is how often a path with that part was asked for with GET.
func (f *faulty) count(part string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, c := range f.hits {
		if strings.HasPrefix(k, "GET ") && strings.Contains(k, part) {
			n += c
		}
	}
	return n
}

func (f *faulty) push(t *testing.T, repo string, img v1.Image) string {
	t.Helper()
	ref := f.host + "/" + repo
	if err := remote.Write(must(name.ParseReference(ref))(t), img); err != nil {
		t.Fatal(err)
	}
	return ref
}

// cutWriter drops the connection after left bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	_, _ = c.ResponseWriter.Write(p[:n])
	if c.left -= n; c.left <= 0 {
		if fl, ok := c.ResponseWriter.(http.Flusher); ok {
			fl.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// tarOf makes a tar of files; a name that ends in / is a folder. Owned by whoever runs the test, so no root is needed.
func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: n, Mode: 0o644, Size: int64(len(files[n])), Uid: os.Getuid(), Gid: os.Getgid(), Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0)}
		if strings.HasSuffix(n, "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[n])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func layerOf(t testing.TB, files map[string]string) v1.Layer {
	t.Helper()
	data := tarOf(t, files)
	return must(tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }))(t)
}

// imageOf is an image for this machine with those layers, bottom first.
func imageOf(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	return imageFor(t, hostPlatform(), layers...)
}

func imageFor(t testing.TB, p v1.Platform, layers ...v1.Layer) v1.Image {
	t.Helper()
	img := must(mutate.AppendLayers(empty.Image, layers...))(t)
	cf := must(img.ConfigFile())(t).DeepCopy()
	cf.OS, cf.Architecture, cf.Variant = p.OS, p.Architecture, p.Variant
	cf.Created = v1.Time{Time: time.Unix(1e9, 0).UTC()}
	cf.Config = v1.Config{
		Env: []string{"A=b"}, Cmd: []string{"/bin/app"}, Entrypoint: []string{"/init"}, WorkingDir: "/srv",
		User: "1:2", StopSignal: "SIGINT", Labels: map[string]string{"k": "v"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}}, Volumes: map[string]struct{}{"/data": {}},
	}
	return must(mutate.ConfigFile(img, cf))(t)
}

// noise is n bytes that do not compress.
func noise(n int) string {
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return string(b)
}

func openStore(t testing.TB, dir string, change ...func(*Config)) *Store {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: dir, AuthFile: empty, Keys: seal.Load(filepath.Join(dir, "key"), true)}
	for _, c := range change {
		c(&cfg)
	}
	s := must(Open(cfg))(t)
	s.tune.backoff, s.tune.stall, s.tune.maxWait = 5*time.Millisecond, time.Second, 3*time.Second
	return s
}

// content is what the stack of layers shows of name: the topmost file.
func contentOf(t testing.TB, img Image, name string) string {
	t.Helper()
	for _, l := range img.Layers {
		if data, err := os.ReadFile(filepath.Join(img.Base, l, name)); err == nil {
			return string(data)
		}
	}
	return ""
}

// wantClean: nothing but what the images need is left.
func wantClean(t testing.TB, s *Store) {
	t.Helper()
	if left := must(os.ReadDir(s.tmpDir()))(t); len(left) > 0 {
		t.Errorf("tmp holds %v", left)
	}
	want := map[string]bool{}
	for _, img := range must(s.List(context.Background()))(t) {
		for _, l := range img.Layers {
			want[l], want[l+".json"] = true, true
		}
	}
	for _, e := range must(os.ReadDir(s.layersDir()))(t) {
		if !want[e.Name()] {
			t.Errorf("layers holds %s, which no image needs", e.Name())
		}
		delete(want, e.Name())
	}
	if len(want) > 0 {
		t.Errorf("layers misses %v", want)
	}
}

func layerDigests(t testing.TB, img v1.Image) (all []string) {
	t.Helper()
	for _, l := range must(img.Layers())(t) {
		all = append(all, must(l.Digest())(t).String())
	}
	return all
}

func isBlob(r *http.Request, digest string) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+digest)
}

func status(w http.ResponseWriter, code int, header ...string) http.ResponseWriter {
	for i := 0; i+1 < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(code)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":"TEST","message":"as told"}]}`)
	return nil
}

func appendLayer(t testing.TB, img v1.Image, files map[string]string) v1.Image {
	t.Helper()
	return must(mutate.AppendLayers(img, layerOf(t, files)))(t)
}

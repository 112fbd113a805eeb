package images

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

// inspector stands for the reader of flists; what begins with "bad" it refuses.
type inspector struct {
	asked atomic.Int32
	warn  atomic.Bool
}

func (i *inspector) inspect(_ context.Context, file string) (RunConfig, FlistInfo, error) {
	i.asked.Add(1)
	data, err := os.ReadFile(file)
	if err != nil {
		return RunConfig{}, FlistInfo{}, err
	}
	if strings.HasPrefix(string(data), "bad") {
		return RunConfig{}, FlistInfo{}, errs.E(errs.Invalid, "flist is of era A, which is not read")
	}
	info := FlistInfo{Era: "D", Files: 3, Bytes: int64(len(data)), ChunkBytes: 10}
	if i.warn.Load() {
		info.Warning = "store does not answer"
		return RunConfig{}, info, nil
	}
	return RunConfig{Cmd: []string{"/bin/sh"}, Env: []string{"A=b"}}, info, nil
}

func openFlists(t *testing.T, dir string, change ...func(*Config)) (*Store, *inspector) {
	t.Helper()
	i := new(inspector)
	return openStore(t, dir, append(change, func(c *Config) { c.Inspect = i.inspect })...), i
}

// flistServer serves files and counts what it gave.
type flistServer struct {
	*httptest.Server
	mu    sync.Mutex // guards all below
	files map[string]string
	plain bool // no ETag
	gave  map[string]int
}

func newFlistServer(t *testing.T) *flistServer {
	s := &flistServer{files: map[string]string{}, gave: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		data, ok := s.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		tag := fmt.Sprintf("%q", md5Hex(data))
		if !s.plain {
			w.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		s.gave[r.URL.Path] += len(data)
		_, _ = w.Write([]byte(data))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *flistServer) put(path, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = data
	clear(s.gave)
}

func (s *flistServer) bytes(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gave[path]
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func flistOf(t *testing.T, img Image) string {
	t.Helper()
	return string(must(os.ReadFile(filepath.Join(img.Base, img.Flist)))(t))
}

// wantFlists: those files are kept and no others.
func wantFlists(t *testing.T, s *Store, n int) {
	t.Helper()
	if names := must(os.ReadDir(s.flistsDir()))(t); len(names) != n {
		t.Errorf("flists holds %v, want %d files", names, n)
	}
	if left := must(os.ReadDir(s.tmpDir()))(t); len(left) > 0 {
		t.Errorf("tmp holds %v", left)
	}
}

func TestFlistFile(t *testing.T) {
	dir := t.TempDir()
	s, ins := openFlists(t, dir)
	path := writeFile(t, filepath.Join(t.TempDir(), "x.flist"), []byte("one"))
	img := must(s.Pull(t.Context(), path, nil))(t)
	if flistOf(t, img) != "one" || len(img.Layers) != 0 || img.About.Files != 3 || img.Config.Cmd[0] != "/bin/sh" || img.Size != 3 {
		t.Errorf("%+v", img)
	}
	twin := writeFile(t, filepath.Join(t.TempDir(), "y.fl"), []byte("one"))
	must(s.Pull(t.Context(), twin, nil))(t)
	must(s.Pull(t.Context(), path, nil))(t)
	if n := ins.asked.Load(); n != 1 {
		t.Errorf("asked %d times for one content", n)
	}
	wantFlists(t, s, 1)
	s, _ = openFlists(t, dir)
	if d := cmp.Diff(img, must(s.Resolve(t.Context(), path))(t)); d != "" {
		t.Errorf("after a restart (-want +got):\n%s", d)
	}
	release := s.Hold(img)
	writeFile(t, path, []byte("two"))
	now := must(s.Pull(t.Context(), path, nil))(t)
	if flistOf(t, now) != "two" || flistOf(t, img) != "one" {
		t.Error("the new content did not come, or took the held one")
	}
	if err := s.Remove(t.Context(), twin); err != nil {
		t.Fatal(err)
	}
	wantFlists(t, s, 2)
	release()
	wantFlists(t, s, 1)
	if err := s.Remove(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	wantFlists(t, s, 0)
	must(s.Pull(t.Context(), twin, nil))(t)
	if err := os.WriteFile(s.flistFile("../flists/stray"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if freed := must(s.Prune(t.Context(), nil))(t); freed != 1 {
		t.Errorf("Prune freed %d, want the stray byte", freed)
	}
	wantFlists(t, s, 1)
}

func TestFlistRefused(t *testing.T) {
	s, _ := openFlists(t, t.TempDir())
	dir := t.TempDir()
	good := writeFile(t, filepath.Join(dir, "x.flist"), []byte("one"))
	must(s.Pull(t.Context(), good, nil))(t)
	writeFile(t, good, []byte("bad"))
	_, err := s.Pull(t.Context(), good, nil)
	wantErr(t, err, errs.Invalid, "era A")
	if img := must(s.Resolve(t.Context(), good))(t); flistOf(t, img) != "one" {
		t.Error("a refused flist took the place of the old one")
	}
	wantFlists(t, s, 1)
	_, err = s.Pull(t.Context(), filepath.Join(dir, "none.fl"), nil)
	wantErr(t, err, errs.NotFound, "none.fl")
	if err := os.Mkdir(filepath.Join(dir, "d.flist"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), filepath.Join(dir, "d.flist"), nil)
	wantErr(t, err, errs.Invalid, "regular file")
	s.tune.maxFlist = 2
	_, err = s.Pull(t.Context(), good, nil)
	wantErr(t, err, errs.Invalid, "allowed 2 bytes")
	_, err = openStore(t, t.TempDir()).Pull(t.Context(), good, nil)
	wantErr(t, err, errs.Invalid, "not supported by this node")
	wantFlists(t, s, 1)
}

func TestFlistURL(t *testing.T) {
	for _, companion := range []bool{false, true} {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("companion=%v,etag=%v", companion, !plain), func(t *testing.T) {
				srv := newFlistServer(t)
				srv.plain = plain
				set := func(data string) {
					if companion {
						srv.put("/u/x.flist.md5", md5Hex(data)+"  x.flist\n")
					}
					srv.put("/u/x.flist", data)
				}
				set("one")
				s, ins := openFlists(t, t.TempDir(), func(c *Config) { c.Hub = srv.URL + "/" })
				img := must(s.Pull(t.Context(), "hub:u/x", nil))(t)
				if flistOf(t, img) != "one" || img.Ref != "hub:u/x.flist" {
					t.Errorf("%+v", img)
				}
				set("one")
				must(s.Pull(t.Context(), "hub:u/x", nil))(t)
				if n := srv.bytes("/u/x.flist"); n > 0 && (companion || !plain) {
					t.Errorf("%d bytes transferred though nothing changed", n)
				}
				set("two")
				if img := must(s.Pull(t.Context(), "hub:u/x.flist", nil))(t); flistOf(t, img) != "two" {
					t.Error("the new version did not come")
				}
				must(s.Pull(t.Context(), srv.URL+"/u/x.flist", nil))(t)
				if n := ins.asked.Load(); n != 2 {
					t.Errorf("asked %d times for two contents", n)
				}
				wantFlists(t, s, 1)
			})
		}
	}
}

func TestFlistCompanionDisagrees(t *testing.T) {
	srv := newFlistServer(t)
	srv.put("/x.fl", "one")
	srv.put("/x.fl.md5", md5Hex("other"))
	s, _ := openFlists(t, t.TempDir())
	_, err := s.Pull(t.Context(), srv.URL+"/x.fl", nil)
	wantErr(t, err, errs.Unavailable, md5Hex("one"), md5Hex("other"), "x.fl.md5")
	wantFlists(t, s, 0)
	srv.put("/x.fl.md5", "<html>no such thing</html>")
	must(s.Pull(t.Context(), srv.URL+"/x.fl", nil))(t)
	srv.put("/x.fl", "bad")
	_, err = s.Pull(t.Context(), srv.URL+"/x.fl", nil)
	wantErr(t, err, errs.Invalid, "era A")
	_, err = s.Pull(t.Context(), srv.URL+"/y.fl", nil)
	wantErr(t, err, errs.NotFound, "/y.fl")
	_, err = s.Pull(t.Context(), "hub:a/b", nil)
	wantErr(t, err, errs.Unavailable)
	wantFlists(t, s, 1)
}

func TestFlistAskedAgain(t *testing.T) {
	srv := newFlistServer(t)
	srv.put("/x.fl", "one")
	s, ins := openFlists(t, t.TempDir())
	local := writeFile(t, filepath.Join(t.TempDir(), "x.fl"), []byte("one"))
	ins.warn.Store(true)
	for _, ref := range []string{local, srv.URL + "/x.fl"} {
		if img := must(s.Pull(t.Context(), ref, nil))(t); img.About.Warning == "" {
			t.Errorf("%s: no warning", ref)
		}
	}
	ins.warn.Store(false)
	for _, ref := range []string{local, srv.URL + "/x.fl"} {
		if img := must(s.Pull(t.Context(), ref, nil))(t); img.About.Warning != "" || len(img.Config.Cmd) == 0 {
			t.Errorf("%s: %+v", ref, img.About)
		}
	}
}

func TestMaterialise(t *testing.T) {
	dir := t.TempDir()
	s, _ := openFlists(t, dir)
	a := writeFile(t, filepath.Join(t.TempDir(), "a.fl"), []byte("one"))
	b := writeFile(t, filepath.Join(t.TempDir(), "b.fl"), []byte("one"))
	img := must(s.Pull(t.Context(), a, nil))(t)
	must(s.Pull(t.Context(), b, nil))(t)
	broken := errors.New("store is down")
	_, err := s.Materialise(t.Context(), img, "", func(_ context.Context, dir string) error {
		writeFile(t, filepath.Join(dir, "half"), []byte("x"))
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("Materialise = %v", err)
	}
	wantFlists(t, s, 1)

	var builds atomic.Int32
	build := func(_ context.Context, dir string) error {
		builds.Add(1)
		return errors.Join(os.WriteFile(filepath.Join(dir, "f"), []byte("hello"), 0o600), os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "g")))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Materialise(t.Context(), img, "", build); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("built %d times", n)
	}
	again, _ := openFlists(t, dir)
	for _, store := range []*Store{s, again} {
		for _, ref := range []string{a, b} {
			got := must(store.Resolve(t.Context(), ref))(t)
			if len(got.Layers) != 1 || contentOf(t, got, "f") != "hello" || flistOf(t, got) != "one" || got.Size != 8 {
				t.Errorf("%s: %+v", ref, got)
			}
		}
	}
	whole := must(s.Materialise(t.Context(), img, "nosuid", build))(t)
	if n := builds.Load(); n != 2 || len(must(os.ReadDir(s.layersDir()))(t)) != 2 {
		t.Errorf("%d builds; the layer of the other policy is still there", n)
	}
	wantClean(t, s)
	release := s.Hold(whole)
	for _, ref := range []string{a, b} {
		if err := s.Remove(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if contentOf(t, whole, "g") != "hello" {
		t.Error("a held layer is gone")
	}
	release()
	wantClean(t, s)
	wantFlists(t, s, 0)

	_, err = s.Materialise(t.Context(), Image{Ref: "x"}, "", build)
	wantErr(t, err, errs.Invalid, "not an flist")
	img = must(s.Pull(t.Context(), a, nil))(t)
	img.About.ChunkBytes = 1 << 60
	_, err = s.Materialise(t.Context(), img, "", build)
	wantErr(t, err, errs.Unavailable, "needs at least")
}

func TestMaterialisedLayerLost(t *testing.T) {
	dir := t.TempDir()
	s, _ := openFlists(t, dir)
	ref := writeFile(t, filepath.Join(t.TempDir(), "a.fl"), []byte("one"))
	img := must(s.Pull(t.Context(), ref, nil))(t)
	build := func(_ context.Context, dir string) error { return os.WriteFile(filepath.Join(dir, "f"), nil, 0o600) }
	img = must(s.Materialise(t.Context(), img, "", build))(t)
	if err := os.RemoveAll(filepath.Join(img.Base, img.Layers[0])); err != nil {
		t.Fatal(err)
	}
	s, _ = openFlists(t, dir)
	if got := must(s.Resolve(t.Context(), ref))(t); len(got.Layers) != 0 || flistOf(t, got) != "one" {
		t.Errorf("%+v", got)
	}
	if err := os.Remove(filepath.Join(img.Base, img.Flist)); err != nil {
		t.Fatal(err)
	}
	s, _ = openFlists(t, dir)
	if _, err := s.Resolve(t.Context(), ref); !errors.Is(err, errs.NotFound) {
		t.Errorf("an flist without its file: %v", err)
	}
}

// TestFlistFifo: what is no file is refused and not waited for.
func TestFlistFifo(t *testing.T) {
	s, _ := openFlists(t, t.TempDir())
	fifo := filepath.Join(t.TempDir(), "x.flist")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Pull(t.Context(), fifo, nil)
	wantErr(t, err, errs.Invalid)
}

// TestNamelessFlist: an flist is not taken for the archive that it also is.
func TestNamelessFlist(t *testing.T) {
	s, _ := openFlists(t, t.TempDir())
	for name, data := range map[string][]byte{
		".flist": pipe(t, tarOf(t, map[string]string{"flistdb.sqlite3": "SQLite format 3\x00"}), "gzip"),
		".fl":    []byte("SQLite format 3\x00 and so on"),
	} {
		file := filepath.Join(t.TempDir(), "nameless")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Pull(t.Context(), file, nil)
		wantErr(t, err, errs.Invalid)
		if err != nil && !strings.Contains(err.Error(), "a name that ends in "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if layers, err := os.ReadDir(s.layersDir()); err != nil || len(layers) > 0 {
		t.Errorf("left in the store: %v, %v", layers, err)
	}
}

package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestDirectoryIsUsedInPlace(t *testing.T) {
	s, dir := openStore(t, t.TempDir()), t.TempDir()
	for _, get := range []func() (Image, error){
		func() (Image, error) { return s.Resolve(t.Context(), dir) },
		func() (Image, error) { return s.Pull(t.Context(), "file://"+dir, nil) },
	} {
		img, err := get()
		if err != nil || img.Base != "" || len(img.Layers) != 1 || img.Layers[0] != dir || img.Digest != "" {
			t.Errorf("%+v, %v", img, err)
		}
		s.Hold(img)()
	}
	if all := must(s.List(t.Context()))(t); len(all) != 0 {
		t.Errorf("List = %v, want nothing", all)
	}
	_, err := s.Pull(t.Context(), dir+"/missing", nil)
	wantErr(t, err, errs.NotFound, "missing")
	_, err = s.Pull(t.Context(), "/dev/null", nil)
	wantErr(t, err, errs.Invalid, "regular")
	_, err = s.Pull(t.Context(), "docker-archive:"+dir, nil)
	wantErr(t, err, errs.Invalid, "is a directory")
}

// pipe runs data through a program of the system; the test is skipped without it.
func pipe(t *testing.T, data []byte, prog string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(prog); err != nil {
		t.Skipf("SKIPPED: no %s", prog)
	}
	cmd := exec.Command(prog, args...)
	cmd.Stdin = bytes.NewReader(data)
	return must(cmd.Output())(t)
}

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRootfsArchives(t *testing.T) {
	// A file called manifest.json, and a name that would be a whiteout in an OCI layer, are plain files here.
	plain := tarOf(t, map[string]string{"./": "", "bin/": "", "bin/app": "hello", "manifest.json": "[]", "bin/.wh.x": "kept"})
	for name, prog := range map[string][]string{"tar": {"cat"}, "tar.gz": {"gzip"}, "tar.zst": {"zstd", "-c"}, "tar.xz": {"xz", "-c"}, "tar.bz2": {"bzip2", "-c"}} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, filepath.Join(t.TempDir(), "no-telling-name"), pipe(t, plain, prog[0], prog[1:]...))
			s := openStore(t, t.TempDir())
			img, err := s.Pull(t.Context(), path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if contentOf(t, img, "bin/app") != "hello" || contentOf(t, img, "bin/.wh.x") != "kept" || len(img.Layers) != 1 {
				t.Errorf("layers %v", img.Layers)
			}
			if !strings.HasPrefix(img.Digest, "sha256:") || img.Size == 0 {
				t.Errorf("Digest %q Size %d", img.Digest, img.Size)
			}
			before := must(os.Stat(filepath.Join(img.Base, img.Layers[0])))(t)
			again := must(s.Pull(t.Context(), path, nil))(t)
			if after := must(os.Stat(filepath.Join(again.Base, again.Layers[0])))(t); !os.SameFile(before, after) {
				t.Error("an unchanged archive was unpacked again")
			}
			wantClean(t, s)
			writeFile(t, path, tarOf(t, map[string]string{"bin/": "", "bin/app": "new"}))
			if img := must(s.Pull(t.Context(), path, nil))(t); contentOf(t, img, "bin/app") != "new" {
				t.Error("the changed archive was not taken")
			}
			wantClean(t, s)
		})
	}
}

func TestSquashfs(t *testing.T) {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("SKIPPED: no mksquashfs")
	}
	src, path := t.TempDir(), filepath.Join(t.TempDir(), "root.squashfs")
	writeFile(t, filepath.Join(src, "app"), []byte("hello"))
	if out, err := exec.Command("mksquashfs", src, path, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v: %s", err, out)
	}
	s := openStore(t, t.TempDir())
	if img := must(s.Pull(t.Context(), path, nil))(t); contentOf(t, img, "app") != "hello" {
		t.Errorf("layers %v", img.Layers)
	}
	wantClean(t, s)
}

func TestBadArchives(t *testing.T) {
	s := openStore(t, t.TempDir())
	whole := pipe(t, tarOf(t, map[string]string{"a": noise(100_000)}), "gzip")
	for name, data := range map[string][]byte{
		"empty": nil, "text": []byte(strings.Repeat("hello ", 1000)), "cut": whole[:len(whole)/2],
		"zip": []byte("PK\x03\x04" + strings.Repeat("x", 1000)), "squashfs": []byte("hsqs" + strings.Repeat("x", 1000)),
	} {
		_, err := s.Pull(t.Context(), writeFile(t, filepath.Join(t.TempDir(), name), data), nil)
		wantErr(t, err, errs.Invalid, name)
	}
	_, err := s.Pull(t.Context(), "docker-archive:"+writeFile(t, filepath.Join(t.TempDir(), "x"), whole), nil)
	wantErr(t, err, errs.Invalid)
	wantClean(t, s)
}

func TestOCILayout(t *testing.T) {
	dir := t.TempDir()
	p := must(layout.Write(dir, empty.Index))(t)
	one, two := imageOf(t, layerOf(t, map[string]string{"v": "1"})), imageOf(t, layerOf(t, map[string]string{"v": "2"}))
	tag := func(n string) layout.Option {
		return layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": n})
	}
	if err := p.AppendImage(one, tag("one")); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, t.TempDir())
	img := must(s.Pull(t.Context(), "oci:"+dir, nil))(t)
	if contentOf(t, img, "v") != "1" || img.Digest != must(one.Digest())(t).String() {
		t.Errorf("%+v", img)
	}
	if err := p.AppendImage(two, tag("two")); err != nil {
		t.Fatal(err)
	}
	_, err := s.Pull(t.Context(), "oci:"+dir, nil)
	wantErr(t, err, errs.Invalid, "one, two")
	_, err = s.Pull(t.Context(), "oci:"+dir+":three", nil)
	wantErr(t, err, errs.NotFound, "one, two")
	if img := must(s.Pull(t.Context(), "oci:"+dir+":two", nil))(t); contentOf(t, img, "v") != "2" {
		t.Error("the wrong image was taken")
	}
	wantClean(t, s)

	archive := filepath.Join(t.TempDir(), "x.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", archive, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %s", out)
	}
	for _, ref := range []string{"oci-archive:" + archive + ":one", "oci-archive:" + writeFile(t, archive+".gz", pipe(t, must(os.ReadFile(archive))(t), "gzip")) + ":one"} {
		if img := must(s.Pull(t.Context(), ref, nil))(t); contentOf(t, img, "v") != "1" {
			t.Errorf("%s: %+v", ref, img)
		}
	}
	_, err = s.Pull(t.Context(), archive, nil) // recognised, and then ambiguous
	wantErr(t, err, errs.Invalid, "several images")

	blob := filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(layerDigests(t, one)[0], "sha256:"))
	data := must(os.ReadFile(blob))(t)
	data[9] ^= 1 // the OS byte of the gzip header: unpacks to the same, but is not the blob
	if err := os.Chmod(blob, 0o600); err != nil {
		t.Fatal(err)
	}
	writeFile(t, blob, data)
	fresh := openStore(t, t.TempDir())
	_, err = fresh.Pull(t.Context(), "oci:"+dir+":one", nil)
	wantErr(t, err, errs.Invalid, "has digest")
	wantClean(t, fresh)
	_, err = s.Pull(t.Context(), "oci:"+t.TempDir(), nil)
	wantErr(t, err, errs.Invalid, "index.json")
}

func TestDockerArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved")
	shared := layerOf(t, map[string]string{"s": "x"})
	one, two := imageOf(t, shared, layerOf(t, map[string]string{"v": "1"})), imageOf(t, shared, layerOf(t, map[string]string{"v": "2"}))
	if err := tarball.MultiWriteToFile(path, map[name.Tag]v1.Image{
		must(name.NewTag("app:1"))(t): one, must(name.NewTag("app:2"))(t): two,
	}); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, t.TempDir())
	for tag, want := range map[string]string{"app:1": "1", "docker.io/library/app:2": "2"} {
		img := must(s.Pull(t.Context(), "docker-archive:"+path+":"+tag, nil))(t)
		if contentOf(t, img, "v") != want || contentOf(t, img, "s") != "x" || img.Config.User != "1:2" {
			t.Errorf("%s: %+v", tag, img)
		}
	}
	_, err := s.Pull(t.Context(), path, nil)
	wantErr(t, err, errs.Invalid, "app:1, ")
	_, err = s.Pull(t.Context(), "docker-archive:"+path+":app:3", nil)
	wantErr(t, err, errs.NotFound, "app:3")
	single := filepath.Join(t.TempDir(), "single")
	if err := tarball.WriteToFile(single, must(name.NewTag("app:1"))(t), one); err != nil {
		t.Fatal(err)
	}
	zipped := writeFile(t, single+".gz", pipe(t, must(os.ReadFile(single))(t), "gzip"))
	for _, p := range []string{single, zipped} {
		if img := must(s.Pull(t.Context(), p, nil))(t); contentOf(t, img, "v") != "1" || len(img.Layers) != 2 {
			t.Errorf("%s was not recognised: %+v", p, img)
		}
	}
	wantClean(t, s)
}

// TestDockerSaveWithLinks: old docker save has equal layers as symlinks, and layers uncompressed.
func TestDockerSaveWithLinks(t *testing.T) {
	l := layerOf(t, map[string]string{"a": "b"})
	img := imageOf(t, l, l)
	raw := must(must(l.Uncompressed())(t), nil)(t)
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	put := func(h tar.Header, data []byte) {
		h.Size, h.Mode = int64(len(data)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(data)
	}
	put(tar.Header{Name: a + "/", Typeflag: tar.TypeDir}, nil)
	put(tar.Header{Name: a + "/layer.tar", Typeflag: tar.TypeReg}, must(io.ReadAll(raw))(t))
	put(tar.Header{Name: b + "/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../" + a + "/layer.tar"}, nil)
	put(tar.Header{Name: a + ".json", Typeflag: tar.TypeReg}, must(img.RawConfigFile())(t))
	put(tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg}, []byte(`[{"Config":"`+a+`.json","RepoTags":null,"Layers":["`+a+`/layer.tar","`+b+`/layer.tar"]}]`))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, t.TempDir())
	got := must(s.Pull(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "x"), out.Bytes()), nil))(t)
	if contentOf(t, got, "a") != "b" || len(got.Layers) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestSharingBetweenSources: one layer, from a registry and from an archive, is there once.
func TestSharingBetweenSources(t *testing.T) {
	reg := newRegistry(t)
	img := imageOf(t, layerOf(t, map[string]string{"a": "b"}))
	path := filepath.Join(t.TempDir(), "x")
	if err := tarball.WriteToFile(path, must(name.NewTag("x"))(t), img); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, t.TempDir())
	one := must(s.Pull(t.Context(), reg.push(t, "x", img), nil))(t)
	two := must(s.Pull(t.Context(), path, nil))(t)
	if one.Layers[0] != two.Layers[0] {
		t.Errorf("layers %v and %v", one.Layers, two.Layers)
	}
	if err := s.Remove(t.Context(), one.Ref); err != nil || contentOf(t, two, "a") != "b" {
		t.Errorf("Remove took a shared layer, or %v", err)
	}
	wantClean(t, s)
}

func TestURL(t *testing.T) {
	body := tarOf(t, map[string]string{"app": noise(500_000)})
	modified := time.Unix(1e9, 0)
	etag, gets, bytesOut, cut := `"1"`, 0, 0, 0
	var ranges []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			w.WriteHeader(404)
			return
		case "/chunked": // no length, no validators
			w.(http.Flusher).Flush()
			_, _ = w.Write(body)
			return
		}
		gets++
		ranges = append(ranges, r.Header.Get("Range"))
		w.Header().Set("ETag", etag)
		count := &countWriter{w, &bytesOut}
		if cut > 0 {
			cut--
			http.ServeContent(&cutWriter{count, 100_000}, r, "", modified, bytes.NewReader(body))
			return
		}
		http.ServeContent(count, r, "", modified, bytes.NewReader(body))
	}))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	ref := srv.URL + "/root.tar"
	dir := t.TempDir()
	s := openStore(t, dir)
	cut = 2
	img := must(s.Pull(t.Context(), ref, nil))(t)
	if len(contentOf(t, img, "app")) != 500_000 || gets != 3 || ranges[2] < "bytes=15" || ranges[2] > "bytes=20" {
		t.Errorf("gets %d ranges %q", gets, ranges)
	}
	wantClean(t, s)
	s = openStore(t, dir)
	gets, bytesOut = 0, 0
	if again := must(s.Pull(t.Context(), ref, nil))(t); again.Digest != img.Digest || gets != 1 || bytesOut != 0 {
		t.Errorf("unchanged: %d requests, %d bytes", gets, bytesOut)
	}
	body, etag, modified = tarOf(t, map[string]string{"app": "new"}), `"2"`, modified.Add(time.Hour)
	if img = must(s.Pull(t.Context(), ref, nil))(t); contentOf(t, img, "app") != "new" {
		t.Error("the new version was not taken")
	}
	wantClean(t, s)

	// Interrupted, restarted, and the file is another one by then: the old part must not be used.
	body, etag = tarOf(t, map[string]string{"app": noise(400_000)}), `"3"`
	cut, s.tune.attempts = 1, 1
	if _, err := s.Pull(t.Context(), ref, nil); errs.KindOf(err) != errs.Unavailable {
		t.Fatalf("interrupted: %v", err)
	}
	body, etag = tarOf(t, map[string]string{"app": noise(300_000)}), `"4"`
	modified = modified.Add(time.Hour)
	s = openStore(t, dir)
	if img = must(s.Pull(t.Context(), ref, nil))(t); contentOf(t, img, "app") != noise(300_000) {
		t.Error("parts of two versions were mixed")
	}

	for range 2 {
		img = must(s.Pull(t.Context(), srv.URL+"/chunked", nil))(t)
	}
	_, err := s.Pull(t.Context(), srv.URL+"/missing", nil)
	wantErr(t, err, errs.NotFound, "/missing")
	s.tune.maxURL = 100_000
	if err := s.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "limit")
}

type countWriter struct {
	http.ResponseWriter
	n *int
}

func (c *countWriter) Write(p []byte) (int, error) {
	*c.n += len(p)
	return c.ResponseWriter.Write(p)
}

func TestMutatedConfigIsAnotherImage(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"a": "b"}))
	ref := reg.push(t, "app", src)
	s := openStore(t, t.TempDir())
	must(s.Pull(t.Context(), ref, nil))(t)
	reg.push(t, "app", must(mutate.Config(src, v1.Config{User: "9"}))(t))
	reg.set(nil)
	img := must(s.Pull(t.Context(), ref, nil))(t)
	if img.Config.User != "9" || reg.count(layerDigests(t, src)[0]) != 0 {
		t.Errorf("User %q; the layer was fetched %d times", img.Config.User, reg.count(layerDigests(t, src)[0]))
	}
	if _, err := s.Ensure(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if _, err := s.Ensure(t.Context(), reg.host+"/none"); !errors.Is(err, errs.NotFound) {
		t.Errorf("Ensure of what is not there: %v", err)
	}
}

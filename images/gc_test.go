package images

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

func TestRemoveAndHold(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, layerOf(t, map[string]string{"a": "b"}), layerOf(t, map[string]string{"c": "d"})))
	dir := t.TempDir()
	s := openStore(t, dir)
	img := must(s.Pull(t.Context(), ref, nil))(t)
	first, second := s.Hold(img), s.Hold(img)
	if err := s.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), ref); !errors.Is(err, errs.NotFound) {
		t.Errorf("second Remove = %v", err)
	}
	first()
	first()
	if must(s.Prune(t.Context(), nil))(t) != 0 || contentOf(t, img, "a") != "b" {
		t.Fatal("a held layer is gone")
	}

	s = openStore(t, dir) // a restart: the node holds again what it knows
	if contentOf(t, img, "a") != "b" {
		t.Fatal("Open took a layer nobody had time to hold")
	}
	again := s.Hold(img)
	if must(s.Prune(t.Context(), nil))(t) != 0 || contentOf(t, img, "a") != "b" {
		t.Fatal("Prune after a restart took a held layer")
	}
	again()
	wantClean(t, s)
	second()
}

func TestPrune(t *testing.T) {
	reg := newRegistry(t)
	shared := layerOf(t, map[string]string{"s": noise(10_000)})
	s := openStore(t, t.TempDir())
	var imgs []Image
	for i := range 3 {
		ref := reg.push(t, fmt.Sprintf("app%d", i), imageOf(t, shared, layerOf(t, map[string]string{"v": noise(1000 + i)})))
		imgs = append(imgs, must(s.Pull(t.Context(), ref, nil))(t))
	}
	defer s.Hold(imgs[1])()
	part := s.partFile("sha256:" + strings.Repeat("0", 64))
	if err := errors.Join(os.WriteFile(part, make([]byte, 77), 0o600),
		os.MkdirAll(filepath.Join(s.layersDir(), "stranger", "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	freed, err := s.Prune(t.Context(), func(i Image) bool { return i.Ref == imgs[0].Ref })
	if err != nil || freed != 1002 {
		t.Errorf("freed %d, %v; want %d", freed, err, 1002)
	}
	if _, err := os.Stat(part); err != nil {
		t.Errorf("a download that could be resumed: %v", err)
	}
	if contentOf(t, imgs[0], "v") == "" || contentOf(t, imgs[1], "v") == "" || contentOf(t, imgs[2], "v") != "" {
		t.Error("Prune took the wrong layers")
	}
	if all := must(s.List(t.Context()))(t); len(all) != 1 || all[0].Ref != imgs[0].Ref {
		t.Errorf("List = %v", all)
	}
	if _, err := os.Stat(filepath.Join(s.layersDir(), "stranger")); err == nil {
		t.Error("an unknown folder stayed")
	}
}

func TestDamagedIndex(t *testing.T) {
	reg := newRegistry(t)
	one := reg.push(t, "one", imageOf(t, layerOf(t, map[string]string{"a": "1"})))
	two := reg.push(t, "two", imageOf(t, layerOf(t, map[string]string{"a": "2"})))
	dir := t.TempDir()
	s := openStore(t, dir)
	must(s.Pull(t.Context(), one, nil))(t)
	img := must(s.Pull(t.Context(), two, nil))(t)
	damage := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage(s.refFile(one+":latest"), `{"Version":1,"Im`)
	damage(filepath.Join(s.layersDir(), img.Layers[0]+".json"), "\x00\x00\x00")
	s = openStore(t, dir)
	if _, err := s.Resolve(t.Context(), one); !errors.Is(err, errs.NotFound) {
		t.Errorf("Resolve of the damaged entry = %v", err)
	}
	if got := must(s.Resolve(t.Context(), two))(t); contentOf(t, got, "a") != "2" {
		t.Error("the other image suffered")
	}
	reg.set(nil)
	must(s.Pull(t.Context(), one, nil))(t)
	if n := reg.count("sha256"); n != 1 {
		t.Errorf("%d blobs fetched to mend the index, want the config alone", n)
	}
	wantClean(t, openStore(t, dir))

	if err := os.RemoveAll(filepath.Join(img.Base, img.Layers[0])); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if _, err := s.Resolve(t.Context(), two); !errors.Is(err, errs.NotFound) {
		t.Errorf("an image without its layer: %v", err)
	}
	if got := must(s.Pull(t.Context(), two, nil))(t); contentOf(t, got, "a") != "2" {
		t.Error("the lost layer did not come back")
	}
	damage(s.refFile(one+":latest"), `{"Version":9}`)
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, errs.Conflict) {
		t.Errorf("index of a newer version: %v", err)
	}
}

func TestIDCollision(t *testing.T) {
	s := openStore(t, t.TempDir())
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("a", 63)+"b"
	for i, key := range []string{a, b, rootfsPrefix + a} {
		dir := filepath.Join(s.tmpDir(), fmt.Sprint("layer-", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l := must(s.install(dir, stored{Key: key}))(t)
		if want := []string{"aaaaaaaaaaaa", "aaaaaaaaaaaaaaaa", "raaaaaaaaaaaa"}[i]; l.ID != want {
			t.Errorf("id of %s = %s, want %s", key, l.ID, want)
		}
	}
}

func TestNoSpace(t *testing.T) {
	s := openStore(t, t.TempDir())
	err := s.checkSpace(t.Context(), "x", []part{{key: "sha256:1", desc: v1.Descriptor{Size: 1 << 60}}})
	wantErr(t, err, errs.Unavailable, "needs at least", "are free")
	if err := s.explainSpace(fmt.Errorf("unpack: %w", syscall.ENOSPC)); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "is full") {
		t.Errorf("ENOSPC: %v", err)
	}
}

// TestFullDisk pulls into a file system that is too small for what the manifest does not tell.
func TestFullDisk(t *testing.T) {
	testroot.Require(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	reg := newRegistry(t)
	small := layerOf(t, map[string]string{"s": noise(10_000)})
	bomb := reg.push(t, "bomb", imageOf(t, small, layerOf(t, map[string]string{"z": strings.Repeat("0", 8<<20)})))
	big := reg.push(t, "big", imageOf(t, layerOf(t, map[string]string{"z": noise(3 << 20)})))
	s := openStore(t, filepath.Join(dir, "images"))
	_, err := s.Pull(t.Context(), big, nil)
	wantErr(t, err, errs.Unavailable, "needs at least")
	_, err = s.Pull(t.Context(), bomb, nil)
	wantErr(t, err, errs.Unavailable, "is full")
	wantClean(t, s)
	if n, err := s.free(); err != nil || n < 1900<<10 {
		t.Errorf("%d bytes free after the failure, %v", n, err)
	}
	fine := reg.push(t, "fine", imageOf(t, small))
	must(s.Pull(t.Context(), fine, nil))(t)
}

// TestOwnersAndWhiteouts needs root: foreign owners, and whiteouts in overlayfs's form.
func TestOwnersAndWhiteouts(t *testing.T) {
	testroot.Require(t)
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, layerOf(t, map[string]string{"d/": "", "d/gone": "x", "d/stays": "y"}),
		layerOf(t, map[string]string{"d/": "", "d/.wh.gone": ""})))
	s := openStore(t, t.TempDir())
	img := must(s.Pull(t.Context(), ref, nil))(t)
	defer s.Hold(img)()
	at := t.TempDir()
	t.Chdir(img.Base)
	if err := syscall.Mount("overlay", at, "overlay", syscall.MS_RDONLY, "lowerdir="+strings.Join(img.Layers, ":")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	if left := must(os.ReadDir(filepath.Join(at, "d")))(t); len(left) != 1 || left[0].Name() != "stays" {
		t.Errorf("d shows %v", left)
	}
}

func BenchmarkResolve(b *testing.B) {
	s := openStore(b, b.TempDir())
	recs := map[string]*record{}
	for i := range 500 {
		ref := fmt.Sprintf("docker.io/library/app%d:1.27", i)
		recs[ref] = &record{Image: Image{Ref: ref, Digest: fmt.Sprintf("sha256:%064d", i)}}
	}
	s.images.Store(newCatalog(recs))
	for name, ref := range map[string]string{"normalised": "docker.io/library/app7:1.27", "short": "app7:1.27", "directory": b.TempDir()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Resolve(b.Context(), ref); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

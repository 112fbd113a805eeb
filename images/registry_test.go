package images

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestPullAndResolve(t *testing.T) {
	reg := newRegistry(t)
	base := layerOf(t, map[string]string{"etc/": "", "etc/a": "lower", "bin/": "", "bin/app": "x"})
	src := imageOf(t, base, layerOf(t, map[string]string{"etc/": "", "etc/a": "upper"}))
	ref := reg.push(t, "app:1", src)
	dir := t.TempDir()
	s := openStore(t, dir)

	if _, err := s.Resolve(t.Context(), ref); !errors.Is(err, errs.NotFound) {
		t.Fatalf("Resolve before Pull = %v, want NotFound", err)
	}
	var mu sync.Mutex
	phases := map[string]int{}
	img, err := s.Pull(t.Context(), ref, func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		phases[p.Phase]++
		if p.Ref != ref {
			t.Errorf("Progress.Ref = %q", p.Ref)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{PhaseResolve, PhaseDownload, PhaseUnpack, PhaseDone} {
		if phases[p] == 0 {
			t.Errorf("no progress of phase %q: %v", p, phases)
		}
	}
	if got, want := img.Digest, must(src.Digest())(t).String(); got != want {
		t.Errorf("Digest = %s, want %s", got, want)
	}
	if len(img.Layers) != 2 || contentOf(t, img, "etc/a") != "upper" || contentOf(t, img, "bin/app") != "x" {
		t.Errorf("layers %v do not show what the image has", img.Layers)
	}
	p := hostPlatform()
	want := RunConfig{
		Env: []string{"A=b"}, Entrypoint: []string{"/init"}, Cmd: []string{"/bin/app"}, WorkingDir: "/srv", User: "1:2",
		StopSignal: "SIGINT", Volumes: []string{"/data"}, ExposedPorts: []string{"80/tcp"}, Labels: map[string]string{"k": "v"},
		Architecture: p.Architecture, OS: p.OS, Variant: p.Variant,
	}
	if d := cmp.Diff(want, img.Config); d != "" {
		t.Errorf("Config (-want +got):\n%s", d)
	}
	if img.Size == 0 || img.Pulled.IsZero() || !img.Created.Equal(time.Unix(1e9, 0)) {
		t.Errorf("Size %d Pulled %v Created %v", img.Size, img.Pulled, img.Created)
	}
	wantClean(t, s)

	again := openStore(t, dir) // as after a restart
	got, err := again.Resolve(t.Context(), ref)
	if d := cmp.Diff(img, got); err != nil || d != "" {
		t.Errorf("after a restart: %v (-want +got):\n%s", err, d)
	}
	if _, err := again.Resolve(t.Context(), reg.host+"/app@"+img.Digest); err != nil {
		t.Errorf("Resolve by digest: %v", err)
	}

	reg.set(nil)
	if _, err := again.Pull(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	if n := reg.count("blobs") + reg.count("manifests"); n != 0 {
		t.Errorf("a pull of the unchanged image made %d transfers", n)
	}
}

func TestPullNewVersionDropsOldLayers(t *testing.T) {
	reg := newRegistry(t)
	shared := layerOf(t, map[string]string{"shared": noise(1000)})
	ref := reg.push(t, "app:1", imageOf(t, shared, layerOf(t, map[string]string{"v": "1"})))
	s := openStore(t, t.TempDir())
	old := must(s.Pull(t.Context(), ref, nil))(t)
	release := s.Hold(old)
	src := imageOf(t, shared, layerOf(t, map[string]string{"v": "2"}))
	reg.push(t, "app:1", src)
	reg.set(nil)
	img := must(s.Pull(t.Context(), ref, nil))(t)
	if n := reg.count(layerDigests(t, src)[0]); n != 0 {
		t.Errorf("the shared layer was fetched again")
	}
	if contentOf(t, img, "v") != "2" || contentOf(t, old, "v") != "1" {
		t.Errorf("v = %q, and %q in the held one", contentOf(t, img, "v"), contentOf(t, old, "v"))
	}
	release()
	if contentOf(t, old, "v") != "" || contentOf(t, img, "shared") == "" {
		t.Error("release did not take the old layer, or took the shared one")
	}
	wantClean(t, s)
}

func TestSameContentUnderTwoNames(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"a": "b"}))
	one, two := reg.push(t, "app:1", src), reg.push(t, "other:2", src)
	s := openStore(t, t.TempDir())
	must(s.Pull(t.Context(), one, nil))(t)
	reg.set(nil)
	must(s.Pull(t.Context(), two, nil))(t)
	if n := reg.count("blobs"); n != 0 {
		t.Errorf("%d blobs fetched, want 0", n)
	}
	if err := s.Remove(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if img := must(s.Resolve(t.Context(), two))(t); contentOf(t, img, "a") != "b" {
		t.Error("removing one name broke the other")
	}
	wantClean(t, s)
}

func TestDuplicateLayerIsListedOnce(t *testing.T) {
	reg := newRegistry(t)
	twice := layerOf(t, map[string]string{"a": "1"})
	ref := reg.push(t, "app", imageOf(t, twice, layerOf(t, map[string]string{"b": "2"}), twice))
	s := openStore(t, t.TempDir())
	if img := must(s.Pull(t.Context(), ref, nil))(t); len(img.Layers) != 2 || contentOf(t, Image{Base: img.Base, Layers: img.Layers[:1]}, "a") != "1" {
		t.Errorf("Layers = %v, want two with the repeated one on top", img.Layers)
	}
}

func TestPlatforms(t *testing.T) {
	reg := newRegistry(t)
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range []v1.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm", Variant: "v6"},
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
		{OS: "unknown", Architecture: "unknown"},
	} {
		img := imageFor(t, p, layerOf(t, map[string]string{"arch": p.String()}))
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	ref := reg.host + "/multi:1"
	if err := remote.WriteIndex(must(name.ParseReference(ref))(t), idx); err != nil {
		t.Fatal(err)
	}
	for platform, want := range map[string]string{"linux/amd64": "linux/amd64", "linux/arm/v7": "linux/arm/v6", "linux/arm64": "linux/arm64/v8"} {
		s := openStore(t, t.TempDir(), func(c *Config) { c.Platform = platform })
		img, err := s.Pull(t.Context(), ref, nil)
		if err != nil || contentOf(t, img, "arch") != want {
			t.Errorf("for %s: %q, %v; want %s", platform, contentOf(t, img, "arch"), err, want)
		}
		if want := must(idx.Digest())(t).String(); img.Digest != want {
			t.Errorf("Digest = %s, want that of the list, %s", img.Digest, want)
		}
	}
	s := openStore(t, t.TempDir(), func(c *Config) { c.Platform = "linux/riscv64" })
	_, err := s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "linux/riscv64; it has linux/amd64, linux/arm/v6, linux/arm64/v8")
	s = openStore(t, t.TempDir(), func(c *Config) { c.Platform = "linux/arm/v5" })
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "linux/arm/v5")
	single := reg.push(t, "single", imageFor(t, v1.Platform{OS: "windows", Architecture: "amd64"}, layerOf(t, map[string]string{"a": ""})))
	_, err = openStore(t, t.TempDir()).Pull(t.Context(), single, nil)
	wantErr(t, err, errs.Invalid, "it has windows/amd64")
}

func wantErr(t *testing.T, err error, kind errs.Kind, parts ...string) {
	t.Helper()
	if errs.KindOf(err) != kind || err == nil {
		t.Errorf("error %v has kind %q, want %q", err, errs.KindOf(err), kind)
		return
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not say %q", err, p)
		}
	}
}

// TestFaults: a pull survives what a bad link and a busy registry do, and takes only what it has to.
func TestFaults(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"big": noise(1 << 20)}))
	ref, blob := reg.push(t, "app", src), layerDigests(t, src)[0]
	type handler = func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter
	for name, tc := range map[string]struct {
		fault handler
		gets  int // of the blob, 0: any
	}{
		"cut twice": {func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if isBlob(r, blob) && n <= 2 {
				return &cutWriter{w, 300 << 10}
			}
			return w
		}, 3},
		"server ignores range": {func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if isBlob(r, blob) && n == 1 {
				return &cutWriter{w, 300 << 10}
			}
			r.Header.Del("Range")
			return w
		}, 2},
		"429 with Retry-After": {func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n == 1 && r.Method == http.MethodGet && r.URL.Path != "/v2/" {
				return status(w, 429, "Retry-After", "1")
			}
			return w
		}, 2},
		"500s": {func(w http.ResponseWriter, _ *http.Request, n int) http.ResponseWriter {
			if n <= 3 {
				return status(w, 500)
			}
			return w
		}, 4},
		"wrong bytes once": {func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if isBlob(r, blob) && n == 1 {
				_, _ = w.Write([]byte(noise(int(must(must(src.Layers())(t)[0].Size())(t)))))
				return nil
			}
			return w
		}, 2},
		"wrong length once": {func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if isBlob(r, blob) && n == 1 {
				_, _ = w.Write([]byte("short"))
				return nil
			}
			return w
		}, 2},
		"stall": {func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if isBlob(r, blob) && n == 1 {
				w.Header().Set("Content-Length", "1000000")
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				return nil
			}
			return w
		}, 2},
		"config and manifest cut": {func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
			if n == 1 && r.Method == http.MethodGet && r.URL.Path != "/v2/" {
				return &cutWriter{w, 20}
			}
			return w
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			reg.set(tc.fault)
			s := openStore(t, t.TempDir())
			img, err := s.Pull(t.Context(), ref, nil)
			if err != nil || len(contentOf(t, img, "big")) != 1<<20 {
				t.Fatalf("Pull: %v", err)
			}
			if n := reg.count(blob); tc.gets > 0 && n != tc.gets {
				t.Errorf("blob was asked for %d times, want %d", n, tc.gets)
			}
			wantClean(t, s)
		})
	}
}

// TestResumeAcrossRestart: what one process fetched, the next one does not fetch again.
func TestResumeAcrossRestart(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"big": noise(1 << 20)}))
	ref, blob := reg.push(t, "app", src), layerDigests(t, src)[0]
	dir := t.TempDir()
	reg.set(func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		if isBlob(r, blob) && n == 1 {
			return &cutWriter{w, 700 << 10}
		}
		if isBlob(r, blob) {
			return status(w, 503, "Retry-After", "3600") // longer than it is worth waiting
		}
		return w
	})
	_, err := openStore(t, dir).Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Unavailable, "out of order", "3600")
	var got http.Header
	reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if isBlob(r, blob) {
			got = r.Header.Clone()
		}
		return w
	})
	s := openStore(t, dir)
	must(s.Pull(t.Context(), ref, nil))(t)
	if !strings.HasPrefix(got.Get("Range"), "bytes=716800-") {
		t.Errorf("Range = %q, want to go on at 716800", got.Get("Range"))
	}
	wantClean(t, s)

	// A partial file that a power cut filled with zeros costs one more download, not the pull.
	if err := s.Remove(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.partFile(blob), make([]byte, 500_000), 0o600); err != nil {
		t.Fatal(err)
	}
	must(s.Pull(t.Context(), ref, nil))(t)
	wantClean(t, s)

	old := filepath.Join(s.tmpDir(), "blob-x"+partSuffix)
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.Chtimes(old, time.Time{}, time.Now().Add(-8*24*time.Hour)),
		os.MkdirAll(filepath.Join(s.tmpDir(), "layer-1", "half"), 0o700)); err != nil {
		t.Fatal(err)
	}
	wantClean(t, openStore(t, dir))
}

func TestErrors(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"a": noise(5000)}))
	ref, blob := reg.push(t, "app", src), layerDigests(t, src)[0]
	answer := func(code int) func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		return func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
			if r.URL.Path == "/v2/" {
				return w
			}
			return status(w, code)
		}
	}
	body := func(what, mediaType, text string) func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		return func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
			if !strings.Contains(r.URL.Path, what) {
				return w
			}
			w.Header().Set("Content-Type", mediaType)
			_, _ = w.Write([]byte(text))
			return nil
		}
	}
	hash := strings.Repeat("a", 64)
	manifest := func(config, layer string) string {
		return `{"schemaVersion":2,"config":{"mediaType":"` + config + `","digest":"sha256:` + hash + `","size":2},"layers":[{"mediaType":"` + layer + `","digest":"sha256:` + hash + `","size":2}]}`
	}
	const ociConfig = "application/vnd.oci.image.config.v1+json"
	for name, tc := range map[string]struct {
		fault func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter
		kind  errs.Kind
		say   []string
	}{
		"401":          {answer(401), errs.Invalid, []string{"wants a login", "buoy login " + reg.host, "auth.json"}},
		"403":          {answer(403), errs.Invalid, []string{"denies access"}},
		"404":          {answer(404), errs.NotFound, []string{reg.host + " has no app:latest (a path begins with / or ./)"}},
		"429":          {answer(429), errs.Unavailable, []string{"limits"}},
		"502":          {answer(502), errs.Unavailable, []string{"out of order"}},
		"schema 1":     {body("manifests", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`), errs.Invalid, []string{"schema 1"}},
		"foreign":      {body("manifests", "", manifest(ociConfig, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")), errs.Invalid, []string{"foreign"}},
		"unknown type": {body("manifests", "", manifest(ociConfig, "application/wasm")), errs.Invalid, []string{"application/wasm"}},
		"helm chart":   {body("manifests", "", manifest("application/vnd.cncf.helm.config.v1+json", "application/x")), errs.Invalid, []string{"helm"}},
		"not json":     {body("manifests", "", "<html>"), errs.Invalid, []string{"manifest of"}},
		"ambiguous":    {body("manifests", "", `{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}`), errs.Invalid, []string{"ambiguous"}},
		"wrong blob":   {body("blobs/"+blob, "", noise(int(must(must(src.Layers())(t)[0].Size())(t)))), errs.Unavailable, []string{"wrong content", blob}},
		"too long blob": {func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
			if !isBlob(r, blob) {
				return w
			}
			w.(http.Flusher).Flush() // chunked, without a length
			_, _ = w.Write([]byte(noise(100_000)))
			return nil
		}, errs.Unavailable, []string{"more than"}},
	} {
		t.Run(name, func(t *testing.T) {
			reg.set(tc.fault)
			s := openStore(t, t.TempDir())
			s.tune.backoff, s.tune.attempts = time.Millisecond, 3
			_, err := s.Pull(t.Context(), ref, nil)
			wantErr(t, err, tc.kind, append(tc.say, ref)...)
			if left := must(os.ReadDir(s.layersDir()))(t); len(left) > 0 {
				t.Errorf("layers holds %v", left)
			}
		})
	}
	reg.set(nil)
	s := openStore(t, t.TempDir())
	s.tune.attempts = 2
	_, err := s.Pull(t.Context(), "127.0.0.1:1/x", nil)
	wantErr(t, err, errs.Unavailable, "127.0.0.1:1 cannot be reached")
	if _, err := s.Pull(t.Context(), reg.host+"/app@sha256:"+hash, nil); errs.KindOf(err) != errs.NotFound {
		t.Errorf("wrong pin: %v", err)
	}
	reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if strings.Contains(r.URL.Path, hash) {
			_, _ = w.Write(must(src.RawManifest())(t))
			return nil
		}
		return w
	})
	_, err = s.Pull(t.Context(), reg.host+"/app@sha256:"+hash, nil)
	wantErr(t, err, errs.Unavailable, "expected sha256:"+hash)
}

func TestWrongDiffID(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"a": "b"}))
	cf := must(src.ConfigFile())(t).DeepCopy()
	cf.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	ref := reg.push(t, "app", must(mutate.ConfigFile(src, cf))(t))
	s := openStore(t, t.TempDir())
	_, err := s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "config says sha256:000000")
	wantClean(t, s)
}

func TestBasicAuth(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, layerOf(t, map[string]string{"a": "b"})))
	reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if u, p, _ := r.BasicAuth(); u != "me" || p != "pass:word" {
			return status(w, 401, "WWW-Authenticate", `Basic realm="r"`)
		}
		return w
	})
	_, err := openStore(t, t.TempDir()).Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "wants a login")
	for key, good := range map[string]bool{reg.host: true, "https://" + reg.host: true, reg.host + "/app": true, "other": false} {
		_, err = openStore(t, t.TempDir(), logins(t, key, "pass:word")).Pull(t.Context(), ref, nil)
		if good && err != nil || !good && err == nil {
			t.Errorf("login under %q: %v", key, err)
		}
	}
	_, err = openStore(t, t.TempDir(), logins(t, reg.host, "wrong")).Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "refuses the login")
}

// logins is a login file for user me.
func logins(t *testing.T, host, pass string) func(*Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	data := must(json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"username": "me", "password": pass}}}))(t)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.AuthFile = path }
}

func TestBearerAuth(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"a": noise(300_000)}))
	ref, blob := reg.push(t, "app", src), layerDigests(t, src)[0]
	var mu sync.Mutex
	token, issued := "t1", 0
	reg.set(func(w http.ResponseWriter, r *http.Request, n int) http.ResponseWriter {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			if u, p, _ := r.BasicAuth(); u != "me" || p != "secret" || !strings.Contains(r.URL.Query().Get("scope"), "repository:app:pull") {
				return status(w, 401)
			}
			issued++
			_, _ = w.Write([]byte(`{"token":"` + token + `"}`))
			return nil
		}
		if r.Header.Get("Authorization") != "Bearer "+token {
			return status(w, 401, "WWW-Authenticate", `Bearer realm="http://`+reg.host+`/token",service="s",scope="repository:app:pull"`)
		}
		if isBlob(r, blob) && n == 1 {
			token = "t2" // expires in the middle of the pull
			return &cutWriter{w, 100_000}
		}
		return w
	})
	s := openStore(t, t.TempDir(), logins(t, reg.host, "secret"))
	if _, err := s.Pull(t.Context(), ref, nil); err != nil {
		t.Fatal(err)
	}
	if issued != 2 {
		t.Errorf("%d tokens issued, want 2", issued)
	}
	_, err := openStore(t, t.TempDir(), logins(t, reg.host, "wrong")).Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "refuses the login")
}

func TestMirrors(t *testing.T) {
	origin, mirror := newRegistry(t), newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"a": "1"}), layerOf(t, map[string]string{"b": "2"}))
	ref := origin.push(t, "app", src)
	mirror.push(t, "cache/app", src)
	withMirrors := func(c *Config) {
		c.Mirrors = map[string][]string{origin.host: {"127.0.0.1:1", mirror.host + "/cache"}}
	}
	origin.set(nil)
	must(openStore(t, t.TempDir(), withMirrors).Pull(t.Context(), ref, nil))(t)
	if n := origin.count(""); n != 0 {
		t.Errorf("the origin was asked %d times though a mirror has all", n)
	}
	first := layerDigests(t, src)[0]
	mirror.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if isBlob(r, first) {
			return status(w, 500)
		}
		return w
	})
	must(openStore(t, t.TempDir(), withMirrors).Pull(t.Context(), ref, nil))(t)
	if n := origin.count("blobs"); n != 1 {
		t.Errorf("the origin gave %d blobs, want the one the mirror lacks", n)
	}
}

func TestPlainHTTPIsRefused(t *testing.T) {
	reg := newRegistry(t)
	_, port, _ := strings.Cut(reg.host, ":")
	host := must(os.Hostname())(t) + ":" + port // a name that is not loopback, as far as we know
	s := openStore(t, t.TempDir())
	s.tune.attempts = 1
	if s.mayBePlain(host) || s.mayBePlain("10.0.0.5:5000") || s.mayBePlain("registry.local") || !s.mayBePlain("[::1]:5000") || !s.mayBePlain("localhost") {
		t.Error("mayBePlain is wrong about what is loopback")
	}
	// 0.0.0.0 reaches the local server but is no loopback address.
	ref := "0.0.0.0:" + port + "/app"
	reg.push(t, "app", imageOf(t, layerOf(t, map[string]string{"a": "b"})))
	_, err := s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "--plain-http")
	s = openStore(t, t.TempDir(), func(c *Config) { c.PlainHTTP = []string{"0.0.0.0:" + port} })
	if _, err := s.Pull(t.Context(), ref, nil); err != nil {
		t.Errorf("listed under PlainHTTP: %v", err)
	}
}

// TestConcurrentPulls: callers share the work, whether they want the same image or share a layer.
func TestConcurrentPulls(t *testing.T) {
	reg := newRegistry(t)
	shared := layerOf(t, map[string]string{"s": noise(200_000)})
	one := imageOf(t, shared, layerOf(t, map[string]string{"v": noise(1000)}))
	two := imageOf(t, shared, layerOf(t, map[string]string{"v": noise(2000)}))
	refs := []string{reg.push(t, "one", one), reg.push(t, "two", two)}
	reg.set(func(w http.ResponseWriter, _ *http.Request, _ int) http.ResponseWriter {
		time.Sleep(20 * time.Millisecond)
		return w
	})
	s := openStore(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), refs[i%2], func(Progress) {}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, d := range append(layerDigests(t, one), layerDigests(t, two)...) {
		if n := reg.count(d); n != 1 {
			t.Errorf("%s was fetched %d times", d, n)
		}
	}
	for _, img := range []v1.Image{one, two} {
		if n := reg.count(must(img.ConfigName())(t).String()); n != 1 {
			t.Errorf("a config was fetched %d times", n)
		}
	}
	wantClean(t, s)
}

// TestAbandonedPull: who leaves does not take the work along, unless he was the last.
func TestAbandonedPull(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"a": noise(50_000)}))
	ref, blob := reg.push(t, "app", src), layerDigests(t, src)[0]
	asked, goOn := make(chan struct{}, 10), make(chan struct{})
	reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if isBlob(r, blob) {
			asked <- struct{}{}
			select {
			case <-goOn:
			case <-r.Context().Done():
				return nil
			}
		}
		return w
	})
	s := openStore(t, t.TempDir())
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() { _, err := s.Pull(first, ref, nil); results <- err }()
	<-asked
	go func() { _, err := s.Pull(second, ref, nil); results <- err }()
	for waiters(s, ref) < 2 {
		time.Sleep(time.Millisecond)
	}
	leaveFirst()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	leaveSecond()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("who left last got %v", err)
	}
	if n := len(s.pulls.active()) + len(s.unpacks.active()); n != 0 {
		t.Errorf("%d pieces of work go on though nobody waits", n)
	}
	close(goOn)
	if _, err := s.Pull(t.Context(), ref, nil); err != nil {
		t.Errorf("pull after an abandoned one: %v", err)
	}
	wantClean(t, s)
}

func waiters(s *Store, ref string) int {
	s.pulls.mu.Lock()
	defer s.pulls.mu.Unlock()
	return s.pulls.m[ref+":latest"].waiters
}

package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
)

// export is the whole of an export.
func export(t *testing.T, s *Store, ref string) (data []byte, kind string) {
	t.Helper()
	var b bytes.Buffer
	err := s.Export(t.Context(), ref, func(k string) io.Writer { kind = k; return &b })
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), kind
}

func TestExportImport(t *testing.T) {
	reg := newRegistry(t)
	src := imageOf(t, layerOf(t, map[string]string{"etc/": "", "etc/a": "lower", "b": noise(100_000)}), layerOf(t, map[string]string{"etc/": "", "etc/a": "upper"}))
	ref := reg.push(t, "team/app:1", src)
	s := openStore(t, t.TempDir())
	was := must(s.Pull(t.Context(), ref, nil))(t)
	data, kind := export(t, s, ref)
	if again, _ := export(t, s, ref); kind != TypeArchive || !bytes.Equal(data, again) {
		t.Errorf("kind %s, or two exports differ", kind)
	}
	wantClean(t, s)

	reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter { // no network
		t.Errorf("%s %s", r.Method, r.URL)
		return status(w, http.StatusTeapot)
	})
	for name, in := range map[string][]byte{"plain": data, "gzip": pipe(t, data, "gzip")} {
		far := openStore(t, t.TempDir())
		img, err := far.Import(t.Context(), bytes.NewReader(in), ImportOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if img.Ref != was.Ref || contentOf(t, img, "etc/a") != "upper" || len(img.Layers) != 2 || img.Digest == was.Digest {
			t.Errorf("%s: %+v", name, img)
		}
		if d := cmp.Diff(was.Config, img.Config); d != "" || !img.Created.Equal(was.Created) {
			t.Errorf("%s: config (-want +got):\n%s", name, d)
		}
		got := must(far.Ensure(t.Context(), ref))(t)
		if d := cmp.Diff(img, got); d != "" {
			t.Error(d)
		}
		if back, _ := export(t, far, ref); !bytes.Equal(stripDigest(t, back, img.Digest), stripDigest(t, data, was.Digest)) {
			t.Errorf("%s: what was imported exports to something else", name)
		}
		other := must(far.Import(t.Context(), bytes.NewReader(in), ImportOptions{Ref: "other.example/x:2"}))(t)
		if other.Ref != "other.example/x:2" {
			t.Errorf("%s: --ref: %+v", name, other)
		}
		wantClean(t, far)
	}
}

// stripDigest blanks the source's digest, which an import does not take over.
func stripDigest(t *testing.T, archive []byte, digest string) []byte {
	t.Helper()
	tf := must(indexTar(t.Context(), bytes.NewReader(archive), int64(len(archive))))(t)
	var layers []string
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal(must(readSmall(tf, "index.json", maxManifest))(t), &index); err != nil {
		t.Fatal(err)
	}
	raw := must(readSmall(tf, "blobs/sha256/"+strings.TrimPrefix(index.Manifests[0].Digest, "sha256:"), maxManifest))(t)
	if !bytes.Contains(raw, []byte(digest)) {
		t.Errorf("the manifest does not say that its source was %s: %s", digest, raw)
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, l := range doc.Layers {
		layers = append(layers, l.Digest.String())
	}
	return []byte(strings.Join(append(layers, doc.Config.Digest.String()), "\n"))
}

// TestExportForOthers: other programs read what Export writes, and Import reads what they write.
func TestExportForOthers(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("SKIPPED: no skopeo")
	}
	reg := newRegistry(t)
	ref := reg.push(t, "app:1", imageOf(t, layerOf(t, map[string]string{"a": "1", "d/": ""})))
	s := openStore(t, t.TempDir())
	must(s.Pull(t.Context(), ref, nil))(t)
	data, _ := export(t, s, ref)
	dir := t.TempDir()
	ours := writeFile(t, filepath.Join(dir, "ours.tar"), data)
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), skopeo, append([]string{"--insecure-policy", "--tmpdir", dir}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v: %s", args, err, out)
		}
		return out
	}
	if out := run("inspect", "--config", "oci-archive:"+ours); !bytes.Contains(out, []byte(`"/bin/app"`)) {
		t.Errorf("skopeo reads %s", out)
	}
	theirs := filepath.Join(dir, "theirs.tar")
	run("copy", "oci-archive:"+ours, "docker-archive:"+theirs+":team/app:3")
	img, err := openStore(t, t.TempDir()).Import(t.Context(), bytes.NewReader(must(os.ReadFile(theirs))(t)), ImportOptions{})
	if err != nil || img.Ref != "docker.io/team/app:3" || contentOf(t, img, "a") != "1" {
		t.Errorf("%+v, %v", img, err)
	}
	zipped := filepath.Join(dir, "zipped.tar")
	run("copy", "--dest-compress-format", "zstd", "--dest-compress", "oci-archive:"+ours, "oci-archive:"+zipped+":latest")
	far := openStore(t, t.TempDir())
	_, err = far.Import(t.Context(), bytes.NewReader(must(os.ReadFile(zipped))(t)), ImportOptions{})
	wantErr(t, err, errs.Invalid, "give it a reference")
	img, err = far.Import(t.Context(), bytes.NewReader(must(os.ReadFile(zipped))(t)), ImportOptions{Ref: "app"})
	if err != nil || img.Ref != "docker.io/library/app:latest" || contentOf(t, img, "a") != "1" {
		t.Errorf("%+v, %v", img, err)
	}
	wantClean(t, far)
}

func TestExportImportFlist(t *testing.T) {
	mini := must(os.ReadFile("testdata/mini.flist"))(t)
	srv := newFlistServer(t)
	srv.put("/u/x.flist", string(mini))
	s, _ := openFlists(t, t.TempDir(), func(c *Config) { c.Hub = srv.URL })
	was := must(s.Pull(t.Context(), "hub:u/x", nil))(t)
	data, kind := export(t, s, "hub:u/x")
	if kind != TypeFlist || !bytes.Equal(data, mini) {
		t.Errorf("kind %s, %d bytes", kind, len(data))
	}
	far, _ := openFlists(t, t.TempDir(), func(c *Config) { c.Hub = "http://127.0.0.1:1" })
	_, err := far.Import(t.Context(), bytes.NewReader(data), ImportOptions{})
	wantErr(t, err, errs.Invalid, "give it a reference")
	_, err = far.Import(t.Context(), bytes.NewReader(data), ImportOptions{Ref: "docker.io/u/x"})
	wantErr(t, err, errs.Invalid, "flists are called")
	img := must(far.Import(t.Context(), bytes.NewReader(data), ImportOptions{Ref: "hub:u/x"}))(t)
	if img.Digest != was.Digest || flistOf(t, img) != string(mini) || must(far.Ensure(t.Context(), "hub:u/x"))(t).Digest != was.Digest {
		t.Errorf("%+v", img)
	}
	sqlite := []byte("SQLite format 3\x00 and so on")
	if img := must(far.Import(t.Context(), bytes.NewReader(sqlite), ImportOptions{Ref: "https://h/x.fl"}))(t); flistOf(t, img) != string(sqlite) {
		t.Errorf("%+v", img)
	}
	wantFlists(t, far, 2)
}

func TestImportRefuses(t *testing.T) {
	s := openStore(t, t.TempDir())
	root := tarOf(t, map[string]string{"a": "1"})
	for name, tc := range map[string]struct {
		data []byte
		ref  string
		say  string
	}{
		"nothing":         {nil, "app", "nothing came"},
		"no name":         {root, "", "give it a reference"},
		"a path":          {root, "/srv/x", "called as in a registry"},
		"a path, flist":   {root, "/srv/x.flist", "called as in a registry"},
		"a URL":           {root, "https://h/x.tar", "called as in a registry"},
		"a digest":        {root, "app@sha256:" + strings.Repeat("0", 64), "give it a tag"},
		"a bad reference": {root, "App", "not valid"},
		"text":            {[]byte(strings.Repeat("hello ", 500)), "app", "neither a tar"},
		"cut":             {root[:700], "app", "archive"},
		"not an flist":    {root, "hub:a/b", "flists are called"},
	} {
		_, err := s.Import(t.Context(), bytes.NewReader(tc.data), ImportOptions{Ref: tc.ref})
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: %v; want Invalid with %q", name, err, tc.say)
		}
	}
	broken := errors.New("link went down")
	_, err := s.Import(t.Context(), io.MultiReader(bytes.NewReader(root), failing{broken}), ImportOptions{Ref: "app"})
	if !errors.Is(err, broken) {
		t.Errorf("a stream that breaks: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Import(ctx, bytes.NewReader(root), ImportOptions{Ref: "app"}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	full(t, s, 1)
	_, err = s.Import(t.Context(), bytes.NewReader(root), ImportOptions{Ref: "app"})
	wantErr(t, err, errs.Unavailable, "in reserve")
	s.cfg.Reserve = 0
	wantClean(t, s)
	img := must(s.Import(t.Context(), bytes.NewReader(root), ImportOptions{Ref: "app"}))(t)
	if contentOf(t, img, "a") != "1" {
		t.Errorf("%+v", img)
	}
	local := must(s.Pull(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "root.tar"), root), nil))(t)
	data, _ := export(t, s, local.Ref)
	_, err = s.Import(t.Context(), bytes.NewReader(data), ImportOptions{})
	wantErr(t, err, errs.Invalid, "give it a reference")
	for ref, kind := range map[string]errs.Kind{"none": errs.NotFound, t.TempDir(): errs.Invalid, "": errs.Invalid} {
		err := s.Export(t.Context(), ref, func(string) io.Writer { t.Error("it has begun"); return io.Discard })
		if !errors.Is(err, kind) {
			t.Errorf("Export(%q) = %v", ref, err)
		}
	}
	if err := s.Export(t.Context(), "app", func(string) io.Writer { return failing{broken} }); !errors.Is(err, broken) {
		t.Errorf("a reader that has gone: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestImportUnderPolicy(t *testing.T) {
	s, policy := openPolicy(t)
	key := newSigner(t)
	root := tarOf(t, map[string]string{"a": "1"})
	_, err := s.Import(t.Context(), bytes.NewReader(root), ImportOptions{Ref: "r.example/app"})
	wantErr(t, err, errs.Invalid, "rejected")
	writePolicy(t, policy, "reject", ruleText{Prefix: "r.example", Do: "signed", Keys: []string{key.pem}})
	_, err = s.Import(t.Context(), bytes.NewReader(root), ImportOptions{Ref: "r.example/app"})
	wantErr(t, err, errs.Invalid, "none beside it")
	_, err = s.Import(t.Context(), bytes.NewReader(root), ImportOptions{Ref: "r.example/app", Signature: string(key.sign(t, []byte("x")))})
	wantErr(t, err, errs.Invalid, "other content")
	img := must(s.Import(t.Context(), bytes.NewReader(root), ImportOptions{Ref: "r.example/app", Signature: string(key.sign(t, root))}))(t)
	if img.SignedBy != key.id(t) || s.Allowed(img) != nil {
		t.Errorf("%+v", img)
	}
	wantClean(t, s)
}

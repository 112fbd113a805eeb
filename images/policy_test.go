package images

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/buoy-edge/buoy/internal/errs"
)

// signer signs as cosign does.
type signer struct {
	crypto.Signer
	pem string
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	return signerOf(t, key)
}

func signerOf(t *testing.T, key crypto.Signer) signer {
	t.Helper()
	der := must(x509.MarshalPKIXPublicKey(key.Public()))(t)
	return signer{key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

func (s signer) id(t *testing.T) string {
	t.Helper()
	sum := sha256.Sum256(must(x509.MarshalPKIXPublicKey(s.Public()))(t))
	return fmt.Sprintf("sha256:%x", sum)
}

func (s signer) sign(t *testing.T, data []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(data)
	message, opts := sum[:], crypto.SignerOpts(crypto.SHA256)
	if _, ok := s.Signer.(ed25519.PrivateKey); ok {
		message, opts = data, crypto.Hash(0)
	}
	return []byte(base64.StdEncoding.EncodeToString(must(s.Sign(rand.Reader, message, opts))(t)))
}

// image is the image that cosign pushes for an image with that digest, named so.
func (s signer) image(t *testing.T, reference, digest string) v1.Image {
	t.Helper()
	doc := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, reference, digest)
	return must(mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
		Layer: static.NewLayer(doc, cosignDocument), Annotations: map[string]string{cosignAnnotation: string(s.sign(t, doc))},
	}))(t)
}

func sigTag(repo, digest string) string {
	return repo + ":" + strings.Replace(digest, ":", "-", 1) + ".sig"
}

type ruleText struct {
	Prefix   string   `json:"prefix"`
	Do       string   `json:"do"`
	Keys     []string `json:"keys,omitempty"`
	SignedAs string   `json:"signedAs,omitempty"`
}

// writePolicy puts a policy into file, in the place of another one.
func writePolicy(t *testing.T, file, byDefault string, rules ...ruleText) {
	t.Helper()
	data := must(json.Marshal(map[string]any{"default": byDefault, "rules": rules}))(t)
	writeFile(t, file+".new", data)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func openPolicy(t *testing.T) (s *Store, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "policy.json")
	writePolicy(t, file, "reject")
	s, _ = openFlists(t, t.TempDir(), func(c *Config) { c.Policy = file })
	return s, file
}

func TestPolicyOfRegistries(t *testing.T) {
	reg := newRegistry(t)
	s, policy := openPolicy(t)
	good, other := newSigner(t), newSigner(t)
	repo := reg.host + "/team/app"
	img := imageOf(t, layerOf(t, map[string]string{"a": "1"}))
	ref, digest := reg.push(t, "team/app:1", img), must(img.Digest())(t).String()

	_, err := s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "rejected by the image policy", "its default")
	if n := reg.count("manifests"); n != 0 {
		t.Errorf("%d requests for an image that is rejected", n)
	}
	signedRule := ruleText{Prefix: reg.host + "/team", Do: "signed", Keys: []string{good.pem}}
	writePolicy(t, policy, "reject", signedRule)
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "needs a signature", "it has none", reg.host+"/team")

	push := func(sig v1.Image) { reg.push(t, strings.TrimPrefix(sigTag(repo, digest), reg.host+"/"), sig) }
	push(other.image(t, repo, digest))
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "none of the policy's keys")
	push(good.image(t, repo, "sha256:"+strings.Repeat("0", 64)))
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "signature is for")
	push(good.image(t, reg.host+"/team/other", digest))
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "of "+repo)
	push(imageOf(t, layerOf(t, map[string]string{"x": "y"})))
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "no signature of cosign")
	wantClean(t, s) // nothing was unpacked
	if n := len(s.layers); n != 0 || reg.count("blobs/"+layerDigests(t, img)[0]) != 0 {
		t.Errorf("%d layers came of an image that is not signed", n)
	}

	push(good.image(t, repo, digest))
	got := must(s.Pull(t.Context(), ref, nil))(t)
	if got.SignedBy != good.id(t) {
		t.Errorf("SignedBy = %q, want %q", got.SignedBy, good.id(t))
	}
	if err := s.Allowed(got); err != nil {
		t.Error(err)
	}
	byDigest := must(s.Pull(t.Context(), repo+"@"+digest, nil))(t)
	if byDigest.SignedBy != good.id(t) {
		t.Errorf("by digest: %q", byDigest.SignedBy)
	}

	// The policy changes; the image that is here is judged anew.
	writePolicy(t, policy, "reject", ruleText{Prefix: reg.host + "/team", Do: "signed", Keys: []string{other.pem}})
	wantErr(t, s.Allowed(got), errs.Invalid, good.id(t), "does not trust")
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "none of the policy's keys")
	push(other.image(t, repo, digest))
	reg.set(nil)
	got = must(s.Pull(t.Context(), ref, nil))(t)
	if got.SignedBy != other.id(t) || s.Allowed(got) != nil || reg.count("blobs/"+layerDigests(t, img)[0]) != 0 {
		t.Errorf("%+v, %v", got, s.Allowed(got))
	}
	writePolicy(t, policy, "accept", ruleText{Prefix: repo, Do: "reject"})
	wantErr(t, s.Allowed(got), errs.Invalid, "rejected")
	_, err = s.Ensure(t.Context(), ref) // as a start does
	wantErr(t, err, errs.Invalid, "rejected")
	writeFile(t, policy, []byte("{"))
	wantErr(t, s.Allowed(got), errs.Invalid, policy)
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, policy)
	if err := os.Remove(policy); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s.Allowed(got), errs.Unavailable, policy)
	_, err = Open(Config{Dir: t.TempDir(), Policy: policy})
	wantErr(t, err, errs.Unavailable, policy)
}

// TestSignatureAtOrigin: a mirror that has the image but not its signature, and one that has a wrong one.
func TestSignatureAtOrigin(t *testing.T) {
	reg, mirror := newRegistry(t), newRegistry(t)
	key, other := newSigner(t), newSigner(t)
	img := imageOf(t, layerOf(t, map[string]string{"a": "1"}))
	digest := must(img.Digest())(t).String()
	ref := reg.push(t, "app:1", img)
	mirror.push(t, "app:1", img)
	reg.push(t, "app:"+strings.Replace(digest, ":", "-", 1)+".sig", key.image(t, reg.host+"/app", digest))
	for _, wrong := range []bool{false, true} {
		policy := filepath.Join(t.TempDir(), "p.json")
		writePolicy(t, policy, "reject", ruleText{Prefix: reg.host, Do: "signed", Keys: []string{key.pem}})
		s := openStore(t, t.TempDir(), func(c *Config) {
			c.Policy, c.Mirrors = policy, map[string][]string{reg.host: {mirror.host}}
		})
		if wrong {
			mirror.push(t, "app:"+strings.Replace(digest, ":", "-", 1)+".sig", other.image(t, mirror.host+"/app", digest))
		}
		if got := must(s.Pull(t.Context(), ref, nil))(t); got.SignedBy != key.id(t) {
			t.Errorf("%+v", got)
		}
	}
}

// TestSignatureOfCopy: signed under the name it had elsewhere, and found as a referrer.
func TestSignatureOfCopy(t *testing.T) {
	reg := newRegistry(t)
	key := newSigner(t)
	img := imageOf(t, layerOf(t, map[string]string{"a": "1"}))
	digest := must(img.Digest())(t).String()
	ref := reg.push(t, "copies/app:1", img)
	s, policy := openPolicy(t)
	writePolicy(t, policy, "reject", ruleText{Prefix: reg.host + "/copies", Do: "signed", Keys: []string{key.pem}, SignedAs: "docker.io/team"})

	sig := key.image(t, "index.docker.io/team/app", digest)
	sigDigest := must(sig.Digest())(t)
	if err := remote.Write(must(name.NewDigest(reg.host+"/copies/app@"+sigDigest.String()))(t), sig); err != nil {
		t.Fatal(err)
	}
	index := must(json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		{MediaType: types.OCIManifestSchema1, Digest: sigDigest, Size: must(sig.Size())(t), ArtifactType: cosignReferrer},
	}}))(t)
	reg.set(func(w http.ResponseWriter, r *http.Request, _ int) http.ResponseWriter {
		if strings.HasSuffix(r.URL.Path, "/referrers/"+digest) {
			_, _ = w.Write(index)
			return nil
		}
		return w
	})
	if got := must(s.Pull(t.Context(), ref, nil))(t); got.SignedBy != key.id(t) {
		t.Errorf("%+v", got)
	}
}

func TestPolicyOfFiles(t *testing.T) {
	_, ed := must2(ed25519.GenerateKey(rand.Reader))(t)
	for name, key := range map[string]signer{"ecdsa": newSigner(t), "ed25519": signerOf(t, ed)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tarFile := writeFile(t, filepath.Join(dir, "root.tar"), tarOf(t, map[string]string{"a": "1"}))
			list := writeFile(t, filepath.Join(dir, "x.flist"), []byte("one"))
			srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
			defer srv.Close()
			s, policy := openPolicy(t)
			rules := []ruleText{{Prefix: dir, Do: "signed", Keys: []string{key.pem}}, {Prefix: srv.URL, Do: "signed", Keys: []string{key.pem}}}
			writePolicy(t, policy, "reject", rules...)
			for _, file := range []string{tarFile, list} {
				for _, ref := range []string{file, srv.URL + "/" + filepath.Base(file)} {
					_, err := s.Pull(t.Context(), ref, nil)
					wantErr(t, err, errs.Invalid, "none beside it", filepath.Base(file))
					writeFile(t, file+".sig", key.sign(t, []byte("other")))
					_, err = s.Pull(t.Context(), ref, nil)
					wantErr(t, err, errs.Invalid, "other content")
					writeFile(t, file+".sig", key.sign(t, must(os.ReadFile(file))(t)))
					got := must(s.Pull(t.Context(), ref, nil))(t)
					if got.SignedBy != key.id(t) || s.Allowed(got) != nil {
						t.Errorf("%s: %+v", ref, got)
					}
					if err := os.Remove(file + ".sig"); err != nil {
						t.Fatal(err)
					}
					must(s.Pull(t.Context(), ref, nil))(t) // nothing has changed
					writePolicy(t, policy, "reject", ruleText{Prefix: "/nowhere", Do: "accept"})
					wantErr(t, s.Allowed(got), errs.Invalid, "rejected")
					writePolicy(t, policy, "reject", rules...)
				}
			}
			wantClean(t, s)
		})
	}
}

func must2[A, B any](a A, b B, err error) func(*testing.T) (A, B) {
	return func(t *testing.T) (A, B) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
}

func TestPolicyOfDirectories(t *testing.T) {
	key := newSigner(t)
	s, policy := openPolicy(t)
	dir := t.TempDir()
	path := must(layout.Write(filepath.Join(dir, "oci"), empty.Index))(t)
	if err := path.AppendImage(imageOf(t, layerOf(t, map[string]string{"a": "1"}))); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := s.Pull(t.Context(), root, nil)
	wantErr(t, err, errs.Invalid, "rejected")
	wantErr(t, s.Allowed(must(s.Resolve(t.Context(), root))(t)), errs.Invalid, "rejected")
	writePolicy(t, policy, "reject", ruleText{Prefix: dir, Do: "signed", Keys: []string{key.pem}})
	_, err = s.Pull(t.Context(), root, nil)
	wantErr(t, err, errs.Invalid, "a directory cannot have")
	ref := "oci:" + string(path)
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "index.json.sig")
	writeFile(t, filepath.Join(string(path), "index.json.sig"), key.sign(t, []byte("x")))
	_, err = s.Pull(t.Context(), ref, nil)
	wantErr(t, err, errs.Invalid, "other content")
	writeFile(t, filepath.Join(string(path), "index.json.sig"), key.sign(t, must(os.ReadFile(filepath.Join(string(path), "index.json")))(t)))
	if got := must(s.Pull(t.Context(), ref, nil))(t); got.SignedBy != key.id(t) {
		t.Errorf("%+v", got)
	}
}

func TestPolicyName(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx": "docker.io/library/nginx", "ghcr.io/a/b:1": "ghcr.io/a/b", "/srv/../etc/x": "/etc/x", "oci:/srv/x:tag": "/srv/x",
		"https://h/good/../evil/x.tar": "https://h/evil/x.tar", "https://h/good/%2e%2e/evil/x.flist": "https://h/evil/x.flist",
		"http://h/a.tar?x": "http://h/a.tar", "hub:a/b": "hub:a/b.flist",
	} {
		if got := must(ParseRef(ref))(t).policyName(); got != want {
			t.Errorf("%s: %q, want %q", ref, got, want)
		}
	}
}

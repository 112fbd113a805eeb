package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func pemOf(t testing.TB, pub crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// signers is one of each kind.
func signers(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err1 := ed25519.GenerateKey(rand.Reader)
	ec, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ec384, err3 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rs, err4 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"ed25519": ed, "ecdsa": ec, "p384": ec384, "rsa": rs}
}

// sign is what cosign would write.
func sign(t testing.TB, s crypto.Signer, data []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(data)
	message, opts := sum[:], crypto.SignerOpts(crypto.SHA256)
	if _, ok := s.(ed25519.PrivateKey); ok {
		message, opts = data, crypto.Hash(0)
	}
	sig, err := s.Sign(rand.Reader, message, opts)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(base64.StdEncoding.EncodeToString(sig) + "\n")
}

func ruleFor(t testing.TB, signers ...crypto.Signer) Rule {
	t.Helper()
	r := Rule{Prefix: "r.example/team", Do: Signed}
	for _, s := range signers {
		k, err := ParseKey([]byte(pemOf(t, s.Public())))
		if err != nil {
			t.Fatal(err)
		}
		r.Keys = append(r.Keys, k)
	}
	return r
}

func TestBlob(t *testing.T) {
	all := signers(t)
	for name, s := range all {
		data := []byte("content of " + name)
		sig := sign(t, s, data)
		r := ruleFor(t, all["ed25519"], all["rsa"], all["p384"], all["ecdsa"])
		k, err := r.Blob(Bytes(data), sig)
		if err != nil || k.ID != ruleFor(t, s).Keys[0].ID || !r.Trusts(k.ID) {
			t.Errorf("%s: %v, %v", name, k.ID, err)
		}
		for other, o := range all {
			if _, err := ruleFor(t, o).Blob(Bytes(data), sig); (err == nil) != (other == name) {
				t.Errorf("signature of %s against the key of %s: %v", name, other, err)
			}
		}
		for what, bad := range map[string][]byte{"empty": nil, "no base64": []byte("!!"), "short": sig[:8], "garbage": []byte("AAAA")} {
			if _, err := r.Blob(Bytes(data), bad); !errors.Is(err, errs.Invalid) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if _, err := r.Blob(Bytes([]byte("other")), sig); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: other content: %v", name, err)
		}
	}
	c := Bytes(nil)
	c.Size = maxWhole + 1
	if _, err := ruleFor(t, all["ed25519"]).Blob(c, []byte("AAAA")); err == nil || !strings.Contains(err.Error(), "ECDSA key") {
		t.Errorf("a large file and Ed25519: %v", err)
	}
}

func document(reference, digest, kind string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, reference, digest, kind)
}

func TestImage(t *testing.T) {
	s := signers(t)["ecdsa"]
	digest := "sha256:" + strings.Repeat("ab", 32)
	normal := func(s string) string { return strings.ToLower(s) }
	for name, tc := range map[string]struct {
		doc      []byte
		signedAs string
		say      string // "" is fine
	}{
		"good":             {doc: document("r.example/team/app", digest, payloadType)},
		"spelt otherwise":  {doc: document("R.example/team/app", digest, payloadType)},
		"another digest":   {doc: document("r.example/team/app", "sha256:00", payloadType), say: "signature is for"},
		"another name":     {doc: document("r.example/team/other", digest, payloadType), say: "of r.example/team/app"},
		"another type":     {doc: document("r.example/team/app", digest, "atomic container signature"), say: "type"},
		"no JSON":          {doc: []byte("hello"), say: "document"},
		"copied":           {doc: document("origin.example/x/app", digest, payloadType), signedAs: "origin.example/x"},
		"copied, old name": {doc: document("r.example/team/app", digest, payloadType), signedAs: "origin.example/x", say: "origin.example/x/app"},
	} {
		r := ruleFor(t, s)
		r.SignedAs = tc.signedAs
		_, err := r.Image(tc.doc, sign(t, s, tc.doc), digest, "r.example/team/app", normal)
		if (err == nil) != (tc.say == "") || err != nil && (!errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.say)) {
			t.Errorf("%s: %v; want %q", name, err, tc.say)
		}
	}
	doc := document("r.example/team/app", digest, payloadType)
	if _, err := ruleFor(t, s).Image(append(doc, ' '), sign(t, s, doc), digest, "r.example/team/app", normal); !errors.Is(err, errs.Invalid) {
		t.Errorf("a document that was not signed: %v", err)
	}
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	key := pemOf(t, signers(t)["ecdsa"].Public())
	if err := os.WriteFile(filepath.Join(dir, "team.pub"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	inline, _ := json.Marshal(key)
	p, err := Parse(fmt.Appendf(nil, `{"default":"reject","rules":[
		{"prefix":"docker.io/library","do":"accept"},
		{"prefix":"docker.io/library/evil","do":"reject"},
		{"prefix":"r.example","do":"signed","keys":["team.pub",%s]},
		{"prefix":"hub:","do":"accept"},
		{"prefix":"/srv/images/","do":"accept"}]}`, inline), dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"docker.io/library/nginx": "docker.io/library", "docker.io/library": "docker.io/library", "docker.io/library2/x": "",
		"docker.io/library/evil": "docker.io/library/evil", "docker.io/library/evil/x": "docker.io/library/evil",
		"docker.io/library/evil2": "docker.io/library", "r.example/a/b": "r.example", "r.example.org/a": "", "ghcr.io/x": "",
		"hub:a/b.flist": "hub:", "/srv/images/x": "/srv/images/", "/srv/images2": "", "": "",
	} {
		if got := p.Rule(name); got.Prefix != want {
			t.Errorf("Rule(%q) = %q, want %q", name, got.Prefix, want)
		}
	}
	if r := p.Rule("r.example/a"); len(r.Keys) != 2 || r.Keys[0].ID != r.Keys[1].ID || r.Do != Signed {
		t.Errorf("%+v", r)
	}
}

func TestPolicyRefuses(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("SKIPPED: no small RSA key to be had: %v", err)
	}
	weak, _ := json.Marshal(pemOf(t, small.Public()))
	for text, say := range map[string]string{
		"":                               "EOF",
		"[]":                             "cannot unmarshal",
		"{}":                             "default",
		`{"default":"signed"}`:           "default",
		`{"default":"accept"}{}`:         "behind the end",
		`{"default":"accept","rule":[]}`: "unknown field",
		`{"default":"accept","rules":[{"do":"accept"}]}`:                                            "no prefix",
		`{"default":"accept","rules":[{"prefix":"a","do":"maybe"}]}`:                                "maybe",
		`{"default":"accept","rules":[{"prefix":"a","do":"signed"}]}`:                               "belong together",
		`{"default":"accept","rules":[{"prefix":"a","do":"accept","keys":["x"]}]}`:                  "belong together",
		`{"default":"accept","rules":[{"prefix":"a","do":"accept","signedAs":"x"}]}`:                "signedAs",
		`{"default":"accept","rules":[{"prefix":"a","do":"signed","keys":["none.pub"]}]}`:           "none.pub",
		`{"default":"accept","rules":[{"prefix":"a","do":"signed","keys":["-----BEGIN nothing"]}]}`: "PEM",
		`{"default":"accept","rules":[{"prefix":"a","do":"accept"},{"prefix":"a","do":"reject"}]}`:  "two rules",
		`{"default":"accept","rules":[{"prefix":"a","do":"signed","keys":[` + string(weak) + `]}]}`: "2048",
		`{"default":"accept","rules":[{"prefix":"` + strings.Repeat("a", maxPolicy) + `"}]}`:        "1 MiB",
	} {
		if _, err := Parse([]byte(text), t.TempDir()); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), say) {
			t.Errorf("Parse(%.80s) = %v; want Invalid with %q", text, err, say)
		}
	}
}

func FuzzImage(f *testing.F) {
	s := signers(f)["ecdsa"]
	r := ruleFor(f, s)
	doc := document("r", "d", payloadType)
	f.Add(doc, sign(f, s, doc))
	f.Fuzz(func(t *testing.T, doc, sig []byte) {
		_, err := r.Image(doc, sig, "d", "other", func(s string) string { return s })
		if !errors.Is(err, errs.Invalid) {
			t.Fatalf("%v", err)
		}
	})
}

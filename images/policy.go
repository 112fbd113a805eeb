package images

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/buoy-edge/buoy/images/signature"
	"github.com/buoy-edge/buoy/internal/errs"
)

// policyFile is the policy, read again when the file has changed. The zero value accepts everything.
type policyFile struct {
	path string

	mu     sync.Mutex // guards what follows
	stamp  fileStamp
	policy *signature.Policy
}

// load is the policy of this moment; one that cannot be read rejects everything. Nil: there is none.
func (f *policyFile) load() (*signature.Policy, error) {
	if f.path == "" {
		return nil, nil //nolint:nilnil // see above
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := os.Stat(f.path)
	if err != nil {
		return nil, errs.E(errs.Unavailable, "image policy: %w", err)
	}
	if stamp := stampOf(st); f.policy == nil || !f.stamp.equal(stamp) {
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nil, errs.E(errs.Unavailable, "image policy: %w", err)
		}
		p, err := signature.Parse(data, filepath.Dir(f.path))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		f.policy, f.stamp = p, stamp
	}
	return f.policy, nil
}

// policyName is what rules have prefixes of: the repository, the path, the URL, or hub:USER/NAME.
func (r Reference) policyName() string {
	switch {
	case r.Kind == Registry:
		return hubName(r.reg.Context().Name())
	case r.Path != "":
		return r.Path
	}
	u, err := url.Parse(r.text)
	if err != nil || u.Host == "" {
		return r.text
	}
	return u.Scheme + "://" + u.Host + path.Clean("/"+u.Path) // a rule for /a is not one for /a/../b
}

// admit is the rule for r, unless it rejects r.
func (s *Store) admit(r Reference) (signature.Rule, error) {
	p, err := s.policy.load()
	if err != nil {
		return signature.Rule{}, err
	}
	if p == nil {
		return signature.Rule{Do: signature.Accept}, nil
	}
	rule := p.Rule(r.policyName())
	if rule.Do == signature.Reject {
		return rule, errs.E(errs.Invalid, "image %q is rejected by the image policy of this node, by %s", r, rule)
	}
	return rule, nil
}

// Allowed is nil if the policy of this moment allows img to be started, and else says why not. An image needs the
// signature that was checked when it was pulled; Pull checks it anew.
func (s *Store) Allowed(img Image) error {
	r, err := ParseRef(img.Ref)
	if err != nil {
		return err
	}
	rule, err := s.admit(r)
	if err != nil {
		return err
	}
	return meets(rule, img)
}

// meets says whether img has what the rule asks for.
func meets(rule signature.Rule, img Image) error {
	switch {
	case rule.Do != signature.Signed, img.SignedBy != "" && rule.Trusts(img.SignedBy):
		return nil
	case img.Base == "":
		return errs.E(errs.Invalid, "image %q needs a signature by the image policy of this node, by %s, which a directory cannot have", img.Ref, rule)
	case img.SignedBy == "":
		return errs.E(errs.Invalid, "image %q was pulled without a signature, which the image policy of this node asks for by %s; pull it again", img.Ref, rule)
	}
	return errs.E(errs.Invalid, "image %q is signed by the key %s, which the image policy of this node does not trust by %s; pull it again", img.Ref, img.SignedBy, rule)
}

// maxSignature: a signature with RSA has 700 bytes in base64; a document that is signed can have annotations.
const maxSignature = 64 << 10

// signedBlob is the key that signed a file. fetch gets the signature beside it: nil if there is none.
func signedBlob(rule signature.Rule, digest string, n int64, f io.ReaderAt, fetch func() ([]byte, error)) (string, error) {
	if rule.Do != signature.Signed {
		return "", nil
	}
	sig, err := fetch()
	if err != nil {
		return "", err
	}
	if sig == nil {
		return "", errUnsigned(rule, "and there is none beside it")
	}
	c := signature.Content{Size: n, File: f}
	if _, err := hex.Decode(c.Digest[:], []byte(strings.TrimPrefix(digest, "sha256:"))); err != nil {
		return "", errs.E(errs.Internal, "digest %q: %w", digest, err)
	}
	k, err := rule.Blob(c, sig)
	if err != nil {
		return "", errUnsigned(rule, "but: "+err.Error())
	}
	return k.ID, nil
}

func errUnsigned(rule signature.Rule, but string) error {
	return errs.E(errs.Invalid, "it needs a signature by the image policy of this node, by %s, %s", rule, but)
}

// signatureFile reads what is beside a file of this node.
func signatureFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, maxSignature))
}

// signedLayout is the key that signed the index of an OCI layout, which names all the rest by digest.
func signedLayout(r Reference, rule signature.Rule, f files) (string, error) {
	if rule.Do != signature.Signed {
		return "", nil
	}
	index, err := readSmall(f, "index.json", maxManifest)
	if err != nil {
		return "", errLocal(r, err)
	}
	sig, err := signatureFile(filepath.Join(r.Path, "index.json.sig"))
	if err != nil {
		return "", errLocal(r, err)
	}
	if sig == nil {
		return "", errUnsigned(rule, "and there is no index.json.sig")
	}
	k, err := rule.Blob(signature.Bytes(index), sig)
	if err != nil {
		return "", errUnsigned(rule, "but: "+err.Error())
	}
	return k.ID, nil
}

// resign notes another key for content that is the same.
func (s *Store) resign(ctx context.Context, rec *record, key string) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	same := *rec
	same.Image.SignedBy = key
	return s.commit(&same)
}

// Package signature decides whether an image may be used: by a policy that says for which images whose signature is needed,
// and by signatures in the formats of cosign, checked with keys that are on this machine. It asks nobody.
package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Key is a public key.
type Key struct {
	ID  string // "sha256:" and the digest of the key in DER, as openssl pkey -pubin -outform DER | sha256sum
	pub crypto.PublicKey
}

// ParseKey reads a key in PEM: ECDSA, Ed25519, or RSA of at least 2048 bits.
func ParseKey(text []byte) (Key, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return Key{}, errs.E(errs.Invalid, "it is not one public key in PEM (-----BEGIN PUBLIC KEY-----)")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Key{}, errs.E(errs.Invalid, "public key: %w", err)
	}
	switch k := pub.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return Key{}, errs.E(errs.Invalid, "RSA key has %d bits, 2048 are the least", k.N.BitLen())
		}
	default:
		return Key{}, errs.E(errs.Invalid, "public key is neither ECDSA, Ed25519 nor RSA")
	}
	sum := sha256.Sum256(block.Bytes)
	return Key{ID: "sha256:" + hex.EncodeToString(sum[:]), pub: pub}, nil
}

// maxWhole bounds what is read into memory for Ed25519, which signs content and not its digest.
const maxWhole = 64 << 20

// Content is what a detached signature is for.
type Content struct {
	Digest [sha256.Size]byte
	Size   int64
	File   io.ReaderAt
}

// Bytes is content in memory.
func Bytes(data []byte) Content {
	return Content{Digest: sha256.Sum256(data), Size: int64(len(data)), File: bytes.NewReader(data)}
}

func (k Key) verify(c Content, sig []byte) (bool, error) {
	switch pub := k.pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, c.Digest[:], sig), nil
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, c.Digest[:], sig) == nil, nil
	case ed25519.PublicKey:
		if c.Size > maxWhole {
			return false, errs.E(errs.Invalid, "an Ed25519 key signs whole files, which is checked up to 64 MiB: sign larger ones with an ECDSA key")
		}
		data := make([]byte, c.Size)
		if _, err := c.File.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		// The digest is what is unpacked; the file may have changed since it was computed.
		return sha256.Sum256(data) == c.Digest && ed25519.Verify(pub, data, sig), nil
	}
	panic("BUG: key of an unknown kind")
}

// Blob says which of the rule's keys has made the detached signature, in base64, of content.
func (r Rule) Blob(c Content, signature []byte) (Key, error) {
	sig, err := base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(signature))
	if err != nil || len(sig) == 0 {
		return Key{}, errs.E(errs.Invalid, "signature is not base64")
	}
	for _, k := range r.Keys {
		ok, err := k.verify(c, sig)
		if err != nil {
			return Key{}, err
		}
		if ok {
			return k, nil
		}
	}
	return Key{}, errs.E(errs.Invalid, "signature is of none of the policy's keys, or of other content")
}

// payload is the "simple signing" document that cosign signs for an image.
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
}

const payloadType = "cosign container image signature"

// Image says which of the rule's keys has signed that the manifest with that digest is an image of the repository.
// normal spells repositories so that equal ones are the same text.
func (r Rule) Image(document, signature []byte, digest, repository string, normal func(string) string) (Key, error) {
	k, err := r.Blob(Bytes(document), signature)
	if err != nil {
		return Key{}, err
	}
	var p payload
	if err := json.Unmarshal(document, &p); err != nil {
		return Key{}, errs.E(errs.Invalid, "signed document: %w", err)
	}
	switch want := r.identity(repository); {
	case p.Critical.Type != payloadType:
		return Key{}, errs.E(errs.Invalid, "signed document is of type %q, not %q", p.Critical.Type, payloadType)
	case p.Critical.Image.Digest != digest:
		return Key{}, errs.E(errs.Invalid, "signature is for %q, not %s", p.Critical.Image.Digest, digest)
	case normal(p.Critical.Identity.Reference) != want:
		return Key{}, errs.E(errs.Invalid, "signature is for an image of %q, not of %s", p.Critical.Identity.Reference, want)
	}
	return k, nil
}

// String names the rule in messages.
func (r Rule) String() string {
	if r.Prefix == "" {
		return "its default"
	}
	return fmt.Sprintf("its rule for %q", r.Prefix)
}

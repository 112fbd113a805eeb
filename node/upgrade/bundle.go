package upgrade

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Manifest is what a bundle says of itself; the signature is of its bytes.
type Manifest struct {
	Version string `json:"version"`
	Arch    string `json:"arch"` // as Go calls it
	Files   []File `json:"files"`
}

// File is a program.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // unpacked
	SHA256 string `json:"sha256"`
}

// A bundle is a tar archive of these two, and then of each program as NAME.zst.
// So nothing of a stranger's is unpacked, or even received, before the
// signature has been looked at.
const (
	manifestName  = "manifest.json"
	signatureName = "manifest.sig"
)

// Program is the one that is started.
const Program = "buoyd"

// needed are the programs that a node cannot do without.
var needed = []string{Program, "buoy-flist", "buoy-init", "buoy-reaper", "buoy-shim"}

// Bounds: programs of buoy take some 60 MiB together.
const (
	maxManifest = 64 << 10
	maxFiles    = 32
	maxSize     = 1 << 30 // of all files, unpacked
)

var (
	programName = regexp.MustCompile(`^buoy[a-z0-9-]{0,28}$`)
	versionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,99}$`)
)

// bundle is an archive whose manifest is genuine.
type bundle struct {
	Manifest
	id  string // names its directory
	tar *tar.Reader
}

// readKeys reads the public keys of a directory. Conflict: there is none.
func readKeys(dir string) ([]ed25519.PublicKey, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, err
	}
	var keys []ed25519.PublicKey
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a key of upgrades: %w", err)
		}
		block, _ := pem.Decode(raw)
		if block == nil || block.Type != "PUBLIC KEY" {
			return nil, errs.E(errs.Conflict, "%s is not a public key in PEM", file)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		ed, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, errs.E(errs.Conflict, "%s is not a key of Ed25519", file)
		}
		keys = append(keys, ed)
	}
	if len(keys) == 0 {
		return nil, errs.E(errs.Conflict, "this node trusts nobody's bundles: put the public key of who signs them into %s, as NAME.pem", dir)
	}
	return keys, nil
}

// open reads a bundle up to where its programs begin, and verifies it.
func open(r io.Reader, keys []ed25519.PublicKey) (*bundle, error) {
	b := &bundle{tar: tar.NewReader(r)}
	manifest, err := b.head(manifestName)
	if err != nil {
		return nil, err
	}
	signature, err := b.head(signatureName)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return ed25519.Verify(k, manifest, signature) }) {
		return nil, errs.E(errs.Invalid, "the bundle is not signed by anybody whom this node trusts")
	}
	d := json.NewDecoder(bytes.NewReader(manifest))
	d.DisallowUnknownFields() // what is meant to be obeyed must be understood
	if err := d.Decode(&b.Manifest); err != nil {
		return nil, errs.E(errs.Invalid, "the manifest of the bundle: %w", err)
	}
	sum := sha256.Sum256(manifest)
	b.id = b.Version + "-" + hex.EncodeToString(sum[:6])
	return b, b.check()
}

// head reads one of the two members that come first.
func (b *bundle) head(name string) ([]byte, error) {
	h, err := b.tar.Next()
	if err != nil {
		return nil, damaged(err)
	}
	if h.Name != name || h.Typeflag != tar.TypeReg || h.Size > maxManifest {
		return nil, errs.E(errs.Invalid, "this is not a bundle: %q is where %s should be", h.Name, name)
	}
	raw, err := io.ReadAll(b.tar)
	if err != nil {
		return nil, damaged(err)
	}
	return raw, nil
}

// damaged makes a sentence of what the readers of archives say.
func damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.E(errs.Invalid, "the bundle ends too early")
	}
	return errs.E(errs.Invalid, "the bundle cannot be read: %w", err)
}

// check looks at the manifest.
func (b *bundle) check() error {
	if !versionName.MatchString(b.Version) {
		return errs.E(errs.Invalid, "the manifest of the bundle: %q is no version", b.Version)
	}
	if b.Arch != runtime.GOARCH {
		return errs.E(errs.Invalid, "the bundle is for %s, and this machine is %s", b.Arch, runtime.GOARCH)
	}
	var total int64
	names := []string{}
	for _, f := range b.Files {
		if !programName.MatchString(f.Name) || slices.Contains(names, f.Name) || f.Size <= 0 || f.Size > maxSize {
			return errs.E(errs.Invalid, "the manifest of the bundle: %q of %d bytes is no program of buoy, or there twice", f.Name, f.Size)
		}
		names, total = append(names, f.Name), total+f.Size
	}
	if total > maxSize || len(names) > maxFiles {
		return errs.E(errs.Invalid, "the bundle is too large: %d programs of %d MiB", len(names), total>>20)
	}
	for _, n := range needed {
		if !slices.Contains(names, n) {
			return errs.E(errs.Invalid, "the bundle lacks %s", n)
		}
	}
	return nil
}

// unpack writes the programs into dir, durably, and verifies each.
func (b *bundle) unpack(dir string, fail func(string)) error {
	left := map[string]File{}
	for _, f := range b.Files {
		left[f.Name+".zst"] = f
	}
	for len(left) > 0 {
		h, err := b.tar.Next()
		if err != nil {
			return damaged(err)
		}
		f, ok := left[h.Name]
		if !ok || h.Typeflag != tar.TypeReg {
			return errs.E(errs.Invalid, "the bundle holds %q, which its manifest does not list", h.Name)
		}
		delete(left, h.Name)
		if err := b.program(filepath.Join(dir, f.Name), f); err != nil {
			return err
		}
		fail("unpacking " + f.Name)
	}
	return atomicfile.SyncDir(dir)
}

// program unpacks one.
func (b *bundle) program(path string, f File) (err error) {
	z, err := zstd.NewReader(b.tar, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", f.Name, err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	w := &writer{to: io.MultiWriter(out, sum)}
	n, err := io.Copy(w, io.LimitReader(z, f.Size+1))
	switch {
	case w.err != nil:
		return fmt.Errorf("unpack %s: %w", f.Name, w.err)
	case err != nil:
		return damaged(err)
	case n != f.Size || hex.EncodeToString(sum.Sum(nil)) != f.SHA256:
		return errs.E(errs.Invalid, "the bundle is damaged: %s is not what the manifest says", f.Name)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("unpack %s: %w", f.Name, err)
	}
	return nil
}

// writer tells errors of writing from those of reading.
type writer struct {
	to  io.Writer
	err error
}

func (w *writer) Write(p []byte) (n int, err error) {
	n, w.err = w.to.Write(p)
	return n, w.err
}

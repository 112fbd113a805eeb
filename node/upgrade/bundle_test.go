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
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/buoy-edge/buoy/internal/errs"
)

// signer is a key that nobody else has.
var signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// member is one of an archive.
type member struct {
	name string
	data []byte
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(m.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func squeeze(t testing.TB, data string) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll([]byte(data), nil)
}

// programs are those of a bundle, by name.
func programs() map[string]string {
	all := map[string]string{}
	for _, n := range needed {
		all[n] = "#!/bin/sh\necho buoyd v2.0.0\n"
	}
	return all
}

// members are those of a bundle; edit changes its manifest before it is signed.
func members(t testing.TB, edit func(*Manifest)) []member {
	t.Helper()
	m := Manifest{Version: "v2.0.0", Arch: runtime.GOARCH}
	all := []member{{}, {}}
	for name, data := range programs() {
		sum := sha256.Sum256([]byte(data))
		m.Files = append(m.Files, File{name, int64(len(data)), hex.EncodeToString(sum[:])})
		all = append(all, member{name + ".zst", squeeze(t, data)})
	}
	if edit != nil {
		edit(&m)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	all[0], all[1] = member{manifestName, raw}, member{signatureName, ed25519.Sign(signer, raw)}
	return all
}

// keysDir trusts signer.
func keysDir(t testing.TB) string {
	t.Helper()
	raw, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw})
	if err := os.WriteFile(filepath.Join(dir, "us.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// unpackAll opens and unpacks a bundle.
func unpackAll(t testing.TB, raw []byte, dir string) error {
	t.Helper()
	keys, err := readKeys(keysDir(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := open(bytes.NewReader(raw), keys)
	if err != nil {
		return err
	}
	return b.unpack(dir, func(string) {})
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	if err := unpackAll(t, archive(t, members(t, nil)...), dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range programs() {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v", name, got, err)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		manifest func(*Manifest)
		archive  func([]member) []member
		says     string
	}{
		"another arch":  {func(m *Manifest) { m.Arch = "vax" }, nil, "for vax"},
		"no version":    {func(m *Manifest) { m.Version = "" }, nil, "no version"},
		"a path":        {func(m *Manifest) { m.Version = "../../etc" }, nil, "no version"},
		"a program out": {func(m *Manifest) { m.Files[0].Name = "../buoyd" }, nil, "no program"},
		"somebody's":    {func(m *Manifest) { m.Files[0].Name = "sh" }, nil, "no program"},
		"twice":         {func(m *Manifest) { m.Files[0] = m.Files[1] }, nil, "twice"},
		"lacking":       {func(m *Manifest) { m.Files = m.Files[1:] }, nil, "lacks"},
		"too large":     {func(m *Manifest) { m.Files[0].Size = maxSize + 1 }, nil, "no program"},
		"all too large": {func(m *Manifest) { m.Files[0].Size, m.Files[1].Size = maxSize, maxSize }, nil, "too large"},
		"another sum":   {func(m *Manifest) { m.Files[0].SHA256 = strings.Repeat("0", 64) }, nil, "damaged"},
		"longer":        {func(m *Manifest) { m.Files[0].Size-- }, nil, "damaged"},
		"shorter":       {func(m *Manifest) { m.Files[0].Size++ }, nil, "damaged"},

		"edited":          {nil, func(m []member) []member { m[0].data = append(m[0].data, '\n'); return m }, "not signed"},
		"unsigned":        {nil, func(m []member) []member { return append(m[:1], m[2:]...) }, "manifest.sig should be"},
		"short signature": {nil, func(m []member) []member { m[1].data = m[1].data[:63]; return m }, "not signed"},
		"other order":     {nil, func(m []member) []member { m[0], m[2] = m[2], m[0]; return m }, "manifest.json should be"},
		"a bomb":          {nil, func(m []member) []member { m[2].data = squeeze(t, strings.Repeat("\x00", 64<<20)); return m }, "damaged"},
		"no zstd":         {nil, func(m []member) []member { m[2].data = []byte("plain"); return m }, ""},
		"unknown":         {nil, func(m []member) []member { m[2].name = "buoy-x.zst"; return m }, "does not list"},
		"again":           {nil, func(m []member) []member { m[3] = m[2]; return m }, "does not list"},
		"missing":         {nil, func(m []member) []member { return m[:len(m)-1] }, "too early"},
		"huge manifest":   {nil, func(m []member) []member { m[0].data = make([]byte, maxManifest+1); return m }, "not a bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			all := members(t, tt.manifest)
			if tt.archive != nil {
				all = tt.archive(all)
			}
			if err := unpackAll(t, archive(t, all...), t.TempDir()); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want invalid saying %q", err, tt.says)
			}
		})
	}
	raw := archive(t, members(t, nil)...)
	for n := range raw[:len(raw)-3*512] { // what comes then is the last program, and the end
		if n%97 == 0 {
			if err := unpackAll(t, raw[:n], t.TempDir()); !errors.Is(err, errs.Invalid) {
				t.Errorf("the first %d bytes: %v, want invalid", n, err)
			}
		}
	}
}

func TestReadKeys(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "no PEM": "x", "a private key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"damaged": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
	} {
		dir := keysDir(t)
		if err := os.WriteFile(filepath.Join(dir, "bad.pem"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readKeys(dir); !errors.Is(err, errs.Conflict) {
			t.Errorf("%s: %v, want a conflict", name, err)
		}
	}
	if _, err := readKeys(filepath.Join(t.TempDir(), "none")); !errors.Is(err, errs.Conflict) {
		t.Errorf("no keys: %v, want a conflict", err)
	}
}

// FuzzUnpack has a genuine manifest, and then whatever comes.
func FuzzUnpack(f *testing.F) {
	raw := archive(f, members(f, nil)...)
	r := bytes.NewReader(raw)
	keys, err := readKeys(keysDir(f))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := open(r, keys); err != nil {
		f.Fatal(err)
	}
	head := raw[:(len(raw)-r.Len()+511)/512*512]
	rest := raw[len(head):]
	f.Add(rest)
	f.Add(rest[:len(rest)/2])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, rest []byte) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		b, err := open(io.MultiReader(bytes.NewReader(head), bytes.NewReader(rest)), keys)
		if err != nil {
			t.Fatal(err)
		}
		if b.unpack(dir, func(string) {}) != nil {
			return
		}
		for name, want := range programs() {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s = %q, %v, and nobody has signed it", name, got, err)
			}
		}
	})
}

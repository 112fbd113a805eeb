// Package seal keeps secrets that lie on a disk from who has the disk, or a
// copy of what is on it, but not the key.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
)

// mark begins what is sealed: "sealed-1:KEY:BASE64", with the first digits of
// the key's hash, so that a key that is missing can be named.
const mark = "sealed-1:"

// size is that of a key, for AES-256-GCM.
const size = 32

// Keys seal and open secrets: the first seals, all open. Without a usable key
// both fail, and say why; nil has none.
type Keys struct {
	from string
	keys []key
	err  error
}

type key struct {
	id   string
	aead cipher.AEAD
}

// New is a key that is nowhere but here.
func New() *Keys {
	k, err := read("memory", fresh())
	return &Keys{from: "memory", keys: k, err: err}
}

func fresh() []byte {
	var raw [size]byte
	rand.Read(raw[:]) // never fails
	return append(base64.StdEncoding.AppendEncode(nil, raw[:]), '\n')
}

// Load reads the keys of a file: one a line, 32 bytes in base64. With create it
// makes the file, with a key, if it is not there.
func Load(path string, create bool) *Keys {
	k := &Keys{from: path}
	text, err := os.ReadFile(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		text = fresh()
		err = atomicfile.Write(path, text, 0o600)
	}
	if err == nil {
		k.keys, err = read(path, text)
	}
	if err != nil {
		k.err = errs.E(errs.Unavailable, "there is no key for secrets: %w", err)
	}
	return k
}

func read(path string, text []byte) (all []key, err error) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != size {
			return nil, fmt.Errorf("%s has a line that is not %d bytes in base64", path, size)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(append([]byte("buoy key "), raw...))
		all = append(all, key{hex.EncodeToString(sum[:4]), aead})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no key in it", path)
	}
	return all, nil
}

// Err says why there is no usable key. Unavailable.
func (k *Keys) Err() error {
	if k == nil {
		return errs.E(errs.Unavailable, "there is no key for secrets")
	}
	return k.err
}

// Seal makes text of a value that Open takes for the same name alone.
func (k *Keys) Seal(name, value string) (string, error) {
	if err := k.Err(); err != nil {
		return "", err
	}
	first := k.keys[0]
	sealed := first.aead.Seal(nil, nil, []byte(value), []byte(name))
	return mark + first.id + ":" + base64.RawStdEncoding.EncodeToString(sealed), nil
}

// Open is the value of text. What was never sealed is its own value. Unavailable:
// its key is not here; Invalid: it was changed, or sealed for another name.
func (k *Keys) Open(name, text string) (string, error) {
	rest, sealed := strings.CutPrefix(text, mark)
	if !sealed {
		return text, nil
	}
	if err := k.Err(); err != nil {
		return "", err
	}
	id, code, _ := strings.Cut(rest, ":")
	i := slices.IndexFunc(k.keys, func(k key) bool { return k.id == id })
	if i < 0 {
		return "", errs.E(errs.Unavailable, "it was sealed with key %.8q, which is not in %s: add that key's line there and restart buoyd, or give the secret anew", id, k.from)
	}
	raw, err := base64.RawStdEncoding.DecodeString(code)
	if err == nil {
		raw, err = k.keys[i].aead.Open(nil, nil, raw, []byte(name))
	}
	if err != nil {
		return "", errs.E(errs.Invalid, "it was changed on the disk, or belongs to something else: give the secret anew")
	}
	return string(raw), nil
}

// Stale says that text had better be sealed anew: it never was, or with a key
// that is not the first any more.
func (k *Keys) Stale(text string) bool {
	return k.Err() == nil && !strings.HasPrefix(text, mark+k.keys[0].id+":")
}

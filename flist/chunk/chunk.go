// Package chunk turns pieces of files into what a chunk store keeps, and back.
//
// A piece of at most Size bytes is compressed (a raw snappy block) and encrypted under the hash of its own content; its
// name in the store is the hash of the result. So whoever has the flist can read, nobody else can, and equal pieces are
// one chunk whoever packed them. There are two such schemes, told apart by the length of the name:
//
//	era C, ".flist"  BLAKE2b-128, XXTEA        16 bytes
//	era D, ".fl"     BLAKE2b-256, AES-256-GCM  32 bytes
package chunk

import (
	"encoding/hex"
	"sync"

	"github.com/golang/snappy"
	"golang.org/x/crypto/blake2b"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Size is what files are cut into, in bytes; the last piece of a file is shorter.
const Size = 512 << 10

// MaxSize is the longest piece that is read: 0-fs multiplies a number of 16 bits by 4096, and no packer is known that used
// more than Size.
const MaxSize = 16 << 20

// ID is the name of a chunk in a store: 16 or 32 raw bytes.
type ID string

// String is the name in hexadecimal, as in directories and URLs.
func (id ID) String() string { return hex.EncodeToString([]byte(id)) }

// Ref is how an flist names a piece of a file.
type Ref struct {
	ID  ID     // hash of what the store has
	Key string // hash of the plain bytes, and the key to them
}

// Scheme is a way to hash and encrypt.
type Scheme int

// The schemes.
const (
	XXTEA Scheme = iota + 1 // of era C
	GCM                     // of era D
)

// SchemeOf says how a chunk of that name is encrypted; errs.Invalid for a name of another length.
func SchemeOf(id ID) (Scheme, error) {
	switch len(id) {
	case 16:
		return XXTEA, nil
	case 32:
		return GCM, nil
	}
	return 0, errs.E(errs.Invalid, "a chunk's name has %d bytes, not 16 or 32", len(id))
}

// buffers are for what is compressed and not encrypted: nobody sees that.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// hash is the scheme's name for those bytes.
func (s Scheme) hash(b []byte) string {
	if s == GCM {
		h := blake2b.Sum256(b)
		return string(h[:])
	}
	h, err := blake2b.New(16, nil)
	if err != nil {
		panic("BUG: BLAKE2b has no 16 bytes: " + err.Error())
	}
	h.Write(b)
	return string(h.Sum(nil))
}

// Seal is how plain is stored, and its names. The same bytes give the same result.
func (s Scheme) Seal(plain []byte) (Ref, []byte) {
	key := s.hash(plain)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if n := snappy.MaxEncodedLen(len(plain)); n > len(*buf) {
		*buf = make([]byte, n)
	}
	packed := snappy.Encode(*buf, plain)
	var stored []byte
	if s == GCM {
		stored = sealGCM(packed, key)
	} else {
		stored = sealXXTEA(packed, key)
	}
	return Ref{ID: ID(s.hash(stored)), Key: key}, stored
}

// Open is the size plain bytes of a chunk. Both hashes are checked before a byte is returned: errs.Invalid if stored is
// not that chunk.
func (r Ref) Open(stored []byte, size int) ([]byte, error) {
	s, err := SchemeOf(r.ID)
	if err != nil {
		return nil, err
	}
	if got := s.hash(stored); got != string(r.ID) {
		return nil, errs.E(errs.Invalid, "chunk %s: what the store has is another chunk or damaged", r.ID)
	}
	return r.decode(s, stored, size)
}

// OpenForeign is Open for bytes that were compressed anew: their name differs, their content must not.
func (r Ref) OpenForeign(stored []byte, size int) ([]byte, error) {
	s, err := SchemeOf(r.ID)
	if err != nil {
		return nil, err
	}
	return r.decode(s, stored, size)
}

func (r Ref) decode(s Scheme, stored []byte, size int) ([]byte, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if len(stored) > len(*buf) {
		*buf = make([]byte, len(stored))
	}
	var packed []byte
	var err error
	if s == GCM {
		packed, err = openGCM(*buf, stored, r.Key)
	} else {
		packed, err = openXXTEA(*buf, stored, r.Key)
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "chunk %s: %w", r.ID, err)
	}
	n, err := snappy.DecodedLen(packed)
	if err != nil || n != size || n > MaxSize { // before anything is allocated
		return nil, errs.E(errs.Invalid, "chunk %s: it does not hold the %d bytes that the flist says", r.ID, size)
	}
	plain, err := snappy.Decode(nil, packed)
	if err != nil {
		return nil, errs.E(errs.Invalid, "chunk %s: %w", r.ID, err)
	}
	if err := r.Check(plain); err != nil {
		return nil, err
	}
	return plain, nil
}

// Check says whether plain is the content of the chunk.
func (r Ref) Check(plain []byte) error {
	s, err := SchemeOf(r.ID)
	if err != nil {
		return err
	}
	if s.hash(plain) != r.Key {
		return errs.E(errs.Invalid, "chunk %s: its content is damaged", r.ID)
	}
	return nil
}

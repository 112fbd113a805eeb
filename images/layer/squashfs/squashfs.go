// Package squashfs reads squashfs 4.0 images that strangers made: whatever the bytes are, it returns errors, in bounded
// memory. It is ours because go-diskfs v1.9.4 loses the prefix of extended attributes, misplaces every second one, drops
// setuid bits and knows no device numbers (2026-07).
package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Magic is how an image begins.
const Magic = "hsqs"

const (
	superSize = 96
	metaSize  = 8192
	// maxDepth bounds nesting; the deepest tree seen in a distribution image is about 30.
	maxDepth = 512
	none32   = 1<<32 - 1
	none64   = 1<<64 - 1
)

// Image is an open squashfs image. It is not for concurrent use.
type Image struct {
	r         io.ReaderAt
	size      int64
	blockSize int
	root      uint64 // reference of the root inode
	idCount   int

	inodes, dirs, ids, fragments, xattrs uint64 // where the tables start
	fragmentCount                        uint32
	xattrCount                           uint32
	xattrData                            uint64

	inflaters *sync.Pool // of inflater
	meta      map[int64]metaBlock
	fragStart int64 // which fragment block is in frag
	frag      []byte
}

// Open reads the superblock of the image in the first size bytes of r.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	var b [superSize]byte
	if size < superSize {
		return nil, damaged("image of %d bytes is too short", size)
	}
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil, fmt.Errorf("squashfs: read superblock: %w", err)
	}
	u16, u32, u64 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	if string(b[:4]) != Magic {
		return nil, damaged("no superblock")
	}
	if major, minor := u16(b[28:]), u16(b[30:]); major != 4 || minor != 0 {
		return nil, damaged("version %d.%d is not supported, only 4.0", major, minor)
	}
	im := &Image{
		r: r, size: size, blockSize: int(u32(b[12:])), root: u64(b[32:]), idCount: int(u16(b[26:])),
		ids: u64(b[48:]), xattrs: u64(b[56:]), inodes: u64(b[64:]), dirs: u64(b[72:]), fragments: u64(b[80:]),
		fragmentCount: u32(b[16:]), meta: map[int64]metaBlock{}, fragStart: -1,
	}
	if im.blockSize < 4096 || im.blockSize > 1<<20 || bits.OnesCount(uint(im.blockSize)) != 1 {
		return nil, damaged("block size %d is impossible", im.blockSize)
	}
	if used := u64(b[40:]); used > uint64(size) {
		return nil, damaged("image is cut short: %d of %d bytes", size, used)
	}
	kind := u16(b[20:])
	if _, err := newInflater(kind, im.blockSize); err != nil {
		return nil, err
	}
	im.inflaters = &sync.Pool{New: func() any {
		f, err := newInflater(kind, im.blockSize)
		if err != nil {
			panic("BUG: the same inflater could be made before: " + err.Error())
		}
		return f
	}}
	return im, im.openXattrs()
}

func (im *Image) openXattrs() error {
	if im.xattrs == none64 {
		return nil
	}
	var b [16]byte
	if err := im.readAt(b[:], im.xattrs); err != nil {
		return err
	}
	im.xattrData = binary.LittleEndian.Uint64(b[:])
	im.xattrCount = binary.LittleEndian.Uint32(b[8:])
	return nil
}

// readAt fills b from the image.
func (im *Image) readAt(b []byte, pos uint64) error {
	if pos > uint64(im.size) || uint64(len(b)) > uint64(im.size)-pos {
		return damaged("%d bytes at %d lie outside the image", len(b), pos)
	}
	if n, err := im.r.ReadAt(b, int64(pos)); n < len(b) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("squashfs: read %d bytes at %d: %w", len(b), pos, err)
	}
	return nil
}

// inflate unpacks src into dst, which is exactly as long as the result may get, and returns the filled part.
func (im *Image) inflate(dst, src []byte) ([]byte, error) {
	f, ok := im.inflaters.Get().(inflater)
	if !ok {
		panic("BUG: the pool holds inflaters only")
	}
	defer im.inflaters.Put(f)
	n, err := f.inflate(dst, src)
	if err != nil {
		return nil, damaged("decompress: %w", err)
	}
	return dst[:n], nil
}

func damaged(format string, args ...any) error {
	return errs.E(errs.Invalid, "squashfs: "+format, args...)
}

package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"github.com/buoy-edge/buoy/images/layer/xz"
)

// inflater decompresses one block at a time. More than fits into dst is an error.
type inflater interface {
	inflate(dst, src []byte) (int, error)
}

var errTooLong = errors.New("block is longer than allowed")

func newInflater(kind uint16, blockSize int) (inflater, error) {
	switch kind {
	case 1:
		return &zlibInflater{}, nil
	case 2:
		return lzmaInflater{}, nil
	case 3:
		return nil, damaged("lzo compression is not supported; make the image with gzip, xz, lz4 or zstd")
	case 4:
		return xzInflater{maxDict: max(blockSize, metaSize)}, nil
	case 5:
		return lz4Inflater{}, nil
	case 6:
		// One block at a time, no goroutines: our own workers share the blocks out.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(8<<20))
		if err != nil {
			return nil, fmt.Errorf("squashfs: %w", err)
		}
		return zstdInflater{d}, nil
	}
	return nil, damaged("compression %d is unknown", kind)
}

type zlibInflater struct{ r io.ReadCloser }

func (z *zlibInflater) inflate(dst, src []byte) (int, error) {
	if z.r == nil {
		r, err := zlib.NewReader(bytes.NewReader(src))
		if err != nil {
			return 0, err
		}
		z.r = r
		return readBlock(dst, z.r)
	}
	reset, ok := z.r.(zlib.Resetter)
	if !ok {
		return 0, errors.New("zlib reader cannot be reset")
	}
	if err := reset.Reset(bytes.NewReader(src), nil); err != nil {
		return 0, err
	}
	return readBlock(dst, z.r)
}

type xzInflater struct{ maxDict int }

func (z xzInflater) inflate(dst, src []byte) (int, error) {
	return readBlock(dst, xz.NewReader(bytes.NewReader(src), z.maxDict))
}

type lzmaInflater struct{}

func (lzmaInflater) inflate(dst, src []byte) (int, error) {
	// 8 MiB: mksquashfs sets the dictionary to the block size or, for metadata, to LZMA's default of 8 MiB.
	r, err := lzma.ReaderConfig{DictCap: 8 << 20}.NewReader(bytes.NewReader(src))
	if err != nil {
		return 0, err
	}
	return readBlock(dst, r)
}

type lz4Inflater struct{}

func (lz4Inflater) inflate(dst, src []byte) (int, error) { return lz4.UncompressBlock(src, dst) }

type zstdInflater struct{ d *zstd.Decoder }

func (z zstdInflater) inflate(dst, src []byte) (int, error) {
	out, err := z.d.DecodeAll(src, dst[:0:len(dst)])
	if err == nil && len(out) > 0 && &out[0] != &dst[0] {
		return 0, errTooLong
	}
	return len(out), err
}

// readBlock reads r to its end, which checks its checksum too.
func readBlock(dst []byte, r io.Reader) (n int, err error) {
	var one [1]byte
	for err == nil {
		var m int
		if n < len(dst) {
			m, err = r.Read(dst[n:])
			n += m
		} else if m, err = r.Read(one[:]); m > 0 {
			return 0, errTooLong
		}
	}
	if errors.Is(err, io.EOF) {
		return n, nil
	}
	return 0, err
}

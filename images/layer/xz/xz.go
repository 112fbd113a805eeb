// Package xz reads .xz streams that strangers made. The LZMA2 decoder is ulikunitz's; the container around it is ours,
// because that library allocates whatever dictionary a block header asks for (4 GiB is four bits away) and knows no
// branch filters, which mksquashfs -Xbcj uses.
package xz

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// Magic is how an .xz stream begins.
const Magic = "\xfd7zXZ\x00"

// minDict is the smallest dictionary the LZMA2 decoder takes.
const minDict = 4096

// Reader decodes one or more concatenated .xz streams, with stream padding between and after them.
type Reader struct {
	in      *counter
	maxDict int

	open  bool      // between a stream header and its footer
	flags [2]byte   // of the open stream
	block *block    // the open block
	seen  indexSums // blocks of the open stream so far
	err   error     // sticky
}

// NewReader reads from r. A block that needs a dictionary above maxDict bytes is refused, so it bounds the memory used.
func NewReader(r io.Reader, maxDict int) *Reader {
	return &Reader{in: &counter{r: bufio.NewReader(r)}, maxDict: max(maxDict, minDict)}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for r.err == nil {
		switch {
		case r.block != nil:
			n, err := r.block.Read(p)
			if errors.Is(err, io.EOF) {
				err = r.endBlock()
			}
			r.err = truncated(err)
			if n > 0 {
				return n, nil
			}
		case r.open:
			r.err = truncated(r.nextBlock())
		default:
			r.err = r.nextStream()
		}
	}
	return 0, r.err
}

// nextStream skips padding and reads a stream header; io.EOF after a whole number of streams.
func (r *Reader) nextStream() error {
	first := r.in.n == 0
	var head [12]byte
	for {
		if _, err := io.ReadFull(r.in, head[:4]); err != nil {
			if first {
				return truncated(err)
			}
			return err
		}
		if first || head[0]|head[1]|head[2]|head[3] != 0 {
			break
		}
	}
	if _, err := io.ReadFull(r.in, head[4:]); err != nil {
		return truncated(err)
	}
	if string(head[:6]) != Magic {
		return errors.New("xz: no stream header")
	}
	if crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) {
		return errors.New("xz: stream header is damaged")
	}
	if head[6] != 0 || head[7] > 15 {
		return errors.New("xz: unknown stream flags")
	}
	r.flags = [2]byte(head[6:8])
	r.open, r.seen = true, indexSums{}
	return nil
}

// nextBlock opens the next block, or ends the stream at its index.
func (r *Reader) nextBlock() error {
	start := r.in.n
	size, err := r.in.ReadByte()
	if err != nil {
		return err
	}
	if size == 0 {
		r.open = false
		return r.readIndex(start)
	}
	head := make([]byte, (int(size)+1)*4)
	head[0] = size
	if _, err := io.ReadFull(r.in, head[1:]); err != nil {
		return err
	}
	body, sum := head[:len(head)-4], head[len(head)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errors.New("xz: block header is damaged")
	}
	h, err := parseHeader(body[1:])
	if err != nil {
		return err
	}
	if h.dict > int64(r.maxDict) {
		return fmt.Errorf("xz: a block needs a dictionary of %d bytes; at most %d are allowed", h.dict, r.maxDict)
	}
	check, err := newCheck(r.flags[1])
	if err != nil {
		return err
	}
	r.block = &block{in: r.in, start: start, body: r.in.n, header: h, check: check}
	return r.block.open(r.maxDict)
}

func (r *Reader) endBlock() error {
	b := r.block
	r.block = nil
	compressed := r.in.n - b.body
	if b.header.compressed >= 0 && b.header.compressed != compressed ||
		b.header.uncompressed >= 0 && b.header.uncompressed != b.out {
		return errors.New("xz: block size differs from its header")
	}
	for n := compressed; n%4 != 0; n++ {
		if c, err := r.in.ReadByte(); err != nil || c != 0 {
			return errors.Join(errors.New("xz: bad block padding"), err)
		}
	}
	r.seen.add(uint64(b.body-b.start+compressed)+uint64(b.check.Size()), uint64(b.out))
	want := make([]byte, b.check.Size())
	if _, err := io.ReadFull(r.in, want); err != nil {
		return err
	}
	if !bytes.Equal(want, b.check.sum()) {
		return errors.New("xz: block checksum is wrong")
	}
	return nil
}

// block is one block being decoded.
type block struct {
	in     *counter
	start  int64 // where its header began
	body   int64 // where its compressed data began
	header header
	check  check
	out    int64
	r      io.Reader
}

func (b *block) open(maxDict int) error {
	dict := max(int(b.header.dict), minDict)
	r, err := lzma.Reader2Config{DictCap: dict}.NewReader2(b.in)
	if err != nil {
		return err
	}
	b.r = r
	if b.header.branch == 0 {
		return nil
	}
	// Branch filters are undone on a whole block: they come from mksquashfs, whose blocks are at most 1 MiB.
	data, err := io.ReadAll(io.LimitReader(r, int64(maxDict)+1))
	if err != nil {
		return err
	}
	if len(data) > maxDict {
		return errors.New("xz: a block with a branch filter is too large")
	}
	undoBranch(b.header.branch, data)
	b.r = bytes.NewReader(data)
	return nil
}

func (b *block) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.out += int64(n)
	if b.check.Hash != nil {
		b.check.Write(p[:n])
	}
	if b.header.uncompressed >= 0 && b.out > b.header.uncompressed {
		return 0, errors.New("xz: block is longer than its header says")
	}
	return n, err
}

// counter counts what was read and gives single bytes cheaply.
type counter struct {
	r *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// check is a block checksum; its zero Hash is the kind "none".
type check struct {
	hash.Hash
	reverse bool // stored little endian
}

func (c check) Size() int {
	if c.Hash == nil {
		return 0
	}
	return c.Hash.Size()
}

func (c check) sum() []byte {
	if c.Hash == nil {
		return nil
	}
	s := c.Sum(nil)
	if c.reverse {
		for i, j := 0, len(s)-1; i < j; i, j = i+1, j-1 {
			s[i], s[j] = s[j], s[i]
		}
	}
	return s
}

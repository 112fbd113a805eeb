package squashfs

import (
	"encoding/binary"
	"io"
)

// metaBlock is a decompressed metadata block and where the next one starts.
type metaBlock struct {
	data []byte
	next int64
}

// metaCached is how many metadata blocks are kept: 1 MiB.
const metaCached = 128

func (im *Image) metaAt(pos int64) (metaBlock, error) {
	if b, ok := im.meta[pos]; ok {
		return b, nil
	}
	var head [2]byte
	if err := im.readAt(head[:], uint64(pos)); err != nil {
		return metaBlock{}, err
	}
	h := binary.LittleEndian.Uint16(head[:])
	size := int(h & 0x7fff)
	if size == 0 || size > metaSize {
		return metaBlock{}, damaged("metadata block of %d bytes", size)
	}
	src := make([]byte, size)
	if err := im.readAt(src, uint64(pos)+2); err != nil {
		return metaBlock{}, err
	}
	data := src
	if h&0x8000 == 0 {
		var err error
		if data, err = im.inflate(make([]byte, metaSize), src); err != nil {
			return metaBlock{}, err
		}
	}
	if len(data) == 0 {
		return metaBlock{}, damaged("empty metadata block")
	}
	if len(im.meta) >= metaCached {
		clear(im.meta)
	}
	b := metaBlock{data: data, next: pos + 2 + int64(size)}
	im.meta[pos] = b
	return b, nil
}

// cursor reads on through a table of metadata blocks. A copy of it reads on independently.
type cursor struct {
	im   *Image
	rest []byte
	next int64
}

// cursorAt stands offset bytes into the metadata block at start of the table.
func (im *Image) cursorAt(table, start uint64, offset int) (cursor, error) {
	if table > uint64(im.size) || start > uint64(im.size)-table {
		return cursor{}, damaged("metadata at %d+%d lies outside the image", table, start)
	}
	b, err := im.metaAt(int64(table + start))
	if err != nil {
		return cursor{}, err
	}
	if offset > len(b.data) {
		return cursor{}, damaged("offset %d lies outside its metadata block", offset)
	}
	return cursor{im: im, rest: b.data[offset:], next: b.next}, nil
}

// Read fills p wholly or fails.
func (c *cursor) Read(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if len(c.rest) == 0 {
			b, err := c.im.metaAt(c.next)
			if err != nil {
				return done, err
			}
			c.rest, c.next = b.data, b.next
		}
		n := copy(p[done:], c.rest)
		c.rest = c.rest[n:]
		done += n
	}
	return done, nil
}

// take reads n bytes; n is bounded by the caller.
func (c *cursor) take(n int) ([]byte, error) {
	if n <= len(c.rest) {
		b := c.rest[:n:n]
		c.rest = c.rest[n:]
		return b, nil
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

// lookup returns entry i of width bytes of an indexed table: an array of positions of metadata blocks.
func (im *Image) lookup(index uint64, i uint32, width int) ([]byte, error) {
	per := uint32(metaSize / width)
	var pos [8]byte
	at := index + uint64(i/per)*8
	if at < index {
		return nil, damaged("table at %d lies outside the image", index)
	}
	if err := im.readAt(pos[:], at); err != nil {
		return nil, err
	}
	c, err := im.cursorAt(binary.LittleEndian.Uint64(pos[:]), 0, int(i%per)*width)
	if err != nil {
		return nil, err
	}
	return c.take(width)
}

func (im *Image) id(i uint16) (uint32, error) {
	if int(i) >= im.idCount {
		return 0, damaged("owner %d of %d", i, im.idCount)
	}
	b, err := im.lookup(im.ids, uint32(i), 4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

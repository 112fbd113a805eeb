package xz

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
)

// header is what a block header says; sizes are -1 where it does not.
type header struct {
	compressed   int64
	uncompressed int64
	dict         int64
	branch       uint64 // id of the branch filter before LZMA2, 0 without one
}

const filterLZMA2 = 0x21

// parseHeader reads a block header after its size byte and without its checksum, which was right.
func parseHeader(b []byte) (header, error) {
	h := header{compressed: -1, uncompressed: -1}
	bad := errors.New("xz: malformed block header")
	if len(b) == 0 || b[0]&0x3c != 0 {
		return h, bad
	}
	flags, p := b[0], parser{b: b[1:]}
	if flags&0x40 != 0 {
		h.compressed = int64(p.number())
	}
	if flags&0x80 != 0 {
		h.uncompressed = int64(p.number())
	}
	filters := int(flags&3) + 1
	if filters > 2 {
		return h, fmt.Errorf("xz: %d filters in a row are not supported", filters)
	}
	for i := range filters {
		id := p.number()
		props := p.bytes(p.number())
		switch {
		case p.bad:
			return h, bad
		case i == filters-1 && id == filterLZMA2 && len(props) == 1 && props[0] <= 40:
			h.dict = dictSize(props[0])
		case i < filters-1 && knownBranch(id) && len(props) == 0:
			h.branch = id
		default:
			return h, fmt.Errorf("xz: filter %#x is not supported", id)
		}
	}
	for _, c := range p.b {
		if c != 0 {
			return h, bad
		}
	}
	return h, nil
}

func dictSize(bits byte) int64 {
	if bits == 40 {
		return 1<<32 - 1
	}
	return int64(2|bits&1) << (bits/2 + 11)
}

// parser takes values off the front of b; bad once anything was missing.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) number() uint64 {
	var v uint64
	for i := 0; i < 9 && i < len(p.b); i++ {
		c := p.b[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			p.bad = p.bad || c == 0 && i > 0
			p.b = p.b[i+1:]
			return v
		}
	}
	p.bad = true
	return 0
}

func (p *parser) bytes(n uint64) []byte {
	if p.bad || n > uint64(len(p.b)) {
		p.bad = true
		return nil
	}
	out := p.b[:n]
	p.b = p.b[n:]
	return out
}

// indexSums is all of a stream's index that has to be remembered to check it: 2^40 records would not fit.
type indexSums struct {
	records, unpadded, uncompressed uint64
	crc                             uint32
}

func (s *indexSums) add(unpadded, uncompressed uint64) {
	s.records++
	s.unpadded += unpadded
	s.uncompressed += uncompressed
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], unpadded)
	binary.LittleEndian.PutUint64(b[8:], uncompressed)
	s.crc = crc32.Update(s.crc, crc32.IEEETable, b[:])
}

// readIndex compares the index, whose first byte was read at start, with the blocks seen, and reads the footer.
func (r *Reader) readIndex(start int64) error {
	in := &summer{r: r.in}
	in.sum([]byte{0})
	var got indexSums
	count, err := in.number()
	if err != nil {
		return err
	}
	if count != r.seen.records {
		return errors.New("xz: index does not match the blocks")
	}
	for range count {
		unpadded, err1 := in.number()
		uncompressed, err2 := in.number()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		got.add(unpadded, uncompressed)
	}
	if got != r.seen {
		return errors.New("xz: index does not match the blocks")
	}
	for (r.in.n-start)%4 != 0 {
		if c, err := in.ReadByte(); err != nil || c != 0 {
			return errors.Join(errors.New("xz: bad index padding"), err)
		}
	}
	var tail [16]byte // checksum of the index, then the footer
	if _, err := io.ReadFull(r.in, tail[:]); err != nil {
		return err
	}
	foot := tail[4:]
	switch size := uint64(binary.LittleEndian.Uint32(foot[4:])+1) * 4; {
	case binary.LittleEndian.Uint32(tail[:]) != in.crc:
		return errors.New("xz: index is damaged")
	case binary.LittleEndian.Uint32(foot) != crc32.ChecksumIEEE(foot[4:10]),
		string(foot[10:]) != "YZ", [2]byte(foot[8:10]) != r.flags, size != uint64(r.in.n-12-start):
		return errors.New("xz: stream footer is damaged")
	}
	return nil
}

// summer reads single bytes and keeps their CRC32.
type summer struct {
	r   *counter
	crc uint32
}

func (s *summer) sum(b []byte) { s.crc = crc32.Update(s.crc, crc32.IEEETable, b) }

func (s *summer) ReadByte() (byte, error) {
	c, err := s.r.ReadByte()
	if err == nil {
		s.sum([]byte{c})
	}
	return c, err
}

func (s *summer) number() (uint64, error) {
	var v uint64
	for i := range 9 {
		c, err := s.ReadByte()
		if err != nil {
			return 0, err
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			return v, nil
		}
	}
	return 0, errors.New("xz: malformed number in the index")
}

func newCheck(id byte) (check, error) {
	switch id {
	case 0:
		return check{}, nil
	case 1:
		return check{Hash: crc32.NewIEEE(), reverse: true}, nil
	case 4:
		return check{Hash: crc64.New(crc64.MakeTable(crc64.ECMA)), reverse: true}, nil
	case 10:
		return check{Hash: sha256.New()}, nil
	}
	return check{}, fmt.Errorf("xz: checksum kind %d is not supported", id)
}

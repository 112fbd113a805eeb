package pack

import (
	"encoding/binary"

	"github.com/buoy-edge/buoy/internal/errs"
)

// message builds one Cap'n Proto message: one segment, and only the shapes that flists have. Word 0 is the pointer to the
// root.
type message struct {
	b   []byte
	err error // the first thing that did not fit
}

const (
	maxListWords = 1<<29 - 1 // a list pointer has 29 bits for its length

	listOfBytes   = 2
	listOfStructs = 7
)

func newMessage() *message { return &message{b: make([]byte, 8)} }

// words is how long the message is so far: where the next thing goes.
func (m *message) words() int { return len(m.b) / 8 }

func (m *message) alloc(words int) int {
	at := m.words()
	m.b = append(m.b, make([]byte, 8*words)...)
	return at
}

func (m *message) set64(word int, v uint64) { binary.LittleEndian.PutUint64(m.b[8*word:], v) }
func (m *message) set32(word, half int, v uint32) {
	binary.LittleEndian.PutUint32(m.b[8*word+4*half:], v)
}

func (m *message) set16(word int, v uint16) { binary.LittleEndian.PutUint16(m.b[8*word:], v) } // its first two bytes

// offset is the distance in a pointer at word from, in its place: bits 2 to 31.
func offset(from, to int) uint64 { return uint64(uint32(int32(to-from-1) << 2)) }

func (m *message) pointStruct(from, to, data, pointers int) {
	m.set64(from, offset(from, to)|uint64(data)<<32|uint64(pointers)<<48)
}

func (m *message) pointList(from, to, kind, n int) {
	if n > maxListWords && m.err == nil {
		m.err = errs.E(errs.Invalid, "a list with %d parts is longer than the format can say", n)
	}
	m.set64(from, offset(from, to)|1|uint64(kind)<<32|uint64(n)<<35)
}

// structs makes a list of n structs, which the caller points to with pointStructs, and returns where the first one is.
func (m *message) structs(n, data, pointers int) int {
	tag := m.alloc(1 + n*(data+pointers))
	m.set64(tag, uint64(n)<<2|uint64(data)<<32|uint64(pointers)<<48)
	return tag + 1
}

func (m *message) pointStructs(from, first, n, size int) {
	m.pointList(from, first-1, listOfStructs, n*size)
}

// data puts bytes at the end and returns what data pointers need.
func (m *message) data(s string) blob {
	at := m.alloc((len(s) + 7) / 8)
	copy(m.b[8*at:], s)
	return blob{at, len(s)}
}

// text is data with a zero byte at its end, which counts.
func (m *message) text(s string) blob {
	at := m.alloc(len(s)/8 + 1)
	copy(m.b[8*at:], s)
	return blob{at, len(s) + 1}
}

type blob struct{ at, n int }

func (m *message) pointBlob(from int, b blob) { m.pointList(from, b.at, listOfBytes, b.n) }

// stream is the message as it is stored: the number of further segments, the length of the one there is, and that.
func (m *message) stream() ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	out := make([]byte, 8, 8+len(m.b))
	binary.LittleEndian.PutUint32(out[4:], uint32(m.words()))
	return append(out, m.b...), nil
}

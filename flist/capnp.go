package flist

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What of Cap'n Proto is needed to read the records of era C: unpacked messages, structs, lists of structs, bytes. The
// packers of that era cut messages into segments of 4 KiB, so pointers across segments (far, and doubly far ones) are common.

var (
	errBounds = errors.New("a pointer leads out of the record")
	errKind   = errors.New("a pointer leads to something of another kind")
	errBudget = errors.New("pointers lead to the same bytes again and again")
)

// maxSegments is what a record of the longest readable length has when cut as the packers do.
const maxSegments = maxCell >> 12

// message is a record. Everything that is read counts against a budget, so that a short record whose pointers all lead to
// the same list cannot make work without end.
type message struct {
	segments [][]byte
	budget   int // words
}

// structure is a struct: its data, and where its pointers begin.
type structure struct {
	m        *message
	data     []byte
	segment  []byte
	pointers int // byte offset in segment
	count    int // of pointers
}

// pointer is one that was followed to its end: what it says (as a word with a meaningless offset), and the place.
type pointer struct {
	word    uint64
	segment []byte
	at      int // byte offset of what it points to
}

func (p pointer) null() bool { return p.segment == nil }

func word(b []byte, at int) (uint64, bool) {
	if at < 0 || at > len(b)-8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[at:]), true
}

// readMessage is the root struct of a record.
func readMessage(b []byte) (structure, error) {
	if len(b) < 8 {
		return structure{}, errBounds
	}
	n := int64(binary.LittleEndian.Uint32(b)) + 1
	head := (4 + 4*n + 7) &^ 7
	if n > maxSegments || head > int64(len(b)) {
		return structure{}, errors.New("its segments do not fit")
	}
	m := &message{segments: make([][]byte, n), budget: 2*len(b)/8 + 64}
	rest := b[head:]
	for i := range m.segments {
		size := 8 * int64(binary.LittleEndian.Uint32(b[4+4*i:]))
		if size > int64(len(rest)) {
			return structure{}, errors.New("its segments do not fit")
		}
		m.segments[i], rest = rest[:size:size], rest[size:]
	}
	root, err := m.follow(m.segments[0], 0)
	if err != nil {
		return structure{}, err
	}
	if root.null() {
		return structure{}, errors.New("it is empty")
	}
	return m.structure(root)
}

func (m *message) spend(words int) error {
	if m.budget -= words; m.budget < 0 {
		return errBudget
	}
	return nil
}

// follow reads the pointer at a place. Landing pads of far pointers are no far pointers themselves, so it ends.
func (m *message) follow(segment []byte, at int) (pointer, error) {
	w, ok := word(segment, at)
	if !ok {
		return pointer{}, errBounds
	}
	switch {
	case w == 0:
		return pointer{}, nil
	case w&3 < 2:
		return near(segment, at, w)
	case w&3 == 3:
		return pointer{}, errKind
	}
	pad, padAt, err := m.landing(w)
	if err != nil {
		return pointer{}, err
	}
	p, ok := word(pad, padAt)
	if !ok {
		return pointer{}, errBounds
	}
	if w&4 == 0 {
		if p == 0 || p&3 > 1 {
			return pointer{}, errKind
		}
		return near(pad, padAt, p)
	}
	tag, ok := word(pad, padAt+8)
	if !ok {
		return pointer{}, errBounds
	}
	if p&7 != 2 || tag&3 > 1 {
		return pointer{}, errKind
	}
	target, targetAt, err := m.landing(p)
	if err != nil {
		return pointer{}, err
	}
	return pointer{tag, target, targetAt}, nil
}

// landing is where a far pointer leads.
func (m *message) landing(w uint64) ([]byte, int, error) {
	id, at := w>>32, int(w>>3&(1<<29-1))*8
	if id >= uint64(len(m.segments)) || at > len(m.segments[id]) {
		return nil, 0, errBounds
	}
	return m.segments[id], at, nil
}

// near is a pointer within its segment: the offset is counted from the word after it.
func near(segment []byte, at int, w uint64) (pointer, error) {
	target := at + 8 + int(int32(uint32(w))>>2)*8
	if target < 0 || target > len(segment) {
		return pointer{}, errBounds
	}
	return pointer{w, segment, target}, nil
}

func (m *message) structure(p pointer) (structure, error) {
	if p.word&3 != 0 {
		return structure{}, errKind
	}
	return m.structAt(p.segment, p.at, p.word)
}

// structAt is the struct of the given shape at a place.
func (m *message) structAt(segment []byte, at int, shape uint64) (structure, error) {
	data, count := int(uint16(shape>>32)), int(uint16(shape>>48))
	if 8*(data+count) > len(segment)-at {
		return structure{}, errBounds
	}
	err := m.spend(data + count)
	return structure{m, segment[at : at+8*data], segment, at + 8*data, count}, err
}

// pointer is the i-th pointer; null if the struct is from before it was invented.
func (s structure) pointer(i int) (pointer, error) {
	if i >= s.count {
		return pointer{}, nil
	}
	return s.m.follow(s.segment, s.pointers+8*i)
}

// child is the struct that the i-th pointer leads to: an empty one if it is null, as all its fields then have their defaults.
func (s structure) child(i int) (structure, error) {
	p, err := s.pointer(i)
	if err != nil || p.null() {
		return structure{m: s.m}, err
	}
	return s.m.structure(p)
}

// bytes are what the i-th pointer leads to, a slice of the record.
func (s structure) bytes(i int) ([]byte, error) {
	p, err := s.pointer(i)
	if err != nil || p.null() {
		return nil, err
	}
	const ofBytes = 2
	n := int(p.word >> 35)
	if p.word&3 != 1 || p.word>>32&7 != ofBytes {
		return nil, errKind
	}
	if n > len(p.segment)-p.at {
		return nil, errBounds
	}
	return p.segment[p.at : p.at+n], s.m.spend((n + 7) / 8)
}

// text is bytes without the NUL that ends them. There may be others in it.
func (s structure) text(i int) ([]byte, error) {
	b, err := s.bytes(i)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	if b[len(b)-1] != 0 {
		return nil, errors.New("a text has no end")
	}
	return b[:len(b)-1], nil
}

func (s structure) uint16(at int) uint16 {
	if at+2 > len(s.data) {
		return 0
	}
	return binary.LittleEndian.Uint16(s.data[at:])
}

func (s structure) uint32(at int) uint32 {
	if at+4 > len(s.data) {
		return 0
	}
	return binary.LittleEndian.Uint32(s.data[at:])
}

func (s structure) uint64(at int) uint64 {
	w, _ := word(s.data, at)
	return w
}

// structures is a list of structs.
type structures struct {
	m       *message
	segment []byte
	at      int
	shape   uint64
	len     int
}

// list is the list of structs that the i-th pointer leads to.
func (s structure) list(i int) (structures, error) {
	p, err := s.pointer(i)
	if err != nil || p.null() {
		return structures{}, err
	}
	const ofStructs = 7
	if p.word&3 != 1 {
		return structures{}, errKind
	}
	size := int(p.word >> 35) // words if it is a list of structs
	if p.word>>32&7 != ofStructs {
		if size == 0 {
			return structures{}, nil
		}
		return structures{}, errKind
	}
	shape, ok := word(p.segment, p.at)
	if !ok || 8*size > len(p.segment)-p.at-8 {
		return structures{}, errBounds
	}
	n := int(uint32(shape) >> 2)
	each := int(uint16(shape>>32)) + int(uint16(shape>>48))
	if shape&3 != 0 || n*each > size {
		return structures{}, fmt.Errorf("a list of %d structs does not fit into %d words", n, size)
	}
	// Structs without fields take no room: each is counted as a word, or a tiny record could hold millions.
	if err := s.m.spend(1 + n*max(0, 1-each)); err != nil {
		return structures{}, err
	}
	return structures{s.m, p.segment, p.at + 8, shape, n}, nil
}

func (l structures) get(i int) (structure, error) {
	each := int(uint16(l.shape>>32)) + int(uint16(l.shape>>48))
	return l.m.structAt(l.segment, l.at+8*each*i, l.shape)
}

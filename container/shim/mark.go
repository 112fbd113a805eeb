//go:build linux && cgo

package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mark says which batch of output is being moved. It lives in a mapped file,
// so a killed shim leaves it exact: the next one can tell whether the batch
// reached the log file, and whether it is still in the pipe as well.
type mark struct {
	page  []byte
	table *crc64.Table
}

// The page: a word that is 1 when the rest counts, then bytes, checksum,
// file size before and after, length of the key, key.
const (
	markSize = 4096
	markKey  = 48
)

func openMark(path string) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(markSize); err != nil {
		return nil, err
	}
	fd, flags := int(f.Fd()), unix.MAP_SHARED
	// To write into a hole of a file on a full disk kills: SIGBUS. A mark that
	// does not last costs a batch that is logged twice, if this shim is killed.
	if err := unix.Fallocate(fd, 0, 0, markSize); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		fd, flags = -1, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS
	}
	page, err := unix.Mmap(fd, 0, markSize, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &mark{page, crc64.MakeTable(crc64.ECMA)}, nil
}

func (m *mark) valid() *uint64 { return (*uint64)(unsafe.Pointer(&m.page[0])) }

func (m *mark) set(key string, data []byte, before, after int64) {
	if len(key) > markSize-markKey {
		return
	}
	le := binary.LittleEndian
	le.PutUint64(m.page[8:], uint64(len(data)))
	le.PutUint64(m.page[16:], crc64.Checksum(data, m.table))
	le.PutUint64(m.page[24:], uint64(before))
	le.PutUint64(m.page[32:], uint64(after))
	le.PutUint64(m.page[40:], uint64(len(key)))
	copy(m.page[markKey:], key)
	atomic.StoreUint64(m.valid(), 1)
}

func (m *mark) clear() { atomic.StoreUint64(m.valid(), 0) }

// repair finishes the move that a killed shim left: what of the batch is not in
// the log file yet is written, and the batch is taken from the pipe if it is
// still there.
func (l *logs) repair(st *stream) {
	m := l.mark
	le := binary.LittleEndian
	n := le.Uint64(m.page[40:])
	if atomic.LoadUint64(m.valid()) != 1 || n > markSize-markKey || string(m.page[markKey:markKey+n]) != st.key {
		return
	}
	defer m.clear()
	size, sum := int(le.Uint64(m.page[8:])), le.Uint64(m.page[16:])
	before, after := int64(le.Uint64(m.page[24:])), int64(le.Uint64(m.page[32:]))
	got, err := l.peek(st)
	if err != nil || got < size || crc64.Checksum(l.in[:size], m.table) != sum {
		return
	}
	switch {
	case st.file.size <= before:
	case st.file.size >= after, st.file.finish(st.name, l.in[:size], before):
		l.take(st, size)
	default:
		st.file.cut(before)
	}
}

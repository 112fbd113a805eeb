package mount

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// inflight is a mapped file into which requests are read: what a server took and did not answer before it was killed is there
// for the next one. A slot whose request has length 0 is free. A request that was answered, but whose slot was not freed, is
// answered again; the kernel has no use for that, and says so.
type inflight struct {
	mem []byte

	mu   sync.Mutex // guards free
	free [][]byte
}

// inflightSlots: the kernel has 64 reads ahead under way at most, and one request for each thread that waits. What is more
// than this is not kept.
const inflightSlots = 512

func openInflight(path string) (*inflight, error) {
	mem, err := mapFile(path, inflightSlots*requestRoom)
	if err != nil {
		return nil, err
	}
	f := &inflight{mem: mem}
	for i := range inflightSlots {
		if slot := f.slot(i); requestLen(slot) == 0 {
			f.free = append(f.free, slot)
		}
	}
	return f, nil
}

func (f *inflight) slot(i int) []byte {
	return f.mem[i*requestRoom : (i+1)*requestRoom : (i+1)*requestRoom]
}

// requestLen is 0 for what is no request.
func requestLen(slot []byte) int {
	if n := binary.NativeEndian.Uint32(slot); n >= 40 && n <= requestRoom {
		return int(n)
	}
	return 0
}

// take is a free slot; nil if there is none.
func (f *inflight) take() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.free) == 0 {
		return nil
	}
	slot := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	return slot
}

// release frees the slot that a request is in.
func (f *inflight) release(req []byte) {
	slot := req[:requestRoom]
	clear(slot[:16])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = append(f.free, slot)
}

// left are the requests that an earlier server has not answered.
func (f *inflight) left() (reqs [][]byte) {
	for i := range inflightSlots {
		slot := f.slot(i)
		if n := requestLen(slot); n > 0 && opcode(slot) != opInit {
			reqs = append(reqs, slot[:n])
		}
	}
	return reqs
}

func (f *inflight) close() { _ = unix.Munmap(f.mem) }

// mapFile maps a file of that size, made if need be; what is written there is there for the next process.
func mapFile(path string, size int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return mem, nil
}

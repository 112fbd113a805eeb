package mount

import (
	"encoding/binary"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// opens are the open files, in a mapped file that survives the server. The kernel wants all that have an inode open at once
// to be of one mind: either all read through its page cache and ask us, or all read one backing file. So each open is
// written down before the kernel hears of it, and with it who asked: the same request, sent again, is the same open, and a
// release that comes twice frees once.
type opens struct {
	mem []byte

	mu    sync.Mutex // guards mem and the rest
	pass  bool       // the connection can do it
	top   uint32     // slots from here on were never used
	free  []uint32
	nodes map[uint32]*openNode
	known map[uint64]uint32 // opens of earlier servers: slot+1 by the number of the request
}

// openNode is an inode that is open.
type openNode struct {
	count   int
	mode    uint32
	backing int32
}

// Modes of an open.
const (
	modeAsk  = 1 // the kernel asks us
	modePass = 2 // it reads the backing file
)

// maxOpens bounds the file to 16 MiB, of which what was never used takes no room; containers have 1,048,576 descriptors.
const (
	maxOpens = 1 << 20
	openSize = 24 // node+1 uint32, mode uint32, backing int32, unused, request uint64
)

var errTooMany = errors.New("too many files are open")

func loadOpens(path string) (*opens, error) {
	mem, err := mapFile(path, maxOpens*openSize)
	if err != nil {
		return nil, err
	}
	o := &opens{mem: mem, nodes: map[uint32]*openNode{}, known: map[uint64]uint32{}}
	end, err := dataEnd(path)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	for i := range min(uint32(end/openSize)+1, maxOpens) {
		s := o.slot(i)
		node := binary.NativeEndian.Uint32(s)
		if node == 0 {
			o.free = append(o.free, i)
			continue
		}
		o.known[binary.NativeEndian.Uint64(s[16:])] = i + 1
		n := o.nodes[node-1]
		if n == nil {
			n = &openNode{mode: binary.NativeEndian.Uint32(s[4:]), backing: int32(binary.NativeEndian.Uint32(s[8:]))}
			o.nodes[node-1] = n
		}
		n.count++
	}
	o.top = min(uint32(end/openSize)+1, maxOpens)
	return o, nil
}

// dataEnd is where the last page that was ever written ends, 0 if none was.
func dataEnd(path string) (int64, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var end int64
	for {
		at, err := unix.Seek(fd, end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
		if end, err = unix.Seek(fd, at, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
	}
}

func (o *opens) slot(i uint32) []byte { return o.mem[i*openSize : (i+1)*openSize] }

func (o *opens) close() { _ = unix.Munmap(o.mem) }

func (o *opens) usePassthrough(yes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pass = yes
}

// tracks says whether there is anything to agree on.
func (o *opens) tracks() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pass
}

// add notes that node is opened. register makes a backing id for the kernel; it is called if nobody has the node open, and
// nil if there is nothing to back it; an error of it means that the kernel is to ask.
func (o *opens) add(node uint32, request uint64, register func() (int32, error)) (handle uint64, mode uint32, backing int32, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slot, ok := o.known[request&^resentBit]; ok && request&resentBit != 0 {
		s := o.slot(slot - 1)
		if binary.NativeEndian.Uint32(s) == node+1 {
			return uint64(slot), binary.NativeEndian.Uint32(s[4:]), int32(binary.NativeEndian.Uint32(s[8:])), nil
		}
	}
	i := o.top
	switch {
	case len(o.free) > 0:
		i = o.free[len(o.free)-1]
		o.free = o.free[:len(o.free)-1]
	case o.top == maxOpens:
		return 0, 0, 0, errTooMany
	default:
		o.top++
	}
	n := o.nodes[node]
	if n == nil {
		n = &openNode{mode: modeAsk}
		if register != nil && o.pass {
			if id, err := register(); err == nil {
				n.mode, n.backing = modePass, id
			}
		}
		o.nodes[node] = n
	}
	n.count++
	s := o.slot(i)
	binary.NativeEndian.PutUint32(s[4:], n.mode)
	binary.NativeEndian.PutUint32(s[8:], uint32(n.backing))
	binary.NativeEndian.PutUint64(s[16:], request&^resentBit)
	binary.NativeEndian.PutUint32(s, node+1) // last: it makes the slot count
	return uint64(i) + 1, n.mode, n.backing, nil
}

// remove notes that a handle is closed, and calls unregister if that was the last one with a backing id.
func (o *opens) remove(handle uint64, unregister func(int32)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if handle == 0 || handle > uint64(o.top) {
		return
	}
	i := uint32(handle - 1)
	s := o.slot(i)
	node := binary.NativeEndian.Uint32(s)
	if node == 0 {
		return // the server before this one has done it and could not say so
	}
	delete(o.known, binary.NativeEndian.Uint64(s[16:]))
	clear(s)
	o.free = append(o.free, i)
	n := o.nodes[node-1]
	if n.count--; n.count > 0 {
		return
	}
	delete(o.nodes, node-1)
	if n.mode == modePass {
		unregister(n.backing)
	}
}

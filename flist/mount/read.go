package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
)

// maxRead is the most that the kernel asks for at once.
const maxRead = 1 << 20

// answers of reads, two sizes: small ones are many.
var (
	bigReads   = sync.Pool{New: func() any { b := make([]byte, headerSize+maxRead); return &b }}
	smallReads = sync.Pool{New: func() any { b := make([]byte, headerSize+128<<10); return &b }}
)

func readBuffer(size int) (*[]byte, *sync.Pool) {
	pool := &bigReads
	if size <= 128<<10 {
		pool = &smallReads
	}
	return pool.Get().(*[]byte), pool
}

// read answers a READ. What it needs is fetched first, and room for the answer taken then: a thousand readers of a dead store
// cost little.
func (m *Mount) read(ctx context.Context, req []byte, answer func([]byte)) {
	node := binary.NativeEndian.Uint64(req[16:]) - 1
	off, size := binary.NativeEndian.Uint64(req[48:]), int(binary.NativeEndian.Uint32(req[56:]))
	if node >= uint64(len(m.cfg.List.Nodes)) || size > maxRead {
		answer(errorAnswer(unique(req), unix.EINVAL))
		return
	}
	n := &m.cfg.List.Nodes[node]
	m.reads.Add(1)
	if n.Mode&unix.S_IFMT != unix.S_IFREG || off >= uint64(n.Size) {
		answer(errorAnswer(unique(req), 0)) // the end
		return
	}
	size = int(min(int64(size), n.Size-int64(off)))
	if l := m.layer.Load(); l != nil {
		buf, pool := readBuffer(size)
		defer pool.Put(buf)
		if got, err := l.readAt(m.cfg.List, uint32(node), (*buf)[headerSize:headerSize+size], int64(off)); err == nil && got == size {
			m.answerRead(req, *buf, got, answer)
			return
		}
	}
	if err := m.fetch(ctx, req, uint32(node), int64(off), size); err != nil {
		answer(errorAnswer(unique(req), unix.Errno(m.status(uint32(node), err))))
		return
	}
	buf, pool := readBuffer(size)
	defer pool.Put(buf)
	if err := m.copyChunks(ctx, n, (*buf)[headerSize:headerSize+size], int64(off)); err != nil {
		answer(errorAnswer(unique(req), unix.Errno(m.status(uint32(node), err))))
		return
	}
	m.answerRead(req, *buf, size, answer)
}

func (m *Mount) answerRead(req, buf []byte, size int, answer func([]byte)) {
	m.bytes.Add(int64(size))
	putHeader(buf, unique(req), headerSize+size, 0)
	answer(buf[:headerSize+size])
}

// status is what the kernel is told of a failure; it is recorded if it is one.
func (m *Mount) status(node uint32, err error) fuse.Status {
	switch {
	case errors.Is(err, errStopping):
		return errRestart
	case errors.Is(err, errKilled):
		return fuse.EINTR
	}
	m.fail(node, err)
	return fuse.EIO
}

// fetch sees to it that all chunks of a piece of a file are here, and that those to come are on their way.
func (m *Mount) fetch(ctx context.Context, req []byte, node uint32, off int64, size int) error {
	n := &m.cfg.List.Nodes[node]
	if n.Missing() {
		return errors.New("the flist does not say where its content is")
	}
	first, last := span(n, off, size)
	var missing []int
	for i := first; i <= last; i++ {
		m.order.touch(n.Chunks[i].ID)
		if !m.cfg.View.Have(n.Chunks[i]) {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		m.ahead.read(ctx, m.cfg.View, n, node, first, last)
		return nil
	}
	pid := binary.NativeEndian.Uint32(req[32:])
	return m.calls.await(ctx, unique(req), pid, m.cfg.Deadline, func(ctx context.Context) error {
		g, each := errgroup.WithContext(ctx)
		for _, i := range missing {
			g.Go(func() error {
				f, err := m.cfg.View.Open(each, n.Chunks[i], n.ChunkLen(i))
				if err != nil {
					return err
				}
				return f.Close()
			})
		}
		m.ahead.read(ctx, m.cfg.View, n, node, first, last)
		return g.Wait()
	})
}

// span is the first and the last chunk of a piece of a file.
func span(n *flist.Node, off int64, size int) (first, last int) {
	return int(off / int64(n.ChunkSize)), int((off + int64(size) - 1) / int64(n.ChunkSize))
}

// copyChunks reads what was fetched. A chunk that a full disk could not keep is fetched again here.
func (m *Mount) copyChunks(run context.Context, n *flist.Node, p []byte, off int64) error {
	ctx, cancel := context.WithTimeout(run, m.cfg.Deadline)
	defer cancel()
	for len(p) > 0 {
		i := int(off / int64(n.ChunkSize))
		at := off - int64(i)*int64(n.ChunkSize)
		want := min(len(p), n.ChunkLen(i)-int(at))
		got, err := m.cfg.View.ReadAt(ctx, n.Chunks[i], n.ChunkLen(i), p[:want], at)
		if got < want {
			switch {
			case run.Err() != nil:
				return errStopping
			case err == nil, errors.Is(err, io.EOF):
				err = fmt.Errorf("chunk %s is shorter than it should be", n.Chunks[i].ID)
			}
			return err
		}
		p, off = p[want:], off+int64(want)
	}
	return nil
}

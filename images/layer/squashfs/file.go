package squashfs

import (
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"sync"
)

// File is the content of a regular file.
type File struct {
	im *Image
	n  Node
}

// blockJob is one data block to read; out receives exactly one answer.
type blockJob struct {
	pos    uint64
	stored uint32 // bytes in the image, bit 24 set if not compressed, 0 for a hole
	size   int
	out    chan blockDone
}

type blockDone struct {
	data []byte
	err  error
}

// Copy writes the content to w and returns its length. Large files are decompressed by several goroutines, all gone when
// Copy returns.
func (f *File) Copy(ctx context.Context, w io.Writer) (int64, error) {
	whole := f.n.Size / int64(f.im.blockSize)
	tail := int(f.n.Size % int64(f.im.blockSize))
	inFragment := tail > 0 && f.n.contents.fragment != none32
	if tail > 0 && !inFragment {
		whole++
	}
	var done int64
	if whole > 0 {
		var err error
		if done, err = f.copyBlocks(ctx, w, whole); err != nil {
			return done, err
		}
	}
	if !inFragment {
		return done, nil
	}
	data, err := f.im.fragment(f.n.contents.fragment)
	if err != nil {
		return done, err
	}
	if at := uint64(f.n.contents.offset); at+uint64(tail) <= uint64(len(data)) {
		m, err := w.Write(data[at:][:tail])
		return done + int64(m), err
	}
	return done, damaged("%q lies outside its fragment", f.n.Path)
}

func (f *File) copyBlocks(ctx context.Context, w io.Writer, count int64) (done int64, err error) {
	if count == 1 {
		return f.copyOne(w)
	}
	workers := int(min(count, int64(runtime.GOMAXPROCS(0)), 4))
	ctx, cancel := context.WithCancel(ctx)
	jobs, order := make(chan blockJob, workers), make(chan chan blockDone, 2*workers)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	buffers := sync.Pool{New: func() any { return &blockBuffer{b: make([]byte, f.im.blockSize)} }}
	for range workers {
		wg.Go(func() {
			for j := range jobs {
				j.out <- f.im.block(j, &buffers)
			}
		})
	}
	var sizesErr error // read after order is closed
	wg.Go(func() {
		defer close(order)
		defer close(jobs)
		sizesErr = f.send(ctx, count, jobs, order)
	})
	for out := range order {
		b := <-out
		if b.err == nil {
			b.err = ctx.Err()
		}
		if b.err != nil {
			return done, b.err
		}
		n, err := w.Write(b.data)
		done += int64(n)
		if err != nil {
			return done, err
		}
		buffers.Put(&blockBuffer{b: b.data[:cap(b.data)]})
	}
	if sizesErr != nil {
		return done, sizesErr
	}
	return done, ctx.Err()
}

// copyOne spares the goroutines for a file of a single block.
func (f *File) copyOne(w io.Writer) (int64, error) {
	sizes := f.n.contents.sizes
	b, err := sizes.take(4)
	if err != nil {
		return 0, err
	}
	size := int(min(f.n.Size, int64(f.im.blockSize)))
	pool := sync.Pool{New: func() any { return &blockBuffer{b: make([]byte, f.im.blockSize)} }}
	done := f.im.block(blockJob{pos: f.n.contents.start, stored: binary.LittleEndian.Uint32(b), size: size}, &pool)
	if done.err != nil {
		return 0, done.err
	}
	n, err := w.Write(done.data)
	return int64(n), err
}

type blockBuffer struct{ b []byte }

// send hands out the blocks of f in order. It alone uses the cache of metadata while it runs.
func (f *File) send(ctx context.Context, count int64, jobs chan<- blockJob, order chan<- chan blockDone) error {
	sizes, pos := f.n.contents.sizes, f.n.contents.start
	left := f.n.Size
	for range count {
		b, err := sizes.take(4)
		if err != nil {
			return err
		}
		stored := binary.LittleEndian.Uint32(b)
		j := blockJob{pos: pos, stored: stored, size: int(min(left, int64(f.im.blockSize))), out: make(chan blockDone, 1)}
		pos += uint64(stored &^ (1 << 24))
		left -= int64(j.size)
		select {
		case order <- j.out:
		case <-ctx.Done():
			return ctx.Err()
		}
		// Never stuck: a worker answers into a channel of its own that has room.
		jobs <- j
	}
	return nil
}

// block reads and decompresses one data block.
func (im *Image) block(j blockJob, buffers *sync.Pool) blockDone {
	buf, ok := buffers.Get().(*blockBuffer)
	if !ok {
		panic("BUG: the pool holds buffers only")
	}
	dst := buf.b[:j.size]
	if j.stored == 0 {
		clear(dst)
		return blockDone{data: dst}
	}
	data, err := im.stored(dst, j.pos, j.stored)
	if err == nil && len(data) != j.size {
		err = damaged("block at %d has %d bytes instead of %d", j.pos, len(data), j.size)
	}
	return blockDone{data: data, err: err}
}

// stored reads a data or fragment block into dst.
func (im *Image) stored(dst []byte, pos uint64, stored uint32) ([]byte, error) {
	size := int(stored &^ (1 << 24))
	if size == 0 || size > im.blockSize {
		return nil, damaged("block of %d bytes", size)
	}
	if stored&(1<<24) != 0 {
		if size > len(dst) {
			return nil, damaged("block of %d bytes instead of %d", size, len(dst))
		}
		return dst[:size], im.readAt(dst[:size], pos)
	}
	src := make([]byte, size)
	if err := im.readAt(src, pos); err != nil {
		return nil, err
	}
	return im.inflate(dst, src)
}

// fragment returns fragment block i. The last one is kept: the ends of neighbouring files share it.
func (im *Image) fragment(i uint32) ([]byte, error) {
	if i >= im.fragmentCount {
		return nil, damaged("fragment %d of %d", i, im.fragmentCount)
	}
	if im.fragStart == int64(i) {
		return im.frag, nil
	}
	b, err := im.lookup(im.fragments, i, 16)
	if err != nil {
		return nil, err
	}
	im.fragStart = -1
	if im.frag == nil {
		im.frag = make([]byte, im.blockSize)
	}
	data, err := im.stored(im.frag[:im.blockSize], binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:]))
	if err != nil {
		return nil, err
	}
	im.frag, im.fragStart = data, int64(i)
	return data, nil
}

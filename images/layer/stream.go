package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/buoy-edge/buoy/internal/errs"
)

// A stream has at most this much in flight: 2 MiB.
const (
	chunkSize  = 256 << 10
	chunkCount = 8
	tarBlock   = 512
)

// chunk is a piece of the uncompressed stream. Two read it, the parser and the hash; the last one gives it back.
type chunk struct {
	b       []byte
	n       int
	readers atomic.Int32
}

// stream is the pipeline of an archive: one goroutine decompresses, one hashes, and the caller reads the result.
// Each channel has room for all chunks there are, so only the wait for a free one ever blocks.
type stream struct {
	free, parse, hash chan *chunk
	src               *source
	err               error // how the input ended, nil for its end; set before parse is closed
	id                string

	// Of the reader:
	cur   *chunk
	rest  []byte
	left  int64 // bytes that may still come
	total int64 // bytes that came
	zeros int   // bytes at the end of those that are zero, as far as they matter
}

func newStream(r io.Reader, limit int64) *stream {
	s := &stream{
		free: make(chan *chunk, chunkCount), parse: make(chan *chunk, chunkCount), hash: make(chan *chunk, chunkCount),
		src: &source{r: r}, left: limit,
	}
	for range chunkCount {
		s.free <- &chunk{}
	}
	return s
}

// run calls read with the uncompressed stream while other goroutines fill it, and returns the digest of all of it. All of
// them are gone when it returns.
func (s *stream) run(ctx context.Context, read func(context.Context, io.Reader) error) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	whole := make(chan struct{})
	wg.Go(func() {
		defer close(whole)
		defer close(s.parse)
		defer close(s.hash)
		s.err = s.fill(ctx)
	})
	wg.Go(s.sum)
	wg.Go(func() { // unblocks a Read that waits for a network
		select {
		case <-whole:
		case <-ctx.Done():
			s.src.close()
		}
	})
	r := streamReader{ctx, s}
	if err := read(ctx, r); err != nil {
		return "", s.blame(ctx, err)
	}
	// The digest is of everything, also of what follows the end of the archive.
	s.left = min(s.left, maxTrailer)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return "", s.blame(ctx, err)
	}
	// archive/tar takes an archive that ends within a block for whole. Only one without its end mark really is not: some
	// tools write none, and some pad oddly.
	if s.total%tarBlock != 0 && s.zeros < tarBlock {
		return "", errs.E(errs.Invalid, "archive is cut short after %d bytes", s.total)
	}
	wg.Wait()
	return s.id, nil
}

// maxTrailer is how much may follow the end of an archive; tar itself pads to 10 KiB.
const maxTrailer = 64 << 20

// fill decompresses until the input ends.
func (s *stream) fill(ctx context.Context) error {
	dec, err := decompress(s.src)
	if err != nil {
		return err
	}
	defer dec.close()
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-ctx.Done():
			return ctx.Err()
		}
		if c.b == nil {
			c.b = make([]byte, chunkSize)
		}
		n, err := readChunk(dec, c.b)
		if n > 0 {
			c.n = n
			c.readers.Store(2)
			s.hash <- c
			s.parse <- c
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readChunk is io.ReadFull that passes the error on as it is: it tells a stream that ended from one that was cut.
func readChunk(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

func (s *stream) sum() {
	h := sha256.New()
	for c := range s.hash {
		h.Write(c.b[:c.n])
		s.release(c)
	}
	s.id = "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func (s *stream) release(c *chunk) {
	if c.readers.Add(-1) == 0 {
		s.free <- c
	}
}

// streamReader is the reading end.
type streamReader struct {
	ctx context.Context //nolint:containedctx // lives as long as the call of run
	s   *stream
}

var errStreamTooLong = errs.E(errs.Invalid, "archive is longer than allowed")

func (r streamReader) Read(p []byte) (int, error) {
	s := r.s
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	for len(s.rest) == 0 {
		if s.cur != nil {
			s.release(s.cur)
			s.cur = nil
		}
		c, ok := <-s.parse
		if !ok {
			if s.err != nil {
				return 0, s.err
			}
			return 0, io.EOF
		}
		if s.left -= int64(c.n); s.left < 0 {
			return 0, errStreamTooLong
		}
		s.cur, s.rest = c, c.b[:c.n]
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	s.total += int64(n)
	end := p[max(n-tarBlock, 0):n]
	if zero := len(end) - len(bytes.TrimRight(end, "\x00")); zero < n {
		s.zeros = zero
	} else {
		s.zeros = min(s.zeros+n, tarBlock)
	}
	return n, nil
}

// blame finds what an error of the reader came from: the end of ctx, the input, or the archive.
func (s *stream) blame(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if src := s.src.failure(); src != nil {
		return fmt.Errorf("read archive: %w", src)
	}
	return err
}

// source is the input: it knows its own failures from those of the decompressor, and can be closed while it is read.
type source struct {
	r    io.Reader
	mu   sync.Mutex // guards fail
	fail error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.fail = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

func (s *source) close() {
	if c, ok := s.r.(io.Closer); ok {
		_ = c.Close() // only to unblock it; the caller closes it too
	}
}

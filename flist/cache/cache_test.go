package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// made is a chunk for a test.
type made struct {
	Want
	plain []byte
}

func makeChunks(count, size int) []made {
	var list []made
	for i := range count {
		r := rand.New(rand.NewPCG(uint64(i), uint64(size)))
		plain := make([]byte, size)
		for j := 0; j < size; j += 8 {
			copy(plain[j:], binary.LittleEndian.AppendUint64(nil, r.Uint64()))
		}
		ref, _ := []chunk.Scheme{chunk.XXTEA, chunk.GCM}[i%2].Seal(plain)
		list = append(list, made{Want{ref, size}, plain})
	}
	return list
}

func wants(list []made) []Want {
	var w []Want
	for _, m := range list {
		w = append(w, m.Want)
	}
	return w
}

// shop is a Source in memory. As a Router does, it gives a chunk only to who has its key.
type shop struct {
	chunks map[chunk.Ref][]byte
	sold   atomic.Int64
	before func(ctx context.Context, ref chunk.Ref) error
}

func newShop(list []made) *shop {
	s := &shop{chunks: map[chunk.Ref][]byte{}}
	for _, m := range list {
		s.chunks[m.Ref] = m.plain
	}
	return s
}

func (s *shop) Fetch(ctx context.Context, ref chunk.Ref, size int) ([]byte, error) {
	s.sold.Add(1)
	if s.before != nil {
		if err := s.before(ctx, ref); err != nil {
			return nil, err
		}
	}
	plain, ok := s.chunks[ref]
	switch {
	case !ok:
		return nil, errs.E(errs.NotFound, "sold out")
	case len(plain) != size:
		return nil, errs.E(errs.Invalid, "wrong size")
	}
	return plain, ctx.Err()
}

func mustOpen(t testing.TB, cfg Config) *Cache {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// check reads a chunk in every way, and fails at a wrong byte or an error.
func check(t testing.TB, v *View, m made) {
	t.Helper()
	f, err := v.Open(t.Context(), m.Ref, m.Size)
	if err != nil {
		t.Errorf("Open: %v", err)
		return
	}
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, m.plain) {
		t.Errorf("Open gives %d bytes of %d, %v", len(got), len(m.plain), err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	checkAt(t, v, m, 0, m.Size)
	checkAt(t, v, m, m.Size/3, m.Size/2)
	checkAt(t, v, m, m.Size/2, m.Size)
	checkAt(t, v, m, m.Size, 1)
}

func checkAt(t testing.TB, v *View, m made, off, n int) {
	t.Helper()
	p := make([]byte, n)
	got, err := v.ReadAt(t.Context(), m.Ref, m.Size, p, int64(off))
	want, wantErr := bytes.NewReader(m.plain).ReadAt(make([]byte, n), int64(off))
	if got != want || err != wantErr || !bytes.Equal(p[:got], m.plain[off:off+want]) { //nolint:errorlint // io.EOF itself is promised
		t.Errorf("ReadAt(%d, %d) = %d, %v, not %d, %v, or other bytes", off, n, got, err, want, wantErr)
	}
}

func usage(t testing.TB, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return nil //nolint:nilerr // files come and go
		}
		if st, err := d.Info(); err == nil {
			total += st.Size()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return total
}

func TestReads(t *testing.T) {
	testleak.Check(t)
	list := append(makeChunks(6, 300_000), makeChunks(2, 1)...)
	s := newShop(list)
	dir := filepath.Join(t.TempDir(), "made", "here")
	c := mustOpen(t, Config{Dir: dir})
	v := c.View(s)
	for range 2 {
		for i, m := range list {
			if s.sold.Load() <= int64(i) && v.Have(m.Ref) {
				t.Error("a chunk is there before it is fetched")
			}
			check(t, v, m)
			if !v.Have(m.Ref) {
				t.Error("a chunk is not there after it was fetched")
			}
		}
	}
	if got := c.Stats(); s.sold.Load() != 8 || got.Fetched != 8 || got.Chunks != 8 || got.Bytes != usage(t, dir) || got.Misses != 8 || got.Hits == 0 {
		t.Errorf("%d were sold: %+v, %d bytes on the disk", s.sold.Load(), got, usage(t, dir))
	}
	for _, e := range c.dirty {
		if err := c.sync(e); err != nil {
			t.Errorf("sync: %v", err)
		}
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, errs.Conflict) {
		t.Errorf("a second process: %v", err)
	}
	if _, err := v.ReadAt(t.Context(), list[0].Ref, list[0].Size, make([]byte, 1), -1); !errors.Is(err, errs.Invalid) {
		t.Errorf("a read before the start: %v", err)
	}
	for _, m := range list[:2] { // both schemes
		stored, err := c.Stored(m.Ref.ID)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := m.Ref.Open(stored, m.Size); err != nil || !bytes.Equal(plain, m.plain) {
			t.Errorf("Stored: %v", err)
		}
	}
	if _, err := c.Stored(chunk.ID("0123456789abcdef")); !errors.Is(err, errs.NotFound) {
		t.Errorf("Stored of what is not here: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Open(t.Context(), list[0].Ref, 5); !errors.Is(err, errs.Unavailable) {
		t.Errorf("Open after Close: %v", err)
	}

	c = mustOpen(t, Config{Dir: dir}) // again
	v = c.View(s)
	for _, m := range list {
		check(t, v, m)
	}
	if s.sold.Load() != 8 || c.Stats().Fetched != 0 {
		t.Errorf("%d were sold", s.sold.Load())
	}
}

// TestOneFetch: however many want a chunk, it is fetched once; who gives up harms nobody, and nobody is fetched for.
func TestOneFetch(t *testing.T) {
	testleak.Check(t)
	m := makeChunks(1, 1000)[0]
	s := newShop([]made{m})
	entered, gate := make(chan struct{}, 10), make(chan struct{})
	var ended atomic.Int64
	s.before = func(ctx context.Context, _ chunk.Ref) error {
		entered <- struct{}{}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			ended.Add(1)
			return ctx.Err()
		}
	}
	c := mustOpen(t, Config{Dir: t.TempDir()})
	v := c.View(s)
	first, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := v.Open(first, m.Ref, m.Size); !errors.Is(err, context.Canceled) || !errors.Is(err, errs.Unavailable) {
			t.Errorf("who gave up gets %v", err)
		}
	})
	<-entered
	for range 50 {
		wg.Go(func() { check(t, v, m) })
	}
	for c.waiters() < 51 {
		time.Sleep(time.Millisecond)
	}
	leave()
	for c.waiters() > 50 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wg.Wait()
	if n := s.sold.Load(); n != 1 || ended.Load() != 0 {
		t.Errorf("%d fetches, %d given up", n, ended.Load())
	}

	gate = make(chan struct{})
	m2 := makeChunks(1, 2000)[0]
	alone, leave := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer leave()
	if _, err := v.ReadAt(alone, m2.Ref, m2.Size, make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who has no more time gets %v", err)
	}
	for ended.Load() != 1 {
		time.Sleep(time.Millisecond)
	}
	<-entered
	wg.Go(func() {
		if _, err := v.Open(t.Context(), m2.Ref, m2.Size); !errors.Is(err, errs.Unavailable) && !errors.Is(err, context.Canceled) {
			t.Errorf("who waits at Close gets %v", err)
		}
	})
	<-entered
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func (c *Cache) waiters() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fl := range c.flights {
		n += fl.waiters
	}
	return n
}

// TestStrangers: an flist that knows a name and not the key gets nothing, and spoils nothing.
func TestStrangers(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(2, 1000)
	s := newShop(list)
	dir := t.TempDir()
	for _, restarted := range []bool{false, true} {
		c := mustOpen(t, Config{Dir: dir})
		v := c.View(s)
		if !restarted {
			check(t, v, list[0])
		}
		thief := list[0].Ref
		thief.Key = string(make([]byte, 16))
		if _, err := c.View(newShop(nil)).Open(t.Context(), thief, 1000); !errors.Is(err, errs.NotFound) {
			t.Errorf("a wrong key opens: %v", err)
		}
		if n, err := v.ReadAt(t.Context(), thief, 1000, make([]byte, 10), 0); !errors.Is(err, errs.NotFound) {
			t.Errorf("a wrong key reads %d: %v", n, err)
		}
		if restarted {
			check(t, v, list[0])
		}
		for _, size := range []int{999, 1001, 0, -1} {
			if n, err := v.ReadAt(t.Context(), list[0].Ref, size, make([]byte, 2000), 0); !errors.Is(err, errs.Invalid) && !(size <= 0 && n == 0) {
				t.Errorf("%d bytes of a chunk of 1000: %d, %v", size, n, err)
			}
			if _, err := v.Open(t.Context(), list[0].Ref, size); !errors.Is(err, errs.Invalid) {
				t.Errorf("%d bytes of a chunk of 1000: %v", size, err)
			}
		}
		check(t, v, list[0])
		if s.sold.Load() != 2 && !restarted { // its own, and the thief's try
			t.Errorf("%d were sold", s.sold.Load())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestOtherView: a view whose stores lack a chunk does not keep another one from getting it.
func TestOtherView(t *testing.T) {
	testleak.Check(t)
	m := makeChunks(1, 1000)[0]
	poor, rich := newShop(nil), newShop([]made{m})
	c := mustOpen(t, Config{Dir: t.TempDir()})
	gate := make(chan struct{})
	poor.before = func(context.Context, chunk.Ref) error { <-gate; return nil }
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.View(poor).Open(t.Context(), m.Ref, m.Size); !errors.Is(err, errs.NotFound) {
			t.Errorf("the poor one: %v", err)
		}
	})
	for c.waiters() < 1 {
		time.Sleep(time.Millisecond)
	}
	wg.Go(func() { check(t, c.View(rich), m) })
	for c.waiters() < 2 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wg.Wait()
}

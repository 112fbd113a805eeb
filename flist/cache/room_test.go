package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// TestBudget: 16 readers of ten times the budget; the directory never holds more.
func TestBudget(t *testing.T) {
	testleak.Check(t)
	const size, budget = 20_000, 20 * 20_000
	list := makeChunks(200, size)
	dir := t.TempDir()
	c := mustOpen(t, Config{Dir: dir, Budget: budget})
	v := c.View(newShop(list))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var most atomic.Int64
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.disk.Lock() // or what moves is counted twice
				most.Store(max(most.Load(), usage(t, dir)))
				c.disk.Unlock()
			}
		}
	})
	var readers sync.WaitGroup
	for i := range 16 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range 150 {
				check(t, v, list[int(r.ExpFloat64()*20)%200])
			}
		})
	}
	readers.Wait()
	close(stop)
	wg.Wait()
	s := c.Stats()
	if m := most.Load(); m > budget || s.Bytes > budget || s.Bytes != usage(t, dir) || s.Evicted == 0 || s.Loose > s.Fetched/10 {
		t.Errorf("at most %d bytes of %d; %+v, %d on the disk", m, budget, s, usage(t, dir))
	}
	t.Logf("%+v", s)
	if freed := c.Trim(100_000); freed != 100_000 || usage(t, dir) != s.Bytes-freed {
		t.Errorf("Trim freed %d", freed)
	}
	if freed := c.Trim(1 << 40); usage(t, dir) != 0 || c.Stats().Bytes != 0 {
		t.Errorf("Trim of all freed %d and left %d", freed, usage(t, dir))
	}
	check(t, v, list[0])
}

// TestEvictedOpen: who has a file open keeps its bytes. And what was used last is thrown out last.
func TestEvictedOpen(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(4, 1000)
	c := mustOpen(t, Config{Dir: t.TempDir(), Budget: 2000})
	v := c.View(newShop(list))
	f, err := v.Open(t.Context(), list[0].Ref, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check(t, v, list[1])
	checkAt(t, v, list[0], 0, 10)
	check(t, v, list[2]) // in place of 1
	if !v.Have(list[0].Ref) || v.Have(list[1].Ref) || !v.Have(list[2].Ref) {
		t.Error("the wrong one was thrown out")
	}
	check(t, v, list[1])
	check(t, v, list[3])
	if v.Have(list[0].Ref) {
		t.Error("the oldest was not thrown out")
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, list[0].plain) {
		t.Errorf("an open file has %d bytes, %v", len(got), err)
	}
	big := makeChunks(1, 3000)[0]
	c2 := mustOpen(t, Config{Dir: t.TempDir(), Budget: 2000})
	s := newShop([]made{big})
	check(t, c2.View(s), big) // does not fit at all
	if s.sold.Load() != 1 || c2.Stats().Loose != 1 || c2.Stats().Bytes != 0 {
		t.Errorf("%d were sold, %+v", s.sold.Load(), c2.Stats())
	}
}

// TestShared: chunks that layers link to cost nothing and stay.
func TestShared(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(6, 1000)
	dir, layer := t.TempDir(), t.TempDir()
	c := mustOpen(t, Config{Dir: dir, Budget: 3000})
	v := c.View(newShop(list))
	for _, m := range list[:2] {
		f, err := v.Open(t.Context(), m.Ref, m.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Link(c.path(m.Ref.ID), filepath.Join(layer, m.Ref.ID.String())); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, m := range list {
		check(t, v, m)
	}
	if s := c.Stats(); s.SharedChunks != 2 || s.SharedBytes != 2000 || s.Chunks != 3 || s.Bytes != 3000 || !v.Have(list[0].Ref) || s.Evicted != 1 {
		t.Errorf("%+v", s)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = mustOpen(t, Config{Dir: dir, Budget: 3000})
	if s := c.Stats(); s.SharedChunks != 2 || s.Bytes != 3000 {
		t.Errorf("after a start: %+v", s)
	}
	if err := os.RemoveAll(layer); err != nil {
		t.Fatal(err)
	}
	c.unshare()
	if s := c.Stats(); s.SharedChunks != 0 || s.Bytes != 3000 || s.Evicted != 2 {
		t.Errorf("without the layer: %+v", s)
	}
}

// TestReserve: below the reserve nothing is kept, and many small reads cost one fetch.
func TestReserve(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(3, 100_000)
	s := newShop(list)
	dir := t.TempDir()
	c := mustOpen(t, Config{Dir: dir, Reserve: 1 << 60})
	for _, m := range list {
		for off := 0; off < m.Size; off += 4096 {
			checkAt(t, c.View(s), m, off, 4096)
		}
		check(t, c.View(s), m)
	}
	if got := c.Stats(); s.sold.Load() != 3 || got.Loose != 3 || usage(t, dir) != 0 {
		t.Errorf("%d were sold, %+v", s.sold.Load(), got)
	}
}

// TestFullDisk: what cannot be written is served all the same.
func TestFullDisk(t *testing.T) {
	testroot.Require(t)
	testleak.Check(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	list := makeChunks(40, 100_000)
	c := mustOpen(t, Config{Dir: dir, Reserve: -1 << 40}) // looks full only when it is
	v := c.View(newShop(list))
	for _, m := range list {
		check(t, v, m)
	}
	s := c.Stats()
	if s.Loose < 25 || s.Chunks < 5 || s.Bytes != usage(t, dir) {
		t.Errorf("%+v, %d bytes on the disk", s, usage(t, dir))
	}
	c.Trim(1 << 40)
	check(t, v, list[0]) // which is not in memory any longer
	if !v.Have(list[0].Ref) {
		t.Error("nothing is kept when there is room again")
	}
}

// TestLie: an flist that says of a chunk what is not so gets nothing of what another one fetches at the same time, or cannot keep.
func TestLie(t *testing.T) {
	testleak.Check(t)
	m := makeChunks(1, 100_000)[0]
	c := mustOpen(t, Config{Dir: t.TempDir(), Reserve: 1 << 60}) // nothing is kept
	wait := make(chan struct{})
	v := c.View(sourceFunc(func(context.Context, chunk.Ref, int) ([]byte, error) {
		<-wait
		return m.plain, nil
	}))
	var wg sync.WaitGroup
	wg.Go(func() { check(t, v, m) })
	for c.waiters() < 1 {
		time.Sleep(time.Millisecond)
	}
	wg.Go(func() {
		if _, err := v.ReadAt(t.Context(), m.Ref, 200_000, make([]byte, 1), 150_000); errs.KindOf(err) != errs.Invalid {
			t.Errorf("beyond the end: %v", err)
		}
	})
	for c.waiters() < 2 {
		time.Sleep(time.Millisecond)
	}
	close(wait)
	wg.Wait()
	if _, err := v.ReadAt(t.Context(), m.Ref, 200_000, make([]byte, 1), 150_000); errs.KindOf(err) != errs.Invalid {
		t.Errorf("beyond the end of what is in memory: %v", err)
	}
}

type sourceFunc func(context.Context, chunk.Ref, int) ([]byte, error)

func (f sourceFunc) Fetch(ctx context.Context, ref chunk.Ref, size int) ([]byte, error) {
	return f(ctx, ref, size)
}

// TestGivesWay: on a disk that fills up the cache leaves the reserve alone, keeps what is new, and makes room for others.
func TestGivesWay(t *testing.T) {
	testroot.Require(t)
	testleak.Check(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	const reserve = 500_000
	list := makeChunks(160, 100_000)
	c := mustOpen(t, Config{Dir: filepath.Join(dir, "cache"), Reserve: reserve})
	v := c.View(newShop(list))
	for _, m := range list[:100] {
		check(t, v, m)
		if !v.Have(m.Ref) {
			t.Fatal("what was just read is not kept")
		}
	}
	other := mustCreate(t, filepath.Join(dir, "other"))
	for _, m := range list[100:] {
		if _, err := other.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		check(t, v, m)
		free, _, err := c.free()
		if err != nil || free < reserve {
			t.Fatalf("%d bytes are free, and %d are in reserve (%v): %+v", free, reserve, err, c.Stats())
		}
	}
}

func mustCreate(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestSlowDisk: bytes that have come are served before they are written, up to a bound.
func TestSlowDisk(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(maxWriting+1, 1000)
	s := newShop(list)
	c := mustOpen(t, Config{Dir: t.TempDir()})
	v := c.View(s)
	c.disk.Lock() // nothing gets its name now
	for range 2 {
		for _, m := range list[:maxWriting] {
			checkAt(t, v, m, 0, 1000)
		}
	}
	last := list[maxWriting]
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := v.ReadAt(ctx, last.Ref, 1000, make([]byte, 1), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("more than are to wait in memory: %v", err)
	}
	if n := s.sold.Load(); n != maxWriting+1 {
		t.Errorf("%d were sold", n)
	}
	var wg sync.WaitGroup
	wg.Go(func() { check(t, v, list[0]) })
	for c.waiters() < 2*maxWriting+1 {
		time.Sleep(time.Millisecond)
	}
	c.disk.Unlock()
	wg.Wait()
	for _, m := range list {
		check(t, v, m)
	}
	if n := s.sold.Load(); n > maxWriting+2 {
		t.Errorf("%d were sold", n)
	}
}

// TestDamage: files that somebody changes are fetched again.
func TestDamage(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(8, 100_000)
	s := newShop(list)
	dir := t.TempDir()
	c := mustOpen(t, Config{Dir: dir})
	v := c.View(s)
	for _, m := range list {
		check(t, v, m)
	}
	path := func(i int) string { return c.path(list[i].Ref.ID) }
	harm := func() {
		for i, f := range []func() error{
			func() error { return os.Truncate(path(0), 10) },
			func() error { return os.Truncate(path(1), 0) },
			func() error { return os.Truncate(path(2), 200_000) },
			func() error { return os.Remove(path(3)) },
			func() error { return errors.Join(os.Remove(path(4)), os.Mkdir(path(4), 0o700)) },
			func() error { return errors.Join(os.Remove(path(5)), os.Symlink("/etc/passwd", path(5))) },
		} {
			if err := f(); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	harm()
	for _, i := range []int{0, 1, 3} { // through the files that are kept open
		checkAt(t, v, list[i], 0, 100_000)
	}
	for _, m := range list {
		check(t, v, m)
	}
	if n := s.sold.Load(); n != 8+5 && n != 8+6 { // a file that was removed may still be open
		t.Errorf("%d were sold", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	harm()
	flip(t, path(6))
	s.sold.Store(0)
	c = mustOpen(t, Config{Dir: dir})
	v = c.View(s)
	for _, m := range list {
		check(t, v, m)
	}
	if n := s.sold.Load(); n != 7 || c.Stats().Damaged == 0 {
		t.Errorf("%d were sold, %+v", n, c.Stats())
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		check(t, v, m)
	}
}

func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPrefetch(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(50, 10_000)
	s := newShop(list)
	var now, most atomic.Int64
	s.before = func(context.Context, chunk.Ref) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(2 * time.Millisecond)
		now.Add(-1)
		return nil
	}
	c := mustOpen(t, Config{Dir: t.TempDir()})
	v := c.View(s)
	check(t, v, list[7])
	var last, calls int64
	progress := func(done, total int64) {
		if done <= last || total != 500_000 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
		calls++
	}
	if err := v.Prefetch(t.Context(), append(wants(list), wants(list)...), 5, progress); err != nil {
		t.Fatal(err)
	}
	if s.sold.Load() != 50 || most.Load() != 5 || last != 500_000 || calls != 50 {
		t.Errorf("%d were sold, %d at once, progress %d in %d calls", s.sold.Load(), most.Load(), last, calls)
	}

	// what no store has does not keep it from the rest
	missing := makeChunks(2, 500)
	more := makeChunks(4, 700)
	s2 := newShop(more)
	err := c.View(s2).Prefetch(t.Context(), append(wants(missing), wants(more)...), 1, nil)
	if !errors.Is(err, errs.NotFound) || !v.Have(more[3].Ref) {
		t.Errorf("with chunks that are not to be had: %v", err)
	}

	// a store that is away ends it
	s3 := newShop(nil)
	s3.before = func(context.Context, chunk.Ref) error { return errs.E(errs.Unavailable, "away") }
	if err := c.View(s3).Prefetch(t.Context(), wants(makeChunks(20, 900)), 1, nil); !errors.Is(err, errs.Unavailable) || s3.sold.Load() != 1 {
		t.Errorf("without a store: %v after %d", err, s3.sold.Load())
	}

	// and so does its caller
	ctx, cancel := context.WithCancel(t.Context())
	s4 := newShop(nil)
	s4.before = func(ctx context.Context, _ chunk.Ref) error { cancel(); <-ctx.Done(); return ctx.Err() }
	if err := c.View(s4).Prefetch(ctx, wants(makeChunks(20, 800)), 4, nil); !errors.Is(err, context.Canceled) || !errors.Is(err, errs.Unavailable) {
		t.Errorf("when nobody wants it: %v", err)
	}
}

// TestPrefetchFull: a prefetch throws out what is old, not what is in use nor what it has fetched itself.
func TestPrefetchFull(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(20, 1000)
	c := mustOpen(t, Config{Dir: t.TempDir(), Budget: 10_000})
	s := newShop(list)
	v := c.View(s)
	for _, m := range list[:10] {
		check(t, v, m)
	}
	var once sync.Once
	err := v.Prefetch(t.Context(), wants(list[10:]), 1, func(done, _ int64) {
		once.Do(func() { check(t, v, list[5]) }) // in use
	})
	if !errors.Is(err, errs.Conflict) || !v.Have(list[5].Ref) || v.Have(list[4].Ref) || !v.Have(list[10].Ref) || !v.Have(list[18].Ref) || v.Have(list[19].Ref) {
		t.Errorf("%v: %+v", err, c.Stats())
	}
}

// TestAhead: a sequential reader that says what comes next waits for the first chunk alone.
func TestAhead(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(60, 1000)
	s := newShop(list)
	var now, most atomic.Int64
	s.before = func(context.Context, chunk.Ref) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(10 * time.Millisecond)
		now.Add(-1)
		return nil
	}
	c := mustOpen(t, Config{Dir: t.TempDir()})
	v := c.View(s)
	began := time.Now()
	for i, m := range list {
		v.Ahead(t.Context(), wants(list[i+1:min(i+9, len(list))]))
		checkAt(t, v, m, 0, 1000)
	}
	if took := time.Since(began); most.Load() < 8 || s.sold.Load() != 60 {
		t.Errorf("60 chunks at 10ms took %v, and %d fetches, %d at once", took, s.sold.Load(), most.Load())
	}
	for c.waiters() > 0 { // the last chunks are still being written
		time.Sleep(time.Millisecond)
	}
	stuck := newShop(nil)
	stuck.before = func(ctx context.Context, _ chunk.Ref) error { <-ctx.Done(); return ctx.Err() }
	c.View(stuck).Ahead(t.Context(), wants(makeChunks(500, 10)))
	if n := c.waiters(); n != maxAhead {
		t.Errorf("%d fetches for nobody", n)
	}
}

package cache

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// child is the environment variable with the directory that a copy of this test is to write a cache into until it dies.
const child = "BUOY_TEST_CACHE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(child); dir != "" {
		fmt.Println(fill(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func killChunks() []made { return makeChunks(100, 20_000) }

// fill reads chunks through a small cache, for ever.
func fill(dir string) error {
	c, err := Open(Config{Dir: dir, Budget: 60 * 20_000})
	if err != nil {
		return err
	}
	list := killChunks()
	v := c.View(newShop(list))
	fmt.Println("ready")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				m := list[rand.IntN(len(list))]
				f, err := v.Open(context.Background(), m.Ref, m.Size)
				if err != nil {
					panic(err)
				}
				f.Close()
			}
		})
	}
	wg.Wait()
	return nil
}

// TestKilled: kill -9 in the middle of writing, again and again. What is left is used again, and right.
func TestKilled(t *testing.T) {
	testleak.Check(t)
	dir := t.TempDir()
	list := killChunks()
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), child+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "ready\n" {
			t.Errorf("round %d: %q, %v", round, line, err)
		}
		time.Sleep(time.Duration(100+rand.IntN(100)) * time.Millisecond) // anywhere
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		s := newShop(list)
		c := mustOpen(t, Config{Dir: dir, Budget: 60 * 20_000})
		found := c.Stats()
		if found.Bytes != usage(t, dir) || found.Bytes > 60*20_000 || found.Chunks == 0 {
			t.Errorf("round %d: %+v, %d bytes on the disk", round, found, usage(t, dir))
		}
		v := c.View(s)
		for _, m := range list {
			if v.Have(m.Ref) {
				checkAt(t, v, m, 0, m.Size)
			}
		}
		if n := s.sold.Load(); n != 0 {
			t.Errorf("round %d: %d of %d chunks were torn", round, n, found.Chunks)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// storeOf puts chunks into a directory and serves that over HTTP, 10ms away.
func storeOf(t testing.TB, list []made, latency time.Duration) *httptest.Server {
	t.Helper()
	dir := t.TempDir()
	w, err := store.Write("dir://"+dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		scheme, err := chunk.SchemeOf(m.Ref.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, stored := scheme.Seal(m.plain)
		if err := w.Put(t.Context(), m.Ref.ID, stored); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir(dir))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(latency)
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func route(t testing.TB, urls, mirrors []string, opt store.Options) *store.Router {
	t.Helper()
	r, err := store.Route(flist.Meta{}, urls, mirrors, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestMirror: one node's cache is another node's store.
func TestMirror(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(10, 100_000)
	hub := storeOf(t, list, 0)
	first := mustOpen(t, Config{Dir: t.TempDir()})
	v := first.View(route(t, []string{hub.URL}, nil, store.Options{}))
	for _, m := range list {
		check(t, v, m)
	}
	hub.Close()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, m := range list {
			if strings.HasSuffix(r.URL.Path, "/chunks/"+m.Ref.ID.String()) {
				if stored, err := first.Stored(m.Ref.ID); err == nil {
					_, _ = w.Write(stored)
					return
				}
			}
		}
		http.NotFound(w, r)
	}))
	defer node.Close()
	second := mustOpen(t, Config{Dir: t.TempDir()})
	v = second.View(route(t, []string{hub.URL}, []string{"buoy+" + node.URL + "/nodes/a"}, store.Options{}))
	for _, m := range list {
		check(t, v, m)
	}
}

// TestReadersFirst: a reader beside a prefetch that has the store to itself otherwise waits little longer than alone.
func TestReadersFirst(t *testing.T) {
	testleak.Check(t)
	const latency = 10 * time.Millisecond
	list := makeChunks(600, 2000)
	hub := storeOf(t, list, latency)
	c := mustOpen(t, Config{Dir: t.TempDir()})
	v := c.View(route(t, []string{hub.URL}, nil, store.Options{Parallel: 4}))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var ran atomic.Int64
	wg.Go(func() {
		err := v.Prefetch(ctx, wants(list[100:]), 64, func(done, _ int64) { ran.Store(done) })
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	for ran.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	// What goes first is counted, not timed: the machine may be busy. In their order, 64 would go before each read.
	began, before := time.Now(), ran.Load()
	for _, m := range list[:20] {
		checkAt(t, v, m, 0, 2000)
	}
	if n := (ran.Load() - before) / 2000; n > 20*15 {
		t.Errorf("%d chunks were prefetched while a reader read 20", n)
	}
	each := time.Since(began) / 20
	before = ran.Load()
	soon := list[100+before/2000+30] // it waits in the prefetch, and comes to the front
	checkAt(t, v, soon, 0, 2000)
	if n := (ran.Load() - before) / 2000; n > 15 {
		t.Errorf("%d chunks were prefetched before the one that was wanted", n)
	}
	cancel()
	wg.Wait()
	t.Logf("a read beside a prefetch took %v", each)
}

// TestStoreStalls: a store that stops in the middle of chunks is got over, through the cache, within the deadline.
func TestStoreStalls(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(20, 50_000)
	hub := storeOf(t, list, 0)
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%4 != 0 {
			hub.Config.Handler.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", "50000")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 20_000))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	c := mustOpen(t, Config{Dir: t.TempDir()})
	v := c.View(route(t, []string{s.URL}, nil, store.Options{Timeout: 100 * time.Millisecond}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, m := range list {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				f, err := v.Open(ctx, m.Ref, m.Size)
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
				check(t, v, m)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	s.Close()
	began := time.Now()
	_, err := v.Open(ctx, makeChunks(1, 777)[0].Ref, 777)
	if errs.KindOf(err) != errs.Unavailable || time.Since(began) > 5*time.Second || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("without a store: after %v: %v", time.Since(began), err)
	}
	t.Log(err)
}

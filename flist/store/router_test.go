package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/internal/testredis"
)

func flistMeta(urls ...string) flist.Meta {
	m := flist.Meta{}
	for i, u := range urls {
		m.Routes = append(m.Routes, flist.Route{Pool: i, URL: u})
	}
	return m
}

func mustRoute(t testing.TB, l flist.Meta, override, mirrors []string, opt Options) *Router {
	t.Helper()
	r, err := Route(l, override, mirrors, opt)
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

// shelf is a web server with chunks that can be made to misbehave.
type shelf struct {
	*httptest.Server
	url    string
	chunks map[string]made
	before func(w http.ResponseWriter, r *http.Request, m made) bool // false: it has answered
	asked  atomic.Int64
	now    atomic.Int64
	most   atomic.Int64
}

func newShelf(t testing.TB, list []made) *shelf {
	t.Helper()
	s := &shelf{chunks: map[string]made{}}
	for _, m := range list {
		s.chunks[m.ref.ID.String()] = m
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		n := s.now.Add(1)
		defer s.now.Add(-1)
		for old := s.most.Load(); n > old && !s.most.CompareAndSwap(old, n); old = s.most.Load() {
		}
		m, ok := s.chunks[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		if s.before != nil && !s.before(w, r, m) {
			return
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(m.stored)
	}))
	s.url = "http://" + s.Listener.Addr().String()
	t.Cleanup(s.Close)
	return s
}

// fetchAll fetches the chunks with so many readers, each of them all chunks, and fails at a wrong byte or an error.
func fetchAll(ctx context.Context, t testing.TB, r *Router, list []made, readers int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			for j := range list {
				m := list[(i*7+j)%len(list)]
				if b, err := r.Fetch(ctx, m.ref, len(m.plain)); err != nil || !bytes.Equal(b, m.plain) {
					t.Errorf("Fetch = %d bytes, %v", len(b), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestKilledUnderLoad kills redis -9 again and again while 32 readers read from it.
func TestKilledUnderLoad(t *testing.T) {
	testleak.Check(t)
	s := testredis.New(t, "--appendfsync", "always")
	list := makeChunks(40, 50_000)
	w := mustWrite(t, s.URL(), Options{})
	for _, m := range list {
		if err := w.Put(t.Context(), m.ref.ID, m.stored); err != nil {
			t.Fatal(err)
		}
	}
	r := mustRoute(t, flistMeta(s.URL()), nil, nil, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var rounds atomic.Int64
	for i := range 32 {
		wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				m := list[(i*7+j)%len(list)]
				if b, err := r.Fetch(ctx, m.ref, len(m.plain)); err != nil || !bytes.Equal(b, m.plain) {
					t.Errorf("Fetch = %d bytes, %v", len(b), err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	for _, down := range []time.Duration{0, 300 * time.Millisecond, 2 * time.Second} {
		before := rounds.Load()
		for rounds.Load() < before+100 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		s.Kill()
		time.Sleep(down) // that is the outage
		s.Start()
	}
	before := rounds.Load()
	for rounds.Load() < before+100 && !t.Failed() && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d chunks", rounds.Load())
}

func TestFailOver(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(20, 30_000)
	good := newShelf(t, list)
	for name, bad := range map[string]func(w http.ResponseWriter, r *http.Request, m made) bool{
		"not there": func(w http.ResponseWriter, r *http.Request, m made) bool { http.NotFound(w, r); return false },
		"garbage": func(w http.ResponseWriter, _ *http.Request, m made) bool {
			_, _ = w.Write(bytes.Repeat([]byte("x"), len(m.stored)))
			return false
		},
		"too long": func(w http.ResponseWriter, _ *http.Request, m made) bool {
			for range 100 {
				_, _ = w.Write(m.stored)
			}
			return false
		},
		"a short answer": func(w http.ResponseWriter, _ *http.Request, m made) bool {
			_, _ = w.Write(m.stored[:len(m.stored)/2])
			return false
		},
		"an answer that breaks": func(w http.ResponseWriter, _ *http.Request, m made) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(m.stored)))
			_, _ = w.Write(m.stored[:len(m.stored)/2])
			panic(http.ErrAbortHandler)
		},
		"an error":  func(w http.ResponseWriter, _ *http.Request, _ made) bool { w.WriteHeader(500); return false },
		"forbidden": func(w http.ResponseWriter, _ *http.Request, _ made) bool { w.WriteHeader(403); return false },
		"silence":   func(_ http.ResponseWriter, r *http.Request, _ made) bool { <-r.Context().Done(); return false },
		"silence in the middle": func(w http.ResponseWriter, r *http.Request, m made) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(m.stored)))
			_, _ = w.Write(m.stored[:len(m.stored)/2])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			first := newShelf(t, list)
			first.before = bad
			began := time.Now()
			fetchAll(t.Context(), t, mustRoute(t, flistMeta(first.url, good.url), nil, nil, Options{Timeout: time.Second}), list, 4)
			if took := time.Since(began); took > 15*time.Second { // 80 fetches, each a second late
				t.Errorf("20 chunks took %v beside a good store", took)
			}
			if !strings.HasPrefix(name, "silence") && !strings.Contains(name, "error") && !strings.Contains(name, "breaks") {
				return
			}
			if n := first.asked.Load(); n > 30 {
				t.Errorf("a store in trouble was asked %d times for 80 chunks", n)
			}
		})
	}
}

// TestOnlyGarbage: the reason is told at once, and in one line.
func TestOnlyGarbage(t *testing.T) {
	testleak.Check(t)
	m := makeChunk(chunk.GCM, 1, 1000)
	s := newShelf(t, []made{m})
	s.before = func(w http.ResponseWriter, _ *http.Request, _ made) bool {
		_, _ = w.Write([]byte("<html>captive portal</html>"))
		return false
	}
	none := newShelf(t, nil)
	r := mustRoute(t, flistMeta(s.url, none.url), nil, nil, Options{})
	_, err := r.Fetch(t.Context(), m.ref, 1000)
	if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), s.url) || !strings.Contains(err.Error(), none.url) || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
	if n := s.asked.Load(); n != 2 {
		t.Errorf("garbage was asked for %d times", n)
	}
	_, err = mustRoute(t, flistMeta(none.url), nil, nil, Options{}).Fetch(t.Context(), m.ref, 1000)
	if !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if _, err = mustRoute(t, flist.Meta{}, nil, nil, Options{}).Fetch(t.Context(), m.ref, 1000); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	for _, size := range []int{-1, chunk.MaxSize + 1, 999} {
		if _, err := r.Fetch(t.Context(), m.ref, size); !errors.Is(err, errs.Invalid) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestDown: a store that stays away costs the time that there is, and few connections.
func TestDown(t *testing.T) {
	testleak.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var tries atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			c.Close()
		}
	})
	r := mustRoute(t, flistMeta("redis://:hush@"+l.Addr().String()), nil, nil, Options{Patience: time.Second})
	var readers sync.WaitGroup
	began := time.Now()
	for i := range 50 {
		readers.Go(func() {
			_, err := r.Fetch(t.Context(), makeChunk(chunk.XXTEA, uint64(i), 10).ref, 10)
			if !errors.Is(err, errs.Unavailable) || !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "hush") {
				t.Error(err)
			}
			if i == 0 {
				t.Log(err)
			}
		})
	}
	readers.Wait()
	if took := time.Since(began); took < time.Second || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if n := tries.Load(); n < 3 || n > 16+6 { // those that were under way at first, then one at a time
		t.Errorf("%d connections in a second", n)
	}
}

func TestRetryAfter(t *testing.T) {
	testleak.Check(t)
	m := makeChunk(chunk.GCM, 1, 1000)
	s := newShelf(t, []made{m})
	var first atomic.Int64
	s.before = func(w http.ResponseWriter, _ *http.Request, _ made) bool {
		if first.CompareAndSwap(0, time.Now().UnixNano()) {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusServiceUnavailable)
			return false
		}
		if early := 2*time.Second - time.Duration(time.Now().UnixNano()-first.Load()); early > 0 {
			t.Errorf("asked again %v too early", early)
		}
		return true
	}
	r := mustRoute(t, flistMeta(s.url), nil, nil, Options{})
	var wg sync.WaitGroup
	wg.Go(func() { fetchAll(t.Context(), t, r, []made{m}, 1) })
	for r.stores[0].blocked(time.Now()) == nil {
		time.Sleep(time.Millisecond)
	}
	fetchAll(t.Context(), t, r, []made{m}, 5)
	wg.Wait()
}

// TestDeadMirror: a mirror that takes connections and says nothing does not make the others slow.
func TestDeadMirror(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(100, 10_000)
	good := newShelf(t, list)
	dead := newShelf(t, nil)
	dead.before = func(_ http.ResponseWriter, r *http.Request, _ made) bool { <-r.Context().Done(); return false }
	r := mustRoute(t, flistMeta(good.url), nil, []string{"buoy+" + dead.url + "/nodes/n1"}, Options{})
	began := time.Now()
	fetchAll(t.Context(), t, r, list, 1)
	if n := dead.asked.Load(); n > 10 {
		t.Errorf("for 100 chunks, the mirror was asked %d times", n)
	}
	if _, err := r.Fetch(t.Context(), makeChunk(chunk.GCM, 1000, 5).ref, 5); !errors.Is(err, errs.NotFound) {
		t.Errorf("what no store has, beside a dead mirror: %v", err)
	}
	if took := time.Since(began); took > 9*time.Second { // the mirror is silent for ten
		t.Errorf("100 chunks took %v", took)
	}
	t.Logf("%v, the mirror was asked %d times", time.Since(began), dead.asked.Load())
}

// TestMirror: another node compresses in its own way.
func TestMirrorOfAnotherNode(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":"node \"local\" is not known here: this is node \"525400123456\""}`)
	}))
	defer s.Close()
	r := mustRoute(t, flist.Meta{}, nil, []string{"buoy+" + s.URL + "/nodes/local"}, Options{})
	ref, _ := chunk.GCM.Seal([]byte("x"))
	if _, err := r.Fetch(t.Context(), ref, 1); err == nil || !strings.Contains(err.Error(), `this is node "525400123456"`) {
		t.Errorf("asked for another node: %v", err)
	}
}

func TestMirror(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(4, 10_000)
	s := newShelf(t, list)
	s.before = func(w http.ResponseWriter, r *http.Request, m made) bool {
		if r.URL.Path != "/nodes/n1/chunks/"+m.ref.ID.String() {
			http.NotFound(w, r)
			return false
		}
		return true
	}
	foreign := makeChunk(chunk.GCM, 99, 10_000)
	foreign.ref.ID = chunk.ID(strings.Repeat("n", 32)) // as if another encoder had made it
	s.chunks[foreign.ref.ID.String()] = foreign
	r := mustRoute(t, flist.Meta{}, nil, []string{"buoy+" + s.url + "/nodes/n1"}, Options{})
	fetchAll(t.Context(), t, r, append(list, foreign), 2)
	wrong := foreign
	wrong.ref.Key = list[1].ref.Key
	if b, err := r.Fetch(t.Context(), wrong.ref, 10_000); !errors.Is(err, errs.Invalid) {
		t.Errorf("a mirror's bytes under another key: %d, %v", len(b), err)
	}
	if _, err := snappy.Decode(nil, foreign.stored); err == nil {
		t.Error("a chunk is not encrypted")
	}
}

// TestHedge: a store that is sometimes slow gets company; one that is always as slow does not.
func TestHedge(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(60, 10_000)
	first, second := newShelf(t, list), newShelf(t, list)
	var stall atomic.Bool
	first.before = func(_ http.ResponseWriter, r *http.Request, _ made) bool {
		if !stall.Load() {
			time.Sleep(10 * time.Millisecond) // that is its latency
			return true
		}
		<-r.Context().Done()
		return false
	}
	r := mustRoute(t, flistMeta(first.url, second.url), nil, nil, Options{})
	fetchAll(t.Context(), t, r, list[:20], 1)
	if n := second.asked.Load(); n > 2 {
		t.Errorf("the second store was asked %d times while the first one was well", n)
	}
	stall.Store(true)
	before := first.asked.Load()
	fetchAll(t.Context(), t, r, list, 1)
	if n := first.asked.Load() - before; n > 10 {
		t.Errorf("a silent store was asked %d times for 60 chunks", n)
	}
	stall.Store(false)
	began := time.Now()
	for n := second.asked.Load(); ; n = second.asked.Load() {
		fetchAll(t.Context(), t, r, list[:1], 1)
		if second.asked.Load() == n {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("the first store was not found again")
		}
	}
}

func TestParallel(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(64, 1000)
	s := newShelf(t, list)
	s.before = func(http.ResponseWriter, *http.Request, made) bool { time.Sleep(2 * time.Millisecond); return true }
	fetchAll(t.Context(), t, mustRoute(t, flistMeta(s.url), nil, nil, Options{Parallel: 5}), list, 32)
	if n := s.most.Load(); n != 5 {
		t.Errorf("%d calls at once, not 5", n)
	}
}

// TestRoutes: who is asked for what, in which order.
func TestRoutes(t *testing.T) {
	l := flist.Meta{Backend: "redis://:hush@own", Routes: []flist.Route{
		{Pool: 1, From: "00", To: "7f", URL: "zdb://b"},
		{Pool: 1, From: "80", To: "ff", URL: "zdb://c"},
		{Pool: 0, From: "1", To: "1", URL: "dir:///a"}, // 10…
		{Pool: 2, URL: "ftp://unknown"},
		{Pool: 2, URL: "redis+unix:///run/secret.sock"},
		{Pool: 2, From: "ff", To: "00", URL: "zdb://nothing"},
		{Pool: 3, URL: "zdb://b", Cache: true},
		{Pool: 3, URL: "dir:///etc", Cache: true},
	}}
	r := mustRoute(t, l, []string{"http://over"}, []string{"buoy+http://mirror/nodes/x"}, Options{})
	always := []string{"buoy+http://mirror/nodes/x", "http://over"}
	for first, want := range map[byte][]string{
		0x10: {"dir:///a", "zdb://b", "dir:///etc", "redis://own"},
		0x11: {"zdb://b", "dir:///etc", "redis://own"},
		0x80: {"zdb://c", "zdb://b", "dir:///etc", "redis://own"},
	} {
		var got []string
		for _, l := range r.candidates(chunk.ID(append([]byte{first}, make([]byte, 15)...))) {
			got = append(got, l.String())
		}
		if want := append(append([]string{}, always...), want...); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%x… is asked for at %q, not %q", first, got, want)
		}
	}
	if len(r.caches) != 1 || r.caches[0].String() != "zdb://b" {
		t.Errorf("caches %v", r.caches)
	}
	for _, bad := range []flist.Meta{
		{Routes: []flist.Route{{URL: "ftp://x"}}},
		{Routes: []flist.Route{{From: "0x", URL: "zdb://x"}}},
		{Routes: []flist.Route{{From: "00", To: "fff", URL: "zdb://x"}}},
		{Routes: []flist.Route{{URL: "redis+unix:///x"}}},
		{Routes: make([]flist.Route, 2000)},
	} {
		if _, err := Route(bad, nil, nil, Options{}); !errors.Is(err, errs.Invalid) {
			t.Errorf("Route(%.100v) = %v", bad, err)
		}
	}
}

// TestShare: two routers have one limit, and one of them can go.
func TestShare(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(64, 1000)
	s := newShelf(t, list)
	var silent atomic.Bool
	s.before = func(_ http.ResponseWriter, r *http.Request, _ made) bool {
		if silent.Load() {
			<-r.Context().Done()
			return false
		}
		time.Sleep(2 * time.Millisecond)
		return true
	}
	opt := Options{Parallel: 5, Share: &Share{}}
	a, b := mustRoute(t, flistMeta(s.url), nil, nil, opt), mustRoute(t, flist.Meta{}, []string{s.url, s.url}, nil, opt)
	var wg sync.WaitGroup
	for _, r := range []*Router{a, b} {
		wg.Go(func() { fetchAll(t.Context(), t, r, list, 16) })
	}
	wg.Wait()
	if n := s.most.Load(); n != 5 {
		t.Errorf("%d calls at once, not 5", n)
	}
	silent.Store(true)
	wg.Go(func() {
		if _, err := a.Fetch(t.Context(), list[0].ref, 1000); !errors.Is(err, errs.Unavailable) {
			t.Errorf("a Fetch that Close ends: %v", err)
		}
	})
	for n := s.asked.Load(); s.asked.Load() == n; {
		time.Sleep(time.Millisecond)
	}
	for a.Trouble() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := a.Trouble(); !strings.Contains(err.Error(), s.url+": no answer for ") {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	silent.Store(false)
	fetchAll(t.Context(), t, b, list, 1)
	if _, err := a.Fetch(t.Context(), list[0].ref, 1000); !errors.Is(err, errs.Unavailable) {
		t.Errorf("Fetch after Close: %v", err)
	}
	if err := b.Trouble(); err != nil {
		t.Error(err)
	}
}

// TestWriteBack: what was found elsewhere comes into the pool that is a cache.
func TestWriteBack(t *testing.T) {
	testleak.Check(t)
	list := makeChunks(4, 10_000)
	s := newShelf(t, list)
	addr := smallZDB(t, "edge", "word")
	near := "zdb://:word@" + addr + "/edge"
	r := mustRoute(t, flist.Meta{Routes: []flist.Route{{Pool: 0, URL: near, Cache: true}, {Pool: 1, URL: s.url}}}, nil, nil, Options{})
	for range 2 {
		for _, m := range list {
			fetchAll(t.Context(), t, r, []made{m}, 1)
			for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
				if b, err := r.stores[0].Get(t.Context(), m.ref.ID); err == nil && bytes.Equal(b, m.stored) {
					break
				}
				if time.Now().After(end) {
					t.Fatal("a chunk does not come into the cache")
				}
			}
		}
	}
	if n := s.asked.Load(); n != 4 {
		t.Errorf("the store behind the cache was asked %d times", n)
	}
}

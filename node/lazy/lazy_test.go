package lazy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/flist/flistapi"
	"github.com/buoy-edge/buoy/internal/version"
)

// TestMain lets the test's own program be the buoy-flist that is started.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		if err := serve(os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve is a buoy-flist that mounts nothing. It writes down what it is asked to
// mount, dies of a mount whose flist is called "poison", and waits with one as long as there is a file of the same name in run.
func serve(run string) error {
	socket := filepath.Join(run, "flist.sock")
	_ = os.Remove(socket) // of one that was killed
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	answer := func(w http.ResponseWriter, v any) {
		if err := json.NewEncoder(w).Encode(v); err != nil {
			panic(err)
		}
	}
	var mu sync.Mutex
	mounts := []flistapi.MountStatus{}
	mux := http.NewServeMux()
	mux.HandleFunc(flistapi.PathHello, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, flistapi.Hello{Version: flistapi.Version, Build: version.Version, PID: os.Getpid()})
	})
	mux.HandleFunc(flistapi.PathMount, func(w http.ResponseWriter, r *http.Request) {
		var req flistapi.MountRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			panic(err)
		}
		if req.File == "/poison" {
			os.Exit(3)
		}
		for _, err := os.Stat(run + req.File); err == nil; _, err = os.Stat(run + req.File) {
			time.Sleep(time.Millisecond) // its store does not answer
		}
		mu.Lock()
		defer mu.Unlock()
		mounts = append(mounts, flistapi.MountStatus{ID: req.ID, Total: 10, Fetched: 10, Complete: req.File == "/whole"})
		answer(w, nil)
	})
	mux.HandleFunc(flistapi.PathMounts, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		answer(w, mounts)
	})
	mux.HandleFunc(flistapi.PathUnmount, func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc(flistapi.PathQuit, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nil)
		go l.Close()
	})
	mux.HandleFunc(flistapi.PathEvents, func(w http.ResponseWriter, r *http.Request) {
		answer(w, flistapi.Event{Kind: flistapi.EventSync})
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	_ = http.Serve(l, mux)
	return nil
}

// shim is one that only counts.
type shim struct {
	mu     sync.Mutex // guards all below
	have   map[string]bool
	asked  map[string]int // calls of Mount
	forced []string
}

func (s *shim) Mount(_ context.Context, id, dir string) (shimapi.Mount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[id] = true
	s.asked[id]++
	return shimapi.Mount{ID: id, Dir: dir, PID: 1, FD: 2}, nil
}

func (s *shim) Unmount(_ context.Context, id string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.have, id)
	if force {
		s.forced = append(s.forced, id)
	}
	return nil
}

func (s *shim) Mounts(context.Context) (all []shimapi.Mount, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.have {
		all = append(all, shimapi.Mount{ID: id})
	}
	return all, nil
}

func (s *shim) ids() (ids []string) {
	all, _ := s.Mounts(context.Background())
	for _, m := range all {
		ids = append(ids, m.ID)
	}
	slices.Sort(ids)
	return ids
}

func (s *shim) times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[id]
}

// runner hears what the node is told.
type runner struct {
	lost, whole chan string
}

func (r runner) Lost(id string, _ error) { r.lost <- id }
func (r runner) Complete(id string)      { r.whole <- id }

func newFlists(t *testing.T, s *shim, run string) (*Flists, runner) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{
		Run: run, Data: t.TempDir(), Program: program, Shim: s, Beside: func(...int) error { return nil },
		Timeout: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := runner{make(chan string, 8), make(chan string, 8)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { f.Run(ctx, r) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := f.Quit(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f, r
}

func fixture(t *testing.T) (*Flists, runner, *shim) {
	s := &shim{have: map[string]bool{}, asked: map[string]int{}}
	f, r := newFlists(t, s, t.TempDir())
	return f, r, s
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMountsAreShared(t *testing.T) {
	f, _, s := fixture(t)
	ctx := t.Context()
	for range 3 {
		must(t, f.Mount(ctx, Request{ID: "a", File: "/a"}))
	}
	must(t, f.Mount(ctx, Request{ID: "b", File: "/b"}))
	if s.times("b") != 1 || strings.Join(s.ids(), " ") != "a b" {
		t.Errorf("mounts %v", s.ids())
	}
	must(t, f.Release(ctx, "a"))
	must(t, f.Release(ctx, "a"))
	must(t, f.Release(ctx, "b"))
	if got := strings.Join(s.ids(), " "); got != "a" {
		t.Errorf("with one user left of a: %s", got)
	}
	must(t, f.Release(ctx, "a"))
	if got := s.ids(); len(got) > 0 {
		t.Errorf("without a user: %v", got)
	}
	must(t, f.Release(ctx, "a")) // once too often
	must(t, f.Mount(ctx, Request{ID: "a", File: "/a"}))
	if got := strings.Join(s.ids(), " "); got != "a" {
		t.Errorf("mounted anew: %s", got)
	}
}

// TestMountsAtOnce: users come and go, and in the end nothing is mounted.
func TestMountsAtOnce(t *testing.T) {
	f, _, s := fixture(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := f.Mount(t.Context(), Request{ID: "a", File: "/a"}); err != nil {
					t.Error(err)
				}
				if got := s.ids(); len(got) != 1 {
					t.Errorf("in use, and mounted is %v", got)
				}
				if err := f.Release(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := s.ids(); len(got) > 0 || f.used() > 0 {
		t.Errorf("in the end: %v, %d", got, f.used())
	}
}

// TestServerDies: the next one is asked for all mounts again.
func TestServerDies(t *testing.T) {
	f, _, s := fixture(t)
	ctx := t.Context()
	must(t, f.Mount(ctx, Request{ID: "a", File: "/a"}))
	f.Use(Request{ID: "old", File: "/old"}, "/layer") // of a daemon before us
	for range 3 {
		a := s.times("a")
		hello, err := f.client.Hello(ctx)
		must(t, err)
		must(t, syscall.Kill(hello.PID, syscall.SIGKILL))
		await(t, "another one serves both", func() bool { return s.times("a") > a && s.times("old") > 0 })
		await(t, "it is another one", func() bool {
			now, err := f.client.Hello(ctx)
			return err == nil && now.PID != hello.PID
		})
		must(t, f.Mount(ctx, Request{ID: "a", File: "/a"}))
	}
}

// TestOneWaits: a mount that the next server cannot take up yet does not keep the others waiting.
func TestOneWaits(t *testing.T) {
	f, _, s := fixture(t)
	ctx := t.Context()
	ids := []string{"a", "b", "c", "d"}
	for _, id := range ids {
		must(t, f.Mount(ctx, Request{ID: id, File: "/" + id}))
	}
	await(t, "all are watched", func() bool { _, ok := f.Status("d"); return ok })
	away := filepath.Join(f.cfg.Run, "a")
	must(t, os.WriteFile(away, nil, 0o600))
	defer os.Remove(away)
	hello, err := f.client.Hello(ctx)
	must(t, err)
	must(t, syscall.Kill(hello.PID, syscall.SIGKILL))
	await(t, "the others are served", func() bool {
		all, err := f.client.Mounts(ctx)
		return err == nil && len(all) == len(ids)-1
	})
	must(t, os.Remove(away))
	await(t, "it is served when its store is back", func() bool { return s.times("a") >= 2 })
}

// TestPoison: a server that dies of what it shall serve is given up after some
// tries, and the node is told.
func TestPoison(t *testing.T) {
	f, r, s := fixture(t)
	if err := f.Mount(t.Context(), Request{ID: "a", File: "/poison"}); err == nil {
		t.Fatal("it is mounted")
	}
	f.Use(Request{ID: "a", File: "/poison"}, "")
	select {
	case id := <-r.lost:
		if id != "a" {
			t.Errorf("lost is %s", id)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it is tried for ever")
	}
	s.mu.Lock()
	forced := slices.Clone(s.forced)
	s.mu.Unlock()
	if !slices.Contains(forced, "a") {
		t.Errorf("its connection is not cut: %v", forced)
	}
}

func TestWhole(t *testing.T) {
	f, r, _ := fixture(t)
	must(t, f.Mount(t.Context(), Request{ID: "a", File: "/whole"}))
	select {
	case id := <-r.whole:
		if s, ok := f.Status(id); id != "a" || !ok || !s.Complete {
			t.Errorf("complete is %s, %+v", id, s)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is told")
	}
}

func TestSweep(t *testing.T) {
	f, _, s := fixture(t)
	for _, id := range []string{"used", "stray"} {
		_, err := s.Mount(t.Context(), id, "")
		must(t, err)
	}
	f.Use(Request{ID: "used", File: "/x"}, "")
	must(t, f.Sweep(t.Context()))
	if got := strings.Join(s.ids(), " "); got != "used" {
		t.Errorf("left is %s", got)
	}
}

// TestOtherArguments: a buoy-flist that was started otherwise is replaced.
func TestOtherArguments(t *testing.T) {
	s := &shim{have: map[string]bool{}, asked: map[string]int{}}
	run := t.TempDir()
	f, _ := newFlists(t, s, run)
	must(t, f.Mount(t.Context(), Request{ID: "a", File: "/a"}))
	old, err := f.client.Hello(t.Context())
	must(t, err)
	must(t, f.ensure(t.Context()))
	if same, err := f.client.Hello(t.Context()); err != nil || same != old {
		t.Errorf("replaced without a reason: %+v, %v", same, err)
	}
	f.cfg.Budget = 1 << 30
	must(t, f.ensure(t.Context()))
	if now, err := f.client.Hello(t.Context()); err != nil || now.PID == old.PID {
		t.Errorf("with another budget it is the same one: %+v, %v", now, err)
	}
}

// TestBegin: what is left of connections that are no more is not handed on.
func TestBegin(t *testing.T) {
	f, _, s := fixture(t)
	must(t, f.Begin(t.Context())) // there is nothing
	for _, id := range []string{"there", "gone"} {
		must(t, os.MkdirAll(f.stateDir(id), 0o700))
	}
	_, err := s.Mount(t.Context(), "there", "")
	must(t, err)
	must(t, f.Begin(t.Context()))
	if left, err := os.ReadDir(f.stateDir("")); err != nil || len(left) != 1 || left[0].Name() != "there" {
		t.Errorf("left is %v, %v", left, err)
	}
}

func TestForget(t *testing.T) {
	f, _, _ := fixture(t)
	must(t, f.Forget(func(string) bool { return false })) // nothing was recorded yet
	dir := filepath.Join(f.cfg.Data, "order")
	must(t, os.Mkdir(dir, 0o700))
	for _, digest := range []string{"kept", "gone"} {
		must(t, os.WriteFile(filepath.Join(dir, digest), nil, 0o600))
	}
	must(t, f.Forget(func(digest string) bool { return digest == "kept" }))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "kept" {
		t.Errorf("left is %v, %v", left, err)
	}
}

package node

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/netcfg/cni"
	"github.com/buoy-edge/buoy/node/lazy"
	"github.com/buoy-edge/buoy/node/state"
)

// fakeShim answers at a shim's socket and runs nothing.
type fakeShim struct {
	wg sync.WaitGroup
	l  net.Listener

	mu    sync.Mutex // guards the rest
	conns []net.Conn
	have  map[string]bool
	ran   int                // starts
	asked shimapi.RunRequest // of the last start
	execs []string           // jobs that were started
	env   []string           // of the last one
	gone  []string           // jobs that were forgotten
	list  []shimapi.Container
	// signalled answers for signals; nil: whoever is meant has ended.
	signalled func(shimapi.SignalRequest) error
	// before is asked before each call; an error is the answer.
	before func(op shimapi.Op, id string) error
}

func (f *fakeShim) serve() {
	for {
		conn, err := f.l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns = append(f.conns, conn)
		f.mu.Unlock()
		f.wg.Go(func() {
			defer conn.Close()
			for {
				var req shimapi.Request
				if shimapi.ReadFrame(conn, &req) != nil {
					return
				}
				var rep shimapi.Reply
				if body, err := f.call(req); err != nil {
					rep.Error, rep.Kind = err.Error(), errs.KindOf(err)
				} else if body != nil {
					rep.Body, _ = json.Marshal(body)
				}
				if shimapi.WriteFrame(conn, rep) != nil {
					return
				}
			}
		})
	}
}

func (f *fakeShim) call(req shimapi.Request) (any, error) {
	var ref shimapi.Ref
	_ = json.Unmarshal(req.Body, &ref)
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(req.Op, ref.ID); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch req.Op { //nolint:exhaustive // the others have nothing to say
	case shimapi.OpRun:
		f.have[ref.ID], f.asked = true, shimapi.RunRequest{}
		f.ran++
		_ = json.Unmarshal(req.Body, &f.asked)
		return shimapi.Process{PID: os.Getpid()}, nil
	case shimapi.OpDelete:
		delete(f.have, ref.ID)
	case shimapi.OpMounts:
		return []shimapi.Mount{}, nil
	case shimapi.OpExec:
		var r shimapi.ExecRequest
		_ = json.Unmarshal(req.Body, &r)
		f.execs, f.env = append(f.execs, r.Job), r.Process.Env
		return shimapi.Process{}, nil
	case shimapi.OpForget:
		var r shimapi.JobRef
		_ = json.Unmarshal(req.Body, &r)
		f.gone = append(f.gone, r.Job)
	case shimapi.OpList:
		if f.list != nil { // else it does not answer
			return f.list, nil
		}
	case shimapi.OpSignal:
		if f.signalled != nil {
			var r shimapi.SignalRequest
			_ = json.Unmarshal(req.Body, &r)
			return nil, f.signalled(r)
		}
		return nil, errs.E(errs.NotFound, "it has ended")
	}
	return nil, nil
}

func (f *fakeShim) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have[id]
}

func (f *fakeShim) ask(before func(op shimapi.Op, id string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// newNode is a node without Run, whose shim is a fake. No goroutine outlives the test.
func newNode(t *testing.T) (*Node, *fakeShim) {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<16)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), goroutines, buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
	dir, err := os.MkdirTemp("", "buoy-node") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, run := filepath.Join(dir, "d"), filepath.Join(dir, "r")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(run, 0o700), os.MkdirAll(dir+"/image/etc", 0o755)); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	db, err := state.Open(t.Context(), filepath.Join(data, "node.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Settle(t.Context()); err != nil { // as Load does
		t.Fatal(err)
	}
	store, err := images.Open(images.Config{Dir: filepath.Join(data, "images"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	network, err := netcfg.New(netcfg.Config{Instance: "t", Prefix: netip.MustParsePrefix("10.9.0.0/29"), StateDir: run})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := container.NewRuntime(container.Config{Run: run, Cgroup: "/t", Reaper: "/x", Shim: "/x", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(run, "shim.sock"))
	if err != nil {
		t.Fatal(err)
	}
	shim := &fakeShim{l: l, have: map[string]bool{}}
	shim.wg.Go(shim.serve)
	t.Cleanup(func() {
		rt.Shim().Close()
		l.Close()
		shim.mu.Lock()
		for _, c := range shim.conns {
			c.Close()
		}
		shim.mu.Unlock()
		shim.wg.Wait()
	})
	flists, err := lazy.New(lazy.Config{
		Run: run, Data: filepath.Join(data, "flist"), Program: "/x", Shim: rt.Shim(), Beside: rt.Beside, Timeout: time.Second, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Flists: flists, ID: "n1", Data: data, Run: run, DB: db, Keys: seal.New(), Images: store, Net: network, CNI: cni.New(cni.Config{ConfDir: run, CacheDir: filepath.Join(data, "cni")}), Runtime: rt, Dev: true, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	n.exitWait = 10 * time.Millisecond // without Run it never hears of an end
	return n, shim
}

func (n *Node) spec(name string) Spec {
	return Spec{Name: name, Image: filepath.Join(filepath.Dir(n.cfg.Data), "image"), Run: container.Spec{Args: []string{"x"}}}
}

// rows are the names that the database has.
func rows(t *testing.T, n *Node) (names []string) {
	t.Helper()
	all, err := n.cfg.DB.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		names = append(names, r.Name)
	}
	return names
}

// nothing says what is left of containers.
func nothing(t *testing.T, n *Node, shim *fakeShim, when string) {
	t.Helper()
	if got := rows(t, n); len(got) > 0 {
		t.Errorf("%s: the database has %v", when, got)
	}
	if got := n.Containers(); len(got) > 0 {
		t.Errorf("%s: the node has %v", when, got)
	}
	for _, dir := range []string{n.cfg.Data, n.cfg.Run} {
		if got, err := os.ReadDir(filepath.Join(dir, "containers")); len(got) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: below %s: %v, %v", when, dir, got, err)
		}
	}
	shim.mu.Lock()
	defer shim.mu.Unlock()
	if len(shim.have) > 0 {
		t.Errorf("%s: the shim has %v", when, shim.have)
	}
}

func TestCreateStopStartDelete(t *testing.T) {
	n, shim := newNode(t)
	ctx := t.Context()
	if err := n.Create(ctx, n.spec("a")); err != nil {
		t.Fatal(err)
	}
	if err := n.Create(ctx, n.spec("a")); !errors.Is(err, errs.Exists) {
		t.Errorf("twice: %v", err)
	}
	for _, step := range []struct {
		do   func(context.Context, string) error
		want Status
		runs bool
	}{{n.Start, Running, true}, {n.Stop, Halted, false}, {n.Stop, Halted, false}, {n.Start, Running, true}, {n.Restart, Running, true}} {
		if err := step.do(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		if c, err := n.Container("a"); err != nil || c.Status != step.want || shim.has("a") != step.runs {
			t.Errorf("%+v, %v, want %s", c, err, step.want)
		}
	}
	if err := n.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	nothing(t, n, shim, "deleted")
	for _, f := range []func(context.Context, string) error{n.Delete, n.Start, n.Stop, n.Restart} {
		if err := f(ctx, "a"); !errors.Is(err, errs.NotFound) {
			t.Errorf("of a container that is gone: %v", err)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	n, shim := newNode(t)
	bad := func(change func(*Spec)) Spec {
		s := n.spec("a")
		change(&s)
		return s
	}
	for name, s := range map[string]Spec{
		"no image":  bad(func(s *Spec) { s.Image = "/no/such/dir" }),
		"no device": bad(func(s *Spec) { s.Run.Devices = []container.Device{{Path: "/dev/none"}} }),
		"no bind mount": bad(func(s *Spec) {
			s.Run.Mounts = []container.Mount{{Type: container.Bind, Source: "/no/such", Target: "/x"}}
		}),
	} {
		if err := n.Create(t.Context(), s); err == nil {
			t.Errorf("%s: created", name)
		}
		nothing(t, n, shim, name)
	}
	for _, kind := range []errs.Kind{errs.NotFound, errs.Internal} {
		shim.ask(func(op shimapi.Op, _ string) error {
			if op == shimapi.OpRun {
				return errs.E(kind, "no")
			}
			return nil
		})
		if err := n.Create(t.Context(), n.spec("a")); !errors.Is(err, kind) {
			t.Errorf("the shim says %s: %v", kind, err)
		}
		nothing(t, n, shim, "the shim refuses")
	}
	ctx, cancel := context.WithCancel(t.Context())
	shim.ask(func(op shimapi.Op, _ string) error {
		if op == shimapi.OpRun {
			cancel()
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
	if err := n.Create(ctx, n.spec("a")); err == nil {
		t.Error("created though nobody waited")
	}
	nothing(t, n, shim, "cancelled")
	shim.ask(nil)
	if err := n.Create(t.Context(), n.spec("a")); err != nil {
		t.Errorf("and then: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	n, shim := newNode(t)
	var wg sync.WaitGroup
	for i := range 40 {
		name := string(rune('a' + i%3))
		wg.Go(func() { _ = n.Create(t.Context(), n.spec(name)) })
		wg.Go(func() { _ = n.Start(t.Context(), name) })
		wg.Go(func() { n.Containers(); n.announce() })
	}
	wg.Wait()
	for range 5 {
		for _, name := range []string{"a", "b", "c"} {
			wg.Go(func() { _ = n.Delete(t.Context(), name) })
		}
	}
	wg.Wait()
	nothing(t, n, shim, "in the end")
}

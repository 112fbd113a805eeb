package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/cache"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

// inNamespace is set in the process that runs the tests that mount: it has a mount namespace of its own.
const inNamespace = "BUOY_MOUNT_TEST_NS"

func TestMain(m *testing.M) {
	if raw := os.Getenv(childServer); raw != "" {
		os.Exit(serveChild(raw))
	}
	if os.Getenv(testroot.Env) == "" || os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// device0 is a FUSE connection and where it is mounted.
type device0 struct {
	testing.TB
	fd   int
	dir  string
	conn uint32
}

// mountFuse mounts as the shim does.
func mountFuse(t testing.TB) *device0 {
	t.Helper()
	testroot.Require(t)
	d := &device0{TB: t, dir: filepath.Join(t.TempDir(), "mnt")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(d.fd) })
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576", d.fd)
	if err := unix.Mount("test", d.dir, "fuse.buoy", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_FORCE|unix.MNT_DETACH) })
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); f[4] == d.dir {
			n, _ := strconv.Atoi(strings.TrimPrefix(f[2], "0:"))
			d.conn = uint32(n)
		}
	}
	if d.conn == 0 {
		t.Fatal("the mount is not in the mount table")
	}
	return d
}

func (d *device0) dup() int {
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		d.Fatal(err)
	}
	return fd
}

// world is a source of chunks in memory, with its moods.
type world struct {
	list   *flist.List
	plain  map[chunk.ID][]byte
	delay  time.Duration
	down   atomic.Bool   // does not answer
	fails  atomic.Bool   // says no
	asked  atomic.Int64  // chunks
	served atomic.Int64  // bytes
	order  chan chunk.ID // if not nil
}

func (w *world) Fetch(ctx context.Context, ref chunk.Ref, size int) ([]byte, error) {
	w.asked.Add(1)
	if w.order != nil {
		w.order <- ref.ID
	}
	for w.down.Load() {
		select {
		case <-ctx.Done():
			return nil, errs.E(errs.Unavailable, "the store does not answer: %w", context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
	if w.fails.Load() {
		return nil, errs.E(errs.Unavailable, "the store is on fire")
	}
	if w.delay > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(w.delay):
		}
	}
	b, ok := w.plain[ref.ID]
	if !ok || len(b) != size {
		return nil, errs.E(errs.NotFound, "no chunk %s of %d bytes", ref.ID, size)
	}
	w.served.Add(int64(size))
	return b, nil
}

// content is the same for the same name.
func content(name string, size int) []byte {
	var seed [32]byte
	copy(seed[:], name)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// synthetic is a list of files in the root, each with content of its own.
func synthetic(files map[string]int) *world {
	all := map[string][]byte{}
	for name, size := range files {
		all[name] = content(name, size)
	}
	return newWorld(all, 0o644)
}

// newWorld is a list of files in the root.
func newWorld(files map[string][]byte, mode uint32) *world {
	w := &world{plain: map[chunk.ID][]byte{}}
	names := []string{".empty"} // for settle
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	l := &flist.List{Era: flist.EraD, Nodes: []flist.Node{{Mode: unix.S_IFDIR | 0o755, First: 1, Count: uint32(len(names))}}}
	for _, name := range names {
		b := files[name]
		n := flist.Node{Name: name, Mode: unix.S_IFREG | mode, Size: int64(len(b)), ChunkSize: chunk.Size, MTime: 1e9, CTime: 1e9}
		for piece := range chunks(b) {
			ref, _ := chunk.GCM.Seal(piece)
			n.Chunks = append(n.Chunks, ref)
			w.plain[ref.ID] = piece
		}
		l.Nodes = append(l.Nodes, n)
	}
	w.list = l
	return w
}

func chunks(b []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(len(b), chunk.Size)
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// served is a mount in this process.
type served struct {
	*Mount
	*device0
	cancel context.CancelFunc
	ended  chan error
}

// config is one with a cache of its own.
func config(t testing.TB, w *world) Config {
	t.Helper()
	dir := t.TempDir()
	c, err := cache.Open(cache.Config{Dir: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return Config{List: w.list, View: c.View(w), StateDir: filepath.Join(dir, "state"), Deadline: 30 * time.Second, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
}

type testLog struct{ testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// start serves d in this process.
func start(t testing.TB, d *device0, cfg Config) *served {
	t.Helper()
	cfg.Conn = d.conn
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{Mount: m, device0: d, cancel: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- m.Run(ctx, d.dup()) }()
	t.Cleanup(func() { s.stop() })
	select {
	case <-m.Ready():
	case err := <-s.ended:
		t.Fatalf("Run: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("the mount does not get ready")
	}
	d.settle(cfg.List)
	return s
}

// settle has the kernel learn that nothing can be polled here. Go adds every file that it opens to its epoll, in a system call
// that it takes for a short one: in the process that also serves, that could be the end.
func (d *device0) settle(l *flist.List) {
	d.Helper()
	for i := range l.Nodes {
		if l.Nodes[i].Mode&unix.S_IFMT != unix.S_IFREG || l.Nodes[i].Size > 0 {
			continue
		}
		fd, err := unix.Open(filepath.Join(d.dir, l.Path(i)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			d.Fatal(err)
		}
		defer unix.Close(fd)
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
			d.Fatal(err)
		}
		return
	}
	d.Fatal("the list has no empty file")
}

// stop ends serving; the mount stays.
func (s *served) stop() {
	s.cancel()
	select {
	case err := <-s.ended:
		if err != nil && !errors.Is(err, ErrGone) {
			s.Errorf("Run: %v", err)
		}
		s.ended <- err
	case <-time.After(10 * time.Second):
		s.Fatal("Run does not end")
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes that are not the %d it should have", what, len(got), len(want))
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

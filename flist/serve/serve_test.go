package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/flistapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testroot"
)

const (
	inNamespace = "BUOY_SERVE_TEST_NS"    // set in the process with a mount namespace of its own
	childDir    = "BUOY_SERVE_TEST_CHILD" // set in a server: its directory
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		s, err := New(Config{RunDir: dir + "/run", DataDir: dir + "/data", Deadline: 5 * time.Second, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err == nil {
			err = s.Run(context.Background())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(testroot.Env) == "" || os.Geteuid() != 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// server is one in a process of its own.
type server struct {
	testing.TB
	*flistapi.Client
	dir string
	cmd *exec.Cmd
}

func startServer(t testing.TB) *server {
	t.Helper()
	testroot.Require(t)
	s := &server{TB: t, dir: t.TempDir()}
	s.start()
	t.Cleanup(func() { s.end() })
	return s
}

func (s *server) start() {
	s.Helper()
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Env = append(os.Environ(), childDir+"="+s.dir)
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	if s.Client == nil {
		s.Client = flistapi.NewClient(s.dir + "/run/flist.sock")
	}
	s.until("the server answers", func() bool {
		h, err := s.Hello(context.Background())
		return err == nil && h.PID == s.cmd.Process.Pid
	})
}

func (s *server) until(what string, ok func() bool) {
	s.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("waited in vain until %s", what)
		}
	}
}

func (s *server) end() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// mountFuse is a FUSE connection as the shim makes it.
func mountFuse(t testing.TB) (dir string, fd int) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576", fd)
	if err := unix.Mount("test", dir, "fuse.buoy", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) })
	return dir, fd
}

// fixture is the genuine mini.flist and its store.
func fixture(t testing.TB) (file string, stores []string) {
	t.Helper()
	dir, err := filepath.Abs("../testdata/mini")
	if err != nil {
		t.Fatal(err)
	}
	return dir + "/mini.flist", []string{"dir://" + dir + "/chunks"}
}

func TestMount(t *testing.T) {
	s := startServer(t)
	file, stores := fixture(t)
	dir, fd := mountFuse(t)
	req := flistapi.MountRequest{
		ID: "one", File: file, Stores: stores, StateDir: s.dir + "/state", OrderFile: s.dir + "/order", PID: os.Getpid(), FD: fd,
	}
	for range 2 {
		if err := s.Mount(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	other := req
	other.File = "/somewhere/else.flist"
	if err := s.Mount(t.Context(), other); !errors.Is(err, errs.Conflict) {
		t.Errorf("another flist under this id: %v", err)
	}
	l, err := flist.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	readAll := func() {
		t.Helper()
		for i := range l.Nodes {
			if l.Nodes[i].Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, l.Path(i)))
			if err != nil || int64(len(b)) != l.Nodes[i].Size {
				t.Errorf("%s: %d bytes, %v", l.Path(i), len(b), err)
			}
		}
	}
	readAll()
	// Killed, and another one started: the connection goes on.
	held, err := os.Open(dir + "/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	s.end()
	s.start()
	if err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	readAll()
	if _, err := io.Copy(io.Discard, held); err != nil {
		t.Error(err)
	}
	// Asked to end, likewise.
	if err := s.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("after Quit: %v", err)
	}
	s.start()
	if err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	readAll()
	st, err := s.Mounts(t.Context())
	if err != nil || len(st) != 1 || st[0].ID != "one" || st[0].Fetched != st[0].Total || st[0].Failed > 0 || st[0].Gone {
		t.Errorf("Mounts: %+v, %v", st, err)
	}
	for range 2 {
		if err := s.Unmount(t.Context(), "one"); err != nil {
			t.Error(err)
		}
	}
	if st, err := s.Mounts(t.Context()); err != nil || len(st) > 0 {
		t.Errorf("Mounts after Unmount: %+v, %v", st, err)
	}
	if _, err := os.Stat(req.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state is left: %v", err)
	}
	if fds := openFuse(t, s.cmd.Process.Pid); fds > 0 {
		t.Errorf("%d FUSE descriptors are left", fds)
	}
	if b, err := os.ReadFile(req.OrderFile); err != nil || len(b) == 0 {
		t.Errorf("the order of reads: %d bytes, %v", len(b), err)
	}
}

// openFuse counts a process's FUSE connections.
func openFuse(t *testing.T, pid int) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if to, _ := os.Readlink(filepath.Join(dir, e.Name())); to == "/dev/fuse" {
			n++
		}
	}
	return n
}

// A dead store is told as an event, with its reason; other stores, given later, mend it.
func TestDeadStore(t *testing.T) {
	s := startServer(t)
	file, stores := fixture(t)
	dir, fd := mountFuse(t)
	events := make(chan flistapi.Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- s.Events(ctx, func(e flistapi.Event) { events <- e }) }()
	if e := <-events; e.Kind != flistapi.EventSync {
		t.Fatalf("the first event is %+v", e)
	}
	req := flistapi.MountRequest{ID: "one", File: file, Stores: []string{"dir:///nowhere"}, StateDir: s.dir + "/state", PID: os.Getpid(), FD: fd}
	if err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(dir + "/etc/hostname"); !errors.Is(err, unix.EIO) {
		t.Errorf("read from a dead store: %v", err)
	}
	select {
	case e := <-events:
		if e.Mount != "one" || e.Kind != flistapi.EventError || e.Path != "/etc/hostname" || e.Message == "" {
			t.Errorf("event: %+v", e)
		}
		t.Log(e.Message)
	case <-time.After(10 * time.Second):
		t.Error("no event tells of it")
	}
	st, err := s.Mounts(t.Context())
	if err != nil || len(st) != 1 || st[0].LastError == nil || st[0].LastError.Path != "/etc/hostname" ||
		!strings.Contains(st[0].LastError.Message, "nowhere") {
		t.Errorf("Mounts: %+v, %v", st, err)
	}
	req.Stores = stores
	if err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	s.until("the file can be read", func() bool {
		b, err := os.ReadFile(dir + "/etc/hostname")
		return err == nil && len(b) > 0
	})
	req.ID, req.StateDir, req.Prefetch = "two", s.dir+"/two", flistapi.PrefetchAll
	dir, req.FD = mountFuse(t)
	if err := s.Mount(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-events:
			if e.Kind != flistapi.EventComplete {
				continue
			}
			if e.Mount != "two" {
				t.Errorf("event: %+v", e)
			}
		case <-time.After(10 * time.Second):
			t.Error("no event tells that it is complete")
		}
		break
	}
	cancel()
	if err := <-gone; !errors.Is(err, errs.Unavailable) {
		t.Errorf("Events: %v", err)
	}
	_ = dir
}

func TestInspect(t *testing.T) {
	s := startServer(t)
	file, stores := fixture(t)
	i, err := s.Inspect(t.Context(), flistapi.InspectRequest{File: file, Stores: stores})
	if err != nil || i.Era != "C" || i.Files == 0 || i.Config == nil || len(i.Config.Entrypoint) == 0 {
		t.Errorf("Inspect: %+v, %v", i, err)
	}
	bad := s.dir + "/bad.flist"
	if err := os.WriteFile(bad, []byte("not one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(t.Context(), flistapi.InspectRequest{File: bad}); !errors.Is(err, errs.Invalid) {
		t.Errorf("Inspect of what is no flist: %v", err)
	}
	if err := s.Mount(t.Context(), flistapi.MountRequest{ID: "x", File: bad, StateDir: s.dir + "/x"}); !errors.Is(err, errs.Invalid) {
		t.Errorf("Mount of what is no flist: %v", err)
	}
	if err := s.Complete(t.Context(), "x", s.dir); !errors.Is(err, errs.NotFound) {
		t.Errorf("Complete of nothing: %v", err)
	}
	if l, err := s.Mounts(t.Context()); err != nil || len(l) > 0 {
		t.Errorf("Mounts: %v, %v", l, err)
	}
}

// What one node has fetched, another can have from it, checked by its name.
func TestUnpackAndChunk(t *testing.T) {
	s := startServer(t)
	file, stores := fixture(t)
	l, err := flist.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	i, _ := l.Find("data/one-byte")
	ref := l.Nodes[i].Chunks[0]
	if _, err := s.Chunk(t.Context(), ref.ID.String()); !errors.Is(err, errs.NotFound) {
		t.Errorf("Chunk before it is fetched: %v", err)
	}
	if _, err := s.Chunk(t.Context(), "zz"); !errors.Is(err, errs.Invalid) {
		t.Errorf("Chunk of a bad name: %v", err)
	}
	to := filepath.Join(s.dir, "to")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := s.Unpack(t.Context(), flistapi.UnpackRequest{File: file, Dir: to, Stores: stores}, nil)
	if err != nil || res.Files != l.Stats().Files {
		t.Fatalf("Unpack: %+v, %v", res, err)
	}
	for i := range l.Nodes {
		if n := &l.Nodes[i]; n.Mode&unix.S_IFMT == unix.S_IFREG {
			if b, err := os.ReadFile(filepath.Join(to, l.Path(i))); err != nil || int64(len(b)) != n.Size {
				t.Errorf("%s: %d bytes, %v", l.Path(i), len(b), err)
			}
		}
	}
	stored, err := s.Chunk(t.Context(), strings.ToUpper(ref.ID.String()))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := ref.OpenForeign(stored, 1); err != nil || !bytes.Equal(b, mustRead(t, to+"/data/one-byte")) {
		t.Errorf("the chunk is %q, %v", b, err)
	}
	if _, err := s.Unpack(t.Context(), flistapi.UnpackRequest{File: file, Dir: s.dir + "/nowhere", Stores: stores}, nil); err == nil {
		t.Error("Unpack to nowhere works")
	}
	st, err := s.Stats(t.Context())
	if err != nil || st.Fetched == 0 {
		t.Errorf("Stats: %+v, %v", st, err)
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

// Nobody is there, and one server a directory.
func TestAlone(t *testing.T) {
	c := flistapi.NewClient(filepath.Join(t.TempDir(), "none.sock"))
	if _, err := c.Hello(t.Context()); !errors.Is(err, errs.Unavailable) {
		t.Errorf("Hello to nobody: %v", err)
	}
	if _, err := New(Config{}); !errors.Is(err, errs.Invalid) {
		t.Errorf("New: %v", err)
	}
	s := startServer(t)
	second, err := New(Config{RunDir: s.dir + "/run", DataDir: s.dir + "/data2", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); !errors.Is(err, errs.Conflict) {
		t.Errorf("a second server: %v", err)
	}
	if st, err := os.Stat(s.dir + "/run/flist.sock"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st, err)
	}
}

// Package serve is "buoy-flist serve": it answers buoyd (flist/flistapi), keeps the chunk cache of a node and serves its
// mounted flists.
//
// It may be killed at any instant. The FUSE connections belong to buoy-reaper; buoyd starts another server and mounts again,
// which takes them over (flist/mount).
package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/cache"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is what a Server needs.
type Config struct {
	RunDir  string       // required, absolute: flist.sock, flist.lock
	DataDir string       // required, absolute: the chunk cache
	Budget  int64        // bytes of chunks kept; 0: as many as Reserve allows
	Reserve int64        // bytes of the disk left free
	Log     *slog.Logger // required
	// Deadline is how long a read may take before it is an error; 0: 30 s.
	Deadline time.Duration
}

// defaultDeadline: a chunk of 512 KiB takes that long at 18 kB/s, and a process that hangs longer is taken for dead.
const defaultDeadline = 30 * time.Second

// Server is a running "buoy-flist serve".
type Server struct {
	cfg    Config
	cache  *cache.Cache
	events events
	share  store.Share
	quit   context.CancelFunc

	mu     sync.Mutex // guards mounts
	mounts map[string]*mounted
	wg     sync.WaitGroup // of mounts
}

// New checks cfg; Run does everything.
func New(cfg Config) (*Server, error) {
	if !filepath.IsAbs(cfg.RunDir) || !filepath.IsAbs(cfg.DataDir) || cfg.Log == nil {
		return nil, errs.E(errs.Invalid, "buoy-flist needs an absolute run directory, an absolute data directory and a log")
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = defaultDeadline
	}
	return &Server{cfg: cfg, mounts: map[string]*mounted{}}, nil
}

// Run serves until ctx ends or somebody asks it to quit; what is mounted then waits for the next server.
func (s *Server) Run(ctx context.Context) (err error) {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	s.protect()
	if s.cache, err = cache.Open(cache.Config{Dir: s.cfg.DataDir, Budget: s.cfg.Budget, Reserve: s.cfg.Reserve, Log: s.cfg.Log}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.cache.Close()) }()
	ctx, s.quit = context.WithCancel(ctx)
	defer s.quit()
	l, err := s.listen(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	web := &http.Server{Handler: s.routes(ctx), ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	wg.Go(func() {
		<-ctx.Done()
		s.endMounts()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := web.Shutdown(end); err != nil {
			_ = web.Close() // whoever still asks sees the connection go
		}
	})
	err = web.Serve(l)
	s.quit()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// lock keeps a second server off, and waits a moment for one that is about to end.
func (s *Server) lock() (*os.File, error) {
	if err := os.MkdirAll(s.cfg.RunDir, 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.cfg.RunDir, "flist.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return nil, errors.Join(errs.E(errs.Conflict, "%s is served by another buoy-flist", s.cfg.RunDir), f.Close())
		}
	}
}

// protect keeps the kernel from choosing this process when memory is short: all containers on flists would wait.
func (s *Server) protect() {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0); err != nil {
		s.cfg.Log.Info("protect this process from running out of memory", "error", err)
	}
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	path := filepath.Join(s.cfg.RunDir, "flist.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return l, nil
}

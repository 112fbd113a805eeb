//go:build linux && cgo

// Package shim is the server inside buoy-shim: it starts, watches and removes
// all containers of a node, and it is the only importer of libcontainer.
//
// Killing it at any instant loses nothing. What is needed to find a container
// again is in RUN_DIR/shim/ID before its program starts; buoy-reaper, its
// parent, keeps log pipes, gates (gate.go), terminals and open stdins
// (terminal.go) and journals the exits that happen while no shim runs. See
// adopt.go for what the next shim does. A client that is attached goes with the
// shim, and attaches again.
//
// Below RUN_DIR: shim.sock, shim.lock, logmark, shim/ID (our state), lc/ID
// (libcontainer's). exits and reaper.lock are the reaper's.
package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is what a Server needs.
type Config struct {
	RunDir   string       // required, absolute: state, socket, journal; mode 0711 or more when user namespaces are used
	ReaperFD int          // required: the socket to buoy-reaper
	Program  string       // required: path of buoy-shim; buoy-init is looked for beside it
	Stderr   io.Writer    // required: where the log goes
	Fail     func(string) // called at named places of long operations; tests die there
}

// Server is a running shim.
type Server struct {
	cfg    Config
	log    *slog.Logger
	keeper *keeper
	ends   *journal
	exits  *exits
	logs   *logs
	events *events
	bpf    *filters
	warmer *warmer
	init   *os.File // buoy-init, sealed
	boot   string
	work   atomic.Uint64 // counts calls that left garbage
	fuse   fuseMounts

	mu         sync.Mutex // guards containers, quitting
	containers map[string]*container
	quitting   bool
}

// New checks cfg; Run does everything.
func New(cfg Config) (*Server, error) {
	if !filepath.IsAbs(cfg.RunDir) || cfg.Program == "" || cfg.Stderr == nil {
		return nil, errs.E(errs.Invalid, "shim needs an absolute run directory, its own path and a log")
	}
	if cfg.Fail == nil {
		cfg.Fail = func(string) {}
	}
	return &Server{
		cfg:        cfg,
		log:        slog.New(slog.NewTextHandler(cfg.Stderr, nil)),
		events:     newEvents(),
		bpf:        newFilters(),
		warmer:     newWarmer(),
		boot:       bootID(),
		containers: map[string]*container{},
		fuse:       fuseMounts{fd: map[string]int{}},
	}, nil
}

// Run adopts what an earlier shim left and serves until OpQuit, which makes it
// return nil, or until ctx ends.
func (s *Server) Run(ctx context.Context) (err error) {
	settle()
	if err := sealSelf(); err != nil {
		return err
	}
	lock, err := s.lockDir()
	if err != nil {
		return err
	}
	defer lock.Close()
	if s.init, err = openInit(s.cfg.Program); err != nil {
		return err
	}
	defer s.init.Close()
	kept, err := s.openStores()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.logs.run(ctx, s.log) })
	wg.Go(func() { s.exits.run(ctx, s.log) })
	if err := s.adopt(ctx, kept); err != nil {
		return err
	}
	wg.Go(func() { s.hearReaper(ctx) })
	defer s.keeper.close()
	wg.Go(func() { s.trimMemory(ctx) })
	wg.Go(func() { s.warmer.run(ctx) })
	return s.serve(ctx, cancel)
}

// openStores opens what Run's goroutines work on and takes back what the
// reaper kept.
func (s *Server) openStores() (kept map[string]int, err error) {
	if s.keeper, kept, err = openKeeper(s.cfg.ReaperFD); err != nil {
		return nil, err
	}
	if s.ends, err = openJournal(filepath.Join(s.cfg.RunDir, "exits")); err != nil {
		return nil, err
	}
	if s.logs, err = newLogs(filepath.Join(s.cfg.RunDir, "logmark")); err != nil {
		return nil, err
	}
	s.exits, err = newExits()
	return kept, err
}

// lockDir keeps a second shim off: one whose reaper has died stays, because it
// holds the log pipes of what it started.
func (s *Server) lockDir() (*os.File, error) {
	if err := os.MkdirAll(s.stateDir(), 0o711); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.cfg.RunDir, "shim.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is served by another buoy-shim: %w", s.cfg.RunDir, err), f.Close())
	}
	return f, nil
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	path := filepath.Join(s.cfg.RunDir, "shim.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	old := unix.Umask(0o177)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	unix.Umask(old)
	return l, err
}

// stateDir holds one directory a container.
func (s *Server) stateDir() string { return filepath.Join(s.cfg.RunDir, "shim") }

// lcDir is libcontainer's root.
func (s *Server) lcDir() string { return filepath.Join(s.cfg.RunDir, "lc") }

// removeTraces is the end of an orderly Quit.
func (s *Server) removeTraces() error {
	if err := s.fuseClear(); err != nil {
		return err
	}
	var err error
	for _, name := range []string{"shim.sock", "logmark", "shim", "lc", "flists", "shim.lock"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.cfg.RunDir, name)))
	}
	return err
}

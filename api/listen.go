package api

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
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Listen serves at addrs until ctx is done, lets running requests end within
// the grace, and returns when all have. An address is a unix socket
// ("/run/buoy/api.sock", "unix:///run/buoy/api.sock"), which its owner and
// group may use, or "HOST:PORT", which without Config.TLS is one of loopback.
func (s *Server) Listen(ctx context.Context, addrs []string) error {
	doors, err := open(ctx, addrs, s.cfg.TLS == nil)
	if err != nil {
		return err
	}
	opened := make([]net.Addr, len(doors))
	for i, l := range doors {
		opened[i] = l.Addr()
	}

	// Requests outlive ctx by the grace; streams are told through stoppingKey.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	g, gctx := errgroup.WithContext(ctx)
	base = context.WithValue(base, stoppingKey{}, gctx)
	srv := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return s.strangers.note(withPeer(ctx, c), c) },
		ConnState:         s.strangers.watch,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		TLSConfig:         s.cfg.TLS,
	}
	for _, l := range doors {
		g.Go(func() error {
			serve := srv.Serve
			if s.cfg.TLS != nil && l.Addr().Network() == "tcp" {
				serve = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
			}
			if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-gctx.Done()
		s.shutdown(base, cut, srv)
		return nil
	})
	s.cfg.Opened(opened)
	return g.Wait()
}

// shutdown ends srv: gently within the grace, then by cancelling the requests.
func (s *Server) shutdown(base context.Context, cut func(), srv *http.Server) {
	grace, cancel := context.WithTimeout(base, s.cfg.Grace)
	defer cancel()
	if srv.Shutdown(grace) == nil {
		return
	}
	s.cfg.Log.WarnContext(base, "requests did not end in time and are cut")
	last, cancelLast := context.WithTimeout(context.WithoutCancel(base), time.Second)
	defer cancelLast()
	cut()
	if srv.Shutdown(last) != nil {
		_ = srv.Close()
	}
}

// open opens all doors or none.
func open(ctx context.Context, addrs []string, plain bool) (doors []net.Listener, err error) {
	if len(addrs) == 0 {
		return nil, errs.E(errs.Invalid, "no address to listen at")
	}
	for _, addr := range addrs {
		l, err := openOne(ctx, addr, plain)
		if err != nil {
			for _, door := range doors {
				err = errors.Join(err, door.Close())
			}
			return nil, err
		}
		doors = append(doors, l)
	}
	return doors, nil
}

// CheckAddr says what is wrong with an address to listen at; plain says that no
// TLS is spoken there.
func CheckAddr(addr string, plain bool) error {
	if strings.HasPrefix(addr, "unix:") || strings.HasPrefix(addr, "/") {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return errs.E(errs.Invalid, "listen at %q: it must be HOST:PORT or the absolute path of a unix socket", addr)
	}
	if plain && !loopback(host) {
		return errs.E(errs.Invalid, "listen at %q: without TLS (as with --dev) only loopback addresses such as 127.0.0.1 are allowed", addr)
	}
	return nil
}

func openOne(ctx context.Context, addr string, plain bool) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return openUnix(ctx, filepath.Clean(path))
	}
	if strings.HasPrefix(addr, "/") {
		return openUnix(ctx, filepath.Clean(addr))
	}
	if err := CheckAddr(addr, plain); err != nil {
		return nil, err
	}
	// Hosts that have nothing to say keep their connections; probes would cost as much as their reports.
	lc := net.ListenConfig{KeepAlive: 5 * time.Minute}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", addr, err)
	}
	return l, nil
}

// openUnix makes the socket in a directory of its own and moves it to path
// when its mode is right, so that it is never open to more people. It replaces
// a socket that nobody answers.
func openUnix(ctx context.Context, path string) (_ net.Listener, err error) {
	if err := vacant(ctx, path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tmp := filepath.Join(dir, "s")
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false) // it would unlink the old name
	}
	if err := errors.Join(os.Chmod(tmp, 0o660), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", path, err), l.Close())
	}
	return &unixDoor{Listener: l, path: path}, nil
}

// vacant says whether path may become our socket.
func vacant(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen at %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return errs.E(errs.Exists, "listen at %s: there is something that is not a socket", path)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errs.E(errs.Exists, "listen at %s: another program listens there", path), c.Close())
	}
	return nil
}

// unixDoor removes its socket when it closes.
type unixDoor struct {
	net.Listener
	path string
}

func (d *unixDoor) Addr() net.Addr { return &net.UnixAddr{Name: d.path, Net: "unix"} }

func (d *unixDoor) Close() error {
	err := os.Remove(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.Listener.Close())
}

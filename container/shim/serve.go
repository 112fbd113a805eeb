//go:build linux && cgo

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/version"
)

// serve answers calls until Quit or until ctx ends.
func (s *Server) serve(ctx context.Context, cancel func()) error {
	l, err := s.listen(ctx)
	if err != nil {
		return err
	}
	quit := false
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			s.mu.Lock()
			quit = s.quitting
			s.mu.Unlock()
			if quit {
				return s.removeTraces()
			}
			return ctx.Err()
		case err != nil:
			s.log.Error("accept a call", "error", err)
			continue
		}
		unixConn, ok := conn.(*net.UnixConn)
		if !ok {
			panic("BUG: a unix socket has accepted what is no unix connection")
		}
		wg.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.answer(ctx, unixConn, cancel)
		})
	}
}

// answer serves one connection.
func (s *Server) answer(ctx context.Context, conn *net.UnixConn, cancel func()) {
	for {
		var req shimapi.Request
		files, err := shimapi.Receive(conn, &req)
		if err != nil {
			return
		}
		switch req.Op { //nolint:exhaustive // these two keep their connection
		case shimapi.OpWatch:
			fileList(files).close()
			s.watch(ctx, conn)
			return
		case shimapi.OpAttach:
			s.attach(ctx, conn, req, files)
			return
		}
		body, err := s.call(ctx, req, files)
		fileList(files).close()
		if err := shimapi.WriteFrame(conn, reply(body, err)); err != nil {
			return
		}
		if req.Op == shimapi.OpQuit && err == nil {
			cancel()
			return
		}
	}
}

func reply(body any, err error) shimapi.Reply {
	if err == nil && body != nil {
		raw, jerr := json.Marshal(body)
		if jerr == nil {
			return shimapi.Reply{Body: raw}
		}
		err = jerr
	}
	if err != nil {
		kind := errs.KindOf(err)
		if kind == errs.Internal && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) {
			kind = errs.Unavailable // a full disk is for its owner to see
		}
		return shimapi.Reply{Error: err.Error(), Kind: kind}
	}
	return shimapi.Reply{}
}

// arg decodes a call's body and hands it on.
func arg[T, R any](req shimapi.Request, f func(T) (R, error)) (any, error) {
	var v T
	if err := json.Unmarshal(req.Body, &v); err != nil {
		return nil, errs.E(errs.Invalid, "read %s: %w", req.Op, err)
	}
	return f(v)
}

func noReply[T any](f func(T) error) func(T) (any, error) {
	return func(v T) (any, error) { return nil, f(v) }
}

func (s *Server) call(ctx context.Context, req shimapi.Request, files fileList) (any, error) {
	switch req.Op {
	case shimapi.OpHello:
		return shimapi.Hello{Version: shimapi.Version, Build: version.Version, PID: os.Getpid()}, nil
	case shimapi.OpWarm:
		s.warmer.warm()
		return nil, nil
	case shimapi.OpRun:
		return arg(req, func(r shimapi.RunRequest) (shimapi.Process, error) { return s.run(ctx, r) })
	case shimapi.OpRelease:
		return arg(req, noReply(func(r shimapi.Ref) error { return s.release(r.ID) }))
	case shimapi.OpExec:
		return arg(req, func(r shimapi.ExecRequest) (shimapi.Process, error) { return s.exec(r, files) })
	case shimapi.OpSignal:
		return arg(req, noReply(s.signal))
	case shimapi.OpKill:
		return arg(req, noReply(func(r shimapi.Ref) error { return s.kill(ctx, r.ID) }))
	case shimapi.OpDelete:
		return arg(req, noReply(func(r shimapi.Ref) error { return s.delete(ctx, r.ID) }))
	case shimapi.OpList:
		return s.list(), nil
	case shimapi.OpForget:
		return arg(req, noReply(s.forget))
	case shimapi.OpCloseStdin:
		return arg(req, noReply(s.closeStdin))
	case shimapi.OpMount:
		return arg(req, s.fuseMount)
	case shimapi.OpUnmount:
		return arg(req, noReply(s.fuseUnmount))
	case shimapi.OpMounts:
		return s.fuseList()
	case shimapi.OpQuit:
		return nil, s.quit(ctx)
	case shimapi.OpWatch, shimapi.OpAttach: // answer has taken it
	}
	return nil, errs.E(errs.Invalid, "unknown call %q", req.Op)
}

// quit lets no further container in; answer ends the server after the reply.
func (s *Server) quit(ctx context.Context) error {
	for _, c := range s.all() {
		if err := s.clearStuck(ctx, c); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.containers); n > 0 {
		return errs.E(errs.Conflict, "%d containers are left; delete them first", n)
	}
	s.quitting = true
	return nil
}

// watch streams a snapshot and events until the caller leaves or lags behind.
func (s *Server) watch(ctx context.Context, conn net.Conn) {
	sub := s.events.subscribe()
	defer s.events.unsubscribe(sub)
	// The subscription comes first: an exit between the two is told twice
	// rather than not at all.
	list := s.list()
	if list == nil {
		list = []shimapi.Container{}
	}
	if err := shimapi.WriteFrame(conn, shimapi.Event{Sync: list}); err != nil {
		return
	}
	gone, wait := leaving(conn)
	defer wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-gone:
			return
		case e, ok := <-sub.c:
			if !ok {
				s.log.Warn("a watcher lags behind and is dropped")
				return
			}
			if err := shimapi.WriteFrame(conn, e); err != nil {
				if !errors.Is(err, net.ErrClosed) {
					s.log.Info("a watcher is gone", "error", err)
				}
				return
			}
		}
	}
}

// leaving notices at once that a caller has left, who has nothing more to say.
// wait hangs up.
func leaving(conn net.Conn) (gone <-chan struct{}, wait func()) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		var b [1]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				return
			}
		}
	}()
	return left, func() { conn.Close(); <-left }
}

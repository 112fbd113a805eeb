//go:build linux && cgo

package shim

import (
	"context"
	"encoding/json"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// attach serves one connection: it taps a container's output until there is no
// more, the caller leaves, or its pipes are full.
func (s *Server) attach(ctx context.Context, conn *net.UnixConn, req shimapi.Request, files fileList) {
	var r shimapi.AttachRequest
	err := json.Unmarshal(req.Body, &r)
	if err != nil || len(files) != 2 {
		err = errs.E(errs.Invalid, "read %s, with %d descriptors: %w", req.Op, len(files), err)
	}
	var a *attachment
	if err == nil {
		a, err = s.tapOutput(r, files)
	}
	files.close()
	if err != nil {
		_ = shimapi.WriteFrame(conn, reply(nil, err)) // who has left needs no answer
		return
	}
	defer s.logs.detach(a.taps...)
	err = shimapi.Send(conn, reply(a.Attached, nil), a.input...)
	a.input.close()
	if err != nil {
		return
	}
	gone, wait := leaving(conn)
	defer wait()
	for range a.taps {
		select {
		case slow := <-a.ends:
			if slow {
				_ = shimapi.WriteFrame(conn, shimapi.AttachEnd{Slow: true})
				return
			}
		case <-gone:
			return
		case <-ctx.Done():
			return
		}
	}
	_ = shimapi.WriteFrame(conn, shimapi.AttachEnd{})
}

// attachment is one client of a container.
type attachment struct {
	shimapi.Attached
	taps  []*tap
	ends  chan bool // how each tap has ended
	input fileList
}

// tapOutput begins an attachment.
func (s *Server) tapOutput(r shimapi.AttachRequest, files fileList) (_ *attachment, err error) {
	c, err := s.alive(r.ID)
	if err != nil {
		return nil, err
	}
	defer c.life.RUnlock()
	a := &attachment{}
	c.mu.Lock()
	status, out := c.status(), c.first.out
	a.TTY = c.tty
	var input int
	if c.input >= 0 && status != shimapi.Stopped {
		if input, err = duplicate(c.input); err == nil {
			a.input = fileList{os.NewFile(uintptr(input), "input")}
		}
	}
	c.mu.Unlock()
	if err == nil && status == shimapi.Stopped {
		err = errs.E(errs.Conflict, "container %q has ended", r.ID)
	}
	a.ends = make(chan bool, len(files))
	for i, st := range out {
		if err != nil {
			break
		}
		t := &tap{st: st, lossless: r.Lossless, ended: func(slow bool) { a.ends <- slow }}
		if t.fd, err = duplicate(int(files[i].Fd())); err == nil {
			a.taps = append(a.taps, t)
			err = unix.SetNonblock(t.fd, true)
		}
	}
	if err != nil {
		a.input.close()
		for _, t := range a.taps {
			unix.Close(t.fd)
		}
		return nil, err
	}
	s.logs.attach(a.taps...)
	return a, nil
}

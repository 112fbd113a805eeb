package shimapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Client calls a shim. Its methods may be used by many goroutines at once.
type Client struct {
	socket string

	mu   sync.Mutex // guards idle
	idle []net.Conn
}

// NewClient is a client of the shim that listens at socket.
func NewClient(socket string) *Client { return &Client{socket: socket} }

// Close drops the idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle {
		conn.Close()
	}
	c.idle = nil
}

// Hello asks who is there. Unavailable: nobody.
func (c *Client) Hello(ctx context.Context) (h Hello, err error) {
	return h, c.call(ctx, OpHello, nil, &h)
}

// Warm makes the next start cheap; call it as soon as one is likely.
func (c *Client) Warm(ctx context.Context) error { return c.call(ctx, OpWarm, nil, nil) }

// Run starts a container, or prepares it (RunRequest.Hold). When it fails,
// nothing of the container is left. NotFound and Invalid: the command is not
// there, or cannot be executed. Exists: the id is in use.
func (c *Client) Run(ctx context.Context, r RunRequest) (p Process, err error) {
	return p, c.call(ctx, OpRun, r, &p)
}

// Release lets a held container exec.
func (c *Client) Release(ctx context.Context, id string) error {
	return c.call(ctx, OpRelease, Ref{id}, nil)
}

// Exec starts a job in a running container. Conflict: it does not run. The job
// gets duplicates of ends, see ExecRequest; the caller closes its own.
func (c *Client) Exec(ctx context.Context, r ExecRequest, ends ...*os.File) (p Process, err error) {
	if len(ends) == 0 {
		return p, c.call(ctx, OpExec, r, &p)
	}
	conn, files, err := c.callWith(ctx, OpExec, r, &p, ends)
	if err == nil {
		closeAll(files)
		conn.Close()
	}
	return p, err
}

// Attach taps the output of a container that runs or is held: each byte from
// now on also goes into stdout or stderr, writing ends of pipes, which the
// caller closes. Conflict: it has ended.
func (c *Client) Attach(ctx context.Context, r AttachRequest, stdout, stderr *os.File) (*Attachment, error) {
	var a Attachment
	conn, files, err := c.callWith(ctx, OpAttach, r, &a.Attached, []*os.File{stdout, stderr})
	if err != nil {
		return nil, err
	}
	a.conn = conn
	if len(files) == 1 {
		a.Input, files = files[0], nil
	}
	closeAll(files)
	return &a, nil
}

// Attachment is a tap that is open. It ends when it is closed.
type Attachment struct {
	Attached
	Input *os.File // see Attached; nil: none. The caller closes it

	conn net.Conn
}

// Wait returns when the shim has ended the tap: all that the container has to
// say is in the pipes. Conflict: the pipes were not read fast enough.
// Unavailable: the shim has gone.
func (a *Attachment) Wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { a.conn.SetDeadline(time.Unix(1, 0)) })()
	var end AttachEnd
	if err := ReadFrame(a.conn, &end); err != nil {
		return lost(ctx, OpAttach, err)
	}
	if end.Slow {
		return errs.E(errs.Conflict, "the output was not read fast enough")
	}
	return nil
}

// Close ends the tap.
func (a *Attachment) Close() { a.conn.Close() }

// CloseStdin lets a container's open stdin end: with the last duplicate that
// somebody who is attached still has. It may be closed already.
func (c *Client) CloseStdin(ctx context.Context, id string) error {
	return c.call(ctx, OpCloseStdin, Ref{id}, nil)
}

// Signal sends a signal. NotFound: no such container or job, or it has ended.
func (c *Client) Signal(ctx context.Context, r SignalRequest) error {
	return c.call(ctx, OpSignal, r, nil)
}

// Kill ends every process of the container now and returns when none is left.
func (c *Client) Kill(ctx context.Context, id string) error {
	return c.call(ctx, OpKill, Ref{id}, nil)
}

// Delete kills what runs and removes every trace but the log files. Deleting
// what is not there is fine.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.call(ctx, OpDelete, Ref{id}, nil)
}

// answerLimit is how long an answer from memory may take: a shim that hangs, or
// that somebody has stopped, must not hang those who only look.
const answerLimit = 10 * time.Second

// List is all containers the shim knows.
func (c *Client) List(ctx context.Context) (l []Container, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, errors.New("it does not answer"))
	defer cancel()
	return l, c.call(ctx, OpList, nil, &l)
}

// Forget drops the record of an ended job. Conflict: it still runs.
func (c *Client) Forget(ctx context.Context, id, job string) error {
	return c.call(ctx, OpForget, JobRef{id, job}, nil)
}

// Mount makes a FUSE file system that nobody serves yet, or returns the one with this id if it is there: it outlives the shim
// and whoever serves it. Conflict: it is there in another directory.
func (c *Client) Mount(ctx context.Context, id, dir string) (m Mount, err error) {
	return m, c.call(ctx, OpMount, MountRequest{id, dir}, &m)
}

// Unmount removes a FUSE file system. Containers whose roots are above it go on, unless force cuts them off. Absent is fine.
func (c *Client) Unmount(ctx context.Context, id string, force bool) error {
	return c.call(ctx, OpUnmount, UnmountRequest{id, force}, nil)
}

// Mounts is all FUSE file systems that were made by Mount, sorted by id.
func (c *Client) Mounts(ctx context.Context) (l []Mount, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, errors.New("it does not answer"))
	defer cancel()
	return l, c.call(ctx, OpMounts, nil, &l)
}

// Quit ends the shim and its reaper. Conflict: containers are left.
func (c *Client) Quit(ctx context.Context) error { return c.call(ctx, OpQuit, nil, nil) }

// Watch calls f with a snapshot and then with each event until ctx ends or the
// shim goes away; it always returns an error.
func (c *Client) Watch(ctx context.Context, f func(Event)) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if err := WriteFrame(conn, Request{Op: OpWatch}); err != nil {
		return lost(ctx, OpWatch, err)
	}
	for {
		var e Event
		if err := ReadFrame(conn, &e); err != nil {
			return lost(ctx, OpWatch, err)
		}
		f(e)
	}
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, errs.E(errs.Unavailable, "reach buoy-shim: %w", err)
	}
	return conn, nil
}

// dialPatience bounds the wait for a shim that is on its way: its reaper starts
// one within 20 ms, or a second if it keeps dying; a slow and busy machine took
// ten seconds until it listened (2026-11).
const dialPatience = 15 * time.Second

// reach dials until somebody listens. Nothing has been asked yet, so waiting
// costs nothing but time.
func (c *Client) reach(ctx context.Context) (net.Conn, error) {
	deadline := time.Now().Add(dialPatience)
	for {
		conn, err := c.dial(ctx)
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return conn, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// take gives a connection, and whether it has been used before: one the shim
// may have closed in the meantime.
func (c *Client) take(ctx context.Context, op Op) (net.Conn, bool, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return conn, true, nil
	}
	c.mu.Unlock()
	if op == OpHello { // which asks whether somebody is there
		conn, err := c.dial(ctx)
		return conn, false, err
	}
	conn, err := c.reach(ctx)
	return conn, false, err
}

// maxIdle connections are kept: what a burst of starts uses at once.
const maxIdle = 8

func (c *Client) give(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= maxIdle {
		conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

func newRequest(op Op, body any) (Request, error) {
	req := Request{Op: op}
	if body == nil {
		return req, nil
	}
	var err error
	if req.Body, err = json.Marshal(body); err != nil {
		return req, fmt.Errorf("encode %s: %w", op, err)
	}
	return req, nil
}

func (c *Client) call(ctx context.Context, op Op, body, reply any) error {
	req, err := newRequest(op, body)
	if err != nil {
		return err
	}
	for {
		conn, used, err := c.take(ctx, op)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		if err := WriteFrame(conn, req); err != nil {
			stop()
			conn.Close()
			// Nothing was sent whole on a connection that a shim before this
			// one had closed, so the call may be made again.
			if used && ctx.Err() == nil {
				continue
			}
			return lost(ctx, op, err)
		}
		var rep Reply
		err = ReadFrame(conn, &rep)
		if !stop() || err != nil {
			conn.Close()
		} else {
			c.give(conn)
		}
		if err != nil {
			return lost(ctx, op, err)
		}
		return rep.into(reply)
	}
}

// callWith is call with descriptors, on a connection of its own, which the
// caller closes: what comes along with one call must not meet another.
func (c *Client) callWith(ctx context.Context, op Op, body, reply any, send []*os.File) (_ net.Conn, got []*os.File, err error) {
	req, err := newRequest(op, body)
	if err != nil {
		return nil, nil, err
	}
	plain, err := c.reach(ctx)
	if err != nil {
		return nil, nil, err
	}
	conn, ok := plain.(*net.UnixConn)
	if !ok {
		panic("BUG: a unix socket is dialled, and the connection is no unix connection")
	}
	stop := context.AfterFunc(ctx, func() { plain.SetDeadline(time.Unix(1, 0)) })
	var rep Reply
	if err = Send(conn, req, send...); err == nil {
		got, err = Receive(conn, &rep)
	}
	if !stop() || err != nil {
		err = lost(ctx, op, err)
	} else {
		err = rep.into(reply)
	}
	if err != nil {
		closeAll(got)
		conn.Close()
		return nil, nil, err
	}
	return conn, got, nil
}

// into decodes what a call was answered with.
func (r Reply) into(reply any) error {
	switch {
	case r.Error != "":
		return errs.E(r.Kind, "%s", r.Error)
	case reply == nil:
		return nil
	}
	return json.Unmarshal(r.Body, reply)
}

// lost is the error of a call whose answer did not come: it may have happened.
func lost(ctx context.Context, op Op, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return errs.E(errs.Unavailable, "ask buoy-shim to %s: %w", op, err)
}

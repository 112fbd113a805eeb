package shimapi

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// maxFrame bounds a message: a list of 10,000 containers is about 5 MB.
const maxFrame = 64 << 20

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

// Exec starts a job in a running container. Conflict: it does not run.
func (c *Client) Exec(ctx context.Context, r ExecRequest) (p Process, err error) {
	return p, c.call(ctx, OpExec, r, &p)
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

func (c *Client) call(ctx context.Context, op Op, body, reply any) error {
	req := Request{Op: op}
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode %s: %w", op, err)
		}
		req.Body = raw
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
		if rep.Error != "" {
			return errs.E(rep.Kind, "%s", rep.Error)
		}
		if reply == nil {
			return nil
		}
		return json.Unmarshal(rep.Body, reply)
	}
}

// lost is the error of a call whose answer did not come: it may have happened.
func lost(ctx context.Context, op Op, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return errs.E(errs.Unavailable, "ask buoy-shim to %s: %w", op, err)
}

// WriteFrame sends v as one frame in one write.
func WriteFrame(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	buf := make([]byte, 4, 4+len(raw))
	binary.BigEndian.PutUint32(buf, uint32(len(raw)))
	_, err = w.Write(append(buf, raw...))
	return err
}

// ReadFrame reads one frame into v.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes is longer than the %d allowed", n, maxFrame)
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	return json.Unmarshal(buf, v)
}

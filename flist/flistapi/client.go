package flistapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Client calls "buoy-flist serve". Its methods may be used by many goroutines at once. Unavailable: nobody answers.
type Client struct {
	http *http.Client
}

// NewClient is a client of the server that listens at socket.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
	}}}
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Hello asks who is there.
func (c *Client) Hello(ctx context.Context) (h Hello, err error) {
	return h, c.call(ctx, PathHello, nil, &h)
}

// Inspect reads an flist. Invalid: it is none. Stores that do not answer cost seconds and Config, no error.
func (c *Client) Inspect(ctx context.Context, r InspectRequest) (i Info, err error) {
	return i, c.call(ctx, PathInspect, r, &i)
}

// Mount serves an flist. It returns when the kernel has an answer to its first question, or when the mount of a server before
// this one is taken over. The same again is fine, and changes nothing but the stores and mirrors. Conflict: the id is
// mounted and is another flist.
func (c *Client) Mount(ctx context.Context, r MountRequest) error {
	return c.call(ctx, PathMount, r, nil)
}

// Unmount ends serving and forgets the mount; whoever still reads gets errors once the shim has unmounted, too. Absent is
// fine.
func (c *Client) Unmount(ctx context.Context, id string) error {
	return c.call(ctx, PathUnmount, Ref{id}, nil)
}

// Mounts is all mounts, sorted by id.
func (c *Client) Mounts(ctx context.Context) (l []MountStatus, err error) {
	return l, c.call(ctx, PathMounts, nil, &l)
}

// Complete says that layer has all files of a mount: from now on they are served from there, chunks are not asked for any
// more, and the kernel reads by itself what is opened from now on. NotFound: no such mount.
func (c *Client) Complete(ctx context.Context, id, layer string) error {
	return c.call(ctx, PathComplete, CompleteRequest{id, layer}, nil)
}

// Stats is how the chunk cache is.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	return s, c.call(ctx, PathStats, nil, &s)
}

// Trim throws chunks out of the cache until it has freed so many bytes, and says how many it has.
func (c *Client) Trim(ctx context.Context, bytes int64) (freed int64, err error) {
	var t Trimmed
	err = c.call(ctx, PathTrim, TrimRequest{bytes}, &t)
	return t.Bytes, err
}

// Quit ends the server when it has answered what it was asked. What is mounted stays, and waits for the next server.
func (c *Client) Quit(ctx context.Context) error { return c.call(ctx, PathQuit, nil, nil) }

// Chunk is a chunk in the form in which stores have it, if it is in the cache; for other nodes. NotFound: it is not.
func (c *Client) Chunk(ctx context.Context, hexID string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://buoy-flist"+PathChunk+hexID, nil)
	if err != nil {
		return nil, errs.E(errs.Invalid, "chunk %q: %w", hexID, err)
	}
	body, err := c.open(ctx, req)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, lost(ctx, err)
	}
	return raw, nil
}

// Unpack writes an flist's tree to a directory; progress, if not nil, hears of plain bytes written and wanted. What an
// Unpack that failed has left in the directory is the caller's to remove.
func (c *Client) Unpack(ctx context.Context, r UnpackRequest, progress func(done, total int64)) (UnpackResult, error) {
	var last UnpackEvent
	err := c.stream(ctx, PathUnpack, r, func(d *json.Decoder) error {
		last = UnpackEvent{}
		if err := d.Decode(&last); err != nil {
			return err
		}
		switch {
		case last.Error != "":
			return errs.E(last.Kind, "%s", last.Error)
		case last.Result != nil:
			return io.EOF
		case progress != nil:
			progress(last.Done, last.Total)
		}
		return nil
	})
	switch {
	case err != nil:
		return UnpackResult{}, err
	case last.Result == nil:
		return UnpackResult{}, errs.E(errs.Unavailable, "buoy-flist ended before it had unpacked %s", r.File)
	}
	return *last.Result, nil
}

// Events calls f with what happens, EventSync first, until ctx ends or the server goes away or drops a listener that lags
// behind; it always returns an error.
func (c *Client) Events(ctx context.Context, f func(Event)) error {
	err := c.stream(ctx, PathEvents, nil, func(d *json.Decoder) error {
		var e Event
		if err := d.Decode(&e); err != nil {
			return err
		}
		f(e)
		return nil
	})
	if err == nil {
		err = errs.E(errs.Unavailable, "buoy-flist ended the stream of events")
	}
	return err
}

// stream calls next until it returns an error; io.EOF is the end.
func (c *Client) stream(ctx context.Context, path string, body any, next func(*json.Decoder) error) error {
	req, err := request(ctx, path, body)
	if err != nil {
		return err
	}
	answer, err := c.open(ctx, req)
	if err != nil {
		return err
	}
	defer answer.Close()
	for d := json.NewDecoder(answer); ; {
		err := next(d)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && errs.KindOf(err) == errs.Internal:
			return lost(ctx, err)
		case err != nil:
			return err
		}
	}
}

func (c *Client) call(ctx context.Context, path string, body, answer any) error {
	req, err := request(ctx, path, body)
	if err != nil {
		return err
	}
	r, err := c.open(ctx, req)
	if err != nil {
		return err
	}
	defer r.Close()
	if answer == nil {
		_, err = io.Copy(io.Discard, r)
	} else {
		err = json.NewDecoder(r).Decode(answer)
	}
	if err != nil {
		return lost(ctx, err)
	}
	return nil
}

func request(ctx context.Context, path string, body any) (*http.Request, error) {
	raw := []byte("{}")
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encode %s: %w", path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://buoy-flist"+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	// All calls may be made twice: the transport may try again on a connection that a server before this one has closed.
	req.Header["Idempotency-Key"] = nil
	return req, nil
}

// open is the body of a good answer.
func (c *Client) open(ctx context.Context, req *http.Request) (io.ReadCloser, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	var f Failure
	if err := json.NewDecoder(res.Body).Decode(&f); err != nil || f.Error == "" {
		return nil, errs.E(errs.Unavailable, "ask buoy-flist: it answers %s", res.Status)
	}
	return nil, errs.E(f.Kind, "%s", f.Error)
}

// lost is the error of a call whose answer did not come: it may have happened.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return errs.E(errs.Unavailable, "ask buoy-flist: %w", err)
}

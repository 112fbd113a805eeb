package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Client asks the Server at one address.
type Client struct {
	addr string
	http *http.Client
}

// NewClient returns a client of the server at HOST:PORT.
func NewClient(addr string) *Client {
	// A connection of before a power cut answers no more.
	return &Client{addr: addr, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Boot is another text after each boot of the guest.
func (c *Client) Boot(ctx context.Context) (string, error) {
	id, err := c.do(ctx, http.MethodGet, "/boot", nil)
	return string(id), err
}

// Run runs a command to its end. Ending ctx kills it. An exit code other than
// 0 is an *ExitError.
func (c *Client) Run(ctx context.Context, cmd Command) (Result, error) {
	var r Result
	if err := c.json(ctx, http.MethodPost, "/run", cmd, &r); err != nil {
		return r, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	if r.Code != 0 {
		return r, &ExitError{Command: cmd, Result: r}
	}
	return r, nil
}

// Start starts a command in the background, in a session of its own.
func (c *Client) Start(ctx context.Context, cmd Command) (pid int, err error) {
	var s started
	if err := c.json(ctx, http.MethodPost, "/processes", cmd, &s); err != nil {
		return 0, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return s.PID, nil
}

// Wait waits for the end of a process that Start has started; the result has
// no output.
func (c *Client) Wait(ctx context.Context, pid int) (Result, error) {
	var r Result
	return r, c.json(ctx, http.MethodGet, fmt.Sprintf("/processes/%d", pid), nil, &r)
}

// Output is what such a process has written so far, to both streams.
func (c *Client) Output(ctx context.Context, pid int) (string, error) {
	out, err := c.do(ctx, http.MethodGet, fmt.Sprintf("/processes/%d/output", pid), nil)
	return string(out), err
}

// Get reads a file of the guest.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/file?"+url.Values{"path": {path}}.Encode(), nil)
}

// Put writes a file of the guest, and the directories above it if need be.
func (c *Client) Put(ctx context.Context, path string, mode fs.FileMode, data io.Reader) error {
	query := url.Values{"path": {path}, "mode": {fmt.Sprintf("%o", mode.Perm())}}
	_, err := c.do(ctx, http.MethodPut, "/file?"+query.Encode(), data)
	return err
}

// Off shuts the guest down. It answers before that is done.
func (c *Client) Off(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodPost, "/off", nil)
	return err
}

// Dial opens a connection from inside the guest.
func (c *Client) Dial(ctx context.Context, network, address string) (_ net.Conn, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	query := url.Values{"network": {network}, "address": {address}}
	if _, err := fmt.Fprintf(conn, "GET /dial?%s HTTP/1.1\r\nHost: guest\r\n\r\n", query.Encode()); err != nil {
		return nil, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		_, err := answer(resp)
		return nil, fmt.Errorf("dial %s in the guest: %w", address, err)
	}
	return &stream{Conn: conn, r: br}, nil
}

// stream is a connection of which the first bytes may be read already.
type stream struct {
	net.Conn
	r io.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

func (c *Client) json(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	raw, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return answer(resp)
}

// answer is the body, or the error that it tells.
func answer(resp *http.Response) ([]byte, error) {
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(text)))
	}
	return text, err
}

package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// ClientConfig is what a Client is made of.
type ClientConfig struct {
	Controller string // required: http://HOST:PORT, https://HOST:PORT or unix:///PATH
	// Session is how the controller knows this host. While hostID is empty there
	// is no tunnel. When changed is closed, a tunnel ends and Session is asked
	// again. // required
	Session func() (hostID, token string, changed <-chan struct{})
	// Handler answers the controller's requests. Their RemoteAddr is "tunnel",
	// as is the network of http.LocalAddrContextKey. // required
	Handler http.Handler
	Changed func(up bool)    // is told when the tunnel is there, and is not any more; default: nothing
	Refused func(status int) // is told when the controller does not take the token or does not know the host; default: nothing
	TLS     *tls.Config      // for https; default: what the system trusts
	Log     *slog.Logger     // default: none
}

// Client keeps the node's end of a tunnel.
type Client struct {
	cfg  ClientConfig
	base string
	http *http.Transport
	pace pace
	crew crew          // handlers
	soon chan struct{} // a token: try again at once
}

// NewClient makes a Client, which does nothing until Run.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Session == nil || cfg.Handler == nil {
		return nil, errors.New("new tunnel: Session and Handler are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func(bool) {}
	}
	if cfg.Refused == nil {
		cfg.Refused = func(int) {}
	}
	// Pings do what TCP's own keep-alive would, for less.
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: -1}
	c := &Client{cfg: cfg, pace: normal(), soon: make(chan struct{}, 1), http: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: cfg.TLS,
		TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: 15 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives: true, DisableCompression: true, Protocols: new(http.Protocols),
	}}
	c.http.Protocols.SetHTTP1(true) // HTTP/2 has no Upgrade
	if path, ok := strings.CutPrefix(cfg.Controller, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return nil, errs.E(errs.Invalid, "controller %q: want unix:///PATH with an absolute path", cfg.Controller)
		}
		c.base, c.http.Proxy = "http://controller", nil
		c.http.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
		return c, nil
	}
	u, err := url.Parse(cfg.Controller)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errs.E(errs.Invalid, "controller %q: want http://HOST:PORT, https://HOST:PORT or unix:///PATH", cfg.Controller)
	}
	c.base = strings.TrimRight(cfg.Controller, "/")
	return c, nil
}

// steady is how long a tunnel must have been there to be opened again without
// a pause. Two nodes with one identity would take it from each other for ever.
const steady = 10 * time.Second

// pause is how long to wait before the nth attempt after failures, n from 1;
// random is from 0 to 1.
func pause(n int, random float64) time.Duration {
	const shortest, longest = 2 * time.Second, 30 * time.Second
	d := min(shortest<<min(n-1, 10), longest)
	return d/2 + time.Duration(random*float64(d)/2)
}

// Retry ends the wait after a failure: the controller was reached in another way.
func (c *Client) Retry() {
	select {
	case c.soon <- struct{}{}:
	default:
	}
}

// Run keeps a tunnel open until ctx ends. It returns when all handlers have.
func (c *Client) Run(ctx context.Context) error {
	defer c.crew.wait()
	defer c.http.CloseIdleConnections()
	failures := 0
	for ctx.Err() == nil {
		host, token, changed := c.cfg.Session()
		if host == "" {
			c.rest(ctx, changed, -1)
			continue
		}
		lasted, err := c.once(ctx, host, token, changed)
		if lasted >= steady {
			failures = 0
			continue
		}
		failures++
		wait := pause(failures, rand.Float64())
		if err != nil && ctx.Err() == nil {
			c.complain(ctx, failures, err)
			if r, ok := errors.AsType[*refusal](err); ok && r.final() {
				wait = max(wait, pause(10, 1)) // somebody has to do something first
				c.cfg.Refused(r.status)
			}
		}
		if c.rest(ctx, changed, wait) {
			failures = 0
		}
	}
	return nil
}

// complain logs the first of several failures in a row for people.
func (c *Client) complain(ctx context.Context, failures int, err error) {
	level := slog.LevelDebug
	if failures == 1 {
		level = slog.LevelWarn
	}
	c.cfg.Log.Log(ctx, level, "there is no tunnel to the controller", "error", err, "attempt", failures)
}

// rest waits, for ever if d is negative, and says whether changed was closed or
// Retry called meanwhile.
func (c *Client) rest(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	var over <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-ctx.Done():
	case <-over:
	case <-changed:
		return true
	case <-c.soon:
		return true
	}
	return false
}

// once opens a tunnel and serves it until it ends, and says how long that was.
func (c *Client) once(ctx context.Context, host, token string, changed <-chan struct{}) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := c.open(ctx, host, token)
	if err != nil {
		return 0, err
	}
	session, err := nodeEnd.session(w, c.cfg.Log)
	if err != nil {
		return 0, errors.Join(err, w.Close())
	}
	c.cfg.Log.InfoContext(ctx, "the tunnel to the controller is open")
	c.cfg.Changed(true)
	began := time.Now()
	c.serve(ctx, session, w, changed)
	c.cfg.Changed(false)
	c.cfg.Log.InfoContext(ctx, "the tunnel to the controller was closed", "after", time.Since(began).Round(time.Second))
	return time.Since(began), nil
}

// open asks the controller for a tunnel.
func (c *Client) open(ctx context.Context, host, token string) (*wire, error) {
	var conn net.Conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conn = i.Conn }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/host/"+url.PathEscape(host)+"/tunnel", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", hostapi.Tunnel)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask the controller for a tunnel: %w", err)
	}
	rw, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok || !asks(resp.Header) {
		_ = resp.Body.Close()
		return nil, &refusal{resp.StatusCode}
	}
	return newWire(rw, conn, nodeEnd.write), nil
}

// refusal is an answer other than a tunnel.
type refusal struct{ status int }

func (r *refusal) Error() string {
	return fmt.Sprintf("ask the controller for a tunnel: it answers %d %s", r.status, http.StatusText(r.status))
}

// final says that the same request will be answered like this again.
func (r *refusal) final() bool {
	switch r.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

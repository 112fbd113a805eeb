// Package buoy is a client of a buoy node: its containers, jobs, images and
// facts, over the REST API that buoyd serves.
//
//	c, err := buoy.New("unix:///run/buoy/buoy.sock")
//	err = c.Create(ctx, buoy.CreateRequest{Name: "web", Flist: "docker.io/library/nginx:1.27"})
//
// A Client talks about one node. Unless WithNode or On names it, that is the
// one whose daemon answers, which may know others. Methods that take a container's name and say so
// are about the node itself when the name is empty.
package buoy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// DefaultAddr is where buoyd listens when nobody says otherwise.
const DefaultAddr = "unix:///run/buoy/buoy.sock"

// Client is safe for concurrent use. It keeps connections open; Close drops
// the idle ones.
type Client struct {
	addr  string // as it was given, for messages
	base  string // "http://127.0.0.1:8080", without a slash at the end
	token string
	tls   *tls.Config // of a transport of our own
	http  *http.Client
	node  string // empty: self
	self  *self  // shared by all copies that On makes
}

// self remembers the id of the only node.
type self struct {
	mu sync.Mutex // guards id
	id string
}

// Option changes a Client that New makes.
type Option func(*Client)

// WithToken sends token with each request. Empty is none.
func WithToken(token string) Option { return func(c *Client) { c.token = token } }

// WithNode names the node that the client is about. Empty and "self" mean the
// one whose daemon answers.
func WithNode(id string) Option { return func(c *Client) { c.node = id } }

// WithTLS says whom to trust at https:// addresses, and with which certificate.
func WithTLS(cfg *tls.Config) Option { return func(c *Client) { c.tls = cfg } }

// WithHTTPClient replaces the HTTP client. Its Transport, if set, has to dial unix addresses itself.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// New returns a client of the buoyd at addr: http://HOST:PORT,
// https://HOST:PORT or unix:///PATH. It does not connect yet.
func New(addr string, opts ...Option) (*Client, error) {
	c := &Client{addr: addr, self: &self{}}
	for _, opt := range opts {
		opt(c)
	}
	if c.http == nil {
		c.http = &http.Client{}
	}
	base, socket, err := parseAddr(addr)
	if err != nil {
		return nil, err
	}
	c.base = base
	if c.http.Transport == nil {
		own := *c.http
		own.Transport = transport(socket, c.tls)
		c.http = &own
	}
	return c, nil
}

func parseAddr(addr string) (base, socket string, err error) {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return "", "", fmt.Errorf("address %q: want unix:///PATH with an absolute path", addr)
		}
		return "http://buoyd", path, nil
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", "", fmt.Errorf("address %q: want http://HOST:PORT, https://HOST:PORT or unix:///PATH", addr)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", "", fmt.Errorf("address %q: want no user, query or fragment", addr)
	}
	return u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"), "", nil
}

// transport is http.DefaultTransport's settings with a dialer of our own; a
// socket is not reached through a proxy.
func transport(socket string, trust *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        16,
		IdleConnTimeout:     30 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     trust,
	}
	if socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return t
}

// On returns a client of the same address that is about another node.
func (c *Client) On(node string) *Client {
	other := *c
	other.node = node
	return &other
}

// Addr is the address given to New.
func (c *Client) Addr() string { return c.addr }

// Close drops idle connections. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NodeID is the id of the client's node. It asks once when no id was given.
func (c *Client) NodeID(ctx context.Context) (string, error) {
	if c.node != "" && c.node != "self" {
		return c.node, nil
	}
	c.self.mu.Lock()
	id := c.self.id
	c.self.mu.Unlock()
	if id != "" {
		return id, nil
	}
	nodes, err := c.Nodes(ctx)
	switch {
	case err != nil:
		return "", err
	case len(nodes) == 0:
		return "", errors.New(c.addr + " has no node")
	}
	c.self.mu.Lock()
	c.self.id = nodes[0].ID // a daemon lists its own node first
	c.self.mu.Unlock()
	return nodes[0].ID, nil
}

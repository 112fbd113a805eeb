package tunnel_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api/tunnel"
)

const token = "secret"

// site is a controller, as far as tunnels go.
type site struct {
	hub *tunnel.Hub
	url string

	mu      sync.Mutex // guards changes
	changes []string
}

// wrapped is what a server's middleware makes of a ResponseWriter.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+token {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	if r.PathValue("id") == "gone" {
		http.NotFound(w, r)
		return
	}
	s.hub.Serve(wrapped{w}, r, r.PathValue("id"))
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /host/{id}/tunnel", s)
	return mux
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{}
	s.hub = tunnel.NewHub(tunnel.HubConfig{Changed: func(host string, up bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changes = append(s.changes, fmt.Sprint(host, " ", up))
	}})
	srv := httptest.NewServer(s.handler())
	s.url = srv.URL
	t.Cleanup(srv.Close)
	t.Cleanup(s.hub.Close)
	return s
}

func (s *site) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.changes)
}

// client is for requests to a host.
func (s *site) client(host string) *http.Client {
	rt, _ := s.hub.Transport(host)
	return &http.Client{Transport: rt}
}

// known is a session that stays as it is.
func known(host string) func() (string, string, <-chan struct{}) {
	return func() (string, string, <-chan struct{}) { return host, token, nil }
}

func newClient(t testing.TB, cfg tunnel.ClientConfig) *tunnel.Client {
	t.Helper()
	c, err := tunnel.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs a client until the test ends, or until the returned function is called.
func run(t testing.TB, c *tunnel.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// join makes a host with a tunnel.
func (s *site) join(t testing.TB, host string, h http.Handler) (stop func()) {
	t.Helper()
	stop = run(t, newClient(t, tunnel.ClientConfig{Controller: s.url, Session: known(host), Handler: h}))
	s.await(t, host, true)
	return stop
}

func (s *site) await(t testing.TB, host string, up bool) {
	t.Helper()
	await(t, func() bool { return s.hub.Linked(host) == up })
}

// await waits until a condition holds.
func await(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come about in 20 seconds")
		}
	}
}

// soon wants c to be closed.
func soon(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("not within 20 seconds: %s", what)
	}
}

func get(t testing.TB, c *http.Client, path string) string {
	t.Helper()
	resp, err := c.Get("http://node" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s = %d %s, %v", path, resp.StatusCode, body, err)
	}
	return string(body)
}

// cable is between a node and a controller, and can be cut.
type cable struct {
	l  net.Listener
	to string
	wg sync.WaitGroup

	mu     sync.Mutex // guards conns, frozen
	conns  []net.Conn
	frozen chan struct{} // nil while bytes go through; closed when they do again
	count  int64
}

// lay makes a cable to a site, and makes the site's url lead through it.
func lay(t testing.TB, s *site) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{l: l, to: s.url[len("http://"):]}
	s.url = "http://" + l.Addr().String()
	c.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", c.to)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, near, far)
			c.mu.Unlock()
			c.wg.Go(func() { c.carry(near, far) })
			c.wg.Go(func() { c.carry(far, near) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.thaw()
		c.cut()
		c.wg.Wait()
	})
	return c
}

func (c *cable) carry(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		frozen := c.frozen
		c.count += int64(n)
		c.mu.Unlock()
		if frozen != nil {
			<-frozen
		}
		if _, err2 := to.Write(buf[:n]); err != nil || err2 != nil {
			to.Close()
			from.Close()
			return
		}
	}
}

// cut closes what goes through the cable now.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// freeze lets nothing through.
func (c *cable) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen == nil {
		c.frozen = make(chan struct{})
	}
}

func (c *cable) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen != nil {
		close(c.frozen)
		c.frozen = nil
	}
}

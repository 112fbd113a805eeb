package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come to this: %s", what)
		}
	}
}

// begin runs a proxy until the test ends, at a free port unless cfg says
// otherwise, and with shorter times if tweak says so.
func begin(t testing.TB, cfg Config, r []App, tweak func(*limits)) *Proxy {
	t.Helper()
	testleak.Check(t, dropPipes)
	if cfg.HTTP == nil {
		cfg.HTTP = []string{"127.0.0.1:0"}
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.limits.drain = 2 * time.Second
	p.limits.look = 10 * time.Millisecond
	if tweak != nil {
		tweak(&p.limits)
	}
	if err := p.Update(r); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	eventually(t, "the proxy listens", func() bool { return len(p.Addrs().HTTP) > 0 })
	return p
}

// dropPipes closes the pipes through which the kernel copies: package net keeps
// them in a pool.
func dropPipes() { runtime.GC() }

func (p *Proxy) url() string { return "http://" + p.Addrs().HTTP[0].String() }

// fresh is a client that keeps no connections from others.
func fresh(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// backend is a server of net/http.
func backend(t testing.TB, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
}

// raw is a server that does what serve does with each connection.
func raw(t testing.TB, serve func(net.Conn, *bufio.Reader)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// reply is an answer, read to its end.
type reply struct {
	*http.Response
	body string
}

func readReply(r *bufio.Reader, method string) (reply, error) {
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return reply{resp, ""}, nil // the rest is not HTTP
	}
	b, err := io.ReadAll(resp.Body)
	return reply{resp, string(b)}, err
}

// kept are the idle connections to a backend.
func (e *end) kept() []*link {
	e.pool.mu.Lock()
	defer e.pool.mu.Unlock()
	return slices.Clone(e.idle)
}

// dead is an address that nobody listens at.
func dead(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// web is one app, for all hosts, with these backends.
func web(at ...netip.AddrPort) App {
	a := App{Name: "web", Rules: []Rule{{}}, Port: 80}
	for i, x := range at {
		a.Backends = append(a.Backends, Backend{ID: fmt.Sprint("b", i), Ports: map[uint16]netip.AddrPort{80: x}})
	}
	return a
}

// set is Update where it must work.
func set(t testing.TB, p *Proxy, r []App) {
	t.Helper()
	if err := p.Update(r); err != nil {
		t.Fatal(err)
	}
}

// unset takes an app away.
func unset(t testing.TB, p *Proxy, app string) {
	t.Helper()
	if err := p.Update(nil, app); err != nil {
		t.Fatal(err)
	}
}

// webOf is where requests for the app of web go; nil: it is gone.
func webOf(p *Proxy) *service {
	a := p.table.Load().apps.get([]byte("web"))
	if a == nil {
		return nil
	}
	return a.now.Load().web
}

func just(a ...App) []App { return a }

// get is the status and body of an answer.
func get(t testing.TB, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// say sends bytes on a connection of its own and returns all that comes back.
func say(t testing.TB, p *Proxy, text string) string {
	t.Helper()
	c := dialHTTP(t, p)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func dialHTTP(t testing.TB, p *Proxy) *net.TCPConn {
	t.Helper()
	return dial(t, p.Addrs().HTTP[0])
}

func dial(t testing.TB, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	for _, c := range []Config{
		{HTTP: []string{"nonsense"}},
		{HTTP: []string{"127.0.0.1:99999"}},
		{HTTPS: []string{"127.0.0.1:0"}},
	} {
		if _, err := New(c); !errors.Is(err, errs.Invalid) {
			t.Errorf("New(%v): %v", c, err)
		}
	}
}

func TestUpdateBeforeRunAndNoOp(t *testing.T) {
	at := backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	r := just(web(at))
	p := begin(t, Config{}, r, nil)
	c := fresh(t)
	for range 5 {
		if status, body := get(t, c, p.url()); status != 200 || body != "hello" {
			t.Fatalf("answer %d %q", status, body)
		}
	}
	before, ends := p.Stats()["web"], slices.Collect(p.ends())
	kept := func() int { return len(ends[0].kept()) }
	eventually(t, "the connection is idle", func() bool { return kept() == 1 })
	if err := p.Update(r); err != nil {
		t.Fatal(err)
	}
	after := p.Stats()["web"]
	if after.Requests != before.Requests || after.Requests != 5 {
		t.Errorf("requests %d, before the same Update %d", after.Requests, before.Requests)
	}
	if e := slices.Collect(p.ends()); len(e) != 1 || e[0] != ends[0] || kept() != 1 {
		t.Errorf("the same Update has replaced the backend or closed its connection")
	}
	if err := p.Update(just(web())); err != nil {
		t.Fatal(err)
	}
	if status, body := get(t, c, p.url()); status != 503 || body != "app \"web\" has no healthy replica\n" {
		t.Errorf("without backends: %d %q", status, body)
	}
	if err := p.Update(nil, "web"); err != nil {
		t.Fatal(err)
	}
	if status, body := get(t, c, p.url()); status != 404 || !strings.Contains(body, "no app answers at host") {
		t.Errorf("without apps: %d %q", status, body)
	}
	if len(p.Stats()) != 0 {
		t.Errorf("stats of apps that are gone: %v", p.Stats())
	}
}

func TestPortThatIsTaken(t *testing.T) {
	at := raw(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).AddrPort()
	p := begin(t, Config{}, nil, nil)
	a := web(at)
	a.Rules, a.Streams = nil, []Stream{{Proto: "tcp", Listen: taken, Port: 80}, {Proto: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Port: 80}}
	err = p.Update(just(a))
	if !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), `for app web: another program listens there`) {
		t.Errorf("Update: %v", err)
	}
	open := p.Addrs().Streams["web"]
	if len(open) != 2 || open[0].IsValid() || !open[1].IsValid() {
		t.Fatalf("open: %v", open)
	}
	echo(t, dial(t, open[1]), "the other is there")
	if err := p.Update(just(a)); !errors.Is(err, errs.Unavailable) {
		t.Errorf("Update again: %v", err)
	}
	l.Close()
	if err := p.Update(just(a)); err != nil {
		t.Errorf("Update when it is free: %v", err)
	}
	echo(t, dial(t, taken), "hello")
	if err := p.Update(nil, "web"); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", taken.String()); err == nil {
		c.Close()
		t.Error("a port is open that no app has any more")
	}
}

// echoing is a server that says its name first.
func echoing(t testing.TB, name string) netip.AddrPort {
	return raw(t, func(c net.Conn, r *bufio.Reader) {
		fmt.Fprint(c, name)
		_, _ = io.Copy(c, r)
	})
}

// echo sends a text and wants it back.
func echo(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("sent %q, got %q, %v", text, b, err)
	}
}

func TestRunEndsGently(t *testing.T) {
	testleak.Check(t, dropPipes)
	entered, finish := make(chan bool), make(chan bool)
	at := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			entered <- true
			<-finish
		}
		fmt.Fprint(w, "done")
	})
	p, err := New(Config{HTTP: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	p.limits.look = 10 * time.Millisecond
	set(t, p, just(web(at)))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	eventually(t, "it listens", func() bool { return len(p.Addrs().HTTP) > 0 })
	idle := dialHTTP(t, p)
	fmt.Fprint(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(idle)
	if _, err := readReply(r, "GET"); err != nil {
		t.Fatal(err)
	}
	c := fresh(t)
	slow := make(chan string, 1)
	url := p.url()
	go func() { _, body := get(t, c, url+"/slow"); slow <- body }()
	<-entered
	stop()
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection ended with %v", err)
	}
	finish <- true
	if body := <-slow; body != "done" {
		t.Errorf("a request under way was answered %q", body)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := p.Update(nil, "web"); err != nil {
		t.Errorf("Update after Run: %v", err)
	}
}

func TestRunCutsWhatDoesNotEnd(t *testing.T) {
	testleak.Check(t, dropPipes)
	at := raw(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	p, err := New(Config{HTTP: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	p.limits.drain = 50 * time.Millisecond
	a := web(at)
	a.Streams = []Stream{{Proto: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Port: 80}}
	set(t, p, just(a))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	eventually(t, "it listens", func() bool { return len(p.Addrs().Streams["web"]) > 0 })
	stream, request := dial(t, p.Addrs().Streams["web"][0]), dialHTTP(t, p)
	fmt.Fprint(stream, "x")
	fmt.Fprint(request, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "both are under way", func() bool { return p.Stats()["web"].Active == 2 })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := p.Stats()["web"].Active; n != 0 {
		t.Errorf("%d are under way after Run", n)
	}
}

// logged is a log that a test reads.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

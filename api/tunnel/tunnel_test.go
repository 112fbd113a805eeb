package tunnel_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/api/tunnel"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/testleak"
)

// echo answers what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	door, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	fmt.Fprintf(w, "%s %s %s %s %s %s", r.Method, r.Host, r.URL, r.RemoteAddr, door.Network(), body)
}

func TestRequests(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	if _, ok := s.hub.Transport("h1"); ok {
		t.Error("a host without a tunnel has one")
	}
	c := s.client("h1") // may be kept from before there is a tunnel
	if err := ask(c, http.MethodPost, strings.NewReader("x")); !errors.Is(err, errs.Unavailable) {
		t.Errorf("a request to a host without a tunnel = %v, want Unavailable", err)
	}
	stop := s.join(t, "h1", http.HandlerFunc(echo))
	s.join(t, "h2/ü", http.HandlerFunc(echo))
	if _, ok := s.hub.Transport("h1"); !ok {
		t.Error("a host with a tunnel has none")
	}
	for range 3 {
		if got, want := get(t, c, "/a?b=c"), "GET node /a?b=c tunnel tunnel "; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	get(t, s.client("h2/ü"), "/")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB: more than the window, both ways
	resp, err := c.Post("http://node/big", "text/plain", bytes.NewReader(big))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if want := append([]byte("POST node /big tunnel tunnel "), big...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, want %d; %v", len(got), len(want), err)
	}
	resp.Body.Close()
	stop()
	s.await(t, "h1", false)
	if err := ask(c, http.MethodGet, nil); !errors.Is(err, errs.Unavailable) {
		t.Errorf("a request to a host that has left = %v, want Unavailable", err)
	}
	await(t, func() bool { return slices.Contains(s.told(), "h1 false") })
	if got, want := s.told(), []string{"h1 true", "h2/ü true", "h1 false"}; !slices.Equal(got, want) {
		t.Errorf("Changed was told %q, want %q", got, want)
	}
}

// ask is for requests of which only the error matters.
func ask(c *http.Client, method string, body io.Reader) error {
	req, err := http.NewRequest(method, "http://node/", body)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// follow writes lines until its request is cancelled, and says so.
type follow struct{ began, ended chan struct{} }

func newFollow() follow { return follow{make(chan struct{}), make(chan struct{})} }

func (f follow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer close(f.ended)
	fmt.Fprintln(w, "line")
	_ = http.NewResponseController(w).Flush()
	close(f.began)
	<-r.Context().Done()
}

// A follower that goes away ends the handler on the node.
func TestFollowerGoes(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	f := newFollow()
	s.join(t, "h1", f)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/logs", nil)
	resp, err := s.client("h1").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "line\n" {
		t.Errorf("%q, %v", line, err)
	}
	cancel()
	soon(t, f.ended, "the handler notices that nobody listens")
}

// The same of one that writes all the time and stands still, since nobody reads.
func TestFollowerOfAFloodGoes(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	ended := make(chan struct{})
	var wrote atomic.Int64
	s.join(t, "h1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for {
			n, err := w.Write(make([]byte, 10_000))
			wrote.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	resp, err := s.client("h1").Get("http://node/logs")
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return wrote.Load() > tunnel.Window-20_000 }) // and no more than a few buffers
	if n := wrote.Load(); n > tunnel.Window+(1<<20) {
		t.Errorf("%d bytes are on their way to a reader that does not read", n)
	}
	resp.Body.Close()
	soon(t, ended, "the writer notices that nobody reads")
}

// A handler that ends, or breaks off, ends the answer.
func TestHandlerEnds(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	end := make(chan struct{})
	s.join(t, "h1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "line")
		_ = http.NewResponseController(w).Flush()
		<-end
		if r.URL.Path == "/break" {
			panic(http.ErrAbortHandler)
		}
	}))
	answers := map[string]*http.Response{}
	for _, path := range []string{"/end", "/break"} {
		resp, err := s.client("h1").Get("http://node" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answers[path] = resp
	}
	close(end)
	if body, err := io.ReadAll(answers["/end"].Body); err != nil || string(body) != "line\n" {
		t.Errorf("an answer that has ended: %q, %v", body, err)
	}
	if _, err := io.ReadAll(answers["/break"].Body); err == nil {
		t.Error("an answer that was broken off looks whole")
	}
}

// An upload that is cancelled fails in the handler.
func TestUploadCancelled(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	got := make(chan error, 1)
	s.join(t, "h1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		got <- err
	}))
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPut, "http://node/", pr)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		resp, err := s.client("h1").Do(req)
		if err == nil {
			resp.Body.Close()
		}
	})
	for range 100 { // more than the window
		if _, err := pw.Write(make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-got; err == nil {
		t.Error("an upload that was cancelled looks whole")
	}
	pw.Close()
}

// front is a reverse proxy to a host, as a controller has.
func front(t *testing.T, s *site, host string) *httptest.Server {
	t.Helper()
	rt, _ := s.hub.Transport(host)
	p := &httputil.ReverseProxy{Transport: rt, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "node"}) }}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	return srv
}

func TestWebSocket(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	ended := make(chan error, 1)
	stop := s.join(t, "h1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(1 << 20)
		for {
			typ, data, err := c.Read(r.Context())
			if err == nil {
				err = c.Write(r.Context(), typ, data)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}))
	srv := front(t, s, "h1")
	dial := func() *websocket.Conn {
		tr := &http.Transport{}
		t.Cleanup(tr.CloseIdleConnections)
		c, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}}) //nolint:bodyclose // it says that nobody needs to
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(1 << 20)
		return c
	}
	c := dial()
	for n := 1; n <= 1<<19; n *= 8 {
		want := bytes.Repeat([]byte("x"), n)
		if err := c.Write(t.Context(), websocket.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(t.Context()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d of %d bytes came back, %v", len(got), n, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Error(err)
	}
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the node's end = %v, want a normal closure", err)
	}
	c = dial()
	_ = c.CloseNow() // without a word
	if err := <-ended; err == nil {
		t.Error("the node's end goes on")
	}
	c = dial()
	defer func() { _ = c.CloseNow() }()
	stop()
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the person's end goes on without the node")
	}
	if err := <-ended; err == nil {
		t.Error("the node's end goes on without a tunnel")
	}
}

// A person who leaves a proxied stream ends the handler on the node.
func TestProxiedFollowerGoes(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	f := newFollow()
	s.join(t, "h1", f)
	srv := front(t, s, "h1")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	soon(t, f.began, "the handler is asked")
	resp.Body.Close()
	soon(t, f.ended, "the handler notices that nobody listens")
}

// A connection that is lost fails what is under way at both ends, and is made again.
func TestCut(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	line := lay(t, s)
	f := newFollow()
	var once sync.Once
	s.join(t, "h1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := false
		once.Do(func() { first = true })
		if first {
			f.ServeHTTP(w, r)
		}
	}))
	resp, err := s.client("h1").Get("http://node/logs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	soon(t, f.began, "the handler is asked")
	line.cut()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("an answer that was cut off looks whole")
	}
	soon(t, f.ended, "the handler notices that the connection is lost")
	await(t, func() bool { return len(s.told()) >= 3 })
	get(t, s.client("h1"), "/")
	if got, want := s.told(), []string{"h1 true", "h1 false", "h1 true"}; !slices.Equal(got, want) {
		t.Errorf("Changed was told %q, want %q", got, want)
	}
}

// A newer tunnel of a host takes the place of the older one.
func TestTwoTunnels(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	f := newFollow()
	old := http.NewServeMux()
	old.Handle("/follow", f)
	ups := make(chan bool, 10)
	first := newClient(t, tunnel.ClientConfig{Controller: s.url, Session: known("h1"), Handler: old, Changed: func(up bool) { ups <- up }})
	stop := run(t, first)
	s.await(t, "h1", true)
	resp, err := s.client("h1").Get("http://node/follow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.join(t, "h1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "new") }))
	soon(t, f.ended, "the older tunnel ends")
	if up, down := <-ups, <-ups; !up || down {
		t.Errorf("the older client was told %v, %v", up, down)
	}
	stop() // or it would come back
	s.await(t, "h1", true)
	await(t, func() bool {
		resp, err := s.client("h1").Get("http://node/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body) == "new"
	})
}

// Of two hosts and two streams, one stands still. The others go on.
func TestStandstill(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	flood := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.URL.Path == "/flood" {
			if _, err := w.Write(make([]byte, 10_000)); err != nil {
				return
			}
		}
	})
	s.join(t, "h2", flood)
	line := lay(t, s)
	s.join(t, "h1", flood)

	resp, err := s.client("h1").Get("http://node/flood") // and is not read
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for range 20 {
		get(t, s.client("h1"), "/")
	}

	line.freeze()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var failed atomic.Int32
	for range 50 { // 50 MiB, which are more than fits into any buffer below
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPut, "http://node/", bytes.NewReader(make([]byte, 1<<20)))
			resp, err := s.client("h1").Do(req)
			if err == nil {
				resp.Body.Close()
				return
			}
			failed.Add(1)
		})
	}
	for range 20 {
		get(t, s.client("h2"), "/")
	}
	cancel()
	wg.Wait() // at once, though nothing can be written
	if !s.hub.Linked("h1") {
		t.Error("the requests ended because the tunnel did")
	}
	if failed.Load() != 50 {
		t.Errorf("%d of 50 requests to a host that does not answer failed", failed.Load())
	}
}

// A peer that is gone without a word is noticed, with and without requests
// under way. When, TestHour says.
func TestSilence(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			testleak.Check(t)
			s := newSite(t)
			s.hub.Hurry(100*time.Millisecond, 200*time.Millisecond)
			line := lay(t, s)
			f := newFollow()
			ups := make(chan bool, 100)
			c := newClient(t, tunnel.ClientConfig{Controller: s.url, Session: known("h1"), Handler: f, Changed: func(up bool) { ups <- up }})
			c.Hurry(100*time.Millisecond, 200*time.Millisecond)
			run(t, c)
			<-ups
			s.await(t, "h1", true)
			if busy {
				resp, err := s.client("h1").Get("http://node/")
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
			}
			line.freeze()
			s.await(t, "h1", false)
			if up := <-ups; up {
				t.Error("the node was told that there is a second tunnel")
			}
			if busy {
				soon(t, f.ended, "the handler ends")
			}
			line.thaw()
			s.await(t, "h1", true) // a new one
		})
	}
}

func TestManyStreams(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	var in atomic.Int32
	gate := make(chan struct{})
	s.join(t, "h1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.Add(1)
		<-gate
		echo(w, r)
	}))
	c := s.client("h1")
	var wg sync.WaitGroup
	for i := range tunnel.MaxStreams {
		wg.Go(func() {
			resp, err := c.Post("http://node/", "", strings.NewReader(strings.Repeat(fmt.Sprint(i), 1000)))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || !strings.HasSuffix(string(body), " "+strings.Repeat(fmt.Sprint(i), 1000)) {
				t.Errorf("%d: %d bytes, %v", i, len(body), err)
			}
		})
	}
	await(t, func() bool { return in.Load() == tunnel.MaxStreams })
	if err := ask(c, http.MethodGet, nil); !errors.Is(err, errs.Unavailable) {
		t.Errorf("one more request = %v, want Unavailable", err)
	}
	close(gate)
	wg.Wait()
	get(t, c, "/")
	await(t, func() bool { return s.hub.Streams("h1") == 0 })
}

// A controller that does not take the host says so, and is asked again as soon as the session is another one.
func TestRefused(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	var mu sync.Mutex // guards host, tok, changed
	host, tok, changed := "", "", make(chan struct{})
	set := func(h, t string) {
		mu.Lock()
		defer mu.Unlock()
		host, tok = h, t
		close(changed)
		changed = make(chan struct{})
	}
	refused, ups := make(chan int), make(chan bool, 10)
	run(t, newClient(t, tunnel.ClientConfig{
		Controller: s.url + "/", Handler: http.HandlerFunc(echo),
		Session: func() (string, string, <-chan struct{}) {
			mu.Lock()
			defer mu.Unlock()
			return host, tok, changed
		},
		Refused: func(status int) { refused <- status },
		Changed: func(up bool) { ups <- up },
	}))
	set("h1", "wrong")
	if got := <-refused; got != http.StatusUnauthorized {
		t.Errorf("refused with %d, want 401", got)
	}
	set("gone", token)
	if got := <-refused; got != http.StatusNotFound {
		t.Errorf("refused with %d, want 404", got)
	}
	set("h1", token)
	if up := <-ups; !up {
		t.Error("no tunnel with the right token")
	}
	s.await(t, "h1", true)
	set("h2", token) // the same node is another host now
	if down, up := <-ups, <-ups; down || !up {
		t.Error("no tunnel of the new host")
	}
	s.await(t, "h2", true)
	s.await(t, "h1", false)
	set("", "") // and none
	if up := <-ups; up {
		t.Error("a tunnel of no host")
	}
	s.await(t, "h2", false)
}

// Somebody who knows that the controller can be reached again need not wait.
func TestRetry(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	var tok atomic.Value
	tok.Store("wrong")
	refused, ups := make(chan int, 10), make(chan bool, 10)
	c := newClient(t, tunnel.ClientConfig{
		Controller: s.url, Handler: http.HandlerFunc(echo),
		Session: func() (string, string, <-chan struct{}) { return "h1", tok.Load().(string), nil },
		Refused: func(status int) { refused <- status },
		Changed: func(up bool) { ups <- up },
	})
	run(t, c)
	<-refused // the next attempt would be after half a minute
	tok.Store(token)
	c.Retry()
	select {
	case <-ups:
	case <-time.After(10 * time.Second):
		t.Error("no attempt was made")
	}
}

func TestWhatIsNoTunnel(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	upgrade := func(header http.Header) (status int, to string) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/host/h1/tunnel", nil)
		req.Header = header
		req.Header.Set("Authorization", "Bearer "+token)
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Upgrade")
	}
	for _, header := range []http.Header{
		{},
		{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}},
		{"Connection": {"close"}, "Upgrade": {hostapi.Tunnel}},
	} {
		if status, to := upgrade(header); status != http.StatusUpgradeRequired || to != hostapi.Tunnel {
			t.Errorf("%v: %d to %q, want 426", header, status, to)
		}
	}
	s.hub.Close()
	if status, _ := upgrade(http.Header{"Connection": {"keep-alive, upgrade"}, "Upgrade": {hostapi.Tunnel}}); status != http.StatusServiceUnavailable {
		t.Errorf("a hub that is closed answers %d, want 503", status)
	}
	for _, bad := range []string{"", "host:1", "ftp://host", "unix://relative", "http://"} {
		if _, err := tunnel.NewClient(tunnel.ClientConfig{Controller: bad, Session: known("h"), Handler: http.NotFoundHandler()}); !errors.Is(err, errs.Invalid) {
			t.Errorf("NewClient for %q = %v, want Invalid", bad, err)
		}
	}
	if _, err := tunnel.NewClient(tunnel.ClientConfig{Controller: "http://h"}); err == nil {
		t.Error("a client without a handler")
	}
}

func TestDoors(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	secure := httptest.NewTLSServer(s.handler())
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	local := &httptest.Server{Listener: l, Config: &http.Server{Handler: s.handler()}}
	local.Start()
	defer local.Close()
	for host, cfg := range map[string]tunnel.ClientConfig{
		"tls":  {Controller: secure.URL, TLS: &tls.Config{RootCAs: roots}},
		"unix": {Controller: "unix://" + path},
	} {
		cfg.Session, cfg.Handler = known(host), http.HandlerFunc(echo)
		stop := run(t, newClient(t, cfg))
		s.await(t, host, true)
		get(t, s.client(host), "/")
		stop()
		s.await(t, host, false)
	}
}

// Run waits for handlers; a tunnel that is lost does not.
func TestSlowHandler(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	line := lay(t, s)
	began, gate := make(chan struct{}, 1), make(chan struct{})
	var ended atomic.Bool
	stop := s.join(t, "h1", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-gate // whatever its context says
			ended.Store(true)
		}
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		resp, err := s.client("h1").Get("http://node/slow")
		if err == nil {
			resp.Body.Close()
			t.Error("a request whose tunnel was lost was answered")
		}
	})
	<-began
	line.cut()
	wg.Wait()
	await(t, func() bool { return len(s.told()) == 3 })
	get(t, s.client("h1"), "/")
	if ended.Load() {
		t.Error("the handler has ended by itself")
	}
	time.AfterFunc(50*time.Millisecond, func() { close(gate) })
	stop()
	if !ended.Load() {
		t.Error("Run returned before a handler")
	}
}

// Thousands come and go, and nothing is left of them.
func TestComingAndGoing(t *testing.T) {
	testleak.Check(t)
	s := newSite(t)
	const workers, rounds = 20, 100
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for round := range rounds {
				host := fmt.Sprint("h", w)
				ctx, cancel := context.WithCancel(t.Context())
				up := make(chan struct{}, 1)
				c := newClient(t, tunnel.ClientConfig{
					Controller: s.url, Session: known(host), Handler: http.HandlerFunc(echo),
					Changed: func(is bool) {
						if is {
							up <- struct{}{}
						}
					},
				})
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx) }()
				<-up
				if round%2 == 0 {
					for {
						resp, err := s.client(host).Get("http://node/")
						if err == nil {
							resp.Body.Close()
							break
						}
						if !errors.Is(err, errs.Unavailable) { // the former tunnel may be there still
							t.Error(err)
						}
					}
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for w := range workers {
		s.await(t, fmt.Sprint("h", w), false)
	}
}

func TestPause(t *testing.T) {
	for _, c := range []struct {
		n        int
		low, top time.Duration
	}{{1, time.Second, 2 * time.Second}, {2, 2 * time.Second, 4 * time.Second}, {4, 8 * time.Second, 16 * time.Second}, {5, 15 * time.Second, 30 * time.Second}, {1000, 15 * time.Second, 30 * time.Second}} {
		if low, top := tunnel.Pause(c.n, 0), tunnel.Pause(c.n, 1); low != c.low || top != c.top {
			t.Errorf("pause %d is %v to %v, want %v to %v", c.n, low, top, c.low, c.top)
		}
	}
}

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// faulty are backends that fail at different moments. asked counts requests
// that they have read.
type faulty struct {
	at    netip.AddrPort
	asked atomic.Int32
}

func failing(t *testing.T, how string) *faulty {
	f := &faulty{}
	if how == "refuses" {
		f.at = dead(t)
		return f
	}
	f.at = raw(t, func(c net.Conn, r *bufio.Reader) {
		if how == "closes after accept" {
			return
		}
		for n := 0; ; n++ {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			f.asked.Add(1)
			switch how {
			case "closes after the request":
				return
			case "closes in mid-head":
				fmt.Fprint(c, "HTTP/1.1 20")
				return
			case "closes in mid-body":
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
				return
			case "does not answer":
				_, _ = r.ReadByte()
				return
			case "closes the second time":
				if n > 0 {
					return
				}
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			case "503":
				fmt.Fprint(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
			}
		}
	})
	return f
}

// TestRetries asks through a connection that this package serves, and through
// net/http, a bad backend with two good ones behind it.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		how, method string
		status      int // 0: the connection ends
	}{
		{"refuses", "GET", 200},
		{"refuses", "PUT", 200},
		{"refuses", "POST", 200},
		{"closes after accept", "GET", 200},
		{"closes after accept", "DELETE", 200},
		{"closes after accept", "POST", 502},
		{"closes after the request", "GET", 200},
		{"closes after the request", "HEAD", 200},
		{"closes after the request", "PATCH", 502},
		{"closes after the request", "POST", 502},
		{"closes in mid-head", "GET", 502},
		{"closes in mid-body", "GET", 0},
		{"does not answer", "GET", 504},
		{"503", "GET", 503},
	} {
		for _, way := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(fmt.Sprint(c.how, " ", c.method, " ", way), func(t *testing.T) {
				if c.how == "closes in mid-head" && way == "HTTP/2" {
					t.Skip("net/http does not say whether a byte had come")
				}
				bad := failing(t, c.how)
				good := backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "good") })
				p := begin(t, Config{}, just(web(bad.at, good, good)), func(l *limits) { l.answer = 300 * time.Millisecond })
				client := fresh(t)
				if way == "HTTP/2" {
					client = h2cClient(t)
				}
				req, _ := http.NewRequest(c.method, p.url(), nil)
				if c.method == "PUT" || c.method == "POST" || c.method == "PATCH" {
					req, _ = http.NewRequest(c.method, p.url(), strings.NewReader("body"))
				}
				req.Close = way == "HTTP/1.1" // or the client itself tries again
				var b []byte
				resp, err := client.Do(req)
				if err == nil {
					b, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if c.status == 0 {
					if err == nil {
						t.Errorf("half an answer is taken for one: %q", b)
					}
				} else if resp == nil {
					t.Fatal(err)
				} else if resp.StatusCode != c.status || err != nil {
					t.Errorf("%d %q, %v, want %d", resp.StatusCode, b, err, c.status)
				}
				if n := bad.asked.Load(); n > 1 {
					t.Errorf("the bad one was asked %d times", n)
				}
				s := p.Stats()["web"]
				if wrong := c.status != 200; s.Requests != 1 || (s.Errors == 1) != wrong || s.Errors > 1 {
					t.Errorf("requests %d, errors %d", s.Requests, s.Errors)
				}
				again, class := uint64(0), max(c.status, 200)/100 // half an answer has a status, too
				if c.status == 200 {
					again = 1
				}
				if s.Retries != again || s.Answers[class-1] != 1 || s.Latency.Count() != 1 {
					t.Errorf("retries %d, answers %v, want %d and one of %dxx", s.Retries, s.Answers, again, class)
				}
				eventually(t, "nothing is under way", func() bool { s = p.Stats()["web"]; return s.Active == 0 })
				if b := s.Backends["b0"]; b.Errors != 1 || b.Active != 0 {
					t.Errorf("the bad one: %+v", b)
				}
			})
		}
	}
}

func TestAllFail(t *testing.T) {
	p := begin(t, Config{}, just(web(dead(t), dead(t), dead(t), dead(t))), nil)
	for _, c := range []*http.Client{fresh(t), h2cClient(t)} {
		status, b := get(t, c, p.url())
		if status != 502 || b != "app \"web\": no replica accepts connections\n" {
			t.Errorf("%d %q", status, b)
		}
	}
	s := p.Stats()["web"]
	tries := uint64(0)
	for _, b := range s.Backends {
		tries += b.Requests
	}
	if s.Errors != 2 || tries != 2*(1+maxRetries) {
		t.Errorf("errors %d, tries %d", s.Errors, tries)
	}
}

// TestIdleConnectionThatWasClosed is about backends that close connections
// just when the next request comes.
func TestIdleConnectionThatWasClosed(t *testing.T) {
	bad := failing(t, "closes the second time")
	p := begin(t, Config{}, just(web(bad.at)), nil)
	c := fresh(t)
	for i := range 6 {
		if status, b := get(t, c, p.url()); status != 200 || b != "ok" {
			t.Fatalf("request %d: %d %q", i, status, b)
		}
	}
	s := p.Stats()["web"]
	if s.Errors != 0 || s.Backends["b0"].Errors != 0 {
		t.Errorf("errors: %+v", s)
	}
	if bad.asked.Load() != 11 {
		t.Errorf("it was asked %d times", bad.asked.Load())
	}
	// What may not be sent twice is not sent on a connection that has ended.
	var mu sync.Mutex
	var conns []net.Conn
	at := raw(t, func(c net.Conn, r *bufio.Reader) {
		mu.Lock()
		conns = append(conns, c)
		mu.Unlock()
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	set(t, p, just(web(at)))
	for i := range 5 {
		resp, err := c.Post(p.url(), "text/plain", strings.NewReader("x"))
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("POST %d: %v %v", i, resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		eventually(t, "the end has arrived", func() bool {
			for e := range p.ends() {
				if idle := e.kept(); len(idle) != 1 || idle[0].quiet() {
					return false
				}
			}
			return true
		})
	}
	if len(conns) != 5 {
		t.Errorf("%d connections", len(conns))
	}
}

func TestBackendIsLeftOutAndComesBack(t *testing.T) {
	var ill atomic.Bool
	ill.Store(true)
	asked := [2]atomic.Int32{}
	one := func(i int) netip.AddrPort {
		return backend(t, func(w http.ResponseWriter, r *http.Request) {
			asked[i].Add(1)
			if i == 0 && ill.Load() {
				w.WriteHeader(http.StatusBadGateway)
			}
		})
	}
	var log logged
	p := begin(t, Config{Log: log.logger()}, just(web(one(0), one(1))), nil)
	c := fresh(t)
	for range 20 {
		get(t, c, p.url())
	}
	if a, b := asked[0].Load(), asked[1].Load(); a != maxFails || b != 20-maxFails {
		t.Errorf("the ill one was asked %d times, the other %d", a, b)
	}
	if s := p.Stats()["web"]; !s.Backends["b0"].Ejected || s.Backends["b1"].Ejected || s.Errors != maxFails || s.Backends["b0"].Errors != maxFails {
		t.Errorf("stats: %+v", s)
	}
	if !strings.Contains(log.String(), `msg="a backend has failed and is left out for a while" app=web backend=b0 last="answered 502, 503 or 504" for=5s`) {
		t.Errorf("log: %s", log.String())
	}
	ill.Store(false)
	for e := range p.ends() {
		if e.id == "b0" {
			e.until.Store(p.now()) // five seconds later
		}
	}
	asked[0].Store(0)
	for range 20 {
		get(t, c, p.url())
	}
	if a := asked[0].Load(); a != 10 || p.Stats()["web"].Backends["b0"].Ejected {
		t.Errorf("afterwards it was asked %d times", a)
	}
}

// TestRollingUpdate replaces all backends again and again under load. Not one
// request may fail.
func TestRollingUpdate(t *testing.T) {
	type server struct {
		*http.Server
		at netip.AddrPort
	}
	start := func() server {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, "ok")
		})}
		go func() { _ = s.Serve(l) }()
		return server{s, l.Addr().(*net.TCPAddr).AddrPort()}
	}
	live := []server{start(), start(), start()}
	p := begin(t, Config{}, nil, nil)
	n := 0
	set := func(draining int) {
		a := web()
		a.Streams = []Stream{{Proto: "tcp", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Port: 80}}
		for i, s := range live {
			a.Backends = append(a.Backends, Backend{ID: s.at.String(), Ports: map[uint16]netip.AddrPort{80: s.at}, Draining: i == draining})
		}
		if err := p.Update(just(a)); err != nil {
			t.Fatal(err)
		}
	}
	set(-1)
	stop := make(chan bool)
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	load := func(c *http.Client, url, method string, fresh bool) {
		for {
			select {
			case <-stop:
				return
			default:
			}
			req, _ := http.NewRequest(method, url, strings.NewReader("x"))
			req.Close = fresh
			resp, err := c.Do(req)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err == nil && resp.StatusCode != 200 {
					err = fmt.Errorf("status %d", resp.StatusCode)
				}
			}
			done.Add(1)
			if err != nil {
				failed.Add(1)
				t.Errorf("%s: %v", method, err)
			}
		}
	}
	stream := "http://" + p.Addrs().Streams["web"][0].String()
	for range 2 {
		kept, h2 := fresh(t), h2cClient(t)
		wg.Go(func() { load(kept, p.url(), "GET", false) })
		wg.Go(func() { load(kept, p.url(), "POST", false) })
		wg.Go(func() { load(kept, p.url(), "GET", true) })
		wg.Go(func() { load(h2, p.url(), "POST", false) })
		wg.Go(func() { load(fresh(t), stream, "GET", true) })
	}
	for range 30 {
		i := n % len(live)
		n++
		before := done.Load()
		set(i)
		old := live[i]
		// Under way is what had been given to it before.
		eventually(t, "nothing is under way at the one that drains", func() bool {
			return p.Stats()["web"].Backends[old.at.String()].Active == 0
		})
		live[i] = start()
		set(-1)
		old.Close() // at once: a container that is killed
		eventually(t, "some more requests", func() bool { return done.Load() > before+50 || failed.Load() > 0 })
	}
	close(stop)
	wg.Wait()
	for _, s := range live {
		s.Close()
	}
	t.Logf("%d requests", done.Load())
}

// TestReplaceAllAtOnce gives an app entirely other backends, while the old
// ones are killed: what had been sent to nobody is sent to the new ones.
func TestReplaceAllAtOnce(t *testing.T) {
	good := backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "new") })
	old, next := web(dead(t)), web(good)
	next.Backends[0].ID = "new"
	p := begin(t, Config{}, just(old), nil)
	s := webOf(p)
	if err := p.Update(just(next)); err != nil {
		t.Fatal(err)
	}
	c := &client{p: p, guest: &guest{}, conn: &sink{}, peer: peer{text: "192.0.2.1"}}
	c.in.b = []byte("POST / HTTP/1.1\r\nHost: x\r\n\r\n")
	c.in.w = len(c.in.b)
	if v := c.q.parse(c.in.b, false); v != serve {
		t.Fatal(v)
	}
	if !c.ask(t.Context(), s) || !strings.HasSuffix(string(c.conn.(*sink).b), "new") {
		t.Errorf("by the old table it is answered %q", c.conn.(*sink).b)
	}
}

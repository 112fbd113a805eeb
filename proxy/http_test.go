package proxy

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shows answers with the request as it came.
func shows(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s host=%s", r.Method, r.RequestURI, r.Host)
	for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "X_forwarded_for", "Connection", "Keep-Alive", "Te", "Proxy-Connection", "X-Mine", "X-Kept", "Upgrade", "Http2-Settings"} {
		if v := r.Header.Values(h); len(v) > 0 {
			fmt.Fprintf(w, " %s=%s", strings.ToLower(h), strings.Join(v, "|"))
		}
	}
	b, _ := io.ReadAll(r.Body)
	if len(b) > 0 {
		fmt.Fprintf(w, " body=%d", len(b))
	}
}

func body(t testing.TB, answer string) string {
	t.Helper()
	r, err := readReply(bufio.NewReader(strings.NewReader(answer)), "GET")
	if err != nil {
		t.Fatalf("%q: %v", answer, err)
	}
	return r.body
}

func TestRequestAsABackendGetsIt(t *testing.T) {
	p := begin(t, Config{}, nil, nil)
	trusting := begin(t, Config{ProxyProtocolFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, nil, nil)
	for _, x := range []*Proxy{p, trusting} {
		if err := x.Update(just(web(backend(t, shows)))); err != nil {
			t.Fatal(err)
		}
	}
	const end = "Connection: close\r\n\r\n"
	for _, c := range []struct {
		name, request, want string
		trusted             bool
	}{
		{"plain", "GET /a?b=c;d HTTP/1.1\r\nHost: A.example\r\n" + end, "GET /a?b=c;d host=A.example x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=A.example", false},
		{
			"lies", "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n" + end,
			"GET / host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x", false,
		},
		{
			"trusted", "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: y\r\nX-Real-IP: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n" + end,
			"GET / host=x x-forwarded-for=192.0.2.1, 192.0.2.2, 127.0.0.1 x-forwarded-proto=https x-forwarded-host=y forwarded=for=192.0.2.1 x-real-ip=192.0.2.1", true,
		},
		{
			"hop by hop", "GET / HTTP/1.1\r\nHost: x\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: close\r\nX-Kept: 1\r\nX-Kept: 2\r\nHTTP2-Settings: AAMA\r\n" + end,
			"GET / host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x x-kept=1|2", false,
		},
		{
			"named by Connection", "GET / HTTP/1.1\r\nHost: x\r\nConnection: X-Mine, close\r\nX-Mine: 1\r\nX-Kept: 1\r\n\r\n",
			"GET / host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x x-kept=1", false,
		},
		{
			"an upgrade to h2c is for us", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
			"GET / host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x", false,
		},
		{"body", "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n" + end + "hello", "POST /p host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x body=5", false},
		{"chunked", "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + end + "5\r\nhello\r\n0\r\n\r\n", "POST /p host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x body=5", false},
		{"expecting", "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 200-ok\r\n" + end + "hello", "", false},
		{"whole URL", "GET http://y/z HTTP/1.1\r\nHost: x\r\n" + end, "GET /z host=y x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=y", false},
		{"HTTP/1.0", "GET /z HTTP/1.0\r\nHost: x\r\n\r\n", "GET /z host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x", false},
		{"star", "OPTIONS * HTTP/1.1\r\nHost: x\r\n" + end, "", false},
		{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: x\r\n" + end, "GET / host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x", false},
		{"path as it came", "GET //a/%2e/../b%20c?q=%zz HTTP/1.1\r\nHost: x\r\n" + end, "GET //a/%2e/../b%20c?q=%zz host=x x-forwarded-for=127.0.0.1 x-forwarded-proto=http x-forwarded-host=x", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := p
			if c.trusted {
				x = trusting
			}
			got := body(t, say(t, x, c.request))
			if c.want != "" && got != c.want {
				t.Errorf("the backend got\n%s, want\n%s", got, c.want)
			}
		})
	}
	if n := p.Stats()["web"].Active; n != 0 {
		t.Errorf("%d requests are under way", n)
	}
}

func TestRefused(t *testing.T) {
	var asked atomic.Int32
	p := begin(t, Config{}, just(web(backend(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) }))), nil)
	for _, c := range []struct {
		request string
		status  int
	}{
		{"GET / HTTP/1.1\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", 400},
		{"GET / HTTP/1.1\nHost: a\n\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
		{"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"GET / a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		{"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
		{"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("y", maxHead) + "\r\n\r\n", 431},
	} {
		got := say(t, p, c.request)
		if want := fmt.Sprintf("HTTP/1.1 %d ", c.status); !strings.HasPrefix(got, want) || !strings.Contains(got, "Connection: close\r\n") {
			t.Errorf("%.80q was answered %q", c.request, got)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("%d of these came to the backend", asked.Load())
	}
}

func TestManyRequestsOnOneConnection(t *testing.T) {
	p := begin(t, Config{}, just(web(backend(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s%s", r.URL.Path, b)
	}))), nil)
	one := "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"
	two := "POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n\r\n\r\n{}"
	head := "HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n"
	last := "GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	all := one + two + head + one + last
	for _, cut := range []int{len(all), 1, 7, len(one) + 3, len(one) + len(two) - 2} {
		c := dialHTTP(t, p)
		go func() {
			for rest := all; len(rest) > 0; {
				n := min(cut, len(rest))
				if _, err := io.WriteString(c, rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		r := bufio.NewReader(c)
		for i, want := range []string{"/1", "/2\r\n\r\n{}", "", "/1", "/3"} {
			method := "GET"
			if i == 2 {
				method = "HEAD"
			}
			got, err := readReply(r, method)
			if err != nil || got.body != want {
				t.Fatalf("parts of %d, answer %d: %q, %v, want %q", cut, i, got.body, err, want)
			}
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("parts of %d: after the last: %v", cut, err)
		}
	}
	s := p.Stats()["web"]
	if s.Requests != 25 || s.Errors != 0 || s.Active != 0 || s.BytesIn != 30 || s.Backends["b0"].Requests != 25 || s.Latency.Count() != 25 {
		t.Errorf("stats: %+v", s)
	}
}

// TestAnswers gives a client what backends say in many ways.
func TestAnswers(t *testing.T) {
	var next atomic.Pointer[string]
	at := raw(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			text := *next.Load()
			fmt.Fprint(c, strings.TrimSuffix(text, "EOF"))
			if strings.HasSuffix(text, "EOF") {
				return
			}
		}
	})
	p := begin(t, Config{}, just(web(at)), nil)
	long := strings.Repeat("0123456789abcdef", 10_000)
	for _, c := range []struct{ name, method, answer, want string }{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nhi", "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"},
		{"nothing", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n"},
		{
			"trailers", "GET", "HTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: u\r\nContent-Length: 5\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\nT: u\r\n\r\n",
		},
		{"until the end", "GET", "HTTP/1.1 200 OK\r\n\r\nhiEOF", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n"},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\n\r\nhiEOF", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n"},
		{"LF alone", "GET", "HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nhi", "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"},
		{"head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"},
		{"head chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nETag: x\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"},
		{"hop by hop", "GET", "HTTP/1.1 200 OK\r\nX: y\r\nConnection: X-Mine, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\nUpgrade: h2\r\nZ: z\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\nZ: z\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{"early hints", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{"both lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n"},
		{"long", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 160000\r\n\r\n" + long, "HTTP/1.1 200 OK\r\nContent-Length: 160000\r\nConnection: close\r\n\r\n" + long},
		{"more than it said", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi there", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", "502"},
		{"no HTTP", "GET", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n", "502"},
		{"folded", "GET", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n", "502"},
		{"unasked", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "502"},
		{"half a head", "GET", "HTTP/1.1 200 OK\r\nX: EOF", "502"},
		{"too long a head", "GET", "HTTP/1.1 200 OK\r\nX: " + long + "\r\n\r\n", "502"},
		{"cut off", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhiEOF", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhi"},
		{"chunk cut off", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n5\r\nEOF", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n"},
		{"bad chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n-1\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			next.Store(&c.answer)
			got := say(t, p, c.method+" / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if c.want == "502" {
				if !strings.HasPrefix(got, "HTTP/1.1 502 ") {
					t.Errorf("answer %q", got)
				}
				return
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	if n := p.Stats()["web"].Active; n != 0 {
		t.Errorf("%d requests are under way", n)
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	p := begin(t, Config{}, just(web(backend(t, func(w http.ResponseWriter, r *http.Request) {
		if n := r.ContentLength; n > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(n))
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	}))), nil)
	c := fresh(t)
	for _, n := range []int{0, 1, 4096, maxBuffered - 1, maxBuffered, maxBuffered + 1, 3 << 20} {
		for _, chunked := range []bool{false, true} {
			sent := make([]byte, n)
			rand.Read(sent)
			var from io.Reader = bytes.NewReader(sent)
			if chunked {
				from = io.MultiReader(from)
			}
			resp, err := c.Post(p.url(), "application/octet-stream", from)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes, chunked %t: %d came back, %v", n, chunked, len(got), err)
			}
		}
	}
}

func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan bool)
	p := begin(t, Config{}, just(web(backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}))), nil)
	for _, c := range []*http.Client{fresh(t), h2cClient(t)} {
		resp, err := c.Get(p.url())
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := r.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("event %d: %q, %v", i, line, err)
			}
			_, _ = r.ReadString('\n')
			next <- true
		}
		resp.Body.Close()
	}
}

func TestClientThatLeaves(t *testing.T) {
	left := make(chan bool, 1)
	at := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
		left <- true
	})
	p := begin(t, Config{}, just(web(at)), nil)
	for _, path := range []string{"/wait", "/stream"} {
		c := dialHTTP(t, p)
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		eventually(t, "the backend is asked", func() bool { return p.Stats()["web"].Active == 1 })
		c.Close()
		<-left
		eventually(t, "it is over", func() bool { return p.Stats()["web"].Active == 0 })
	}
	s := p.Stats()["web"]
	if s.Errors != 0 || s.Backends["b0"].Errors != 0 {
		t.Errorf("errors are counted although the client has left: %+v", s)
	}
}

func TestSlowClients(t *testing.T) {
	at := backend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	p := begin(t, Config{}, just(web(at)), func(l *limits) {
		l.head, l.body, l.idle, l.linger = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	})
	for text, want := range map[string]string{
		"":                               "",
		"GET / HTTP/1.1\r\nHost":         "HTTP/1.1 408 ",
		"\x16\x03\x01":                   "HTTP/1.1 408 ",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r": "",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel":               "HTTP/1.1 408 ",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                                        "HTTP/1.1 200 ",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n":                      "HTTP/1.1 200 ",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel": "HTTP/1.1 ",
	} {
		if got := say(t, p, text); !strings.HasPrefix(got, want) {
			t.Errorf("%q and no more was answered %q", text, got)
		}
	}
}

func TestHostsAndPaths(t *testing.T) {
	named := func(name string) netip.AddrPort {
		return backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
	}
	shop, api := web(named("shop")), web(named("api"))
	shop.Name, shop.Rules = "shop", []Rule{{Host: "shop.example.org"}}
	api.Name, api.Rules = "api", []Rule{{Host: "shop.example.org", Path: "/api"}}
	p := begin(t, Config{}, just(shop, api), nil)
	for _, c := range []*http.Client{fresh(t), h2cClient(t)} {
		for path, want := range map[string]string{"/": "shop", "/apis": "shop", "/api": "api", "/api/x": "api", "/%61pi": "api"} {
			r, _ := http.NewRequest("GET", p.url()+path, nil)
			r.Host = "Shop.Example.Org:8080"
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) != want {
				t.Errorf("%s is answered by %q, want %q", path, b, want)
			}
		}
		resp, err := c.Get(p.url())
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 404 || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || !strings.Contains(string(b), `no app answers at host "127.0.0.1:`) {
			t.Errorf("an unknown host: %d %v %q", resp.StatusCode, resp.Header, b)
		}
	}
}

func TestStickyCookie(t *testing.T) {
	a := web()
	a.Balance = Sticky
	for i := range 3 {
		at := backend(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) })
		a.Backends = append(a.Backends, Backend{ID: fmt.Sprint(i), Ports: map[uint16]netip.AddrPort{80: at}})
	}
	p := begin(t, Config{}, just(a), nil)
	for _, c := range []*http.Client{fresh(t), h2cClient(t)} {
		var cookie *http.Cookie
		one := func() string {
			r, _ := http.NewRequest("GET", p.url(), nil)
			r.Header.Set("Cookie", "a=b")
			if cookie != nil {
				r.AddCookie(cookie)
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if n := resp.Cookies(); len(n) == 1 {
				cookie = n[0]
			}
			return string(b)
		}
		first := one()
		if cookie == nil || cookie.Name != "buoy-web" || !cookie.HttpOnly {
			t.Fatalf("cookie %v", cookie)
		}
		given := cookie
		for range 6 {
			if again := one(); again != first {
				t.Errorf("was at %s, then at %s", first, again)
			}
		}
		if cookie != given {
			t.Error("the cookie was set again")
		}
		for i := range a.Backends {
			a.Backends[i].Draining = a.Backends[i].ID == first
		}
		set(t, p, just(a))
		second := one()
		if second == first || one() != second {
			t.Errorf("was at %s, which drains, then at %s", first, second)
		}
		for i := range a.Backends {
			a.Backends[i].Draining = false
		}
		set(t, p, just(a))
	}
}

func TestBalances(t *testing.T) {
	hold := make(chan bool)
	a := web()
	for i := range 2 {
		at := backend(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hold" {
				w.(http.Flusher).Flush()
				<-hold
			}
			fmt.Fprint(w, i)
		})
		a.Backends = append(a.Backends, Backend{ID: fmt.Sprint(i), Ports: map[uint16]netip.AddrPort{80: at}})
	}
	p := begin(t, Config{}, just(a), nil)
	c := fresh(t)
	seen := map[string]int{}
	for range 10 {
		_, b := get(t, c, p.url())
		seen[b]++
	}
	if seen["0"] != 5 || seen["1"] != 5 {
		t.Errorf("round robin: %v", seen)
	}
	a.Balance = LeastConnections
	set(t, p, just(a))
	resp, err := c.Get(p.url() + "/hold")
	if err != nil {
		t.Fatal(err)
	}
	clear(seen)
	for range 10 {
		_, b := get(t, c, p.url())
		seen[b]++
	}
	close(hold)
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if len(seen) != 1 || seen[string(b)] != 0 {
		t.Errorf("least connections: %v while %s had one", seen, b)
	}
}

func TestTooManyConnections(t *testing.T) {
	p := begin(t, Config{}, just(web(backend(t, shows))), nil)
	p.guests.mu.Lock()
	p.guests.most = 2
	p.guests.mu.Unlock()
	a, b := dialHTTP(t, p), dialHTTP(t, p)
	eventually(t, "two are there", func() bool { return len(p.guests.list(nil)) == 2 })
	third := dialHTTP(t, p)
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third is served")
	}
	a.Close()
	b.Close()
	eventually(t, "they have left", func() bool { return len(p.guests.list(nil)) == 0 })
	if status, _ := get(t, fresh(t), p.url()); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
}

func TestExpectContinue(t *testing.T) {
	p := begin(t, Config{}, just(web(backend(t, shows))), nil)
	c := dialHTTP(t, p)
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	r := bufio.NewReader(c)
	got, err := readReply(r, "POST")
	if err != nil || got.StatusCode != http.StatusContinue {
		t.Fatalf("before the body: %v, %v", got, err)
	}
	fmt.Fprint(c, "hello")
	if got, err = readReply(r, "POST"); err == nil && got.StatusCode == http.StatusContinue {
		got, err = readReply(r, "POST") // the backend's
	}
	if err != nil || !strings.HasSuffix(got.body, " body=5") {
		t.Errorf("the backend got %s, %v", got.body, err)
	}
}

// TestSilentBackend has one that answers in time and then says nothing for
// longer than an answer may take.
func TestSilentBackend(t *testing.T) {
	at := raw(t, func(c net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
			time.Sleep(150 * time.Millisecond)
			if req.URL.Path == "/ever" {
				_, _ = r.ReadByte()
				return
			}
			fmt.Fprint(c, "i")
		}
	})
	p := begin(t, Config{}, just(web(at)), func(l *limits) { l.answer, l.silence = 50*time.Millisecond, 400*time.Millisecond })
	c := fresh(t)
	for range 2 { // the second on the same connection
		if status, b := get(t, c, p.url()); status != 200 || b != "hi" {
			t.Errorf("%d %q", status, b)
		}
	}
	resp, err := c.Get(p.url() + "/ever")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("half an answer is taken for one: %q", b)
	}
}

// TestSlowUpload has a client send a long body and stop in the midst: its
// backend is not to be blamed.
func TestSlowUpload(t *testing.T) {
	at := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		time.Sleep(200 * time.Millisecond) // longer than a client may be silent
		fmt.Fprint(w, "all here")
	})
	p := begin(t, Config{}, just(web(at, at)), func(l *limits) { l.idle, l.answer = 50*time.Millisecond, 10*time.Second })
	for range 2 * maxFails {
		got := say(t, p, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nConnection: close\r\n\r\nsome")
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("it is answered %q", got)
		}
	}
	eventually(t, "nothing is under way", func() bool { return p.Stats()["web"].Active == 0 })
	for id, b := range p.Stats()["web"].Backends {
		if b.Errors != 0 || b.Ejected {
			t.Errorf("backend %s is blamed: %+v", id, b)
		}
	}
	resp, err := fresh(t).Post(p.url(), "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "all here" {
		t.Errorf("after a whole one: %q, %v", b, err)
	}
}

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestWebSocket(t *testing.T) {
	at := backend(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(1 << 20)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	})
	cert := newCert(t, t.TempDir(), "a", "a.example")
	p := begin(t, Config{HTTPS: []string{"127.0.0.1:0"}, CertFiles: []CertFile{cert.files}}, just(web(at)), nil)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cert.pool, ServerName: "a.example"}}
	t.Cleanup(tr.CloseIdleConnections)
	for i, url := range []string{"ws://" + p.Addrs().HTTP[0].String(), "wss://" + p.Addrs().HTTPS[0].String()} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}, Subprotocols: []string{"echo"}}) //nolint:bodyclose // Dial says that nobody has to
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(1 << 20)
		if resp.StatusCode != 101 || c.Subprotocol() != "echo" {
			t.Errorf("%d, %q", resp.StatusCode, c.Subprotocol())
		}
		for _, n := range []int{0, 5, 70_000, 500_000} {
			text := strings.Repeat("x", n)
			if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if _, b, err := c.Read(ctx); err != nil || string(b) != text {
				t.Fatalf("%d bytes: %d, %v", n, len(b), err)
			}
		}
		if n := p.Stats()["web"].Active; n != 1 {
			t.Errorf("%d are under way", n)
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
		eventually(t, "it is over", func() bool { return p.Stats()["web"].Active == 0 })
		s := p.Stats()["web"]
		if s.Requests != uint64(i)+1 || s.Errors != 0 || s.BytesIn < 570_005 || s.BytesOut < 570_005 {
			t.Errorf("stats %+v", s)
		}
	}
}

// TestUpgradeWithHalfClose speaks a protocol in which one side ends first, and
// in which both send before they have been asked.
func TestUpgradeWithHalfClose(t *testing.T) {
	at := raw(t, func(c net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.Header.Get("Upgrade") != "talk" {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
				continue
			}
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: talk\r\nX: y\r\n\r\nhello ")
			b, _ := io.ReadAll(r)
			fmt.Fprintf(c, "%s and bye", b)
			return
		}
	})
	p := begin(t, Config{}, just(web(at)), nil)
	for _, way := range []string{"", "Trailer: T\r\n"} { // the latter goes through net/http
		c := dialHTTP(t, p)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n"+way+"\r\n")
		r := bufio.NewReader(c)
		if got, err := readReply(r, "GET"); err != nil || got.body != "no" {
			t.Fatalf("%v %v", got, err)
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n")
		want := "hello late and bye"
		if way == "" { // net/http's ReverseProxy loses what comes before the answer, as nobody should send
			fmt.Fprint(c, "early,")
			want = "hello early,late and bye"
		}
		resp, err := readReply(r, "GET")
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "talk" || resp.Header.Get("X") != "y" {
			t.Fatalf("%v %v", resp, err)
		}
		fmt.Fprint(c, "late")
		_ = c.CloseWrite()
		if b, err := io.ReadAll(r); err != nil || string(b) != want {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// tcp is an app with one stream.
func tcp(s Stream, at ...netip.AddrPort) App {
	a := web(at...)
	a.Rules = nil
	s.Port = 80
	if s.Proto == "" {
		s.Proto = "tcp"
	}
	if !s.Listen.IsValid() {
		s.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	}
	a.Streams = []Stream{s}
	return a
}

func stream(p *Proxy) netip.AddrPort { return p.Addrs().Streams["web"][0] }

func begun(t *testing.T, cfg Config, a App) *Proxy {
	t.Helper()
	p := begin(t, cfg, just(a), nil)
	eventually(t, "the stream is open", func() bool { s := p.Addrs().Streams["web"]; return len(s) > 0 && s[0].IsValid() })
	return p
}

func TestTCP(t *testing.T) {
	at := raw(t, func(c net.Conn, r *bufio.Reader) {
		fmt.Fprint(c, "220 ready\n") // it speaks first
		b, _ := io.ReadAll(r)
		fmt.Fprintf(c, "%d bytes", len(b)) // after the client has ended
	})
	p := begun(t, Config{}, tcp(Stream{}, dead(t), at))
	for range 4 { // some begin with the dead one
		c := dial(t, stream(p))
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); err != nil || line != "220 ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if n := p.Stats()["web"].Active; n != 1 {
			t.Errorf("%d are under way", n)
		}
		_, _ = io.CopyN(c, zeros{}, 1<<20)
		_ = c.CloseWrite()
		if b, err := io.ReadAll(r); err != nil || string(b) != "1048576 bytes" {
			t.Errorf("%q, %v", b, err)
		}
		eventually(t, "it is over", func() bool { return p.Stats()["web"].Active == 0 })
	}
	s := p.Stats()["web"]
	if s.Requests != 4 || s.Errors != 0 || s.BytesIn != 4<<20 || s.BytesOut != 4*23 || s.Latency.Count() != 4 {
		t.Errorf("stats %+v", s)
	}
	set(t, p, just(tcp(Stream{}, dead(t))))
	c := dial(t, stream(p))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection to nobody")
	}
	eventually(t, "it is counted", func() bool { return p.Stats()["web"].Errors == 1 })
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestTCPThatIsBrokenOff(t *testing.T) {
	ended := make(chan error, 1)
	at := raw(t, func(c net.Conn, r *bufio.Reader) {
		fmt.Fprint(c, "x")
		_, err := r.ReadByte()
		ended <- err
	})
	p := begun(t, Config{}, tcp(Stream{}, at))
	c := dial(t, stream(p))
	_, _ = io.ReadFull(c, make([]byte, 1))
	_ = c.SetLinger(0)
	c.Close() // by a reset
	if err := <-ended; err == nil {
		t.Error("the backend has read something")
	}
	eventually(t, "it is over", func() bool { return p.Stats()["web"].Active == 0 })
}

func TestDrainingKeepsConnections(t *testing.T) {
	a := tcp(Stream{}, echoing(t, "a"), echoing(t, "b"))
	p := begun(t, Config{}, a)
	who := func(c net.Conn) string { b := make([]byte, 1); _, _ = io.ReadFull(c, b); return string(b) }
	one := dial(t, stream(p))
	first := who(one)
	two := dial(t, stream(p))
	if x := first + who(two); x != "ab" {
		t.Fatalf("connected to %s", x)
	}
	a.Backends[0].Draining = true
	set(t, p, just(a))
	for range 4 {
		if x := who(dial(t, stream(p))); x != "b" {
			t.Errorf("connected to %s", x)
		}
	}
	echo(t, one, "still here")
	a.Backends = a.Backends[1:]
	set(t, p, just(a))
	echo(t, one, "and still")
	if s := p.Stats()["web"]; len(s.Backends) != 1 || s.Active != 6 && s.Active < 2 {
		t.Errorf("stats %+v", s)
	}
	unset(t, p, "web")
	echo(t, one, "even now")
	echo(t, two, "even now")
}

func TestClientAddressIsKept(t *testing.T) {
	at := raw(t, func(c net.Conn, r *bufio.Reader) {
		told, rest, err := readProxy(c)
		fmt.Fprintf(c, "%v %v %v\n", told.from, told.at, err)
		_, _ = c.Write(rest)
		_, _ = io.Copy(c, r)
	})
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	p := begun(t, Config{ProxyProtocolFrom: local}, tcp(Stream{SendProxy: true}, at))
	trusting := begun(t, Config{}, tcp(Stream{SendProxy: true}, at))
	line := func(c net.Conn) string {
		s, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(s)
	}
	for _, c := range []struct{ name, sent, want string }{
		{"version 1", "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\nhello", "192.0.2.1:1000 192.0.2.2:80 <nil>"},
		{"version 2", string(proxy2(netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8::2]:80"))), "[2001:db8::1]:1000 [2001:db8::2]:80 <nil>"},
	} {
		conn := dial(t, stream(p))
		for i := range c.sent { // byte by byte
			fmt.Fprint(conn, c.sent[i:i+1])
		}
		if got := line(conn); got != c.want {
			t.Errorf("%s: the backend is told %s", c.name, got)
		}
	}
	for _, sent := range []string{"no PROXY header", ""} {
		conn := dial(t, stream(p))
		fmt.Fprint(conn, sent)
		if got, want := line(conn), fmt.Sprintf("%s %s <nil>", conn.LocalAddr(), conn.RemoteAddr()); got != want {
			t.Errorf("after %q the backend is told %s, want %s", sent, got, want)
		}
	}
	conn := dial(t, stream(p))
	fmt.Fprint(conn, "PROXY TCP4 nonsense\r\n")
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a malformed header is passed on")
	}
	conn = dial(t, stream(trusting))
	fmt.Fprint(conn, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n")
	if got, want := line(conn), fmt.Sprintf("%s %s <nil>", conn.LocalAddr(), conn.RemoteAddr()); got != want {
		t.Errorf("by somebody who is not trusted the backend is told %s, want %s", got, want)
	}
}

func TestProxyHeaderBeforeHTTP(t *testing.T) {
	cert := newCert(t, t.TempDir(), "a", "a.example")
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	p := begin(t, Config{ProxyProtocolFrom: local, HTTPS: []string{"127.0.0.1:0"}, CertFiles: []CertFile{cert.files}}, just(web(backend(t, shows))), nil)
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n"
	const want = "GET / host=x x-forwarded-for=192.0.2.1 x-forwarded-proto=%s x-forwarded-host=x"
	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6\r\n%s\r\n"
	for _, extra := range []string{"", "Transfer-Encoding: chunked\r\n"} {
		text := fmt.Sprintf(request, extra)
		if extra != "" {
			text += "0\r\n\r\n"
		}
		if got := body(t, say(t, p, header+text)); got != fmt.Sprintf(want, "http") {
			t.Errorf("the backend got %s", got)
		}
		c := dial(t, p.Addrs().HTTPS[0])
		fmt.Fprint(c, header)
		s := tls.Client(c, &tls.Config{ServerName: "a.example", RootCAs: cert.pool})
		fmt.Fprint(s, text)
		b, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, string(b)); got != fmt.Sprintf(want, "https") {
			t.Errorf("by TLS the backend got %s", got)
		}
	}
	if got := say(t, p, "PROXY nonsense\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"); got != "" {
		t.Errorf("a malformed header is answered %q", got)
	}
}

// udpServer answers each datagram with f of it.
func udpServer(t *testing.T, f func([]byte) []byte) (netip.AddrPort, *atomic.Int32) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	clients := map[netip.AddrPort]bool{}
	var n atomic.Int32
	done := make(chan bool)
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			m, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			clients[from] = true
			n.Store(int32(len(clients)))
			_, _ = c.WriteToUDPAddrPort(f(b[:m]), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), &n
}

func udpClient(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // takes nothing from other addresses
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func TestUDP(t *testing.T) {
	at, sockets := udpServer(t, func(b []byte) []byte { return b })
	any6 := "[::]:0"
	if _, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		any6 = "0.0.0.0:0"
	}
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", any6} {
		p := begun(t, Config{}, tcp(Stream{Proto: "udp", Listen: netip.MustParseAddrPort(listen)}, at))
		port := stream(p).Port()
		before := sockets.Load()
		var conns []*net.UDPConn
		to := []string{"127.0.0.1"}
		if listen != "127.0.0.1:0" {
			to = append(to, "127.0.0.2") // answers must come from there
		}
		if listen == "[::]:0" {
			to = append(to, "::1")
		}
		for _, a := range to {
			conns = append(conns, udpClient(t, netip.AddrPortFrom(netip.MustParseAddr(a), port)))
		}
		for range 3 {
			for _, c := range conns {
				for _, n := range []int{1, 1400, 60_000} {
					echo(t, c, strings.Repeat("x", n))
				}
			}
		}
		if n := int(sockets.Load() - before); n != len(conns) {
			t.Errorf("%s: %d clients have %d sessions", listen, len(conns), n)
		}
		bytes := uint64(len(conns)) * 3 * 61_401
		eventually(t, "all is counted", func() bool { return p.Stats()["web"].BytesOut == bytes })
		if s := p.Stats()["web"]; s.Requests != uint64(len(conns)) || s.Active != int64(len(conns)) || s.Errors != 0 || s.BytesIn != bytes {
			t.Errorf("%s: stats %+v", listen, s)
		}
		unset(t, p, "web")
		eventually(t, "the sessions are over", func() bool { return len(slices.Collect(p.ends())) == 0 })
	}
}

func TestUDPBackends(t *testing.T) {
	a, _ := udpServer(t, func([]byte) []byte { return []byte("a") })
	b, _ := udpServer(t, func([]byte) []byte { return []byte("b") })
	app := tcp(Stream{Proto: "udp"}, a, b)
	p := begun(t, Config{}, app)
	ask := func(c *net.UDPConn) string {
		buf := make([]byte, 10)
		for {
			fmt.Fprint(c, "?")
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, err := c.Read(buf)
			if !errors.Is(err, syscall.ECONNREFUSED) && !isTimeout(err) {
				return string(buf[:n])
			}
		}
	}
	one, two := udpClient(t, stream(p)), udpClient(t, stream(p))
	if x := ask(one) + ask(two) + ask(one); x != "aba" {
		t.Errorf("answers %s", x)
	}
	app.Backends[0].Draining = true
	set(t, p, just(app))
	if x := ask(one) + ask(udpClient(t, stream(p))); x != "ab" {
		t.Errorf("while a drains: %s", x)
	}
	app.Backends = app.Backends[1:]
	set(t, p, just(app))
	if x := ask(one); x != "b" {
		t.Errorf("when a is gone: %s", x)
	}
	app = tcp(Stream{Proto: "udp"}, dead(t), b)
	set(t, p, just(app))
	for range 6 { // half of them meet the dead one first
		if x := ask(udpClient(t, stream(p))); x != "b" {
			t.Errorf("beside one that is dead: %s", x)
		}
	}
	s := p.Stats()["web"]
	if s.Backends["b0"].Errors == 0 {
		t.Errorf("the dead one has no errors: %+v", s.Backends)
	}
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a client does not serve by itself goes through net/http: HTTP/2, apps
// that speak it, long and chunked bodies, HTTP/1.0, Expect, trailers.

// lobby is the listener through which net/http gets its connections.
type lobby struct {
	c    chan net.Conn
	gone chan struct{}
	once sync.Once
}

func (l *lobby) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}

func (l *lobby) Close() error {
	l.once.Do(func() { close(l.gone) })
	return nil
}

func (l *lobby) Addr() net.Addr { return &net.TCPAddr{} }

// handed is a connection that net/http has now.
type handed struct {
	net.Conn
	pre   []byte // what was read of it
	peer  peer
	leave func()
}

func (h *handed) Read(b []byte) (int, error) {
	if len(h.pre) == 0 {
		return h.Conn.Read(b)
	}
	n := copy(b, h.pre)
	h.pre = h.pre[n:]
	return n, nil
}

func (h *handed) Close() error {
	h.leave()
	return h.Conn.Close()
}

func (h *handed) CloseWrite() error {
	if w, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (h *handed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(h.peer.from) }

// hand gives a connection to net/http, beginning with what c has in its buffer.
func (p *Proxy) hand(c *client) {
	c.state.Store(elsewhere)
	_ = c.conn.SetDeadline(time.Time{})
	h := &handed{Conn: c.conn, pre: c.in.bytes(), peer: c.peer, leave: func() { p.guests.leave(c.guest) }}
	select {
	case p.lobby.c <- h:
	case <-p.lobby.gone:
		h.Close()
	}
}

type (
	peerKey     struct{}
	exchangeKey struct{}
)

// exchange is a request on its way through net/http.
type exchange struct {
	p     *Proxy
	s     *service
	peer  peer
	began int64
	tag   string // of the client's cookie
	rc    *http.ResponseController
	slow  bool // HTTP/1, where nobody else watches over slow clients
	in    atomic.Int64
	short atomic.Bool // the client did not send all of its body
	out   int64
	end   *end // who has answered
	why   failure
}

// server is net/http for the connections of the lobby.
func (p *Proxy) server(ctx context.Context) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // TLS has been taken off by then
	reverse := &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: carrier{p}, ModifyResponse: modify, ErrorHandler: excuse, BufferPool: &p.buffers,
		ErrorLog: slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
	}
	return &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.gateway(reverse, w, r) }),
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: p.limits.idle / 2, WriteByteTimeout: p.limits.idle},
		ReadHeaderTimeout: p.limits.head,
		IdleTimeout:       p.limits.idle,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*handed).peer)
		},
	}
}

// transports are the two ways to a backend.
func (p *Proxy) transports() (h1, h2c *http.Transport) {
	h1 = &http.Transport{
		DialContext:            (&net.Dialer{Timeout: p.limits.connect}).DialContext,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        idleLink,
		ResponseHeaderTimeout:  p.limits.answer,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHead,
	}
	h2c = h1.Clone()
	h2c.ResponseHeaderTimeout = 0 // a stream's headers may come with its first message, any time
	h2c.Protocols = new(http.Protocols)
	h2c.Protocols.SetUnencryptedHTTP2(true)
	h2c.HTTP2 = &http.HTTP2Config{SendPingTimeout: p.limits.idle / 2}
	return h1, h2c
}

// gateway answers a request that net/http has read.
func (p *Proxy) gateway(reverse http.Handler, w http.ResponseWriter, r *http.Request) {
	s := p.table.Load().find([]byte(r.Host), []byte(r.URL.EscapedPath()))
	if s == nil {
		http.Error(w, nobodyAt([]byte(r.Host)), http.StatusNotFound)
		return
	}
	who, _ := r.Context().Value(peerKey{}).(peer)
	x := &exchange{p: p, s: s, peer: who, began: p.now(), rc: http.NewResponseController(w), slow: r.ProtoMajor == 1}
	if s.balance == Sticky {
		if c, err := r.Cookie(s.cookie); err == nil {
			x.tag = c.Value
		}
	}
	s.begin()
	s.budget.earn()
	defer x.done()
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &incoming{r.Body, x}
		_ = x.rc.EnableFullDuplex() // a backend may answer while it reads; HTTP/2 needs no leave for that
	}
	reverse.ServeHTTP(w, r)
}

func (x *exchange) done() {
	x.s.end()
	if x.slow {
		_ = x.rc.SetWriteDeadline(time.Time{})
	}
	if x.end != nil {
		x.end.end()
		x.end.moved(x.in.Load(), x.out)
	}
}

// incoming is the body of a request.
type incoming struct {
	io.ReadCloser
	x *exchange
}

func (b *incoming) Read(to []byte) (int, error) {
	if b.x.slow {
		_ = b.x.rc.SetReadDeadline(time.Now().Add(b.x.p.limits.idle))
	}
	n, err := b.ReadCloser.Read(to)
	b.x.in.Add(int64(n))
	b.x.s.moved(int64(n), 0)
	switch {
	case err == nil:
	case !isEnd(err):
		b.x.short.Store(true)
	case b.x.slow:
		_ = b.x.rc.SetReadDeadline(time.Time{}) // net/http reads on, to learn whether the client leaves
	}
	return n, err
}

// outgoing is the body of an answer.
type outgoing struct {
	io.ReadCloser
	x    *exchange
	left func() error // what the context of the request says of the client
}

func (b *outgoing) Read(to []byte) (int, error) {
	n, err := b.ReadCloser.Read(to)
	b.x.out += int64(n)
	b.x.s.moved(0, int64(n))
	if b.x.slow {
		_ = b.x.rc.SetWriteDeadline(time.Now().Add(b.x.p.limits.idle))
	}
	if err != nil && !isEnd(err) && b.left() == nil {
		b.x.s.errors.Add(1)
		b.x.end.errors.Add(1)
	}
	return n, err
}

// rewrite makes the request that a backend gets.
func rewrite(r *httputil.ProxyRequest) {
	x := r.In.Context().Value(exchangeKey{}).(*exchange)
	out := r.Out
	out.URL.Scheme, out.URL.Host = "http", x.s.name // carrier puts an address there
	out.URL.RawQuery = r.In.URL.RawQuery            // as it came
	for name := range out.Header {
		if known([]byte(name)) == isForwarded && (!x.peer.trusted || strings.Contains(name, "_")) {
			out.Header.Del(name)
		}
	}
	from, proto, host := x.peer.text, x.peer.scheme(), r.In.Host
	if x.peer.trusted {
		if earlier := r.In.Header.Values("X-Forwarded-For"); len(earlier) > 0 {
			from = strings.Join(earlier, ", ") + ", " + from
		}
		if v := r.In.Header.Get("X-Forwarded-Proto"); v != "" {
			proto = v
		}
		if v := r.In.Header.Get("X-Forwarded-Host"); v != "" {
			host = v
		}
		for _, v := range r.In.Header.Values("Forwarded") {
			out.Header.Add("Forwarded", v)
		}
	}
	out.Header.Set("X-Forwarded-For", from)
	out.Header.Set("X-Forwarded-Proto", proto)
	out.Header.Set("X-Forwarded-Host", host)
	out.Header.Del("Http2-Settings")
	if is([]byte(out.Header.Get("Upgrade")), "h2c") { // that one is for us, and declined
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
}

// modify sees the answer before the client does.
func modify(r *http.Response) error {
	x := r.Request.Context().Value(exchangeKey{}).(*exchange)
	took := time.Duration(x.p.now() - x.began)
	x.s.answered(r.StatusCode, took)
	x.p.judge(x.end, r.StatusCode, took)
	if x.s.balance == Sticky && x.end.tag != x.tag {
		c := http.Cookie{Name: x.s.cookie, Value: x.end.tag, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.peer.secure}
		r.Header.Add("Set-Cookie", c.String())
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		r.Body = &outgoing{r.Body, x, r.Request.Context().Err}
	}
	return nil
}

// excuse answers when nobody else has.
func excuse(w http.ResponseWriter, r *http.Request, err error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	status, sentence := x.why.say(x.s.name)
	if x.why == fine { // the answer came, and was not to be passed on
		status, sentence = http.StatusBadGateway, fmt.Sprintf("app %q: %v", x.s.name, err)
	}
	if x.why != gone {
		x.s.answered(status, time.Duration(x.p.now()-x.began))
	}
	http.Error(w, sentence, status)
}

// carrier takes a request to one backend after the other until one answers.
type carrier struct{ p *Proxy }

func (t carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	s := x.s
	way := t.p.h1
	if s.h2c {
		way = t.p.h2c
	}
	var tried [maxRetries + 1]*end
	err := errNobody
	x.why = nobody
	for n := range tried {
		e := s.enter(choice{tag: []byte(x.tag)}, t.p.now(), tried[:n])
		if e == nil {
			break
		}
		tried[n] = e
		once := r.WithContext(r.Context())
		once.URL = &url.URL{}
		*once.URL = *r.URL
		once.URL.Host = e.text
		if r.Body != nil {
			once.Body = unclosed{r.Body} // for the next try
		}
		var resp *http.Response
		if resp, err = way.RoundTrip(once); err == nil {
			x.end, x.why = e, fine
			return resp, nil
		}
		e.end()
		if x.why = failureOf(r.Context(), err); x.short.Load() {
			x.why = gone
		}
		if x.why != gone {
			t.p.blame(e, x.why)
		}
		if !x.why.again(idempotent([]byte(r.Method))) || x.in.Load() > 0 || n == maxRetries || !s.budget.take() {
			break
		}
		s = s.newest()
	}
	return nil, err
}

// unclosed is a body that a try does not close. Who reads it when the request
// is over is told so by ReverseProxy.
type unclosed struct{ io.Reader }

func (unclosed) Close() error { return nil }

var errNobody = errors.New("there is no backend")

// failureOf says what an error of net/http's means.
func failureOf(ctx context.Context, err error) failure {
	if ctx.Err() != nil {
		return gone
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return unsent
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		return late
	}
	return unheard
}

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// failure is why a try has failed.
type failure int

const (
	fine    failure = iota
	nobody          // there is no backend
	unsent          // nothing was sent
	unheard         // the backend ended the connection before it answered
	late            // it did not answer in time
	garbled         // what it answered is not HTTP/1
	refused         // it answered that it can do no more
	gone            // the client has ended the connection
)

func (f failure) String() string {
	switch f {
	case fine:
		return "none"
	case nobody:
		return "no backend"
	case unsent:
		return "does not accept connections"
	case unheard:
		return "ended the connection without an answer"
	case late:
		return "did not answer in time"
	case garbled:
		return "did not speak HTTP"
	case refused:
		return "answered 502, 503 or 504"
	case gone:
		return "client gone"
	}
	return "unknown"
}

// again says whether another backend may be asked.
func (f failure) again(idempotent bool) bool { return f == unsent || f == unheard && idempotent }

// say is what the client is told.
func (f failure) say(app string) (int, string) {
	switch f {
	case nobody:
		return http.StatusServiceUnavailable, fmt.Sprintf("app %q has no healthy replica", app)
	case unsent:
		return http.StatusBadGateway, fmt.Sprintf("app %q: no replica accepts connections", app)
	case late:
		return http.StatusGatewayTimeout, fmt.Sprintf("app %q: its replica did not answer in time", app)
	case garbled:
		return http.StatusBadGateway, fmt.Sprintf("app %q: the answer of its replica is not HTTP/1", app)
	case gone:
		return http.StatusBadRequest, "the request was broken off"
	case fine, unheard, refused:
	}
	return http.StatusBadGateway, fmt.Sprintf("app %q: its replica ended the connection without an answer", app)
}

func nobodyAt(host []byte) string {
	return fmt.Sprintf("no app answers at host %q with this path", host)
}

// ask has an app answer the request, and says whether the connection is still
// of use.
func (c *client) ask(ctx context.Context, s *service) bool {
	s.begin()
	defer s.end()
	s.budget.earn()
	s.moved(c.q.length, 0)
	began := c.p.now()
	tag := s.tagIn(c.in.bytes(), c.q.cookies)
	c.compose()
	l, head, why := c.reach(ctx, s, choice{tag: tag})
	if why != fine {
		if why == gone {
			return false
		}
		status, sentence := why.say(s.name)
		s.answered(status, time.Duration(c.p.now()-began))
		return c.say(status, sentence)
	}
	defer l.end.end()
	l.moved(c.q.length, 0)
	took := time.Duration(c.p.now() - began)
	s.answered(c.a.status, took)
	c.p.judge(l.end, c.a.status, took)
	if c.a.status == http.StatusSwitchingProtocols {
		c.tunnel(s, l, head)
		return false
	}
	return c.relay(s, l, head, s.balance == Sticky && string(tag) != l.tag)
}

// reach asks one backend after the other until one answers. The head of its
// answer is in c.a, as spans of head.
func (c *client) reach(ctx context.Context, s *service, by choice) (l *link, head []byte, why failure) {
	again := idempotent(c.q.method.of(c.in.bytes()))
	var tried [maxRetries + 1]*end
	why = nobody
	for n := range tried {
		e := s.enter(by, c.p.now(), tried[:n])
		if e == nil {
			return nil, nil, why
		}
		tried[n] = e
		if l, head, why = c.try(ctx, e, again); why == fine {
			return l, head, fine
		}
		e.end()
		if why != gone {
			c.p.blame(e, why)
		}
		if !why.again(again) || n == maxRetries || !s.budget.take() {
			break
		}
		s = s.newest() // the try may have failed since the routes have changed
	}
	return nil, nil, why
}

// try asks one backend. A connection that was used before may have been
// closed at the other side meanwhile, which is nobody's failure: then a new
// one is made, if the request may be sent twice.
func (c *client) try(ctx context.Context, e *end, twice bool) (*link, []byte, failure) {
	for l := e.take(c.p.now(), !twice); ; l = nil {
		if l == nil {
			var err error
			if l, err = e.dial(ctx, c.p.limits.connect); err != nil {
				return nil, nil, unsent
			}
		}
		head, why := c.over(ctx, l)
		if why == fine {
			return l, head, fine
		}
		l.drop(c.p)
		if !l.used || why != unheard || !twice {
			return nil, nil, why
		}
	}
}

// over sends the request and reads the head of the answer.
func (c *client) over(ctx context.Context, l *link) ([]byte, failure) {
	l.in.b = c.p.buffers.get()
	l.until.atLeast(l.conn, c.p.now(), c.p.limits.answer)
	if _, err := l.conn.Write(c.out); err != nil {
		return nil, unheard
	}
	c.asks(l)
	if ctx.Err() != nil { // after asks: see guests.cut
		c.heard(l)
		return nil, gone
	}
	head, err := c.listen(l)
	if err == nil {
		return head, fine
	}
	if !c.heard(l) {
		return nil, gone
	}
	switch {
	case errors.Is(err, errClient):
		return nil, gone
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, late
	case errors.Is(err, errHead) || l.in.size() > 0:
		return nil, garbled
	}
	return nil, unheard
}

var errClient = errors.New("the client is gone")

// listen reads heads until that of the answer itself.
func (c *client) listen(l *link) ([]byte, error) {
	for range 8 {
		n := headEnd(l.in.bytes())
		for n == 0 {
			if l.in.size() >= maxHead {
				return nil, errHead
			}
			if err := l.in.fill(l.conn, maxHead); err != nil {
				return nil, err
			}
			n = headEnd(l.in.bytes())
		}
		head := proper(l.in.bytes()[:n])
		if err := c.a.parse(head); err != nil {
			return nil, err
		}
		switch {
		case c.a.status == http.StatusSwitchingProtocols && c.q.upgrade.empty():
			return nil, errHead
		case c.a.status >= 200 || c.a.status == http.StatusSwitchingProtocols:
			l.in.r += n // head stays where it is until the buffer is filled again
			return head, nil
		case c.a.status != http.StatusContinue: // nobody has asked for that
			b := append(append([]byte("HTTP/1.1 "), c.a.line.of(head)...), "\r\n"...)
			for _, s := range c.a.keep {
				b = append(b, s.of(head)...)
			}
			if c.write(append(b, "\r\n"...)) != nil {
				return nil, errClient
			}
		}
		l.in.use(n)
	}
	return nil, errHead
}

// compose writes the request as a backend gets it to c.out.
func (c *client) compose() {
	b := c.in.bytes()
	q := &c.q
	out := append(append(append(c.out[:0], q.method.of(b)...), ' '), q.target.of(b)...)
	out = append(append(append(out, " HTTP/1.1\r\nHost: "...), q.host.of(b)...), "\r\n"...)
	for _, s := range q.keep {
		out = append(out, s.of(b)...)
	}
	if !q.upgrade.empty() {
		out = append(append(append(out, "Connection: Upgrade\r\nUpgrade: "...), q.upgrade.of(b)...), "\r\n"...)
	}
	out = append(out, "X-Forwarded-For: "...)
	for _, s := range q.forwardedFor {
		if !s.empty() {
			out = append(append(out, s.of(b)...), ", "...)
		}
	}
	out = append(append(out, c.peer.text...), "\r\n"...)
	if !q.saysProto {
		out = append(append(append(out, "X-Forwarded-Proto: "...), c.peer.scheme()...), "\r\n"...)
	}
	if !q.saysHost {
		out = append(append(append(out, "X-Forwarded-Host: "...), q.host.of(b)...), "\r\n"...)
	}
	out = append(out, "\r\n"...)
	c.out = append(out, b[q.size:q.whole()]...)
}

func (p peer) scheme() string {
	if p.secure {
		return "https"
	}
	return "http"
}

// drop closes a link that is of no more use.
func (l *link) drop(p *Proxy) {
	l.conn.Close()
	p.buffers.put(l.in.b)
	l.in = buffer{}
}

// done gives a link back, or closes it.
func (l *link) done(p *Proxy, lasts bool) {
	if !lasts || l.in.size() > 0 {
		l.drop(p)
		return
	}
	p.buffers.put(l.in.b)
	l.in = buffer{}
	l.keep(l, p.now())
}

// isEnd says whether an error is the other side's orderly end.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }

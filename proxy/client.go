package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

const (
	// maxHead is for a request line with its headers, or an answer's.
	maxHead = 32 << 10
	// maxBuffered is the longest body that is read before a backend is asked.
	// A request with such a one can be tried at another backend.
	maxBuffered = 64 << 10
)

// client is a connection on which HTTP/1.1 is spoken. One goroutine reads a
// request, asks a backend and passes on the answer; nothing else runs, and
// nothing is allocated, for a request that goes well.
type client struct {
	p *Proxy
	*guest
	conn  net.Conn // with TLS or without
	peer  peer
	in    buffer
	out   []byte
	q     request
	a     answer
	until deadline
}

// peer is who a client is, by the connection or by a PROXY header.
type peer struct {
	from    netip.AddrPort
	at      netip.AddrPort // what it has connected to
	text    string         // from, without the port
	secure  bool           // came with TLS
	trusted bool           // is believed what it says of earlier proxies
}

// serve answers requests until the connection ends, or is left to net/http.
func (c *client) serve(ctx context.Context) {
	for first := true; ; first = false {
		v, err := c.next(first)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && c.in.size() > 0 {
				c.say(http.StatusRequestTimeout, "the request did not arrive in time")
			}
			c.close(false)
			return
		}
		var s *service
		if v == serve {
			b := c.in.bytes()
			s = c.p.table.Load().find(c.q.host.of(b), c.q.path.of(b))
			if s != nil && s.h2c {
				v = leave
			}
		}
		switch v {
		case leave:
			c.p.hand(c)
			return
		case refuse:
			c.say(c.q.status, c.q.because)
			c.close(true)
			return
		case serve:
		}
		if !c.answer(ctx, s) || !c.state.CompareAndSwap(working, resting) {
			c.close(false)
			return
		}
	}
}

// answer has the request answered, and says whether another may follow.
func (c *client) answer(ctx context.Context, s *service) bool {
	goOn := false
	if s == nil {
		goOn = c.say(http.StatusNotFound, nobodyAt(c.q.host.of(c.in.bytes())))
	} else {
		goOn = c.ask(ctx, s)
	}
	c.in.use(c.q.whole())
	return goOn && !c.q.closes
}

// next reads one request, with its body, to the beginning of c.in.
func (c *client) next(first bool) (verdict, error) {
	c.q.reset()
	timed := false // for this request alone
	head := 0
	for head == 0 {
		for bytes.HasPrefix(c.in.bytes(), crlf2[:2]) { // RFC 9112, 2.2
			c.in.use(2)
		}
		b := c.in.bytes()
		if i := bytes.Index(b, crlf2); i >= 0 {
			head = i + len(crlf2)
			break
		}
		if bytes.Contains(b, crlf2[1:2]) && bytes.Contains(b, []byte("\n\n")) {
			return c.q.no(http.StatusBadRequest, "a header line does not end with CR LF"), nil
		}
		if len(b) >= maxHead {
			return c.q.no(http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("request line and headers have more than %d bytes", maxHead)), nil
		}
		if err := c.more(&timed, c.p.limits.head, maxHead); err != nil {
			return refuse, err
		}
	}
	c.state.CompareAndSwap(resting, working)
	b := c.in.bytes()[:head]
	if first && string(b) == "PRI * HTTP/2.0\r\n\r\n" {
		return leave, nil
	}
	if v := c.q.parse(b, c.peer.trusted); v != serve {
		return v, nil
	}
	for c.in.size() < c.q.whole() {
		if err := c.more(&timed, c.p.limits.body, c.q.whole()); err != nil {
			return refuse, err
		}
	}
	if timed {
		c.until.at = 0
	}
	return serve, nil
}

// more reads more of a request, or waits for one to begin.
func (c *client) more(timed *bool, within time.Duration, most int) error {
	if c.in.size() == 0 {
		c.rest()
		c.until.atLeast(c.conn, c.p.now(), c.p.limits.idle)
		if c.state.Load() == leaving { // in this order, so that dismiss has the last word on the deadline
			return net.ErrClosed
		}
	} else if !*timed {
		*timed = true
		_ = c.conn.SetReadDeadline(time.Now().Add(within))
	}
	return c.in.fill(c.conn, most)
}

// rest gives back what only a long request needed.
func (c *client) rest() {
	if len(c.in.b) > smallBuffer {
		c.in.b = nil
	}
	if cap(c.out) > bigBuffer {
		c.out = nil
	}
}

// say answers by a sentence of our own. After a refusal the connection ends.
func (c *client) say(status int, sentence string) bool {
	closes := c.q.closes || status == c.q.status || status == http.StatusRequestTimeout || c.state.Load() == leaving
	b := append(c.out[:0], "HTTP/1.1 "...)
	b = fmt.Appendf(b, "%d %s\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\n",
		status, http.StatusText(status), len(sentence)+1)
	if closes {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "\r\n"...)
	if string(c.q.method.of(c.in.bytes())) != http.MethodHead {
		b = append(append(b, sentence...), '\n')
	}
	c.out = b
	return c.write(b) == nil && !closes
}

// write sends to the client.
func (c *client) write(b []byte) error {
	c.until.atLeast(c.conn, c.p.now(), c.p.limits.idle)
	_, err := c.conn.Write(b)
	return err
}

// close ends the connection. When it has sent more than was read, it gets a
// moment to read what it is told: the kernel would take that back.
func (c *client) close(unread bool) {
	defer c.p.guests.leave(c.guest)
	defer c.conn.Close()
	if w, ok := c.conn.(interface{ CloseWrite() error }); ok && unread && w.CloseWrite() == nil {
		_ = c.conn.SetReadDeadline(time.Now().Add(c.p.limits.linger))
		for n := 0; n < 4*maxHead; {
			m, err := c.conn.Read(c.in.b)
			if err != nil {
				return
			}
			n += m
		}
	}
}

package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// tunnel passes bytes in both directions after a backend has agreed to
// another protocol: WebSocket, for one.
func (c *client) tunnel(s *service, l *link, head []byte) {
	out := append(append(append(c.out[:0], "HTTP/1.1 "...), c.a.line.of(head)...), "\r\nConnection: Upgrade\r\nUpgrade: "...)
	out = append(append(out, c.a.upgrade.of(head)...), "\r\n"...)
	for _, k := range c.a.keep {
		out = append(out, k.of(head)...)
	}
	c.out = append(append(out, "\r\n"...), l.in.bytes()...)
	defer l.drop(c.p)
	if !c.heard(l) || c.write(c.out) != nil {
		return
	}
	s.moved(0, int64(l.in.size()))
	l.moved(0, int64(l.in.size()))
	early := c.in.bytes()[c.q.whole():]
	c.p.pipe(c.conn, l.conn, early, s, l.end)
}

// pipe passes bytes between a client and a backend until both have ended, or
// one was broken off. early are bytes that the client has sent already.
func (p *Proxy) pipe(client net.Conn, back *net.TCPConn, early []byte, s *service, e *end) {
	_ = client.SetDeadline(time.Time{})
	_ = back.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		n, err := back.Write(early)
		s.moved(int64(n), 0)
		e.moved(int64(n), 0)
		if err == nil {
			err = p.flow(back, client, func(n int64) { s.moved(n, 0); e.moved(n, 0) })
		}
		finish(back, client, err)
	})
	err := p.flow(client, back, func(n int64) { s.moved(0, n); e.moved(0, n) })
	finish(client, back, err)
}

// finish tells a side that the other has ended, or ends both.
func finish(to, from net.Conn, err error) {
	if w, ok := to.(interface{ CloseWrite() error }); err == nil && ok && w.CloseWrite() == nil {
		return
	}
	_ = to.SetDeadline(time.Unix(1, 0))
	_ = from.SetDeadline(time.Unix(1, 0))
}

// flow copies until from ends. Between TCP connections the kernel does it, a
// part at a time so that what has passed is counted.
func (p *Proxy) flow(to, from net.Conn, count func(int64)) error {
	a, plain := to.(*net.TCPConn)
	b, both := from.(*net.TCPConn)
	if plain && both {
		for {
			n, err := a.ReadFrom(io.LimitReader(b, countEach))
			count(n)
			if err != nil || n < countEach {
				return err
			}
		}
	}
	buf := p.buffers.get()
	defer p.buffers.put(buf)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			m, werr := to.Write(buf[:n])
			count(int64(m))
			err = errors.Join(err, werr)
			if werr != nil {
				return err
			}
		}
		if isEnd(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const countEach = 256 << 10

package proxy

import (
	"bytes"
	"errors"
	"strconv"
)

var errBody = errors.New("the body of the answer is malformed")

// relay passes the answer on, and says whether the client's connection is
// still of use. What has come is sent before more is waited for, so events
// are not held back.
func (c *client) relay(s *service, l *link, head []byte, bind bool) bool {
	closes := c.q.closes || c.state.Load() == leaving
	none := c.a.bodiless(c.q.method.of(c.in.bytes()))
	c.headOut(s, l, head, bind, closes, none)
	r := relaying{c: c, l: l}
	var err error
	switch {
	case none:
	case c.a.chunked:
		err = r.chunks()
	case c.a.length >= 0:
		err = r.length(c.a.length)
	default:
		err = r.untilEnd()
	}
	if !r.clientGone { // what came is passed on, also when more should have come
		err = errors.Join(err, r.flush())
	}
	s.moved(0, r.sent)
	l.moved(0, r.sent)
	if !c.heard(l) {
		l.drop(c.p)
		return false
	}
	if err != nil {
		l.drop(c.p)
		if !r.clientGone {
			s.errors.Add(1)
			l.errors.Add(1)
		}
		return false
	}
	l.done(c.p, c.a.lasts)
	return !closes
}

// headOut writes the head that the client gets to c.out.
func (c *client) headOut(s *service, l *link, head []byte, bind, closes, none bool) {
	out := append(append(append(c.out[:0], "HTTP/1.1 "...), c.a.line.of(head)...), "\r\n"...)
	for _, k := range c.a.keep {
		out = append(out, k.of(head)...)
	}
	switch {
	case c.a.length >= 0 && c.a.status != 204:
		out = append(strconv.AppendInt(append(out, "Content-Length: "...), c.a.length, 10), "\r\n"...)
	case !none:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	if bind {
		out = append(append(append(append(out, "Set-Cookie: "...), s.cookie...), '='), l.tag...)
		out = append(out, "; Path=/; HttpOnly; SameSite=Lax"...)
		if c.peer.secure {
			out = append(out, "; Secure"...)
		}
		out = append(out, "\r\n"...)
	}
	if closes {
		out = append(out, "Connection: close\r\n"...)
	}
	c.out = append(out, "\r\n"...)
}

// relaying is a body on its way.
type relaying struct {
	c          *client
	l          *link
	sent       int64 // of the body
	clientGone bool
}

// flush sends what has been gathered.
func (r *relaying) flush() error {
	if len(r.c.out) == 0 {
		return nil
	}
	err := r.c.write(r.c.out)
	r.clientGone = r.clientGone || err != nil
	r.c.out = r.c.out[:0]
	return err
}

// fill reads more of the answer.
func (r *relaying) fill() error {
	if err := r.flush(); err != nil {
		return err
	}
	for began := r.c.p.now(); ; {
		now := r.c.p.now()
		r.l.until.atLeast(r.l.conn, now, r.c.p.limits.answer)
		if r.c.asked.Load() != r.l { // in this order, so that depart has the last word on the deadline
			return errClient
		}
		err := r.l.in.fill(r.l.conn, bigBuffer)
		if !isTimeout(err) || now-began > int64(r.c.p.limits.silence) {
			return err
		}
	}
}

// length passes on a body of n bytes.
func (r *relaying) length(n int64) error {
	for n > 0 {
		if r.l.in.size() == 0 {
			if err := r.fill(); err != nil {
				return err
			}
		}
		part := r.l.in.bytes()
		part = part[:min(int64(len(part)), n)]
		if err := r.pass(part); err != nil {
			return err
		}
		r.l.in.use(len(part))
		n -= int64(len(part))
		r.sent += int64(len(part))
	}
	return nil
}

// pass sends bytes: together with what is gathered if they are few.
func (r *relaying) pass(part []byte) error {
	if len(r.c.out)+len(part) <= bigBuffer/2 {
		r.c.out = append(r.c.out, part...)
		return nil
	}
	if err := r.flush(); err != nil {
		return err
	}
	if err := r.c.write(part); err != nil {
		r.clientGone = true
		return err
	}
	return nil
}

// chunk sends bytes as a chunk.
func (r *relaying) chunk(part []byte) error {
	r.c.out = append(strconv.AppendInt(r.c.out, int64(len(part)), 16), "\r\n"...)
	if err := r.pass(part); err != nil {
		return err
	}
	r.c.out = append(r.c.out, "\r\n"...)
	r.sent += int64(len(part))
	return nil
}

// untilEnd passes on a body that ends with the connection.
func (r *relaying) untilEnd() error {
	r.c.a.lasts = false
	for {
		if part := r.l.in.bytes(); len(part) > 0 {
			if err := r.chunk(part); err != nil {
				return err
			}
			r.l.in.use(len(part))
		}
		err := r.fill()
		if isEnd(err) {
			r.c.out = append(r.c.out, "0\r\n\r\n"...)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// chunks passes on a chunked body with its trailers.
func (r *relaying) chunks() error {
	for {
		line, err := r.line()
		if err != nil {
			return err
		}
		n, ok := chunkSize(line)
		r.l.in.use(len(line) + 2)
		if !ok {
			return errBody
		}
		if n == 0 {
			return r.trailers()
		}
		for n > 0 {
			if r.l.in.size() == 0 {
				if err := r.fill(); err != nil {
					return err
				}
			}
			part := r.l.in.bytes()
			part = part[:min(int64(len(part)), n)]
			if err := r.chunk(part); err != nil {
				return err
			}
			r.l.in.use(len(part))
			n -= int64(len(part))
		}
		if line, err = r.line(); err != nil {
			return err
		}
		if len(line) > 0 {
			return errBody
		}
		r.l.in.use(2)
	}
}

// trailers passes on what follows the last chunk.
func (r *relaying) trailers() error {
	r.c.out = append(r.c.out, "0\r\n"...)
	for range 100 {
		line, err := r.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			r.l.in.use(2)
			r.c.out = append(r.c.out, "\r\n"...)
			return nil
		}
		name, _, ok := cut(line, 0, len(line))
		if !ok {
			return errBody
		}
		if known(name.of(line)) == isOther {
			r.c.out = append(append(r.c.out, line...), "\r\n"...)
		}
		r.l.in.use(len(line) + 2)
	}
	return errBody
}

// line is the next line without its end, which stays in the buffer.
func (r *relaying) line() ([]byte, error) {
	for {
		b := r.l.in.bytes()
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			if i == 0 || b[i-1] != '\r' {
				return nil, errBody
			}
			return b[:i-1], nil
		}
		if len(b) >= smallBuffer {
			return nil, errBody
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// chunkSize reads the line before a chunk. Extensions mean nothing here.
func chunkSize(line []byte) (int64, bool) {
	size, _, _ := bytes.Cut(line, []byte{';'})
	size = bytes.TrimRight(size, " \t")
	if len(size) == 0 || len(size) > 15 {
		return 0, false
	}
	var n int64
	for _, c := range size {
		d := unhex(c)
		if d < 0 {
			return 0, false
		}
		n = n<<4 + int64(d)
	}
	return n, true
}

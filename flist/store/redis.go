package store

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// resp is a redis or a 0-db: the raw name of a chunk is the key. One call has a connection for itself; connections are
// kept for the next.
type resp struct {
	network, addr string
	tls           *tls.Config
	hello         [][]string // said first on every connection

	mu     sync.Mutex // guards idle, closed
	idle   []*respConn
	closed bool
}

type respConn struct {
	net.Conn
	r     *bufio.Reader
	alive func() // of the call under way
	since time.Time
}

// maxIdle is how long a connection may have been unused to be trusted: what stands between us and the server may have
// forgotten it without a word.
const maxIdle = 30 * time.Second

// openRESP understands URLs as 0-fs, rfs and redis do: a path that is a number is a database of redis, any other a
// namespace of 0-db, whose password belongs to the namespace.
func openRESP(u *url.URL, opt Options) (*resp, error) {
	s := &resp{network: "tcp"}
	user, password := secret(u)
	ns := trimmed(u)
	zdb := u.Scheme == "zdb" || u.Scheme == "zdb+unix"
	switch u.Scheme {
	case "redis+unix", "zdb+unix":
		if u.Host != "" || len(u.Path) < 2 {
			return nil, errs.E(errs.Invalid, "a socket has three slashes: %s:///path", u.Scheme)
		}
		s.network, s.addr, ns = "unix", u.Path, u.Query().Get("namespace")
	default:
		port := map[string]string{"zdb": "9900", "ardb": "16379", "redis": "6379", "rediss": "6379"}[u.Scheme]
		addr, err := hostPort(u, port)
		if err != nil {
			return nil, err
		}
		s.addr = addr
	}
	if u.Scheme == "rediss" {
		s.tls = &tls.Config{ServerName: u.Hostname(), RootCAs: opt.RootCAs, MinVersion: tls.VersionTLS12}
	}
	_, notNumber := strconv.ParseUint(ns, 10, 16)
	switch {
	case ns != "" && (zdb || notNumber != nil):
		s.hello = [][]string{{"SELECT", ns}}
		if password != "" {
			s.hello[0] = append(s.hello[0], password)
		}
		return s, nil
	case password != "" && user != "" && !zdb:
		s.hello = append(s.hello, []string{"AUTH", user, password})
	case password != "":
		s.hello = append(s.hello, []string{"AUTH", password})
	}
	if ns != "" {
		s.hello = append(s.hello, []string{"SELECT", ns})
	}
	return s, nil
}

func (s *resp) get(ctx context.Context, id chunk.ID, c call) ([]byte, error) {
	a, err := s.ask(ctx, c, "GET", string(id))
	switch {
	case err != nil:
		return nil, err
	case a.kind == '$' && a.null:
		return nil, errs.E(errs.NotFound, "it is not there")
	case a.kind == '$':
		return a.data, nil
	}
	return nil, errRESP
}

// put asks first: a chunk is large and often there already.
func (s *resp) put(ctx context.Context, id chunk.ID, stored []byte, c call) error {
	a, err := s.ask(ctx, c, "EXISTS", string(id))
	if err != nil || a.kind == ':' && a.text != "0" {
		return err
	}
	a, err = s.ask(ctx, c, "SET", string(id), string(stored))
	if err != nil {
		return err
	}
	// redis says OK, 0-db the key, or nothing if the value was there already.
	if a.kind == '$' && len(a.data) > 0 && string(a.data) != string(id) {
		return refused("it keeps chunks under names of its own: a 0-db namespace in mode seq, where mode user is needed")
	}
	return nil
}

// ask sends a command and reads the answer. A kept connection that breaks without an answer may have been dead for long:
// then a fresh one is tried.
func (s *resp) ask(ctx context.Context, c call, args ...string) (reply, error) {
	for {
		conn, kept, err := s.conn(ctx, c)
		if err != nil {
			return reply{}, err
		}
		a, heard, err := conn.roundTrip(ctx, c, args)
		switch {
		case err == nil && a.kind == '-':
			s.keep(conn)
			return reply{}, refusal(a.text)
		case err == nil:
			s.keep(conn)
			return a, nil
		}
		_ = conn.Close()
		if !kept || heard || ctx.Err() != nil {
			return reply{}, err
		}
		s.drop() // the others were kept as long
	}
}

// conn is a connection for one call, new or kept.
func (s *resp) conn(ctx context.Context, c call) (conn *respConn, kept bool, err error) {
	s.mu.Lock()
	for n := len(s.idle); n > 0; n = len(s.idle) {
		conn = s.idle[n-1]
		s.idle = s.idle[:n-1]
		if time.Since(conn.since) < maxIdle && conn.quiet() {
			s.mu.Unlock()
			return conn, true, nil
		}
		_ = conn.Close()
	}
	s.mu.Unlock()
	raw, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, s.network, s.addr)
	if err != nil {
		return nil, false, err
	}
	if s.tls != nil {
		t := tls.Client(raw, s.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, false, errors.Join(err, raw.Close())
		}
		raw = t
	}
	conn = &respConn{Conn: raw}
	conn.r = bufio.NewReaderSize(conn, 4<<10)
	for _, h := range s.hello {
		a, _, err := conn.roundTrip(ctx, c, h)
		if err == nil && a.kind == '-' {
			err = refusal(strings.TrimSpace(h[0] + ": " + a.text))
		}
		if err != nil {
			_ = conn.Close()
			return nil, false, err
		}
	}
	return conn, false, nil
}

// Read tells the gate that bytes come.
func (c *respConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.alive()
	}
	return n, err
}

// quiet says that nothing has come that was not asked for: all answers after it would be those of the question before.
func (c *respConn) quiet() bool {
	if c.r.Buffered() > 0 {
		return false
	}
	raw, ok := c.Conn.(syscall.Conn)
	if !ok { // TLS has words of its own
		return true
	}
	sys, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = sys.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
	})
	return err == nil && quiet
}

// roundTrip says whether anything was heard before it broke.
func (c *respConn) roundTrip(ctx context.Context, cl call, args []string) (a reply, heard bool, err error) {
	c.alive = func() { heard = true; cl.alive() }
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil { // the deadline is or will be in the past
			err = ctx.Err()
		}
	}()
	if err := c.send(cl, args); err != nil {
		return reply{}, heard, err
	}
	a, err = readReply(c.r, cl)
	return a, heard, unexpected(err)
}

// send writes in pieces, so that a slow line is not taken for a dead one.
func (c *respConn) send(cl call, args []string) error {
	out := appendCommand(nil, args...)
	for len(out) > 0 {
		n, err := c.Write(out[:min(len(out), 64<<10)])
		if err != nil {
			return err
		}
		out = out[n:]
		cl.alive()
	}
	return nil
}

func (s *resp) keep(c *respConn) {
	c.since = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return
	}
	s.idle = append(s.idle, c)
}

// drop closes what is kept.
func (s *resp) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		_ = c.Close()
	}
	s.idle = nil
}

func (s *resp) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.drop()
	return nil
}

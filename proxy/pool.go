package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Connections to backends are kept while they are of use. Many servers close
// what has been idle for five seconds, so an older one is looked at first.
const (
	maxIdle  = 256 // of one end
	idleLink = 30 * time.Second
	freshFor = time.Second
)

// link is a connection to a backend, for one request at a time.
type link struct {
	*end
	conn  *net.TCPConn
	raw   syscall.RawConn
	in    buffer // borrowed while it is in use
	until deadline
	since int64 // when it became idle
	used  bool  // it has answered before
}

// pool has the idle links of an end, the newest last.
type pool struct {
	mu     sync.Mutex // guards the fields below
	idle   []*link
	closed bool // nothing is kept
}

// take is an idle link that the other side has not closed; nil: there is none.
func (p *pool) take(now int64, careful bool) *link {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		l := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if (careful || now-l.since > int64(freshFor)) && !l.quiet() {
			l.conn.Close()
			continue
		}
		return l
	}
}

// keep takes a link back.
func (p *pool) keep(l *link, now int64) {
	l.since, l.used = now, true
	p.mu.Lock()
	full := p.closed || len(p.idle) >= maxIdle
	if !full {
		p.idle = append(p.idle, l)
	}
	p.mu.Unlock()
	if full {
		l.conn.Close()
	}
}

// reopen has something new begin at an end.
func (e *end) reopen() {
	if !e.shut.Load() {
		return
	}
	e.shut.Store(false)
	e.pool.mu.Lock()
	e.closed = false
	e.pool.mu.Unlock()
}

// close has nothing new begin at an end. Connections that are idle end, others
// when they become so.
func (e *end) close() {
	e.shut.Store(true)
	e.pool.mu.Lock()
	old := e.idle
	e.idle, e.closed = nil, true
	e.pool.mu.Unlock()
	for _, l := range old {
		l.conn.Close()
	}
}

// sweep closes what has been idle for long, and says whether anything is left.
func (p *pool) sweep(now int64) bool {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now-p.idle[n].since > int64(idleLink) {
		n++
	}
	old := append([]*link(nil), p.idle[:n]...)
	p.idle = append(p.idle[:0], p.idle[n:]...)
	left := len(p.idle) > 0
	p.mu.Unlock()
	for _, l := range old {
		l.conn.Close()
	}
	return left
}

// quiet says whether an idle connection has nothing to say, not even that it
// has ended.
func (l *link) quiet() bool {
	quiet := false
	err := l.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		quiet = err == nil && n == 0
	})
	return err == nil && quiet
}

// dial makes a new link.
func (e *end) dial(ctx context.Context, within time.Duration) (*link, error) {
	d := net.Dialer{Timeout: within}
	c, err := d.DialTCP(ctx, "tcp", netip.AddrPort{}, e.addr)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, err
	}
	return &link{end: e, conn: c, raw: raw}, nil
}

// deadline is that of a connection, moved only when it is near: moving it at
// each request would cost more than reading the request.
type deadline struct{ at int64 }

// atLeast has the connection live for so long from now on.
func (d *deadline) atLeast(c net.Conn, now int64, least time.Duration) {
	if d.at-now < int64(least) {
		most := least + least/4
		d.at = now + int64(most)
		_ = c.SetDeadline(time.Now().Add(most)) // what is closed says so when it is used
	}
}

// buffer has the bytes from r to w that were read and not used.
type buffer struct {
	b    []byte
	r, w int
}

func (f *buffer) bytes() []byte { return f.b[f.r:f.w] }
func (f *buffer) size() int     { return f.w - f.r }

// use takes bytes away.
func (f *buffer) use(n int) {
	f.r += n
	if f.r == f.w {
		f.r, f.w = 0, 0
	}
}

// fill reads once. There is room for most bytes from r on.
func (f *buffer) fill(c net.Conn, most int) error {
	if f.r == f.w {
		f.r, f.w = 0, 0
	}
	if f.w == len(f.b) {
		f.room(most)
	}
	n, err := c.Read(f.b[f.w:])
	f.w += n
	if n > 0 {
		return nil // the next read says it again
	}
	return err
}

func (f *buffer) room(most int) {
	if f.r > 0 {
		f.w = copy(f.b, f.b[f.r:f.w])
		f.r = 0
		return
	}
	bigger := make([]byte, min(max(2*len(f.b), smallBuffer), max(most, smallBuffer)))
	copy(bigger, f.b[:f.w])
	f.b = bigger
}

const (
	smallBuffer = 4 << 10
	bigBuffer   = 32 << 10
	maxDatagram = 64 << 10
)

// bigBuffers are for answers, and for whatever is copied.
type bigBuffers struct{ pool sync.Pool }

func (b *bigBuffers) get() []byte {
	if v, ok := b.pool.Get().(*[bigBuffer]byte); ok {
		return v[:]
	}
	return make([]byte, bigBuffer)
}

func (b *bigBuffers) put(v []byte) {
	if len(v) == bigBuffer {
		b.pool.Put((*[bigBuffer]byte)(v))
	}
}

// Get and Put are what httputil.ReverseProxy calls them.
func (b *bigBuffers) Get() []byte { return b.get() }

// Put takes a buffer back.
func (b *bigBuffers) Put(v []byte) { b.put(v) }

// datagramBuffers hold one datagram each, whatever its length.
type datagramBuffers struct{ pool sync.Pool }

func (b *datagramBuffers) get() *[maxDatagram]byte {
	if v, ok := b.pool.Get().(*[maxDatagram]byte); ok {
		return v
	}
	return new([maxDatagram]byte)
}

func (b *datagramBuffers) put(v *[maxDatagram]byte) { b.pool.Put(v) }

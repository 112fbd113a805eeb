package tunnel

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// wire is the connection below a tunnel.
type wire struct {
	rw    io.ReadWriteCloser
	conn  net.Conn // what rw ends in, without TLS
	write time.Duration
	guard guard

	made time.Time
	last atomic.Int64 // when something was read, in nanoseconds after made
}

// newWire makes a wire of what is read and written, and the connection it belongs to.
func newWire(rw io.ReadWriteCloser, conn net.Conn, write time.Duration) *wire {
	for {
		t, ok := conn.(*tls.Conn)
		if !ok {
			break
		}
		conn = t.NetConn()
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetKeepAlive(false) // 25 KiB an hour for what pings find out, too
	}
	return &wire{rw: rw, conn: conn, write: write, made: time.Now()}
}

// heard is when something was read last.
func (w *wire) heard() time.Time { return w.made.Add(time.Duration(w.last.Load())) }

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.rw.Read(p)
	if n > 0 {
		now := time.Now()
		w.last.Store(int64(now.Sub(w.made)))
		if err := w.guard.pass(p[:n], now); err != nil {
			return 0, err
		}
	}
	return n, err
}

// Write fails when the other end takes nothing for too long; no stream can go on then.
func (w *wire) Write(p []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.write)); err != nil {
		return 0, err
	}
	return w.rw.Write(p)
}

// Close does not wait for TLS to say farewell.
func (w *wire) Close() error {
	err := w.conn.Close()
	_ = w.rw.Close() // which is closed by now
	return err
}

// guard looks at frames as they are read. yamux starts a goroutine for each
// ping: an end that sends them and does not read the answers would fill the
// memory of the other one.
type guard struct {
	head  [12]byte // version, type, flags (2), stream (4), length (4)
	have  int      // of head
	skip  uint32   // bytes of data until the next head
	pings int
	since time.Time // when pings were counted from
}

// An end may send so many pings in that time. Ours send a fifteenth.
const (
	maxPings   = 60
	pingWindow = time.Minute
)

// pass fails on bytes that yamux is better not given.
func (g *guard) pass(p []byte, now time.Time) error {
	for len(p) > 0 {
		if g.skip > 0 {
			n := min(uint64(len(p)), uint64(g.skip))
			p, g.skip = p[n:], g.skip-uint32(n)
			continue
		}
		n := copy(g.head[g.have:], p)
		p, g.have = p[n:], g.have+n
		if g.have < len(g.head) {
			return nil
		}
		g.have = 0
		switch g.head[1] {
		case 0:
			g.skip = binary.BigEndian.Uint32(g.head[8:])
		case 2:
			if now.Sub(g.since) > pingWindow {
				g.since, g.pings = now, 0
			}
			if g.pings++; g.pings > maxPings {
				return errs.E(errs.Invalid, "the other end of the tunnel sends more than %d pings a minute", maxPings)
			}
		}
	}
	return nil
}

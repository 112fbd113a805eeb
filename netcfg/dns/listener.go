package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxQuery is the largest query read: one has a question of at most 260
	// bytes and some options.
	maxQuery = 4096

	// Containers keep few connections open, and not for long.
	maxConns     = 128
	maxConnsEach = 16
	idleConn     = 10 * time.Second
	slowConn     = 3 * time.Second // to send a query, to take an answer

	// pause is how long a listener rests when the kernel has no memory or no
	// file for it.
	pause = 100 * time.Millisecond
)

// listener answers at one address.
type listener struct {
	s      *Server
	addr   netip.Addr
	udp    *net.UDPConn
	tcp    *net.TCPListener
	cancel context.CancelFunc // ends what is being asked for it
	wg     sync.WaitGroup
}

func (s *Server) open(ctx context.Context, addr netip.Addr) (*listener, error) {
	l := &listener{s: s, addr: addr}
	at := netip.AddrPortFrom(addr, s.cfg.Port)
	err := s.cfg.Enter(func() (err error) {
		if l.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		if l.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); err != nil {
			l.udp.Close()
		}
		return err
	})
	if err != nil {
		return nil, cannot(at, err)
	}
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx)) //nolint:gosec // close calls it
	l.wg.Go(func() { l.serveUDP(ctx) })
	l.wg.Go(func() { l.serveTCP(ctx) })
	return l, nil
}

// close returns when nothing of the listener is left.
func (l *listener) close() {
	l.cancel()
	l.udp.Close()
	l.tcp.Close()
	l.wg.Wait()
}

// serveUDP answers what it can from here. Only a query that has to be
// forwarded gets a goroutine, and there is a bound to those.
func (l *listener) serveUDP(ctx context.Context) {
	buf := make([]byte, maxQuery)
	for {
		n, from, err := l.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			rest(ctx)
			continue
		}
		if !l.s.cfg.Allow(l.addr, from.Addr().Unmap()) {
			continue
		}
		q, answer := read(buf[:n])
		if q != nil {
			answer = l.s.local(Asker{l.addr, from.Addr().Unmap()}, q)
		}
		if q != nil && answer == nil {
			done, ok := l.s.asked.take(from.Addr())
			if ok {
				l.wg.Go(func() {
					defer done()
					l.send(pack(q, l.s.forward(ctx, q), udpSize(q)), from)
				})
				continue
			}
			answer = refuse(q, busy)
		}
		if answer != nil {
			l.send(pack(q, answer, udpSize(q)), from)
		}
	}
}

// send loses an answer that cannot be sent, as the network may.
func (l *listener) send(wire []byte, to netip.AddrPort) {
	_, _ = l.udp.WriteToUDPAddrPort(wire, to)
}

func (l *listener) serveTCP(ctx context.Context) {
	for {
		c, err := l.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			rest(ctx)
			continue
		}
		client := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		done, ok := l.s.conns.take(client)
		if !ok {
			c.Close()
			continue
		}
		l.wg.Go(func() {
			defer done()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			if l.s.cfg.Allow(l.addr, client) {
				l.serveConn(ctx, c, client)
			}
		})
	}
}

// serveConn answers one query after the other, until the client has no more.
func (l *listener) serveConn(ctx context.Context, c net.Conn, client netip.Addr) {
	for {
		var size [2]byte
		_ = c.SetReadDeadline(time.Now().Add(idleConn))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint16(size[:])
		if n > maxQuery {
			return
		}
		wire := make([]byte, n)
		_ = c.SetReadDeadline(time.Now().Add(slowConn))
		if _, err := io.ReadFull(c, wire); err != nil {
			return
		}
		q, answer := read(wire)
		if q != nil {
			answer = l.s.local(Asker{l.addr, client.Unmap()}, q)
		}
		if q != nil && answer == nil {
			answer = refuse(q, busy)
			if done, ok := l.s.asked.take(client); ok {
				answer = l.s.forward(ctx, q)
				done()
			}
		}
		if answer == nil {
			return
		}
		wire = pack(q, answer, maxAnswerTCP)
		_ = c.SetWriteDeadline(time.Now().Add(slowConn))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)); err != nil {
			return
		}
	}
}

func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

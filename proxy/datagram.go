package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A session of UDP ends when nothing has come from either side for a time:
// what the kernel's connection tracking allows a flow that was answered, and
// one that was not.
const (
	answeredFor   = 2 * time.Minute
	unansweredFor = 30 * time.Second
	maxSessions   = 4096 // of one stream; each has a socket
)

// datagrams is a UDP stream's socket, with the sessions of its clients.
type datagrams struct {
	p    *Proxy
	door door
	conn *net.UDPConn
	any  bool // listens at all addresses, so that answers must name theirs

	mu       sync.Mutex // guards sessions
	sessions map[flow]*session
}

// flow tells sessions apart.
type flow struct {
	client netip.AddrPort
	at     netip.Addr // the address that the client has sent to; only if any
}

type session struct {
	flow
	service *service
	end     *end
	conn    *net.UDPConn
	control []byte       // has an answer leave from flow.at
	heard   atomic.Int64 // when either side was
	replied atomic.Bool
}

// openUDP listens at a door.
func (p *Proxy) openUDP(ctx context.Context, d door) (*datagrams, error) {
	u := &datagrams{p: p, door: d, any: d.at.Addr().IsUnspecified(), sessions: map[flow]*session{}}
	lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		if !u.any {
			return nil
		}
		var err error
		cerr := c.Control(func(fd uintptr) {
			if network == "udp6" {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			}
		})
		return errors.Join(cerr, err)
	}}
	c, err := lc.ListenPacket(ctx, network(d), d.at.String())
	if err != nil {
		return nil, err
	}
	u.conn = c.(*net.UDPConn)
	return u, nil
}

// serve takes datagrams until the socket is closed.
func (u *datagrams) serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer u.end(func(*session) bool { return true })
	buf, oob := make([]byte, 64<<10), make([]byte, 128)
	for {
		n, m, _, from, err := u.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(ctx)
			continue
		}
		f := flow{client: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
		if u.any {
			f.at = destination(oob[:m])
		}
		for range 2 { // a backend that is gone is noticed by sending to it
			s, fresh := u.session(ctx, f)
			if s == nil {
				break
			}
			if fresh {
				wg.Go(func() { u.replies(s) })
			}
			if u.send(s, buf[:n]) {
				break
			}
		}
	}
}

// session finds or makes the one of a client; nil: there can be none.
func (u *datagrams) session(ctx context.Context, f flow) (s *session, fresh bool) {
	u.mu.Lock()
	s, many := u.sessions[f], len(u.sessions) >= maxSessions
	u.mu.Unlock()
	many = many || u.p.sessions.Load() >= int64(u.p.guests.most/2)
	if s != nil && !s.end.gone.Load() {
		return s, false
	}
	if s != nil {
		u.forget(s)
	}
	svc := u.p.table.Load().stream(u.door)
	if svc == nil || many {
		return nil, false
	}
	svc.requests.Add(1)
	e := svc.enter(choice{client: f.client.Addr()}, u.p.now(), nil)
	if e == nil {
		svc.errors.Add(1)
		return nil, false
	}
	conn, err := (&net.Dialer{}).DialUDP(ctx, "udp", netip.AddrPort{}, e.addr)
	if err != nil {
		svc.errors.Add(1)
		e.end()
		u.p.blame(e, unsent)
		return nil, false
	}
	s = &session{flow: f, service: svc, end: e, conn: conn, control: source(f.at, u.door)}
	s.heard.Store(u.p.now())
	svc.active.Add(1)
	u.p.sessions.Add(1)
	u.mu.Lock()
	u.sessions[f] = s
	u.mu.Unlock()
	return s, true
}

// send passes a datagram on; false: the backend is gone, and so is the session.
func (u *datagrams) send(s *session, b []byte) bool {
	s.heard.Store(u.p.now())
	_, err := s.conn.Write(b)
	if errors.Is(err, syscall.ECONNREFUSED) {
		u.forget(s)
		u.p.blame(s.end, unsent)
		return false
	}
	if err == nil {
		s.service.moved(int64(len(b)), 0)
		s.end.moved(int64(len(b)), 0)
	}
	return true
}

// replies passes back what the backend sends, until the session ends.
func (u *datagrams) replies(s *session) {
	defer s.service.active.Add(-1)
	defer u.p.sessions.Add(-1)
	defer s.end.end()
	defer u.forget(s)
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		left := u.idle(s) - time.Duration(u.p.now()-s.heard.Load())
		if left <= 0 {
			return
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(left))
		// A buffer is held only while there is something to put into it.
		refused := false
		err := raw.Read(func(fd uintptr) bool {
			err := u.reply(s, int(fd))
			refused = errors.Is(err, unix.ECONNREFUSED)
			return !errors.Is(err, unix.EAGAIN)
		})
		if refused {
			u.p.blame(s.end, unsent)
		}
		if refused || err != nil && !isTimeout(err) {
			return
		}
	}
}

// idle is how long a session may be silent.
func (u *datagrams) idle(s *session) time.Duration {
	if s.replied.Load() {
		return answeredFor
	}
	return unansweredFor
}

// reply passes back one datagram, if there is one.
func (u *datagrams) reply(s *session, fd int) error {
	b := u.p.datagrams.get()
	defer u.p.datagrams.put(b)
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT)
	if err != nil {
		return err
	}
	if s.replied.CompareAndSwap(false, true) {
		s.end.worked()
	}
	s.heard.Store(u.p.now())
	s.service.moved(0, int64(n))
	s.end.moved(0, int64(n))
	_, _, _ = u.conn.WriteMsgUDPAddrPort(b[:n], s.control, s.client) // lost, as the network may
	return nil
}

// forget ends a session.
func (u *datagrams) forget(s *session) {
	u.mu.Lock()
	if u.sessions[s.flow] == s {
		delete(u.sessions, s.flow)
	}
	u.mu.Unlock()
	s.conn.Close()
}

// end ends the sessions that which names.
func (u *datagrams) end(which func(*session) bool) {
	u.mu.Lock()
	var list []*session
	for _, s := range u.sessions {
		if which(s) {
			list = append(list, s)
		}
	}
	u.mu.Unlock()
	for _, s := range list {
		u.forget(s)
	}
}

// destination is the address that a datagram was sent to.
func destination(oob []byte) netip.Addr {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return netip.Addr{}
		}
		if h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo {
			return netip.AddrFrom4([4]byte(data[4:8])) // ipi_spec_dst
		}
		if h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo {
			return netip.AddrFrom16([16]byte(data[:16])) // ipi6_addr
		}
		oob = rest
	}
	return netip.Addr{}
}

// source has a datagram sent from an address.
func source(from netip.Addr, d door) []byte {
	switch {
	case !from.IsValid():
		return nil
	case from.Is4() && d.at.Addr().Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.As16()})
}

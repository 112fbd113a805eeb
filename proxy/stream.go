package proxy

import (
	"context"
	"net"
	"time"
)

// carry connects a client of a stream with a backend.
func (p *Proxy) carry(ctx context.Context, c *net.TCPConn, d door) {
	g := p.guests.enter(c)
	if g == nil {
		return
	}
	g.state.Store(elsewhere)
	defer p.guests.leave(g)
	defer c.Close()
	who, early, err := p.meet(c, p.limits.silent)
	s := p.table.Load().stream(d)
	if err != nil || s == nil {
		return
	}
	s.begin()
	defer s.end()
	s.budget.earn()
	began := p.now()
	l := p.connect(ctx, s, choice{client: who.from.Addr()})
	if l == nil {
		s.errors.Add(1)
		return
	}
	defer l.end.end()
	defer l.conn.Close()
	took := time.Duration(p.now() - began)
	s.latency.record(took)
	l.latency.record(took)
	if s.sendProxy {
		if _, err := l.conn.Write(proxy2(who.from, who.at)); err != nil {
			return
		}
	}
	p.pipe(c, l.conn, early, s, l.end)
}

// connect finds a backend that accepts; nil: none does.
func (p *Proxy) connect(ctx context.Context, s *service, by choice) *link {
	var tried [maxRetries + 1]*end
	for n := range tried {
		e := s.enter(by, p.now(), tried[:n])
		if e == nil {
			return nil
		}
		tried[n] = e
		l, err := e.dial(ctx, p.limits.connect)
		if err == nil {
			e.worked()
			return l
		}
		e.end()
		p.blame(e, unsent)
		if !s.budget.take() {
			return nil
		}
		s = s.newest()
	}
	return nil
}

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Run answers until ctx ends. Then nothing new is taken, requests under way
// have a time to end, and Run returns when all has stopped.
func (p *Proxy) Run(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	doors, err := p.openDoors(ctx)
	if err != nil {
		return err
	}
	p.guests.most = room()
	p.lobby = &lobby{c: make(chan net.Conn), gone: make(chan struct{})}
	p.h1, p.h2c = p.transports()
	defer p.h1.CloseIdleConnections()
	defer p.h2c.CloseIdleConnections()
	srv := p.server(base)

	var wg sync.WaitGroup
	for _, d := range doors {
		wg.Go(func() { accept(base, d.listener, &wg, func(c *net.TCPConn) { p.greet(base, c, d.secure) }) })
	}
	wg.Go(func() { _ = srv.Serve(p.lobby) })
	wg.Go(func() { p.watch(base) })
	open := &opened{p: p, wg: &wg, doors: doors, at: map[door]listening{}, blocked: map[door]struct{}{}}
	p.attend(ctx, base, open)

	for _, d := range doors {
		d.listener.Close()
	}
	open.close()
	p.depart(base, cut, srv, &wg)
	for e := range p.ends() {
		e.close()
	}
	return nil
}

// attend opens streams as the table has them, whenever it was changed.
func (p *Proxy) attend(ctx, base context.Context, open *opened) {
	serving := make(chan struct{})
	defer close(serving)
	p.mu.Lock()
	p.serving = serving
	p.mu.Unlock()
	var all []door
	for list := range p.table.Load().streams.all() {
		for _, o := range list {
			all = append(all, o.door)
		}
	}
	if err := open.settle(base, all); err != nil {
		p.cfg.Log.Warn("a stream is not served until its port is free and routes are set again", "error", err)
	}
	p.opened.Store(open)
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-p.asks:
			a.done <- open.settle(base, a.doors)
		}
	}
}

// depart lets requests end, for a while, and cuts off the others.
func (p *Proxy) depart(base context.Context, cut func(), srv *http.Server, wg *sync.WaitGroup) {
	grace, cancel := context.WithTimeout(base, p.limits.drain)
	defer cancel()
	p.guests.dismiss()
	_ = srv.Shutdown(grace) // what is left is closed below
	for p.guests.any() && grace.Err() == nil {
		select {
		case <-grace.Done():
		case <-time.After(p.limits.look / 20):
		}
		p.guests.dismiss()
	}
	cut()
	p.guests.cut()
	_ = srv.Close()
	wg.Wait()
}

// httpDoor is where HTTP is answered.
type httpDoor struct {
	listener *net.TCPListener
	secure   bool
}

// openDoors opens all or none.
func (p *Proxy) openDoors(ctx context.Context) (doors []httpDoor, err error) {
	if len(p.cfg.HTTPS) > 0 {
		if err := p.certs.load(); err != nil {
			return nil, err
		}
	}
	for i, text := range slices.Concat(p.cfg.HTTP, p.cfg.HTTPS) {
		d, err := doorAt(text)
		if err != nil {
			return nil, err
		}
		var l *net.TCPListener
		if l, err = listen(ctx, d); err != nil {
			for _, other := range doors {
				other.listener.Close()
			}
			return nil, cannot(d, "HTTP", err)
		}
		doors = append(doors, httpDoor{l, i >= len(p.cfg.HTTP)})
	}
	return doors, nil
}

func listen(ctx context.Context, d door) (*net.TCPListener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network(d), d.at.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// network is what package net calls it: 0.0.0.0 is IPv4 alone, [::] is both.
func network(d door) string {
	switch {
	case d.at.Addr().Is4():
		return d.proto + "4"
	case d.at.Addr().IsUnspecified():
		return d.proto
	}
	return d.proto + "6"
}

// cannot is why a port is not open.
func cannot(d door, whose string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return errs.E(errs.Unavailable, "listen at %s %s for %s: another program listens there: %w", d.proto, d.at, whose, err)
	}
	return errs.E(errs.Unavailable, "listen at %s %s for %s: %w", d.proto, d.at, whose, err)
}

// accept gives each connection a goroutine, until the listener is closed.
func accept(ctx context.Context, l *net.TCPListener, wg *sync.WaitGroup, serve func(*net.TCPConn)) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(ctx)
			continue
		}
		wg.Go(func() { serve(c) })
	}
}

// pause is for when the kernel has no memory or no file for us.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// greet takes a client in at a door of HTTP.
func (p *Proxy) greet(ctx context.Context, tcp *net.TCPConn, secure bool) {
	g := p.guests.enter(tcp)
	if g == nil {
		return
	}
	p.wake()
	who, early, err := p.meet(tcp, p.limits.head)
	if err != nil {
		tcp.Close()
		p.guests.leave(g)
		return
	}
	who.secure = secure
	c := &client{p: p, guest: g, conn: tcp, peer: who, in: buffer{b: slices.Clip(early), w: len(early)}}
	if !secure {
		c.serve(ctx)
		return
	}
	t := tls.Server(&handed{Conn: tcp, pre: early, peer: who, leave: func() {}}, p.certs.current())
	c.conn, c.in = t, buffer{}
	_ = tcp.SetDeadline(time.Now().Add(p.limits.head))
	err = t.HandshakeContext(ctx)
	_ = tcp.SetDeadline(time.Time{})
	switch {
	case err != nil:
		p.cfg.Log.Debug("a client speaks no TLS", "client", who.from, "error", err)
		c.close(false)
	case t.ConnectionState().NegotiatedProtocol == "h2":
		p.hand(c)
	default:
		c.serve(ctx)
	}
}

// wake has the watch look again.
func (p *Proxy) wake() {
	select {
	case p.stir <- struct{}{}:
	default:
	}
}

// opened are ports that are open. Run's goroutine alone changes them.
type opened struct {
	p       *Proxy
	wg      *sync.WaitGroup
	doors   []httpDoor
	blocked map[door]struct{} // could not be opened

	mu sync.Mutex // guards at
	at map[door]listening
}

type listening struct {
	io.Closer
	addr net.Addr
}

// settle opens and closes ports until these, and those that could not be opened
// before, are as the table has them. What still cannot is in the error, all else
// is done.
func (o *opened) settle(ctx context.Context, doors []door) error {
	t := o.p.table.Load()
	for _, d := range doors {
		if l, open := o.at[d]; open && t.stream(d) == nil {
			l.Close()
			o.note(d, nil)
		}
	}
	doors = slices.AppendSeq(doors, maps.Keys(o.blocked))
	clear(o.blocked)
	var failed []string
	for _, d := range doors {
		s := t.stream(d)
		if _, open := o.at[d]; open || s == nil {
			continue
		}
		l, err := o.open(ctx, d)
		if err != nil {
			o.blocked[d] = struct{}{}
			failed = append(failed, cannot(d, "app "+s.name, err).Error())
			continue
		}
		o.note(d, l)
	}
	o.p.blocked.Store(len(o.blocked) > 0)
	if len(failed) == 0 {
		return nil
	}
	slices.Sort(failed)
	return errs.E(errs.Unavailable, "%s", strings.Join(failed, "; "))
}

// note is what is at a door now; nil: nothing.
func (o *opened) note(d door, l *listening) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l == nil {
		delete(o.at, d)
	} else {
		o.at[d] = *l
	}
}

func (o *opened) open(ctx context.Context, d door) (*listening, error) {
	if d.proto == "udp" {
		u, err := o.p.openUDP(ctx, d)
		if err != nil {
			return nil, err
		}
		o.wg.Go(func() { u.serve(ctx) })
		return &listening{u.conn, u.conn.LocalAddr()}, nil
	}
	l, err := listen(ctx, d)
	if err != nil {
		return nil, err
	}
	o.wg.Go(func() { accept(ctx, l, o.wg, func(c *net.TCPConn) { o.p.carry(ctx, c, d) }) })
	return &listening{l, l.Addr()}, nil
}

func (o *opened) close() {
	for _, l := range o.at {
		l.Close()
	}
}

// Addrs is where the proxy listens; nowhere before Run.
func (p *Proxy) Addrs() Addrs {
	o := p.opened.Load()
	if o == nil {
		return Addrs{}
	}
	a := Addrs{Streams: map[string][]netip.AddrPort{}}
	for _, d := range o.doors {
		at := addrOf(d.listener.Addr())
		if d.secure {
			a.HTTPS = append(a.HTTPS, at)
		} else {
			a.HTTP = append(a.HTTP, at)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for one := range p.table.Load().apps.all() {
		for _, d := range one.now.Load().doors {
			var at netip.AddrPort
			if l, ok := o.at[d]; ok {
				at = addrOf(l.addr)
			}
			a.Streams[one.name] = append(a.Streams[one.name], at)
		}
	}
	return a
}

// blame counts a failure of a backend, and says so when it is left out.
func (p *Proxy) blame(e *end, why failure) {
	if rest, out := e.failed(p.now()); out {
		p.cfg.Log.Warn("a backend has failed and is left out for a while",
			slog.String("app", e.app.name), slog.String("backend", e.id), slog.String("last", why.String()), slog.Duration("for", rest))
	}
}

// judge goes by the status of an answer: those of a proxy without a backend,
// or of an app that can do no more, are failures.
func (p *Proxy) judge(e *end, status int, took time.Duration) {
	e.latency.record(took)
	switch {
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		p.blame(e, refused)
	case status >= 500:
		e.errors.Add(1)
		e.worked()
	default:
		e.worked()
	}
}

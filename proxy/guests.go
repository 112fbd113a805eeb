package proxy

import (
	"context"
	"iter"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a connection of HTTP/1.1 is doing, for the end of Run.
const (
	resting int32 = iota // between requests
	working
	leaving   // it ends after the present request
	elsewhere // net/http has it, or it is not HTTP
)

// guest is a connection that a client has made.
type guest struct {
	tcp   *net.TCPConn
	state atomic.Int32
	// asked is the link on which an answer is awaited. The watch puts departed
	// there when the client has gone away.
	asked atomic.Pointer[link]
	turns atomic.Uint32 // how often asked was set
	seen  uint32        // turns at the last look; the watch's
}

var departed = &link{}

// asks says that an answer is awaited from now on.
func (g *guest) asks(l *link) {
	g.asked.Store(l)
	g.turns.Add(1)
}

// heard says that it no longer is; false: the client has gone away and the
// link was cut off.
func (g *guest) heard(l *link) bool { return g.asked.CompareAndSwap(l, nil) }

// guests are all connections of clients. They are bounded, since each takes
// files of a process that has other things to do as well.
type guests struct {
	mu   sync.Mutex // guards the fields below
	all  map[*guest]struct{}
	most int
	full bool // no more come in
}

// enter takes a connection in; nil: there are too many, and it is closed.
func (s *guests) enter(c *net.TCPConn) *guest {
	g := &guest{tcp: c}
	s.mu.Lock()
	ok := len(s.all) < s.most && !s.full
	if ok {
		s.all[g] = struct{}{}
	}
	s.mu.Unlock()
	if !ok {
		c.Close()
		return nil
	}
	return g
}

func (s *guests) leave(g *guest) {
	s.mu.Lock()
	delete(s.all, g)
	s.mu.Unlock()
}

func (s *guests) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all) > 0
}

// list is who is there.
func (s *guests) list(to []*guest) []*guest {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.all {
		to = append(to, g)
	}
	return to
}

// dismiss ends connections without a request, and others after it.
func (s *guests) dismiss() {
	for _, g := range s.list(nil) {
		if g.state.CompareAndSwap(resting, leaving) {
			_ = g.tcp.SetReadDeadline(time.Unix(1, 0))
		}
		g.state.CompareAndSwap(working, leaving)
	}
}

// cut ends all at once, and whoever comes. Run's context has ended before, so
// that a request that is not seen here sees that.
func (s *guests) cut() {
	s.mu.Lock()
	s.full = true
	s.mu.Unlock()
	for _, g := range s.list(nil) {
		g.tcp.Close()
		if l := g.asked.Load(); l != nil {
			g.depart(l)
		}
	}
}

// depart has whoever waits for an answer learn that the client has gone.
func (g *guest) depart(l *link) {
	if l != departed && g.asked.CompareAndSwap(l, departed) {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// room is how many connections there may be: each may need another to a
// backend, and the rest of the process some, too.
func room() int {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) != nil {
		return 400
	}
	return int(min(max(lim.Cur/5*2, 64), 100_000))
}

// watch looks for clients that have gone away while an answer is awaited, so
// that no backend works for nobody, and closes what is idle for too long. It
// rests while there is nothing to look at.
func (p *Proxy) watch(ctx context.Context) {
	tick := time.NewTicker(p.limits.look)
	defer tick.Stop()
	var list []*guest
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list = p.guests.list(list[:0])
		for _, g := range list {
			g.look()
		}
		clear(list)
		if !p.sweep() && len(list) == 0 {
			tick.Stop()
			select {
			case <-ctx.Done():
				return
			case <-p.stir:
			}
			tick.Reset(p.limits.look)
		}
	}
}

// look ends the wait for an answer when the client has gone away. It asks the
// kernel only if the wait was there at the last look.
func (g *guest) look() {
	l := g.asked.Load()
	turns := g.turns.Load()
	if l == nil || l == departed || turns != g.seen {
		g.seen = turns
		return
	}
	raw, err := g.tcp.SyscallConn()
	if err != nil {
		return
	}
	left := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		left = err == nil && n > 0
	})
	if err == nil && left {
		g.depart(l)
	}
}

// ends are those of all apps.
func (p *Proxy) ends() iter.Seq[*end] {
	return func(yield func(*end) bool) {
		for a := range p.table.Load().apps.all() {
			for e := range a.now.Load().ends {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// sweep closes idle connections to backends, and says whether some are left.
func (p *Proxy) sweep() bool {
	now := p.now()
	left := false
	for e := range p.ends() {
		left = e.sweep(now) || left
	}
	return left
}

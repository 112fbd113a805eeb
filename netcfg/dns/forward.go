package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// Each query that is forwarded holds a socket and some 10 KiB.
	maxAsked     = 256
	maxAskedEach = 64

	// Clients of the C libraries give up after 5 s: they hear from us before.
	patience     = 4500 * time.Millisecond
	patienceEach = 1500 * time.Millisecond

	// shunned is how long an upstream that did not answer is asked last.
	shunned = 20 * time.Second
)

// forward asks the upstreams for what we do not know. It always has an answer.
func (s *Server) forward(ctx context.Context, q *dns.Msg) *dns.Msg {
	all := s.cfg.Upstream()
	others := slices.DeleteFunc(slices.Clone(all), s.isSelf)
	if len(others) == 0 {
		if len(all) > 0 {
			return refuse(q, dns.RcodeRefused)
		}
		return refuse(q, dns.RcodeServerFailure)
	}
	if s.ups.set(others) {
		s.cache.clear()
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sent := outgoing(q)
	best := refuse(q, dns.RcodeServerFailure)
	// Packets get lost: who has not answered is asked once more.
	for range 2 {
		for _, u := range s.ups.order(others, time.Now()) {
			m, err := s.ask(ctx, u, sent)
			if ctx.Err() != nil {
				return best
			}
			if s.ups.note(u, err == nil, time.Now()) {
				s.cfg.Log.Warn("upstream resolver", "address", u, "answers", err == nil, "error", err)
			}
			if err != nil {
				continue
			}
			m.Id, m.Question, m.RecursionDesired = q.Id, q.Question, q.RecursionDesired
			m.Authoritative, m.RecursionAvailable = false, true
			if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
				s.cache.put(q, m, time.Now())
				return m
			}
			best = m
			others = slices.DeleteFunc(others, func(o netip.AddrPort) bool { return o == u })
		}
	}
	return best
}

// outgoing is the query as we ask it. Nothing of the client's is in it but
// what it wants to know.
func outgoing(q *dns.Msg) *dns.Msg {
	m := &dns.Msg{Question: q.Question}
	m.RecursionDesired = true
	m.CheckingDisabled, m.AuthenticatedData = q.CheckingDisabled, q.AuthenticatedData
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(maxAnswerUDP, opt.Do())
	}
	return m
}

// ask asks one upstream, by TCP if the answer is too long for UDP.
func (s *Server) ask(ctx context.Context, upstream netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	m, err := s.exchange(ctx, "udp", upstream, q)
	if err == nil && m.Truncated {
		if whole, err := s.exchange(ctx, "tcp", upstream, q); err == nil {
			return whole, nil
		}
	}
	return m, err
}

// exchange sends q under an id and from a port that nobody can guess, and
// waits for the answer to it; what else arrives is passed over.
func (s *Server) exchange(ctx context.Context, network string, upstream netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceEach)
	defer cancel()
	var c net.Conn
	err := s.cfg.Enter(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, upstream.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()

	sent := *q
	sent.Id = dns.Id()
	conn := dns.Conn{Conn: c}
	if err := conn.WriteMsg(&sent); err != nil {
		return nil, err
	}
	buf := make([]byte, dns.DefaultMsgSize)
	if network == "tcp" {
		buf = make([]byte, dns.MaxMsgSize)
	}
	for {
		n, err := conn.Read(buf)
		if cause := ctx.Err(); cause != nil {
			return nil, fmt.Errorf("no answer: %w", cause)
		}
		if err != nil {
			return nil, err
		}
		m := &dns.Msg{}
		switch err := m.Unpack(buf[:n]); {
		case err == nil && answers(m, &sent):
			return m, nil
		case network == "tcp":
			return nil, errors.New("its answer is not to what was asked")
		}
	}
}

// answers says whether m is the answer to q.
func answers(m, q *dns.Msg) bool {
	return m.Id == q.Id && m.Response && m.Opcode == dns.OpcodeQuery && len(m.Question) == 1 &&
		m.Question[0].Qtype == q.Question[0].Qtype && m.Question[0].Qclass == q.Question[0].Qclass &&
		strings.EqualFold(m.Question[0].Name, q.Question[0].Name)
}

// upstreams remembers which of them do not answer. Nothing asks them but
// queries.
type upstreams struct {
	mu     sync.Mutex // guards the fields below
	list   []netip.AddrPort
	silent map[netip.AddrPort]time.Time // since when
}

// set says whether list is another than before.
func (u *upstreams) set(list []netip.AddrPort) (changed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.Equal(u.list, list) {
		return false
	}
	u.list, u.silent = slices.Clone(list), map[netip.AddrPort]time.Time{}
	return true
}

// order is list with those that did not answer of late at its end.
func (u *upstreams) order(list []netip.AddrPort, now time.Time) []netip.AddrPort {
	u.mu.Lock()
	defer u.mu.Unlock()
	late := func(a netip.AddrPort) int {
		if t, ok := u.silent[a]; ok && now.Sub(t) < shunned {
			return 1
		}
		return 0
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b netip.AddrPort) int { return late(a) - late(b) })
	return list
}

// note keeps whether an upstream has answered, and says whether that is news.
func (u *upstreams) note(a netip.AddrPort, answered bool, now time.Time) (news bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, was := u.silent[a]
	switch {
	case answered:
		delete(u.silent, a)
		return was
	case slices.Contains(u.list, a):
		u.silent[a] = now
		return !was
	}
	return false
}

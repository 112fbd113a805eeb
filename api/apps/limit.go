package apps

import (
	"container/list"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Limits are how many requests one address may make. Clients on this machine
// are counted and never refused.
type Limits struct {
	PerHour   int // default 1000; below 0: any
	PerMinute int // default 100; below 0: any
}

// maxVisitors bounds what is remembered of clients, some 150 bytes each. Beyond
// it who was first seen longest ago begins anew.
const maxVisitors = 20_000

// limiter counts the requests of each address in windows that begin with its
// first request.
type limiter struct {
	hour, minute int

	mu     sync.Mutex // guards what follows
	known  map[netip.Prefix]*list.Element
	oldest *list.List // of *visitor, by the begin of their hours
}

type visitor struct {
	from         netip.Prefix
	hour, minute window
}

type window struct {
	since time.Time
	n     int
}

// verdict is what the headers say of the window that is nearer to its end.
type verdict struct {
	allowed          bool
	limit, remaining int
	reset            time.Time
}

func newLimiter(l Limits) *limiter {
	if l.PerHour == 0 {
		l.PerHour = 1000
	}
	if l.PerMinute == 0 {
		l.PerMinute = 100
	}
	return &limiter{hour: l.PerHour, minute: l.PerMinute, known: map[netip.Prefix]*list.Element{}, oldest: list.New()}
}

// take counts a request. One that is refused is not counted; one from here never is.
func (l *limiter) take(from netip.Prefix, here bool, now time.Time) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.visitor(from, now)
	if now.Sub(v.minute.since) >= time.Minute {
		v.minute = window{since: now}
	}
	hour := verdict{allowed: l.hour < 0 || v.hour.n < l.hour, limit: l.hour, reset: v.hour.since.Add(time.Hour)}
	minute := verdict{allowed: l.minute < 0 || v.minute.n < l.minute, limit: l.minute, reset: v.minute.since.Add(time.Minute)}
	if here || hour.allowed && minute.allowed {
		v.hour.n++
		v.minute.n++
	}
	hour.remaining = max(0, hour.limit-v.hour.n)
	if here {
		hour.allowed = true
		return hour
	}
	// The document shows the hour; the minute only where it is what stops one.
	if hour.allowed && !minute.allowed || l.hour < 0 && l.minute >= 0 {
		minute.remaining = max(0, minute.limit-v.minute.n)
		return minute
	}
	return hour
}

// visitor finds the record of an address. The caller holds mu.
func (l *limiter) visitor(from netip.Prefix, now time.Time) *visitor {
	if e, ok := l.known[from]; ok {
		v, _ := e.Value.(*visitor)
		if now.Sub(v.hour.since) >= time.Hour {
			v.hour = window{since: now}
			l.oldest.MoveToBack(e)
		}
		return v
	}
	if len(l.known) >= maxVisitors {
		v, _ := l.oldest.Remove(l.oldest.Front()).(*visitor)
		delete(l.known, v.from)
	}
	v := &visitor{from: from, hour: window{since: now}, minute: window{since: now}}
	l.known[from] = l.oldest.PushBack(v)
	return v
}

// origin is whom a request is counted for: an address, of IPv6 its network.
// Nothing is a unix socket.
func origin(r *http.Request) (from netip.Prefix, here bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}, true
	}
	addr := peer.Addr().Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	from, _ = addr.Prefix(bits)
	return from, addr.IsLoopback()
}

// limited refuses those who ask too often, and tells all how often they may.
func (d *Dialect) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, here := origin(r)
		now := time.Now()
		v := d.limit.take(from, here, now)
		if v.limit >= 0 {
			w.Header().Set("X-RateLimit-Limit", strconv.Itoa(v.limit))
			w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(v.remaining))
			w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(v.reset.Unix(), 10))
		}
		if v.allowed {
			next.ServeHTTP(w, r)
			return
		}
		wait := int(v.reset.Sub(now)/time.Second) + 1
		w.Header().Set("Retry-After", strconv.Itoa(wait))
		answer(w, rateLimit, errorObject{Details: fmt.Sprintf("%d requests are allowed in this time; go on in %d s", v.limit, wait)})
	})
}
